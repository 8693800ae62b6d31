/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gadget Zero's twin: what the kernel's usbtest and other tests of a USB path
 * talk to, without hardware.
 *
 * Configuration 3, the first, is a source and sink: each IN endpoint gives zeros
 * without end, each OUT endpoint takes zeros and halts at anything else. Setting
 * 0 has bulk endpoints, setting 1 isochronous and interrupt ones as well.
 * Configuration 2 is a loopback: bulk IN gives back what bulk OUT brought, byte
 * for byte, through a buffer; when that is full, OUT waits. Two vendor requests
 * write a buffer and read it back.
 *
 * Nothing is moved inside submit. A timer serves every endpoint that has URBs
 * and whose time has come: periodic ones move one packet a millisecond, and one
 * that was late moves what it missed; bulk ones are served in the loop's next
 * turn but pause for a millisecond after each burst, as hardware does when it
 * sends NAK, so that unlinks meet URBs that wait.
 */
#include "gateway/usb_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/usb_virtual.h"
#include "vchan-transport/loop.h"

#define BULK_IN        0x81
#define BULK_OUT       0x01
#define ISO_IN         0x82
#define ISO_OUT        0x02
#define INTR_IN        0x83
#define INTR_OUT       0x03

#define SOURCE_SINK    3 /* bConfigurationValue */
#define LOOPBACK       2

#define PACKET_MS      1 /* bInterval 4 */
#define BURST_URBS     32
#define LOOPBACK_BYTES 65536
#define CONTROL_BYTES  4096

/* Vendor requests of Intel's USB 2.0 compliance device. */
#define VENDOR_OUT    0x40
#define VENDOR_IN     0xc0
#define REQUEST_WRITE 0x5b
#define REQUEST_READ  0x5c

#define NEVER         UINT64_MAX

struct usb_zero {
	struct usb_virtual virtual; /* first */
	struct loop *loop;
	struct loop_timer *timer;
	uint64_t timer_ms; /* when it will fire; NEVER if it is not set */
	unsigned num_burst;
	uint8_t control[CONTROL_BYTES];
	/* The loopback's bytes: `used` of them from `start`, around the end. */
	size_t start;
	size_t used;
	uint8_t loopback[LOOPBACK_BYTES];
};

#define LE16(value)                 (value) & 0xff, (value) >> 8

#define CONFIGURATION(total, value) 9, 2, LE16(total), 1, (value), 0, 0x80, 50
#define INTERFACE(alternate, num_endpoints) \
	9, 4, 0, (alternate), (num_endpoints), 0xff, 0, 0, 0
#define BULK(address) 7, 5, (address), 2, LE16(512), 0
#define ISO(address)  7, 5, (address), 1, LE16(1024), 4
#define INTR(address) 7, 5, (address), 3, LE16(1024), 4

/* clang-format off */
static const uint8_t zero_descriptors[] = {
	18, 1, LE16(0x0200), 0xff, 0, 0, 64,
	LE16(0x0525), LE16(0xa4a0), LE16(0x0100), 1, 2, 3, 2,
	CONFIGURATION(9 + 2 * 9 + 8 * 7, SOURCE_SINK),
	INTERFACE(0, 2), BULK(BULK_IN), BULK(BULK_OUT),
	INTERFACE(1, 6), BULK(BULK_IN), BULK(BULK_OUT),
	ISO(ISO_IN), ISO(ISO_OUT), INTR(INTR_IN), INTR(INTR_OUT),
	CONFIGURATION(9 + 9 + 2 * 7, LOOPBACK),
	INTERFACE(0, 2), BULK(BULK_IN), BULK(BULK_OUT),
};

/* No configuration for another speed. */
static const uint8_t zero_qualifier[] = {
	10, 6, LE16(0x0200), 0xff, 0, 0, 64, 0, 0,
};
/* clang-format on */

static struct usb_zero *zero_of(struct usb_virtual *v)
{
	return (struct usb_zero *)v;
}

/* ---- source and sink ---------------------------------------------------- */

static bool is_zeros(const uint8_t *bytes, size_t num_bytes)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, num_bytes - 1) == 0;
}

