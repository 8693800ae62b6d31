/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that asks for more than it may, says what it may not, cuts what it
 * says into pieces, or does not listen: how the engine keeps within its limits,
 * and what becomes of the conversation.
 */
#include "gateway/engine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_bed.h"
#include "vchan-transport/urb_check.h"

#define MIB         (1u << 20)
#define FLOOD_BYTES 4096

/* ------------------------------------------------------------------ budget */

static void submit_out(struct engine_bench *b, uint32_t seqnum, uint32_t length)
{
	static const uint8_t data[ENGINE_BENCH_BUDGET];
	struct usbip_header h = engine_bench_submit(seqnum, 0x02, length);

	assert_true(engine_bench_send_header(b, &h));
	assert_true(engine_bench_send(b, data, length));
	engine_bench_turn(b);
}

static void
bytes_in_flight_are_what_the_budget_says_and_not_one_more(void **state)
{
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < 4; i++)
		submit_out(b, i, MIB);
	assert_int_equal(b->device.num_held, 4);
	submit_out(b, 10, 1);
	expect_answer(b, 10, -ENOMEM, 0);
	submit_out(b, 11, 100000);
	expect_answer(b, 11, -ENOMEM, 0);
	/* Of no length there is always room. */
	submit_out(b, 12, 0);
	assert_int_equal(b->device.num_held, 5);

	fake_usb_device_finish(&b->device, b->device.held[0], 0, MIB);
	expect_answer(b, 0, 0, MIB);
	submit_out(b, 13, MIB);
	assert_int_equal(b->device.num_held, 5);
	submit_out(b, 14, 1);
	expect_answer(b, 14, -ENOMEM, 0);
	assert_int_equal(engine_end(b->engine), ENGINE_RUNNING);
}

static void one_transfer_above_the_budget_fails_alone(void **state)
{
	struct engine_bench *b = *state;
	struct usbip_header h =
		engine_bench_submit(1, 0x81, ENGINE_BENCH_BUDGET + 1);

	assert_true(engine_bench_send_header(b, &h));
	expect_answer(b, 1, -ENOMEM, 0);
	h.submit.length = ENGINE_BENCH_BUDGET;
	assert_true(engine_bench_send_header(b, &h));
	engine_bench_turn(b);
	assert_int_equal(b->device.num_held, 1);
}

static void a_device_without_memory_fails_the_urb_and_no_more(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_out_of_memory = true;
	submit_out(b, 1, MIB);
	expect_answer(b, 1, -ENOMEM, 0);
	b->device.is_out_of_memory = false;
	submit_out(b, 2, MIB);
	assert_int_equal(b->device.memory_bytes, MIB);
	fake_usb_device_finish(&b->device, b->device.held[0], 0, MIB);
	expect_answer(b, 2, 0, MIB);
	engine_bench_turn(b);
	assert_int_equal(b->device.memory_bytes, 0);
}

static void
urbs_in_flight_are_what_the_limit_says_and_not_one_more(void **state)
{
	struct engine_bench *b = *state;

	b->device.keeps_journal = false;
	for (uint32_t i = 0; i < URB_MAX_IN_FLIGHT; i++) {
		struct usbip_header h = engine_bench_submit(i, 0x81, 8);

		assert_true(engine_bench_send_header(b, &h));
	}
	assert_true(engine_bench_is_silent(b));
	while (b->device.num_held < URB_MAX_IN_FLIGHT)
		engine_bench_turn(b);

	/* More of them than there are slots, as long as it takes answers. */
	for (uint32_t i = 0; i < 200; i++) {
		struct usbip_header h = engine_bench_submit(10000 + i, 0x81, 8);

		assert_true(engine_bench_send_header(b, &h));
		expect_answer(b, 10000 + i, -ENOMEM, 0);
	}
	assert_int_equal(b->device.num_held, URB_MAX_IN_FLIGHT);

	/* Unlinks still pass, and make room. */
	b->device.is_cancelling = true;
	for (uint32_t i = 0; i < URB_MAX_IN_FLIGHT; i++) {
		struct usbip_header h;

		assert_true(engine_bench_send_unlink(b, 20000 + i, i));
		assert_true(engine_bench_receive_header(b, &h));
		assert_int_equal(h.command, USBIP_RET_UNLINK);
		assert_int_equal(h.seqnum, 20000 + i);
		assert_int_equal(h.unlink_status, -ECONNRESET);
	}
	assert_int_equal(b->device.num_held, 0);
}

