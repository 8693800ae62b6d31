/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies: each is judged against the command that it answers, in every field
 * (urb_check.h), before a byte of it counts. Its data goes straight to where
 * the URB wants it, but for isochronous data, which is spread out when the
 * packets have been judged.
 */
#include "gateway/usb_remote_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vchan-transport/channel.h"

#define REPLIES_PER_TURN 64

static void refuse(struct usb_remote *r, enum urb_verdict verdict)
{
	remote_lose(r, urb_verdict_sentence(verdict));
}

static void on_ended(struct usb_remote *r, int error)
{
	remote_lose(r, error == -EPIPE ? NULL : strerror(-error));
}

/* Packets as they came, without gaps, to where the URB wants each. */
static void spread_packets(const struct usb_remote *r, struct urb *urb)
{
	size_t at = 0;

	for (uint32_t i = 0; i < urb->num_packets; i++) {
		const struct usbip_iso_packet *p = &r->packets[i];

		urb->packets[i].actual_length = p->actual_length;
		urb->packets[i].status = p->status;
		if (urb_is_device_to_host(urb) && p->actual_length > 0)
			memcpy(urb->data + p->offset, r->packed + at,
			       p->actual_length);
		at += p->actual_length;
	}
}

static void finish_submit(struct usb_remote *r)
{
	struct remote_transfer *t = r->receiver;

	r->reading = REMOTE_HEADER;
	t->urb->actual_length = r->reply.ret_submit.actual_length;
	if (r->entry->packets)
		spread_packets(r, t->urb);
	urb_table_settle(r->table, &r->reply);
	remote_finish(r, t, r->reply.ret_submit.status);
}

static void take_packets(struct usb_remote *r)
{
	enum urb_verdict verdict;

	for (uint32_t i = 0; i < r->entry->num_packets; i++)
		usbip_iso_decode(&r->packets[i],
				 r->packet_bytes + (size_t)i * USBIP_ISO_BYTES);
	verdict = urb_check_reply_packets(r->entry, &r->reply, r->packets);
	if (verdict != URB_OK)
		refuse(r, verdict);
	else
		finish_submit(r);
}

static void end_data(struct usb_remote *r)
{
	if (!r->entry->packets) {
		finish_submit(r);
		return;
	}
	r->reading = REMOTE_PACKETS;
	r->read_to = r->packet_bytes;
	r->read_left = (size_t)r->entry->num_packets * USBIP_ISO_BYTES;
}

static bool reserve_packed(struct usb_remote *r, size_t bytes)
{
	uint8_t *packed;

	if (bytes <= r->packed_cap)
		return true;
	packed = realloc(r->packed, bytes);
	if (!packed)
		return false;
	r->packed = packed;
	r->packed_cap = bytes;
	return true;
}

static void on_ret_submit(struct usb_remote *r)
{
	r->receiver = r->entry->owner;
	r->reading = REMOTE_DATA;
	r->read_left = urb_reply_payload(&r->reply, r->entry);
	r->read_to = r->receiver->urb->data;
	if (r->entry->packets && !reserve_packed(r, r->read_left)) {
		remote_lose(r, "no memory for a reply");
		return;
	}
	if (r->entry->packets)
		r->read_to = r->packed;
	if (r->read_left == 0)
		end_data(r);
}

/* The unlink's target ends now, unless its own reply came before. */
static void on_ret_unlink(struct usb_remote *r)
{
	struct remote_transfer *t = r->entry->owner;
	bool is_waiting = t->urb && t->seqnum == r->entry->target;
	int status = r->reply.unlink_status;

	urb_table_settle(r->table, &r->reply);
	if (!is_waiting)
		return;
	t->urb->actual_length = 0;
	remote_finish(r, t, status != 0 ? status : -ECONNRESET);
}

/* Nobody can answer what has not left: its data is still being read. */
static bool has_left(const struct usb_remote *r)
{
	const struct remote_transfer *t = r->entry->owner;

	return !t->submit.is_queued ||
	       (r->entry->is_unlink && t->seqnum != r->entry->target);
}

static bool read_header(struct usb_remote *r)
{
	uint8_t bytes[USBIP_HEADER_BYTES];
	struct iovec pieces[2];
	enum urb_verdict verdict;
	int ended = channel_ended(r->channel);
	ssize_t n = channel_peek(r->channel, pieces);

	if (n < USBIP_HEADER_BYTES) {
		if (n < 0)
			on_ended(r, (int)n);
		else if (ended)
			on_ended(r, -ECONNRESET);
		return false;
	}
	channel_gather(bytes, pieces, sizeof(bytes));
	channel_consume(r->channel, sizeof(bytes));
	usbip_header_decode(&r->reply, bytes);
	verdict = urb_table_check_reply(r->table, &r->reply, &r->entry);
	if (verdict == URB_OK && !has_left(r))
		verdict = URB_UNKNOWN_SEQNUM;
	if (verdict != URB_OK)
		refuse(r, verdict);
	else if (r->entry->is_unlink)
		on_ret_unlink(r);
	else
		on_ret_submit(r);
	return true;
}

/* Reads on in a reply; false if no more of it is there yet. */
static bool read_body(struct usb_remote *r)
{
	ssize_t n = channel_read(r->channel, r->read_to, r->read_left);

	if (n < 0) {
		on_ended(r, n == -EPIPE ? -ECONNRESET : (int)n);
		return false;
	}
	r->read_to += n;
	r->read_left -= (size_t)n;
	if (r->read_left > 0)
		return n > 0;
	if (r->reading == REMOTE_DATA)
		end_data(r);
	else
		take_packets(r);
	return true;
}

void remote_read(struct usb_remote *r)
{
	bool has_more = true;

	for (int i = 0; i < REPLIES_PER_TURN && has_more && !r->base.is_gone;
	     i++)
		has_more = r->reading == REMOTE_HEADER ? read_header(r)
						       : read_body(r);
	r->has_unread = has_more;
}
