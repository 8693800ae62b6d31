/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fake_usbfs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/usb/ch9.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIPE_BYTES 4096

static int fail(int error)
{
	errno = error;
	return -1;
}

static void __attribute__((format(printf, 2, 3)))
note(struct fake_usbfs *f, const char *fmt, ...)
{
	size_t used = strlen(f->journal);
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(f->journal + used, sizeof(f->journal) - used, fmt,
			args);
	va_end(args);
}

/* A full pipe is not ready; the one page that it has is one write. */
static void set_ready(struct fake_usbfs *f, bool is_ready)
{
	static const char filler[PIPE_BYTES];
	char dropped[PIPE_BYTES];
	ssize_t n;

	if (f->is_gone)
		return;
	if (is_ready)
		n = read(f->reader, dropped, sizeof(dropped));
	else
		n = write(f->fd, filler, sizeof(filler));
	assert(n > 0 || errno == EAGAIN);
}

int fake_usbfs_init(struct fake_usbfs *f, const uint8_t *descriptors,
		    size_t num_bytes)
{
	int fds[2];

	memset(f, 0, sizeof(*f));
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	f->reader = fds[0];
	f->fd = fds[1];
	(void)fcntl(f->fd, F_SETPIPE_SZ, PIPE_BYTES);
	f->descriptors = descriptors;
	f->num_descriptor_bytes = num_bytes;
	set_ready(f, false);
	return 0;
}

void fake_usbfs_done(struct fake_usbfs *f)
{
	if (!f->is_gone)
		(void)close(f->reader);
}

ssize_t fake_usbfs_read(struct fake_usbfs *f, void *to, size_t bytes,
			off_t *offset)
{
	size_t rest = f->num_descriptor_bytes - (size_t)*offset;

	if (f->is_gone)
		return fail(ENODEV);
	if (bytes > rest)
		bytes = rest;
	memcpy(to, f->descriptors + *offset, bytes);
	*offset += (off_t)bytes;
	return (ssize_t)bytes;
}

void *fake_usbfs_map(struct fake_usbfs *f, size_t bytes)
{
	void *start;

	if (f->is_gone || f->num_maps == FAKE_USBFS_MAX_MAPS) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	start = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	f->maps[f->num_maps++] = (struct fake_usbfs_map){ start, bytes };
	return start;
}

bool fake_usbfs_unmap(struct fake_usbfs *f, void *start)
{
	for (size_t i = 0; i < f->num_maps; i++) {
		if (f->maps[i].start != start)
			continue;
		f->maps[i] = f->maps[--f->num_maps];
		return true;
	}
	return false;
}

/* URBs. */

static void take_out(struct usbdevfs_urb **urbs, size_t *num, size_t index)
{
	(*num)--;
	for (size_t i = index; i < *num; i++)
		urbs[i] = urbs[i + 1];
}

void fake_usbfs_finish(struct fake_usbfs *f, size_t index, int status,
		       size_t actual_length)
{
	struct usbdevfs_urb *urb = f->submitted[index];

	assert(index < f->num_submitted);
	urb->status = status;
	urb->actual_length = (int)actual_length;
	take_out(f->submitted, &f->num_submitted, index);
	f->done[f->num_done++] = urb;
	if (!f->is_quiet)
		set_ready(f, true);
}

static int submit(struct fake_usbfs *f, struct usbdevfs_urb *urb)
{
	int error = f->submit_error;

	if (error != 0 && f->submit_error_after == 0) {
		f->submit_error = 0;
		return fail(error);
	}
	if (error != 0)
		f->submit_error_after--;
	assert(f->num_submitted < FAKE_USBFS_MAX_URBS);
	f->submitted[f->num_submitted++] = urb;
	return 0;
}

static int discard(struct fake_usbfs *f, const struct usbdevfs_urb *urb)
{
	for (size_t i = 0; i < f->num_submitted; i++) {
		if (f->submitted[i] != urb)
			continue;
		fake_usbfs_finish(f, i, -ENOENT, 0);
		return 0;
	}
	return fail(EINVAL);
}

static int reap(struct fake_usbfs *f, struct usbdevfs_urb **ret_urb)
{
	f->num_reaps++;
	if (f->num_done == 0)
		return fail(f->is_gone ? ENODEV : EAGAIN);
	*ret_urb = f->done[0];
	take_out(f->done, &f->num_done, 0);
	if (f->num_done == 0)
		set_ready(f, false);
	return 0;
}

void fake_usbfs_unplug(struct fake_usbfs *f)
{
	while (f->num_submitted > 0)
		fake_usbfs_finish(f, 0, -ESHUTDOWN, 0);
	f->is_gone = true;
	(void)close(f->reader);
}

/* Interfaces. */

/* What has that endpoint in any setting of any configuration; -1: none. */
static int interface_of(const struct fake_usbfs *f, uint8_t endpoint)
{
	int interface = -1;

	for (size_t i = 0; i < f->num_descriptor_bytes;
	     i += f->descriptors[i]) {
		if (f->descriptors[i + 1] == USB_DT_INTERFACE)
			interface = f->descriptors[i + 2];
		if (f->descriptors[i + 1] == USB_DT_ENDPOINT &&
		    f->descriptors[i + 2] == endpoint)
			return interface;
	}
	return -1;
}

