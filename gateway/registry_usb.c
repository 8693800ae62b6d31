/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/registry_usb.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/hash.h"

/* Reads from the beginning to the end: the length, or -errno. */
static ssize_t read_whole(int fd, void *to, size_t cap)
{
	size_t len = 0;
	ssize_t n;

	do {
		n = pread(fd, (char *)to + len, cap - len, (off_t)len);
		if (n > 0)
			len += (size_t)n;
	} while (n > 0 && len < cap);
	return n < 0 ? -errno : (ssize_t)len;
}

static ssize_t read_at(int dir_fd, const char *name, void *to, size_t cap)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read_whole(fd, to, cap);
	(void)close(fd);
	return n;
}

/* A text attribute without its newline; empty if there is none. */
static void read_text(int dir_fd, const char *name, char *to, size_t cap)
{
	ssize_t n = read_at(dir_fd, name, to, cap - 1);

	to[n > 0 ? n : 0] = '\0';
	to[strcspn(to, "\n")] = '\0';
}

static unsigned read_number(int dir_fd, const char *name)
{
	char text[32];

	read_text(dir_fd, name, text, sizeof(text));
	return (unsigned)strtoul(text, NULL, 10);
}

/* sysfs has megabits per second. */
static uint32_t read_speed(int dir_fd)
{
	char text[32];

	read_text(dir_fd, "speed", text, sizeof(text));
	if (strcmp(text, "1.5") == 0)
		return USBIP_SPEED_LOW;
	if (strcmp(text, "12") == 0)
		return USBIP_SPEED_FULL;
	if (strcmp(text, "480") == 0)
		return USBIP_SPEED_HIGH;
	if (strcmp(text, "5000") == 0)
		return USBIP_SPEED_SUPER;
	if (strcmp(text, "10000") == 0 || strcmp(text, "20000") == 0)
		return USBIP_SPEED_SUPER_PLUS;
	return USBIP_SPEED_UNKNOWN;
}

void registry_describe(struct usbip_device *device,
		       struct usbip_interface interfaces[USBIP_MAX_INTERFACES],
		       const struct descriptors *d)
{
	struct descriptor_interface i;
	size_t cursor = 0;

	device->vendor = d->vendor;
	device->product = d->product;
	device->release = d->release;
	device->class = d->class;
	device->subclass = d->subclass;
	device->protocol = d->protocol;
	device->num_configurations = d->num_configurations;
	device->num_interfaces = 0;
	while (device->num_interfaces < USBIP_MAX_INTERFACES &&
	       descriptors_next_interface(d, device->configuration, &cursor,
					  &i)) {
		if (i.alternate != 0)
			continue;
		interfaces[device->num_interfaces++] =
			(struct usbip_interface){ .class = i.class,
						  .subclass = i.subclass,
						  .protocol = i.protocol };
	}
}

int registry_judge_by(struct policy_device *policy, const struct descriptors *d)
{
	policy_describe(policy, d);
	return hash_sha256(d->bytes, d->num_bytes, policy->hash);
}

int registry_read_descriptors(struct registry_usb *usb, int fd)
{
	/* usbfs leaves out, unwritten, what a wTotalLength is too long by. */
	uint8_t *bytes = calloc(1, DESCRIPTORS_MAX_BYTES);
	struct descriptors d;
	ssize_t n;
	int r;

	if (!bytes)
		return -ENOMEM;
	n = read_whole(fd, bytes, DESCRIPTORS_MAX_BYTES);
	r = n < 0 ? (int)n : descriptors_parse(&d, bytes, (size_t)n);
	if (r == 0) {
		registry_describe(&usb->device, usb->interfaces, &d);
		r = registry_judge_by(&usb->policy, &d);
	}
	free(bytes);
	return r;
}

int registry_read_usb(const char *syspath, const char *busid,
		      struct registry_usb *ret_usb)
{
	int dir_fd = open(syspath, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct registry_usb usb = { 0 };
	int fd;
	int r;

	if (dir_fd < 0)
		return -errno;
	(void)snprintf(usb.device.path, sizeof(usb.device.path), "%s", syspath);
	(void)snprintf(usb.device.busid, sizeof(usb.device.busid), "%s", busid);
	usb.device.busnum = read_number(dir_fd, "busnum");
	usb.device.devnum = read_number(dir_fd, "devnum");
	usb.device.speed = read_speed(dir_fd);
	usb.device.configuration =
		(uint8_t)read_number(dir_fd, "bConfigurationValue");
	memcpy(usb.policy.busid, usb.device.busid, sizeof(usb.policy.busid));
	read_text(dir_fd, "serial", usb.policy.serial,
		  sizeof(usb.policy.serial));
	usb.policy.is_imported = strstr(syspath, "/vhci_hcd") != NULL;
	fd = openat(dir_fd, "descriptors", O_RDONLY | O_CLOEXEC);
	r = fd < 0 ? -errno : registry_read_descriptors(&usb, fd);
	if (fd >= 0)
		(void)close(fd);
	(void)close(dir_fd);
	if (r == 0)
		*ret_usb = usb;
	return r;
}
