/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers of a host device: URBs, straight to usbfs (linux/usbdevice_fs.h, and
 * drivers/usb/core/devio.c in Linux). libusb has opened the device and carries out
 * its requests, and has no transfer of its own: what it would do for each costs two
 * system calls more, and leaves one error of the statuses that Linux has. What
 * usbfs takes stays with the slot, so that a URB costs no allocation here.
 *
 * Each wake-up stands for something new, so usbfs is asked until it has nothing.
 * A controller that is emulated has often done a transfer before its submission
 * returns: so there is a look before the loop sleeps, for as long as looks find
 * something.
 *
 * Time limits are the client's business, who unlinks what lasts too long, but a
 * control transfer has one here, so that a device that swallows a request can't
 * hold endpoint 0 for ever: a timer of the loop, set once in a while.
 */
#include "gateway/usb_libusb.h"

#include <errno.h>
#include <linux/usb/ch9.h>
#include <linux/usbdevice_fs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define CONTROL_LIMIT_MS 5000
#define SETUP_BYTES      sizeof(struct usb_ctrlrequest)

/*
 * Setup packets lie before the data, and there is no room for one before usbfs's
 * own memory. Buffers come in powers of two, so up to this none is of that.
 */
#define CONTROL_MAX_BYTES (32u << 10)
_Static_assert(CONTROL_MAX_BYTES < HOST_DEV_MEM_MIN_BYTES,
	       "a control transfer may get a buffer without headroom");

/* usbfs takes no more in one piece. */
#define PART_MAX_PACKETS 128
#define PART_STRIDE                    \
	(sizeof(struct usbdevfs_urb) + \
	 PART_MAX_PACKETS * sizeof(struct usbdevfs_iso_packet_desc))

/*
 * For a controller that cannot gather, usbfs needs memory in one piece, and has
 * it, with luck, for no more than this.
 */
#define PART_MAX_BYTES ((size_t)64 << 10)

/* A look that found nothing is not tried again for this many submissions. */
#define LOOK_PAUSE 64

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* The list of what usbfs has. */

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

/* Parts. */

static struct usbdevfs_urb *part_of(const struct host_transfer *t, uint32_t i)
{
	return (struct usbdevfs_urb *)(void *)(t->parts + i * PART_STRIDE);
}

static struct usbdevfs_iso_packet_desc *packet_of(const struct host_transfer *t,
						  uint32_t i)
{
	return &part_of(t, i / PART_MAX_PACKETS)
			->iso_frame_desc[i % PART_MAX_PACKETS];
}

/* Room for at least that; what was there is lost. */
static int need_room(uint8_t **room, size_t *room_bytes, size_t bytes)
{
	uint8_t *larger;

	if (*room_bytes >= bytes)
		return 0;
	larger = malloc(bytes);
	if (!larger)
		return -ENOMEM;
	free(*room);
	*room = larger;
	*room_bytes = bytes;
	return 0;
}

static int need_parts(struct host_transfer *t, uint32_t num_packets)
{
	uint32_t num_full =
		num_packets > 0 ? (num_packets - 1) / PART_MAX_PACKETS : 0;
	uint32_t rest = num_packets - num_full * PART_MAX_PACKETS;

	t->num_parts = num_full + 1;
	return need_room(
		&t->parts, &t->parts_bytes,
		num_full * PART_STRIDE + sizeof(struct usbdevfs_urb) +
			rest * sizeof(struct usbdevfs_iso_packet_desc));
}

static void set_part(struct host_transfer *t, uint32_t i, uint8_t type,
		     void *buffer, size_t bytes)
{
	*part_of(t, i) = (struct usbdevfs_urb){
		.type = type,
		.endpoint = t->urb->endpoint,
		.buffer = buffer,
		.buffer_length = (int)bytes,
		.usercontext = t,
	};
}

static int submit_to_usbfs(const struct host_device *h,
			   struct usbdevfs_urb *part)
{
	return ioctl(h->fd, USBDEVFS_SUBMITURB, part) < 0 ? -errno : 0;
}

static int submit_part(struct host_device *h, struct host_transfer *t,
		       uint32_t i)
{
	int r = submit_to_usbfs(h, part_of(t, i));

	/* Buffers at rest count against usbfs's limit for all its users. */
	if (r == -ENOMEM && host_drop_free_buffers(h))
		r = submit_to_usbfs(h, part_of(t, i));
	if (r == -ENODEV)
		host_mark_gone(h);
	if (r < 0)
		return r;
	t->num_out++;
	if (h->look_pause > 0)
		h->look_pause--;
	else
		h->must_look = true;
	return 0;
}

/* What has ended meanwhile, or never was there, is refused. */
static void discard(struct host_device *h, const struct host_transfer *t)
{
	for (uint32_t i = t->num_parts; i > 0; i--)
		(void)ioctl(h->fd, USBDEVFS_DISCARDURB, part_of(t, i - 1));
}

