/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link between vhci_hcd and a gateway that breaks the rules: for each way to
 * break them the link ends, says so by its exit status, and not one byte of what
 * is wrong reaches vhci. The same for a vhci that breaks them.
 */
#include "frontend/link.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fake/link_bench.h"
#include "tests/fake/shm_tap.h"
#include "vchan-transport/urb_check.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* What is in flight when the hostile reply comes. */
#define SEQ_IN     1 /* 100 bytes */
#define SEQ_OUT    2 /* 100 bytes */
#define SEQ_ISO    3 /* in: 200 bytes, two packets */
#define SEQ_UNLINK 4 /* of SEQ_IN */
#define SEQ_DONE   5 /* answered already */

static const struct usbip_iso_packet asked[] = {
	{ .offset = 0, .length = 100, .actual_length = 60 },
	{ .offset = 100, .length = 100, .actual_length = 40 },
};

static struct link_bytes commands;
static struct link_bytes replies;

static int setup(void **state)
{
	struct link_bench *b = calloc(1, sizeof(*b));

	*state = b;
	link_bytes_clear(&commands);
	link_bytes_clear(&replies);
	if (!b || link_bench_prepare(b, true) < 0)
		return -1;
	return link_bench_start(b);
}

static int teardown(void **state)
{
	link_bench_close(*state);
	free(*state);
	return 0;
}

static void put_in_flight(struct link_bench *b)
{
	link_submit_in(&commands, SEQ_DONE, 8);
	assert_true(link_bench_pass_commands(b, &commands));
	link_ret_submit_in(&replies, SEQ_DONE, 0, 8);
	assert_true(link_bench_pass_replies(b, &replies));

	link_bytes_clear(&commands);
	link_bytes_clear(&replies);
	link_submit_in(&commands, SEQ_IN, 100);
	link_submit_out(&commands, SEQ_OUT, 100);
	link_submit_iso(&commands, SEQ_ISO, 0x85, 200, asked, 2);
	link_unlink(&commands, SEQ_UNLINK, SEQ_IN);
	assert_true(link_bench_pass_commands(b, &commands));
}

/* The replies end the link; vhci gets the first `passing` bytes of them. */
static void check_refused(struct link_bench *b, size_t passing)
{
	assert_true(link_bench_reply_all(b, &replies));
	assert_int_equal(link_bench_wait(b), EXIT_PROTOCOL);
	replies.used = passing;
	assert_true(link_bench_expect_replies(b, &replies));
	assert_true(link_bench_vhci_ended(b));
}

static struct usbip_header ret_submit(uint32_t seqnum, int status,
				      uint32_t actual_length)
{
	return (struct usbip_header){
		.command = USBIP_RET_SUBMIT,
		.seqnum = seqnum,
		.ret_submit = { .status = status,
				.actual_length = actual_length },
	};
}

/* --------------------------------------------------------- headers that lie */

/* Behind a good reply, which passes. */
static void check_bad_header(void **state, const struct usbip_header *h)
{
	struct link_bench *b = *state;
	size_t passing;

	put_in_flight(b);
	link_ret_submit_out(&replies, SEQ_OUT, 0, 100);
	passing = replies.used;
	link_put_header(&replies, h);
	/* As if it were a header of its own: nothing is read any more. */
	link_put_data(&replies, 300);
	check_refused(b, passing);
}

static void more_data_than_was_asked_for_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_IN, 0, 101);

	check_bad_header(state, &h);
}

static void an_actual_length_of_all_ones_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_IN, 0, 0xffffffff);

	check_bad_header(state, &h);
}

static void an_answer_to_nothing_is_refused(void **state)
{
	struct usbip_header h = ret_submit(77, 0, 0);

	check_bad_header(state, &h);
}

static void a_second_answer_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_DONE, 0, 0);

	check_bad_header(state, &h);
}

static void a_status_that_is_no_error_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_IN, 5, 0);

	check_bad_header(state, &h);
}

static void a_status_below_all_errors_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_IN, -4096, 0);

	check_bad_header(state, &h);
}

static void a_command_as_an_answer_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_IN, 0, 0);

	h.command = USBIP_CMD_SUBMIT;
	check_bad_header(state, &h);
}

