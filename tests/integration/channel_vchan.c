/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vchan channel over the real libxenvchan: this process is dom0 or a guest
 * when it opens an end, as vchan_as_domain() says. test_channel_vchan.py makes the
 * pretended Xen that it needs, and the domains.
 */
#include "vchan-transport/channel.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fake/channel_promises.h"
#include "tests/fake/vchan_ends.h"

#define RING_BYTES   65536u
#define NUM_MESSAGES 100000

/* For the promises nobody needs to play the warden. */
static int open_promised(struct channel **ret_a, struct channel **ret_b)
{
	struct vchan_ends e;
	static int wardens[1024];
	static size_t num_wardens;
	int r = vchan_open_ends(RING_BYTES, &e);

	if (r < 0)
		return r;
	*ret_a = e.server;
	*ret_b = e.client;
	/* Open until its channel is freed and long beyond. */
	if (wardens[num_wardens] > 0)
		(void)close(wardens[num_wardens]);
	wardens[num_wardens] = e.warden;
	num_wardens = (num_wardens + 1) % 1024;
	return 0;
}

static int open_promised_backwards(struct channel **ret_a,
				   struct channel **ret_b)
{
	return open_promised(ret_b, ret_a);
}

/* -------------------------------------------------------------------- bytes */

/* The lengths that lie around the end of a ring, and others. */
static size_t message_bytes(unsigned number)
{
	static const uint16_t lengths[] = { 48, 4095, 48,  4096, 17, 4097,
					    1,  2048, 512, 48,   48, 100 };

	return lengths[number % (sizeof(lengths) / sizeof(lengths[0]))];
}

static void *echo(void *arg)
{
	struct channel *c = arg;
	uint8_t bytes[8192];
	ssize_t n;

	while ((n = vchan_await(c)) > 0) {
		n = channel_read(c, bytes, sizeof(bytes));
		if (n < 0 ||
		    channel_write_all(c, bytes, (size_t)n, vchan_soon()) < 0)
			return arg;
	}
	return n == -EPIPE ? NULL : arg;
}

static void all_lengths_come_back_through_the_smallest_ring(void **state)
{
	static uint8_t sent[8192 + 256];
	uint8_t got[8192];
	struct vchan_ends *e = *state;
	pthread_t thread;
	void *failed;

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + (i >> 8));
	assert_int_equal(vchan_open_ends(4096, e), 0);
	assert_int_equal(pthread_create(&thread, NULL, echo, e->client), 0);
	for (unsigned i = 0; i < NUM_MESSAGES; i++) {
		const uint8_t *message = sent + i % 256;
		const size_t bytes = message_bytes(i);

		assert_int_equal(channel_write_all(e->server, message, bytes,
						   vchan_soon()),
				 0);
		assert_int_equal(channel_read_all(e->server, got, bytes,
						  vchan_soon()),
				 0);
		assert_memory_equal(got, message, bytes);
	}
	assert_int_equal(channel_end(e->server), 0);
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
}

static void both_may_end_at_once(void **state)
{
	struct vchan_ends *e = *state;

	assert_int_equal(vchan_open_ends(4096, e), 0);
	assert_int_equal(channel_write_all(e->server, "left", 4, vchan_soon()),
			 0);
	assert_int_equal(channel_write_all(e->client, "right", 5, vchan_soon()),
			 0);
	assert_int_equal(channel_end(e->server), 0);
	assert_int_equal(channel_end(e->client), 0);
	assert_int_equal(vchan_await(e->server), 5);
	assert_int_equal(vchan_await(e->client), 4);
	channel_consume(e->server, 5);
	channel_consume(e->client, 4);
	assert_int_equal(vchan_await(e->server), -EPIPE);
	assert_int_equal(vchan_await(e->client), -EPIPE);
}

