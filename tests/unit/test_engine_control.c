/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control transfers through the engine: lengths and directions that disagree,
 * the requests that are carried out instead of sent, and their place among the
 * others.
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

static void submit_control(struct engine_bench *b, uint32_t seqnum,
			   uint32_t direction, uint32_t length,
			   const uint8_t setup_bytes[8])
{
	static const uint8_t data[REPLY_BYTES];
	struct usbip_header h = engine_bench_submit(seqnum, 0, length);

	h.direction = direction;
	memcpy(h.submit.setup, setup_bytes, 8);
	submit(b, &h, data, direction == USBIP_DIR_OUT ? length : 0);
}

/* ----------------------------------------------------------------- control */

static void control_data_goes_as_far_as_both_lengths_allow(void **state)
{
	/* wLength, transfer_buffer_length, what the device sends, the answer */
	static const uint16_t rows[][4] = {
		{ 64, 64, 64, 64 }, { 64, 18, 64, 18 },   { 18, 64, 18, 18 },
		{ 8, 0, 8, 0 },     { 4096, 1, 4096, 1 }, { 1, 4096, 1, 1 },
		{ 64, 64, 0, 0 },
	};
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const uint8_t setup_bytes[8] = { 0xc0,
						 1,
						 0,
						 0,
						 0,
						 0,
						 (uint8_t)rows[i][0],
						 (uint8_t)(rows[i][0] >> 8) };

		submit_control(b, i, USBIP_DIR_IN, rows[i][1], setup_bytes);
		assert_int_equal(held(b)->type, USB_CONTROL);
		assert_int_equal(held(b)->endpoint, 0x80);
		assert_int_equal(held(b)->length, rows[i][0]);
		assert_memory_equal(held(b)->setup, setup_bytes, 8);
		fake_usb_device_finish(&b->device, held(b), 0, rows[i][2]);
		expect_answer(b, i, 0, rows[i][3]);
		expect_data(b, rows[i][3]);
		assert_true(engine_bench_is_silent(b));
	}
}

static void control_data_that_was_not_sent_is_0_to_the_device(void **state)
{
	static const uint8_t vendor_out_64[8] = { 0x40, 1, 0, 0, 0, 0, 64 };
	struct engine_bench *b = *state;
	struct usbip_header h = engine_bench_submit(1, 0x00, 10);
	uint8_t expected[64] = "0123456789";

	/* Something to leave behind in the memory that is used again. */
	submit_control(b, 99, USBIP_DIR_OUT, 64, vendor_out_64);
	memset(held(b)->data, 0x77, 64);
	fake_usb_device_finish(&b->device, held(b), 0, 64);
	expect_answer(b, 99, 0, 64);

	memcpy(h.submit.setup, vendor_out_64, 8);
	submit(b, &h, expected, 10);
	assert_int_equal(held(b)->length, 64);
	assert_memory_equal(held(b)->data, expected, 64);
	fake_usb_device_finish(&b->device, held(b), 0, 64);
	expect_answer(b, 1, 0, 10);
}

static void control_longer_than_the_stack_can_do_fails_alone(void **state)
{
	static const uint8_t in_4097[8] = { 0xc0, 1, 0, 0, 0, 0, 0x01, 0x10 };
	static const uint8_t out_1[8] = { 0x40, 1, 0, 0, 0, 0, 1, 0 };
	struct engine_bench *b = *state;

	submit_control(b, 1, USBIP_DIR_IN, 64, in_4097);
	expect_answer(b, 1, -EINVAL, 0);
	submit_control(b, 2, USBIP_DIR_OUT, URB_MAX_SETUP_LENGTH + 1, out_1);
	expect_answer(b, 2, -EINVAL, 0);
	assert_true(engine_bench_is_silent(b));
	assert_int_equal(b->device.num_submits, 0);

	submit_control(b, 3, USBIP_DIR_OUT, URB_MAX_SETUP_LENGTH, out_1);
	assert_int_equal(held(b)->length, 1);
}