static void a_command_that_is_none_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_IN, 0, 0);

	h.command = 0x80000003;
	check_bad_header(state, &h);
}

static void an_unlinks_answer_to_a_submit_is_refused(void **state)
{
	struct usbip_header h = { .command = USBIP_RET_UNLINK,
				  .seqnum = SEQ_IN,
				  .unlink_status = -ECONNRESET };

	check_bad_header(state, &h);
}

static void a_submits_answer_to_an_unlink_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_UNLINK, 0, 0);

	check_bad_header(state, &h);
}

static void an_answer_behind_that_of_its_unlink_is_refused(void **state)
{
	struct link_bench *b = *state;
	size_t passing;

	put_in_flight(b);
	link_ret_unlink(&replies, SEQ_UNLINK, -ECONNRESET);
	passing = replies.used;
	link_ret_submit_in(&replies, SEQ_IN, 0, 100);
	check_refused(b, passing);
}

static void packets_in_an_answer_to_a_bulk_urb_are_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_IN, 0, 0);

	h.ret_submit.num_packets = 1;
	check_bad_header(state, &h);
}

static void more_packets_than_were_asked_for_are_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_ISO, 0, 0);

	h.ret_submit.num_packets = 3;
	check_bad_header(state, &h);
}

static void fewer_packets_than_were_asked_for_are_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_ISO, 0, 0);

	h.ret_submit.num_packets = 1;
	check_bad_header(state, &h);
}

static void an_iso_answer_without_packets_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_ISO, 0, 0);

	check_bad_header(state, &h);
}

static void an_iso_answer_longer_than_its_buffer_is_refused(void **state)
{
	struct usbip_header h = ret_submit(SEQ_ISO, 0, 201);

	h.ret_submit.num_packets = 2;
	check_bad_header(state, &h);
}

/* What a reply need not say right: the link says it for the gateway. */
static void words_that_mean_nothing_do_not_reach_vhci(void **state)
{
	struct link_bench *b = *state;
	struct usbip_header h = ret_submit(SEQ_OUT, 0, 100);
	static struct link_bytes expected;
	struct iovec v;

	put_in_flight(b);
	h.devid = 0xa5a5a5a5;
	h.direction = 0xa5a5a5a5;
	h.endpoint = 0xa5a5a5a5;
	h.ret_submit.num_packets = USBIP_NOT_ISO;
	h.ret_submit.error_count = 0xa5a5a5a5;
	link_put_header(&replies, &h);
	v = (struct iovec){ replies.bytes, replies.used };
	assert_int_equal(channel_writev(b->gateway, &v, 1), replies.used);
	channel_flush(b->gateway);
	link_bytes_clear(&expected);
	link_ret_submit_out(&expected, SEQ_OUT, 0, 100);
	assert_true(link_bench_expect_replies(b, &expected));
}

/* --------------------------------------------------------- packets that lie */

/*
 * vhci waits for the list when it has the header and the data, and gets the
 * end instead: it gives up the connection without having believed a word.
 */
static void check_bad_packets(void **state,
			      const struct usbip_iso_packet packets[2])
{
	struct link_bench *b = *state;
	struct usbip_header h = ret_submit(SEQ_ISO, 0, 100);
	size_t passing;

	put_in_flight(b);
	h.ret_submit.num_packets = 2;
	link_put_header(&replies, &h);
	link_put_data(&replies, 100);
	passing = replies.used;
	link_put_packets(&replies, packets, 2);
	check_refused(b, passing);
}

static void an_offset_outside_the_buffer_is_refused(void **state)
{
	const struct usbip_iso_packet packets[] = {
		asked[0],
		{ .offset = 400, .length = 100, .actual_length = 40 },
	};

	check_bad_packets(state, packets);
}

static void another_offset_than_was_asked_for_is_refused(void **state)
{
	const struct usbip_iso_packet packets[] = {
		asked[0],
		{ .offset = 99, .length = 100, .actual_length = 40 },
	};

	check_bad_packets(state, packets);
}

