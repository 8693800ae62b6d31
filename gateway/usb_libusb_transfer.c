/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers of a libusb device: URBs become libusb transfers, which stay with
 * their slots, so that a URB costs no allocation here; its end becomes the status
 * that Linux has for it.
 *
 * Time limits are the client's business, who unlinks what lasts too long, but a
 * control transfer has one here, so that a device that swallows a request can't
 * hold endpoint 0 for ever. libusb's own time-outs would cost two system calls for
 * each transfer; a timer of the loop, set once in a while, costs none.
 */
#include "gateway/usb_libusb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vchan-transport/loop.h"

#define CONTROL_LIMIT_MS 5000

/* libusb's one ERROR hides -EPROTO, -EILSEQ, -ETIME and others. */
static int status_of(enum libusb_transfer_status status)
{
	switch (status) {
	case LIBUSB_TRANSFER_COMPLETED:
		return 0;
	case LIBUSB_TRANSFER_ERROR:
		return -EPROTO;
	case LIBUSB_TRANSFER_TIMED_OUT:
		return -ETIMEDOUT;
	case LIBUSB_TRANSFER_CANCELLED:
		return -ESHUTDOWN; /* by usbfs, unasked */
	case LIBUSB_TRANSFER_STALL:
		return -EPIPE;
	case LIBUSB_TRANSFER_NO_DEVICE:
		return -ESHUTDOWN;
	case LIBUSB_TRANSFER_OVERFLOW:
		return -EOVERFLOW;
	}
	return -EPROTO;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* The list of what libusb has. */

static void list_add(struct host_device *h, struct host_transfer *t)
{
	t->previous = NULL;
	t->next = h->in_flight;
	if (t->next)
		t->next->previous = t;
	h->in_flight = t;
}

static void list_remove(struct host_device *h, struct host_transfer *t)
{
	if (t->next)
		t->next->previous = t->previous;
	if (t->previous)
		t->previous->next = t->next;
	else
		h->in_flight = t->next;
}

/* Isochronous. */

/* libusb wants packets back to back; Linux's drivers mostly lay them so. */
static bool is_packed(const struct urb *urb)
{
	size_t end = 0;

	for (uint32_t i = 0; i < urb->num_packets; i++) {
		if (urb->packets[i].offset != end)
			return false;
		end += urb->packets[i].length;
	}
	return true;
}

static int need_bounce(struct host_transfer *t, size_t bytes)
{
	uint8_t *bounce;

	if (t->bounce_bytes >= bytes)
		return 0;
	bounce = realloc(t->bounce, bytes);
	if (!bounce)
		return -ENOMEM;
	t->bounce = bounce;
	t->bounce_bytes = bytes;
	return 0;
}

static void gather_packets(struct host_transfer *t)
{
	const struct urb *urb = t->urb;
	uint8_t *to = t->bounce;

	for (uint32_t i = 0; i < urb->num_packets; i++) {
		const struct usbip_iso_packet *packet = &urb->packets[i];

		memcpy(to, urb->data + packet->offset, packet->length);
		to += packet->length;
	}
}

static int prepare_iso(struct host_transfer *t)
{
	const struct urb *urb = t->urb;
	struct libusb_transfer *usb = t->usb;
	uint64_t total = 0;

	for (uint32_t i = 0; i < urb->num_packets; i++) {
		const struct usbip_iso_packet *packet = &urb->packets[i];

		if ((uint64_t)packet->offset + packet->length > urb->length)
			return -EINVAL;
		total += packet->length;
		/* An unplugged device leaves these as they are. */
		usb->iso_packet_desc[i].length = packet->length;
		usb->iso_packet_desc[i].actual_length = 0;
		usb->iso_packet_desc[i].status = LIBUSB_TRANSFER_NO_DEVICE;
	}
	if (total > urb->length)
		return -EINVAL;

	usb->buffer = urb->data;
	if (total && !is_packed(urb)) {
		int r = need_bounce(t, (size_t)total);

		if (r < 0)
			return r;
		usb->buffer = t->bounce;
		if (!urb_is_device_to_host(urb))
			gather_packets(t);
	}
	usb->type = LIBUSB_TRANSFER_TYPE_ISOCHRONOUS;
	usb->length = (int)total;
	usb->num_iso_packets = (int)urb->num_packets;
	return 0;
}

static void take_iso_result(struct host_transfer *t)
{
	const struct libusb_transfer *usb = t->usb;
	struct urb *urb = t->urb;
	bool is_copied = urb_is_device_to_host(urb) && usb->buffer != urb->data;
	const uint8_t *from = usb->buffer;

	urb->actual_length = 0;
	for (uint32_t i = 0; i < urb->num_packets; i++) {
		const struct libusb_iso_packet_descriptor *result =
			&usb->iso_packet_desc[i];
		struct usbip_iso_packet *packet = &urb->packets[i];

		packet->status = status_of(result->status);
		packet->actual_length = (uint32_t)smaller(result->actual_length,
							  packet->length);
		if (is_copied)
			memcpy(urb->data + packet->offset, from,
			       packet->actual_length);
		from += packet->length;
		urb->actual_length += packet->actual_length;
	}
}

/* Control. */

/*
 * usbfs moves wLength bytes. Where the client has less room than that, the
 * device is asked for no more; it can't be given what the client did not send.
 */
static int prepare_control(struct host_transfer *t)
{
	struct urb *urb = t->urb;
	size_t asked = (size_t)urb->setup[6] | (size_t)urb->setup[7] << 8;
	uint8_t *setup = t->setup;

	if (urb->length > HOST_CONTROL_MAX_BYTES)
		return -EINVAL;
	if (asked > urb->length && !(urb->setup[0] & LIBUSB_ENDPOINT_IN))
		return -EINVAL;
	asked = smaller(asked, urb->length);
	if (urb->length)
		setup = urb->data - LIBUSB_CONTROL_SETUP_SIZE;
	memcpy(setup, urb->setup, LIBUSB_CONTROL_SETUP_SIZE);
	setup[6] = asked & 0xff;
	setup[7] = (uint8_t)(asked >> 8);
	t->usb->type = LIBUSB_TRANSFER_TYPE_CONTROL;
	t->usb->buffer = setup;
	t->usb->length = (int)(LIBUSB_CONTROL_SETUP_SIZE + urb->length);
	return 0;
}

static void limit_control(struct host_device *h, struct host_transfer *t)
{
	t->deadline_ms = loop_now_ms(h->loop) + CONTROL_LIMIT_MS;
	if (h->is_timer_set)
		return;
	loop_timer_again(h->timer, CONTROL_LIMIT_MS);
	h->is_timer_set = true;
}

void host_expire(struct host_device *h)
{
	uint64_t now_ms = loop_now_ms(h->loop);
	uint64_t next_ms = UINT64_MAX;

	for (struct host_transfer *t = h->in_flight; t; t = t->next) {
		if (t->urb->type != USB_CONTROL || t->cancel_status != 0)
			continue;
		if (t->deadline_ms <= now_ms) {
			t->cancel_status = -ETIMEDOUT;
			(void)libusb_cancel_transfer(t->usb);
		} else if (t->deadline_ms < next_ms) {
			next_ms = t->deadline_ms;
		}
	}
	if (next_ms == UINT64_MAX)
		return;
	loop_timer_again(h->timer, next_ms - now_ms);
	h->is_timer_set = true;
}

/* All of them. */

static void LIBUSB_CALL on_end(struct libusb_transfer *usb)
{
	struct host_transfer *t = usb->user_data;
	struct urb *urb = t->urb;
	struct host_device *h = host_of(urb->device);

	list_remove(h, t);
	urb->status = status_of(usb->status);
	if (usb->status == LIBUSB_TRANSFER_CANCELLED && t->cancel_status != 0)
		urb->status = t->cancel_status;
	if (usb->status == LIBUSB_TRANSFER_NO_DEVICE)
		host_mark_gone(h);
	if (urb->type == USB_ISOCHRONOUS)
		take_iso_result(t);
	else
		urb->actual_length =
			smaller((size_t)usb->actual_length, urb->length);
	urb_complete(urb);
}

static void prepare_data(struct host_transfer *t,
			 enum libusb_transfer_type type)
{
	t->usb->type = (unsigned char)type;
	t->usb->buffer = t->urb->data;
	t->usb->length = (int)t->urb->length;
}

static int prepare(struct host_device *h, struct host_transfer *t)
{
	struct urb *urb = t->urb;
	struct libusb_transfer *usb = t->usb;

	usb->dev_handle = h->handle;
	usb->endpoint = urb->endpoint;
	usb->callback = on_end;
	usb->user_data = t;
	usb->num_iso_packets = 0;
	usb->flags = urb->flags & USBIP_URB_ZERO_PACKET
			     ? LIBUSB_TRANSFER_ADD_ZERO_PACKET
			     : 0;
	switch (urb->type) {
	case USB_CONTROL:
		return prepare_control(t);
	case USB_ISOCHRONOUS:
		return prepare_iso(t);
	case USB_BULK:
		prepare_data(t, LIBUSB_TRANSFER_TYPE_BULK);
		return 0;
	case USB_INTERRUPT:
		prepare_data(t, LIBUSB_TRANSFER_TYPE_INTERRUPT);
		return 0;
	}
	return -EINVAL;
}

/* The slot's transfer, with room for the URB's packets. NULL: no memory. */
static struct host_transfer *transfer_of(struct urb *urb)
{
	uint32_t num_packets = urb->type == USB_ISOCHRONOUS ? urb->num_packets
							    : 0;
	struct host_transfer *t = urb->transfer;
	struct libusb_transfer *usb;

	if (t && t->usb && t->max_packets >= num_packets)
		return t;
	if (!t) {
		t = calloc(1, sizeof(*t));
		if (!t)
			return NULL;
		t->urb = urb;
		urb->transfer = t;
	}
	usb = libusb_alloc_transfer((int)num_packets);
	if (!usb)
		return NULL;
	libusb_free_transfer(t->usb);
	t->usb = usb;
	t->max_packets = num_packets;
	return t;
}

int host_submit(struct usb_device *d, struct urb *urb)
{
	struct host_device *h = host_of(d);
	struct host_transfer *t;
	int r;

	if (d->is_gone)
		return -ENODEV;
	t = transfer_of(urb);
	if (!t)
		return -ENOMEM;
	r = prepare(h, t);
	if (r < 0)
		return r;

	r = libusb_submit_transfer(t->usb);
	/* Buffers at rest count against usbfs's limit for all its users. */
	if (r == LIBUSB_ERROR_NO_MEM && host_drop_free_buffers(h))
		r = libusb_submit_transfer(t->usb);
	if (r == LIBUSB_ERROR_NO_DEVICE)
		host_mark_gone(h);
	if (r < 0)
		return host_errno(r);

	t->cancel_status = 0;
	h->has_done_bulk |= urb->type == USB_BULK;
	list_add(h, t);
	if (urb->type == USB_CONTROL)
		limit_control(h, t);
	return 0;
}

/* One that has ended meanwhile is refused, and keeps its result. */
void host_cancel(struct usb_device *d, struct urb *urb)
{
	struct host_transfer *t = urb->transfer;

	(void)d;
	t->cancel_status = -ECONNRESET;
	(void)libusb_cancel_transfer(t->usb);
}

static bool is_of_interface(struct host_device *h, const struct urb *urb,
			    int interface)
{
	struct descriptor_endpoint endpoint;

	if (urb->type == USB_CONTROL || interface == HOST_ALL_INTERFACES)
		return urb->type != USB_CONTROL;
	return descriptors_find_endpoint(&h->base.descriptors,
					 h->base.configuration, h->alternates,
					 urb->endpoint, &endpoint) &&
	       endpoint.interface == interface;
}

/* Without this, libusb takes what usbfs kills for a success that is short. */
void host_flush(struct host_device *h, int interface)
{
	for (struct host_transfer *t = h->in_flight; t; t = t->next) {
		if (t->cancel_status != 0 ||
		    !is_of_interface(h, t->urb, interface))
			continue;
		t->cancel_status = -ESHUTDOWN;
		(void)libusb_cancel_transfer(t->usb);
	}
}

void host_urb_done(struct usb_device *d, struct urb *urb)
{
	struct host_transfer *t = urb->transfer;

	(void)d;
	if (!t)
		return;
	libusb_free_transfer(t->usb);
	free(t->bounce);
	free(t);
	urb->transfer = NULL;
}
