/* SPDX-License-Identifier: Apache-2.0 */
/* The slots of an engine: how many, how much memory, and whose. */
#include "gateway/slot.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fake/fake_usb_device.h"

#define BUDGET        (1u << 20)
#define NUM_SLOTS     (URB_MAX_IN_FLIGHT + SLOT_RESERVE)
#define DEVICE_MEMORY (64u << 10)

struct bed {
	struct fake_usb_device device;
	struct slot_pool *pool;
};

static int setup(void **state)
{
	struct bed *bed = malloc(sizeof(*bed));

	*state = bed;
	if (!bed)
		return -1;
	fake_usb_device_init(&bed->device);
	bed->pool = slot_pool_new(NULL, &bed->device.base, BUDGET);
	return bed->pool ? 0 : -1;
}

/* All that the device lent has come back by now. */
static int teardown(void **state)
{
	struct bed *bed = *state;
	size_t left;

	slot_pool_free(bed->pool);
	left = bed->device.memory_bytes;
	free(bed);
	return left == 0 ? 0 : -1;
}

/* A slot with so much reserved. */
static struct slot *reserve(struct bed *bed, uint32_t length, int expected)
{
	struct slot *slot = slot_take(bed->pool);

	assert_non_null(slot);
	slot->submit = (struct usbip_submit){ .length = length };
	assert_int_equal(slot_reserve(bed->pool, slot, length), expected);
	return slot;
}

static void there_are_as_many_slots_as_are_promised(void **state)
{
	struct bed *bed = *state;

	assert_int_equal(slot_count(bed->pool), NUM_SLOTS);
	for (uint32_t i = 0; i < NUM_SLOTS; i++) {
		struct slot *slot;

		assert_true(slot_is_any_free(bed->pool));
		slot = slot_take(bed->pool);
		assert_non_null(slot);
		assert_int_equal(slot->state, URB_FREE);
		assert_ptr_equal(slot->urb.device, &bed->device);
		assert_ptr_equal(
			slot_at(bed->pool, slot_index(bed->pool, slot)), slot);
	}
	assert_false(slot_is_any_free(bed->pool));
	assert_null(slot_take(bed->pool));

	slot_give(bed->pool, slot_at(bed->pool, 77));
	assert_ptr_equal(slot_take(bed->pool), slot_at(bed->pool, 77));
}

static void bytes_reserved_are_the_budget_and_not_one_more(void **state)
{
	struct bed *bed = *state;
	struct slot *first = reserve(bed, BUDGET - 1, 0);
	struct slot *refused;

	refused = reserve(bed, 2, -ENOMEM);
	assert_null(refused->urb.data);
	reserve(bed, 1, 0);
	reserve(bed, 1, -ENOMEM);
	reserve(bed, 0, 0);

	slot_give(bed->pool, first);
	reserve(bed, BUDGET, -ENOMEM);
	reserve(bed, BUDGET - 1, 0);
}

static void more_than_the_budget_at_once_is_refused(void **state)
{
	reserve(*state, BUDGET + 1, -ENOMEM);
	reserve(*state, 0xffffffff, -ENOMEM);
	reserve(*state, BUDGET, 0);
}

static void a_refused_slot_gives_back_nothing_that_it_never_had(void **state)
{
	struct bed *bed = *state;

	reserve(bed, BUDGET, 0);
	for (int i = 0; i < 10; i++)
		slot_give(bed->pool, reserve(bed, 1, -ENOMEM));
	reserve(bed, 1, -ENOMEM);
}

static void urbs_reserved_are_the_limit_and_not_one_more(void **state)
{
	struct bed *bed = *state;
	struct slot *slot = NULL;

	for (uint32_t i = 0; i < URB_MAX_IN_FLIGHT; i++)
		slot = reserve(bed, 0, 0);
	slot_give(bed->pool, reserve(bed, 0, -ENOMEM));
	slot_give(bed->pool, slot);
	reserve(bed, 0, 0);
	reserve(bed, 0, -ENOMEM);
}