/* What lasts too long, or is asked back. */
static void cancel(struct host_device *h, struct host_transfer *t, int status)
{
	t->cancel_status = status;
	discard(h, t);
}

/* Bulk and interrupt. */

/* Behind what has been moved. */
static void prepare_data(struct host_device *h, struct host_transfer *t)
{
	const struct urb *urb = t->urb;
	size_t rest = urb->length - t->moved;
	size_t bytes = rest;

	if (urb->type == USB_INTERRUPT) {
		set_part(t, 0, USBDEVFS_URB_TYPE_INTERRUPT, urb->data, rest);
		return;
	}
	if (!h->can_gather)
		bytes = smaller(rest, PART_MAX_BYTES);
	set_part(t, 0, USBDEVFS_URB_TYPE_BULK, urb->data + t->moved, bytes);
	if (bytes == rest && (urb->flags & USBIP_URB_ZERO_PACKET))
		part_of(t, 0)->flags = USBDEVFS_URB_ZERO_PACKET;
	h->has_done_bulk = true;
}

/* True if another part of it is on its way. */
static bool go_on(struct host_device *h, struct host_transfer *t)
{
	const struct usbdevfs_urb *part = part_of(t, 0);

	if (t->urb->type != USB_BULK || t->status != 0 ||
	    t->moved >= t->urb->length ||
	    part->actual_length < part->buffer_length)
		return false;
	t->status = t->cancel_status;
	if (t->status != 0)
		return false;
	prepare_data(h, t);
	t->status = submit_part(h, t, 0);
	return t->status == 0;
}

/* Isochronous. */

/* usbfs wants packets back to back; Linux's drivers mostly lay them so. */
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

static void set_iso_parts(struct host_transfer *t, uint8_t *buffer)
{
	const struct urb *urb = t->urb;

	for (uint32_t i = 0; i < urb->num_packets; i++) {
		struct usbdevfs_urb *part = part_of(t, i / PART_MAX_PACKETS);
		uint32_t length = urb->packets[i].length;

		if (i % PART_MAX_PACKETS == 0) {
			set_part(t, i / PART_MAX_PACKETS, USBDEVFS_URB_TYPE_ISO,
				 buffer, 0);
			part->flags = USBDEVFS_URB_ISO_ASAP;
		}
		*packet_of(t, i) =
			(struct usbdevfs_iso_packet_desc){ .length = length };
		part->number_of_packets++;
		part->buffer_length += (int)length;
		buffer += length;
	}
}

static int prepare_iso(struct host_transfer *t)
{
	const struct urb *urb = t->urb;
	uint64_t total = 0;

	if (urb->num_packets == 0)
		return -EINVAL;
	for (uint32_t i = 0; i < urb->num_packets; i++) {
		const struct usbip_iso_packet *packet = &urb->packets[i];

		if ((uint64_t)packet->offset + packet->length > urb->length)
			return -EINVAL;
		total += packet->length;
	}
	if (total > urb->length)
		return -EINVAL;

	t->buffer = urb->data;
	if (total && !is_packed(urb)) {
		int r = need_room(&t->bounce, &t->bounce_bytes, (size_t)total);

		if (r < 0)
			return r;
		t->buffer = t->bounce;
		if (!urb_is_device_to_host(urb))
			gather_packets(t);
	}
	set_iso_parts(t, t->buffer);
	return 0;
}

static void take_iso_result(struct host_transfer *t)
{
	struct urb *urb = t->urb;
	const uint8_t *from = t->buffer;
	bool is_copied = urb_is_device_to_host(urb) && from != urb->data;

	urb->actual_length = 0;
	for (uint32_t i = 0; i < urb->num_packets; i++) {
		const struct usbdevfs_iso_packet_desc *result = packet_of(t, i);
		struct usbip_iso_packet *packet = &urb->packets[i];

		packet->status = (int)result->status;
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

	if (urb->length > CONTROL_MAX_BYTES)
		return -EINVAL;
	if (asked > urb->length && !(urb->setup[0] & USB_DIR_IN))
		return -EINVAL;
	asked = smaller(asked, urb->length);
	if (urb->length)
		setup = urb->data - SETUP_BYTES;
	memcpy(setup, urb->setup, SETUP_BYTES);
	setup[6] = asked & 0xff;
	setup[7] = (uint8_t)(asked >> 8);
	set_part(t, 0, USBDEVFS_URB_TYPE_CONTROL, setup,
		 SETUP_BYTES + urb->length);
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
		if (t->deadline_ms <= now_ms)
			cancel(h, t, -ETIMEDOUT);
		else if (t->deadline_ms < next_ms)
			next_ms = t->deadline_ms;
	}
	if (next_ms == UINT64_MAX)
		return;
	loop_timer_again(h->timer, next_ms - now_ms);
	h->is_timer_set = true;
}

