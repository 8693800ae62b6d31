/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/reply.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/control.h"

#define GET_DESCRIPTOR_TO_HOST   0x80
#define GET_DESCRIPTOR           6
#define CONFIGURATION_ATTRIBUTES 7
#define ATTRIBUTE_REMOTE_WAKEUP  0x20

static uint32_t min_size(size_t a, uint32_t b)
{
	return a < b ? (uint32_t)a : b;
}

/* Does each packet's data lie behind that of the one before it? */
static bool is_in_order(const struct urb *urb)
{
	size_t end = 0;

	for (uint32_t i = 0; i < urb->num_packets; i++) {
		const struct usbip_iso_packet *p = &urb->packets[i];

		if (p->actual_length == 0)
			continue;
		if (p->offset < end)
			return false;
		end = (size_t)p->offset + p->actual_length;
	}
	return true;
}

/*
 * Moves the packets' data to the front, in the order of the list. In place, a
 * packet would land on one of another order that is still to be moved.
 */
static int pack_data(const struct urb *urb, size_t num_bytes)
{
	uint8_t *to = is_in_order(urb) ? urb->data : malloc(num_bytes);
	size_t at = 0;

	if (!to)
		return -ENOMEM;
	for (uint32_t i = 0; i < urb->num_packets; i++) {
		const struct usbip_iso_packet *p = &urb->packets[i];

		memmove(to + at, urb->data + p->offset, p->actual_length);
		at += p->actual_length;
	}
	if (to != urb->data) {
		memcpy(urb->data, to, num_bytes);
		free(to);
	}
	return 0;
}

/* Each one counts for no more than it asked for; how much in all. */
static uint32_t add_up_packets(const struct urb *urb)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < urb->num_packets; i++) {
		struct usbip_iso_packet *p = &urb->packets[i];

		p->actual_length = min_size(p->actual_length, p->length);
		sum += p->actual_length;
	}
	return sum;
}

static void drop_packets(const struct urb *urb, int status)
{
	for (uint32_t i = 0; i < urb->num_packets; i++) {
		urb->packets[i].actual_length = 0;
		urb->packets[i].status = status;
	}
}

static void prepare_packets(struct slot *slot,
			    struct usbip_ret_submit *ret_submit)
{
	const struct urb *urb = &slot->urb;
	uint32_t sum = add_up_packets(urb);

	if (slot->is_in && sum > 0 && pack_data(urb, sum) < 0) {
		ret_submit->status = -ENOMEM;
		drop_packets(urb, -ENOMEM);
		sum = 0;
	}
	for (uint32_t i = 0; i < urb->num_packets; i++) {
		if (urb->packets[i].status != 0)
			ret_submit->error_count++;
		usbip_iso_encode(slot->packet_bytes +
					 (size_t)i * USBIP_ISO_BYTES,
				 &urb->packets[i]);
	}
	ret_submit->actual_length = sum;
}

/* The bus cannot wake through a network: no device may offer it. */
static void hide_remote_wakeup(struct slot *slot)
{
	const uint8_t *setup = slot->urb.setup;

	if (slot->urb.type == USB_CONTROL &&
	    setup[0] == GET_DESCRIPTOR_TO_HOST && setup[1] == GET_DESCRIPTOR &&
	    setup[3] == DESCRIPTOR_CONFIGURATION &&
	    slot->urb.actual_length > CONFIGURATION_ATTRIBUTES)
		slot->urb.data[CONFIGURATION_ATTRIBUTES] &=
			(uint8_t)~ATTRIBUTE_REMOTE_WAKEUP;
}

static void prepare_ret_submit(struct slot *slot)
{
	struct usbip_header h = {
		.command = USBIP_RET_SUBMIT,
		.seqnum = slot->seqnum,
		.ret_submit = { .status = slot->urb.status,
				.start_frame = slot->submit.start_frame,
				.num_packets = slot->submit.num_packets },
	};

	hide_remote_wakeup(slot);
	if (urb_is_iso(slot->submit.num_packets))
		prepare_packets(slot, &h.ret_submit);
	else
		h.ret_submit.actual_length =
			min_size(slot->urb.actual_length, slot->submit.length);
	/* A control request whose setup packet says the other direction. */
	if (slot->is_in != urb_is_device_to_host(&slot->urb))
		h.ret_submit.actual_length = 0;
	/* libusb would call a short read an error; Linux says which one. */
	if (slot->is_in && slot->urb.type != USB_ISOCHRONOUS &&
	    (slot->submit.flags & USBIP_URB_SHORT_NOT_OK) &&
	    slot->urb.status == 0 &&
	    h.ret_submit.actual_length < slot->submit.length)
		h.ret_submit.status = -EREMOTEIO;
	slot->data_bytes = slot->is_in ? h.ret_submit.actual_length : 0;
	usbip_header_encode(slot->header, &h);
}

static void prepare_ret_unlink(const struct slot *slot, int status,
			       uint8_t out[USBIP_HEADER_BYTES])
{
	const struct usbip_header h = { .command = USBIP_RET_UNLINK,
					.seqnum = slot->unlink_seqnum,
					.unlink_status = status };

	usbip_header_encode(out, &h);
}

void reply_prepare(struct slot *slot)
{
	switch (slot->reply) {
	case URB_DO_RET_BOTH:
		prepare_ret_unlink(slot, 0, slot->unlink_header);
		prepare_ret_submit(slot);
		break;
	case URB_DO_RET_UNLINK:
		prepare_ret_unlink(slot, -ECONNRESET, slot->header);
		break;
	case URB_DO_TOO_LATE:
		prepare_ret_unlink(slot, 0, slot->header);
		break;
	case URB_DO_RET_SUBMIT:
	case URB_DO_NONE:
	case URB_DO_START:
	case URB_DO_CANCEL:
	case URB_DO_RELEASE:
	case URB_DO_VIOLATION:
	case URB_DO_BUG:
		prepare_ret_submit(slot);
		break;
	}
}

int reply_pieces(struct slot *slot, struct iovec ret_pieces[REPLY_MAX_PIECES])
{
	bool has_submit = slot->reply == URB_DO_RET_SUBMIT ||
			  slot->reply == URB_DO_RET_BOTH;
	int n = 0;

	ret_pieces[n++] = (struct iovec){ slot->header, sizeof(slot->header) };
	if (has_submit && slot->data_bytes > 0)
		ret_pieces[n++] =
			(struct iovec){ slot->urb.data, slot->data_bytes };
	if (has_submit && urb_is_iso(slot->submit.num_packets))
		ret_pieces[n++] =
			(struct iovec){ slot->packet_bytes,
					(size_t)slot->submit.num_packets *
						USBIP_ISO_BYTES };
	if (slot->reply == URB_DO_RET_BOTH)
		ret_pieces[n++] = (struct iovec){ slot->unlink_header,
						  sizeof(slot->unlink_header) };
	return n;
}