/* The setup packet rules what the device does, the header what is framed. */
static void a_setup_packet_against_its_header_moves_no_data(void **state)
{
	static const uint8_t in_64[8] = { 0xc0, 1, 0, 0, 0, 0, 64, 0 };
	static const uint8_t out_64[8] = { 0x40, 1, 0, 0, 0, 0, 64, 0 };
	static const uint8_t zeros[64];
	struct engine_bench *b = *state;

	submit_control(b, 1, USBIP_DIR_OUT, 16, in_64);
	assert_int_equal(held(b)->endpoint, 0x80);
	assert_int_equal(held(b)->length, 64);
	fake_usb_device_finish(&b->device, held(b), 0, 64);
	expect_answer(b, 1, 0, 0);
	assert_true(engine_bench_is_silent(b));

	/* And nothing that lay in the memory before goes to the device. */
	submit_control(b, 2, USBIP_DIR_IN, 64, out_64);
	assert_int_equal(held(b)->endpoint, 0x00);
	assert_memory_equal(held(b)->data, zeros, 64);
	fake_usb_device_finish(&b->device, held(b), 0, 64);
	expect_answer(b, 2, 0, 0);
	assert_true(engine_bench_is_silent(b));
}

static void an_offer_to_wake_the_host_is_hidden(void **state)
{
	static const uint8_t get_configuration[8] = {
		0x80, 6, 0, 2, 0, 0, 9, 0
	};
	static const uint8_t get_device[8] = { 0x80, 6, 0, 1, 0, 0, 9, 0 };
	struct engine_bench *b = *state;
	uint8_t bytes[9];

	for (uint32_t i = 0; i < 2; i++) {
		submit_control(b, i, USBIP_DIR_IN, 9,
			       i == 0 ? get_configuration : get_device);
		memset(held(b)->data, 0xff, 9);
		held(b)->status = 0;
		held(b)->actual_length = 9;
		b->device.num_held = 0;
		urb_complete(b->device.held[0]);
		expect_answer(b, i, 0, 9);
		assert_true(engine_bench_receive(b, bytes, 9));
		assert_int_equal(bytes[7], i == 0 ? 0xdf : 0xff);
		assert_int_equal(bytes[8], 0xff);
	}

	/* Cut before that byte, there is nothing to hide. */
	submit_control(b, 2, USBIP_DIR_IN, 7, get_configuration);
	fake_usb_device_finish(&b->device, held(b), 0, 7);
	expect_answer(b, 2, 0, 7);
	expect_data(b, 7);
}

/* -------------------------------------------------------- special requests */

static void
special_requests_are_carried_out_once_and_never_sent_raw(void **state)
{
	static const struct {
		uint8_t setup[8];
		const char *journal;
	} rows[] = {
		{ { 0x02, 1, 0, 0, 0x81 }, "clear_halt 81, " },
		{ { 0x02, 1, 0, 0, 0x02 }, "clear_halt 02, " },
		{ { 0x02, 1, 0, 0, 0x80 }, "" },
		{ { 0x01, 11, 1, 0, 1 }, "set_interface 1 1, " },
		{ { 0x00, 9, 1 }, "set_configuration 1, " },
		{ { 0x23, 3, 4, 0, 1 }, "reset, " },
		{ { 0x00, 5, 9 }, "" },
	};
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < ARRAY_SIZE(rows); i++) {
		b->device.journal[0] = '\0';
		submit_control(b, i, USBIP_DIR_OUT, 0, rows[i].setup);
		expect_answer(b, i, 0, 0);
		assert_string_equal(b->device.journal, rows[i].journal);
		assert_true(engine_bench_is_silent(b));
	}
}

static void a_special_request_that_fails_is_not_sent_raw_either(void **state)
{
	static const uint8_t setups[][8] = {
		{ 0x02, 1, 0, 0, 0x81 },
		{ 0x01, 11, 1, 0, 1 },
		{ 0x00, 9, 1 },
		{ 0x23, 3, 4, 0, 1 },
	};
	struct engine_bench *b = *state;

	b->device.request_error = -EPIPE;
	for (uint32_t i = 0; i < ARRAY_SIZE(setups); i++) {
		submit_control(b, i, USBIP_DIR_OUT, 0, setups[i]);
		expect_answer(b, i, -EPIPE, 0);
	}
	assert_int_equal(b->device.num_submits, 0);
}

static void try_endpoint(struct engine_bench *b, uint8_t endpoint,
			 bool is_there)
{
	struct usbip_header h = engine_bench_submit(1000, endpoint, 0);

	submit(b, &h, NULL, 0);
	if (is_there)
		fake_usb_device_finish(&b->device, held(b), 0, 0);
	expect_answer(b, 1000, is_there ? 0 : -EPIPE, 0);
}