/* As usbfs does when an interface gets another setting or is released. */
static void end_those_of(struct fake_usbfs *f, unsigned interface)
{
	for (size_t i = f->num_submitted; i > 0; i--)
		if (interface_of(f, f->submitted[i - 1]->endpoint) ==
		    (int)interface)
			fake_usbfs_finish(f, i - 1, -ENOENT, 0);
}

static uint32_t bit_of(unsigned interface)
{
	return (uint32_t)1 << interface;
}

static int get_driver(struct fake_usbfs *f, struct usbdevfs_getdriver *driver)
{
	const char *name = "usb-thing";

	if (f->others & bit_of(driver->interface))
		name = "usbfs";
	else if (!(f->drivers & bit_of(driver->interface)))
		return fail(ENODATA);
	(void)snprintf(driver->driver, sizeof(driver->driver), "%s", name);
	return 0;
}

static int drive(struct fake_usbfs *f, const struct usbdevfs_ioctl *command)
{
	uint32_t bit = bit_of((unsigned)command->ifno);

	switch ((unsigned)command->ioctl_code) {
	case USBDEVFS_DISCONNECT:
		if (!(f->drivers & bit))
			return fail(ENODATA);
		f->drivers &= ~bit;
		note(f, "detach %d, ", command->ifno);
		return 0;
	case USBDEVFS_CONNECT:
		f->drivers |= bit;
		note(f, "attach %d, ", command->ifno);
		return 1;
	default:
		return fail(ENOTTY);
	}
}

static int claim(struct fake_usbfs *f, unsigned interface)
{
	if ((f->others | f->drivers) & bit_of(interface))
		return fail(EBUSY);
	note(f, "claim %u, ", interface);
	return 0;
}

static int set_interface(struct fake_usbfs *f,
			 const struct usbdevfs_setinterface *setting)
{
	if (f->set_interface_error)
		return fail(f->set_interface_error);
	end_those_of(f, setting->interface);
	note(f, "set %u to %u, ", setting->interface, setting->altsetting);
	return 0;
}

/* The one request that libusb sends by itself: GET_CONFIGURATION. */
static int control(struct fake_usbfs *f, struct usbdevfs_ctrltransfer *request)
{
	if (request->bRequest != 8 || request->wLength != 1)
		return fail(EPIPE);
	*(uint8_t *)request->data = f->configuration;
	return 1;
}

static int reset(struct fake_usbfs *f)
{
	note(f, "reset, ");
	return f->reset_error ? fail(f->reset_error) : 0;
}

/* Requests whose argument is a number. */
static int ioctl_number(struct fake_usbfs *f, unsigned long request, int number)
{
	switch (request) {
	case USBDEVFS_CLAIMINTERFACE:
		return claim(f, (unsigned)number);
	case USBDEVFS_RELEASEINTERFACE:
		end_those_of(f, (unsigned)number);
		note(f, "release %d, ", number);
		return 0;
	case USBDEVFS_SETCONFIGURATION:
		note(f, "configure %d, ", number);
		f->configuration = number < 0 ? 0 : (uint8_t)number;
		f->drivers |= f->probed;
		return 0;
	case USBDEVFS_CLEAR_HALT:
		note(f, "clear %02x, ", (unsigned)number);
		return 0;
	default:
		return fail(ENOTTY);
	}
}

int fake_usbfs_ioctl(struct fake_usbfs *f, unsigned long request, void *arg)
{
	if (request == USBDEVFS_REAPURBNDELAY)
		return reap(f, arg);
	if (f->is_gone)
		return fail(ENODEV);
	switch (request) {
	case USBDEVFS_CONNECTINFO:
		*(struct usbdevfs_connectinfo *)arg =
			(struct usbdevfs_connectinfo){ .devnum = 7 };
		return 0;
	case USBDEVFS_GET_CAPABILITIES:
		*(uint32_t *)arg = USBDEVFS_CAP_ZERO_PACKET |
				   USBDEVFS_CAP_REAP_AFTER_DISCONNECT |
				   USBDEVFS_CAP_MMAP;
		if (!f->cannot_gather)
			*(uint32_t *)arg |= USBDEVFS_CAP_BULK_SCATTER_GATHER;
		return 0;
	case USBDEVFS_GET_SPEED:
		return f->speed;
	case USBDEVFS_SUBMITURB:
		return submit(f, arg);
	case USBDEVFS_DISCARDURB:
		return discard(f, arg);
	case USBDEVFS_GETDRIVER:
		return get_driver(f, arg);
	case USBDEVFS_IOCTL:
		return drive(f, arg);
	case USBDEVFS_SETINTERFACE:
		return set_interface(f, arg);
	case USBDEVFS_CONTROL:
		return control(f, arg);
	case USBDEVFS_RESET:
		return reset(f);
	default:
		return ioctl_number(f, request, *(int *)arg);
	}
}
