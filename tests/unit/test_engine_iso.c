/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Isochronous URBs through the engine: packets in, packets out, their sums and
 * errors, and lists that lie.
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

#define MAX_DATA 32768

/* Data, if it goes out, is fake_usb_byte() all the way. */
static void submit_iso(struct engine_bench *b, uint8_t endpoint,
		       uint32_t length, const struct usbip_iso_packet *packets,
		       uint32_t n)
{
	static uint8_t data[MAX_DATA];
	struct usbip_header h = engine_bench_submit(5, endpoint, length);
	uint8_t bytes[USBIP_ISO_BYTES];

	h.submit.num_packets = n;
	h.submit.start_frame = 99;
	assert_true(engine_bench_send_header(b, &h));
	if (h.direction == USBIP_DIR_OUT) {
		for (size_t i = 0; i < length; i++)
			data[i] = fake_usb_byte(i);
		assert_true(engine_bench_send(b, data, length));
	}
	for (uint32_t i = 0; i < n; i++) {
		usbip_iso_encode(bytes, &packets[i]);
		assert_true(engine_bench_send(b, bytes, sizeof(bytes)));
	}
	engine_bench_turn(b);
}

/* The device moved so much of each packet, and gives the URB back. */
static void finish_iso(struct engine_bench *b, const uint32_t *actual,
		       const int *statuses)
{
	struct urb *urb = held(b);

	for (uint32_t i = 0; i < urb->num_packets; i++) {
		struct usbip_iso_packet *p = &urb->packets[i];

		p->actual_length = actual[i];
		p->status = statuses ? statuses[i] : 0;
		for (uint32_t k = 0;
		     urb_is_device_to_host(urb) && k < p->actual_length; k++)
			urb->data[p->offset + k] = fake_usb_byte(p->offset + k);
	}
	fake_usb_device_finish(&b->device, urb, 0, 0);
}

static struct usbip_ret_submit expect_iso_ret(struct engine_bench *b)
{
	struct usbip_ret_submit r = expect_ret(b, 5);

	assert_int_equal(r.start_frame, 99);
	return r;
}

static void expect_packet(struct engine_bench *b,
			  const struct usbip_iso_packet *asked,
			  uint32_t actual_length, int status)
{
	uint8_t bytes[USBIP_ISO_BYTES];
	struct usbip_iso_packet p;

	assert_true(engine_bench_receive(b, bytes, sizeof(bytes)));
	usbip_iso_decode(&p, bytes);
	assert_int_equal(p.offset, asked->offset);
	assert_int_equal(p.length, asked->length);
	assert_int_equal(p.actual_length, actual_length);
	assert_int_equal(p.status, status);
}

static void data_in_is_packed_without_the_gaps_between_packets(void **state)
{
	/* With a gap before the second and the last, and one empty. */
	static const struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 100 },
		{ .offset = 200, .length = 50 },
		{ .offset = 250, .length = 50 },
		{ .offset = 400, .length = 112 },
	};
	static const uint32_t actual[] = { 90, 50, 0, 1 };
	struct engine_bench *b = *state;
	struct usbip_ret_submit r;
	uint8_t data[141];
	size_t at = 0;

	submit_iso(b, 0x85, 512, packets, 4);
	assert_int_equal(held(b)->type, USB_ISOCHRONOUS);
	finish_iso(b, actual, NULL);
	r = expect_iso_ret(b);
	assert_int_equal(r.status, 0);
	assert_int_equal(r.actual_length, sizeof(data));
	assert_int_equal(r.num_packets, 4);
	assert_int_equal(r.error_count, 0);

	assert_true(engine_bench_receive(b, data, sizeof(data)));
	for (size_t i = 0; i < 4; i++) {
		for (size_t k = 0; k < actual[i]; k++)
			assert_int_equal(data[at++],
					 fake_usb_byte(packets[i].offset + k));
	}
	for (size_t i = 0; i < 4; i++)
		expect_packet(b, &packets[i], actual[i], 0);
	assert_true(engine_bench_is_silent(b));
}