static void the_endpoints_are_those_of_the_alternate_setting(void **state)
{
	static const uint8_t set_1_1[8] = { 0x01, 11, 1, 0, 1 };
	static const uint8_t set_1_0[8] = { 0x01, 11, 0, 0, 1 };
	static const uint8_t set_configuration[8] = { 0x00, 9, 1 };
	static const uint8_t unset_configuration[8] = { 0x00, 9, 0 };
	struct engine_bench *b = *state;

	try_endpoint(b, 0x87, false);
	submit_control(b, 1, USBIP_DIR_OUT, 0, set_1_1);
	expect_answer(b, 1, 0, 0);
	try_endpoint(b, 0x87, true);
	try_endpoint(b, 0x81, true);

	submit_control(b, 2, USBIP_DIR_OUT, 0, set_1_0);
	expect_answer(b, 2, 0, 0);
	try_endpoint(b, 0x87, false);

	/* A failed one changes nothing; a configuration starts anew. */
	submit_control(b, 3, USBIP_DIR_OUT, 0, set_1_1);
	expect_answer(b, 3, 0, 0);
	b->device.request_error = -EIO;
	submit_control(b, 4, USBIP_DIR_OUT, 0, set_1_0);
	expect_answer(b, 4, -EIO, 0);
	try_endpoint(b, 0x87, true);
	b->device.request_error = 0;
	submit_control(b, 5, USBIP_DIR_OUT, 0, set_configuration);
	expect_answer(b, 5, 0, 0);
	try_endpoint(b, 0x87, false);

	submit_control(b, 6, USBIP_DIR_OUT, 0, unset_configuration);
	expect_answer(b, 6, 0, 0);
	try_endpoint(b, 0x81, false);
}

/* ------------------------------------------------------- place in the queue */

static const uint8_t raw_in[8] = { 0xc0, 1, 0, 0, 0, 0, 8, 0 };
static const uint8_t clear_halt_81[8] = { 0x02, 1, 0, 0, 0x81 };
static const uint8_t reset_port[8] = { 0x23, 3, 4, 0, 1 };

static void submit_raw(struct engine_bench *b, uint32_t seqnum)
{
	submit_control(b, seqnum, USBIP_DIR_IN, 8, raw_in);
}

static void submit_special(struct engine_bench *b, uint32_t seqnum,
			   const uint8_t setup_bytes[8])
{
	submit_control(b, seqnum, USBIP_DIR_OUT, 0, setup_bytes);
}

static void a_special_request_waits_for_those_before_it(void **state)
{
	struct engine_bench *b = *state;

	submit_raw(b, 1);
	submit_raw(b, 2);
	submit_special(b, 3, clear_halt_81);
	submit_raw(b, 4);
	submit_special(b, 5, reset_port);
	assert_true(engine_bench_is_silent(b));
	assert_string_equal(b->device.journal, "submit 80, submit 80, ");

	b->device.journal[0] = '\0';
	fake_usb_device_finish(&b->device, b->device.held[0], 0, 0);
	expect_answer(b, 1, 0, 0);
	assert_string_equal(b->device.journal, "");
	fake_usb_device_finish(&b->device, b->device.held[0], 0, 0);
	expect_answer(b, 2, 0, 0);
	expect_answer(b, 3, 0, 0);
	assert_string_equal(b->device.journal, "clear_halt 81, submit 80, ");

	fake_usb_device_finish(&b->device, held(b), 0, 0);
	expect_answer(b, 4, 0, 0);
	expect_answer(b, 5, 0, 0);
	assert_string_equal(b->device.journal,
			    "clear_halt 81, submit 80, reset, ");
}

static void other_endpoints_do_not_wait_for_a_special_request(void **state)
{
	struct engine_bench *b = *state;
	struct usbip_header h = engine_bench_submit(3, 0x81, 8);

	submit_raw(b, 1);
	submit_special(b, 2, clear_halt_81);
	submit(b, &h, NULL, 0);
	fake_usb_device_finish(&b->device, b->device.held[1], 0, 8);
	expect_answer(b, 3, 0, 8);
	expect_data(b, 8);
	assert_true(engine_bench_is_silent(b));
}

