/* SPDX-License-Identifier: Apache-2.0 */
/* Isochronous replies against what was asked, packet by packet. */
#include "vchan-transport/urb_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static int setup(void **state)
{
	*state = urb_table_new();
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	urb_table_free(*state);
	return 0;
}

/* Two packets of 196 bytes in 392. */
static const struct usbip_iso_packet two_packets[] = {
	{ .offset = 0, .length = 196 },
	{ .offset = 196, .length = 196 },
};

static void note_packets(struct urb_table *table, uint32_t seqnum,
			 const struct usbip_iso_packet *packets,
			 uint32_t num_packets, uint32_t length)
{
	struct usbip_header header = {
		.command = USBIP_CMD_SUBMIT,
		.seqnum = seqnum,
		.direction = USBIP_DIR_IN,
		.endpoint = 1,
		.submit = { .length = length, .num_packets = num_packets },
	};

	assert_int_equal(urb_table_note(table, &header, packets), URB_OK);
}

static enum urb_verdict check_packets(struct urb_table *table, uint32_t seqnum,
				      uint32_t actual_length,
				      const struct usbip_iso_packet *packets,
				      uint32_t num_packets)
{
	struct usbip_header reply = {
		.command = USBIP_RET_SUBMIT,
		.seqnum = seqnum,
		.ret_submit = { .actual_length = actual_length,
				.num_packets = num_packets },
	};
	const struct urb_entry *entry;
	enum urb_verdict verdict = urb_table_check_reply(table, &reply, &entry);

	if (verdict != URB_OK)
		return verdict;
	return urb_check_reply_packets(entry, &reply, packets);
}

/* Forgets a command, as its answer would. */
static void settle(struct urb_table *table, uint32_t seqnum)
{
	struct usbip_header reply = {
		.command = USBIP_RET_SUBMIT,
		.seqnum = seqnum,
	};

	urb_table_settle(table, &reply);
}

static void a_reply_has_as_many_packets_as_were_submitted(void **state)
{
	static const uint32_t others[] = { 0, 1, 3, 1024, USBIP_NOT_ISO };

	note_packets(*state, 1, two_packets, 2, 392);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_int_equal(check_packets(*state, 1, 0, two_packets,
					       others[i]),
				 URB_BAD_PACKETS);
	assert_int_equal(check_packets(*state, 1, 0, two_packets, 2), URB_OK);
}

static void packets_in_a_reply_to_a_bulk_transfer_are_refused(void **state)
{
	note_packets(*state, 1, NULL, 0, 392);
	assert_int_equal(check_packets(*state, 1, 0, two_packets, 2),
			 URB_BAD_PACKETS);
}

static void packets_stay_where_they_were_submitted(void **state)
{
	struct usbip_iso_packet packets[2];

	note_packets(*state, 1, two_packets, 2, 392);
	memcpy(packets, two_packets, sizeof(packets));
	packets[1].offset = 400;
	assert_int_equal(check_packets(*state, 1, 0, packets, 2),
			 URB_BAD_PACKET);

	packets[1].offset = 195;
	assert_int_equal(check_packets(*state, 1, 0, packets, 2),
			 URB_BAD_PACKET);

	packets[1] = two_packets[1];
	packets[0].length = 197;
	assert_int_equal(check_packets(*state, 1, 0, packets, 2),
			 URB_BAD_PACKET);
}

static void a_packet_brings_no_more_than_its_length(void **state)
{
	struct usbip_iso_packet packets[2];

	note_packets(*state, 1, two_packets, 2, 392);
	memcpy(packets, two_packets, sizeof(packets));
	packets[0].actual_length = 196;
	assert_int_equal(check_packets(*state, 1, 196, packets, 2), URB_OK);

	packets[0].actual_length = 197;
	assert_int_equal(check_packets(*state, 1, 197, packets, 2),
			 URB_BAD_ACTUAL);
}

static void packets_sum_to_the_actual_length_of_the_header(void **state)
{
	struct usbip_iso_packet packets[2];

	note_packets(*state, 1, two_packets, 2, 392);
	memcpy(packets, two_packets, sizeof(packets));
	packets[0].actual_length = 100;
	packets[1].actual_length = 50;
	assert_int_equal(check_packets(*state, 1, 150, packets, 2), URB_OK);
	assert_int_equal(check_packets(*state, 1, 149, packets, 2),
			 URB_BAD_ACTUAL);
	assert_int_equal(check_packets(*state, 1, 151, packets, 2),
			 URB_BAD_ACTUAL);
}

static void a_packet_has_a_status_of_its_own(void **state)
{
	struct usbip_iso_packet packets[2];

	note_packets(*state, 1, two_packets, 2, 392);
	memcpy(packets, two_packets, sizeof(packets));
	packets[1].status = -18;
	assert_int_equal(check_packets(*state, 1, 0, packets, 2), URB_OK);

	packets[1].status = 1;
	assert_int_equal(check_packets(*state, 1, 0, packets, 2),
			 URB_BAD_STATUS);
}

