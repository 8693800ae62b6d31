/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What channel.h promises of every kind: two ends in this process, in two
 * threads, or in two processes of which one is killed.
 */
#include "tests/fake/channel_promises.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define LIMIT_MS     5000
#define STREAM_BYTES (3u << 20)
#define CHUNK_BYTES  70000u
#define BATCH        50

struct pair {
	const struct channel_kind *kind;
	struct channel *a;
	struct channel *b;
};

static int pair_open(struct pair *p)
{
	return p->kind->open(&p->a, &p->b);
}

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	p->kind = *state;
	*state = p;
	return pair_open(p);
}

static int teardown(void **state)
{
	struct pair *p = *state;

	channel_free(p->a);
	channel_free(p->b);
	free(p);
	return 0;
}

static uint64_t soon(void)
{
	return clock_ms() + LIMIT_MS;
}

static uint8_t byte_at(size_t n)
{
	return (uint8_t)(n * 167 + (n >> 8) * 13);
}

static void fill(uint8_t *to, size_t start, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		to[i] = byte_at(start + i);
}

static bool is_filled(const uint8_t *bytes, size_t start, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] != byte_at(start + i))
			return false;
	}
	return true;
}

/* The n bytes of the stream from `start` on; 0 or -errno. */
static int send_bytes(struct channel *c, size_t start, size_t n)
{
	static _Thread_local uint8_t bytes[CHUNK_BYTES];

	while (n > 0) {
		size_t part = n < sizeof(bytes) ? n : sizeof(bytes);
		int r;

		fill(bytes, start, part);
		r = channel_write_all(c, bytes, part, soon());
		if (r < 0)
			return r;
		start += part;
		n -= part;
	}
	return 0;
}

/* Reads that many; -EBADMSG if they are others. */
static int expect_bytes(struct channel *c, size_t start, size_t n)
{
	static _Thread_local uint8_t bytes[CHUNK_BYTES];

	while (n > 0) {
		size_t part = n < sizeof(bytes) ? n : sizeof(bytes);
		int r = channel_read_all(c, bytes, part, soon());

		if (r < 0)
			return r;
		if (!is_filled(bytes, start, part))
			return -EBADMSG;
		start += part;
		n -= part;
	}
	return 0;
}

/* Waits for the next byte, or how the stream ends. */
static ssize_t await(struct channel *c)
{
	struct iovec pieces[2];
	ssize_t n = channel_peek(c, pieces);

	while (n == 0) {
		int r = channel_wait(c, CHANNEL_READ, soon());

		if (r < 0)
			return r;
		n = channel_peek(c, pieces);
	}
	return n;
}

/* Polls once as an event loop does; how many descriptors were ready. */
static int poll_once(struct channel *c, unsigned want, int limit_ms)
{
	struct channel_fd fds[CHANNEL_MAX_FDS];
	struct pollfd polled[CHANNEL_MAX_FDS];
	size_t n = channel_fds(c, want, fds);
	int ready;

	for (size_t i = 0; i < n; i++)
		polled[i] = (struct pollfd){ fds[i].fd, fds[i].events, 0 };
	ready = poll(polled, n, limit_ms);
	for (size_t i = 0; i < n; i++) {
		if (polled[i].revents)
			(void)channel_wake(c, polled[i].fd);
	}
	return ready;
}

/* ------------------------------------------------------------------ bytes */

static void *send_a_stream(void *arg)
{
	struct channel *c = arg;
	int r = send_bytes(c, 0, STREAM_BYTES);

	if (r == 0)
		r = channel_end(c);
	if (r == 0)
		r = channel_drain(c, soon());
	return r == 0 ? NULL : c;
}

