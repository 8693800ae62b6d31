/* SPDX-License-Identifier: Apache-2.0 */
/* What passes and what does not, told from a header or a packet list alone. */
#include "vchan-transport/urb_check.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

enum {
	DEVID = 0x00020003
};

/* Bulk OUT of 512 bytes. */
static struct usbip_header make_submit(void)
{
	return (struct usbip_header){
		.command = USBIP_CMD_SUBMIT,
		.seqnum = 1,
		.devid = DEVID,
		.direction = USBIP_DIR_OUT,
		.endpoint = 2,
		.submit = { .length = 512 },
	};
}

static enum urb_verdict check(const struct usbip_header *header)
{
	return urb_check_command(header, DEVID);
}

static void
every_endpoint_and_direction_beyond_the_table_is_refused(void **state)
{
	static const uint32_t endpoints[] = { 0,   1,        15,
					      16,  127,      128,
					      255, 1u << 31, UINT32_MAX };
	static const uint32_t directions[] = { 0, 1, 2, 0x80, UINT32_MAX };

	(void)state;
	for (size_t e = 0; e < ARRAY_SIZE(endpoints); e++) {
		for (size_t d = 0; d < ARRAY_SIZE(directions); d++) {
			struct usbip_header header = make_submit();
			enum urb_verdict expected = URB_OK;

			header.endpoint = endpoints[e];
			header.direction = directions[d];
			if (directions[d] > 1)
				expected = URB_BAD_DIRECTION;
			else if (endpoints[e] > 15)
				expected = URB_BAD_ENDPOINT;

			assert_int_equal(check(&header), expected);
		}
	}
}

static void lengths_pass_up_to_the_limit(void **state)
{
	static const struct {
		uint32_t length;
		enum urb_verdict verdict;
	} rows[] = {
		{ 0, URB_OK },
		{ 1, URB_OK },
		{ URB_MAX_LENGTH - 1, URB_OK },
		{ URB_MAX_LENGTH, URB_OK },
		{ URB_MAX_LENGTH + 1, URB_BAD_LENGTH },
		{ INT32_MAX, URB_BAD_LENGTH },
		{ (uint32_t)INT32_MAX + 1, URB_BAD_LENGTH },
		{ UINT32_MAX, URB_BAD_LENGTH },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct usbip_header header = make_submit();

		header.submit.length = rows[i].length;
		assert_int_equal(check(&header), rows[i].verdict);
		header.direction = USBIP_DIR_IN;
		assert_int_equal(check(&header), rows[i].verdict);
	}
}

static void numbers_of_packets_pass_up_to_the_limit(void **state)
{
	static const struct {
		uint32_t num_packets;
		enum urb_verdict verdict;
		bool is_iso;
	} rows[] = {
		{ 0, URB_OK, false },
		{ 1, URB_OK, true },
		{ 1024, URB_OK, true },
		{ 1025, URB_BAD_PACKETS, true },
		{ INT32_MAX, URB_BAD_PACKETS, true },
		{ (uint32_t)INT32_MAX + 1, URB_BAD_PACKETS, true },
		{ UINT32_MAX - 1, URB_BAD_PACKETS, true },
		{ USBIP_NOT_ISO, URB_OK, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct usbip_header header = make_submit();

		header.submit.num_packets = rows[i].num_packets;
		assert_int_equal(check(&header), rows[i].verdict);
		assert_int_equal(urb_is_iso(rows[i].num_packets),
				 rows[i].is_iso);
	}
}

static void packets_on_the_control_endpoint_are_refused(void **state)
{
	struct usbip_header header = make_submit();

	(void)state;
	header.endpoint = 0;
	header.submit.num_packets = 1;
	assert_int_equal(check(&header), URB_BAD_PACKETS);

	header.submit.num_packets = USBIP_NOT_ISO;
	assert_int_equal(check(&header), URB_OK);
}

static void a_command_for_another_device_is_refused(void **state)
{
	struct usbip_header header = make_submit();

	(void)state;
	header.devid = DEVID + 1;
	assert_int_equal(check(&header), URB_BAD_DEVID);
	header.command = USBIP_CMD_UNLINK;
	assert_int_equal(check(&header), URB_BAD_DEVID);
	header.devid = 0;
	assert_int_equal(check(&header), URB_BAD_DEVID);
}

static void only_submit_and_unlink_are_commands(void **state)
{
	static const uint32_t others[] = { 0, USBIP_RET_SUBMIT, 4,
					   5, 0x8003,           UINT32_MAX };
	struct usbip_header header = make_submit();

	(void)state;
	assert_int_equal(check(&header), URB_OK);
	header.command = USBIP_CMD_UNLINK;
	assert_int_equal(check(&header), URB_OK);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		header.command = others[i];
		assert_int_equal(check(&header), URB_BAD_COMMAND);
	}
}