/* ---------------------------------------------------------------- sequence */

static void seqnums_wrap_from_the_largest_to_0(void **state)
{
	struct engine_bench *b = *state;

	for (uint32_t i = 0xfffffff0; i != 16; i++)
		submit_out(b, i, 1);
	for (uint32_t i = 0xfffffff0; i != 16; i++) {
		fake_usb_device_finish(&b->device, b->device.held[0], 0, 1);
		expect_answer(b, i, 0, 1);
	}
}

static void a_seqnum_that_is_in_flight_ends_the_conversation(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_cancelling = true;
	submit_out(b, 0, 1);
	submit_out(b, 0, 1);
	assert_int_equal(engine_bench_run(b), ENGINE_VIOLATION);
	assert_string_equal(engine_end_sentence(b->engine),
			    urb_verdict_sentence(URB_BAD_SEQNUM));
	assert_int_equal(b->device.num_submits, 1);
	assert_int_equal(b->device.num_cancels, 1);
	assert_true(engine_bench_is_silent(b));
}

/* -------------------------------------------------------------- violations */

static void check_violation(void **state, struct usbip_header *h,
			    enum urb_verdict verdict)
{
	struct engine_bench *b = *state;

	assert_true(engine_bench_send_header(b, h));
	assert_int_equal(engine_bench_run(b), ENGINE_VIOLATION);
	assert_string_equal(engine_end_sentence(b->engine),
			    urb_verdict_sentence(verdict));
	assert_int_equal(b->device.num_submits, 0);
	assert_true(engine_bench_is_silent(b));
}

static void a_command_that_is_none_ends_the_conversation(void **state)
{
	struct usbip_header h = engine_bench_submit(1, 0x81, 8);

	h.command = USBIP_RET_SUBMIT;
	check_violation(state, &h, URB_BAD_COMMAND);
}

static void a_command_for_another_device_ends_the_conversation(void **state)
{
	struct usbip_header h = engine_bench_submit(1, 0x81, 8);

	h.devid ^= 1;
	check_violation(state, &h, URB_BAD_DEVID);
}

static void a_direction_that_is_none_ends_the_conversation(void **state)
{
	struct usbip_header h = engine_bench_submit(1, 0x81, 8);

	h.direction = 2;
	check_violation(state, &h, URB_BAD_DIRECTION);
}

static void an_endpoint_above_15_ends_the_conversation(void **state)
{
	struct usbip_header h = engine_bench_submit(1, 0x81, 8);

	h.endpoint = 16;
	check_violation(state, &h, URB_BAD_ENDPOINT);
}

static void a_transfer_above_the_largest_ends_the_conversation(void **state)
{
	struct usbip_header h =
		engine_bench_submit(1, 0x81, URB_MAX_LENGTH + 1);

	check_violation(state, &h, URB_BAD_LENGTH);
}

static void packets_on_a_bulk_endpoint_end_the_conversation(void **state)
{
	struct usbip_header h = engine_bench_submit(1, 0x81, 8);

	h.submit.num_packets = 1;
	check_violation(state, &h, URB_BAD_PACKETS);
}

static void more_packets_than_there_may_be_end_the_conversation(void **state)
{
	struct usbip_header h = engine_bench_submit(1, 0x85, 8);

	h.submit.num_packets = USBIP_MAX_ISO_PACKETS + 1;
	check_violation(state, &h, URB_BAD_PACKETS);
}

/* ---------------------------------------------------------- pieces and ends */

static const uint8_t ten_bytes[10] = { 9, 8, 7, 6, 5, 4, 3, 2, 1, 0 };
static const uint8_t eight_bytes[8] = { 8, 7, 6, 5, 4, 3, 2, 1 };