static void no_more_packets_failed_than_there_were(void **state)
{
	struct usbip_header reply = {
		.command = USBIP_RET_SUBMIT,
		.seqnum = 1,
		.ret_submit = { .num_packets = 2, .error_count = UINT32_MAX },
	};
	const struct urb_entry *entry;

	note_packets(*state, 1, two_packets, 2, 392);
	assert_int_equal(urb_table_check_reply(*state, &reply, &entry), URB_OK);
	assert_int_equal(reply.ret_submit.error_count, 2);
}

static void the_table_has_its_own_copy_of_the_packets(void **state)
{
	struct usbip_iso_packet packets[2];

	memcpy(packets, two_packets, sizeof(packets));
	note_packets(*state, 1, packets, 2, 392);
	memset(packets, 0xa5, sizeof(packets));
	note_packets(*state, 2, packets, 2, 392);

	assert_int_equal(check_packets(*state, 1, 0, two_packets, 2), URB_OK);
}

static void packet_lists_of_any_size_follow_each_other(void **state)
{
	static const uint32_t sizes[] = { 1, 1024, 8, 1024, 2, 5 };
	struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS];

	for (uint32_t i = 0; i < ARRAY_SIZE(packets); i++)
		packets[i] =
			(struct usbip_iso_packet){ .offset = i, .length = 1 };
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		note_packets(*state, 1, packets, sizes[i], 1024);
		assert_int_equal(check_packets(*state, 1, 0, packets, sizes[i]),
				 URB_OK);
		settle(*state, 1);
	}
}

/* xorshift: the same run every time. */
static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* The laws of the header file, each by itself. */
static bool is_lawful(const struct usbip_iso_packet *asked,
		      const struct usbip_iso_packet *got, uint32_t num_packets,
		      uint32_t actual_length)
{
	uint64_t sum = 0;
	bool is_same = true;
	bool is_inside = true;
	bool is_errno = true;

	for (uint32_t i = 0; i < num_packets; i++) {
		is_same &= got[i].offset == asked[i].offset;
		is_same &= got[i].length == asked[i].length;
		is_inside &= got[i].actual_length <= asked[i].length;
		is_errno &= got[i].status <= 0 && got[i].status >= -4095;
		sum += got[i].actual_length;
	}
	return is_same && is_inside && is_errno && sum == actual_length;
}

/* One field of one packet becomes something else, at times out of bounds. */
static void spoil(struct usbip_iso_packet *packet, uint32_t *seed)
{
	uint32_t value = next_random(seed) % 3 ? next_random(seed) % 20
					       : next_random(seed);

	switch (next_random(seed) % 4) {
	case 0:
		packet->offset = value;
		break;
	case 1:
		packet->length = value;
		break;
	case 2:
		packet->actual_length = value;
		break;
	default:
		packet->status = (int32_t)value;
		break;
	}
}

static void replies_with_packets_are_judged_by_every_law(void **state)
{
	enum {
		NUM_ROUNDS = 100000,
		NUM_PACKETS = 4
	};
	uint32_t seed = 362436069;
	uint32_t num_accepted = 0;

	for (int round = 0; round < NUM_ROUNDS; round++) {
		struct usbip_iso_packet asked[NUM_PACKETS];
		struct usbip_iso_packet got[NUM_PACKETS];
		uint32_t sum = 0;
		bool expected;

		for (uint32_t i = 0; i < NUM_PACKETS; i++) {
			asked[i] = (struct usbip_iso_packet){
				.offset = 16 * i,
				.length = next_random(&seed) % 17,
			};
			got[i] = asked[i];
			got[i].actual_length =
				next_random(&seed) % (asked[i].length + 1);
			got[i].status = -(int32_t)(next_random(&seed) % 4096);
			sum += got[i].actual_length;
		}
		if (round % 2)
			spoil(&got[next_random(&seed) % NUM_PACKETS], &seed);
		if (round % 16 == 0)
			sum += next_random(&seed) % 3;
		expected = sum <= 64 && is_lawful(asked, got, NUM_PACKETS, sum);
		num_accepted += expected;

		note_packets(*state, 1, asked, NUM_PACKETS, 64);
		assert_int_equal(check_packets(*state, 1, sum, got,
					       NUM_PACKETS) == URB_OK,
				 expected);
		settle(*state, 1);
	}
	assert_in_range(num_accepted, NUM_ROUNDS / 4, NUM_ROUNDS * 3 / 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_reply_has_as_many_packets_as_were_submitted),
		TEST(packets_in_a_reply_to_a_bulk_transfer_are_refused),
		TEST(packets_stay_where_they_were_submitted),
		TEST(a_packet_brings_no_more_than_its_length),
		TEST(packets_sum_to_the_actual_length_of_the_header),
		TEST(a_packet_has_a_status_of_its_own),
		TEST(no_more_packets_failed_than_there_were),
		TEST(the_table_has_its_own_copy_of_the_packets),
		TEST(packet_lists_of_any_size_follow_each_other),
		TEST(replies_with_packets_are_judged_by_every_law),
	};

	return cmocka_run_group_tests_name("urb_packets", tests, NULL, NULL);
}
