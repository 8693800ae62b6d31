/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies: a header is copied out of the channel before it is judged, and the
 * judged copy is what vhci gets, with the data straight from the channel's
 * memory behind it: the peer may change that data under us, but no byte of
 * it decides anything.
 */
#include "frontend/link_private.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define REPLIES_PER_TURN 64

static void drop_front(struct iovec pieces[2], size_t bytes)
{
	for (int i = 0; i < 2; i++) {
		size_t n = pieces[i].iov_len < bytes ? pieces[i].iov_len
						     : bytes;

		pieces[i].iov_base = (uint8_t *)pieces[i].iov_base + n;
		pieces[i].iov_len -= n;
		bytes -= n;
	}
}

static size_t held(const struct iovec pieces[2])
{
	return pieces[0].iov_len + pieces[1].iov_len;
}

/* How much of a reply's data is judged too, and not only passed on. */
static size_t judged_data(const struct usbip_header *reply,
			  const struct urb_entry *entry)
{
	size_t n = urb_reply_payload(reply, entry);

	if (!entry->is_device_descriptor)
		return 0;
	return n < URB_DEVICE_DESCRIPTOR_BYTES ? n
					       : URB_DEVICE_DESCRIPTOR_BYTES;
}

/* Takes the next header into private memory; false: not all there, or bad. */
static bool judge_reply(struct link *l, struct iovec pieces[2])
{
	struct reply_pump *p = &l->replies;
	size_t bytes = USBIP_HEADER_BYTES;
	size_t data = 0;
	enum urb_verdict verdict;

	channel_gather(p->judged, pieces, bytes);
	usbip_header_decode(&p->header, p->judged);
	verdict = urb_table_check_reply(l->table, &p->header, &p->entry);
	if (verdict == URB_OK) {
		data = judged_data(&p->header, p->entry);
		bytes += data;
		if (held(pieces) < bytes)
			return false;
		channel_gather(p->judged, pieces, bytes);
		verdict = urb_check_device_descriptor(
			&l->options->device, p->judged + USBIP_HEADER_BYTES,
			data);
	}
	if (verdict != URB_OK) {
		link_refuse(l, LINK_BAD_REPLY, verdict);
		return false;
	}
	drop_front(pieces, bytes);
	channel_consume(l->channel, bytes);
	usbip_header_encode(p->judged, &p->header);
	p->judged_start = 0;
	p->judged_end = bytes;
	p->data_left = urb_reply_payload(&p->header, p->entry) - data;
	p->num_packets = p->entry->packets ? p->entry->num_packets : 0;
	p->stage = PUMP_DATA;
	if (p->num_packets == 0)
		urb_table_settle(l->table, &p->header);
	return true;
}

static bool judge_reply_packets(struct link *l, struct iovec pieces[2])
{
	struct reply_pump *p = &l->replies;
	size_t bytes = (size_t)p->num_packets * USBIP_ISO_BYTES;
	enum urb_verdict verdict;

	channel_gather(p->judged, pieces, bytes);
	drop_front(pieces, bytes);
	channel_consume(l->channel, bytes);
	link_decode_packets(l, p->judged, p->num_packets);
	verdict = urb_check_reply_packets(p->entry, &p->header, l->packets);
	if (verdict != URB_OK) {
		link_refuse(l, LINK_BAD_REPLY, verdict);
		return false;
	}
	p->judged_start = 0;
	p->judged_end = bytes;
	urb_table_settle(l->table, &p->header);
	p->stage = PUMP_HEADER;
	return true;
}

/* Sends judged bytes and the data behind them; false: vhci takes no more. */
static bool send_reply(struct link *l, struct iovec pieces[2])
{
	struct reply_pump *p = &l->replies;
	size_t judged = p->judged_end - p->judged_start;
	size_t data = held(pieces);
	struct iovec v[3] = { { p->judged + p->judged_start, judged } };
	struct msghdr msg = { .msg_iov = v, .msg_iovlen = 3 };
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
	ssize_t n;

	if (p->stage != PUMP_DATA)
		data = 0;
	else if (data > p->data_left)
		data = p->data_left;
	if (judged + data == 0)
		return true;
	v[1] = pieces[0];
	if (v[1].iov_len > data)
		v[1].iov_len = data;
	v[2] = pieces[1];
	v[2].iov_len = data - v[1].iov_len;
	/* Most replies are a header alone, and send costs less. */
	if (data == 0)
		n = send(l->options->vhci_fd, v[0].iov_base, judged, flags);
	else
		n = sendmsg(l->options->vhci_fd, &msg, flags);
	if (n < 0 && errno == EINTR)
		n = 0;
	if (n < 0 && errno != EAGAIN) {
		link_end(l, LINK_DETACHED);
		return false;
	}
	if (n < 0)
		n = 0;
	p->is_blocked = (size_t)n < judged + data;
	if ((size_t)n < judged) {
		p->judged_start += (size_t)n;
		return false;
	}
	p->judged_start = p->judged_end;
	n -= (ssize_t)judged;
	drop_front(pieces, (size_t)n);
	channel_consume(l->channel, (size_t)n);
	p->data_left -= (size_t)n;
	return !p->is_blocked;
}

/* One step of the replies' pump; false: it needs more bytes, or more room. */
static bool pump_reply(struct link *l, struct iovec pieces[2])
{
	struct reply_pump *p = &l->replies;
	bool is_judged = p->judged_start < p->judged_end;

	if (!is_judged && p->stage == PUMP_HEADER) {
		if (held(pieces) < USBIP_HEADER_BYTES ||
		    !judge_reply(l, pieces))
			return false;
	} else if (!is_judged && p->stage == PUMP_PACKETS) {
		if (held(pieces) < (size_t)p->num_packets * USBIP_ISO_BYTES ||
		    !judge_reply_packets(l, pieces))
			return false;
	}
	if (!send_reply(l, pieces))
		return false;
	if (p->stage == PUMP_DATA && p->data_left > 0)
		return false;
	if (p->stage == PUMP_DATA)
		p->stage = p->num_packets > 0 ? PUMP_PACKETS : PUMP_HEADER;
	return true;
}

void link_pump_replies(struct link *l)
{
	struct reply_pump *p = &l->replies;
	struct iovec pieces[2];
	int ended = channel_ended(l->channel);
	ssize_t n = channel_peek(l->channel, pieces);
	bool has_more = true;

	if (n < 0 && !ended)
		ended = (int)n;
	if (n < 0)
		memset(pieces, 0, sizeof(pieces));
	for (int i = 0; i < REPLIES_PER_TURN && has_more && link_is_running(l);
	     i++)
		has_more = pump_reply(l, pieces);
	p->has_unread = has_more;
	if (!ended || has_more || p->is_blocked || !link_is_running(l))
		return;
	/* What is left is the beginning of something that will not come. */
	if (ended == -EPROTO)
		link_end(l, LINK_BAD_CHANNEL);
	else if (ended == -EPIPE && p->stage == PUMP_HEADER &&
		 held(pieces) == 0)
		link_end(l, LINK_GATEWAY_ENDED);
	else
		link_end(l, LINK_GATEWAY_LOST);
}
