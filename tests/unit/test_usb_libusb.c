/* SPDX-License-Identifier: Apache-2.0 */
/* The libusb device itself: opening, requests, unplugging, memory, closing. */
#include "tests/unit/usb_libusb_bed.h"

#include <sys/wait.h>

#include "vchan-transport/sandbox.h"

#define KIB ((size_t)1024)

/* Opening and closing. */

static void open_takes_each_interface_from_its_driver(void **state)
{
	(void)state;

	assert_int_equal(usb_libusb_open(bed.loop, usbfs.fd, &bed.device), 0);

	assert_string_equal(usbfs.journal, "detach 0, claim 0, claim 2, ");
	assert_int_equal(bed.device->configuration, 1);
	assert_int_equal(bed.device->speed, USBIP_SPEED_SUPER);
	assert_int_equal(bed.device->descriptors.vendor, 0x045e);
	assert_false(bed.device->is_gone);
	close_device();
}

static void close_attaches_drivers_where_there_were_some(void **state)
{
	(void)state;
	open_device();

	close_device();

	assert_string_equal(usbfs.journal, "release 0, release 2, attach 0, ");
	assert_int_equal(fcntl(usbfs.fd, F_GETFD), -1);
}

/* In a child: the exit status is how far it came. */
static int open_within(void)
{
	struct usb_device *device;

	if (sandbox_enter(SANDBOX_HANDSHAKE) < 0)
		return 1;
	if (usb_libusb_open(bed.loop, usbfs.fd, &device) < 0)
		return 2;
	if (sandbox_narrow() < 0)
		return 3;
	device->ops->close(device);
	return strcmp(usbfs.journal, "detach 0, claim 0, claim 2, "
				     "release 0, release 2, attach 0, ") == 0
		       ? 0
		       : 4;
}

static void what_opens_a_device_is_in_the_sandbox_of_a_handshake(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		sandbox_at_entry();
		_exit(open_within());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	(void)close(usbfs.fd);
}

static void
an_interface_of_another_program_is_busy_and_all_is_put_back(void **state)
{
	(void)state;
	usbfs.others = 1u << 2;

	assert_int_equal(usb_libusb_open(bed.loop, usbfs.fd, &bed.device),
			 -EBUSY);

	assert_string_equal(usbfs.journal,
			    "detach 0, claim 0, release 0, attach 0, ");
	assert_int_equal(fcntl(usbfs.fd, F_GETFD), -1);
}

static void a_device_without_descriptors_is_refused(void **state)
{
	(void)state;
	usbfs.num_descriptor_bytes = 17;

	assert_int_equal(usb_libusb_open(bed.loop, usbfs.fd, &bed.device),
			 -EINVAL);
	assert_string_equal(usbfs.journal, "");
}

/* Requests that the kernel carries out. */

static void a_halt_is_cleared_with_the_direction(void **state)
{
	(void)state;
	open_device();

	assert_int_equal(bed.device->ops->clear_halt(bed.device, 0x81), 0);

	assert_string_equal(usbfs.journal, "clear 81, ");
	close_device();
}

static void a_setting_ends_the_transfers_of_its_interface_only(void **state)
{
	struct buffer buffer;
	struct urb bulk;
	struct urb control;

	(void)state;
	open_device();
	bulk = make_urb(USB_BULK, 0x81, &buffer, 64);
	control = make_urb(USB_CONTROL, 0x80, &buffer, 0);
	submit(&bulk);
	submit(&control);

	assert_int_equal(bed.device->ops->set_interface(bed.device, 2, 1), 0);
	assert_int_equal(usbfs.num_submitted, 2);
	assert_int_equal(bed.device->ops->set_interface(bed.device, 0, 0), 0);
	await(1);

	assert_int_equal(bulk.status, -ESHUTDOWN);
	assert_int_equal(usbfs.num_submitted, 1);
	assert_string_equal(usbfs.journal, "set 2 to 1, set 0 to 0, ");
	fake_usbfs_finish(&usbfs, 0, 0, 0);
	await(1);
	done(&bulk);
	done(&control);
	close_device();
	assert_non_null(strstr(usbfs.journal, "set 2 to 0, release 0, "));
}