static void direction_and_endpoint_of_an_unlink_mean_nothing(void **state)
{
	struct usbip_header header = make_submit();

	(void)state;
	header.command = USBIP_CMD_UNLINK;
	header.direction = 7;
	header.endpoint = 200;
	assert_int_equal(check(&header), URB_OK);
	assert_int_equal(urb_command_payload(&header), 0);
}

static void no_transfer_flag_is_a_reason_to_refuse(void **state)
{
	struct usbip_header header = make_submit();

	(void)state;
	for (int bit = 0; bit < 32; bit++) {
		header.submit.flags = 1u << bit;
		assert_int_equal(check(&header), URB_OK);
	}
}

static void seqnum_interval_and_start_frame_may_be_anything(void **state)
{
	static const uint32_t values[] = { 0, 1, 0x80000000, UINT32_MAX };
	struct usbip_header header = make_submit();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		header.seqnum = values[i];
		header.submit.interval = values[i];
		header.submit.start_frame = values[i];
		assert_int_equal(check(&header), URB_OK);
	}
}

static void a_setup_length_may_differ_from_the_buffer(void **state)
{
	struct usbip_header header = make_submit();

	(void)state;
	header.endpoint = 0;
	header.submit.length = 8;
	header.submit.setup[6] = 0xff;
	header.submit.setup[7] = 0xff;
	assert_int_equal(check(&header), URB_OK);
	assert_int_equal(urb_command_payload(&header), 8);

	header.submit.setup[6] = 0;
	header.submit.setup[7] = 0;
	assert_int_equal(check(&header), URB_OK);
	assert_int_equal(urb_command_payload(&header), 8);
}

static void data_out_follows_its_command_and_data_in_does_not(void **state)
{
	struct usbip_header header = make_submit();

	(void)state;
	assert_false(urb_is_in(&header));
	assert_int_equal(urb_command_payload(&header), 512);

	header.direction = USBIP_DIR_IN;
	assert_true(urb_is_in(&header));
	assert_int_equal(urb_command_payload(&header), 0);
}

static void isochronous_data_out_is_the_whole_buffer_with_its_gaps(void **state)
{
	struct usbip_header header = make_submit();

	(void)state;
	header.submit.num_packets = 2;
	header.submit.length = 400;
	assert_int_equal(urb_command_payload(&header), 400);
}

static void control_data_is_framed_by_the_direction_not_the_setup(void **state)
{
	struct usbip_header header = make_submit();

	(void)state;
	header.endpoint = 0;
	header.submit.setup[0] = 0x80;
	header.submit.setup[6] = 18;
	assert_true(urb_is_setup_in(header.submit.setup));
	assert_false(urb_is_in(&header));
	assert_int_equal(urb_command_payload(&header), 512);
}

static void a_setup_without_length_has_no_data_from_the_device(void **state)
{
	static const uint8_t none[8] = { 0x80, 6, 0, 1, 0, 0, 0, 0 };
	static const uint8_t low[8] = { 0xc0, 6, 0, 1, 0, 0, 1, 0 };
	static const uint8_t high[8] = { 0xa1, 6, 0, 1, 0, 0, 0, 1 };
	static const uint8_t out[8] = { 0x21, 9, 0, 1, 0, 0, 8, 0 };

	(void)state;
	assert_false(urb_is_setup_in(none));
	assert_true(urb_is_setup_in(low));
	assert_true(urb_is_setup_in(high));
	assert_false(urb_is_setup_in(out));
}

