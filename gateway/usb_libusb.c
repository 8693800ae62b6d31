/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device of this machine through libusb, from one usbfs descriptor that
 * somebody else opened: no discovery, no file system, no thread. Its transfers are
 * usb_usbfs.c's, on the same descriptor.
 *
 * Requests that go through the kernel (alternate settings, configuration, reset)
 * block, which holds up this device alone; usbfs ends what is in flight on
 * endpoints that they take away.
 *
 * Large buffers are usbfs's own memory, mapped, which saves the kernel's copy.
 * Mapping is dear, so a bounded number of them is kept for the next transfer.
 */
#include "gateway/usb_libusb.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define DEV_MEM_MAX_BYTES \
	(HOST_DEV_MEM_MIN_BYTES << (HOST_NUM_BUFFER_SIZES - 1))
/* At rest; usbfs has 16 MiB by default for all its users together. */
#define DEV_MEM_FREE_MAX_BYTES (2u << 20)

/* The headroom takes heap buffers off this. */
#define HEAP_ALIGNMENT ((size_t)2 * URB_HEADROOM)

/* libusb calls it unconfigured; usbfs has no other word for configuration 0. */
#define UNCONFIGURED (-1)

int host_errno(int libusb_error)
{
	static const struct {
		enum libusb_error error;
		int errno_value;
	} table[] = {
		{ LIBUSB_ERROR_IO, -EIO },
		{ LIBUSB_ERROR_INVALID_PARAM, -EINVAL },
		{ LIBUSB_ERROR_ACCESS, -EACCES },
		{ LIBUSB_ERROR_NO_DEVICE, -ENODEV },
		{ LIBUSB_ERROR_NOT_FOUND, -ENOENT },
		{ LIBUSB_ERROR_BUSY, -EBUSY },
		{ LIBUSB_ERROR_TIMEOUT, -ETIMEDOUT },
		{ LIBUSB_ERROR_OVERFLOW, -EOVERFLOW },
		{ LIBUSB_ERROR_PIPE, -EPIPE },
		{ LIBUSB_ERROR_INTERRUPTED, -EINTR },
		{ LIBUSB_ERROR_NO_MEM, -ENOMEM },
		{ LIBUSB_ERROR_NOT_SUPPORTED, -EOPNOTSUPP },
	};

	if (libusb_error >= 0)
		return 0;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].error == libusb_error)
			return table[i].errno_value;
	return -EIO;
}

/* Linux's numbers differ from libusb's: its 4 is wireless. */
static uint32_t speed_of(int libusb_speed)
{
	switch (libusb_speed) {
	case LIBUSB_SPEED_LOW:
		return USBIP_SPEED_LOW;
	case LIBUSB_SPEED_FULL:
		return USBIP_SPEED_FULL;
	case LIBUSB_SPEED_HIGH:
		return USBIP_SPEED_HIGH;
	case LIBUSB_SPEED_SUPER:
		return USBIP_SPEED_SUPER;
	case LIBUSB_SPEED_SUPER_PLUS:
		return USBIP_SPEED_SUPER_PLUS;
	default:
		return USBIP_SPEED_UNKNOWN;
	}
}

/* Events. */

void host_mark_gone(struct host_device *h)
{
	if (h->base.is_gone)
		return;
	h->base.is_gone = true;
	loop_timer_again(h->timer, 0);
	h->is_timer_set = true;
}

static void on_time(void *arg)
{
	struct host_device *h = arg;

	h->is_timer_set = false;
	host_expire(h);
	if (!h->base.is_gone || h->is_gone_told)
		return;
	h->is_gone_told = true;
	/* Last: the engine may close the device. */
	if (h->base.on_gone)
		h->base.on_gone(h->base.on_gone_arg);
}

/* Interfaces. */

static uint32_t bit_of(uint8_t interface)
{
	return (uint32_t)1 << interface;
}

/*
 * Takes one interface from its driver. A driver of several interfaces gives up
 * all of them at the first, and takes them all back when attached to that one.
 */
