/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers of the libusb device: all four types, their ends, cancelling. */
#include "tests/unit/usb_libusb_bed.h"

/* Transfers. */

static void a_bulk_transfer_gets_what_the_device_gave(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_BULK, 0x81, &buffer, 512);
	submit(&urb);
	assert_int_equal(usbfs.submitted[0]->type, USBDEVFS_URB_TYPE_BULK);
	assert_int_equal(usbfs.submitted[0]->endpoint, 0x81);
	assert_int_equal(usbfs.submitted[0]->buffer_length, 512);
	assert_ptr_equal(usbfs.submitted[0]->buffer, buffer.data);

	fake_usbfs_finish(&usbfs, 0, 0, 31);
	await(1);

	assert_int_equal(urb.status, 0);
	assert_int_equal(urb.actual_length, 31);
	done(&urb);
	close_device();
}

static void a_device_that_moved_bulk_data_is_reset_at_the_end(void **state)
{
	static const struct {
		enum usb_transfer_type type;
		uint8_t endpoint;
		const char *journal;
	} cases[] = {
		{ USB_BULK, 0x81, "release 0, release 2, reset, attach 0, " },
		{ USB_INTERRUPT, 0x85, "release 0, release 2, attach 0, " },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buffer buffer;
		struct urb urb;

		open_device();
		urb = make_urb(cases[i].type, cases[i].endpoint, &buffer, 8);
		submit(&urb);
		fake_usbfs_finish(&usbfs, 0, 0, 8);
		await(1);
		done(&urb);
		close_device();

		assert_string_equal(usbfs.journal, cases[i].journal);
		(void)tear_down(state);
		(void)set_up(state);
	}
}

static void only_a_zero_packet_is_asked_for_of_usbfs(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_BULK, 0x02, &buffer, 512);
	urb.flags = USBIP_URB_ZERO_PACKET | USBIP_URB_SHORT_NOT_OK;
	submit(&urb);

	assert_int_equal(usbfs.submitted[0]->flags, USBDEVFS_URB_ZERO_PACKET);

	fake_usbfs_finish(&usbfs, 0, 0, 512);
	await(1);
	done(&urb);
	close_device();
}

static void each_end_of_a_transfer_has_its_status(void **state)
{
	static const struct {
		int usbfs_status;
		int status;
	} cases[] = {
		{ 0, 0 },
		{ -EPIPE, -EPIPE },
		{ -EOVERFLOW, -EOVERFLOW },
		{ -EILSEQ, -EPROTO },
		{ -ETIME, -EPROTO },
		{ -ECOMM, -EPROTO },
		{ -ESHUTDOWN, -ESHUTDOWN },
	};
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_INTERRUPT, 0x85, &buffer, 8);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		submit(&urb);
		fake_usbfs_finish(&usbfs, 0, cases[i].usbfs_status, 4);
		await(1);
		assert_int_equal(urb.status, cases[i].status);
		assert_int_equal(urb.actual_length, 4);
	}
	done(&urb);
	close_device();
}

static void a_hundred_that_end_at_once_all_come_back(void **state)
{
	static struct buffer buffer;
	struct urb *urbs = calloc(100, sizeof(*urbs));

	(void)state;
	assert_non_null(urbs);
	open_device();
	for (size_t i = 0; i < 100; i++) {
		urbs[i] = make_urb(USB_BULK, 0x81, &buffer, 100);
		submit(&urbs[i]);
	}
	for (size_t i = 0; i < 100; i++)
		fake_usbfs_finish(&usbfs, 0, 0, i);
	await(100);

	for (size_t i = 0; i < 100; i++) {
		assert_int_equal(urbs[i].actual_length, i);
		done(&urbs[i]);
	}
	close_device();
	free(urbs);
}

static void a_failed_submit_is_the_result_of_the_urb(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_BULK, 0x81, &buffer, 64);
	usbfs.submit_error = ENOMEM;

	assert_int_equal(bed.device->ops->submit(bed.device, &urb), -ENOMEM);

	submit(&urb);
	fake_usbfs_finish(&usbfs, 0, 0, 64);
	await(1);
	assert_int_equal(urb.status, 0);
	done(&urb);
	close_device();
}

/* Control. */

static void the_setup_packet_lies_before_the_data(void **state)
{
	static const uint8_t setup[8] = { 0x80, 6, 0, 1, 0, 0, 18, 0 };
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_CONTROL, 0x80, &buffer, 18);
	memcpy(urb.setup, setup, sizeof(setup));
	submit(&urb);
	assert_ptr_equal(usbfs.submitted[0]->buffer, buffer.headroom);
	assert_int_equal(usbfs.submitted[0]->buffer_length, 8 + 18);
	assert_memory_equal(buffer.headroom, setup, sizeof(setup));

	fake_usbfs_finish(&usbfs, 0, 0, 18);
	await(1);

	assert_int_equal(urb.status, 0);
	assert_int_equal(urb.actual_length, 18);
	done(&urb);
	close_device();
}

