/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of a ring over memory between two guard pages: what goes in comes
 * out, whoever waits is woken, and words that the other side made up lead to
 * -EPROTO or to nothing, never outside.
 */
#include "vchan-transport/ring.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define ARRAY_SIZE(a)  (sizeof(a) / sizeof((a)[0]))
#define PAGE           ((size_t)4096)
#define SMALL_RING     64u
#define SCRIBBLE_TURNS 200000

/* Two ends of one ring. The ring's last byte is the last before the guard. */
struct bed {
	struct ring_control control;
	struct ring writer;
	struct ring reader;
	uint8_t *guarded;
};

static void bed_clear(struct bed *bed)
{
	uint8_t *data = bed->guarded + 2 * PAGE - SMALL_RING;

	memset(&bed->control, 0, sizeof(bed->control));
	bed->writer = (struct ring){ .shared = &bed->control,
				     .data = data,
				     .size = SMALL_RING };
	bed->reader = bed->writer;
}

static int bed_setup(void **state)
{
	struct bed *bed = aligned_alloc(64, sizeof(*bed));

	*state = bed;
	if (!bed)
		return -1;
	bed->guarded = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bed->guarded == MAP_FAILED ||
	    mprotect(bed->guarded, PAGE, PROT_NONE) < 0 ||
	    mprotect(bed->guarded + 2 * PAGE, PAGE, PROT_NONE) < 0)
		return -1;
	bed_clear(bed);
	return 0;
}

static int bed_teardown(void **state)
{
	struct bed *bed = *state;

	(void)munmap(bed->guarded, 3 * PAGE);
	free(bed);
	return 0;
}

/* Both ends as after `index` bytes. */
static void bed_start_at(struct bed *bed, uint32_t index)
{
	atomic_store(&bed->control.produced, index);
	atomic_store(&bed->control.consumed, index);
	bed->writer.index = index;
	bed->writer.seen = index;
	bed->reader.index = index;
	bed->reader.seen = index;
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

static ssize_t put(struct bed *bed, const uint8_t *bytes, size_t n)
{
	union { /* an iovec's base is not const */
		const uint8_t *in;
		uint8_t *out;
	} base = { .in = bytes };
	struct iovec v = { base.out, n };

	return ring_writev(&bed->writer, &v, 1);
}

static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* Writes `bytes` in two parts and reads them back; `fits` of them. */
static void check_pass(struct bed *bed, size_t bytes, size_t cut, size_t fits)
{
	uint8_t in[2 * SMALL_RING];
	uint8_t out[2 * SMALL_RING];
	struct iovec v[3] = { { in, cut },
			      { in, 0 },
			      { in + cut, bytes - cut } };
	struct iovec pieces[2];

	fill(in, cut, bytes);
	assert_int_equal(ring_writev(&bed->writer, v, 3), fits);

	assert_int_equal(ring_peek(&bed->reader, pieces), fits);
	assert_int_equal(pieces[0].iov_len + pieces[1].iov_len, fits);
	memcpy(out, pieces[0].iov_base, pieces[0].iov_len);
	memcpy(out + pieces[0].iov_len, pieces[1].iov_base, pieces[1].iov_len);
	assert_memory_equal(out, in, fits);
	ring_consume(&bed->reader, (uint32_t)fits);
	assert_int_equal(ring_peek(&bed->reader, pieces), 0);
}

static void bytes_pass_in_order_at_every_offset_and_every_size(void **state)
{
	static const size_t sizes[] = { 1, 2, SMALL_RING - 1, SMALL_RING,
					SMALL_RING + 1 };
	struct bed *bed = *state;

	for (uint32_t start = 0; start < SMALL_RING; start++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			size_t fits = sizes[i] < SMALL_RING ? sizes[i]
							    : SMALL_RING;

			bed_start_at(bed, start);
			check_pass(bed, sizes[i], sizes[i] / 3, fits);
		}
	}
}

static void indices_wrap_from_the_largest_to_0(void **state)
{
	struct bed *bed = *state;

	for (uint32_t before = 0; before <= SMALL_RING; before++) {
		bed_start_at(bed, UINT32_MAX - before);
		check_pass(bed, SMALL_RING + 1, 5, SMALL_RING);
		check_pass(bed, SMALL_RING - 1, 0, SMALL_RING - 1);
	}
}

static void room_can_be_filled_in_place_at_every_offset(void **state)
{
	struct bed *bed = *state;
	uint8_t in[SMALL_RING];

	fill(in, 0, sizeof(in));
	for (uint32_t start = 0; start < SMALL_RING; start++) {
		struct iovec pieces[2];
		size_t first;

		bed_start_at(bed, UINT32_MAX - start);
		assert_int_equal(put(bed, in, 5), 5);
		assert_int_equal(ring_reserve(&bed->writer, pieces),
				 SMALL_RING - 5);
		first = pieces[0].iov_len;
		assert_int_equal(first + pieces[1].iov_len, SMALL_RING - 5);
		memcpy(pieces[0].iov_base, in + 5, first);
		memcpy(pieces[1].iov_base, in + 5 + first, pieces[1].iov_len);

		/* Nothing is there until it is committed, nor more than that. */
		assert_int_equal(ring_peek(&bed->reader, pieces), 5);
		ring_commit(&bed->writer, 20);
		assert_int_equal(ring_peek(&bed->reader, pieces), 25);
		first = pieces[0].iov_len;
		assert_memory_equal(pieces[0].iov_base, in, first);
		assert_memory_equal(pieces[1].iov_base, in + first, 25 - first);
		ring_commit(&bed->writer, SMALL_RING - 25);
		assert_int_equal(ring_reserve(&bed->writer, pieces), 0);
	}
}

