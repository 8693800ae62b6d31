/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: an URB's header, data and packets wait in a queue as they lie in
 * memory, and leave many in one piece. What stays in the queue is what the
 * other side does not take: no URB is copied.
 */
#include "gateway/usb_remote_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vchan-transport/channel.h"

#define ARRAY_SIZE(a)    (sizeof(a) / sizeof((a)[0]))
#define PIECES_PER_WRITE 24

/* USB 2.0, 9.6.6: 2 to the power of that. */
#define MAX_INTERVAL_EXPONENT 16

static void queue(struct usb_remote *r, struct remote_message *m)
{
	m->next = NULL;
	m->is_queued = true;
	*r->last = m;
	r->last = &m->next;
}

/* As Linux counts it: what a stock server would refuse if it were 0. */
static uint32_t interval_of(const struct usb_remote *r, const struct urb *urb)
{
	const struct usb_device *d = &r->base;
	struct descriptor_endpoint e = { 0 };
	bool is_exponent = urb->type == USB_ISOCHRONOUS ||
			   d->speed >= USBIP_SPEED_HIGH;

	if (urb->type != USB_ISOCHRONOUS && urb->type != USB_INTERRUPT)
		return 0;
	if (!descriptors_find_endpoint(&d->descriptors, d->configuration,
				       r->alternates, urb->endpoint, &e) ||
	    e.interval == 0)
		return 1;
	if (!is_exponent)
		return e.interval;
	if (e.interval > MAX_INTERVAL_EXPONENT)
		e.interval = MAX_INTERVAL_EXPONENT;
	return 1u << (e.interval - 1);
}

static struct usbip_header command_of(const struct usb_remote *r,
				      const struct remote_transfer *t,
				      const struct urb *urb)
{
	struct usbip_header h = {
		.command = USBIP_CMD_SUBMIT,
		.seqnum = t->seqnum,
		.devid = r->devid,
		.direction = urb_is_device_to_host(urb) ? USBIP_DIR_IN
							: USBIP_DIR_OUT,
		.endpoint = urb->endpoint & 0x0f,
		.submit = { .flags = urb->flags,
			    .length = (uint32_t)urb->length,
			    .interval = interval_of(r, urb) },
	};

	if (urb->type == USB_CONTROL)
		memcpy(h.submit.setup, urb->setup, sizeof(h.submit.setup));
	if (urb->type == USB_ISOCHRONOUS) {
		h.submit.flags |= USBIP_URB_ISO_ASAP;
		h.submit.num_packets = urb->num_packets;
	}
	return h;
}

static int encode_packets(struct remote_transfer *t, const struct urb *urb)
{
	if (urb->num_packets > t->packets_cap) {
		uint8_t *bytes = calloc(urb->num_packets, USBIP_ISO_BYTES);

		if (!bytes)
			return -ENOMEM;
		free(t->packet_bytes);
		t->packet_bytes = bytes;
		t->packets_cap = urb->num_packets;
	}
	for (uint32_t i = 0; i < urb->num_packets; i++)
		usbip_iso_encode(t->packet_bytes + (size_t)i * USBIP_ISO_BYTES,
				 &urb->packets[i]);
	return 0;
}

int remote_send_submit(struct usb_remote *r, struct remote_transfer *t,
		       struct urb *urb)
{
	struct remote_message *m = &t->submit;
	bool is_iso = urb->type == USB_ISOCHRONOUS;
	struct usbip_header h;

