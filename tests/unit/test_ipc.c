/* SPDX-License-Identifier: Apache-2.0 */
/* Session and manager over a real socketpair: what passes, what is refused. */
#include "gateway/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vchan-transport/fdpass.h"

#define LIMIT_MS 2000

struct pair {
	int session;
	int manager;
};

static struct pair open_pair(void)
{
	int fds[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	return (struct pair){ .session = fds[0], .manager = fds[1] };
}

static void close_pair(struct pair *pair)
{
	(void)close(pair->session);
	(void)close(pair->manager);
}

static void a_request_arrives_as_it_was_asked(void **state)
{
	struct pair pair = open_pair();
	struct ipc_request request;

	(void)state;
	assert_int_equal(ipc_ask(pair.session, IPC_LIST, NULL), 0);
	assert_int_equal(ipc_ask(pair.session, IPC_OPEN, "1-1.2"), 0);

	assert_int_equal(ipc_receive_request(pair.manager, &request), 1);
	assert_int_equal(request.type, IPC_LIST);
	assert_int_equal(ipc_receive_request(pair.manager, &request), 1);
	assert_int_equal(request.type, IPC_OPEN);
	assert_string_equal(request.busid, "1-1.2");
	assert_int_equal(ipc_receive_request(pair.manager, &request), -EAGAIN);

	(void)close(pair.session);
	assert_int_equal(ipc_receive_request(pair.manager, &request), 0);
	(void)close(pair.manager);
}

static void a_bus_id_that_is_too_long_is_not_asked_for(void **state)
{
	struct pair pair = open_pair();

	(void)state;
	assert_int_equal(ipc_ask(pair.session, IPC_OPEN,
				 "12345678901234567890123456789012"),
			 -EINVAL);
	close_pair(&pair);
}

static int receive_raw(const void *bytes, size_t num_bytes)
{
	struct pair pair = open_pair();
	struct ipc_request request;
	int r;

	assert_int_equal(send(pair.session, bytes, num_bytes, 0), num_bytes);
	r = ipc_receive_request(pair.manager, &request);
	close_pair(&pair);
	return r;
}

static void a_malformed_request_is_refused(void **state)
{
	struct ipc_request request = { .type = IPC_OPEN, .busid = "x" };
	char longer[sizeof(request) + 1] = { 0 };

	(void)state;
	assert_int_equal(receive_raw(&request, sizeof(request)), 1);
	assert_int_equal(receive_raw(&request, sizeof(request) - 1), -EBADMSG);
	memcpy(longer, &request, sizeof(request));
	assert_int_equal(receive_raw(longer, sizeof(longer)), -EBADMSG);

	request.type = IPC_OPENED;
	assert_int_equal(receive_raw(&request, sizeof(request)), -EBADMSG);
	request.type = IPC_OPEN;
	memset(request.busid, 'x', sizeof(request.busid));
	assert_int_equal(receive_raw(&request, sizeof(request)), -EBADMSG);
}

static void descriptors_sent_with_a_request_are_not_kept(void **state)
{
	struct ipc_request request = { .type = IPC_LIST };
	struct pair pair = open_pair();
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int next;

	(void)state;
	assert_int_equal(fdpass_send(pair.session, &request, sizeof(request),
				     &fd, 1),
			 0);
	assert_int_equal(ipc_receive_request(pair.manager, &request), 1);

	next = dup(fd);
	assert_int_equal(next, fd + 1);
	(void)close(next);
	(void)close(fd);
	close_pair(&pair);
}

static bool is_same_file(int a, int b)
{
	struct stat sa;
	struct stat sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 &&
	       sa.st_rdev == sb.st_rdev && sa.st_ino == sb.st_ino;
}

static void an_opened_device_comes_with_its_descriptor_and_lock(void **state)
{
	struct ipc_answer answer = { .type = IPC_OPENED,
				     .kind = IPC_KIND_DISK,
				     .is_read_only = true,
				     .serial = "stick" };
	struct pair pair = open_pair();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	int device = -1;
	int lock = -1;

	(void)state;
	assert_int_equal(ipc_answer(pair.manager, &answer, null, zero), 0);
	memset(&answer, 0, sizeof(answer));
	assert_int_equal(ipc_receive_answer(pair.session, &answer, &device,
					    &lock, LIMIT_MS),
			 0);
	assert_int_equal(answer.kind, IPC_KIND_DISK);
	assert_true(answer.is_read_only);
	assert_string_equal(answer.serial, "stick");
	assert_true(is_same_file(device, null));
	assert_true(is_same_file(lock, zero));
	(void)close(device);
	(void)close(lock);

	answer.kind = IPC_KIND_ZERO;
	assert_int_equal(ipc_answer(pair.manager, &answer, -1, zero), 0);
	assert_int_equal(ipc_receive_answer(pair.session, &answer, &device,
					    &lock, LIMIT_MS),
			 0);
	assert_int_equal(device, -1);
	assert_true(is_same_file(lock, zero));
	(void)close(lock);

	(void)close(null);
	(void)close(zero);
	close_pair(&pair);
}

static void
an_answer_with_the_wrong_number_of_descriptors_is_refused(void **state)
{
	struct ipc_answer answer = { .type = IPC_OPENED, .kind = IPC_KIND_USB };
	struct pair pair = open_pair();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int device;
	int lock;

	(void)state;
	assert_int_equal(ipc_answer(pair.manager, &answer, -1, null), 0);
	assert_int_equal(ipc_receive_answer(pair.session, &answer, &device,
					    &lock, LIMIT_MS),
			 -EBADMSG);
	answer.type = IPC_END;
	assert_int_equal(ipc_answer(pair.manager, &answer, -1, null), 0);
	assert_int_equal(ipc_receive_answer(pair.session, &answer, &device,
					    &lock, LIMIT_MS),
			 -EBADMSG);
	(void)close(null);
	close_pair(&pair);
}

static void waiting_for_an_answer_has_a_limit_and_sees_the_end(void **state)
{
	struct pair pair = open_pair();
	struct ipc_answer answer;
	int device;
	int lock;

	(void)state;
	assert_int_equal(ipc_receive_answer(pair.session, &answer, &device,
					    &lock, 10),
			 -ETIMEDOUT);
	(void)close(pair.manager);
	assert_int_equal(ipc_receive_answer(pair.session, &answer, &device,
					    &lock, LIMIT_MS),
			 -EPIPE);
	assert_int_equal(ipc_ask(pair.session, IPC_LIST, NULL), -EPIPE);
	(void)close(pair.session);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_arrives_as_it_was_asked),
		cmocka_unit_test(a_bus_id_that_is_too_long_is_not_asked_for),
		cmocka_unit_test(a_malformed_request_is_refused),
		cmocka_unit_test(descriptors_sent_with_a_request_are_not_kept),
		cmocka_unit_test(
			an_opened_device_comes_with_its_descriptor_and_lock),
		cmocka_unit_test(
			an_answer_with_the_wrong_number_of_descriptors_is_refused),
		cmocka_unit_test(
			waiting_for_an_answer_has_a_limit_and_sees_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