static void a_setting_that_is_not_there_is_a_stall(void **state)
{
	(void)state;
	open_device();
	usbfs.set_interface_error = EINVAL;

	assert_int_equal(bed.device->ops->set_interface(bed.device, 0, 9),
			 -EPIPE);
	assert_int_equal(bed.device->ops->set_interface(bed.device, 32, 0),
			 -EPIPE);
	close_device();
}

static void a_configuration_is_set_with_nothing_claimed(void **state)
{
	(void)state;
	open_device();
	usbfs.probed = 1u << 1;

	assert_int_equal(bed.device->ops->set_configuration(bed.device, 2), 0);

	assert_int_equal(bed.device->configuration, 2);
	assert_string_equal(usbfs.journal, "release 0, release 2, configure 2, "
					   "detach 1, claim 1, ");
	usbfs.journal[0] = '\0';
	close_device();
	assert_string_equal(usbfs.journal, "release 1, configure 1, ");
}

static void the_same_configuration_again_is_set_again(void **state)
{
	(void)state;
	open_device();

	assert_int_equal(bed.device->ops->set_configuration(bed.device, 1), 0);

	assert_string_equal(usbfs.journal, "release 0, release 2, configure 1, "
					   "claim 0, claim 2, ");
	close_device();
	assert_non_null(strstr(usbfs.journal, "attach 0, "));
}

static void configuration_0_means_none(void **state)
{
	(void)state;
	open_device();

	assert_int_equal(bed.device->ops->set_configuration(bed.device, 0), 0);

	assert_int_equal(bed.device->configuration, 0);
	assert_string_equal(usbfs.journal,
			    "release 0, release 2, configure -1, ");
	close_device();
}

static void a_reset_keeps_the_claims(void **state)
{
	(void)state;
	open_device();

	assert_int_equal(bed.device->ops->reset(bed.device), 0);

	assert_string_equal(usbfs.journal, "release 0, release 2, reset, "
					   "claim 0, claim 2, ");
	assert_false(bed.device->is_gone);
	close_device();
}

static void a_device_that_a_reset_changes_is_gone(void **state)
{
	(void)state;
	open_device();
	usbfs.reset_error = ENODEV;

	assert_int_equal(bed.device->ops->reset(bed.device), -ENODEV);

	assert_true(bed.device->is_gone);
	assert_int_equal(bed.num_told_gone, 0);
	run();
	assert_int_equal(bed.num_told_gone, 1);
	close_device();
}

/* Unplugging. */

static void an_idle_device_that_is_unplugged_is_told_once(void **state)
{
	struct buffer buffer;
	struct urb urb;

	(void)state;
	open_device();
	fake_usbfs_unplug(&usbfs);

	run();

	assert_true(bed.device->is_gone);
	assert_int_equal(bed.num_told_gone, 1);
	urb = make_urb(USB_BULK, 0x81, &buffer, 64);
	assert_int_equal(bed.device->ops->submit(bed.device, &urb), -ENODEV);
	close_device();
	assert_string_equal(usbfs.journal, "");
	assert_int_equal(bed.num_told_gone, 1);
}

static void what_is_in_flight_comes_back_before_it_is_told(void **state)
{
	struct buffer buffer;
	struct urb bulk;
	struct urb control;

	(void)state;
	open_device();
	bulk = make_urb(USB_BULK, 0x81, &buffer, 64);
	control = make_urb(USB_CONTROL, 0x80, &buffer, 0);
	submit(&bulk);
	submit(&control);
	fake_usbfs_unplug(&usbfs);

	await(2);

	assert_int_equal(bulk.status, -ESHUTDOWN);
	assert_int_equal(control.status, -ESHUTDOWN);
	assert_int_equal(bed.num_told_gone, 0);
	run();
	assert_int_equal(bed.num_told_gone, 1);
	done(&bulk);
	done(&control);
	close_device();
}

