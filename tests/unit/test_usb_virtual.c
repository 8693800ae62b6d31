/* SPDX-License-Identifier: Apache-2.0 */
/* A device made of tables: chapter 9, queues, halts, alternate settings. */
#include "gateway/usb_virtual.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define IN  0x81
#define OUT 0x01
#define ISO 0x82

/* Interface 0: bulk in both settings, isochronous in 1; interface 1: OUT. */
/* clang-format off */
static const uint8_t descriptors[] = {
	18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x34, 0x12, 0x78, 0x56, 0, 1, 1, 2, 3, 2,
	9, 2, 64, 0, 2, 1, 0, 0x80, 50,
	9, 4, 0, 0, 1, 0xff, 0, 0, 0,
	7, 5, IN, 2, 0x00, 0x02, 0,
	9, 4, 0, 1, 2, 0xff, 0, 0, 0,
	7, 5, IN, 2, 0x00, 0x02, 0,
	7, 5, ISO, 1, 0x00, 0x04, 4,
	9, 4, 1, 0, 1, 0xff, 0, 0, 0,
	7, 5, OUT, 2, 0x00, 0x02, 0,
	9, 2, 18, 0, 1, 7, 0, 0x80, 50,
	9, 4, 0, 0, 0, 0xff, 0, 0, 0,
};
/* clang-format on */

static const uint8_t qualifier[10] = { 10, 6, 0, 2 };

static struct {
	struct usb_virtual v;
	struct urb *completed[16];
	unsigned num_completed;
	unsigned num_queued;
	unsigned num_cleared;
	unsigned num_settings;
	bool is_freed;
} t;

void urb_complete(struct urb *urb)
{
	assert_true(t.num_completed < 16);
	t.completed[t.num_completed++] = urb;
}

static int on_control(struct usb_virtual *v, const struct usb_request *request,
		      uint8_t *data)
{
	assert_ptr_equal(v, &t.v);
	if (request->request != 0x42)
		return -EPIPE;
	if (request->type & 0x80)
		memset(data, 0x42, request->length);
	return request->length;
}

static void on_queued(struct usb_virtual *v, struct usb_virtual_endpoint *e)
{
	assert_ptr_equal(v, &t.v);
	assert_non_null(e->head);
	t.num_queued++;
}

static void on_halt_cleared(struct usb_virtual *v,
			    struct usb_virtual_endpoint *e)
{
	(void)v;
	assert_false(e->is_halted);
	t.num_cleared++;
}

static void on_settings(struct usb_virtual *v)
{
	(void)v;
	t.num_settings++;
}

static void on_free(struct usb_virtual *v)
{
	(void)v;
	t.is_freed = true;
}

static const struct usb_virtual_model model = {
	.name = "test",
	.speed = USBIP_SPEED_HIGH,
	.descriptors = descriptors,
	.num_descriptor_bytes = sizeof(descriptors),
	.qualifier = qualifier,
	.control = on_control,
	.on_queued = on_queued,
	.on_halt_cleared = on_halt_cleared,
	.on_settings = on_settings,
	.free = on_free,
};

static struct usb_device *device(void)
{
	return &t.v.device;
}

static int setup(void **state)
{
	static const char *const strings[] = { "Maker", "A thing", "S\xe9\n1" };

	(void)state;
	memset(&t, 0, sizeof(t));
	return usb_virtual_init(&t.v, &model, strings);
}

static struct urb bulk(uint8_t endpoint, size_t length)
{
	static uint8_t data[4096];

	assert_true(length <= sizeof(data));
	return (struct urb){
		.type = USB_BULK,
		.endpoint = endpoint,
		.length = length,
		.data = data,
		.status = 1,
	};
}

/* A control request; moved bytes (in `data`) or -errno. */
static int request(uint64_t setup_be, uint8_t *data, size_t length)
{
	struct urb urb = { .type = USB_CONTROL, .length = length };
	unsigned before = t.num_completed;
	int r;

	urb.data = data;
	for (int i = 0; i < 8; i++)
		urb.setup[i] = (uint8_t)(setup_be >> (56 - 8 * i));
	urb.endpoint = urb.setup[0] & 0x80;
	r = device()->ops->submit(device(), &urb);
	if (r < 0) {
		assert_int_equal(t.num_completed, before);
		return r;
	}
	/* What the request ended has come before it. */
	assert_true(t.num_completed > before);
	assert_ptr_equal(t.completed[--t.num_completed], &urb);
	assert_int_equal(urb.status, 0);
	assert_true(urb.actual_length <= length);
	return (int)urb.actual_length;
}

