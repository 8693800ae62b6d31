/* SPDX-License-Identifier: Apache-2.0 */
/*
 * urb_check.h - whether a USB/IP header may pass, in either direction.
 *
 * A command is judged by itself (urb_check_command) and against what is in
 * flight; a reply is judged against the command that it answers, so whoever
 * passes replies on keeps a struct urb_table.  Peers' mistakes are verdicts,
 * never errno and never an assertion.  Pure, but for the table's allocation
 * at urb_table_new and for isochronous lengths, which are bounded.
 */
#ifndef URB_CHECK_H
#define URB_CHECK_H

#include <stdbool.h>

#include "vchan-transport/usbip.h"

/* Limits on what a peer can grow. */
#define URB_MAX_LENGTH       (16u << 20) /* of one transfer: usbfs's own */
#define URB_MAX_IN_FLIGHT    4096u       /* URBs and unlinks of one device */
#define URB_MAX_SETUP_LENGTH 4096u /* libusb's and usbfs's control limit */

enum urb_verdict {
	URB_OK,
	URB_BAD_COMMAND,    /* not a command that this side may send */
	URB_BAD_DEVID,      /* for another device */
	URB_BAD_DIRECTION,  /* neither 0 nor 1 */
	URB_BAD_ENDPOINT,   /* above 15 */
	URB_BAD_LENGTH,     /* more than URB_MAX_LENGTH */
	URB_BAD_PACKETS,    /* number of isochronous packets */
	URB_BAD_PACKET,     /* an isochronous packet outside its buffer */
	URB_BAD_STATUS,     /* neither 0 nor a negative errno */
	URB_BAD_ACTUAL,     /* more than was asked for, or sums that differ */
	URB_BAD_SEQNUM,     /* a sequence number that is in flight */
	URB_UNKNOWN_SEQNUM, /* an answer to nothing */
	URB_BAD_DESCRIPTOR, /* a device descriptor of another device */
	URB_TOO_MANY,       /* more than URB_MAX_IN_FLIGHT */
};

/* One line in plain words, for logs: "peer sent ...". */
const char *urb_verdict_sentence(enum urb_verdict verdict);

/* Do isochronous packet descriptors follow this CMD_SUBMIT or RET_SUBMIT? */
static inline bool urb_is_iso(uint32_t num_packets)
{
	return num_packets != 0 && num_packets != USBIP_NOT_ISO;
}

/*
 * Does CMD_SUBMIT's data follow the reply, not the command?  Its direction
 * says, for control transfers too: that is what both ends of Linux frame by.
 */
bool urb_is_in(const struct usbip_header *command);

/*
 * Which way the data of a control transfer goes on the bus, as libusb and
 * usbfs decide it.  A careless driver's CMD_SUBMIT may say otherwise in its
 * direction.
 */
bool urb_is_setup_in(const uint8_t setup[static 8]);

/*
 * Judges a CMD_SUBMIT or CMD_UNLINK for the device `devid`.  An unlink's
 * direction and endpoint mean nothing and are not looked at.
 */
enum urb_verdict urb_check_command(const struct usbip_header *command,
				   uint32_t devid);

/*
 * How many bytes of data, before any packet descriptors, follow an accepted
 * command: 0 for IN and for CMD_UNLINK.
 */
size_t urb_command_payload(const struct usbip_header *command);

/*
 * Judges a submitted packet list: each inside `length`, in 64 bits; the sum
 * too.  Actual lengths and statuses of a command mean nothing.
 */
enum urb_verdict urb_check_packets(const struct usbip_iso_packet *packets,
				   size_t num_packets, size_t length);

/* 0 or a negative errno of Linux? */
bool urb_is_status(int32_t status);

/* A command that waits for its answer. */
struct urb_entry {
	uint32_t seqnum;
	uint32_t length;      /* transfer_buffer_length */
	uint32_t num_packets; /* as submitted */
	uint32_t target;      /* of an unlink */
	bool is_in;
	bool is_unlink;
	bool is_device_descriptor; /* GET_DESCRIPTOR for it */
	/* num_packets submitted packets, owned by the table; NULL if not iso */
	struct usbip_iso_packet *packets;
	void *owner; /* urb_table_set_owner */
};

struct urb_table; /* seqnum -> struct urb_entry, at most URB_MAX_IN_FLIGHT */

struct urb_table *urb_table_new(void); /* NULL: no memory */
void urb_table_free(struct urb_table *table);
size_t urb_table_count(const struct urb_table *table);

/*
 * Notes an accepted command.  URB_BAD_SEQNUM if it is in flight already,
 * URB_TOO_MANY when full or without memory for the packets.  For an
 * isochronous CMD_SUBMIT `packets` holds the submitted descriptors, which
 * urb_check_packets accepted (copied); otherwise NULL.
 */
enum urb_verdict urb_table_note(struct urb_table *table,
				const struct usbip_header *command,
				const struct usbip_iso_packet *packets);

/* What belongs to a noted command, for who does not only pass it on. */
void urb_table_set_owner(struct urb_table *table, uint32_t seqnum, void *owner);

/*
 * Judges a RET_SUBMIT or RET_UNLINK against its command, which stays noted
 * until urb_table_settle.  On URB_OK `*ret_entry` is the command (valid until
 * then) and `*reply` is normalised: devid, direction and endpoint 0,
 * num_packets as submitted, error_count no more than that.  RET_UNLINK of a
 * target that was answered before is fine, and so is any status in one: stock
 * servers put the URB's own there when it ended by itself.
 */
enum urb_verdict urb_table_check_reply(struct urb_table *table,
				       struct usbip_header *reply,
				       const struct urb_entry **ret_entry);

/* Bytes of data that follow an accepted reply, before packet descriptors. */
size_t urb_reply_payload(const struct usbip_header *reply,
			 const struct urb_entry *entry);

/*
 * Judges the first `num_bytes`, as many as there are up to
 * URB_DEVICE_DESCRIPTOR_BYTES, of a device descriptor: is it still the device that
 * was imported?  What a gateway showed at import is what was decided on.
 */
#define URB_DEVICE_DESCRIPTOR_BYTES 18
enum urb_verdict urb_check_device_descriptor(const struct usbip_device *device,
					     const uint8_t *bytes,
					     size_t num_bytes);

/*
 * Judges the packet descriptors that follow an accepted reply to a command
 * with packets (entry->packets is not NULL): offsets and lengths as
 * submitted, each actual length within its packet, their sum the header's
 * actual_length, each status 0 or a negative errno (Linux adds up the same:
 * usbip_recv_iso).
 */
enum urb_verdict
urb_check_reply_packets(const struct urb_entry *entry,
			const struct usbip_header *reply,
			const struct usbip_iso_packet *packets);

/*
 * Forgets the command that an accepted reply has answered; a RET_UNLINK also
 * forgets its target, whose RET_SUBMIT would then be a violation.  An unlink
 * that was itself the target of one still has its answer to come.
 */
void urb_table_settle(struct urb_table *table,
		      const struct usbip_header *reply);

#endif
