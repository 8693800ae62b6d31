/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers of every kind through the engine, over shared memory and over a
 * socket, with a device that does what the test says: what reaches the device,
 * and what its peer gets back.
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

/* -------------------------------------------------------- bulk, interrupt */

static void data_to_the_device_arrives_as_it_was_sent(void **state)
{
	static const uint8_t endpoints[] = { 0x02, 0x04 };
	struct engine_bench *b = *state;
	static uint8_t data[50000];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = fake_usb_byte(i);
	for (uint32_t i = 0; i < ARRAY_SIZE(endpoints); i++) {
		struct usbip_header h =
			engine_bench_submit(10 + i, endpoints[i], sizeof(data));

		submit(b, &h, data, sizeof(data));
		assert_int_equal(held(b)->endpoint, endpoints[i]);
		assert_int_equal(held(b)->type,
				 i == 0 ? USB_BULK : USB_INTERRUPT);
		assert_int_equal(held(b)->length, sizeof(data));
		assert_memory_equal(held(b)->data, data, sizeof(data));

		fake_usb_device_finish(&b->device, held(b), 0, 40000);
		expect_answer(b, 10 + i, 0, 40000);
		assert_true(engine_bench_is_silent(b));
	}
}

static void data_from_the_device_follows_as_much_as_there_was(void **state)
{
	static const uint8_t endpoints[] = { 0x81, 0x83 };
	static const size_t lengths[] = { 0, 1, 511, 512, 60000 };
	struct engine_bench *b = *state;

	for (size_t e = 0; e < ARRAY_SIZE(endpoints); e++) {
		for (uint32_t i = 0; i < ARRAY_SIZE(lengths); i++) {
			struct usbip_header h =
				engine_bench_submit(i, endpoints[e], 60000);

			submit(b, &h, NULL, 0);
			assert_int_equal(held(b)->endpoint, endpoints[e]);
			fake_usb_device_finish(&b->device, held(b), 0,
					       lengths[i]);
			expect_answer(b, i, 0, lengths[i]);
			expect_data(b, lengths[i]);
			assert_true(engine_bench_is_silent(b));
		}
	}
}

static void transfers_of_no_length_pass_on_every_endpoint(void **state)
{
	static const uint8_t endpoints[] = { 0x00, 0x80, 0x81, 0x02,
					     0x83, 0x04, 0x85, 0x06 };
	static const int statuses[] = { 0, -EPIPE, -EPROTO };
	struct engine_bench *b = *state;
	uint32_t seqnum = 0;

	for (size_t e = 0; e < ARRAY_SIZE(endpoints); e++) {
		for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
			struct usbip_header h =
				engine_bench_submit(++seqnum, endpoints[e], 0);
			int status = statuses[i];

			submit(b, &h, NULL, 0);
			if (b->device.num_held > 0)
				fake_usb_device_finish(&b->device, held(b),
						       status, 0);
			else
				status = 0; /* isochronous, done at once */
			expect_answer(b, seqnum, status, 0);
			assert_true(engine_bench_is_silent(b));
		}
	}
}

static void what_an_urb_meets_is_its_result_and_no_more(void **state)
{
	static const int statuses[] = { -EPIPE,     -ETIMEDOUT, -EOVERFLOW,
					-ESHUTDOWN, -EPROTO,    -ENOMEM };
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		struct usbip_header h = engine_bench_submit(i, 0x81, 512);

		submit(b, &h, NULL, 0);
		fake_usb_device_finish(&b->device, held(b), statuses[i], 7);
		expect_answer(b, i, statuses[i], 7);
		expect_data(b, 7);

		b->device.submit_error = statuses[i];
		h.seqnum = 100 + i;
		submit(b, &h, NULL, 0);
		expect_answer(b, 100 + i, statuses[i], 0);
		b->device.submit_error = 0;
	}
	assert_int_equal(engine_end(b->engine), ENGINE_RUNNING);
}

static void a_device_that_says_more_than_was_asked_is_cut(void **state)
{
	struct engine_bench *b = *state;
	struct usbip_header h = engine_bench_submit(1, 0x81, 100);
	struct urb *urb;

	submit(b, &h, NULL, 0);
	urb = held(b);
	for (size_t i = 0; i < 100; i++)
		urb->data[i] = fake_usb_byte(i);
	b->device.num_held = 0;
	urb->status = 0;
	urb->actual_length = 4000;
	urb_complete(urb);
	expect_answer(b, 1, 0, 100);
	expect_data(b, 100);
	assert_true(engine_bench_is_silent(b));
}

static void answers_leave_in_the_order_of_completion(void **state)
{
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < 3; i++) {
		struct usbip_header h = engine_bench_submit(i, 0x81, 16);

		submit(b, &h, NULL, 0);
	}
	fake_usb_device_finish(&b->device, b->device.held[1], 0, 16);
	fake_usb_device_finish(&b->device, b->device.held[1], 0, 16);
	fake_usb_device_finish(&b->device, b->device.held[0], 0, 16);
	expect_answer(b, 1, 0, 16);
	expect_data(b, 16);
	expect_answer(b, 2, 0, 16);
	expect_data(b, 16);
	expect_answer(b, 0, 0, 16);
	expect_data(b, 16);
}

/* ------------------------------------------------------------------- flags */

