/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers of a host device: their ends, parts, control requests, cancelling. */
#include "tests/unit/usb_libusb_bed.h"

#include "gateway/slot.h"

#define KIB ((size_t)1024)

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
		{ -EPROTO, -EPROTO },
		{ -EILSEQ, -EILSEQ },
		{ -ETIME, -ETIME },
		{ -ECOMM, -ECOMM },
		{ -ESHUTDOWN, -ESHUTDOWN },
		{ -ENOENT, -ESHUTDOWN }, /* what nobody cancelled */
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

static void what_is_done_at_once_is_found_without_a_wake_up(void **state)
{
	static struct buffer buffer;
	struct urb urbs[3];

	(void)state;
	usbfs.is_quiet = true;
	open_device();
	for (size_t i = 0; i < 3; i++) {
		urbs[i] = make_urb(USB_BULK, 0x81, &buffer, 64);
		submit(&urbs[i]);
		fake_usbfs_finish(&usbfs, 0, 0, i);
	}

	await(3);

	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(urbs[i].actual_length, i);
		done(&urbs[i]);
	}
	close_device();
}

static void a_look_in_vain_is_not_tried_again_for_a_while(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_BULK, 0x81, &buffer, 64);
	for (unsigned i = 0; i < 200; i++) {
		unsigned num_looks = usbfs.num_reaps;

		submit(&urb);
		run_once();
		num_looks = usbfs.num_reaps - num_looks;
		assert_int_equal(num_looks, i % 65 == 0 ? 1 : 0);
		fake_usbfs_finish(&usbfs, 0, 0, 64);
		await(1);
	}
	done(&urb);
	close_device();
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

static void a_controller_that_cannot_gather_gets_parts(void **state)
{
	static uint8_t data[150 * KIB];
	struct buffer buffer;
	struct urb urb;

	(void)state;
	usbfs.cannot_gather = true;
	open_device();
	urb = make_urb(USB_BULK, 0x02, &buffer, sizeof(data));
	urb.data = data;
	urb.flags = USBIP_URB_ZERO_PACKET;
	submit(&urb);
	for (size_t at = 0; at < sizeof(data); at += 64 * KIB) {
		bool is_last = sizeof(data) - at <= 64 * KIB;
		struct usbdevfs_urb *part = usbfs.submitted[0];

		assert_int_equal(usbfs.num_submitted, 1);
		assert_ptr_equal(part->buffer, data + at);
		assert_int_equal(part->buffer_length,
				 is_last ? sizeof(data) - at : 64 * KIB);
		assert_int_equal(part->flags,
				 is_last ? USBDEVFS_URB_ZERO_PACKET : 0);
		fake_usbfs_finish(&usbfs, 0, 0, (size_t)part->buffer_length);
		if (is_last)
			await(1);
		else
			run_until_submitted(1);
	}

	assert_int_equal(urb.status, 0);
	assert_int_equal(urb.actual_length, sizeof(data));
	done(&urb);
	close_device();
}

/* The first part has come in full; what ends the second? */
static struct urb play_second_part(void (*end)(struct urb *urb))
{
	static uint8_t data[150 * KIB];
	struct buffer buffer;
	struct urb urb;

	usbfs.cannot_gather = true;
	open_device();
	urb = make_urb(USB_BULK, 0x81, &buffer, sizeof(data));
	urb.data = data;
	submit(&urb);
	fake_usbfs_finish(&usbfs, 0, 0, 64 * KIB);
	end(&urb);
	done(&urb);
	close_device();
	return urb;
}

static void end_short(struct urb *urb)
{
	(void)urb;
	run_until_submitted(1);
	fake_usbfs_finish(&usbfs, 0, 0, 13);
	await(1);
}

static void end_with_a_stall(struct urb *urb)
{
	(void)urb;
	run_until_submitted(1);
	fake_usbfs_finish(&usbfs, 0, -EPIPE, 0);
	await(1);
}

static void end_by_cancelling_it(struct urb *urb)
{
	run_until_submitted(1);
	bed.device->ops->cancel(bed.device, urb);
	await(1);
}

