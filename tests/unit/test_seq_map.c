/* SPDX-License-Identifier: Apache-2.0 */
/* The map from sequence number to slot, against a plain array. */
#include "vchan-transport/seq_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* xorshift: the same run every time. */
static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static void what_was_put_is_found_until_it_is_removed(void **state)
{
	struct seq_map *map = seq_map_new(8);
	uint32_t index = 77;

	(void)state;
	assert_false(seq_map_get(map, 5, &index));
	assert_int_equal(index, 77);

	assert_true(seq_map_put(map, 5, 3));
	assert_true(seq_map_get(map, 5, &index));
	assert_int_equal(index, 3);
	assert_int_equal(seq_map_count(map), 1);

	assert_true(seq_map_remove(map, 5));
	assert_false(seq_map_get(map, 5, &index));
	assert_false(seq_map_remove(map, 5));
	assert_int_equal(seq_map_count(map), 0);
	seq_map_free(map);
}

static void a_second_put_is_refused_and_changes_nothing(void **state)
{
	struct seq_map *map = seq_map_new(8);
	uint32_t index;

	(void)state;
	assert_true(seq_map_put(map, 5, 3));
	assert_false(seq_map_put(map, 5, 4));
	assert_true(seq_map_get(map, 5, &index));
	assert_int_equal(index, 3);
	assert_int_equal(seq_map_count(map), 1);
	seq_map_free(map);
}

static void sequence_numbers_0_and_the_largest_are_like_any(void **state)
{
	static const uint32_t seqnums[] = { 0xfffffffe, 0xffffffff, 0, 1 };
	struct seq_map *map = seq_map_new(4);
	uint32_t index;

	(void)state;
	for (uint32_t i = 0; i < ARRAY_SIZE(seqnums); i++)
		assert_true(seq_map_put(map, seqnums[i], i));
	for (uint32_t i = 0; i < ARRAY_SIZE(seqnums); i++) {
		assert_true(seq_map_get(map, seqnums[i], &index));
		assert_int_equal(index, i);
	}
	seq_map_free(map);
}

static void a_map_takes_its_capacity_and_not_one_more(void **state)
{
	static const uint32_t capacities[] = { 1, 2, 3, 64, 4096, 4097 };

	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(capacities); c++) {
		uint32_t capacity = capacities[c];
		struct seq_map *map = seq_map_new(capacity);

		for (uint32_t i = 0; i < capacity; i++)
			assert_true(seq_map_put(map, i * 7, i));
		assert_false(seq_map_put(map, capacity * 7, 0));
		assert_int_equal(seq_map_count(map), capacity);

		assert_true(seq_map_remove(map, 0));
		assert_true(seq_map_put(map, capacity * 7, 0));
		assert_false(seq_map_put(map, 0, 0));
		seq_map_free(map);
	}
}

/* Sets that a simple hash would send to a few cells. */
static void regular_sets_of_sequence_numbers_are_all_found(void **state)
{
	static const uint32_t strides[] = { 1,       2,          8192,
					    65536,   0x00100000, 0x55555555,
					    0x10001, 0xffffffff };

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(strides); s++) {
		struct seq_map *map = seq_map_new(4096);
		uint32_t index;

		for (uint32_t i = 0; i < 4096; i++)
			assert_true(seq_map_put(map, i * strides[s], i));
		for (uint32_t i = 0; i < 4096; i += 2)
			assert_true(seq_map_remove(map, i * strides[s]));
		for (uint32_t i = 0; i < 4096; i++)
			assert_int_equal(seq_map_get(map, i * strides[s],
						     &index),
					 i % 2);
		seq_map_free(map);
	}
}

enum {
	NUM_KEYS = 256,
	NUM_STEPS = 200000
};

/* One random step on both; index_of holds index + 1, 0 for none. */
static void step_both(struct seq_map *map, uint32_t *index_of, uint32_t *seed)
{
	uint32_t key = next_random(seed) % NUM_KEYS;
	uint32_t seqnum = key * 0x01000193;
	uint32_t value = next_random(seed) % 1000;
	uint32_t index;

	switch (next_random(seed) % 3) {
	case 0:
		if (seq_map_put(map, seqnum, value)) {
			assert_int_equal(index_of[key], 0);
			index_of[key] = value + 1;
		} else {
			assert_true(index_of[key] != 0 ||
				    seq_map_count(map) == NUM_KEYS / 2);
		}
		break;
	case 1:
		assert_int_equal(seq_map_remove(map, seqnum),
				 index_of[key] != 0);
		index_of[key] = 0;
		break;
	default:
		assert_int_equal(seq_map_get(map, seqnum, &index),
				 index_of[key] != 0);
		if (index_of[key] != 0)
			assert_int_equal(index, index_of[key] - 1);
		break;
	}
}

static void a_long_random_life_agrees_with_a_plain_array(void **state)
{
	struct seq_map *map = seq_map_new(NUM_KEYS / 2);
	uint32_t index_of[NUM_KEYS] = { 0 };
	uint32_t seed = 2463534242u;
	uint32_t count = 0;

	(void)state;
	for (int i = 0; i < NUM_STEPS; i++)
		step_both(map, index_of, &seed);

	for (uint32_t key = 0; key < NUM_KEYS; key++)
		count += index_of[key] != 0;
	assert_int_equal(seq_map_count(map), count);
	seq_map_free(map);
}

static void freeing_no_map_is_fine(void **state)
{
	(void)state;
	seq_map_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_put_is_found_until_it_is_removed),
		cmocka_unit_test(a_second_put_is_refused_and_changes_nothing),
		cmocka_unit_test(
			sequence_numbers_0_and_the_largest_are_like_any),
		cmocka_unit_test(a_map_takes_its_capacity_and_not_one_more),
		cmocka_unit_test(
			regular_sets_of_sequence_numbers_are_all_found),
		cmocka_unit_test(a_long_random_life_agrees_with_a_plain_array),
		cmocka_unit_test(freeing_no_map_is_fine),
	};

	return cmocka_run_group_tests_name("seq_map", tests, NULL, NULL);
}
