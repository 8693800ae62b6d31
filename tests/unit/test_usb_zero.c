/* SPDX-License-Identifier: Apache-2.0 */
/* Gadget Zero's twin, in a real loop. */
#include "gateway/usb_device.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "vchan-transport/loop.h"

#define BULK_IN        0x81
#define BULK_OUT       0x01
#define ISO_IN         0x82
#define ISO_OUT        0x02
#define INTR_IN        0x83
#define INTR_OUT       0x03

#define MAX_URBS       256
#define LIMIT_MS       10000
#define LOOPBACK_BYTES 65536

static struct loop *loop;
static struct usb_device *zero;
static struct urb *completed[MAX_URBS];
static unsigned num_completed;
static unsigned num_wanted;
static bool is_running;

void urb_complete(struct urb *urb)
{
	assert_true(num_completed < MAX_URBS);
	completed[num_completed++] = urb;
	if (is_running && num_completed == num_wanted)
		loop_stop(loop);
}

static void on_limit(void *arg)
{
	(void)arg;
	fail_msg("%u of %u URBs came back in time", num_completed, num_wanted);
}

/* Runs the loop until so many URBs are back in all. */
static void run_until(unsigned wanted)
{
	struct loop_timer *limit;

	if (num_completed >= wanted)
		return;
	num_wanted = wanted;
	assert_int_equal(
		loop_timer_start(loop, LIMIT_MS, 0, on_limit, NULL, &limit), 0);
	is_running = true;
	loop_run(loop);
	is_running = false;
	loop_timer_stop(limit);
	assert_int_equal(num_completed, wanted);
}