static void a_request_without_data_needs_no_buffer(void **state)
{
	static const uint8_t setup[8] = { 0x00, 3, 1, 0, 0, 0, 0, 0 };
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_CONTROL, 0x00, &buffer, 0);
	urb.data = NULL;
	memcpy(urb.setup, setup, sizeof(setup));
	submit(&urb);
	assert_memory_equal(usbfs.submitted[0]->buffer, setup, sizeof(setup));

	fake_usbfs_finish(&usbfs, 0, -EPIPE, 0);
	await(1);

	assert_int_equal(urb.status, -EPIPE);
	done(&urb);
	close_device();
}

static void a_device_is_asked_for_no_more_than_there_is_room_for(void **state)
{
	static const uint8_t setup[8] = { 0x80, 6, 0, 1, 0, 0, 0xff, 1 };
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_CONTROL, 0x80, &buffer, 64);
	memcpy(urb.setup, setup, sizeof(setup));
	submit(&urb);
	assert_int_equal(buffer.headroom[6], 64);
	assert_int_equal(buffer.headroom[7], 0);
	fake_usbfs_finish(&usbfs, 0, 0, 64);
	await(1);

	urb.endpoint = 0;
	urb.setup[0] = 0x40;
	assert_int_equal(bed.device->ops->submit(bed.device, &urb), -EINVAL);

	urb.length = 4097;
	urb.setup[0] = 0xc0;
	assert_int_equal(bed.device->ops->submit(bed.device, &urb), -EINVAL);
	done(&urb);
	close_device();
}

static void a_swallowed_control_request_ends_after_five_seconds(void **state)
{
	struct buffer buffer;
	struct urb control;
	struct urb bulk;

	(void)state;
	open_device();
	control = make_urb(USB_CONTROL, 0x80, &buffer, 0);
	bulk = make_urb(USB_BULK, 0x81, &buffer, 8);
	submit(&control);
	submit(&bulk);

	bed.skipped_s = 5;
	await(1);

	assert_int_equal(control.status, -ETIMEDOUT);
	assert_int_equal(usbfs.num_submitted, 1);
	fake_usbfs_finish(&usbfs, 0, 0, 8);
	await(1);
	assert_int_equal(bulk.status, 0);
	done(&control);
	done(&bulk);
	close_device();
}

/* Cancelling. */

static void a_cancelled_transfer_comes_back_as_such(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_BULK, 0x81, &buffer, 64);
	submit(&urb);

	bed.device->ops->cancel(bed.device, &urb);
	await(1);

	assert_int_equal(urb.status, -ECONNRESET);
	done(&urb);
	close_device();
}

static void one_that_ended_before_its_cancel_keeps_its_result(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_BULK, 0x81, &buffer, 64);
	submit(&urb);
	fake_usbfs_finish(&usbfs, 0, 0, 13);

	bed.device->ops->cancel(bed.device, &urb);
	await(1);

	assert_int_equal(urb.status, 0);
	assert_int_equal(urb.actual_length, 13);
	done(&urb);
	close_device();
}

static void a_cancelled_control_request_is_cancelled(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_CONTROL, 0x80, &buffer, 0);
	submit(&urb);
	bed.device->ops->cancel(bed.device, &urb);
	await(1);
	assert_int_equal(urb.status, -ECONNRESET);
	done(&urb);
	close_device();
}

/* Isochronous. */

#define ISO_LENGTH 32

static struct urb make_iso(uint8_t endpoint, struct buffer *buffer,
			   struct usbip_iso_packet *packets, uint32_t n)
{
	struct urb urb =
		make_urb(USB_ISOCHRONOUS, endpoint, buffer, ISO_LENGTH);

	urb.packets = packets;
	urb.num_packets = n;
	return urb;
}

static void packets_back_to_back_are_not_copied(void **state)
{
	struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 8 },
		{ .offset = 8, .length = 24 },
	};
	struct usbdevfs_urb *submitted;
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_iso(0x83, &buffer, packets, 2);
	submit(&urb);
	submitted = usbfs.submitted[0];
	assert_int_equal(submitted->type, USBDEVFS_URB_TYPE_ISO);
	assert_ptr_equal(submitted->buffer, buffer.data);
	assert_int_equal(submitted->number_of_packets, 2);
	assert_int_equal(submitted->iso_frame_desc[1].length, 24);

	submitted->iso_frame_desc[0].actual_length = 5;
	submitted->iso_frame_desc[1].status = (unsigned)-EXDEV;
	fake_usbfs_finish(&usbfs, 0, 0, 5);
	await(1);

	assert_int_equal(urb.status, 0);
	assert_int_equal(urb.actual_length, 5);
	assert_int_equal(packets[0].actual_length, 5);
	assert_int_equal(packets[0].status, 0);
	assert_int_equal(packets[1].actual_length, 0);
	assert_int_equal(packets[1].status, -EPROTO);
	done(&urb);
	close_device();
}