/* Commands of every kind behind each other; returns how many bytes. */
static size_t write_commands(uint8_t *out)
{
	struct usbip_header h = engine_bench_submit(1, 0x02, 10);
	struct usbip_iso_packet packet = { .length = 4 };
	uint8_t *at = out;

	usbip_header_encode(at, &h);
	memcpy(at + USBIP_HEADER_BYTES, ten_bytes, 10);
	at += USBIP_HEADER_BYTES + 10;

	h = engine_bench_submit(2, 0x06, 8);
	h.submit.num_packets = 2;
	usbip_header_encode(at, &h);
	memcpy(at + USBIP_HEADER_BYTES, eight_bytes, 8);
	at += USBIP_HEADER_BYTES + 8;
	for (packet.offset = 0; packet.offset < 8; packet.offset += 4) {
		usbip_iso_encode(at, &packet);
		at += USBIP_ISO_BYTES;
	}

	h = engine_bench_submit(3, 0x81, 5);
	usbip_header_encode(at, &h);
	at += USBIP_HEADER_BYTES;
	h = (struct usbip_header){ .command = USBIP_CMD_UNLINK,
				   .seqnum = 4,
				   .devid = ENGINE_BENCH_DEVID,
				   .unlink_seqnum = 1 };
	usbip_header_encode(at, &h);
	at += USBIP_HEADER_BYTES;
	return (size_t)(at - out);
}

/* What must have come of them; ends with nothing in flight. */
static void check_commands(struct engine_bench *b)
{
	struct usbip_header h;
	uint8_t bytes[5];
	struct urb *urb;

	engine_bench_turn(b);
	assert_int_equal(b->device.num_held, 3);
	urb = b->device.held[1];
	assert_int_equal(urb->num_packets, 2);
	assert_int_equal(urb->packets[1].offset, 4);
	assert_memory_equal(urb->data, eight_bytes, 8);
	urb = b->device.held[0];
	assert_memory_equal(urb->data, ten_bytes, 10);
	fake_usb_device_finish(&b->device, urb, -ECONNRESET, 0);

	assert_true(engine_bench_receive_header(b, &h));
	assert_int_equal(h.command, USBIP_RET_UNLINK);
	assert_int_equal(h.seqnum, 4);
	fake_usb_device_finish(&b->device, b->device.held[1], 0, 5);
	expect_answer(b, 3, 0, 5);
	assert_true(engine_bench_receive(b, bytes, 5));
	fake_usb_device_finish(&b->device, b->device.held[0], 0, 0);
	expect_answer(b, 2, 0, 0);
	for (int i = 0; i < 2 * USBIP_ISO_BYTES; i++)
		assert_true(engine_bench_receive(b, bytes, 1));
	assert_true(engine_bench_is_silent(b));
}

static void commands_may_be_cut_at_every_byte(void **state)
{
	struct engine_bench *b = *state;
	uint8_t bytes[512];
	size_t n = write_commands(bytes);

	b->device.keeps_journal = false;
	for (size_t cut = 1; cut < n; cut++) {
		assert_true(engine_bench_send(b, bytes, cut));
		engine_bench_turn(b);
		assert_true(engine_bench_send(b, bytes + cut, n - cut));
		check_commands(b);
	}
	for (size_t i = 0; i < n; i++) {
		assert_true(engine_bench_send(b, bytes + i, 1));
		engine_bench_turn(b);
	}
	check_commands(b);
}

/* The peer ends in order, but after `cut` bytes of the commands. */
static void check_cut(bool is_shm, const uint8_t *bytes, size_t cut,
		      bool is_whole)
{
	struct engine_bench b;

	assert_int_equal(engine_bench_open(&b, is_shm, ENGINE_BENCH_BUDGET), 0);
	b.device.is_cancelling = true;
	assert_true(engine_bench_send(&b, bytes, cut));
	if (cut & 1)
		engine_bench_turn(&b);
	assert_int_equal(channel_end(b.peer), 0);
	assert_int_equal(engine_bench_run(&b),
			 is_whole ? ENGINE_PEER_ENDED : ENGINE_PEER_LOST);
	assert_int_equal(b.device.num_held, 0);
	engine_bench_close(&b);
}

static void an_end_inside_a_command_is_a_loss(void **state)
{
	static const size_t cuts[] = { 0,   1,   47,  48,  49,  57, 58,
				       105, 106, 113, 114, 129, 145 };
	/* Where a command of write_commands ends. */
	static const size_t wholes[] = { 0, 58, 146, 194 };
	bool is_shm = *(const bool *)*state;
	uint8_t bytes[512];

	(void)write_commands(bytes);
	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		bool is_whole = false;

		for (size_t k = 0; k < ARRAY_SIZE(wholes); k++)
			is_whole |= cuts[i] == wholes[k];
		check_cut(is_shm, bytes, cuts[i], is_whole);
	}
	check_cut(is_shm, bytes, 146, true);
}

/* ---------------------------------------------------------------- listening */