static int claim_one(struct host_device *h, uint8_t number,
		     uint32_t *had_driver)
{
	int r = libusb_detach_kernel_driver(h->handle, number);

	if (r == 0)
		*had_driver |= bit_of(number);
	else if (r != LIBUSB_ERROR_NOT_FOUND)
		return host_errno(r);
	r = libusb_claim_interface(h->handle, number);
	if (r < 0)
		return host_errno(r);
	h->claimed |= bit_of(number);
	return 0;
}

static void release_all(struct host_device *h)
{
	for (uint8_t i = 0; i < HOST_MAX_INTERFACES; i++)
		if (h->claimed & bit_of(i))
			(void)libusb_release_interface(h->handle, i);
	h->claimed = 0;
	for (uint8_t i = 0; i < HOST_MAX_INTERFACES; i++)
		h->alternates[i] = 0;
}

static void attach_drivers(struct host_device *h, uint32_t interfaces)
{
	for (uint8_t i = 0; i < HOST_MAX_INTERFACES; i++)
		if (interfaces & bit_of(i))
			(void)libusb_attach_kernel_driver(h->handle, i);
}

/*
 * Claims every interface of the active configuration, by number, since numbers
 * have gaps; all or nothing. *ret_had_driver: those that had a driver.
 */
static int claim_all(struct host_device *h, uint32_t *ret_had_driver)
{
	struct descriptor_interface interface;
	uint32_t had_driver = 0;
	size_t cursor = 0;
	int r = 0;

	while (r == 0 && descriptors_next_interface(&h->base.descriptors,
						    h->base.configuration,
						    &cursor, &interface)) {
		if (interface.number >= HOST_MAX_INTERFACES)
			r = -EOPNOTSUPP;
		else if (!(h->claimed & bit_of(interface.number)))
			r = claim_one(h, interface.number, &had_driver);
	}
	if (r < 0) {
		release_all(h);
		attach_drivers(h, had_driver);
		return r;
	}
	*ret_had_driver = had_driver;
	return 0;
}

/* Requests. */

/* A device answers with a stall to what it does not have. */
static int request_result(struct host_device *h, int r)
{
	if (r == LIBUSB_ERROR_NO_DEVICE)
		host_mark_gone(h);
	return r == LIBUSB_ERROR_NOT_FOUND ? -EPIPE : host_errno(r);
}

static int clear_halt(struct usb_device *d, uint8_t endpoint)
{
	struct host_device *h = host_of(d);

	return request_result(h, libusb_clear_halt(h->handle, endpoint));
}

static int set_interface(struct usb_device *d, uint8_t number,
			 uint8_t alternate)
{
	struct host_device *h = host_of(d);
	int r;

	if (number >= HOST_MAX_INTERFACES)
		return -EPIPE;
	r = libusb_set_interface_alt_setting(h->handle, number, alternate);
	if (r == 0)
		h->alternates[number] = alternate;
	return request_result(h, r);
}

static bool has_configuration(const struct host_device *h, uint8_t value)
{
	uint8_t found;

	for (unsigned i = 0;
	     descriptors_configuration(&h->base.descriptors, i, &found); i++)
		if (found == value)
			return true;
	return false;
}

static int change_configuration(struct host_device *h, uint8_t value)
{
	int number = value;

	if (value == 0 && !has_configuration(h, 0))
		number = UNCONFIGURED;
	return libusb_set_configuration(h->handle, number);
}

/*
 * usbfs wants no interface claimed meanwhile, not even by us. The same value
 * again is a request as well: it resets toggles and alternate settings. The
 * drivers that Linux puts on a new configuration are taken off again, and are not
 * what the device had.
 */
static int set_configuration(struct usb_device *d, uint8_t value)
{
	struct host_device *h = host_of(d);
	uint32_t ignored;
	int r;
	int claim;

	release_all(h);
	r = change_configuration(h, value);
	if (r == 0)
		d->configuration = value;
	claim = claim_all(h, &ignored);
	return r < 0 ? request_result(h, r) : claim;
}