static void a_batch_wakes_the_peer_once(void **state)
{
	struct vchan_ends *e = *state;
	struct iovec v[2] = { { (char[]){ "head" }, 4 },
			      { (char[]){ "body" }, 4 } };
	struct channel_fd fds[CHANNEL_MAX_FDS];
	struct pollfd polled;

	assert_int_equal(vchan_open_ends(RING_BYTES, e), 0);
	(void)channel_fds(e->client, CHANNEL_READ, fds);
	polled = (struct pollfd){ fds[0].fd, POLLIN, 0 };
	assert_false(channel_arm(e->client, CHANNEL_READ));
	for (int i = 0; i < 3; i++)
		assert_int_equal(channel_writev(e->server, v, 2), 8);
	assert_int_equal(poll(&polled, 1, 0), 0);
	channel_flush(e->server);
	assert_int_equal(poll(&polled, 1, VCHAN_LIMIT_MS), 1);
	assert_true(channel_wake(e->client, fds[0].fd));
	assert_int_equal(vchan_await(e->client), 24);

	/* It did not arm again: nobody is woken for more. */
	assert_int_equal(channel_writev(e->server, v, 2), 8);
	channel_flush(e->server);
	assert_int_equal(poll(&polled, 1, 0), 0);
}

static void waking_without_an_event_does_not_block(void **state)
{
	struct vchan_ends *e = *state;
	struct channel_fd fds[CHANNEL_MAX_FDS];

	assert_int_equal(vchan_open_ends(4096, e), 0);
	(void)channel_fds(e->server, CHANNEL_READ, fds);
	for (int i = 0; i < 10; i++)
		assert_true(channel_wake(e->server, fds[0].fd));
}

static void a_server_alone_waits_for_its_client(void **state)
{
	struct vchan_ends *e = *state;
	char server[64];
	char client[64];
	struct iovec pieces[2];

	vchan_next_paths(server, client);
	assert_int_equal(vchan_serve(4096, server, &e->server), 0);
	assert_int_equal(channel_peek(e->server, pieces), 0);
	assert_int_equal(channel_wait(e->server, CHANNEL_READ, clock_ms() + 30),
			 -ETIMEDOUT);
	assert_int_equal(channel_ended(e->server), 0);
	assert_int_equal(vchan_join(client, -1, &e->client), 0);
	assert_int_equal(channel_write_all(e->client, "hello", 5, vchan_soon()),
			 0);
	assert_int_equal(vchan_await(e->server), 5);
}

/* -------------------------------------------------------------------- deaths */

static void die(struct channel *c)
{
	(void)c;
	(void)raise(SIGKILL);
}

static void stop(struct channel *c)
{
	(void)c;
	(void)raise(SIGSTOP);
}

static void a_killed_client_is_noticed_behind_its_last_byte(void **state)
{
	struct vchan_ends *e = *state;
	uint8_t bytes[3000];
	char server[64];
	char client[64];
	pid_t pid;
	int status;

	vchan_next_paths(server, client);
	assert_int_equal(vchan_serve(4096, server, &e->server), 0);
	pid = vchan_start_client(client, die);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(channel_read_all(e->server, bytes, sizeof(bytes),
					  vchan_soon()),
			 0);
	assert_int_equal(vchan_await(e->server), -ECONNRESET);
	assert_int_equal(channel_write_all(e->server, "x", 1, vchan_soon()),
			 -ECONNRESET);
}

static void
a_client_that_stands_still_costs_no_more_than_the_limit(void **state)
{
	static uint8_t bytes[1u << 16];
	struct vchan_ends *e = *state;
	char server[64];
	char client[64];
	pid_t pid;
	int status;

	vchan_next_paths(server, client);
	assert_int_equal(vchan_serve(4096, server, &e->server), 0);
	pid = vchan_start_client(client, stop);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(channel_write_all(e->server, bytes, sizeof(bytes),
					   clock_ms() + 50),
			 -ETIMEDOUT);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(channel_write_all(e->server, bytes, sizeof(bytes),
					   vchan_soon()),
			 -ECONNRESET);
}

/* A process with the server's end, which it says with a byte that it has. */
static pid_t start_server(const char *path, int *ret_fd)
{
	int fds[2];
	struct channel *c;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		if (vchan_serve(4096, path, &c) == 0 &&
		    channel_write_all(c, "bytes", 5, vchan_soon()) == 0 &&
		    write(fds[1], "", 1) == 1)
			(void)pause();
		_exit(1);
	}
	(void)close(fds[1]);
	*ret_fd = fds[0];
	return pid;
}