/* Sends commands until none is taken any more; how many. */
static uint32_t flood(struct engine_bench *b, uint32_t seqnum)
{
	uint8_t bytes[USBIP_HEADER_BYTES];
	uint32_t num_sent = 0;

	for (;;) {
		struct usbip_header h = engine_bench_submit(seqnum + num_sent,
							    0x81, FLOOD_BYTES);
		struct iovec v = { bytes, sizeof(bytes) };
		size_t sent = 0;

		usbip_header_encode(bytes, &h);
		for (int i = 0; i < 4 && sent < sizeof(bytes); i++) {
			v.iov_base = bytes + sent;
			v.iov_len = sizeof(bytes) - sent;
			sent += (size_t)channel_writev(b->peer, &v, 1);
			channel_flush(b->peer);
			if (sent < sizeof(bytes))
				engine_bench_turn(b);
		}
		if (sent < sizeof(bytes))
			return num_sent;
		num_sent++;
	}
}

static void a_peer_that_does_not_read_is_not_read_from(void **state)
{
	struct engine_bench *b = *state;
	uint8_t data[FLOOD_BYTES];
	uint32_t num_sent;
	unsigned num_submits;

	b->device.is_instant = true;
	b->device.keeps_journal = false;
	num_sent = flood(b, 0);
	num_submits = b->device.num_submits;
	assert_true(num_submits < num_sent);
	for (int i = 0; i < 100; i++)
		engine_bench_turn(b);
	assert_int_equal(b->device.num_submits, num_submits);

	/* And goes on where it was, once it reads. */
	for (uint32_t i = 0; i < num_sent; i++) {
		expect_answer(b, i, 0, FLOOD_BYTES);
		assert_true(engine_bench_receive(b, data, sizeof(data)));
		assert_int_equal(data[FLOOD_BYTES - 1],
				 fake_usb_byte(FLOOD_BYTES - 1));
	}
}

static void answers_leave_piece_by_piece_as_they_are_read(void **state)
{
	static uint8_t data[MIB];
	struct engine_bench *b = *state;
	struct usbip_header h = engine_bench_submit(1, 0x81, MIB);

	assert_true(engine_bench_send_header(b, &h));
	engine_bench_turn(b);
	fake_usb_device_finish(&b->device, b->device.held[0], 0, MIB);
	expect_answer(b, 1, 0, MIB);
	assert_true(engine_bench_receive(b, data, sizeof(data)));
	for (size_t i = 0; i < sizeof(data); i++) {
		if (data[i] != fake_usb_byte(i))
			fail_msg("byte %zu is another", i);
	}
	assert_true(engine_bench_is_silent(b));
}

#define OF(over, test)                                             \
	{                                                          \
#test " (" #over ")", test, setup, teardown, &over \
	}
#define EACH(test) OF(over_shm, test), OF(over_socket, test)
/* The test opens benches of its own. */
#define ALONE(over, test)                                     \
	{                                                     \
#test " (" #over ")", test, NULL, NULL, &over \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(bytes_in_flight_are_what_the_budget_says_and_not_one_more),
		EACH(one_transfer_above_the_budget_fails_alone),
		EACH(a_device_without_memory_fails_the_urb_and_no_more),
		OF(over_shm,
		   urbs_in_flight_are_what_the_limit_says_and_not_one_more),
		EACH(seqnums_wrap_from_the_largest_to_0),
		EACH(a_seqnum_that_is_in_flight_ends_the_conversation),
		EACH(a_command_that_is_none_ends_the_conversation),
		EACH(a_command_for_another_device_ends_the_conversation),
		EACH(a_direction_that_is_none_ends_the_conversation),
		EACH(an_endpoint_above_15_ends_the_conversation),
		EACH(a_transfer_above_the_largest_ends_the_conversation),
		EACH(packets_on_a_bulk_endpoint_end_the_conversation),
		EACH(more_packets_than_there_may_be_end_the_conversation),
		EACH(commands_may_be_cut_at_every_byte),
		ALONE(over_shm, an_end_inside_a_command_is_a_loss),
		ALONE(over_socket, an_end_inside_a_command_is_a_loss),
		EACH(a_peer_that_does_not_read_is_not_read_from),
		EACH(answers_leave_piece_by_piece_as_they_are_read),
	};

	return cmocka_run_group_tests_name("engine_limits", tests, NULL, NULL);
}
