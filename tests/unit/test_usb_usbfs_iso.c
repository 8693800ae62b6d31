/* SPDX-License-Identifier: Apache-2.0 */
/* Isochronous transfers of a host device: packets, with gaps and without. */
#include "tests/unit/usb_libusb_bed.h"

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
	assert_int_equal(packets[1].status, -EXDEV);
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

static void packets_of_which_usbfs_takes_some_are_taken_back(void **state)
{
	static struct usbip_iso_packet packets[200];
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	for (uint32_t i = 0; i < 200; i++)
		packets[i] = (struct usbip_iso_packet){ i, 1, 0, 0 };
	urb = make_iso(0x83, &buffer, packets, 200);
	urb.length = 200;
	usbfs.submit_error = ENOSPC;
	usbfs.submit_error_after = 1;
	submit(&urb);

	await(1);

	assert_int_equal(urb.status, -ENOSPC);
	assert_int_equal(urb.actual_length, 0);
	assert_int_equal(usbfs.num_submitted, 0);
	done(&urb);
	close_device();
}

static void without_packets_there_is_no_isochronous_transfer(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_iso(0x83, &buffer, NULL, 0);

	assert_int_equal(bed.device->ops->submit(bed.device, &urb), -EINVAL);
	assert_int_equal(usbfs.num_submitted, 0);
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
		cmocka_unit_test_setup_teardown(
			packets_of_which_usbfs_takes_some_are_taken_back,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			without_packets_there_is_no_isochronous_transfer,
			set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
