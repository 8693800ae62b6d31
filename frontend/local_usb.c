/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/local_usb.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/sysfs.h"
#include "vchan-transport/channel.h"

#define CLASS_HUB 0x09
#define CHECK_MS  10

/* Mbit/s as the attribute "speed" has it; a fraction is dropped. */
static uint32_t speed_of(uint32_t mbps)
{
	switch (mbps) {
	case 1:
		return USBIP_SPEED_LOW;
	case 12:
		return USBIP_SPEED_FULL;
	case 480:
		return USBIP_SPEED_HIGH;
	case 5000:
		return USBIP_SPEED_SUPER;
	case 10000:
	case 20000:
		return USBIP_SPEED_SUPER_PLUS;
	default:
		return USBIP_SPEED_UNKNOWN;
	}
}

static uint32_t number(const char *dir, const char *name, int base)
{
	uint32_t value = 0;

	(void)sysfs_read_number(dir, name, base, &value);
	return value;
}

int local_usb_read(const char *dir, const char *busid,
		   struct usbip_device *ret_device)
{
	struct usbip_device device = { 0 };
	char folder[SYSFS_PATH_BYTES];
	char real[PATH_MAX];
	uint32_t vendor;

	(void)snprintf(folder, sizeof(folder), "%s/%s", dir, busid);
	if (!sysfs_read_number(folder, "idVendor", 16, &vendor))
		return -ENOENT;
	if (!realpath(folder, real))
		return -ENOENT;
	(void)snprintf(device.path, sizeof(device.path), "%.*s",
		       (int)sizeof(device.path) - 1, real);
	(void)snprintf(device.busid, sizeof(device.busid), "%s", busid);
	device.vendor = (uint16_t)vendor;
	device.product = (uint16_t)number(folder, "idProduct", 16);
	device.release = (uint16_t)number(folder, "bcdDevice", 16);
	device.busnum = number(folder, "busnum", 10);
	device.devnum = number(folder, "devnum", 10);
	device.speed = speed_of(number(folder, "speed", 10));
	device.class = (uint8_t)number(folder, "bDeviceClass", 16);
	device.subclass = (uint8_t)number(folder, "bDeviceSubClass", 16);
	device.protocol = (uint8_t)number(folder, "bDeviceProtocol", 16);
	device.configuration =
		(uint8_t)number(folder, "bConfigurationValue", 10);
	device.num_configurations =
		(uint8_t)number(folder, "bNumConfigurations", 10);
	device.num_interfaces = (uint8_t)number(folder, "bNumInterfaces", 10);
	*ret_device = device;
	return 0;
}

bool local_usb_is_ready(const char *dir, const char *busid)
{
	char folder[SYSFS_PATH_BYTES];
	uint32_t value;

	(void)snprintf(folder, sizeof(folder), "%s/%s", dir, busid);
	if (sysfs_read_number(folder, "bConfigurationValue", 10, &value))
		return value != 0;
	return sysfs_read_number(folder, "authorized", 10, &value) &&
	       value == 0;
}

int local_usb_remove(const char *dir, const char *busid, unsigned limit_ms)
{
	const uint64_t deadline_ms = clock_ms() + limit_ms;
	char folder[SYSFS_PATH_BYTES];
	int r;

	(void)snprintf(folder, sizeof(folder), "%s/%s", dir, busid);
	r = sysfs_write(folder, "remove", "1");
	while (r == 0 && access(folder, F_OK) == 0) {
		if (clock_ms() >= deadline_ms)
			return -ETIMEDOUT;
		(void)poll(NULL, 0, CHECK_MS);
	}
	return r == -ENOENT ? 0 : r;
}

static int by_busid(const void *a, const void *b)
{
	const struct usbip_device *x = a;
	const struct usbip_device *y = b;

	return strverscmp(x->busid, y->busid);
}

/* Reads one entry of the folder behind the others, if it is to be listed. */
static int add(const char *dir, const char *name, struct usbip_device **devices,
	       size_t *count)
{
	struct usbip_device device;
	struct usbip_device *grown;

	if (name[0] == '.' || strchr(name, ':') ||
	    local_usb_read(dir, name, &device) < 0)
		return 0;
	if (device.class == CLASS_HUB || strstr(device.path, "vhci_hcd"))
		return 0;
	grown = realloc(*devices, (*count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	grown[(*count)++] = device;
	*devices = grown;
	return 0;
}

int local_usb_list(const char *dir, struct usbip_device **ret_devices,
		   size_t *ret_count)
{
	struct usbip_device *devices = NULL;
	struct dirent *entry;
	size_t count = 0;
	int r = 0;
	DIR *folder = opendir(dir);

	if (!folder && errno != ENOENT)
		return -errno;
	while (folder && r == 0 && (entry = readdir(folder)))
		r = add(dir, entry->d_name, &devices, &count);
	if (folder)
		(void)closedir(folder);
	if (r < 0) {
		free(devices);
		return r;
	}
	if (count > 0)
		qsort(devices, count, sizeof(*devices), by_busid);
	*ret_devices = devices;
	*ret_count = count;
	return 0;
}
