/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link_private.h - a link's own state, shared by its three files and by nobody
 * else: link.c (beginning and end), link_commands.c (vhci to gateway),
 * link_replies.c (gateway to vhci).
 */
#ifndef LINK_PRIVATE_H
#define LINK_PRIVATE_H

#include "frontend/link.h"
#include "vchan-transport/channel_watch.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/urb_check.h"

#define LINK_PACKET_BYTES ((size_t)USBIP_MAX_ISO_PACKETS * USBIP_ISO_BYTES)
_Static_assert(LINK_PACKET_BYTES <= CHANNEL_PEEK_BYTES,
	       "packets can be gathered in a channel");

/* Holds a command's packets, and many commands without much data. */
#define LINK_COMMAND_BYTES (2 * LINK_PACKET_BYTES)
/* Unlinks that are ahead of what they name; further ones go as they came. */
#define LINK_MAX_EARLY   16
#define LINK_EARLY_BYTES ((size_t)LINK_MAX_EARLY * USBIP_HEADER_BYTES)

enum link_end {
	LINK_RUNNING,
	LINK_DETACHED,      /* vhci closed its end */
	LINK_STOPPED,       /* SIGTERM */
	LINK_GATEWAY_ENDED, /* in order: unplugged, or the gateway stops */
	LINK_GATEWAY_LOST,
	LINK_BAD_CHANNEL, /* the gateway broke the channel's own rules */
	LINK_BAD_REPLY,   /* the gateway broke the protocol */
	LINK_BAD_COMMAND, /* this side did */
	LINK_VHCI_FAILED,
};

/* Where the next byte of a direction belongs. */
enum pump_stage {
	PUMP_HEADER,
	PUMP_DATA,
	PUMP_PACKETS,
};

/* A CMD_UNLINK that waits for its CMD_SUBMIT. */
struct early_unlink {
	uint32_t target;
	uint8_t bytes[USBIP_HEADER_BYTES];
};

/* vhci -> gateway */
struct command_pump {
	enum pump_stage stage;
	struct usbip_header header; /* of the current command */
	size_t data_left;
	size_t written;  /* up to here the channel has it */
	size_t approved; /* up to here it may go */
	size_t used;     /* up to here vhci has sent */
	size_t seen;     /* of that, still in the socket: looked at only */
	bool can_look;   /* vhci's socket lets us look on from there */
	bool may_read;   /* vhci may have more */
	bool is_ending;  /* vhci has said its last: read up to the end */
	bool is_blocked; /* the channel has no room */
	uint32_t newest; /* the last CMD_SUBMIT's number */
	size_t num_early;
	struct early_unlink early[LINK_MAX_EARLY];
	/* What is held back goes into the part that no reading fills. */
	uint8_t bytes[LINK_COMMAND_BYTES + LINK_EARLY_BYTES];
};

/* gateway -> vhci */
struct reply_pump {
	enum pump_stage stage;
	struct usbip_header header;
	const struct urb_entry *entry; /* while packets are to come */
	uint32_t num_packets;
	size_t data_left;
	size_t judged_start; /* private bytes that vhci still has to get */
	size_t judged_end;
	bool is_blocked; /* vhci has no room */
	bool has_unread; /* the budget of a turn ended before the bytes did */
	uint8_t judged[LINK_PACKET_BYTES];
};

struct link {
	const struct link_options *options;
	struct channel *channel;
	struct loop *loop;
	struct loop_watch *vhci_watch;
	short vhci_events;
	struct channel_watch watch;
	struct loop_source source;
	struct urb_table *table;
	struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS];
	struct command_pump commands;
	struct reply_pump replies;
	enum link_end end;
	enum urb_verdict verdict;
};

/* Stops the loop; the first reason counts. */
void link_end(struct link *link, enum link_end why);
void link_refuse(struct link *link, enum link_end why,
		 enum urb_verdict verdict);
void link_decode_packets(struct link *link, const uint8_t *bytes, uint32_t n);

void link_start_commands(struct link *link);
void link_end_commands(struct link *link);
bool link_can_read_commands(const struct link *link);
void link_read_commands(struct link *link);
void link_write_commands(struct link *link);

void link_pump_replies(struct link *link);

static inline bool link_is_running(const struct link *link)
{
	return link->end == LINK_RUNNING;
}

#endif