static int reset(struct usb_device *d)
{
	struct host_device *h = host_of(d);
	int r;

	r = libusb_reset_device(h->handle);
	if (r == LIBUSB_ERROR_NOT_FOUND || r == LIBUSB_ERROR_NO_DEVICE) {
		host_mark_gone(h);
		return -ENODEV;
	}
	if (r < 0)
		return host_errno(r);
	for (uint8_t i = 0; i < HOST_MAX_INTERFACES; i++)
		h->alternates[i] = 0;
	h->has_done_bulk = false;
	return 0;
}

/* Memory. */

/* Mapped memory begins on a page; heap_alloc's never does. */
static bool is_dev_mem(const uint8_t *data)
{
	return ((uintptr_t)data & (HEAP_ALIGNMENT - 1)) == 0;
}

static uint8_t *heap_alloc(size_t bytes)
{
	void *memory;

	if (posix_memalign(&memory, HEAP_ALIGNMENT, URB_HEADROOM + bytes) != 0)
		return NULL;
	return (uint8_t *)memory + URB_HEADROOM;
}

static unsigned buffer_order(size_t bytes)
{
	unsigned order = 0;

	while ((size_t)HOST_DEV_MEM_MIN_BYTES << order < bytes)
		order++;
	return order;
}

static uint8_t *dev_mem_alloc(struct host_device *h, size_t bytes)
{
	unsigned order = buffer_order(bytes);
	size_t order_bytes = (size_t)HOST_DEV_MEM_MIN_BYTES << order;
	struct host_free_buffer *buffer = h->free_buffers[order];

	if (!buffer)
		return libusb_dev_mem_alloc(h->handle, order_bytes);
	h->free_buffers[order] = buffer->next;
	h->free_buffer_bytes -= order_bytes;
	return (uint8_t *)buffer;
}

/*
 * What is long enough for dev_mem is too long for a control transfer, so there
 * is no headroom in it; a page for eight bytes would double a power of two.
 */
static uint8_t *buffer_alloc(struct usb_device *d, size_t bytes)
{
	uint8_t *memory = NULL;

	if (bytes >= HOST_DEV_MEM_MIN_BYTES && bytes <= DEV_MEM_MAX_BYTES)
		memory = dev_mem_alloc(host_of(d), bytes);
	return memory ? memory : heap_alloc(bytes);
}

static void buffer_free(struct usb_device *d, uint8_t *data, size_t bytes)
{
	struct host_device *h = host_of(d);
	unsigned order = buffer_order(bytes);
	size_t order_bytes = (size_t)HOST_DEV_MEM_MIN_BYTES << order;
	struct host_free_buffer *buffer;

	if (!data)
		return;
	if (!is_dev_mem(data)) {
		free(data - URB_HEADROOM);
		return;
	}
	if (order_bytes > DEV_MEM_FREE_MAX_BYTES - h->free_buffer_bytes) {
		(void)libusb_dev_mem_free(h->handle, data, order_bytes);
		return;
	}
	buffer = (struct host_free_buffer *)data;
	buffer->next = h->free_buffers[order];
	h->free_buffers[order] = buffer;
	h->free_buffer_bytes += order_bytes;
}

bool host_drop_free_buffers(struct host_device *h)
{
	if (h->free_buffer_bytes == 0)
		return false;
	for (unsigned order = 0; order < HOST_NUM_BUFFER_SIZES; order++) {
		size_t order_bytes = (size_t)HOST_DEV_MEM_MIN_BYTES << order;

		while (h->free_buffers[order]) {
			uint8_t *data = (uint8_t *)h->free_buffers[order];

			h->free_buffers[order] = h->free_buffers[order]->next;
			(void)libusb_dev_mem_free(h->handle, data, order_bytes);
		}
	}
	h->free_buffer_bytes = 0;
	return true;
}

/* From beginning to end. */

/* Known to others who redirect USB: they do not work after one. */
static bool is_spoiled_by_reset(const struct host_device *h)
{
	static const struct {
		uint16_t vendor;
		uint16_t product;
	} devices[] = {
		{ 0x1210, 0x001c },
		{ 0x2798, 0x0001 },
	};
	const struct descriptors *d = &h->base.descriptors;

	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
		if (d->vendor == devices[i].vendor &&
		    d->product == devices[i].product)
			return true;
	return false;
}