static void another_length_than_was_asked_for_is_refused(void **state)
{
	const struct usbip_iso_packet packets[] = {
		asked[0],
		{ .offset = 100, .length = 101, .actual_length = 40 },
	};

	check_bad_packets(state, packets);
}

static void a_packet_with_more_than_its_length_is_refused(void **state)
{
	const struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 100, .actual_length = 101 },
		{ .offset = 100, .length = 100, .actual_length = 0xffffffff },
	};

	check_bad_packets(state, packets);
}

static void packets_whose_sum_is_less_are_refused(void **state)
{
	const struct usbip_iso_packet packets[] = {
		asked[0],
		{ .offset = 100, .length = 100, .actual_length = 39 },
	};

	check_bad_packets(state, packets);
}

static void packets_whose_sum_is_more_are_refused(void **state)
{
	const struct usbip_iso_packet packets[] = {
		asked[0],
		{ .offset = 100, .length = 100, .actual_length = 41 },
	};

	check_bad_packets(state, packets);
}

static void a_packets_status_that_is_no_error_is_refused(void **state)
{
	const struct usbip_iso_packet packets[] = {
		asked[0],
		{ .offset = 100,
		  .length = 100,
		  .actual_length = 40,
		  .status = 1 },
	};

	check_bad_packets(state, packets);
}

/* --------------------------------------------------------- the ring itself */

static void indices_that_cannot_be_end_the_link(void **state)
{
	struct link_bench b = { 0 };
	struct shm_tap tap;

	(void)state;
	assert_int_equal(link_bench_prepare(&b, true), 0);
	channel_free(b.gateway);
	channel_free(b.links_channel);
	assert_int_equal(shm_tap_open(&tap), 0);
	b.gateway = tap.server;
	b.links_channel = tap.client;
	assert_int_equal(link_bench_start(&b), 0);

	link_submit_in(&commands, 1, 100);
	assert_true(link_bench_pass_commands(&b, &commands));
	memset(tap.memory, 0xf0, SHM_TAP_CONTROL_BYTES);
	channel_flush(b.gateway);
	assert_int_equal(channel_end(b.gateway), 0);
	assert_int_equal(link_bench_wait(&b), EXIT_PROTOCOL);
	assert_true(link_bench_vhci_ended(&b));
	link_bench_close(&b);
	shm_tap_close(&tap);
}

/* ------------------------------------------------------- a vhci that lies */

/* The command is not passed on, and the link ends. */
static void check_bad_command(void **state, const struct usbip_header *h)
{
	struct link_bench *b = *state;
	uint8_t byte;

	link_put_header(&commands, h);
	link_put_data(&commands, 200);
	assert_int_equal(write(b->vhci, commands.bytes, commands.used),
			 commands.used);
	assert_int_equal(link_bench_wait(b), EXIT_PROTOCOL);
	assert_true(link_bench_vhci_ended(b));
	assert_true(channel_read_all(b->gateway, &byte, 1, clock_ms() + 5000) <
		    0);
}

static struct usbip_header submit(void)
{
	return (struct usbip_header){ .command = USBIP_CMD_SUBMIT,
				      .seqnum = 9,
				      .devid = LINK_BENCH_DEVID,
				      .endpoint = 2,
				      .submit = { .length = 100 } };
}

static void a_command_for_another_device_is_refused(void **state)
{
	struct usbip_header h = submit();

	h.devid++;
	check_bad_command(state, &h);
}

static void a_reply_as_a_command_is_refused(void **state)
{
	struct usbip_header h = submit();

	h.command = USBIP_RET_UNLINK;
	check_bad_command(state, &h);
}

static void a_command_that_is_too_long_is_refused(void **state)
{
	struct usbip_header h = submit();

	h.submit.length = URB_MAX_LENGTH + 1;
	check_bad_command(state, &h);
}

static void a_seqnum_twice_in_flight_is_refused(void **state)
{
	struct link_bench *b = *state;

	put_in_flight(b);
	link_bytes_clear(&commands);
	link_submit_in(&commands, SEQ_ISO, 8);
	assert_int_equal(write(b->vhci, commands.bytes, commands.used),
			 commands.used);
	assert_int_equal(link_bench_wait(b), EXIT_PROTOCOL);
}