static void on_turn(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

/* Runs for a while in which nothing is to come back. */
static void run_ms(uint64_t ms)
{
	struct loop_timer *timer;

	assert_int_equal(loop_timer_start(loop, ms, 0, on_turn, NULL, &timer),
			 0);
	loop_run(loop);
	loop_timer_stop(timer);
}

static int setup(void **state)
{
	(void)state;
	num_completed = 0;
	assert_int_equal(loop_new(&loop), 0);
	return usb_zero_open(loop, &zero);
}

static int setup_periodic(void **state)
{
	(void)setup(state);
	return zero->ops->set_interface(zero, 0, 1);
}

static int setup_loopback(void **state)
{
	(void)setup(state);
	return zero->ops->set_configuration(zero, 2);
}

static int teardown(void **state)
{
	(void)state;
	zero->ops->close(zero);
	loop_free(loop);
	return 0;
}

static struct urb new_urb(enum usb_transfer_type type, uint8_t endpoint,
			  uint8_t *data, size_t length)
{
	return (struct urb){
		.type = type,
		.endpoint = endpoint,
		.data = data,
		.length = length,
		.status = 1,
	};
}

static int submit(struct urb *urb)
{
	return zero->ops->submit(zero, urb);
}

static int control(uint64_t setup_be, uint8_t *data, size_t length)
{
	struct urb urb = new_urb(USB_CONTROL, 0, data, length);
	unsigned before = num_completed;
	int r;

	for (int i = 0; i < 8; i++)
		urb.setup[i] = (uint8_t)(setup_be >> (56 - 8 * i));
	urb.endpoint = urb.setup[0] & 0x80;
	r = submit(&urb);
	if (r < 0)
		return r;
	assert_true(num_completed > before);
	num_completed = before;
	return (int)urb.actual_length;
}

static bool is_all(const uint8_t *bytes, size_t n, uint8_t value)
{
	for (size_t i = 0; i < n; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

static void usbtest_finds_each_kind_of_endpoint(void **state)
{
	static const struct {
		uint8_t address;
		enum usb_transfer_type type;
		uint16_t max_packet;
	} wanted[] = {
		{ BULK_IN, USB_BULK, 512 },
		{ BULK_OUT, USB_BULK, 512 },
		{ ISO_IN, USB_ISOCHRONOUS, 1024 },
		{ ISO_OUT, USB_ISOCHRONOUS, 1024 },
		{ INTR_IN, USB_INTERRUPT, 1024 },
		{ INTR_OUT, USB_INTERRUPT, 1024 },
	};
	uint8_t alternates[DESCRIPTORS_MAX_INTERFACES] = { 0 };
	struct descriptor_endpoint found;
	const uint8_t *bytes;

	(void)state;
	assert_int_equal(zero->descriptors.vendor, 0x0525);
	assert_int_equal(zero->descriptors.product, 0xa4a0);
	assert_int_equal(zero->descriptors.num_configurations, 2);
	assert_int_equal(zero->configuration, 3);
	assert_int_equal(zero->speed, USBIP_SPEED_HIGH);
	for (uint8_t alternate = 0; alternate < 2; alternate++) {
		alternates[0] = alternate;
		for (size_t i = 0; i < (alternate ? 6 : 2); i++) {
			assert_true(descriptors_find_endpoint(
				&zero->descriptors, 3, alternates,
				wanted[i].address, &found));
			assert_int_equal(found.type, wanted[i].type);
			assert_int_equal(found.max_packet,
					 wanted[i].max_packet);
		}
	}
	alternates[0] = 0;
	assert_false(descriptors_find_endpoint(&zero->descriptors, 3,
					       alternates, ISO_IN, &found));
	assert_int_equal(usb_zero_descriptors(&bytes),
			 zero->descriptors.num_bytes);
	assert_ptr_equal(bytes, zero->descriptors.bytes);
}

static void source_gives_zeros_in_order(void **state)
{
	static uint8_t data[100][1024];
	struct urb urbs[100];

	(void)state;
	memset(data, 0xa5, sizeof(data));
	for (int i = 0; i < 100; i++) {
		urbs[i] = new_urb(USB_BULK, BULK_IN, data[i], 1024 - (size_t)i);
		assert_int_equal(submit(&urbs[i]), 0);
	}
	assert_int_equal(num_completed, 0);

	run_until(100);

	for (unsigned i = 0; i < 100; i++) {
		assert_ptr_equal(completed[i], &urbs[i]);
		assert_int_equal(urbs[i].status, 0);
		assert_int_equal(urbs[i].actual_length, 1024 - i);
		assert_true(is_all(data[i], 1024 - i, 0));
		assert_true(is_all(data[i] + 1024 - i, i, 0xa5));
	}
}

static void sink_takes_zeros_and_halts_at_anything_else(void **state)
{
	uint8_t zeros[1024] = { 0 };
	uint8_t wrong[1024] = { 0 };
	struct urb urbs[4];

	(void)state;
	wrong[1023] = 1;
	for (int i = 0; i < 4; i++) {
		urbs[i] = new_urb(USB_BULK, BULK_OUT, i == 2 ? wrong : zeros,
				  i == 1 ? 0 : 1024);
		assert_int_equal(submit(&urbs[i]), 0);
	}

	run_until(4);

	assert_int_equal(urbs[0].status, 0);
	assert_int_equal(urbs[0].actual_length, 1024);
	assert_int_equal(urbs[1].status, 0);
	assert_int_equal(urbs[2].status, 0);
	assert_int_equal(urbs[3].status, -EPIPE);
	assert_int_equal(submit(&urbs[0]), -EPIPE);
	assert_int_equal(zero->ops->clear_halt(zero, BULK_OUT), 0);
	assert_int_equal(submit(&urbs[0]), 0);
	run_until(5);
	assert_int_equal(urbs[0].status, 0);
}

static void unlink_meets_an_urb_that_waits(void **state)
{
	uint8_t data[64];
	struct urb first = new_urb(USB_BULK, BULK_IN, data, 64);
	struct urb second = new_urb(USB_BULK, BULK_IN, data, 64);

	(void)state;
	assert_int_equal(submit(&first), 0);
	assert_int_equal(submit(&second), 0);

	zero->ops->cancel(zero, &first);

	assert_int_equal(num_completed, 1);
	assert_int_equal(first.status, -ECONNRESET);
	run_until(2);
	assert_int_equal(second.status, 0);
}

static void vendor_requests_write_and_read_back(void **state)
{
	static uint8_t data[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 3);
	assert_int_equal(control(0x405b000000000010, data, 4096), 4096);
	memset(data, 0, sizeof(data));
	assert_int_equal(control(0xc05c000000000010, data, 4096), 4096);
	for (size_t i = 0; i < sizeof(data); i++)
		assert_int_equal(data[i], (uint8_t)(i * 3));
	assert_int_equal(control(0xc05c000000000100, data, 1), 1);
	assert_int_equal(control(0xc05c000000000000, NULL, 0), 0);
	assert_int_equal(control(0x405b000000000000, NULL, 0), 0);
	assert_int_equal(control(0xc05c010000000100, data, 1), -EPIPE);
	assert_int_equal(control(0xc05b000000000100, data, 1), -EPIPE);
	assert_int_equal(control(0x405d000000000100, data, 1), -EPIPE);
}

static void vendor_requests_longer_than_the_buffer_stall(void **state)
{
	uint8_t *data = calloc(1, 4097);

	(void)state;
	assert_non_null(data);
	assert_int_equal(control(0x405b000000000110, data, 4097), -EPIPE);
	assert_int_equal(control(0xc05c000000000110, data, 4097), -EPIPE);
	free(data);
}

/* Splits an URB into packets, the last of which is short. */
static void split(struct urb *urb, struct usbip_iso_packet *packets,
		  size_t packet_bytes)
{
	size_t at = 0;

	urb->packets = packets;
	for (urb->num_packets = 0; at < urb->length; urb->num_packets++) {
		size_t n = urb->length - at;

		if (n > packet_bytes)
			n = packet_bytes;
		packets[urb->num_packets] = (struct usbip_iso_packet){
			.offset = (uint32_t)at,
			.length = (uint32_t)n,
			.actual_length = 77,
			.status = 77,
		};
		at += n;
	}
}

static void isochronous_packets_are_full_and_paced(void **state)
{
	static const uint8_t endpoints[] = { ISO_IN, ISO_OUT };
	static uint8_t data[2][4][2500];
	struct usbip_iso_packet packets[2][4][3];
	struct urb urbs[2][5];
	unsigned num_in_order = 0;
	uint64_t start_ms = loop_now_ms(loop);

	(void)state;
	memset(data, 0xa5, sizeof(data));
	for (int i = 0; i < 8; i++) {
		struct urb *urb = &urbs[i / 4][i % 4];

		*urb = new_urb(USB_ISOCHRONOUS, endpoints[i / 4],
			       data[i / 4][i % 4], 2500);
		split(urb, packets[i / 4][i % 4], 1024);
		assert_int_equal(submit(urb), 0);
	}

	run_until(8);

	/* Two endpoints with twelve packets each, a millisecond apart. */
	assert_true(loop_now_ms(loop) >= start_ms + 12);
	for (int i = 0; i < 8; i++) {
		const struct urb *urb = &urbs[i / 4][i % 4];

		assert_int_equal(urb->status, 0);
		assert_int_equal(urb->actual_length, 2500);
		for (int j = 0; j < 3; j++) {
			assert_int_equal(urb->packets[j].status, 0);
			assert_int_equal(urb->packets[j].actual_length,
					 urb->packets[j].length);
		}
		assert_true(is_all(urb->data, 2500, i < 4 ? 0 : 0xa5));
	}
	for (unsigned i = 0; i < 8; i++)
		num_in_order += completed[i] == &urbs[0][num_in_order];
	assert_int_equal(num_in_order, 4);
}

static void isochronous_packet_is_cut_at_the_endpoints_size(void **state)
{
	uint8_t data[2048];
	struct usbip_iso_packet packet;
	struct urb urb = new_urb(USB_ISOCHRONOUS, ISO_IN, data, 2048);

	(void)state;
	split(&urb, &packet, 2048);
	assert_int_equal(submit(&urb), 0);

	run_until(1);

	assert_int_equal(packet.actual_length, 1024);
	assert_int_equal(urb.actual_length, 1024);
}

static void isochronous_urb_without_packets_completes(void **state)
{
	struct urb urb = new_urb(USB_ISOCHRONOUS, ISO_OUT, NULL, 0);

	(void)state;
	assert_int_equal(submit(&urb), 0);
	run_until(1);
	assert_int_equal(urb.status, 0);
}

static void late_timer_catches_up_in_one_turn(void **state)
{
	const struct timespec late = { .tv_nsec = 100 * 1000000L };
	static uint8_t data[64];
	struct usbip_iso_packet packets[64];
	struct urb urb = new_urb(USB_ISOCHRONOUS, ISO_IN, data, 64);

	(void)state;
	split(&urb, packets, 1);
	assert_int_equal(submit(&urb), 0);
	assert_int_equal(nanosleep(&late, NULL), 0);

	run_ms(0);

	assert_int_equal(num_completed, 1);
	assert_int_equal(urb.actual_length, 64);
}

static void cancelled_isochronous_urb_says_what_was_not_moved(void **state)
{
	static uint8_t data[1000];
	struct usbip_iso_packet packets[1000];
	struct urb urb = new_urb(USB_ISOCHRONOUS, ISO_IN, data, 1000);
	struct urb next = new_urb(USB_ISOCHRONOUS, ISO_IN, data, 1);
	struct usbip_iso_packet packet;

	(void)state;
	split(&urb, packets, 1);
	split(&next, &packet, 1);
	assert_int_equal(submit(&urb), 0);
	assert_int_equal(submit(&next), 0);
	run_ms(5);
	assert_int_equal(num_completed, 0);

	zero->ops->cancel(zero, &urb);

	assert_int_equal(urb.status, -ECONNRESET);
	assert_true(urb.actual_length >= 1);
	assert_true(urb.actual_length < 1000);
	assert_int_equal(packets[0].status, 0);
	assert_int_equal(packets[999].status, -EXDEV);
	assert_int_equal(packets[999].actual_length, 0);
	run_until(2);
	assert_int_equal(next.status, 0);
	assert_int_equal(packet.status, 0);
}

static void interrupt_urbs_take_a_millisecond_for_each_packet(void **state)
{
	static uint8_t data[10 * 1024];
	static uint8_t zeros[10 * 1024];
	struct urb in = new_urb(USB_INTERRUPT, INTR_IN, data, sizeof(data));
	struct urb out = new_urb(USB_INTERRUPT, INTR_OUT, zeros, sizeof(zeros));
	struct urb empty = new_urb(USB_INTERRUPT, INTR_OUT, NULL, 0);
	uint64_t start_ms = loop_now_ms(loop);

	(void)state;
	memset(data, 0xa5, sizeof(data));
	assert_int_equal(submit(&in), 0);
	assert_int_equal(submit(&out), 0);
	assert_int_equal(submit(&empty), 0);

	run_until(3);

	assert_true(loop_now_ms(loop) >= start_ms + 11);
	assert_int_equal(in.actual_length, sizeof(data));
	assert_true(is_all(data, sizeof(data), 0));
	assert_int_equal(out.actual_length, sizeof(zeros));
	assert_int_equal(empty.status, 0);
}

static void setting_changes_end_periodic_urbs(void **state)
{
	uint8_t data[1024];
	struct urb urb = new_urb(USB_INTERRUPT, INTR_IN, data, 1024);

	(void)state;
	assert_int_equal(submit(&urb), 0);
	assert_int_equal(zero->ops->set_interface(zero, 0, 0), 0);
	assert_int_equal(urb.status, -ESHUTDOWN);
	assert_int_equal(submit(&urb), -EPIPE);
	run_ms(3);
	assert_int_equal(num_completed, 1);
}

static void loopback_gives_back_what_it_got_in_order(void **state)
{
	static uint8_t sent[3][5000];
	static uint8_t got[15000];
	size_t total = 0;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct urb urb = new_urb(USB_BULK, BULK_OUT, sent[i], 5000);

		for (size_t j = 0; j < 5000; j++)
			sent[i][j] = (uint8_t)(j * 5 + i);
		assert_int_equal(submit(&urb), 0);
		run_until(num_completed + 1);
		assert_int_equal(urb.actual_length, 5000);
	}
	while (total < sizeof(got)) {
		struct urb urb = new_urb(USB_BULK, BULK_IN, got + total, 4096);

		if (urb.length > sizeof(got) - total)
			urb.length = sizeof(got) - total;
		assert_int_equal(submit(&urb), 0);
		run_until(num_completed + 1);
		assert_true(urb.actual_length > 0);
		total += urb.actual_length;
	}
	assert_memory_equal(got, sent, sizeof(got));
}

static void loopback_that_is_full_holds_out_back(void **state)
{
	static uint8_t sent[LOOPBACK_BYTES + 100];
	static uint8_t got[LOOPBACK_BYTES + 100];
	struct urb out = new_urb(USB_BULK, BULK_OUT, sent, sizeof(sent));
	struct urb in = new_urb(USB_BULK, BULK_IN, got, 50);
	struct urb rest =
		new_urb(USB_BULK, BULK_IN, got + 50, sizeof(got) - 50);
	struct urb last =
		new_urb(USB_BULK, BULK_IN, got + LOOPBACK_BYTES + 50, 50);

	(void)state;
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + i / 256);
	assert_int_equal(submit(&out), 0);
	run_ms(3);
	assert_int_equal(num_completed, 0);

	assert_int_equal(submit(&in), 0);
	run_until(1);
	assert_ptr_equal(completed[0], &in);
	assert_int_equal(submit(&rest), 0);
	run_until(3);
	assert_int_equal(out.actual_length, sizeof(sent));
	assert_int_equal(rest.actual_length, LOOPBACK_BYTES);
	assert_int_equal(submit(&last), 0);
	run_until(4);

	assert_memory_equal(got, sent, sizeof(sent));
}

static void loopback_with_nothing_in_it_holds_in_back(void **state)
{
	uint8_t got[8] = { 0 };
	uint8_t sent[3] = { 1, 2, 3 };
	struct urb in = new_urb(USB_BULK, BULK_IN, got, 8);
	struct urb out = new_urb(USB_BULK, BULK_OUT, sent, 3);
	struct urb empty = new_urb(USB_BULK, BULK_OUT, NULL, 0);

	(void)state;
	assert_int_equal(submit(&in), 0);
	assert_int_equal(submit(&empty), 0);
	run_until(1);
	assert_ptr_equal(completed[0], &empty);

	assert_int_equal(submit(&out), 0);
	run_until(3);

	assert_int_equal(in.actual_length, 3);
	assert_memory_equal(got, sent, 3);
}

static void new_configuration_empties_the_loopback(void **state)
{
	uint8_t sent[3] = { 1, 2, 3 };
	struct urb out = new_urb(USB_BULK, BULK_OUT, sent, 3);
	struct urb in = new_urb(USB_BULK, BULK_IN, sent, 3);

	(void)state;
	assert_int_equal(submit(&out), 0);
	run_until(1);

	assert_int_equal(zero->ops->set_configuration(zero, 2), 0);

	assert_int_equal(submit(&in), 0);
	run_ms(3);
	assert_int_equal(num_completed, 1);
	zero->ops->cancel(zero, &in);
	assert_int_equal(in.status, -ECONNRESET);
}

int main(void)
{
#define BULK(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define PERIODIC(name) \
	cmocka_unit_test_setup_teardown(name, setup_periodic, teardown)
#define LOOPBACK(name) \
	cmocka_unit_test_setup_teardown(name, setup_loopback, teardown)
	const struct CMUnitTest tests[] = {
		BULK(usbtest_finds_each_kind_of_endpoint),
		BULK(source_gives_zeros_in_order),
		BULK(sink_takes_zeros_and_halts_at_anything_else),
		BULK(unlink_meets_an_urb_that_waits),
		BULK(vendor_requests_write_and_read_back),
		BULK(vendor_requests_longer_than_the_buffer_stall),
		PERIODIC(isochronous_packets_are_full_and_paced),
		PERIODIC(isochronous_packet_is_cut_at_the_endpoints_size),
		PERIODIC(isochronous_urb_without_packets_completes),
		PERIODIC(late_timer_catches_up_in_one_turn),
		PERIODIC(cancelled_isochronous_urb_says_what_was_not_moved),
		PERIODIC(interrupt_urbs_take_a_millisecond_for_each_packet),
		PERIODIC(setting_changes_end_periodic_urbs),
		LOOPBACK(loopback_gives_back_what_it_got_in_order),
		LOOPBACK(loopback_that_is_full_holds_out_back),
		LOOPBACK(loopback_with_nothing_in_it_holds_in_back),
		LOOPBACK(new_configuration_empties_the_loopback),
	};

	return cmocka_run_group_tests_name("usb_zero", tests, NULL, NULL);
}
