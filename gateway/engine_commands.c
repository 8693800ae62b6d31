/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/engine_private.h"

#include <errno.h>
#include <string.h>

#include "gateway/control.h"

/* Commands read in one turn of the loop. */
#define COMMANDS_PER_TURN 64

void engine_map_endpoints(struct engine *e)
{
	const struct usb_device *d = e->device;

	for (unsigned i = 0; i < ENGINE_ENDPOINTS; i++) {
		uint8_t address = (uint8_t)((i & 0x0f) | (i & 0x10) << 3);
		struct descriptor_endpoint *ep = &e->endpoints[i];

		if ((address & 0x0f) == 0 ||
		    !descriptors_find_endpoint(&d->descriptors,
					       d->configuration, e->alternates,
					       address, ep))
			*ep = (struct descriptor_endpoint){ .address = 0 };
	}
}

static const struct descriptor_endpoint *find_endpoint(const struct engine *e,
						       uint8_t address)
{
	const struct descriptor_endpoint *ep =
		&e->endpoints[(address & 0x0f) | (address & 0x80) >> 3];

	return ep->address != 0 ? ep : NULL;
}

/* All that belongs to the URB has arrived. */
static void finish_receiving(struct engine *e)
{
	struct slot *slot = e->receiver;

	e->receiver = NULL;
	e->receiving = RECEIVE_HEADER;
	if (slot->refused != 0) {
		slot->urb.status = slot->refused;
		slot->urb.actual_length = 0;
		engine_feed(slot, URB_ON_REFUSED);
		return;
	}
	/* An isochronous URB without packets is done: usbfs would refuse it. */
	if (slot->urb.type == USB_ISOCHRONOUS && slot->urb.num_packets == 0) {
		slot->urb.status = 0;
		slot->urb.actual_length = 0;
		engine_feed(slot, URB_ON_REFUSED);
		return;
	}
	engine_feed(slot, URB_ON_RECEIVED);
}

static void take_packets(struct engine *e)
{
	struct slot *slot = e->receiver;
	enum urb_verdict verdict;

	for (uint32_t i = 0; i < slot->urb.num_packets; i++) {
		struct usbip_iso_packet *p = &slot->urb.packets[i];

		usbip_iso_decode(p, slot->packet_bytes +
					    (size_t)i * USBIP_ISO_BYTES);
		p->actual_length = 0;
		p->status = 0;
	}
	verdict = urb_check_packets(slot->urb.packets, slot->urb.num_packets,
				    slot->submit.length);
	if (verdict != URB_OK)
		engine_violate(e, verdict);
	else
		finish_receiving(e);
}

static void receive_packets(struct engine *e)
{
	struct slot *slot = e->receiver;

	if (!urb_is_iso(slot->submit.num_packets)) {
		finish_receiving(e);
		return;
	}
	e->receiving = RECEIVE_PACKETS;
	e->receive_to = slot->packet_bytes;
	e->receive_left = (size_t)slot->submit.num_packets * USBIP_ISO_BYTES;
}

/* Reads data that no URB will get; as channel_read. */
__attribute__((noinline)) static ssize_t drop_data(struct engine *e)
{
	uint8_t dropped[4096];
	size_t wanted = e->receive_left;

	return channel_read(e->channel, dropped,
			    wanted < sizeof(dropped) ? wanted
						     : sizeof(dropped));
}

/* Reads on into the URB; false if the peer has not sent more yet. */
static bool receive_body(struct engine *e)
{
	ssize_t n = e->receive_to ? channel_read(e->channel, e->receive_to,
						 e->receive_left)
				  : drop_data(e);

	if (n < 0) {
		engine_lose_channel(e, (int)n); /* in the middle of an URB */
		return false;
	}
	e->receive_left -= (size_t)n;
	if (e->receive_to)
		e->receive_to += n;
	if (e->receive_left > 0)
		return n > 0;
	if (e->receiving == RECEIVE_DATA)
		receive_packets(e);
	else
		take_packets(e);
	return true;
}

/* What kind of transfer this is, and whether it can be done at all. */
static void resolve_endpoint(const struct engine *e, struct slot *slot,
			     const struct usbip_header *h)
{
	struct urb *urb = &slot->urb;
	const struct descriptor_endpoint *ep;

	slot->is_in = urb_is_in(h);
	urb->endpoint = (uint8_t)(h->endpoint | (slot->is_in ? 0x80 : 0));
	urb->flags = 0;
	if (h->endpoint == 0) {
		urb->type = USB_CONTROL;
		memcpy(urb->setup, h->submit.setup, sizeof(urb->setup));
		urb->endpoint = urb_is_setup_in(urb->setup) ? 0x80 : 0;
		return;
	}
	ep = find_endpoint(e, urb->endpoint);
	if (!ep) {
		/* Of a kind that fits what the peer sends with it. */
		urb->type = urb_is_iso(h->submit.num_packets) ? USB_ISOCHRONOUS
							      : USB_BULK;
		slot->refused = -EPIPE;
		return;
	}
	urb->type = ep->type;
	if (ep->type == USB_BULK && !urb_is_device_to_host(urb))
		urb->flags = h->submit.flags & USBIP_URB_ZERO_PACKET;
}