static void lists_of_packets_count_against_the_budget(void **state)
{
	struct bed *bed = *state;
	size_t num_taken = 0;
	struct slot *slot;
	int r;

	do {
		slot = slot_take(bed->pool);
		assert_non_null(slot);
		slot->submit =
			(struct usbip_submit){ .num_packets =
						       USBIP_MAX_ISO_PACKETS };
		r = slot_reserve(bed->pool, slot, 0);
		num_taken += r == 0;
	} while (r == 0);
	assert_int_equal(r, -ENOMEM);
	assert_true(num_taken * USBIP_MAX_ISO_PACKETS *
			    sizeof(struct usbip_iso_packet) <=
		    BUDGET);
	assert_true(num_taken > 0);
}

static void a_buffer_holds_what_was_asked_for_and_room_before_it(void **state)
{
	static const uint32_t lengths[] = { 1,     511,   512,   513,   4096,
					    65535, 65536, 65537, 100000 };
	struct bed *bed = *state;

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]);
		     i++) {
			struct slot *slot = reserve(bed, lengths[i], 0);

			assert_non_null(slot->urb.data);
			assert_true(slot->buffer_bytes >= lengths[i]);
			/* The sanitizers watch. */
			memset(slot->urb.data - URB_HEADROOM, 0xff,
			       URB_HEADROOM + slot->buffer_bytes);
			slot_give(bed->pool, slot);
			assert_null(slot->urb.data);
		}
	}
}

static void large_buffers_are_the_devices_and_go_back_to_it(void **state)
{
	struct bed *bed = *state;
	struct slot *small = reserve(bed, DEVICE_MEMORY / 2, 0);
	struct slot *large;

	assert_int_equal(bed->device.memory_bytes, 0);
	large = reserve(bed, DEVICE_MEMORY, 0);
	assert_int_equal(bed->device.memory_bytes, DEVICE_MEMORY);
	slot_give(bed->pool, large);
	assert_int_equal(bed->device.memory_bytes, 0);
	slot_give(bed->pool, small);

	bed->device.is_out_of_memory = true;
	slot_give(bed->pool, reserve(bed, DEVICE_MEMORY, -ENOMEM));
	bed->device.is_out_of_memory = false;
	/* What was refused is not counted. */
	reserve(bed, BUDGET, 0);
}

static void a_pool_that_is_given_up_takes_all_memory_along(void **state)
{
	struct bed *bed = *state;
	struct slot *slot;

	reserve(bed, DEVICE_MEMORY, 0);
	slot = reserve(bed, 100, 0);
	slot->submit.num_packets = USBIP_MAX_ISO_PACKETS;
	assert_int_equal(slot_reserve_packets(slot), 0);
	slot_pool_free(NULL);
}

static void a_list_of_packets_has_room_for_all(void **state)
{
	static const uint32_t counts[] = { 1,  3,    64, USBIP_MAX_ISO_PACKETS,
					   65, 1000, 2 };
	struct bed *bed = *state;

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct slot *slot = slot_take(bed->pool);

		slot->submit =
			(struct usbip_submit){ .num_packets = counts[i] };
		assert_int_equal(slot_reserve_packets(slot), 0);
		memset(slot->urb.packets, 0xff,
		       counts[i] * sizeof(*slot->urb.packets));
		memset(slot->packet_bytes, 0xff,
		       (size_t)counts[i] * USBIP_ISO_BYTES);
		slot_give(bed->pool, slot);
		assert_int_equal(slot->urb.num_packets, 0);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(there_are_as_many_slots_as_are_promised),
		TEST(bytes_reserved_are_the_budget_and_not_one_more),
		TEST(more_than_the_budget_at_once_is_refused),
		TEST(a_refused_slot_gives_back_nothing_that_it_never_had),
		TEST(urbs_reserved_are_the_limit_and_not_one_more),
		TEST(lists_of_packets_count_against_the_budget),
		TEST(a_buffer_holds_what_was_asked_for_and_room_before_it),
		TEST(large_buffers_are_the_devices_and_go_back_to_it),
		TEST(a_pool_that_is_given_up_takes_all_memory_along),
		TEST(a_list_of_packets_has_room_for_all),
	};

	return cmocka_run_group_tests_name("slot", tests, NULL, NULL);
}