/* Packets that lie elsewhere than behind the one before them. */
static const struct {
	uint32_t n;
	struct usbip_iso_packet packets[4];
	uint32_t actual[4];
} orders[] = {
	{ 2, /* the other way round */
	  { { .offset = 100, .length = 100 }, { .offset = 0, .length = 100 } },
	  { 100, 100 } },
	{ 3,
	  { { .offset = 200, .length = 50 },
	    { .offset = 100, .length = 60 },
	    { .offset = 0, .length = 70 } },
	  { 50, 1, 70 } },
	{ 4, /* back and forth, with gaps */
	  { { .offset = 0, .length = 10 },
	    { .offset = 150, .length = 50 },
	    { .offset = 20, .length = 30 },
	    { .offset = 60, .length = 30 } },
	  { 10, 50, 30, 29 } },
	{ 3, /* in each other's place */
	  { { .offset = 0, .length = 60 },
	    { .offset = 50, .length = 60 },
	    { .offset = 20, .length = 60 } },
	  { 60, 60, 60 } },
};

static void data_in_has_the_packets_order_wherever_they_lie(void **state)
{
	struct engine_bench *b = *state;

	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		uint8_t data[256];
		uint32_t sum = 0;
		size_t at = 0;

		submit_iso(b, 0x85, 256, orders[i].packets, orders[i].n);
		finish_iso(b, orders[i].actual, NULL);
		for (uint32_t k = 0; k < orders[i].n; k++)
			sum += orders[i].actual[k];
		assert_int_equal(expect_iso_ret(b).actual_length, sum);
		assert_true(engine_bench_receive(b, data, sum));
		for (uint32_t k = 0; k < orders[i].n; k++) {
			uint32_t offset = orders[i].packets[k].offset;

			for (uint32_t m = 0; m < orders[i].actual[k]; m++)
				assert_int_equal(data[at++],
						 fake_usb_byte(offset + m));
		}
		for (uint32_t k = 0; k < orders[i].n; k++)
			expect_packet(b, &orders[i].packets[k],
				      orders[i].actual[k], 0);
		assert_true(engine_bench_is_silent(b));
	}
}

static void data_out_arrives_whole_with_its_gaps(void **state)
{
	static const struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 100 },
		{ .offset = 150, .length = 50 },
	};
	static const uint32_t actual[] = { 100, 20 };
	struct engine_bench *b = *state;
	struct usbip_ret_submit r;

	submit_iso(b, 0x06, 300, packets, 2);
	for (size_t i = 0; i < 300; i++)
		assert_int_equal(held(b)->data[i], fake_usb_byte(i));
	assert_int_equal(held(b)->packets[1].offset, 150);
	assert_int_equal(held(b)->packets[1].length, 50);
	finish_iso(b, actual, NULL);

	/* No data, but packets, and the header has their sum. */
	r = expect_iso_ret(b);
	assert_int_equal(r.actual_length, 120);
	expect_packet(b, &packets[0], 100, 0);
	expect_packet(b, &packets[1], 20, 0);
	assert_true(engine_bench_is_silent(b));
}

static void packets_that_failed_are_counted(void **state)
{
	static const struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 10 },
		{ .offset = 10, .length = 10 },
		{ .offset = 20, .length = 10 },
	};
	static const uint32_t actual[] = { 10, 0, 3 };
	static const int statuses[] = { 0, -EXDEV, -EPROTO };
	struct engine_bench *b = *state;
	struct usbip_ret_submit r;
	uint8_t data[13];

	submit_iso(b, 0x85, 30, packets, 3);
	finish_iso(b, actual, statuses);
	r = expect_iso_ret(b);
	assert_int_equal(r.status, 0);
	assert_int_equal(r.error_count, 2);
	assert_int_equal(r.actual_length, 13);
	assert_true(engine_bench_receive(b, data, sizeof(data)));
	for (size_t i = 0; i < 3; i++)
		expect_packet(b, &packets[i], actual[i], statuses[i]);
}