static void a_full_ring_takes_nothing_and_has_lost_nothing(void **state)
{
	struct bed *bed = *state;
	uint8_t in[SMALL_RING];
	struct iovec pieces[2];

	fill(in, 0, sizeof(in));
	assert_int_equal(put(bed, in, SMALL_RING), SMALL_RING);
	assert_int_equal(put(bed, in + 7, 1), 0);
	assert_int_equal(ring_peek(&bed->reader, pieces), SMALL_RING);

	ring_consume(&bed->reader, 1);
	assert_int_equal(put(bed, in, 2), 1);
	assert_int_equal(put(bed, in, 1), 0);
	assert_int_equal(ring_peek(&bed->reader, pieces), SMALL_RING);
	assert_int_equal(*(uint8_t *)pieces[0].iov_base, byte_at(1));
	assert_int_equal(*(uint8_t *)pieces[1].iov_base, byte_at(0));
}

static void the_end_is_told_behind_the_last_byte(void **state)
{
	struct bed *bed = *state;
	uint8_t in[3];
	struct iovec pieces[2];

	fill(in, 0, sizeof(in));
	assert_int_equal(put(bed, in, sizeof(in)), sizeof(in));
	ring_end(&bed->writer);

	assert_int_equal(ring_peek(&bed->reader, pieces), sizeof(in));
	ring_consume(&bed->reader, 2);
	assert_int_equal(ring_peek(&bed->reader, pieces), 1);
	ring_consume(&bed->reader, 1);
	assert_int_equal(ring_peek(&bed->reader, pieces), -EPIPE);
}

static void an_end_is_news_until_it_was_asked_for(void **state)
{
	struct bed *bed = *state;

	assert_false(ring_reader_arm(&bed->reader));
	ring_end(&bed->writer);
	assert_true(ring_reader_has_news(&bed->reader));
	assert_true(ring_reader_arm(&bed->reader));

	assert_true(ring_is_ended(&bed->reader));
	assert_false(ring_reader_arm(&bed->reader));
}

/* ----------------------------------------------------------------- waiting */

static void a_bell_is_rung_only_for_who_waits_and_once(void **state)
{
	struct bed *bed = *state;
	struct iovec pieces[2];
	uint8_t in[4] = { 0 };

	(void)put(bed, in, 1);
	assert_false(ring_writer_must_notify(&bed->writer));
	assert_int_equal(ring_peek(&bed->reader, pieces), 1);
	ring_consume(&bed->reader, 1);
	assert_false(ring_reader_must_notify(&bed->reader));

	assert_false(ring_reader_arm(&bed->reader));
	(void)put(bed, in, 1);
	assert_true(ring_writer_must_notify(&bed->writer));
	(void)put(bed, in, 1);
	assert_false(ring_writer_must_notify(&bed->writer));
}

static void what_came_since_the_last_look_forbids_sleep(void **state)
{
	struct bed *bed = *state;
	struct iovec pieces[2];
	uint8_t in[4] = { 0 };

	(void)put(bed, in, 2);
	assert_true(ring_reader_arm(&bed->reader));

	/* A message whose rest is missing: seen, not consumed. */
	assert_int_equal(ring_peek(&bed->reader, pieces), 2);
	assert_false(ring_reader_arm(&bed->reader));
	assert_false(ring_reader_has_news(&bed->reader));

	(void)put(bed, in, 1);
	assert_true(ring_reader_has_news(&bed->reader));
	assert_true(ring_reader_arm(&bed->reader));
}

static void a_waiting_writer_is_woken_when_half_is_free(void **state)
{
	struct bed *bed = *state;
	uint8_t in[SMALL_RING] = { 0 };
	struct iovec pieces[2];

	(void)put(bed, in, SMALL_RING);
	assert_false(ring_writer_arm(&bed->writer));
	assert_int_equal(ring_peek(&bed->reader, pieces), SMALL_RING);

	ring_consume(&bed->reader, SMALL_RING / 2 - 1);
	assert_false(ring_reader_must_notify(&bed->reader));
	assert_false(ring_writer_arm(&bed->writer));

	ring_consume(&bed->reader, 1);
	assert_true(ring_reader_must_notify(&bed->reader));
	assert_false(ring_reader_must_notify(&bed->reader));
	assert_true(ring_writer_arm(&bed->writer));
}

/* ----------------------------------------------------------------- hostile */