static void descriptors_are_given_as_far_as_asked_for(void **state)
{
	uint8_t data[256];

	(void)state;
	assert_int_equal(request(0x8006000100001200, data, 18), 18);
	assert_memory_equal(data, descriptors, 18);
	assert_int_equal(request(0x8006000100000800, data, 8), 8);
	assert_int_equal(request(0x8006000100004000, data, 64), 18);
	assert_int_equal(request(0x8006000200000900, data, 9), 9);
	assert_int_equal(request(0x800600020000ff00, data, 255), 64);
	assert_memory_equal(data, descriptors + 18, 64);
	assert_int_equal(request(0x800601020000ff00, data, 255), 18);
	assert_memory_equal(data, descriptors + 18 + 64, 18);
	assert_int_equal(request(0x8006000600000a00, data, 10), 10);
	assert_memory_equal(data, qualifier, 10);
}

static void descriptors_that_there_are_not_stall(void **state)
{
	uint8_t data[64];

	(void)state;
	assert_int_equal(request(0x8006020200000900, data, 9), -EPIPE);
	assert_int_equal(request(0x8006000400000900, data, 9), -EPIPE);
	assert_int_equal(request(0x8006000500000700, data, 7), -EPIPE);
	assert_int_equal(request(0x8006000f00000500, data, 5), -EPIPE);
	assert_int_equal(request(0x8006040300004000, data, 64), -EPIPE);
	assert_int_equal(request(0x8006ee0300004000, data, 64), -EPIPE);
	assert_int_equal(request(0x8106000100001200, data, 18), -EPIPE);
}

static void strings_are_utf16_and_printable(void **state)
{
	static const uint8_t serial[] = {
		10, 3, 'S', 0, '?', 0, '?', 0, '1', 0
	};
	uint8_t data[64];

	(void)state;
	assert_int_equal(request(0x8006000300000900, data, 9), 4);
	assert_int_equal(request(0x800601030904ff00, data, 64), 12);
	assert_int_equal(request(0x800603030904ff00, data, 64), 10);
	assert_memory_equal(data, serial, sizeof(serial));
}

static void urb_shorter_than_wlength_limits_the_answer(void **state)
{
	uint8_t data[8] = { 0 };

	(void)state;
	assert_int_equal(request(0x800600020000ffff, data, 4), 4);
	assert_int_equal(data[4], 0);
	assert_int_equal(request(0xc04200000000ffff, data, 4), 4);
	assert_int_equal(data[3], 0x42);
	assert_int_equal(data[4], 0);
	assert_int_equal(request(0x8006000200000400, NULL, 0), 0);
}

static void unknown_requests_stall(void **state)
{
	uint8_t data[64];

	(void)state;
	assert_int_equal(request(0xc043000000000400, data, 4), -EPIPE);
	assert_int_equal(request(0x8055000000000400, data, 4), -EPIPE);
	assert_int_equal(request(0x0007000000000400, data, 4), -EPIPE);
	assert_int_equal(request(0x0003010000000000, data, 0), -EPIPE);
	assert_int_equal(request(0x0003300000000000, data, 0), -EPIPE);
	assert_int_equal(request(0x0030000000000600, data, 6), -EPIPE);
	assert_int_equal(request(0x8300000000000200, data, 2), -EPIPE);
}

static void status_says_what_is_halted(void **state)
{
	uint8_t data[2] = { 9, 9 };

	(void)state;
	assert_int_equal(request(0x8000000000000200, data, 2), 2);
	assert_int_equal(request(0x8100000001000200, data, 2), 2);
	assert_int_equal(request(0x8100000002000200, data, 2), -EPIPE);
	assert_int_equal(request(0x8100000020000200, data, 2), -EPIPE);
	assert_int_equal(request(0x8200000000000200, data, 2), 2);
	assert_int_equal(request(0x8200000005000200, data, 2), -EPIPE);
	assert_int_equal(request(0x8200000081000200, data, 2), 2);
	assert_int_equal(data[0], 0);

	assert_int_equal(request(0x0203000081000000, NULL, 0), 0);

	assert_int_equal(request(0x8200000081000200, data, 2), 2);
	assert_int_equal(data[0], 1);
}

static void halting_ends_what_waits_and_refuses_what_comes(void **state)
{
	struct urb first = bulk(IN, 8);
	struct urb second = bulk(IN, 8);
	struct urb late = bulk(IN, 8);

	(void)state;
	assert_int_equal(device()->ops->submit(device(), &first), 0);
	assert_int_equal(device()->ops->submit(device(), &second), 0);

	assert_int_equal(request(0x0203000081000000, NULL, 0), 0);

	assert_int_equal(first.status, -EPIPE);
	assert_int_equal(second.status, -EPIPE);
	assert_int_equal(device()->ops->submit(device(), &late), -EPIPE);
	assert_int_equal(device()->ops->clear_halt(device(), IN), 0);
	assert_int_equal(t.num_cleared, 1);
	assert_int_equal(device()->ops->submit(device(), &late), 0);
	assert_ptr_equal(usb_virtual_endpoint(&t.v, IN)->head, &late);
}

