/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that another gateway has, in a real loop; that gateway is the test,
 * at the other end of the socket.
 */
#include "gateway/usb_device.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vchan-transport/loop.h"

#define DEVID        0x10002
#define FIRST_SEQNUM 7
#define LIMIT_MS     10000
#define MAX_URBS     8

#define BULK_IN      0x81
#define BULK_OUT     0x02
#define ISO_IN       0x83
#define INTR_IN      0x84

/* clang-format off */
static const uint8_t device_descriptors[] = {
	18, 1, 0, 2, 0xff, 0, 0, 64, 0x34, 0x12, 0x78, 0x56, 0, 1, 0, 0, 0, 1,
	9, 2, 46, 0, 1, 1, 0, 0x80, 50,
	9, 4, 0, 0, 4, 0xff, 0, 0, 0,
	7, 5, BULK_IN, 2, 0, 2, 0,
	7, 5, BULK_OUT, 2, 0, 2, 0,
	7, 5, ISO_IN, 1, 0, 1, 4,
	7, 5, INTR_IN, 3, 8, 0, 99,
};
/* clang-format on */

struct bed {
	struct loop *loop;
	struct usb_device *device;
	int peer;
	struct urb urbs[MAX_URBS];
	uint8_t data[MAX_URBS][4096];
	struct usbip_iso_packet packets[4];
	unsigned num_back;
	unsigned num_gone;
	unsigned num_wanted;
};

static struct bed bed;

static void stop_when_done(void)
{
	if (bed.num_back + bed.num_gone >= bed.num_wanted)
		loop_stop(bed.loop);
}

void urb_complete(struct urb *urb)
{
	assert_true(urb >= bed.urbs && urb < bed.urbs + MAX_URBS);
	bed.num_back++;
	stop_when_done();
}

static void on_gone(void *arg)
{
	(void)arg;
	bed.num_gone++;
	stop_when_done();
}

static void on_limit(void *arg)
{
	(void)arg;
	fail_msg("%u URBs came back in time", bed.num_back);
}

/* Runs until so many URBs are back, and ends of the device told. */
static void run_until(unsigned wanted)
{
	struct loop_timer *limit;

	bed.num_wanted = wanted;
	if (bed.num_back + bed.num_gone >= wanted)
		return;
	assert_int_equal(loop_timer_start(bed.loop, LIMIT_MS, 0, on_limit, NULL,
					  &limit),
			 0);
	loop_run(bed.loop);
	loop_timer_stop(limit);
	assert_int_equal(bed.num_back + bed.num_gone, wanted);
}

static void on_turn(void *arg)
{
	(void)arg;
	loop_stop(bed.loop);
}

/* What is to be written is written. */
static void run_once(void)
{
	struct loop_timer *timer;

	assert_int_equal(
		loop_timer_start(bed.loop, 0, 0, on_turn, NULL, &timer), 0);
	loop_run(bed.loop);
	loop_timer_stop(timer);
}

static int set_up(void **state)
{
	const struct usb_remote_options options = {
		.devid = DEVID,
		.next_seqnum = FIRST_SEQNUM,
		.speed = USBIP_SPEED_HIGH,
		.configuration = 1,
		.num_descriptor_bytes = sizeof(device_descriptors),
		.who = "1-1@lab",
	};
	int fds[2];

	(void)state;
	memset(&bed, 0, sizeof(bed));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	bed.peer = fds[1];
	assert_int_equal(write(bed.peer, device_descriptors,
			       sizeof(device_descriptors)),
			 sizeof(device_descriptors));
	assert_int_equal(loop_new(&bed.loop), 0);
	assert_int_equal(
		usb_remote_open(bed.loop, fds[0], &options, &bed.device), 0);
	bed.device->on_gone = on_gone;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < MAX_URBS; i++)
		bed.device->ops->urb_done(bed.device, &bed.urbs[i]);
	bed.device->ops->close(bed.device);
	loop_free(bed.loop);
	(void)close(bed.peer);
	return 0;
}