static void bytes_pass_in_order_in_both_directions_at_once(void **state)
{
	const struct pair *p = *state;
	struct channel *const ends[2] = { p->a, p->b };
	pthread_t threads[2];

	for (int i = 0; i < 2; i++) {
		void *failed;

		assert_int_equal(pthread_create(&threads[i], NULL,
						send_a_stream, ends[i]),
				 0);
		assert_int_equal(expect_bytes(ends[!i], 0, STREAM_BYTES), 0);
		assert_int_equal(await(ends[!i]), -EPIPE);
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
}

static void a_full_channel_takes_no_more_and_keeps_what_it_has(void **state)
{
	const struct pair *p = *state;
	uint8_t bytes[1000];
	size_t written = 0;
	size_t got = 0;
	ssize_t n;

	do {
		struct iovec v = { bytes, sizeof(bytes) };

		fill(bytes, written, sizeof(bytes));
		n = channel_writev(p->a, &v, 1);
		assert_true(n >= 0);
		written += (size_t)n;
		assert_true(written < (64u << 20));
	} while (n > 0);
	channel_flush(p->a);

	while (got < written) {
		n = channel_read(p->b, bytes, sizeof(bytes));
		assert_true(n >= 0);
		assert_true(is_filled(bytes, got, (size_t)n));
		got += (size_t)n;
		if (n > 0)
			continue;
		(void)poll_once(p->a, CHANNEL_READ, 0);
		assert_int_equal(channel_wait(p->b, CHANNEL_READ, soon()), 0);
	}
	assert_int_equal(channel_read(p->b, bytes, 1), 0);
}

/* Peek shows that many bytes, and they are those from `start` on. */
static void expect_peek(struct channel *c, size_t start, ssize_t bytes)
{
	struct iovec pieces[2];
	size_t first;

	while (channel_peek(c, pieces) < bytes)
		assert_int_equal(channel_wait(c, CHANNEL_READ, soon()), 0);
	first = pieces[0].iov_len;
	assert_int_equal(first + pieces[1].iov_len, bytes);
	assert_true(is_filled(pieces[0].iov_base, start, first));
	assert_true(is_filled(pieces[1].iov_base, start + first,
			      pieces[1].iov_len));
}

static void peek_gathers_what_it_promises_wherever_it_starts(void **state)
{
	static const size_t starts[] = { 0, 1, 30000, 40000, 65000 };
	const struct pair *p = *state;
	size_t at = 0;

	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		assert_int_equal(send_bytes(p->a, at, starts[i]), 0);
		assert_int_equal(expect_bytes(p->b, at, starts[i]), 0);
		at += starts[i];
		for (size_t k = 0; k < CHANNEL_PEEK_BYTES; k += 4096) {
			assert_int_equal(send_bytes(p->a, at + k, 4096), 0);
			assert_true(await(p->b) > 0);
		}
		expect_peek(p->b, at, CHANNEL_PEEK_BYTES);
		channel_consume(p->b, CHANNEL_PEEK_BYTES);
		at += CHANNEL_PEEK_BYTES;
	}
}

static void what_was_peeked_stays_while_more_is_gathered(void **state)
{
	const struct pair *p = *state;

	/* Most of a buffer is used up, some bytes are left behind in it. */
	assert_int_equal(send_bytes(p->a, 0, 41000), 0);
	expect_peek(p->b, 0, 41000);
	channel_consume(p->b, 40000);
	assert_int_equal(send_bytes(p->a, 41000, CHANNEL_PEEK_BYTES - 1000), 0);
	expect_peek(p->b, 40000, CHANNEL_PEEK_BYTES);
}

static void data_may_be_put_into_the_channels_own_memory(void **state)
{
	const struct pair *p = *state;
	struct iovec pieces[2];
	size_t sent = 0;

	if (!p->kind->has_memory) {
		assert_int_equal(channel_reserve(p->a, pieces), -EOPNOTSUPP);
		return;
	}
	/* Often enough to come past the end of the memory. */
	while (sent < (size_t)5 * CHANNEL_MIN_RING_BYTES) {
		size_t first;
		size_t n;

		assert_true(channel_reserve(p->a, pieces) > 0);
		first = pieces[0].iov_len;
		n = first + pieces[1].iov_len;
		fill(pieces[0].iov_base, sent, first);
		fill(pieces[1].iov_base, sent + first, pieces[1].iov_len);
		n = n * 2 / 3;
		channel_commit(p->a, n);
		channel_flush(p->a);
		assert_int_equal(expect_bytes(p->b, sent, n), 0);
		sent += n;
	}
	assert_int_equal(channel_end(p->a), 0);
	assert_int_equal(await(p->b), -EPIPE);
}

/* -------------------------------------------------------------------- ends */

static void what_was_sent_arrives_before_the_end_does(void **state)
{
	const struct pair *p = *state;

	assert_int_equal(send_bytes(p->a, 0, 1000), 0);
	assert_int_equal(channel_end(p->a), 0);

	assert_int_equal(expect_bytes(p->b, 0, 1000), 0);
	assert_int_equal(await(p->b), -EPIPE);
	assert_int_equal(await(p->b), -EPIPE);
}

static void an_end_leaves_the_other_direction_open(void **state)
{
	const struct pair *p = *state;

	assert_int_equal(channel_end(p->a), 0);
	assert_int_equal(await(p->b), -EPIPE);

	assert_int_equal(send_bytes(p->b, 0, 50000), 0);
	assert_int_equal(expect_bytes(p->a, 0, 50000), 0);
	assert_int_equal(channel_end(p->b), 0);
	assert_int_equal(await(p->a), -EPIPE);
}