static void a_packet_may_touch_the_end_of_its_buffer_and_no_more(void **state)
{
	static const struct {
		uint32_t offset;
		uint32_t length;
		size_t buffer;
		enum urb_verdict verdict;
	} rows[] = {
		{ 0, 0, 0, URB_OK },
		{ 0, 392, 392, URB_OK },
		{ 196, 196, 392, URB_OK },
		{ 392, 0, 392, URB_OK },
		{ 393, 0, 392, URB_BAD_PACKET },
		{ 196, 197, 392, URB_BAD_PACKET },
		{ 400, 0, 392, URB_BAD_PACKET },
		{ 0, 393, 392, URB_BAD_PACKET },
		{ 0, 1, 0, URB_BAD_PACKET },
		{ UINT32_MAX, 1, 392, URB_BAD_PACKET },
		{ 1, UINT32_MAX, 392, URB_BAD_PACKET },
		{ UINT32_MAX, UINT32_MAX, 392, URB_BAD_PACKET },
		{ 0x80000000, 0x80000000, 392, URB_BAD_PACKET },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct usbip_iso_packet packet = {
			.offset = rows[i].offset,
			.length = rows[i].length,
		};

		assert_int_equal(urb_check_packets(&packet, 1, rows[i].buffer),
				 rows[i].verdict);
	}
}

static void packets_that_sum_to_more_than_their_buffer_are_refused(void **state)
{
	struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++)
		packets[i] = (struct usbip_iso_packet){ .length = 1 };
	assert_int_equal(urb_check_packets(packets, 1024, 1024), URB_OK);
	assert_int_equal(urb_check_packets(packets, 1024, 1023),
			 URB_BAD_PACKET);

	/* 1024 times 4 MiB is 0 in 32 bits. */
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++)
		packets[i].length = 4u << 20;
	assert_int_equal(urb_check_packets(packets, 1024, URB_MAX_LENGTH),
			 URB_BAD_PACKET);
}

static void more_packets_than_the_limit_are_refused_unread(void **state)
{
	struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS + 1] = { 0 };

	(void)state;
	assert_int_equal(urb_check_packets(packets, 1024, 0), URB_OK);
	assert_int_equal(urb_check_packets(packets, 1025, 0), URB_BAD_PACKETS);
	assert_int_equal(urb_check_packets(NULL, SIZE_MAX, 0), URB_BAD_PACKETS);
	assert_int_equal(urb_check_packets(NULL, 0, 0), URB_OK);
}

static void what_a_command_says_of_results_is_not_looked_at(void **state)
{
	struct usbip_iso_packet packet = {
		.length = 8,
		.actual_length = UINT32_MAX,
		.status = INT32_MAX,
	};

	(void)state;
	assert_int_equal(urb_check_packets(&packet, 1, 8), URB_OK);
}

/* xorshift: the same run every time. */
static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* Small mostly, so that lists often fit, and at times absurd. */
static uint32_t random_size(uint32_t *seed, uint32_t most)
{
	uint32_t kind = next_random(seed) % 64;

	if (kind == 0)
		return next_random(seed);
	if (kind == 1)
		return UINT32_MAX - next_random(seed) % (most + 1);
	return next_random(seed) % (most + 1);
}

/* Walks each byte of each packet, one by one, until one lies outside. */
static bool fits_byte_by_byte(const struct usbip_iso_packet *packets,
			      size_t num_packets, size_t length)
{
	size_t num_bytes = 0;

	for (size_t i = 0; i < num_packets; i++) {
		uint64_t at = packets[i].offset;

		if (at > length)
			return false;
		for (uint32_t b = 0; b < packets[i].length; b++, at++)
			if (at >= length || ++num_bytes > length)
				return false;
	}
	return true;
}