static void no_packet_counts_for_more_than_it_asked_for(void **state)
{
	static const struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 10 },
		{ .offset = 10, .length = 10 },
	};
	struct engine_bench *b = *state;
	uint8_t data[20];

	submit_iso(b, 0x85, 20, packets, 2);
	held(b)->packets[0].actual_length = 0xffffffff;
	held(b)->packets[1].actual_length = 11;
	fake_usb_device_finish(&b->device, held(b), 0, 0);
	assert_int_equal(expect_iso_ret(b).actual_length, 20);
	assert_true(engine_bench_receive(b, data, sizeof(data)));
	expect_packet(b, &packets[0], 10, 0);
	expect_packet(b, &packets[1], 10, 0);
}

static void what_a_peer_says_of_results_means_nothing(void **state)
{
	static const struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 10, .actual_length = 7, .status = 9 },
	};
	struct engine_bench *b = *state;

	submit_iso(b, 0x85, 10, packets, 1);
	assert_int_equal(held(b)->packets[0].actual_length, 0);
	assert_int_equal(held(b)->packets[0].status, 0);
	fake_usb_device_finish(&b->device, held(b), 0, 0);
	assert_int_equal(expect_iso_ret(b).actual_length, 0);
	expect_packet(b, &packets[0], 0, 0);
}

static void an_urb_without_packets_is_done_at_once(void **state)
{
	static const uint32_t none[] = { 0, USBIP_NOT_ISO };
	static const uint8_t endpoints[] = { 0x85, 0x06 };
	static const uint8_t data[64];
	struct engine_bench *b = *state;

	for (size_t i = 0; i < 4; i++) {
		struct usbip_header h =
			engine_bench_submit(5, endpoints[i / 2], 64);
		struct usbip_ret_submit r;

		h.submit.num_packets = none[i % 2];
		h.submit.start_frame = 99;
		assert_true(engine_bench_send_header(b, &h));
		if (i / 2 == 1)
			assert_true(engine_bench_send(b, data, 64));
		r = expect_iso_ret(b);
		assert_int_equal(r.status, 0);
		assert_int_equal(r.actual_length, 0);
		assert_int_equal(r.num_packets, none[i % 2]);
		assert_true(engine_bench_is_silent(b));
	}
	assert_int_equal(b->device.num_submits, 0);
}

static void the_most_packets_pass(void **state)
{
	static struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS];
	static uint32_t actual[USBIP_MAX_ISO_PACKETS];
	static uint8_t data[MAX_DATA];
	struct engine_bench *b = *state;
	uint32_t sum = 0;

	for (uint32_t i = 0; i < USBIP_MAX_ISO_PACKETS; i++) {
		packets[i].offset = 32 * i;
		packets[i].length = 32;
		actual[i] = i % 33;
		sum += actual[i];
	}
	submit_iso(b, 0x85, MAX_DATA, packets, USBIP_MAX_ISO_PACKETS);
	finish_iso(b, actual, NULL);
	assert_int_equal(expect_iso_ret(b).actual_length, sum);
	assert_true(engine_bench_receive(b, data, sum));
	for (uint32_t i = 0; i < USBIP_MAX_ISO_PACKETS; i++)
		expect_packet(b, &packets[i], actual[i], 0);
	assert_true(engine_bench_is_silent(b));
}