/*
 * A protocol over bulk endpoints may have been left in the middle of a command,
 * by a link that died or a guest that was in a hurry; the next driver would get
 * the rest. A guest cannot mend it: vhci_hcd does not pass its resets on.
 */
static void reset_protocol(struct host_device *h)
{
	if (h->has_done_bulk && !is_spoiled_by_reset(h))
		(void)libusb_reset_device(h->handle);
}

/*
 * As it was found. Where the configuration is another one by now, Linux puts the
 * drivers on the first one itself.
 */
static void put_back(struct host_device *h)
{
	for (uint8_t i = 0; i < HOST_MAX_INTERFACES; i++)
		if (h->alternates[i] != 0)
			(void)libusb_set_interface_alt_setting(h->handle, i, 0);
	release_all(h);
	reset_protocol(h);
	if (h->base.configuration != h->first_configuration)
		(void)change_configuration(h, h->first_configuration);
	else
		attach_drivers(h, h->had_driver);
}

/* Also of what open left half-built. */
static void close_device(struct usb_device *d)
{
	struct host_device *h = host_of(d);

	assert(!h->in_flight);
	loop_watch_stop(h->watch);
	if (h->handle) {
		if (!d->is_gone)
			put_back(h);
		(void)host_drop_free_buffers(h);
		libusb_close(h->handle);
	}
	if (h->context)
		libusb_exit(h->context);
	loop_timer_stop(h->timer);
	(void)close(h->fd);
	free(h->descriptor_bytes);
	free(h);
}

static const struct usb_device_ops host_ops = {
	.name = "libusb",
	.submit = host_submit,
	.cancel = host_cancel,
	.clear_halt = clear_halt,
	.set_interface = set_interface,
	.set_configuration = set_configuration,
	.reset = reset,
	.buffer_alloc = buffer_alloc,
	.buffer_free = buffer_free,
	.urb_done = host_urb_done,
	.close = close_device,
};

/* usbfs gives the device descriptor, then the configurations. */
static int read_descriptors(struct host_device *h)
{
	size_t num_bytes = 0;
	ssize_t n;

	h->descriptor_bytes = malloc(DESCRIPTORS_MAX_BYTES);
	if (!h->descriptor_bytes)
		return -ENOMEM;
	do {
		n = pread(h->fd, h->descriptor_bytes + num_bytes,
			  DESCRIPTORS_MAX_BYTES - num_bytes, (off_t)num_bytes);
		if (n < 0)
			return -errno;
		num_bytes += (size_t)n;
	} while (n > 0 && num_bytes < DESCRIPTORS_MAX_BYTES);
	return descriptors_parse(&h->base.descriptors, h->descriptor_bytes,
				 num_bytes);
}

static int wrap_descriptor(struct host_device *h)
{
	int configuration = 0;
	int r = libusb_set_option(NULL, LIBUSB_OPTION_NO_DEVICE_DISCOVERY);

	if (r == 0)
		r = libusb_init(&h->context);
	if (r == 0)
		r = libusb_wrap_sys_device(h->context, h->fd, &h->handle);
	if (r == 0)
		r = libusb_get_configuration(h->handle, &configuration);
	if (r < 0)
		return host_errno(r);
	h->base.configuration = (uint8_t)configuration;
	h->first_configuration = (uint8_t)configuration;
	h->base.speed =
		speed_of(libusb_get_device_speed(libusb_get_device(h->handle)));
	return 0;
}

int usb_libusb_open(struct loop *loop, int fd, struct usb_device **ret_device)
{
	struct host_device *h = calloc(1, sizeof(*h));
	int r;

	if (!h) {
		(void)close(fd);
		return -ENOMEM;
	}
	h->base.ops = &host_ops;
	h->loop = loop;
	h->fd = fd;
	r = loop_timer_start(loop, 0, 0, on_time, h, &h->timer);
	if (r == 0)
		r = read_descriptors(h);
	if (r == 0)
		r = wrap_descriptor(h);
	if (r == 0)
		r = claim_all(h, &h->had_driver);
	if (r == 0)
		r = host_watch(h);
	if (r < 0) {
		close_device(&h->base);
		return r;
	}
	*ret_device = &h->base;
	return 0;
}