/* Fills or checks a part of the head's data; without any, it has no memory. */
static bool move_zeros(const struct urb *urb, size_t offset, size_t num_bytes)
{
	if (num_bytes == 0)
		return true;
	if (!urb_is_device_to_host(urb))
		return is_zeros(urb->data + offset, num_bytes);
	memset(urb->data + offset, 0, num_bytes);
	return true;
}

static void move_iso_packet(struct usb_virtual_endpoint *e)
{
	struct urb *urb = e->head;

	if (e->progress < urb->num_packets) {
		struct usbip_iso_packet *p = &urb->packets[e->progress++];

		p->actual_length = p->length < e->max_packet ? p->length
							     : e->max_packet;
		p->status = 0;
		urb->actual_length += p->actual_length;
		/* An isochronous endpoint cannot halt at wrong data. */
		(void)move_zeros(urb, p->offset, p->actual_length);
	}
	if (e->progress == urb->num_packets)
		usb_virtual_finish(e, 0, urb->actual_length);
}

/* Moves the head's next bytes and finishes it when that was all. */
static void move_bytes(struct usb_virtual_endpoint *e, size_t limit)
{
	struct urb *urb = e->head;
	size_t n = urb->length - e->progress;
	bool is_good;

	if (n > limit)
		n = limit;
	is_good = move_zeros(urb, e->progress, n);
	e->progress += n;
	urb->actual_length = e->progress;
	if (!is_good || e->progress == urb->length)
		usb_virtual_finish(e, 0, urb->actual_length);
	if (!is_good)
		usb_virtual_halt(e);
}

/* ---- loopback ----------------------------------------------------------- */

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Into the buffer, around its end; there is room. */
static void put_loopback(struct usb_zero *z, const uint8_t *from, size_t n)
{
	size_t end = (z->start + z->used) % LOOPBACK_BYTES;
	size_t first = smaller(n, LOOPBACK_BYTES - end);

	memcpy(z->loopback + end, from, first);
	memcpy(z->loopback, from + first, n - first);
	z->used += n;
}

static void get_loopback(struct usb_zero *z, uint8_t *to, size_t n)
{
	size_t first = smaller(n, LOOPBACK_BYTES - z->start);

	memcpy(to, z->loopback + z->start, first);
	memcpy(to + first, z->loopback, n - first);
	z->start = (z->start + n) % LOOPBACK_BYTES;
	z->used -= n;
}

static bool take_loopback(struct usb_zero *z, struct usb_virtual_endpoint *out)
{
	struct urb *urb = out->head;
	size_t n =
		smaller(urb->length - out->progress, LOOPBACK_BYTES - z->used);

	if (n > 0)
		put_loopback(z, urb->data + out->progress, n);
	else if (urb->length > 0)
		return false;
	out->progress += n;
	urb->actual_length = out->progress;
	if (out->progress == urb->length)
		usb_virtual_finish(out, 0, urb->length);
	return true;
}

static bool give_loopback(struct usb_zero *z, struct usb_virtual_endpoint *in)
{
	const struct urb *urb = in->head;
	size_t n = smaller(urb->length, z->used);

	if (n > 0)
		get_loopback(z, urb->data, n);
	else if (urb->length > 0)
		return false;
	usb_virtual_finish(in, 0, n);
	return true;
}

/* ---- time --------------------------------------------------------------- */

/* Moves something for the head; false: the loopback is full or empty. */
static bool serve_head(struct usb_zero *z, struct usb_virtual_endpoint *e,
		       uint64_t now_ms)
{
	bool has_moved = true;

	if (e->type == USB_ISOCHRONOUS)
		move_iso_packet(e);
	else if (e->type == USB_INTERRUPT)
		move_bytes(e, e->max_packet);
	else if (z->virtual.device.configuration == SOURCE_SINK)
		move_bytes(e, SIZE_MAX);
	else if (e->address == BULK_OUT)
		has_moved = take_loopback(z, e);
	else
		has_moved = give_loopback(z, e);
	if (!has_moved)
		return false;
	if (e->type != USB_BULK)
		e->due_ms += PACKET_MS;
	else if (++z->num_burst % BURST_URBS == 0)
		e->due_ms = now_ms + PACKET_MS;
	return true;
}

/* Serves what is due; true if the endpoint moved anything. */
static bool serve(struct usb_zero *z, struct usb_virtual_endpoint *e,
		  uint64_t now_ms)
{
	bool has_moved = false;

	while (e->head && e->due_ms <= now_ms && serve_head(z, e, now_ms))
		has_moved = true;
	return has_moved;
}