/* Memory. */

static void large_buffers_are_mapped_and_used_again(void **state)
{
	uint8_t *large;
	uint8_t *small;

	(void)state;
	open_device();

	large = bed.device->ops->buffer_alloc(bed.device, 64 * KIB);
	small = bed.device->ops->buffer_alloc(bed.device, 64 * KIB - 1);
	assert_non_null(large);
	assert_non_null(small);
	assert_int_equal(usbfs.num_maps, 1);
	assert_ptr_equal(usbfs.maps[0].start, large);
	memset(small - URB_HEADROOM, 0x5a, URB_HEADROOM + 64 * KIB - 1);
	bed.device->ops->buffer_free(bed.device, small, 64 * KIB - 1);
	bed.device->ops->buffer_free(bed.device, large, 64 * KIB);
	assert_int_equal(usbfs.num_maps, 1);

	assert_ptr_equal(bed.device->ops->buffer_alloc(bed.device, 64 * KIB),
			 large);
	bed.device->ops->buffer_free(bed.device, large, 64 * KIB);
	close_device();
	assert_int_equal(usbfs.num_maps, 0);
}

static void buffers_at_rest_are_bounded(void **state)
{
	uint8_t *buffers[5];

	(void)state;
	open_device();
	for (size_t i = 0; i < 5; i++)
		buffers[i] =
			bed.device->ops->buffer_alloc(bed.device, 512 * KIB);
	assert_int_equal(usbfs.num_maps, 5);

	for (size_t i = 0; i < 5; i++)
		bed.device->ops->buffer_free(bed.device, buffers[i], 512 * KIB);

	assert_int_equal(usbfs.num_maps, 4);
	close_device();
	assert_int_equal(usbfs.num_maps, 0);
}

static void without_memory_of_usbfs_buffers_come_from_the_heap(void **state)
{
	uint8_t *buffer;

	(void)state;
	open_device();
	fake_usbfs_unplug(&usbfs);

	buffer = bed.device->ops->buffer_alloc(bed.device, 1024 * KIB);
	assert_non_null(buffer);
	memset(buffer - URB_HEADROOM, 0x5a, URB_HEADROOM + 1024 * KIB);
	bed.device->ops->buffer_free(bed.device, buffer, 1024 * KIB);
	run();
	close_device();
}

static void buffers_at_rest_make_room_for_a_transfer(void **state)
{
	struct buffer buffer;
	uint8_t *large;
	struct urb urb;

	(void)state;
	open_device();
	large = bed.device->ops->buffer_alloc(bed.device, 128 * KIB);
	bed.device->ops->buffer_free(bed.device, large, 128 * KIB);
	urb = make_urb(USB_BULK, 0x81, &buffer, 64);
	usbfs.submit_error = ENOMEM;

	submit(&urb);

	assert_int_equal(usbfs.num_maps, 0);
	fake_usbfs_finish(&usbfs, 0, 0, 64);
	await(1);
	done(&urb);
	close_device();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			open_takes_each_interface_from_its_driver, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			close_attaches_drivers_where_there_were_some, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			what_opens_a_device_is_in_the_sandbox_of_a_handshake,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			an_interface_of_another_program_is_busy_and_all_is_put_back,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_device_without_descriptors_is_refused, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_halt_is_cleared_with_the_direction, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_setting_ends_the_transfers_of_its_interface_only,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_setting_that_is_not_there_is_a_stall, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_configuration_is_set_with_nothing_claimed, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			the_same_configuration_again_is_set_again, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(configuration_0_means_none,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_reset_keeps_the_claims,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_device_that_a_reset_changes_is_gone, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			an_idle_device_that_is_unplugged_is_told_once, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			what_is_in_flight_comes_back_before_it_is_told, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			large_buffers_are_mapped_and_used_again, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(buffers_at_rest_are_bounded,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			without_memory_of_usbfs_buffers_come_from_the_heap,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			buffers_at_rest_make_room_for_a_transfer, set_up,
			tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