/* ------------------------------------------------- another device behind it */

static const uint8_t device_descriptor[18] = { 18,   1,    0,    2,    0, 0,
					       0,    64,   0x50, 0x10, 7, 4,
					       0x43, 0x05, 1,    2,    3, 1 };

/* vhci asks for the device descriptor and gets `bytes` of this one. */
static void answer_descriptor(struct link_bench *b, const uint8_t *descriptor,
			      size_t bytes)
{
	struct usbip_header h = { .command = USBIP_CMD_SUBMIT,
				  .seqnum = SEQ_IN,
				  .devid = LINK_BENCH_DEVID,
				  .direction = USBIP_DIR_IN,
				  .submit = { .length = 64,
					      .setup = { 0x80, 6, 0, 1, 0, 0,
							 64, 0 } } };

	link_put_header(&commands, &h);
	assert_true(link_bench_pass_commands(b, &commands));
	h = ret_submit(SEQ_IN, 0, (uint32_t)bytes);
	link_put_header(&replies, &h);
	link_put_bytes(&replies, descriptor, bytes);
}

static void the_descriptor_of_the_imported_device_passes(void **state)
{
	struct link_bench *b = *state;

	answer_descriptor(b, device_descriptor, 18);

	assert_true(link_bench_pass_replies(b, &replies));
}

static void its_first_eight_bytes_pass(void **state)
{
	struct link_bench *b = *state;

	answer_descriptor(b, device_descriptor, 8);

	assert_true(link_bench_pass_replies(b, &replies));
}

static void the_descriptor_of_another_product_is_refused(void **state)
{
	uint8_t other[18];

	memcpy(other, device_descriptor, sizeof(other));
	other[10]++;
	answer_descriptor(*state, other, 18);

	check_refused(*state, 0);
}

static void a_class_that_was_not_imported_is_refused(void **state)
{
	uint8_t other[18];

	memcpy(other, device_descriptor, sizeof(other));
	other[4] = 3;
	answer_descriptor(*state, other, 8);

	check_refused(*state, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(more_data_than_was_asked_for_is_refused),
		TEST(an_actual_length_of_all_ones_is_refused),
		TEST(an_answer_to_nothing_is_refused),
		TEST(a_second_answer_is_refused),
		TEST(a_status_that_is_no_error_is_refused),
		TEST(a_status_below_all_errors_is_refused),
		TEST(a_command_as_an_answer_is_refused),
		TEST(a_command_that_is_none_is_refused),
		TEST(an_unlinks_answer_to_a_submit_is_refused),
		TEST(a_submits_answer_to_an_unlink_is_refused),
		TEST(an_answer_behind_that_of_its_unlink_is_refused),
		TEST(packets_in_an_answer_to_a_bulk_urb_are_refused),
		TEST(more_packets_than_were_asked_for_are_refused),
		TEST(fewer_packets_than_were_asked_for_are_refused),
		TEST(an_iso_answer_without_packets_is_refused),
		TEST(an_iso_answer_longer_than_its_buffer_is_refused),
		TEST(words_that_mean_nothing_do_not_reach_vhci),
		TEST(an_offset_outside_the_buffer_is_refused),
		TEST(another_offset_than_was_asked_for_is_refused),
		TEST(another_length_than_was_asked_for_is_refused),
		TEST(a_packet_with_more_than_its_length_is_refused),
		TEST(packets_whose_sum_is_less_are_refused),
		TEST(packets_whose_sum_is_more_are_refused),
		TEST(a_packets_status_that_is_no_error_is_refused),
		cmocka_unit_test(indices_that_cannot_be_end_the_link),
		TEST(a_command_for_another_device_is_refused),
		TEST(a_reply_as_a_command_is_refused),
		TEST(a_command_that_is_too_long_is_refused),
		TEST(a_seqnum_twice_in_flight_is_refused),
		TEST(the_descriptor_of_the_imported_device_passes),
		TEST(its_first_eight_bytes_pass),
		TEST(the_descriptor_of_another_product_is_refused),
		TEST(a_class_that_was_not_imported_is_refused),
	};

	return cmocka_run_group_tests_name("link_hostile", tests, NULL, NULL);
}