static struct urb *submit(unsigned i, enum usb_transfer_type type,
			  uint8_t endpoint, size_t length)
{
	struct urb *urb = &bed.urbs[i];

	urb->device = bed.device;
	urb->type = type;
	urb->endpoint = endpoint;
	urb->length = length;
	urb->data = bed.data[i];
	urb->status = 1;
	assert_int_equal(bed.device->ops->submit(bed.device, urb), 0);
	return urb;
}

static void read_all(void *to, size_t bytes)
{
	assert_int_equal(recv(bed.peer, to, bytes, MSG_WAITALL), bytes);
}

static struct usbip_header next_command(void)
{
	uint8_t bytes[USBIP_HEADER_BYTES];
	struct usbip_header h;

	read_all(bytes, sizeof(bytes));
	usbip_header_decode(&h, bytes);
	assert_int_equal(h.devid, DEVID);
	return h;
}

static void answer(struct usbip_header h, const void *data, size_t bytes)
{
	uint8_t head[USBIP_HEADER_BYTES];

	usbip_header_encode(head, &h);
	assert_int_equal(write(bed.peer, head, sizeof(head)), sizeof(head));
	if (bytes > 0)
		assert_int_equal(write(bed.peer, data, bytes), bytes);
}

static void answer_submit(uint32_t seqnum, int status, const void *data,
			  uint32_t bytes)
{
	const struct usbip_header h = {
		.command = USBIP_RET_SUBMIT,
		.seqnum = seqnum,
		.ret_submit = { .status = status, .actual_length = bytes }
	};

	answer(h, data, data ? bytes : 0);
}

static void answer_unlink(uint32_t seqnum, int status)
{
	const struct usbip_header h = { .command = USBIP_RET_UNLINK,
					.seqnum = seqnum,
					.unlink_status = status };

	answer(h, NULL, 0);
}

/* ---- URBs ---- */

static void data_goes_both_ways(void **state)
{
	struct usbip_header h;
	uint8_t got[4];

	(void)state;
	memcpy(bed.data[0], "out!", 4);
	submit(0, USB_BULK, BULK_OUT, 4);
	submit(1, USB_BULK, BULK_IN, 100);
	run_once();

	h = next_command();
	assert_int_equal(h.seqnum, FIRST_SEQNUM);
	assert_int_equal(h.endpoint, 2);
	assert_int_equal(h.direction, USBIP_DIR_OUT);
	read_all(got, sizeof(got));
	assert_memory_equal(got, "out!", 4);
	h = next_command();
	assert_int_equal(h.seqnum, FIRST_SEQNUM + 1);
	assert_int_equal(h.submit.length, 100);
	answer_submit(FIRST_SEQNUM + 1, 0, "in", 2);
	answer_submit(FIRST_SEQNUM, 0, NULL, 4);
	run_until(2);

	assert_int_equal(bed.urbs[0].actual_length, 4);
	assert_int_equal(bed.urbs[1].actual_length, 2);
	assert_memory_equal(bed.data[1], "in", 2);
	assert_int_equal(bed.urbs[1].status, 0);
}

static void judged_descriptors_are_answered_here(void **state)
{
	static const uint8_t get_config[8] = { 0x80, 6, 0, 2, 0, 0, 9, 0 };
	static const uint8_t get_second[8] = { 0x80, 6, 1, 2, 0, 0, 9, 0 };

	(void)state;
	memcpy(bed.urbs[0].setup, get_config, 8);
	memcpy(bed.urbs[1].setup, get_second, 8);

	submit(0, USB_CONTROL, 0x80, 9);
	submit(1, USB_CONTROL, 0x80, 9);

	assert_int_equal(bed.num_back, 2);
	assert_int_equal(bed.urbs[0].actual_length, 9);
	assert_memory_equal(bed.data[0], device_descriptors + 18, 9);
	assert_int_equal(bed.urbs[1].status, -EPIPE);
}

static void periodic_transfers_have_linux_s_interval(void **state)
{
	(void)state;
	submit(0, USB_INTERRUPT, INTR_IN, 8);
	bed.urbs[1].num_packets = 1;
	bed.urbs[1].packets = bed.packets;
	bed.packets[0].length = 10;
	submit(1, USB_ISOCHRONOUS, ISO_IN, 10);
	run_once();

	assert_int_equal(next_command().submit.interval, 1 << 15);
	assert_int_equal(next_command().submit.interval, 1 << 3);
}