static void a_small_list_after_a_large_one_is_its_own(void **state)
{
	static struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS];
	static const uint32_t actual[USBIP_MAX_ISO_PACKETS];
	static const uint32_t counts[] = { 1, USBIP_MAX_ISO_PACKETS, 2, 64, 3 };
	struct engine_bench *b = *state;

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct usbip_ret_submit r;

		submit_iso(b, 0x85, 10, packets, counts[i]);
		assert_int_equal(held(b)->num_packets, counts[i]);
		finish_iso(b, actual, NULL);
		r = expect_iso_ret(b);
		assert_int_equal(r.num_packets, counts[i]);
		for (uint32_t k = 0; k < counts[i]; k++)
			expect_packet(b, &packets[k], 0, 0);
		assert_true(engine_bench_is_silent(b));
	}
}

static void an_unlinked_iso_urb_brings_no_packets(void **state)
{
	static const struct usbip_iso_packet packet = { .length = 10 };
	struct engine_bench *b = *state;
	struct usbip_header h;

	b->device.is_cancelling = true;
	submit_iso(b, 0x85, 10, &packet, 1);
	assert_true(engine_bench_send_unlink(b, 6, 5));
	assert_true(engine_bench_receive_header(b, &h));
	assert_int_equal(h.command, USBIP_RET_UNLINK);
	assert_int_equal(h.unlink_status, -ECONNRESET);
	assert_true(engine_bench_is_silent(b));
}

/* ---------------------------------------------------------- lists that lie */

struct lie {
	uint32_t length;
	uint32_t n;
	struct usbip_iso_packet packets[3];
};

static const struct lie lies[] = {
	/* one byte behind the end */
	{ 100, 1, { { .offset = 0, .length = 101 } } },
	{ 100, 1, { { .offset = 1, .length = 100 } } },
	{ 100, 1, { { .offset = 101, .length = 0 } } },
	/* sums of 32 bits that wrap */
	{ 100, 1, { { .offset = 0xffffffff, .length = 2 } } },
	{ 100, 1, { { .offset = 0x80000000, .length = 0x80000000 } } },
	{ 100, 1, { { .offset = 50, .length = 0xfffffff0 } } },
	/* each inside, all together more than the buffer */
	{ 100, 2, { { .length = 60 }, { .length = 60 } } },
	{ 100, 3, { { .length = 100 }, { .length = 100 }, { .length = 100 } } },
	{ 0, 1, { { .length = 1 } } },
};

static void a_list_that_lies_ends_the_conversation(void **state)
{
	static const uint8_t endpoints[] = { 0x85, 0x06, 0x8f, 0x0f };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lies) * ARRAY_SIZE(endpoints); i++) {
		const struct lie *lie = &lies[i / ARRAY_SIZE(endpoints)];
		struct engine_bench b;

		assert_int_equal(
			engine_bench_open(&b, true, ENGINE_BENCH_BUDGET), 0);
		submit_iso(&b, endpoints[i % ARRAY_SIZE(endpoints)],
			   lie->length, lie->packets, lie->n);
		assert_int_equal(engine_bench_run(&b), ENGINE_VIOLATION);
		assert_string_equal(engine_end_sentence(b.engine),
				    urb_verdict_sentence(URB_BAD_PACKET));
		assert_int_equal(b.device.num_submits, 0);
		assert_true(engine_bench_is_silent(&b));
		engine_bench_close(&b);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(data_in_is_packed_without_the_gaps_between_packets),
		TEST(data_in_has_the_packets_order_wherever_they_lie),
		TEST(data_out_arrives_whole_with_its_gaps),
		TEST(packets_that_failed_are_counted),
		TEST(no_packet_counts_for_more_than_it_asked_for),
		TEST(what_a_peer_says_of_results_means_nothing),
		TEST(an_urb_without_packets_is_done_at_once),
		TEST(the_most_packets_pass),
		TEST(a_small_list_after_a_large_one_is_its_own),
		TEST(an_unlinked_iso_urb_brings_no_packets),
		cmocka_unit_test(a_list_that_lies_ends_the_conversation),
	};

	return cmocka_run_group_tests_name("engine_iso", tests, NULL, NULL);
}