/* Submitting. */

static int prepare(struct host_device *h, struct host_transfer *t)
{
	int r = need_parts(
		t, t->urb->type == USB_ISOCHRONOUS ? t->urb->num_packets : 0);

	t->moved = 0;
	t->status = 0;
	t->cancel_status = 0;
	if (r < 0)
		return r;
	switch (t->urb->type) {
	case USB_CONTROL:
		return prepare_control(t);
	case USB_ISOCHRONOUS:
		return prepare_iso(t);
	case USB_BULK:
	case USB_INTERRUPT:
		prepare_data(h, t);
		return 0;
	}
	return -EINVAL;
}

/* All parts at once: isochronous ones follow one another without a gap. */
static int submit_parts(struct host_device *h, struct host_transfer *t)
{
	for (uint32_t i = 0; i < t->num_parts; i++) {
		int r = submit_part(h, t, i);

		if (r < 0 && i == 0)
			return r;
		if (r < 0) {
			t->status = r;
			discard(h, t);
			break;
		}
	}
	return 0;
}

/* The slot's transfer. NULL: no memory. */
static struct host_transfer *transfer_of(struct urb *urb)
{
	struct host_transfer *t = urb->transfer;

	if (t)
		return t;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->urb = urb;
	urb->transfer = t;
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
	if (r == 0)
		r = submit_parts(h, t);
	if (r < 0)
		return r;
	list_add(h, t);
	if (urb->type == USB_CONTROL)
		limit_control(h, t);
	return 0;
}

/* One that has ended meanwhile keeps its result. */
void host_cancel(struct usb_device *d, struct urb *urb)
{
	cancel(host_of(d), urb->transfer, -ECONNRESET);
}

void host_urb_done(struct usb_device *d, struct urb *urb)
{
	struct host_transfer *t = urb->transfer;

	(void)d;
	if (!t)
		return;
	free(t->parts);
	free(t->bounce);
	free(t);
	urb->transfer = NULL;
}

/* Reaping. */

static void end(struct host_device *h, struct host_transfer *t)
{
	struct urb *urb = t->urb;

	list_remove(h, t);
	urb->status = t->status;
	if (urb->type == USB_ISOCHRONOUS)
		take_iso_result(t);
	else
		urb->actual_length = smaller(t->moved, urb->length);
	urb_complete(urb);
}

/*
 * usbfs has one status for what it was asked to discard, and for what loses its
 * endpoint to a new setting, a new configuration or a reset.
 */
static int status_of(const struct host_transfer *t, int status)
{
	if (status != -ENOENT)
		return status;
	return t->cancel_status != 0 ? t->cancel_status : -ESHUTDOWN;
}

static void end_part(struct host_device *h, const struct usbdevfs_urb *part)
{
	struct host_transfer *t = part->usercontext;

	t->num_out--;
	t->moved += (size_t)part->actual_length;
	if (t->status == 0)
		t->status = status_of(t, part->status);
	if (t->num_out == 0 && !go_on(h, t))
		end(h, t);
}

/* False: there is nothing more. */
static bool reap_one(struct host_device *h)
{
	struct usbdevfs_urb *part;

	if (ioctl(h->fd, USBDEVFS_REAPURBNDELAY, &part) < 0) {
		if (errno != EAGAIN)
			host_mark_gone(h);
		return false;
	}
	end_part(h, part);
	return true;
}

static bool must_look(void *arg)
{
	const struct host_device *h = arg;

	return h->must_look;
}

static void look(void *arg)
{
	struct host_device *h = arg;

	h->must_look = false;
	if (!reap_one(h)) {
		h->look_pause = LOOK_PAUSE;
		return;
	}
	while (h->in_flight && reap_one(h))
		;
}

/* usbfs has let go of the device, and would have given these back before. */
static void lose_all(struct host_device *h)
{
	while (h->in_flight) {
		h->in_flight->status = -ESHUTDOWN;
		end(h, h->in_flight);
	}
}

static void on_ready(void *arg, short revents)
{
	struct host_device *h = arg;
	bool is_hung_up = (revents & (POLLRDHUP | POLLERR)) != 0;

	while ((h->in_flight || is_hung_up) && reap_one(h))
		;
	if (revents & POLLERR)
		lose_all(h);
}

int host_watch(struct host_device *h)
{
	uint32_t capabilities;
	int r = ioctl(h->fd, USBDEVFS_GET_CAPABILITIES, &capabilities);

	if (r < 0)
		return -errno;
	r = loop_watch_fd(h->loop, h->fd, POLLOUT | LOOP_EDGE, on_ready, h,
			  &h->watch);
	if (r < 0)
		return r;
	h->can_gather = capabilities & USBDEVFS_CAP_BULK_SCATTER_GATHER;
	h->source = (struct loop_source){ must_look, look, h, NULL };
	loop_add_source(h->loop, &h->source);
	return 0;
}