static void halt_of_what_cannot_halt_stalls(void **state)
{
	(void)state;
	assert_int_equal(request(0x0203000000000000, NULL, 0), -EPIPE);
	assert_int_equal(request(0x0203000085000000, NULL, 0), -EPIPE);
	assert_int_equal(request(0x0203010081000000, NULL, 0), -EPIPE);
	assert_int_equal(device()->ops->set_interface(device(), 0, 1), 0);
	assert_int_equal(request(0x0203000082000000, NULL, 0), -EPIPE);
	assert_int_equal(device()->ops->clear_halt(device(), 0), 0);
	assert_int_equal(device()->ops->clear_halt(device(), 0x85), -EPIPE);
	assert_int_equal(device()->ops->clear_halt(device(), 0xf1), -EPIPE);
}

static void urbs_of_an_endpoint_keep_their_order(void **state)
{
	struct urb urbs[3] = { bulk(IN, 1), bulk(IN, 2), bulk(IN, 3) };
	struct usb_virtual_endpoint *e = usb_virtual_endpoint(&t.v, IN);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(device()->ops->submit(device(), &urbs[i]), 0);
	assert_int_equal(t.num_queued, 3);

	while (e->head)
		usb_virtual_finish(e, 0, e->head->length);

	for (unsigned i = 0; i < 3; i++) {
		assert_ptr_equal(t.completed[i], &urbs[i]);
		assert_int_equal(urbs[i].status, 0);
		assert_int_equal(urbs[i].actual_length, i + 1);
	}
	assert_null(e->tail);
}

