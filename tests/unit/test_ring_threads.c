/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring between two threads that run, or sleep, at the same time: no byte is
 * lost, no end comes before its bytes, and whoever sleeps is woken.
 */
#include "vchan-transport/ring.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define SMALL_RING    64u
#define LARGE_RING    4096u
#define STRESS_BYTES  1000000u
#define WAKE_LIMIT_MS 5000
#define SHORT_STREAMS 10000

/* Two ends of one ring, and what wakes them. */
struct bed {
	struct ring_control control;
	uint8_t data[LARGE_RING];
	struct ring writer;
	struct ring reader;
	int reader_bell;
	int writer_bell;
};

static int bed_setup(void **state)
{
	static struct bed bed;

	bed.reader_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	bed.writer_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	*state = &bed;
	return bed.reader_bell < 0 || bed.writer_bell < 0 ? -1 : 0;
}

static int bed_teardown(void **state)
{
	const struct bed *bed = *state;

	(void)close(bed->reader_bell);
	(void)close(bed->writer_bell);
	return 0;
}

static void bed_resize(struct bed *bed, uint32_t size)
{
	memset(&bed->control, 0, sizeof(bed->control));
	bed->writer = (struct ring){ .shared = &bed->control,
				     .data = bed->data,
				     .size = size };
	bed->reader = bed->writer;
}

/* The n-th byte of every stream here. */
static uint8_t byte_at(size_t n)
{
	return (uint8_t)(n * 167 + (n >> 8) * 13);
}

static void fill(uint8_t *to, size_t start, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		to[i] = byte_at(start + i);
}

static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* One side of a stream between two threads that sleep when they must. */
struct stress {
	struct bed *bed;
	size_t bytes;
	const char *failure; /* NULL: none */
};

static bool sleep_on(int bell)
{
	struct pollfd polled = { .fd = bell, .events = POLLIN };
	uint64_t rings;

	if (poll(&polled, 1, WAKE_LIMIT_MS) != 1)
		return false;
	(void)!read(bell, &rings, sizeof(rings));
	return true;
}

static void ring_bell(int bell)
{
	const uint64_t one = 1;

	(void)!write(bell, &one, sizeof(one));
}

static void *write_stream(void *arg)
{
	struct stress *s = arg;
	struct bed *bed = s->bed;
	uint8_t chunk[3000];
	uint32_t seed = 7;

	while (s->bytes < STRESS_BYTES) {
		size_t left = STRESS_BYTES - s->bytes;
		size_t n = next_random(&seed) % sizeof(chunk) + 1;
		ssize_t written;

		if (n > left)
			n = left;
		fill(chunk, s->bytes, n);
		written = ring_writev(&bed->writer, &(struct iovec){ chunk, n },
				      1);
		if (written < 0) {
			s->failure = "the writer got an error";
			return NULL;
		}
		s->bytes += (size_t)written;
		if (ring_writer_must_notify(&bed->writer))
			ring_bell(bed->reader_bell);
		if ((size_t)written == n || ring_writer_arm(&bed->writer))
			continue;
		if (!sleep_on(bed->writer_bell)) {
			s->failure = "the writer was not woken";
			return NULL;
		}
	}
	ring_end(&bed->writer);
	ring_bell(bed->reader_bell);
	return NULL;
}

/* Takes up to `most` bytes; false if they are not those that were sent. */
static bool take_and_compare(struct stress *s, const struct iovec pieces[2],
			     size_t most)
{
	size_t taken = 0;

	for (int i = 0; i < 2; i++) {
		const uint8_t *at = pieces[i].iov_base;

		for (size_t k = 0; k < pieces[i].iov_len && taken < most; k++) {
			if (at[k] != byte_at(s->bytes + taken))
				return false;
			taken++;
		}
	}
	s->bytes += taken;
	ring_consume(&s->bed->reader, (uint32_t)taken);
	return true;
}

static void read_stream(struct stress *s)
{
	struct bed *bed = s->bed;
	uint32_t seed = 99;

	for (;;) {
		struct iovec pieces[2];
		ssize_t n = ring_peek(&bed->reader, pieces);

		if (n < 0) {
			if (n != -EPIPE)
				s->failure = "the reader got an error";
			return;
		}
		if (n > 0) {
			if (!take_and_compare(s, pieces,
					      next_random(&seed) % 5000)) {
				s->failure = "other bytes than were sent";
				return;
			}
			if (ring_reader_must_notify(&bed->reader))
				ring_bell(bed->writer_bell);
			continue;
		}
		if (!ring_reader_arm(&bed->reader) &&
		    !sleep_on(bed->reader_bell)) {
			s->failure = "the reader was not woken";
			return;
		}
	}
}

static void two_threads_that_sleep_lose_no_byte_and_no_wake_up(void **state)
{
	static const uint32_t sizes[] = { SMALL_RING, LARGE_RING };
	struct bed *bed = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct stress in = { .bed = bed };
		struct stress out = { .bed = bed };
		pthread_t thread;

		bed_resize(bed, sizes[i]);
		assert_int_equal(
			pthread_create(&thread, NULL, write_stream, &out), 0);
		read_stream(&in);
		assert_int_equal(pthread_join(thread, NULL), 0);

		assert_null(out.failure);
		assert_null(in.failure);
		assert_int_equal(in.bytes, STRESS_BYTES);
	}
}

/* Many short streams, each ended right behind its last byte. */
struct short_stream {
	struct ring_control control;
	uint8_t data[SMALL_RING];
};

static size_t short_length(size_t i)
{
	return i * 7 % (SMALL_RING + 1);
}

static void *write_short_streams(void *arg)
{
	struct short_stream *streams = arg;

	for (size_t i = 0; i < SHORT_STREAMS; i++) {
		struct ring writer = { .shared = &streams[i].control,
				       .data = streams[i].data,
				       .size = SMALL_RING };
		uint8_t bytes[SMALL_RING];
		struct iovec v = { bytes, short_length(i) };

		fill(bytes, i, sizeof(bytes));
		(void)ring_writev(&writer, &v, 1);
		ring_end(&writer);
	}
	return NULL;
}

static void nothing_is_lost_by_ten_thousand_that_end_at_once(void **state)
{
	struct short_stream *streams =
		aligned_alloc(64, SHORT_STREAMS * sizeof(*streams));
	pthread_t thread;

	(void)state;
	assert_non_null(streams);
	memset(streams, 0, SHORT_STREAMS * sizeof(*streams));
	assert_int_equal(
		pthread_create(&thread, NULL, write_short_streams, streams), 0);
	for (size_t i = 0; i < SHORT_STREAMS; i++) {
		struct ring reader = { .shared = &streams[i].control,
				       .data = streams[i].data,
				       .size = SMALL_RING };
		struct iovec pieces[2];
		size_t got = 0;
		ssize_t n;

		while ((n = ring_peek(&reader, pieces)) >= 0) {
			got += (size_t)n;
			ring_consume(&reader, (uint32_t)n);
		}
		assert_int_equal(n, -EPIPE);
		assert_int_equal(got, short_length(i));
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	free(streams);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, bed_setup, bed_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(two_threads_that_sleep_lose_no_byte_and_no_wake_up),
		TEST(nothing_is_lost_by_ten_thousand_that_end_at_once),
	};

	return cmocka_run_group_tests_name("ring_threads", tests, NULL, NULL);
}