static void an_index_that_cannot_be_is_a_violation(void **state)
{
	static const uint32_t offs[] = { SMALL_RING + 1, 0x7fffffff, 0x80000000,
					 0xffffff00, 0xffffffff };
	struct bed *bed = *state;
	uint8_t in[8] = { 0 };
	struct iovec pieces[2];

	for (size_t i = 0; i < ARRAY_SIZE(offs); i++) {
		bed_start_at(bed, 1000);
		atomic_store(&bed->control.produced, 1000 + offs[i]);
		assert_int_equal(ring_peek(&bed->reader, pieces), -EPROTO);
		/* And it is no reason to sleep. */
		assert_true(ring_reader_arm(&bed->reader));

		bed_start_at(bed, 1000);
		atomic_store(&bed->control.consumed, 1000 - offs[i]);
		assert_int_equal(put(bed, in, sizeof(in)), -EPROTO);
		assert_int_equal(ring_reserve(&bed->writer, pieces), -EPROTO);
		assert_true(ring_writer_arm(&bed->writer));
		assert_int_equal(bed->writer.index, 1000);
	}
}

static void a_full_ring_by_the_others_word_is_full(void **state)
{
	struct bed *bed = *state;
	uint8_t in[8] = { 0 };
	struct iovec pieces[2];

	bed_start_at(bed, 1000);
	atomic_store(&bed->control.produced, 1000 + SMALL_RING);
	assert_int_equal(ring_peek(&bed->reader, pieces), SMALL_RING);

	bed_start_at(bed, 1000);
	atomic_store(&bed->control.consumed, 1000 - SMALL_RING);
	assert_int_equal(put(bed, in, sizeof(in)), 0);
}

struct scribbler {
	struct ring_control *control;
	_Atomic bool is_done;
};

/* Words at random, near the truth as often as far from it. */
static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	uint32_t seed = 12345;

	while (!atomic_load(&s->is_done)) {
		uint32_t word = next_random(&seed);
		_Atomic uint32_t *const words[] = { &s->control->produced,
						    &s->control->consumed,
						    &s->control->is_ended,
						    &s->control->reader_waits,
						    &s->control->writer_waits };
		_Atomic uint32_t *at = words[word % ARRAY_SIZE(words)];

		word = next_random(&seed);
		if (word & 1)
			word = atomic_load(&s->control->consumed) +
			       (word >> 1) % (2 * SMALL_RING);
		atomic_store(at, word);
	}
	return NULL;
}

/* Touches all that peek shows: the guard pages and the sanitizers watch. */
static bool read_what_is_shown(struct bed *bed)
{
	const uint8_t *start = bed->reader.data;
	struct iovec pieces[2];
	ssize_t n = ring_peek(&bed->reader, pieces);
	volatile uint8_t sink = 0;

	if (n < 0)
		return n == -EPROTO || n == -EPIPE;
	for (int i = 0; i < 2; i++) {
		const uint8_t *at = pieces[i].iov_base;

		if (at < start || at + pieces[i].iov_len > start + SMALL_RING)
			return false;
		for (size_t k = 0; k < pieces[i].iov_len; k++)
			sink = at[k];
	}
	(void)sink;
	if (pieces[0].iov_len + pieces[1].iov_len != (size_t)n)
		return false;
	ring_consume(&bed->reader, (uint32_t)n);
	return true;
}

static void scribbled_control_words_never_lead_outside(void **state)
{
	struct bed *bed = *state;
	struct scribbler s = { .control = &bed->control };
	uint8_t in[SMALL_RING + 8] = { 0 };
	bool is_sane = true;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, scribble, &s), 0);
	for (int i = 0; i < SCRIBBLE_TURNS && is_sane; i++) {
		ssize_t n = put(bed, in, (size_t)i % sizeof(in));

		is_sane = n == -EPROTO || (n >= 0 && n <= SMALL_RING);
		(void)ring_writer_must_notify(&bed->writer);
		(void)ring_writer_arm(&bed->writer);
		is_sane = is_sane && read_what_is_shown(bed);
		(void)ring_reader_must_notify(&bed->reader);
		(void)ring_reader_arm(&bed->reader);
	}
	atomic_store(&s.is_done, true);
	assert_int_equal(pthread_join(thread, NULL), 0);

	assert_true(is_sane);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, bed_setup, bed_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(bytes_pass_in_order_at_every_offset_and_every_size),
		TEST(indices_wrap_from_the_largest_to_0),
		TEST(room_can_be_filled_in_place_at_every_offset),
		TEST(a_full_ring_takes_nothing_and_has_lost_nothing),
		TEST(the_end_is_told_behind_the_last_byte),
		TEST(an_end_is_news_until_it_was_asked_for),
		TEST(a_bell_is_rung_only_for_who_waits_and_once),
		TEST(what_came_since_the_last_look_forbids_sleep),
		TEST(a_waiting_writer_is_woken_when_half_is_free),
		TEST(an_index_that_cannot_be_is_a_violation),
		TEST(a_full_ring_by_the_others_word_is_full),
		TEST(scribbled_control_words_never_lead_outside),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