static void packet_lists_are_judged_as_by_walking_every_byte(void **state)
{
	enum {
		NUM_LISTS = 200000,
		MOST_PACKETS = 8,
		MOST_BYTES = 64
	};
	uint32_t seed = 88675123;
	uint32_t num_accepted = 0;

	(void)state;
	for (int i = 0; i < NUM_LISTS; i++) {
		struct usbip_iso_packet packets[MOST_PACKETS];
		size_t num_packets = next_random(&seed) % (MOST_PACKETS + 1);
		size_t length = next_random(&seed) % (MOST_BYTES + 1);
		bool fits;

		for (size_t p = 0; p < num_packets; p++)
			packets[p] = (struct usbip_iso_packet){
				.offset = random_size(&seed, 40),
				.length = random_size(&seed, 12),
			};
		fits = fits_byte_by_byte(packets, num_packets, length);
		num_accepted += fits;

		assert_int_equal(urb_check_packets(packets, num_packets,
						   length),
				 fits ? URB_OK : URB_BAD_PACKET);
	}
	assert_in_range(num_accepted, NUM_LISTS / 10, NUM_LISTS * 9 / 10);
}

static void a_status_is_0_or_a_negative_errno(void **state)
{
	(void)state;
	assert_true(urb_is_status(0));
	assert_true(urb_is_status(-1));
	assert_true(urb_is_status(-121));
	assert_true(urb_is_status(-4095));
	assert_false(urb_is_status(-4096));
	assert_false(urb_is_status(1));
	assert_false(urb_is_status(INT32_MAX));
	assert_false(urb_is_status(INT32_MIN));
}

static void every_verdict_has_a_sentence_of_its_own(void **state)
{
	(void)state;
	for (int a = URB_OK; a <= URB_TOO_MANY; a++) {
		for (int b = URB_OK; b < a; b++)
			assert_string_not_equal(
				urb_verdict_sentence((enum urb_verdict)a),
				urb_verdict_sentence((enum urb_verdict)b));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			every_endpoint_and_direction_beyond_the_table_is_refused),
		cmocka_unit_test(lengths_pass_up_to_the_limit),
		cmocka_unit_test(numbers_of_packets_pass_up_to_the_limit),
		cmocka_unit_test(packets_on_the_control_endpoint_are_refused),
		cmocka_unit_test(a_command_for_another_device_is_refused),
		cmocka_unit_test(only_submit_and_unlink_are_commands),
		cmocka_unit_test(
			direction_and_endpoint_of_an_unlink_mean_nothing),
		cmocka_unit_test(no_transfer_flag_is_a_reason_to_refuse),
		cmocka_unit_test(
			seqnum_interval_and_start_frame_may_be_anything),
		cmocka_unit_test(a_setup_length_may_differ_from_the_buffer),
		cmocka_unit_test(
			data_out_follows_its_command_and_data_in_does_not),
		cmocka_unit_test(
			isochronous_data_out_is_the_whole_buffer_with_its_gaps),
		cmocka_unit_test(
			control_data_is_framed_by_the_direction_not_the_setup),
		cmocka_unit_test(
			a_setup_without_length_has_no_data_from_the_device),
		cmocka_unit_test(
			a_packet_may_touch_the_end_of_its_buffer_and_no_more),
		cmocka_unit_test(
			packets_that_sum_to_more_than_their_buffer_are_refused),
		cmocka_unit_test(
			more_packets_than_the_limit_are_refused_unread),
		cmocka_unit_test(
			what_a_command_says_of_results_is_not_looked_at),
		cmocka_unit_test(
			packet_lists_are_judged_as_by_walking_every_byte),
		cmocka_unit_test(a_status_is_0_or_a_negative_errno),
		cmocka_unit_test(every_verdict_has_a_sentence_of_its_own),
	};

	return cmocka_run_group_tests_name("urb_check", tests, NULL, NULL);
}