static void set_timer(struct usb_zero *z, uint64_t due_ms)
{
	uint64_t now_ms = loop_now_ms(z->loop);

	if (due_ms >= z->timer_ms)
		return;
	z->timer_ms = due_ms;
	loop_timer_again(z->timer, due_ms > now_ms ? due_ms - now_ms : 0);
}

static void on_time(void *arg)
{
	struct usb_zero *z = arg;
	uint64_t now_ms = loop_now_ms(z->loop);
	const size_t num_endpoints =
		sizeof(z->virtual.endpoints) / sizeof(z->virtual.endpoints[0]);
	bool has_moved;

	z->timer_ms = NEVER;
	/* Again, since what one end of the loopback moves frees the other. */
	do {
		has_moved = false;
		for (size_t i = 0; i < num_endpoints; i++)
			has_moved |= serve(z, &z->virtual.endpoints[i], now_ms);
	} while (has_moved);
	/* What is due and has not moved waits for the loopback's other end. */
	for (size_t i = 0; i < num_endpoints; i++) {
		const struct usb_virtual_endpoint *e = &z->virtual.endpoints[i];

		if (e->head && e->due_ms > now_ms)
			set_timer(z, e->due_ms);
	}
}

/* ---- the model ---------------------------------------------------------- */

static void zero_on_queued(struct usb_virtual *v,
			   struct usb_virtual_endpoint *e)
{
	struct usb_zero *z = zero_of(v);
	uint64_t now_ms = loop_now_ms(z->loop);

	/* A periodic endpoint's clock stands still while it has no URB. */
	if (e->type != USB_BULK && e->head == e->tail && e->due_ms <= now_ms)
		e->due_ms = now_ms + PACKET_MS;
	set_timer(z, e->due_ms > now_ms ? e->due_ms : now_ms);
}

static int zero_control(struct usb_virtual *v,
			const struct usb_request *request, uint8_t *data)
{
	struct usb_zero *z = zero_of(v);
	bool is_write;
	bool is_read;

	if (request->value != 0 || request->index != 0 ||
	    request->length > sizeof(z->control))
		return -EPIPE;
	is_write = request->type == VENDOR_OUT &&
		   request->request == REQUEST_WRITE;
	is_read = request->type == VENDOR_IN &&
		  request->request == REQUEST_READ;
	if (!is_write && !is_read)
		return -EPIPE;
	if (is_write && request->length > 0)
		memcpy(z->control, data, request->length);
	if (is_read && request->length > 0)
		memcpy(data, z->control, request->length);
	return request->length;
}

static void zero_on_settings(struct usb_virtual *v)
{
	struct usb_zero *z = zero_of(v);

	z->start = 0;
	z->used = 0;
}

static void zero_free(struct usb_virtual *v)
{
	struct usb_zero *z = zero_of(v);

	loop_timer_stop(z->timer);
	free(z);
}

static const struct usb_virtual_model zero_model = {
	.name = "zero",
	.speed = USBIP_SPEED_HIGH,
	.descriptors = zero_descriptors,
	.num_descriptor_bytes = sizeof(zero_descriptors),
	.qualifier = zero_qualifier,
	.control = zero_control,
	.on_queued = zero_on_queued,
	.on_settings = zero_on_settings,
	.free = zero_free,
};

size_t usb_zero_descriptors(const uint8_t **ret_bytes)
{
	*ret_bytes = zero_descriptors;
	return sizeof(zero_descriptors);
}

int usb_zero_open(struct loop *loop, struct usb_device **ret_device)
{
	static const char *const strings[USB_VIRTUAL_STRINGS] = {
		"xusbip", "Source/sink and loopback", "0"
	};
	struct usb_zero *z = calloc(1, sizeof(*z));
	int r;

	if (!z)
		return -ENOMEM;
	z->loop = loop;
	z->timer_ms = NEVER;
	r = usb_virtual_init(&z->virtual, &zero_model, strings);
	if (r < 0)
		goto out;
	r = loop_timer_start(loop, 0, 0, on_time, z, &z->timer);
	if (r < 0)
		goto out;
	*ret_device = &z->virtual.device;
	return 0;
out:
	free(z);
	return r;
}
