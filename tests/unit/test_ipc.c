/* SPDX-License-Identifier: Apache-2.0 */
/* Session and manager over a real socketpair: what passes, what is refused. */
#include "gateway/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

static const struct tls_peer anna = {
	.name = "anna.example",
	.pin = "sha256:00112233445566778899aabbccddeeff"
	       "00112233445566778899aabbccddeeff",
	.certificate = { .issuer = "0123cdef",
			 .serial = "0123456789ABCDEF0123456789ABCDEF01234567" },
};

static void who_a_peer_is_arrives_as_it_was_told(void **state)
{
	struct pair pair = open_pair();
	struct ipc_request request;

	(void)state;
	assert_int_equal(ipc_tell_peer(pair.session, &anna), 0);

	assert_int_equal(ipc_receive_request(pair.manager, &request), 1);
	assert_int_equal(request.type, IPC_PEER);
	assert_memory_equal(&request.peer, &anna, sizeof(anna));
	close_pair(&pair);
}

static int receive_peer(const struct tls_peer *peer)
{
	const struct ipc_request request = { .type = IPC_PEER, .peer = *peer };

	return receive_raw(&request, sizeof(request));
}

static void what_no_certificate_says_is_no_peer(void **state)
{
	static const char *const names[] = { "a b", "*", "a\n", "a/b", "\x80" };
	static const char *const serials[] = { "", "0g", "ab", "1 " };
	static const char *const issuers[] = { "", "0g", "AB", "1 " };
	struct tls_peer peer = anna;
	struct tls_certificate_id *id = &peer.certificate;

	(void)state;
	peer.name[0] = '\0';
	assert_int_equal(receive_peer(&peer), 1);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(peer.name, sizeof(peer.name), "%s", names[i]);
		assert_int_equal(receive_peer(&peer), -EBADMSG);
	}
	memset(peer.name, 'a', sizeof(peer.name));
	assert_int_equal(receive_peer(&peer), -EBADMSG);
	peer = anna;
	for (size_t i = 0; i < sizeof(serials) / sizeof(serials[0]); i++) {
		(void)snprintf(id->serial, sizeof(id->serial), "%s",
			       serials[i]);
		assert_int_equal(receive_peer(&peer), -EBADMSG);
	}
	memset(id->serial, '1', sizeof(id->serial));
	assert_int_equal(receive_peer(&peer), -EBADMSG);
	peer = anna;
	for (size_t i = 0; i < sizeof(issuers) / sizeof(issuers[0]); i++) {
		(void)snprintf(id->issuer, sizeof(id->issuer), "%s",
			       issuers[i]);
		assert_int_equal(receive_peer(&peer), -EBADMSG);
	}
	memset(id->issuer, '1', sizeof(id->issuer));
	assert_int_equal(receive_peer(&peer), -EBADMSG);
	peer = anna;
	peer.pin[0] = 'S';
	assert_int_equal(receive_peer(&peer), -EBADMSG);
	memset(peer.pin, 'a', sizeof(peer.pin));
	assert_int_equal(receive_peer(&peer), -EBADMSG);
}

static void
a_peer_is_called_by_its_name_or_its_pin_and_its_address(void **state)
{
	struct tls_peer peer = anna;
	char name[IPC_NAME_BYTES];

	(void)state;
	ipc_name_peer(name, &peer, "192.0.2.7:4711");
	assert_string_equal(name, "anna.example (192.0.2.7:4711)");
	peer.name[0] = '\0';
	ipc_name_peer(name, &peer, "[2001:db8::1]:4711");
	assert_non_null(strstr(name, "sha256:00112233"));
	assert_non_null(strstr(name, "eeff ([2001:db8::1]:4711)"));
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
		cmocka_unit_test(who_a_peer_is_arrives_as_it_was_told),
		cmocka_unit_test(what_no_certificate_says_is_no_peer),
		cmocka_unit_test(
			a_peer_is_called_by_its_name_or_its_pin_and_its_address),
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
