/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usb_remote_private.h - the state of a passed-on device, shared by its three
 * files and by nobody else: usb_remote.c (what the engine asks),
 * usb_remote_commands.c (to the gateway that has it), usb_remote_replies.c (from
 * there).
 */
#ifndef USB_REMOTE_PRIVATE_H
#define USB_REMOTE_PRIVATE_H

#include "gateway/usb_device.h"
#include "vchan-transport/channel_watch.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/urb_check.h"

/*
 * Each URB may need an unlink besides, and there is room for it: what is in the
 * table when an URB is accepted has at most as many unlinks still to come.
 */
#define REMOTE_MAX_URBS (URB_MAX_IN_FLIGHT / 2)

/* A command on its way out; its pieces shrink as they leave. */
struct remote_message {
	struct remote_message *next;
	struct iovec pieces[3]; /* header, data, packets */
	uint8_t header[USBIP_HEADER_BYTES];
	bool is_queued;
	bool is_unlink; /* its own memory, freed when it has left */
};

/* Stays with the slot of its URB. */
struct remote_transfer {
	struct urb *urb; /* NULL: it is not in flight */
	struct remote_transfer *next;
	struct remote_transfer *previous;
	uint32_t seqnum;
	bool is_cancelled;
	struct remote_message submit;
	uint8_t *packet_bytes; /* isochronous, for packets_cap of them */
	uint32_t packets_cap;
};

/* What the next bytes from the gateway are. */
enum remote_reading {
	REMOTE_HEADER,
	REMOTE_DATA,
	REMOTE_PACKETS,
};

struct usb_remote {
	struct usb_device base; /* first */
	struct loop *loop;
	struct channel *channel;
	struct channel_watch watch;
	struct loop_source source;
	const char *who;
	uint8_t alternates[DESCRIPTORS_MAX_INTERFACES];
	bool is_gone_told;

	struct urb_table *table;
	uint32_t devid;
	uint32_t next_seqnum;
	struct remote_transfer *in_flight;

	struct remote_message *first;
	struct remote_message **last; /* where the next one is linked */
	bool is_blocked;              /* the channel has no room */

	enum remote_reading reading;
	struct usbip_header reply;
	const struct urb_entry *entry;    /* what it answers */
	struct remote_transfer *receiver; /* its URB */
	uint8_t *read_to;
	size_t read_left;
	bool has_unread; /* the budget of a turn ended before the bytes did */
	/* Data of isochronous packets comes without the gaps between them. */
	uint8_t *packed;
	size_t packed_cap;
	uint8_t packet_bytes[USBIP_MAX_ISO_PACKETS * USBIP_ISO_BYTES];
	struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS];

	/* One request of our own at a time, waited for. */
	struct urb request;
	struct remote_transfer request_transfer;

	uint8_t descriptor_bytes[];
};

/* Notes the URB and queues its command. 0, or -errno as its result. */
int remote_send_submit(struct usb_remote *r, struct remote_transfer *t,
		       struct urb *urb);
/* Queues an unlink of an URB in flight. */
void remote_send_unlink(struct usb_remote *r, struct remote_transfer *t);
/* Writes what the channel takes. */
void remote_write(struct usb_remote *r);
/* Forgets what has not left. */
void remote_drop_messages(struct usb_remote *r);

/* Reads and judges replies, within a turn's budget. */
void remote_read(struct usb_remote *r);

/* Gives the URB back; what it had in flight is settled already. */
void remote_finish(struct usb_remote *r, struct remote_transfer *t, int status);
/* The other gateway is gone, or not believed any more: why, for the log. */
void remote_lose(struct usb_remote *r, const char *why);

#endif