static void end_by_cancelling_before_it(struct urb *urb)
{
	bed.device->ops->cancel(bed.device, urb);
	await(1);
	assert_int_equal(usbfs.num_submitted, 0);
}

static void end_by_a_failed_submit(struct urb *urb)
{
	(void)urb;
	usbfs.submit_error = ENOMEM;
	await(1);
}

static void a_part_that_is_not_full_is_the_last(void **state)
{
	static const struct {
		void (*end)(struct urb *urb);
		int status;
		size_t actual_length;
	} cases[] = {
		{ end_short, 0, 64 * KIB + 13 },
		{ end_with_a_stall, -EPIPE, 64 * KIB },
		{ end_by_cancelling_it, -ECONNRESET, 64 * KIB },
		{ end_by_cancelling_before_it, -ECONNRESET, 64 * KIB },
		{ end_by_a_failed_submit, -ENOMEM, 64 * KIB },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct urb urb = play_second_part(cases[i].end);

		assert_int_equal(urb.status, cases[i].status);
		assert_int_equal(urb.actual_length, cases[i].actual_length);
		(void)tear_down(state);
		(void)set_up(state);
	}
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

	done(&urb);
	close_device();
}

/* Through the slots, since they say where the buffer is. */
static void a_long_control_request_has_room_for_its_setup(void **state)
{
	static struct buffer unused;
	struct slot_pool *pool;
	struct slot *slot;

	(void)state;
	open_device();
	pool = slot_pool_new(NULL, bed.device, 1u << 20);
	assert_non_null(pool);
	slot = slot_take(pool);
	slot->urb = make_urb(USB_CONTROL, 0x80, &unused, 32768);
	assert_int_equal(slot_reserve(pool, slot, 32768), 0);
	submit(&slot->urb);
	assert_ptr_equal(usbfs.submitted[0]->buffer,
			 slot->urb.data - URB_HEADROOM);
	assert_int_equal(usbfs.num_maps, 0);
	fake_usbfs_finish(&usbfs, 0, 0, 0);
	await(1);

	slot->urb.length = 32769;
	assert_int_equal(bed.device->ops->submit(bed.device, &slot->urb),
			 -EINVAL);
	slot_give(pool, slot);
	slot_pool_free(pool);
	close_device();
}

static void what_usbfs_does_not_give_back_is_lost_with_the_device(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	urb = make_urb(USB_BULK, 0x81, &buffer, 64);
	submit(&urb);
	usbfs.num_submitted = 0;
	fake_usbfs_unplug(&usbfs);

	await(1);

	assert_int_equal(urb.status, -ESHUTDOWN);
	assert_int_equal(urb.actual_length, 0);
	run_once();
	assert_int_equal(bed.num_told_gone, 1);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_bulk_transfer_gets_what_the_device_gave),
		TEST(a_device_that_moved_bulk_data_is_reset_at_the_end),
		TEST(only_a_zero_packet_is_asked_for_of_usbfs),
		TEST(each_end_of_a_transfer_has_its_status),
		TEST(a_hundred_that_end_at_once_all_come_back),
		TEST(a_failed_submit_is_the_result_of_the_urb),
		TEST(the_setup_packet_lies_before_the_data),
		TEST(a_request_without_data_needs_no_buffer),
		TEST(a_device_is_asked_for_no_more_than_there_is_room_for),
		TEST(a_swallowed_control_request_ends_after_five_seconds),
		TEST(a_cancelled_transfer_comes_back_as_such),
		TEST(one_that_ended_before_its_cancel_keeps_its_result),
		TEST(a_cancelled_control_request_is_cancelled),
		TEST(a_controller_that_cannot_gather_gets_parts),
		TEST(a_part_that_is_not_full_is_the_last),
		TEST(what_is_done_at_once_is_found_without_a_wake_up),
		TEST(a_look_in_vain_is_not_tried_again_for_a_while),
		TEST(a_long_control_request_has_room_for_its_setup),
		TEST(what_usbfs_does_not_give_back_is_lost_with_the_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