static void cancel_takes_an_urb_out_wherever_it_waits(void **state)
{
	struct urb urbs[4] = { bulk(IN, 1), bulk(IN, 2), bulk(IN, 3),
			       bulk(IN, 4) };
	struct usb_virtual_endpoint *e = usb_virtual_endpoint(&t.v, IN);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(device()->ops->submit(device(), &urbs[i]), 0);

	device()->ops->cancel(device(), &urbs[1]);
	device()->ops->cancel(device(), &urbs[2]);
	assert_int_equal(device()->ops->submit(device(), &urbs[3]), 0);
	device()->ops->cancel(device(), &urbs[0]);

	assert_int_equal(t.num_completed, 3);
	assert_ptr_equal(t.completed[0], &urbs[1]);
	assert_ptr_equal(t.completed[1], &urbs[2]);
	assert_ptr_equal(t.completed[2], &urbs[0]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(urbs[i].status, -ECONNRESET);
	assert_ptr_equal(e->head, &urbs[3]);
	assert_ptr_equal(e->tail, &urbs[3]);
}

static void cancel_of_an_urb_that_is_back_does_nothing(void **state)
{
	struct urb urb = bulk(IN, 1);
	struct urb other = bulk(IN, 1);

	(void)state;
	assert_int_equal(device()->ops->submit(device(), &other), 0);

	device()->ops->cancel(device(), &urb);

	assert_int_equal(t.num_completed, 0);
}

static void urbs_for_no_endpoint_or_of_a_wrong_type_are_refused(void **state)
{
	struct urb nowhere = bulk(0x83, 1);
	struct urb elsewhere = bulk(ISO, 1);
	struct urb wrong = bulk(IN, 1);

	(void)state;
	wrong.type = USB_INTERRUPT;
	assert_int_equal(device()->ops->submit(device(), &nowhere), -EPIPE);
	assert_int_equal(device()->ops->submit(device(), &elsewhere), -EPIPE);
	assert_int_equal(device()->ops->submit(device(), &wrong), -EPIPE);
	assert_int_equal(t.num_queued, 0);
}

static void isochronous_packets_outside_the_buffer_are_refused(void **state)
{
	struct usbip_iso_packet packets[2] = { { .offset = 0, .length = 8 },
					       { .offset = 8, .length = 9 } };
	struct urb urb = bulk(ISO, 16);

	(void)state;
	urb.type = USB_ISOCHRONOUS;
	urb.packets = packets;
	urb.num_packets = 2;
	assert_int_equal(device()->ops->set_interface(device(), 0, 1), 0);

	assert_int_equal(device()->ops->submit(device(), &urb), -EINVAL);
	packets[1].offset = UINT32_MAX;
	packets[1].length = 1;
	assert_int_equal(device()->ops->submit(device(), &urb), -EINVAL);
	packets[1] = (struct usbip_iso_packet){ .offset = 7, .length = 9 };
	assert_int_equal(device()->ops->submit(device(), &urb), -EINVAL);
	packets[1] = (struct usbip_iso_packet){ .offset = 8, .length = 8 };
	assert_int_equal(device()->ops->submit(device(), &urb), 0);
}

static void alternate_setting_changes_its_own_interface_only(void **state)
{
	struct urb in = bulk(IN, 8);
	struct urb out = bulk(OUT, 8);
	uint8_t data[1];

	(void)state;
	assert_null(usb_virtual_endpoint(&t.v, ISO));
	assert_int_equal(device()->ops->submit(device(), &in), 0);
	assert_int_equal(device()->ops->submit(device(), &out), 0);

	assert_int_equal(device()->ops->set_interface(device(), 0, 1), 0);

	assert_int_equal(in.status, -ESHUTDOWN);
	assert_int_equal(t.num_completed, 1);
	assert_non_null(usb_virtual_endpoint(&t.v, ISO));
	assert_int_equal(request(0x810a000000000100, data, 1), 1);
	assert_int_equal(data[0], 1);
	assert_int_equal(device()->ops->set_interface(device(), 0, 2), -EPIPE);
	assert_int_equal(device()->ops->set_interface(device(), 2, 0), -EPIPE);
	assert_int_equal(device()->ops->set_interface(device(), 255, 0),
			 -EPIPE);
	assert_int_equal(request(0x010b000000000000, NULL, 0), 0);
	assert_null(usb_virtual_endpoint(&t.v, ISO));
}

static void configuration_is_changed_and_read_back(void **state)
{
	struct urb out = bulk(OUT, 8);
	uint8_t data[1];

	(void)state;
	assert_int_equal(device()->configuration, 1);
	assert_int_equal(device()->ops->submit(device(), &out), 0);

	assert_int_equal(device()->ops->set_configuration(device(), 9), -EPIPE);
	assert_int_equal(t.num_completed, 0);
	assert_int_equal(device()->ops->set_configuration(device(), 7), 0);

	assert_int_equal(out.status, -ESHUTDOWN);
	assert_int_equal(request(0x8008000000000100, data, 1), 1);
	assert_int_equal(data[0], 7);
	assert_null(usb_virtual_endpoint(&t.v, IN));
	assert_int_equal(device()->ops->set_configuration(device(), 0), 0);
	assert_int_equal(request(0x8100000000000200, data, 1), -EPIPE);
}

static void reset_clears_halts_and_alternate_settings(void **state)
{
	(void)state;
	assert_int_equal(device()->ops->set_interface(device(), 0, 1), 0);
	assert_int_equal(request(0x0203000081000000, NULL, 0), 0);
	assert_int_equal(device()->ops->submit(device(),
					       &(struct urb){ .type = USB_BULK,
							      .endpoint = IN }),
			 -EPIPE);

	assert_int_equal(device()->ops->reset(device()), 0);

	assert_int_equal(device()->configuration, 1);
	assert_null(usb_virtual_endpoint(&t.v, ISO));
	assert_false(usb_virtual_endpoint(&t.v, IN)->is_halted);
}

static void closing_frees_the_kind_of_device(void **state)
{
	(void)state;
	device()->ops->close(device());
	assert_true(t.is_freed);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, setup)
	const struct CMUnitTest tests[] = {
		TEST(descriptors_are_given_as_far_as_asked_for),
		TEST(descriptors_that_there_are_not_stall),
		TEST(strings_are_utf16_and_printable),
		TEST(urb_shorter_than_wlength_limits_the_answer),
		TEST(unknown_requests_stall),
		TEST(status_says_what_is_halted),
		TEST(halting_ends_what_waits_and_refuses_what_comes),
		TEST(halt_of_what_cannot_halt_stalls),
		TEST(urbs_of_an_endpoint_keep_their_order),
		TEST(cancel_takes_an_urb_out_wherever_it_waits),
		TEST(cancel_of_an_urb_that_is_back_does_nothing),
		TEST(urbs_for_no_endpoint_or_of_a_wrong_type_are_refused),
		TEST(isochronous_packets_outside_the_buffer_are_refused),
		TEST(alternate_setting_changes_its_own_interface_only),
		TEST(configuration_is_changed_and_read_back),
		TEST(reset_clears_halts_and_alternate_settings),
		TEST(closing_frees_the_kind_of_device),
	};

	return cmocka_run_group_tests_name("usb_virtual", tests, NULL, NULL);
}