static void a_killed_server_is_noticed_behind_its_last_byte(void **state)
{
	struct vchan_ends *e = *state;
	char server[64];
	char client[64];
	char byte;
	int fd;
	pid_t pid;

	vchan_next_paths(server, client);
	pid = start_server(server, &fd);
	assert_int_equal(read(fd, &byte, 1), 1);
	(void)close(fd);
	assert_int_equal(vchan_join(client, -1, &e->client), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(vchan_await(e->client), 5);
	channel_consume(e->client, 5);
	assert_int_equal(vchan_await(e->client), -ECONNRESET);
}

/* -------------------------------------------------------------- the warden */

static void a_warden_that_hangs_up_is_the_end_of_the_gateway(void **state)
{
	struct vchan_ends *e = *state;
	char why[HANDSHAKE_WHY_BYTES];
	unsigned status;

	assert_int_equal(vchan_open_ends(4096, e), 0);
	assert_int_equal(channel_reason(e->client, clock_ms() + 20, &status,
					why),
			 -ETIMEDOUT);
	assert_int_equal(channel_write_all(e->server, "rest", 4, vchan_soon()),
			 0);
	vchan_close_warden(e);
	assert_int_equal(vchan_await(e->client), 4);
	channel_consume(e->client, 4);
	assert_int_equal(vchan_await(e->client), -ECONNRESET);
	assert_int_equal(channel_write_all(e->client, "x", 1, vchan_soon()),
			 -ECONNRESET);
	assert_int_equal(channel_reason(e->client, vchan_soon(), &status, why),
			 -ENOENT);
	assert_int_equal(channel_reason(e->server, vchan_soon(), &status, why),
			 -EOPNOTSUPP);
}

static void a_warden_brings_the_gateways_last_word(void **state)
{
	const struct channel_last_word word = { .status = EBUSY,
						.why = "somebody has it" };
	struct vchan_ends *e = *state;
	char why[HANDSHAKE_WHY_BYTES];
	unsigned status = 0;

	assert_int_equal(vchan_open_ends(4096, e), 0);
	assert_int_equal(send(e->warden, &word, sizeof(word), 0), sizeof(word));
	vchan_close_warden(e);
	assert_int_equal(vchan_await(e->client), -ECONNRESET);
	assert_int_equal(channel_reason(e->client, vchan_soon(), &status, why),
			 0);
	assert_int_equal(status, word.status);
	assert_string_equal(why, word.why);
}

static void what_is_no_last_word_is_none(void **state)
{
	struct channel_last_word word;
	char why[HANDSHAKE_WHY_BYTES];
	unsigned status;

	memset(&word, 'x', sizeof(word));
	for (size_t bytes = 1; bytes <= sizeof(word); bytes += 163) {
		struct vchan_ends *e = *state;

		assert_int_equal(vchan_open_ends(4096, e), 0);
		assert_int_equal(send(e->warden, &word, bytes, 0), bytes);
		assert_int_equal(vchan_await(e->client), -ECONNRESET);
		assert_int_equal(channel_reason(e->client, vchan_soon(),
						&status, why),
				 -ENOENT);
		vchan_close_ends(e);
	}
}

#define TEST(test) \
	cmocka_unit_test_setup_teardown(test, vchan_setup, vchan_teardown)

int main(void)
{
	static const struct channel_kind kinds[] = {
		{ "vchan", open_promised, 0, 4, false },
		{ "vchan, guest first", open_promised_backwards, 0, 4, false },
	};
	const struct CMUnitTest tests[] = {
		TEST(all_lengths_come_back_through_the_smallest_ring),
		TEST(both_may_end_at_once),
		TEST(a_batch_wakes_the_peer_once),
		TEST(waking_without_an_event_does_not_block),
		TEST(a_server_alone_waits_for_its_client),
		TEST(a_killed_client_is_noticed_behind_its_last_byte),
		TEST(a_client_that_stands_still_costs_no_more_than_the_limit),
		TEST(a_killed_server_is_noticed_behind_its_last_byte),
		TEST(a_warden_that_hangs_up_is_the_end_of_the_gateway),
		TEST(a_warden_brings_the_gateways_last_word),
		TEST(what_is_no_last_word_is_none),
	};
	int failed = channel_promises_run(kinds, 2);

	return failed + cmocka_run_group_tests_name("vchan", tests, NULL, NULL);
}