static void the_end_is_known_while_bytes_still_lie_there(void **state)
{
	const struct pair *p = *state;
	struct iovec pieces[2];
	int ended = channel_ended(p->b);

	assert_int_equal(ended, 0);
	assert_int_equal(send_bytes(p->a, 0, 10), 0);
	assert_int_equal(channel_end(p->a), 0);

	while ((ended = channel_ended(p->b)) == 0) {
		(void)channel_peek(p->b, pieces);
		assert_int_equal(channel_wait(p->b, CHANNEL_READ, soon()), 0);
	}
	assert_int_equal(ended, -EPIPE);
	assert_int_equal(channel_peek(p->b, pieces), 10);
	/* Known, and nothing follows: no news any more. */
	assert_false(channel_arm(p->b, CHANNEL_READ));
	channel_consume(p->b, 10);
	assert_int_equal(channel_peek(p->b, pieces), -EPIPE);
}

/* The writing ends of a batch: sent on, ended and freed by a thread. */
static void *send_end_and_free(void *arg)
{
	struct pair *pairs = arg;

	for (size_t i = 0; i < BATCH; i++) {
		struct channel *c = pairs[i].a;
		int r = send_bytes(c, i, 37 * i + 1);

		if (r == 0)
			r = channel_end(c);
		pairs[i].a = NULL;
		channel_free(c);
		if (r < 0)
			return arg;
	}
	return NULL;
}

static void nothing_is_lost_when_many_end_at_once(void **state)
{
	const struct pair *p = *state;

	for (int batch = 0; batch < p->kind->batches; batch++) {
		struct pair pairs[BATCH] = { { .kind = NULL } };
		pthread_t thread;
		void *failed;

		for (size_t i = 0; i < BATCH; i++) {
			pairs[i].kind = p->kind;
			assert_int_equal(pair_open(&pairs[i]), 0);
		}
		assert_int_equal(pthread_create(&thread, NULL,
						send_end_and_free, pairs),
				 0);
		for (size_t i = 0; i < BATCH; i++) {
			assert_int_equal(
				expect_bytes(pairs[i].b, i, 37 * i + 1), 0);
			assert_int_equal(await(pairs[i].b), -EPIPE);
			channel_free(pairs[i].b);
		}
		assert_int_equal(pthread_join(thread, &failed), 0);
		assert_null(failed);
	}
}

/* A process that writes and is killed before it can say anything. */
static pid_t write_and_die(struct pair *p, size_t bytes)
{
	pid_t pid = fork();

	if (pid == 0) {
		channel_free(p->b);
		if (send_bytes(p->a, 0, bytes) == 0)
			(void)raise(SIGKILL);
		_exit(1);
	}
	channel_free(p->a);
	p->a = NULL;
	return pid;
}

static void a_killed_peer_is_noticed_behind_its_last_byte(void **state)
{
	struct pair *p = *state;
	pid_t pid = write_and_die(p, 40000);
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));

	assert_int_equal(expect_bytes(p->b, 0, 40000), 0);
	assert_int_equal(await(p->b), p->kind->killed);
}

static void writing_to_nobody_fails_and_kills_nobody(void **state)
{
	struct pair *p = *state;
	int r;

	channel_free(p->a);
	p->a = NULL;
	do
		r = send_bytes(p->b, 0, CHUNK_BYTES);
	while (r == 0);
	assert_true(r == -EPIPE || r == -ECONNRESET);
}

/* ----------------------------------------------------------------- waiting */

static void a_wait_ends_at_its_limit(void **state)
{
	const struct pair *p = *state;
	uint64_t start = clock_ms();
	struct iovec pieces[2];
	uint8_t byte;

	assert_int_equal(channel_peek(p->a, pieces), 0);
	assert_int_equal(channel_wait(p->a, CHANNEL_READ, start), -ETIMEDOUT);
	assert_int_equal(channel_read_all(p->a, &byte, 1, start + 30),
			 -ETIMEDOUT);
	assert_true(clock_ms() >= start + 30);
	assert_true(clock_ms() < start + LIMIT_MS);
}

static void a_write_without_room_ends_at_its_limit(void **state)
{
	static uint8_t bytes[16u << 20];
	const struct pair *p = *state;
	uint64_t start = clock_ms();

	assert_int_equal(channel_write_all(p->a, bytes, sizeof(bytes),
					   start + 30),
			 -ETIMEDOUT);
	assert_true(clock_ms() >= start + 30);
	assert_true(clock_ms() < start + LIMIT_MS);
}

