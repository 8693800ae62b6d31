/* SPDX-License-Identifier: Apache-2.0 */
/* Messages with descriptors over a socket pair, in good order and in bad. */
#include "vchan-transport/fdpass.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct bed {
	int a;
	int b;
	int pipe[2];
	size_t fds_before;
};

static size_t count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	if (!dir)
		return 0;
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static int bed_setup(void **state)
{
	static struct bed bed;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0 ||
	    pipe2(bed.pipe, O_CLOEXEC) < 0)
		return -1;
	bed.a = fds[0];
	bed.b = fds[1];
	bed.fds_before = count_fds();
	*state = &bed;
	return 0;
}

/* No test leaves a descriptor open. */
static int bed_teardown(void **state)
{
	const struct bed *bed = *state;
	size_t fds = count_fds();

	(void)close(bed->a);
	(void)close(bed->b);
	(void)close(bed->pipe[0]);
	(void)close(bed->pipe[1]);
	return fds == bed->fds_before ? 0 : -1;
}

static void a_message_brings_its_bytes_and_descriptors(void **state)
{
	const struct bed *bed = *state;
	char bytes[16] = "";
	int fds[FDPASS_MAX];

	assert_int_equal(fdpass_send(bed->a, "hello", 5, bed->pipe, 2), 0);
	assert_int_equal(
		fdpass_recv(bed->b, bytes, sizeof(bytes), fds, FDPASS_MAX), 5);
	assert_string_equal(bytes, "hello");
	assert_true(fds[0] >= 0 && fds[1] >= 0);
	assert_int_equal(fds[2], -1);
	assert_int_equal(fds[3], -1);

	/* They are the pipe that was sent, and die with an exec. */
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(read(bed->pipe[0], bytes, 1), 1);
	assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void a_message_may_bring_no_descriptor(void **state)
{
	const struct bed *bed = *state;
	uint8_t bytes[4];
	int fds[1] = { 99 };

	assert_int_equal(fdpass_send(bed->a, "abcd", 4, NULL, 0), 0);
	assert_int_equal(fdpass_recv(bed->b, bytes, sizeof(bytes), fds, 1), 4);
	assert_int_equal(fds[0], -1);
	assert_int_equal(fdpass_send(bed->a, "abcd", 4, NULL, 0), 0);
	assert_int_equal(fdpass_recv(bed->b, bytes, sizeof(bytes), NULL, 0), 4);
}

static void the_most_descriptors_pass_and_not_one_more(void **state)
{
	const struct bed *bed = *state;
	int many[FDPASS_MAX + 1];
	int fds[FDPASS_MAX];
	uint8_t byte;

	for (size_t i = 0; i <= FDPASS_MAX; i++)
		many[i] = bed->pipe[i & 1];
	assert_int_equal(fdpass_send(bed->a, "x", 1, many, FDPASS_MAX + 1),
			 -EINVAL);
	assert_int_equal(fdpass_send(bed->a, "x", 1, many, FDPASS_MAX), 0);
	assert_int_equal(fdpass_recv(bed->b, &byte, 1, fds, FDPASS_MAX), 1);
	for (size_t i = 0; i < FDPASS_MAX; i++) {
		assert_true(fds[i] >= 0);
		(void)close(fds[i]);
	}
}

static void
more_descriptors_than_are_wanted_are_refused_and_closed(void **state)
{
	const struct bed *bed = *state;
	int fds[1];
	uint8_t byte;

	assert_int_equal(fdpass_send(bed->a, "x", 1, bed->pipe, 2), 0);
	assert_int_equal(fdpass_recv(bed->b, &byte, 1, fds, 1), -EBADMSG);
}

/* Sent by hand, since fdpass_send would not. */
static void more_descriptors_than_there_is_room_for_are_refused(void **state)
{
	const struct bed *bed = *state;
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {
		0
	};
	char byte = 'x';
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fds[FDPASS_MAX];

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(8 * sizeof(int));
	for (size_t i = 0; i < 8; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &bed->pipe[i & 1],
		       sizeof(int));
	assert_int_equal(sendmsg(bed->a, &msg, 0), 1);
	assert_int_equal(fdpass_recv(bed->b, &byte, 1, fds, FDPASS_MAX),
			 -EBADMSG);
}

static void a_message_that_was_cut_is_refused_and_leaks_nothing(void **state)
{
	const struct bed *bed = *state;
	uint8_t bytes[4];
	int fds[2];

	assert_int_equal(fdpass_send(bed->a, "hello", 5, bed->pipe, 2), 0);
	assert_int_equal(fdpass_recv(bed->b, bytes, sizeof(bytes), fds, 2),
			 -EBADMSG);
}

static void the_end_is_a_length_of_0(void **state)
{
	struct bed *bed = *state;
	uint8_t byte;
	int fds[1] = { 99 };

	assert_int_equal(shutdown(bed->a, SHUT_WR), 0);
	assert_int_equal(fdpass_recv(bed->b, &byte, 1, fds, 1), 0);
	assert_int_equal(fds[0], -1);
}

static void sending_to_nobody_is_an_error_and_no_signal(void **state)
{
	struct bed *bed = *state;

	assert_int_equal(shutdown(bed->b, SHUT_RDWR), 0);
	assert_int_equal(fdpass_send(bed->a, "x", 1, bed->pipe, 1), -EPIPE);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, bed_setup, bed_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_message_brings_its_bytes_and_descriptors),
		TEST(a_message_may_bring_no_descriptor),
		TEST(the_most_descriptors_pass_and_not_one_more),
		TEST(more_descriptors_than_are_wanted_are_refused_and_closed),
		TEST(more_descriptors_than_there_is_room_for_are_refused),
		TEST(a_message_that_was_cut_is_refused_and_leaks_nothing),
		TEST(the_end_is_a_length_of_0),
		TEST(sending_to_nobody_is_an_error_and_no_signal),
	};

	return cmocka_run_group_tests_name("fdpass", tests, NULL, NULL);
}
