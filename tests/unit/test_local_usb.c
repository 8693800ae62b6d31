/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of this kernel, from a folder that looks like sysfs's. */
#include "frontend/local_usb.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/sysfs.h"

static const char pattern[] = "/tmp/test_local_usb.XXXXXX";
static char root[sizeof(pattern)];
static char dir[64];

static int make_root(void **state)
{
	(void)state;
	memcpy(root, pattern, sizeof(pattern));
	if (!mkdtemp(root))
		return -1;
	(void)snprintf(dir, sizeof(dir), "%s/devices", root);
	return mkdir(dir, 0700);
}

static int remove_root(void **state)
{
	char command[96];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf %s", root);
	/* The folder is ours and has no name but mkdtemp's. */
	return system(command); /* NOLINT(cert-env33-c) */
}

static void put(const char *folder, const char *name, const char *value)
{
	char path[192];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	(void)fprintf(file, "%s\n", value);
	assert_int_equal(fclose(file), 0);
}

/* A device below root/controller, and its link among the devices. */
static void add(const char *controller, const char *busid, const char *class)
{
	char folder[128];
	char link[128];

	(void)snprintf(folder, sizeof(folder), "%s/%s", root, controller);
	(void)mkdir(folder, 0700);
	(void)snprintf(folder, sizeof(folder), "%s/%s/%s", root, controller,
		       busid);
	assert_int_equal(mkdir(folder, 0700), 0);
	put(folder, "idVendor", "46f4");
	put(folder, "idProduct", "0001");
	put(folder, "bcdDevice", "0100");
	put(folder, "busnum", "2");
	put(folder, "devnum", "10");
	put(folder, "speed", "5000");
	put(folder, "bDeviceClass", class);
	put(folder, "bDeviceSubClass", "02");
	put(folder, "bDeviceProtocol", "0a");
	put(folder, "bConfigurationValue", "1");
	put(folder, "bNumConfigurations", "1");
	put(folder, "bNumInterfaces", " 3");
	(void)snprintf(link, sizeof(link), "%s/%s", dir, busid);
	assert_int_equal(symlink(folder, link), 0);
}

static void a_device_is_read_with_all_its_numbers(void **state)
{
	struct usbip_device device;

	(void)state;
	add("pci", "2-1.4", "ff");
	assert_int_equal(local_usb_read(dir, "2-1.4", &device), 0);

	assert_string_equal(device.busid, "2-1.4");
	assert_non_null(strstr(device.path, "/pci/2-1.4"));
	assert_int_equal(device.vendor, 0x46f4);
	assert_int_equal(device.product, 1);
	assert_int_equal(device.release, 0x100);
	assert_int_equal(device.busnum, 2);
	assert_int_equal(device.devnum, 10);
	assert_int_equal(device.speed, USBIP_SPEED_SUPER);
	assert_int_equal(device.class, 0xff);
	assert_int_equal(device.subclass, 2);
	assert_int_equal(device.protocol, 10);
	assert_int_equal(device.configuration, 1);
	assert_int_equal(device.num_interfaces, 3);
}

static void a_device_that_is_not_there_is_told(void **state)
{
	struct usbip_device device;

	(void)state;
	assert_int_equal(local_usb_read(dir, "1-1", &device), -ENOENT);
	assert_false(local_usb_is_ready(dir, "1-1"));
}

static void speeds_are_numbers_of_the_wire(void **state)
{
	static const struct {
		const char *text;
		uint32_t speed;
	} rows[] = {
		{ "1.5", USBIP_SPEED_LOW },
		{ "12", USBIP_SPEED_FULL },
		{ "480", USBIP_SPEED_HIGH },
		{ "5000", USBIP_SPEED_SUPER },
		{ "10000", USBIP_SPEED_SUPER_PLUS },
		{ "20000", USBIP_SPEED_SUPER_PLUS },
		{ "unknown", USBIP_SPEED_UNKNOWN },
	};
	char folder[128];

	(void)state;
	add("pci", "1-1", "00");
	(void)snprintf(folder, sizeof(folder), "%s/1-1", dir);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct usbip_device device;

		put(folder, "speed", rows[i].text);
		assert_int_equal(local_usb_read(dir, "1-1", &device), 0);
		assert_int_equal(device.speed, rows[i].speed);
	}
}

static void a_device_is_ready_when_it_is_configured_or_forbidden(void **state)
{
	char folder[128];

	(void)state;
	add("pci", "1-1", "00");
	(void)snprintf(folder, sizeof(folder), "%s/1-1", dir);

	assert_true(local_usb_is_ready(dir, "1-1"));
	put(folder, "bConfigurationValue", "");
	assert_false(local_usb_is_ready(dir, "1-1"));
	put(folder, "authorized", "1");
	assert_false(local_usb_is_ready(dir, "1-1"));
	put(folder, "authorized", "0");
	assert_true(local_usb_is_ready(dir, "1-1"));
}

static void a_device_is_taken_from_its_drivers(void **state)
{
	char folder[128];
	char text[4] = "";

	(void)state;
	assert_int_equal(local_usb_remove(dir, "1-1", 1000), 0);
	add("pci", "1-1", "00");
	(void)snprintf(folder, sizeof(folder), "%s/1-1", dir);
	put(folder, "remove", "");
	/* Here it does not go. */
	assert_int_equal(local_usb_remove(dir, "1-1", 20), -ETIMEDOUT);
	assert_int_equal(sysfs_read(folder, "remove", text, sizeof(text)), 1);
	assert_string_equal(text, "1");
}

static void a_list_has_neither_hubs_nor_what_was_attached(void **state)
{
	struct usbip_device *devices;
	size_t count;
	char folder[128];

	(void)state;
	add("pci", "1-10", "00");
	add("pci", "1-2", "ef");
	add("pci", "1-3", "09");
	add("vhci_hcd.0", "3-1", "00");
	(void)snprintf(folder, sizeof(folder), "%s/1-2:1.0", dir);
	assert_int_equal(mkdir(folder, 0700), 0);

	assert_int_equal(local_usb_list(dir, &devices, &count), 0);

	assert_int_equal(count, 2);
	assert_string_equal(devices[0].busid, "1-2");
	assert_string_equal(devices[1].busid, "1-10");
	free(devices);
}

static void without_usb_the_list_is_empty(void **state)
{
	struct usbip_device *devices;
	size_t count;

	(void)state;
	assert_int_equal(local_usb_list("/nonexistent", &devices, &count), 0);
	assert_int_equal(count, 0);
	assert_null(devices);
}

#define in_root(test) \
	cmocka_unit_test_setup_teardown(test, make_root, remove_root)

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_root(a_device_is_read_with_all_its_numbers),
		in_root(a_device_that_is_not_there_is_told),
		in_root(speeds_are_numbers_of_the_wire),
		in_root(a_device_is_ready_when_it_is_configured_or_forbidden),
		in_root(a_device_is_taken_from_its_drivers),
		in_root(a_list_has_neither_hubs_nor_what_was_attached),
		in_root(without_usb_the_list_is_empty),
	};

	return cmocka_run_group_tests_name("local_usb", tests, NULL, NULL);
}