static void who_armed_sleeps_until_bytes_come(void **state)
{
	const struct pair *p = *state;
	struct iovec pieces[2];

	assert_int_equal(channel_peek(p->b, pieces), 0);
	assert_false(channel_arm(p->b, CHANNEL_READ));
	assert_int_equal(poll_once(p->b, CHANNEL_READ, 0), 0);

	assert_int_equal(send_bytes(p->a, 0, 10), 0);
	assert_true(poll_once(p->b, CHANNEL_READ, LIMIT_MS) > 0);
	assert_true(channel_arm(p->b, CHANNEL_READ));
	assert_int_equal(await(p->b), 10);

	/* Half a message: it was seen, so the rest is waited for. */
	(void)channel_peek(p->b, pieces);
	assert_false(channel_arm(p->b, CHANNEL_READ));
	assert_int_equal(poll_once(p->b, CHANNEL_READ, 0), 0);
}

/* As an event loop that is asked for work only after arm said that there is. */
static void who_armed_for_room_is_told_when_there_is_some(void **state)
{
	static uint8_t bytes[1u << 20];
	const struct pair *p = *state;
	struct iovec v = { bytes, sizeof(bytes) };
	ssize_t n;
	uint64_t limit = soon();

	while ((n = channel_writev(p->a, &v, 1)) > 0)
		channel_flush(p->a);
	assert_int_equal(n, 0);
	assert_false(channel_arm(p->a, CHANNEL_WRITE));

	while (!channel_arm(p->a, CHANNEL_WRITE)) {
		assert_true(clock_ms() < limit);
		while (channel_read(p->b, bytes, sizeof(bytes)) > 0)
			channel_flush(p->b);
		(void)poll_once(p->b, CHANNEL_READ, 0);
		(void)poll_once(p->a, CHANNEL_WRITE, 10);
	}
	assert_true(channel_writev(p->a, &v, 1) > 0);
}

static void an_end_wakes_who_waits_for_bytes(void **state)
{
	const struct pair *p = *state;
	struct iovec pieces[2];

	assert_int_equal(channel_peek(p->b, pieces), 0);
	assert_false(channel_arm(p->b, CHANNEL_READ));
	assert_int_equal(channel_end(p->a), 0);
	assert_true(poll_once(p->b, CHANNEL_READ, LIMIT_MS) > 0);
	assert_int_equal(await(p->b), -EPIPE);
}

#define PROMISE(test)       \
	{                   \
#test, test \
	}

static const struct promise {
	const char *name;
	CMUnitTestFunction run;
} promises[] = {
	PROMISE(bytes_pass_in_order_in_both_directions_at_once),
	PROMISE(a_full_channel_takes_no_more_and_keeps_what_it_has),
	PROMISE(peek_gathers_what_it_promises_wherever_it_starts),
	PROMISE(what_was_peeked_stays_while_more_is_gathered),
	PROMISE(data_may_be_put_into_the_channels_own_memory),
	PROMISE(what_was_sent_arrives_before_the_end_does),
	PROMISE(an_end_leaves_the_other_direction_open),
	PROMISE(the_end_is_known_while_bytes_still_lie_there),
	PROMISE(nothing_is_lost_when_many_end_at_once),
	PROMISE(a_killed_peer_is_noticed_behind_its_last_byte),
	PROMISE(writing_to_nobody_fails_and_kills_nobody),
	PROMISE(a_wait_ends_at_its_limit),
	PROMISE(a_write_without_room_ends_at_its_limit),
	PROMISE(who_armed_sleeps_until_bytes_come),
	PROMISE(who_armed_for_room_is_told_when_there_is_some),
	PROMISE(an_end_wakes_who_waits_for_bytes),
};
#define NUM_PROMISES (sizeof(promises) / sizeof(promises[0]))

/* A kind whose ends are not to be forked has tests of its own for that. */
static bool is_for(const struct promise *promise,
		   const struct channel_kind *kind)
{
	return kind->killed != 0 ||
	       promise->run != a_killed_peer_is_noticed_behind_its_last_byte;
}

int channel_promises_run(const struct channel_kind *kinds, size_t num_kinds)
{
	const size_t max = num_kinds * NUM_PROMISES;
	struct CMUnitTest *tests = calloc(max, sizeof(*tests));
	char(*names)[128] = calloc(max, sizeof(*names));
	size_t num = 0;
	int failed = -1;

	for (size_t i = 0; tests && names && i < max; i++) {
		const struct promise *promise = &promises[i / num_kinds];
		union { /* a test's state is not const */
			const struct channel_kind *in;
			void *out;
		} kind = { .in = &kinds[i % num_kinds] };

		if (!is_for(promise, kind.in))
			continue;
		(void)snprintf(names[num], sizeof(names[num]), "%s (%s)",
			       promise->name, kind.in->name);
		tests[num] = (struct CMUnitTest){ names[num], promise->run,
						  setup, teardown, kind.out };
		num++;
	}
	if (num > 0)
		failed = _cmocka_run_group_tests("channel", tests, num, NULL,
						 NULL);
	free(tests);
	free(names);
	return failed;
}