static void isochronous_data_is_spread_to_its_places(void **state)
{
	struct urb *urb = &bed.urbs[0];
	struct usbip_header h = { .command = USBIP_RET_SUBMIT,
				  .seqnum = FIRST_SEQNUM,
				  .ret_submit = { .actual_length = 3,
						  .num_packets = 2 } };
	uint8_t behind[3 + 2 * USBIP_ISO_BYTES] = "abc";

	(void)state;
	bed.packets[0] = (struct usbip_iso_packet){ 50, 10, 0, 0 };
	bed.packets[1] = (struct usbip_iso_packet){ 0, 10, 0, 0 };
	urb->num_packets = 2;
	urb->packets = bed.packets;
	submit(0, USB_ISOCHRONOUS, ISO_IN, 60);
	run_once();
	(void)next_command();
	usbip_iso_encode(behind + 3,
			 &(struct usbip_iso_packet){ 50, 10, 2, 0 });
	usbip_iso_encode(behind + 3 + USBIP_ISO_BYTES,
			 &(struct usbip_iso_packet){ 0, 10, 1, -EPROTO });
	answer(h, behind, sizeof(behind));
	run_until(1);

	assert_memory_equal(bed.data[0] + 50, "ab", 2);
	assert_int_equal(bed.data[0][0], 'c');
	assert_int_equal(bed.packets[1].actual_length, 1);
	assert_int_equal(bed.packets[1].status, -EPROTO);
}

/* ---- taking back ---- */

static void an_unlinked_urb_ends_with_the_unlink(void **state)
{
	struct usbip_header h;

	(void)state;
	submit(0, USB_BULK, BULK_IN, 10);
	bed.device->ops->cancel(bed.device, &bed.urbs[0]);
	bed.device->ops->cancel(bed.device, &bed.urbs[0]);
	run_once();
	(void)next_command();
	h = next_command();
	assert_int_equal(h.command, USBIP_CMD_UNLINK);
	assert_int_equal(h.unlink_seqnum, FIRST_SEQNUM);
	answer_unlink(h.seqnum, -ECONNRESET);
	run_until(1);

	assert_int_equal(bed.urbs[0].status, -ECONNRESET);
	/* The second cancel said nothing. */
	assert_int_equal(recv(bed.peer, &h, 1, MSG_DONTWAIT), -1);
}

static void an_unlink_that_is_too_late_leaves_the_next_urb_alone(void **state)
{
	(void)state;
	submit(0, USB_BULK, BULK_IN, 10);
	run_once();
	bed.device->ops->cancel(bed.device, &bed.urbs[0]);
	answer_submit(FIRST_SEQNUM, 0, "done", 4);
	run_until(1);
	assert_int_equal(bed.urbs[0].status, 0);

	submit(0, USB_BULK, BULK_IN, 10); /* the same slot */
	answer_unlink(FIRST_SEQNUM + 1, 0);
	run_once();
	answer_submit(FIRST_SEQNUM + 2, 0, "next", 4);
	run_until(2);

	assert_memory_equal(bed.data[0], "next", 4);
	assert_int_equal(bed.num_gone, 0);
}

/* ---- requests ---- */

/* The other side of requests, which block: answers each, and keeps its setup. */
static void *answer_requests(void *arg)
{
	uint8_t(*setups)[8] = arg;

	for (unsigned i = 0; i < 4; i++) {
		const struct usbip_header h = next_command();

		assert_int_equal(h.direction, USBIP_DIR_OUT);
		memcpy(setups[i], h.submit.setup, 8);
		answer_submit(h.seqnum, i == 3 ? -EPIPE : 0, NULL, 0);
	}
	return NULL;
}