static void one_that_waits_can_be_unlinked(void **state)
{
	struct engine_bench *b = *state;
	struct usbip_header h;

	for (uint32_t waiting = 2; waiting <= 4; waiting++) {
		b->device.journal[0] = '\0';
		submit_raw(b, 1);
		submit_special(b, 2, clear_halt_81);
		submit_special(b, 3, reset_port);
		submit_raw(b, 4);
		assert_true(engine_bench_send_unlink(b, 10, waiting));
		assert_true(engine_bench_receive_header(b, &h));
		assert_int_equal(h.command, USBIP_RET_UNLINK);
		assert_int_equal(h.unlink_status, -ECONNRESET);
		assert_string_equal(b->device.journal, "submit 80, ");

		b->device.is_instant = true;
		fake_usb_device_finish(&b->device, held(b), 0, 8);
		expect_answer(b, 1, 0, 8);
		expect_data(b, 8);
		for (uint32_t i = 2; i <= 4; i++) {
			if (i == waiting)
				continue;
			expect_answer(b, i, 0, i == 4 ? 8 : 0);
			expect_data(b, i == 4 ? 8 : 0);
		}
		assert_true(engine_bench_is_silent(b));
		b->device.is_instant = false;
	}
}

static void unlinking_a_special_request_lets_those_behind_it_go_on(void **state)
{
	struct engine_bench *b = *state;
	struct usbip_header h;

	submit_raw(b, 1);
	submit_special(b, 2, clear_halt_81);
	submit_raw(b, 3);
	assert_int_equal(b->device.num_held, 1);
	assert_true(engine_bench_send_unlink(b, 4, 2));
	assert_true(engine_bench_receive_header(b, &h));
	assert_int_equal(h.unlink_status, -ECONNRESET);
	assert_int_equal(b->device.num_held, 2);
}

static void unlinking_what_all_wait_for_lets_them_go_on(void **state)
{
	struct engine_bench *b = *state;
	struct usbip_header h;

	b->device.is_cancelling = true;
	submit_raw(b, 1);
	submit_special(b, 2, clear_halt_81);
	assert_true(engine_bench_send_unlink(b, 3, 1));
	assert_true(engine_bench_receive_header(b, &h));
	assert_int_equal(h.command, USBIP_RET_UNLINK);
	assert_int_equal(h.seqnum, 3);
	assert_int_equal(h.unlink_status, -ECONNRESET);
	expect_answer(b, 2, 0, 0);
}

static void those_that_wait_are_never_started_after_a_loss(void **state)
{
	struct engine_bench *b = *state;

	submit_raw(b, 1);
	submit_special(b, 2, clear_halt_81);
	submit_raw(b, 3);
	b->device.is_cancelling = true;
	assert_int_equal(channel_end(b->peer), 0);
	assert_int_equal(engine_bench_run(b), ENGINE_PEER_ENDED);
	assert_string_equal(b->device.journal, "submit 80, cancel 80, ");
}

#define OF(over, test)                                             \
	{                                                          \
#test " (" #over ")", test, setup, teardown, &over \
	}
#define EACH(test) OF(over_shm, test), OF(over_socket, test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(control_data_goes_as_far_as_both_lengths_allow),
		EACH(control_data_that_was_not_sent_is_0_to_the_device),
		EACH(control_longer_than_the_stack_can_do_fails_alone),
		EACH(a_setup_packet_against_its_header_moves_no_data),
		EACH(an_offer_to_wake_the_host_is_hidden),
		EACH(special_requests_are_carried_out_once_and_never_sent_raw),
		EACH(a_special_request_that_fails_is_not_sent_raw_either),
		EACH(the_endpoints_are_those_of_the_alternate_setting),
		EACH(a_special_request_waits_for_those_before_it),
		EACH(other_endpoints_do_not_wait_for_a_special_request),
		EACH(one_that_waits_can_be_unlinked),
		EACH(unlinking_a_special_request_lets_those_behind_it_go_on),
		EACH(unlinking_what_all_wait_for_lets_them_go_on),
		EACH(those_that_wait_are_never_started_after_a_loss),
	};

	return cmocka_run_group_tests_name("engine_control", tests, NULL, NULL);
}