static void a_zero_packet_is_asked_for_on_bulk_out_only(void **state)
{
	static const uint8_t endpoints[] = { 0x81, 0x02, 0x83, 0x04, 0x80 };
	struct engine_bench *b = *state;
	uint8_t data[8] = { 0 };

	for (uint32_t i = 0; i < ARRAY_SIZE(endpoints); i++) {
		bool is_in = (endpoints[i] & 0x80) != 0;
		struct usbip_header h = engine_bench_submit(i, endpoints[i], 8);

		/* With all that vhci sets for a scattered request. */
		h.submit.flags = USBIP_URB_ZERO_PACKET | 0x40284;
		submit(b, &h, data, is_in ? 0 : sizeof(data));
		assert_int_equal(held(b)->flags, endpoints[i] == 0x02
							 ? USBIP_URB_ZERO_PACKET
							 : 0);
		fake_usb_device_finish(&b->device, held(b), 0, 0);
		expect_answer(b, i, 0, 0);
	}
}

static void a_short_read_that_is_not_ok_says_so(void **state)
{
	struct engine_bench *b = *state;
	struct usbip_header h = engine_bench_submit(1, 0x81, 512);

	h.submit.flags = USBIP_URB_SHORT_NOT_OK;
	submit(b, &h, NULL, 0);
	fake_usb_device_finish(&b->device, held(b), 0, 511);
	expect_answer(b, 1, -EREMOTEIO, 511);
	expect_data(b, 511);

	submit(b, &h, NULL, 0);
	fake_usb_device_finish(&b->device, held(b), 0, 512);
	expect_answer(b, 1, 0, 512);
	expect_data(b, 512);

	/* An error of its own goes before. */
	submit(b, &h, NULL, 0);
	fake_usb_device_finish(&b->device, held(b), -EPIPE, 3);
	expect_answer(b, 1, -EPIPE, 3);
	expect_data(b, 3);
}

static void a_short_write_is_no_short_read(void **state)
{
	struct engine_bench *b = *state;
	struct usbip_header h = engine_bench_submit(1, 0x02, 8);

	h.submit.flags = USBIP_URB_SHORT_NOT_OK;
	submit(b, &h, "12345678", 8);
	fake_usb_device_finish(&b->device, held(b), 0, 4);
	expect_answer(b, 1, 0, 4);
}

static void what_means_nothing_to_a_server_is_echoed(void **state)
{
	static const uint32_t not_iso[] = { 0, USBIP_NOT_ISO };
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < ARRAY_SIZE(not_iso); i++) {
		struct usbip_header h = engine_bench_submit(i, 0x81, 8);
		struct usbip_ret_submit r;

		h.submit.num_packets = not_iso[i];
		h.submit.start_frame = 0x01020304;
		h.submit.interval = 77;
		submit(b, &h, NULL, 0);
		fake_usb_device_finish(&b->device, held(b), 0, 8);
		r = expect_ret(b, i);
		assert_int_equal(r.num_packets, not_iso[i]);
		assert_int_equal(r.start_frame, 0x01020304);
		assert_int_equal(r.error_count, 0);
		expect_data(b, 8);
	}
}

/* --------------------------------------------------------------- endpoints */

static void
an_unknown_endpoint_stalls_and_the_stream_stays_in_step(void **state)
{
	static const uint8_t endpoints[] = { 0x01, 0x82, 0x05, 0x86,
					     0x8f, 0x0f, 0x87, 0x07 };
	static const uint8_t data[20000];
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < ARRAY_SIZE(endpoints); i++) {
		bool is_in = (endpoints[i] & 0x80) != 0;
		struct usbip_header h =
			engine_bench_submit(i, endpoints[i], sizeof(data));

		submit(b, &h, data, is_in ? 0 : sizeof(data));
		expect_answer(b, i, -EPIPE, 0);
		assert_true(engine_bench_is_silent(b));
		assert_int_equal(b->device.num_submits, 0);
	}
	assert_int_equal(engine_end(b->engine), ENGINE_RUNNING);
}

static void an_unknown_endpoint_with_packets_stalls_with_packets(void **state)
{
	struct engine_bench *b = *state;
	struct usbip_header h = engine_bench_submit(1, 0x08, 100);
	struct usbip_iso_packet packet = { .offset = 0, .length = 100 };
	uint8_t bytes[100 + USBIP_ISO_BYTES] = { 0 };
	struct usbip_ret_submit r;

	h.submit.num_packets = 1;
	usbip_iso_encode(bytes + 100, &packet);
	submit(b, &h, bytes, sizeof(bytes));
	r = expect_ret(b, 1);
	assert_int_equal(r.status, -EPIPE);
	assert_int_equal(r.actual_length, 0);
	assert_int_equal(r.num_packets, 1);
	assert_true(engine_bench_receive(b, bytes, USBIP_ISO_BYTES));
	assert_true(engine_bench_is_silent(b));
}

#define OF(over, test)                                             \
	{                                                          \
#test " (" #over ")", test, setup, teardown, &over \
	}
#define EACH(test) OF(over_shm, test), OF(over_socket, test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(data_to_the_device_arrives_as_it_was_sent),
		EACH(data_from_the_device_follows_as_much_as_there_was),
		EACH(transfers_of_no_length_pass_on_every_endpoint),
		EACH(what_an_urb_meets_is_its_result_and_no_more),
		EACH(a_device_that_says_more_than_was_asked_is_cut),
		EACH(answers_leave_in_the_order_of_completion),
		EACH(a_zero_packet_is_asked_for_on_bulk_out_only),
		EACH(a_short_read_that_is_not_ok_says_so),
		EACH(a_short_write_is_no_short_read),
		EACH(what_means_nothing_to_a_server_is_echoed),
		EACH(an_unknown_endpoint_stalls_and_the_stream_stays_in_step),
		EACH(an_unknown_endpoint_with_packets_stalls_with_packets),
	};

	return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