static void requests_are_sent_as_clients_send_them_and_waited_for(void **state)
{
	static const uint8_t expected[4][8] = {
		{ 2, 1, 0, 0, BULK_IN, 0, 0, 0 },
		{ 1, 11, 1, 0, 0, 0, 0, 0 },
		{ 0, 9, 1, 0, 0, 0, 0, 0 },
		{ 0x23, 3, 4, 0, 1, 0, 0, 0 },
	};
	const struct usb_device_ops *ops = bed.device->ops;
	uint8_t setups[4][8];
	pthread_t peer;

	(void)state;
	assert_int_equal(pthread_create(&peer, NULL, answer_requests, setups),
			 0);
	assert_int_equal(ops->clear_halt(bed.device, BULK_IN), 0);
	assert_int_equal(ops->set_interface(bed.device, 0, 1), 0);
	assert_int_equal(ops->set_configuration(bed.device, 1), 0);
	assert_int_equal(ops->reset(bed.device), -EPIPE);

	assert_int_equal(pthread_join(peer, NULL), 0);
	assert_memory_equal(setups, expected, sizeof(expected));
}

/* ---- ends ---- */

static void expect_gone(void)
{
	run_until(2);
	assert_int_equal(bed.num_gone, 1);
	assert_int_equal(bed.urbs[0].status, -ESHUTDOWN);
	assert_true(bed.device->is_gone);
	assert_int_equal(bed.device->ops->submit(bed.device, &bed.urbs[0]),
			 -ENODEV);
	assert_int_equal(bed.device->ops->reset(bed.device), -ENODEV);
}

static void the_other_gateway_s_end_is_the_device_s(void **state)
{
	(void)state;
	submit(0, USB_BULK, BULK_IN, 10);
	run_once();

	assert_int_equal(shutdown(bed.peer, SHUT_RDWR), 0);

	expect_gone();
}

static void an_answer_that_was_not_asked_for_is_the_end(void **state)
{
	(void)state;
	submit(0, USB_BULK, BULK_IN, 10);
	run_once();

	answer_submit(FIRST_SEQNUM + 1, 0, NULL, 0);

	expect_gone();
}

static void an_answer_longer_than_asked_for_is_the_end(void **state)
{
	(void)state;
	submit(0, USB_BULK, BULK_IN, 10);
	run_once();

	answer_submit(FIRST_SEQNUM, 0, NULL, 11);

	expect_gone();
}

/* Its data is still being written: nobody can have answered it. */
static void an_answer_before_the_whole_command_has_left_is_the_end(void **state)
{
	static uint8_t much[8 << 20];
	struct urb *urb = &bed.urbs[0];

	(void)state;
	*urb = (struct urb){ .device = bed.device,
			     .type = USB_BULK,
			     .endpoint = BULK_OUT,
			     .data = much,
			     .length = sizeof(much) };
	assert_int_equal(bed.device->ops->submit(bed.device, urb), 0);
	run_once();

	answer_submit(FIRST_SEQNUM, 0, NULL, 0);

	expect_gone();
}

static void a_truncated_answer_is_the_end(void **state)
{
	(void)state;
	submit(0, USB_BULK, BULK_IN, 10);
	run_once();

	answer_submit(FIRST_SEQNUM, 0, NULL, 10);
	assert_int_equal(shutdown(bed.peer, SHUT_RDWR), 0);

	expect_gone();
}

static void without_its_descriptors_it_is_not_opened(void **state)
{
	const struct usb_remote_options options = { .num_descriptor_bytes =
							    18 };
	struct usb_device *device;
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(write(fds[1], device_descriptors, 17), 17);

	assert_int_equal(usb_remote_open(bed.loop, fds[0], &options, &device),
			 -EPROTO);

	(void)close(fds[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(data_goes_both_ways),
		TEST(judged_descriptors_are_answered_here),
		TEST(periodic_transfers_have_linux_s_interval),
		TEST(isochronous_data_is_spread_to_its_places),
		TEST(an_unlinked_urb_ends_with_the_unlink),
		TEST(an_unlink_that_is_too_late_leaves_the_next_urb_alone),
		TEST(requests_are_sent_as_clients_send_them_and_waited_for),
		TEST(the_other_gateway_s_end_is_the_device_s),
		TEST(an_answer_that_was_not_asked_for_is_the_end),
		TEST(an_answer_longer_than_asked_for_is_the_end),
		TEST(an_answer_before_the_whole_command_has_left_is_the_end),
		TEST(a_truncated_answer_is_the_end),
		TEST(without_its_descriptors_it_is_not_opened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