	if (urb_table_count(r->table) >= REMOTE_MAX_URBS ||
	    (is_iso && encode_packets(t, urb) < 0))
		return -ENOMEM;
	t->seqnum = r->next_seqnum;
	h = command_of(r, t, urb);
	if (urb_table_note(r->table, &h, is_iso ? urb->packets : NULL) !=
	    URB_OK)
		return -ENOMEM;
	r->next_seqnum++;
	urb_table_set_owner(r->table, t->seqnum, t);
	usbip_header_encode(m->header, &h);
	m->pieces[0] = (struct iovec){ m->header, sizeof(m->header) };
	m->pieces[1] = (struct iovec){ urb->data, urb_command_payload(&h) };
	m->pieces[2] = (struct iovec){ NULL, 0 };
	if (is_iso)
		m->pieces[2] = (struct iovec){ t->packet_bytes,
					       (size_t)urb->num_packets *
						       USBIP_ISO_BYTES };
	queue(r, m);
	t->urb = urb;
	t->is_cancelled = false;
	t->previous = NULL;
	t->next = r->in_flight;
	if (t->next)
		t->next->previous = t;
	r->in_flight = t;
	return 0;
}

void remote_send_unlink(struct usb_remote *r, struct remote_transfer *t)
{
	const struct usbip_header h = { .command = USBIP_CMD_UNLINK,
					.seqnum = r->next_seqnum,
					.devid = r->devid,
					.unlink_seqnum = t->seqnum };
	struct remote_message *m = calloc(1, sizeof(*m));

	if (!m || urb_table_note(r->table, &h, NULL) != URB_OK) {
		free(m);
		remote_lose(r, "no memory to take a transfer back");
		return;
	}
	r->next_seqnum++;
	urb_table_set_owner(r->table, h.seqnum, t);
	usbip_header_encode(m->header, &h);
	m->pieces[0] = (struct iovec){ m->header, sizeof(m->header) };
	m->is_unlink = true;
	queue(r, m);
}

static void pop_message(struct usb_remote *r)
{
	struct remote_message *m = r->first;

	r->first = m->next;
	if (!r->first)
		r->last = &r->first;
	m->is_queued = false;
	if (m->is_unlink)
		free(m);
}

void remote_drop_messages(struct usb_remote *r)
{
	while (r->first)
		pop_message(r);
}

/* Takes `bytes` off a message's pieces; how many are left of them. */
static size_t shrink(struct remote_message *m, size_t bytes, bool *ret_is_whole)
{
	size_t left = 0;

	for (size_t i = 0; i < ARRAY_SIZE(m->pieces); i++) {
		struct iovec *piece = &m->pieces[i];
		size_t n = piece->iov_len < bytes ? piece->iov_len : bytes;

		piece->iov_len -= n;
		if (n > 0)
			piece->iov_base = (uint8_t *)piece->iov_base + n;
		left += piece->iov_len;
		bytes -= n;
	}
	*ret_is_whole = left == 0;
	return bytes;
}

static void account_written(struct usb_remote *r, size_t bytes)
{
	bool is_whole = true;

	while (bytes > 0 && is_whole) {
		bytes = shrink(r->first, bytes, &is_whole);
		if (is_whole)
			pop_message(r);
	}
}

static int gather(const struct usb_remote *r, struct iovec *v,
		  size_t *ret_bytes)
{
	int n = 0;

	*ret_bytes = 0;
	for (const struct remote_message *m = r->first;
	     m && n + ARRAY_SIZE(m->pieces) <= PIECES_PER_WRITE; m = m->next) {
		for (size_t i = 0; i < ARRAY_SIZE(m->pieces); i++) {
			if (m->pieces[i].iov_len == 0)
				continue;
			v[n++] = m->pieces[i];
			*ret_bytes += m->pieces[i].iov_len;
		}
	}
	return n;
}

void remote_write(struct usb_remote *r)
{
	while (r->first) {
		struct iovec v[PIECES_PER_WRITE];
		size_t whole;
		int n = gather(r, v, &whole);
		ssize_t written = channel_writev(r->channel, v, n);

		if (written < 0) {
			/* What it said before it went is still to be read. */
			remote_drop_messages(r);
			r->is_blocked = false;
			r->has_unread = true;
			return;
		}
		account_written(r, (size_t)written);
		r->is_blocked = (size_t)written < whole;
		if (r->is_blocked)
			return;
	}
	r->is_blocked = false;
}