/* How much memory the URB's data needs, as opposed to what the peer asked for. */
static size_t buffer_need(struct slot *slot)
{
	size_t need = slot->submit.length;
	uint16_t wanted;

	slot->urb.length = need;
	if (slot->urb.type != USB_CONTROL)
		return need;
	/* wLength rules what the device does, whatever the buffer's length. */
	wanted = control_length(slot->urb.setup);
	slot->urb.length = wanted;
	if (wanted > URB_MAX_SETUP_LENGTH || need > URB_MAX_SETUP_LENGTH)
		slot->refused = -EINVAL;
	return need > wanted ? need : wanted;
}

static void on_submit(struct engine *e, const struct usbip_header *h)
{
	struct slot *slot = slot_take(e->pool);
	size_t need;
	int r;

	slot->seqnum = h->seqnum;
	slot->submit = h->submit;
	slot->refused = 0;
	slot->reply = URB_DO_NONE;
	slot->urb.actual_length = 0;
	slot->urb.num_packets = 0;
	engine_feed(slot, URB_ON_SUBMIT);
	e->receiver = slot;
	if (!seq_map_put(e->seqnums, h->seqnum, slot_index(e->pool, slot))) {
		engine_violate(e, URB_BAD_SEQNUM);
		return;
	}
	resolve_endpoint(e, slot, h);
	if (urb_is_iso(h->submit.num_packets)) {
		if (slot->urb.type != USB_ISOCHRONOUS) {
			engine_violate(e, URB_BAD_PACKETS);
			return;
		}
		if (slot_reserve_packets(slot) < 0) {
			engine_lose(e, ENGINE_PEER_LOST);
			return;
		}
		slot->urb.num_packets = h->submit.num_packets;
	}
	need = buffer_need(slot);
	if (slot->refused == 0) {
		r = slot_reserve(e->pool, slot, need);
		if (r < 0)
			slot->refused = r;
	}
	e->receiving = RECEIVE_DATA;
	e->receive_left = urb_command_payload(h);
	e->receive_to = slot->refused == 0 ? slot->urb.data : NULL;
	if (slot->urb.data && need > e->receive_left &&
	    !urb_is_device_to_host(&slot->urb))
		memset(slot->urb.data + e->receive_left, 0,
		       need - e->receive_left);
	if (e->receive_left == 0)
		receive_packets(e);
}

static void on_unlink(struct engine *e, const struct usbip_header *h)
{
	uint32_t index;
	struct slot *slot;

	if (!seq_map_get(e->seqnums, h->unlink_seqnum, &index)) {
		engine_queue_too_late(e, h->seqnum);
		return;
	}
	slot = slot_at(e->pool, index);
	if (slot->state != URB_CANCELLING)
		slot->unlink_seqnum = h->seqnum;
	engine_feed(slot, URB_ON_UNLINK);
}

/* Reads the next command; false if it has not arrived yet. */
static bool receive_header(struct engine *e)
{
	uint8_t bytes[USBIP_HEADER_BYTES];
	struct usbip_header h;
	struct iovec pieces[2];
	enum urb_verdict verdict;
	int ended = channel_ended(e->channel);
	ssize_t n = channel_peek(e->channel, pieces);

	if (n < USBIP_HEADER_BYTES) {
		if (n == -EPIPE)
			engine_lose(e, ENGINE_PEER_ENDED);
		else if (n < 0)
			engine_lose_channel(e, (int)n);
		else if (ended)
			engine_lose_channel(e, ended);
		return false;
	}
	channel_gather(bytes, pieces, sizeof(bytes));
	channel_consume(e->channel, USBIP_HEADER_BYTES);
	usbip_header_decode(&h, bytes);
	verdict = urb_check_command(&h, e->devid);
	if (verdict != URB_OK)
		engine_violate(e, verdict);
	else if (h.command == USBIP_CMD_SUBMIT)
		on_submit(e, &h);
	else
		on_unlink(e, &h);
	return true;
}

bool engine_can_read(const struct engine *e)
{
	return e->is_reading && !e->is_blocked &&
	       (e->receiving != RECEIVE_HEADER || slot_is_any_free(e->pool));
}

void engine_read_commands(struct engine *e)
{
	bool has_more = true;

	for (int i = 0; i < COMMANDS_PER_TURN && has_more && engine_can_read(e);
	     i++)
		has_more = e->receiving == RECEIVE_HEADER ? receive_header(e)
							  : receive_body(e);
	e->has_unread = has_more;
}