static void received_packets_with_gaps_go_to_their_places(void **state)
{
	struct usbip_iso_packet packets[] = {
		{ .offset = 16, .length = 8 },
		{ .offset = 0, .length = 4 },
	};
	struct usbdevfs_urb *submitted;
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	memset(buffer.data, '.', ISO_LENGTH);
	urb = make_iso(0x83, &buffer, packets, 2);
	submit(&urb);
	submitted = usbfs.submitted[0];
	memcpy(submitted->buffer, "aaaaaaaabbbb", 12);
	submitted->iso_frame_desc[0].actual_length = 6;
	submitted->iso_frame_desc[1].actual_length = 4;
	fake_usbfs_finish(&usbfs, 0, 0, 10);
	await(1);

	assert_memory_equal(buffer.data, "bbbb............aaaaaa..........",
			    ISO_LENGTH);
	assert_int_equal(urb.actual_length, 10);
	done(&urb);
	close_device();
}

static void sent_packets_with_gaps_are_gathered(void **state)
{
	struct usbip_iso_packet packets[] = {
		{ .offset = 4, .length = 4 },
		{ .offset = 20, .length = 2 },
	};
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	memcpy(buffer.data, "0123456789abcdefghijklmnopqrstuv", ISO_LENGTH);
	urb = make_iso(0x04, &buffer, packets, 2);
	submit(&urb);

	assert_int_equal(usbfs.submitted[0]->buffer_length, 6);
	assert_memory_equal(usbfs.submitted[0]->buffer, "4567kl", 6);

	fake_usbfs_finish(&usbfs, 0, 0, 0);
	await(1);
	assert_memory_equal(buffer.data, "0123456789abcdefghijklmnopqrstuv",
			    ISO_LENGTH);
	done(&urb);
	close_device();
}

static void more_packets_than_usbfs_takes_are_one_urb(void **state)
{
	static struct usbip_iso_packet packets[200];
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_iso(0x83, &buffer, packets, 1);
	urb.length = 200;
	packets[0].length = 1;
	submit(&urb);
	fake_usbfs_finish(&usbfs, 0, 0, 0);
	await(1);
	for (uint32_t i = 0; i < 200; i++)
		packets[i] = (struct usbip_iso_packet){ i, 1, 0, 0 };
	urb.num_packets = 200;
	submit(&urb);
	assert_int_equal(usbfs.num_submitted, 2);

	fake_usbfs_finish(&usbfs, 0, 0, 0);
	usbfs.submitted[0]->iso_frame_desc[71].actual_length = 1;
	fake_usbfs_finish(&usbfs, 0, 0, 0);
	await(1);

	assert_int_equal(packets[199].actual_length, 1);
	assert_int_equal(urb.actual_length, 1);
	done(&urb);
	close_device();
}

static void a_packet_outside_its_buffer_is_refused(void **state)
{
	struct usbip_iso_packet packets[] = {
		{ .offset = ISO_LENGTH - 1, .length = 2 },
		{ .offset = 0, .length = ISO_LENGTH },
	};
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_iso(0x83, &buffer, packets, 1);
	assert_int_equal(bed.device->ops->submit(bed.device, &urb), -EINVAL);

	packets[0] = packets[1];
	urb.num_packets = 2;
	assert_int_equal(bed.device->ops->submit(bed.device, &urb), -EINVAL);
	done(&urb);
	close_device();
}

static void packets_of_an_unplugged_device_have_got_nothing(void **state)
{
	struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 8, .actual_length = 8 },
	};
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_iso(0x83, &buffer, packets, 1);
	submit(&urb);
	usbfs.submitted[0]->iso_frame_desc[0].status = (unsigned)-ESHUTDOWN;
	fake_usbfs_unplug(&usbfs);
	await(1);

	assert_int_equal(urb.status, -ESHUTDOWN);
	assert_int_equal(urb.actual_length, 0);
	assert_int_equal(packets[0].actual_length, 0);
	assert_int_equal(packets[0].status, -ESHUTDOWN);
	done(&urb);
	close_device();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_bulk_transfer_gets_what_the_device_gave, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_device_that_moved_bulk_data_is_reset_at_the_end,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			only_a_zero_packet_is_asked_for_of_usbfs, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			each_end_of_a_transfer_has_its_status, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_hundred_that_end_at_once_all_come_back, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_failed_submit_is_the_result_of_the_urb, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			the_setup_packet_lies_before_the_data, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_request_without_data_needs_no_buffer, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_device_is_asked_for_no_more_than_there_is_room_for,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_swallowed_control_request_ends_after_five_seconds,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_cancelled_transfer_comes_back_as_such, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			one_that_ended_before_its_cancel_keeps_its_result,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_cancelled_control_request_is_cancelled, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			packets_back_to_back_are_not_copied, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			received_packets_with_gaps_go_to_their_places, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			sent_packets_with_gaps_are_gathered, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			more_packets_than_usbfs_takes_are_one_urb, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_packet_outside_its_buffer_is_refused, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			packets_of_an_unplugged_device_have_got_nothing, set_up,
			tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
