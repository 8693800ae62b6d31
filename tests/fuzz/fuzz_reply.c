/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gateway that says anything: the input is a mix of commands, as the guest's
 * kernel would send them, and of replies. Beside the table a model of vhci_hcd
 * is kept, plain and slow, that does with each accepted reply what Linux does
 * and asserts that nothing it does is out of bounds. A refused reply is dropped
 * and the stream goes on, so many can be tried in one input.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vchan-transport/urb_check.h"

enum {
	DEVID = 0x00010002,
	MOST = 64,
	MOST_PACKETS = 32
};

struct stream {
	const uint8_t *at;
	size_t rest;
};

/* A URB or an unlink that vhci waits for. */
struct waiting {
	struct usbip_header command;
	struct usbip_iso_packet packets[MOST_PACKETS];
};

static struct waiting waiting[MOST];
static size_t num_waiting;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool skip(struct stream *in, size_t num_bytes)
{
	if (num_bytes > in->rest)
		return false;
	in->at += num_bytes;
	in->rest -= num_bytes;
	return true;
}

static bool take_packets(struct stream *in, uint32_t num_packets,
			 struct usbip_iso_packet *packets)
{
	const uint8_t *bytes = in->at;

	if (num_packets > MOST_PACKETS ||
	    !skip(in, (size_t)num_packets * USBIP_ISO_BYTES))
		return false;
	for (uint32_t i = 0; i < num_packets; i++)
		usbip_iso_decode(&packets[i],
				 bytes + (size_t)i * USBIP_ISO_BYTES);
	return true;
}

static struct waiting *find(uint32_t command, uint32_t seqnum)
{
	for (size_t i = 0; i < num_waiting; i++)
		if (waiting[i].command.command == command &&
		    waiting[i].command.seqnum == seqnum)
			return &waiting[i];
	return NULL;
}

static void drop(struct waiting *w)
{
	if (w)
		*w = waiting[--num_waiting];
}

/* False: the rest of the input makes no sense. */
static bool take_command(struct stream *in, struct urb_table *table,
			 const struct usbip_header *header)
{
	struct waiting *w = &waiting[num_waiting];
	bool is_iso = header->command == USBIP_CMD_SUBMIT &&
		      urb_is_iso(header->submit.num_packets);

	if (num_waiting == MOST || urb_check_command(header, DEVID) != URB_OK)
		return false;
	if (is_iso &&
	    (!take_packets(in, header->submit.num_packets, w->packets) ||
	     urb_check_packets(w->packets, header->submit.num_packets,
			       header->submit.length) != URB_OK))
		return false;
	if (urb_table_note(table, header, is_iso ? w->packets : NULL) != URB_OK)
		return false;
	w->command = *header;
	num_waiting++;
	return true;
}

/* usbip_pad_iso: packed data is moved to where each packet was asked for. */
static void unpack(const struct usbip_submit *urb,
		   const struct usbip_ret_submit *reply,
		   const struct usbip_iso_packet *packets)
{
	int64_t from = reply->actual_length;

	for (int64_t i = (int64_t)reply->num_packets - 1; i >= 0; i--) {
		from -= packets[i].actual_length;
		assert(from >= 0);
		assert((uint64_t)packets[i].offset + packets[i].actual_length <=
		       urb->length);
	}
	assert(from == 0);
}

static void give_back(const struct waiting *w, const struct usbip_header *reply,
		      const struct urb_entry *entry,
		      const struct usbip_iso_packet *packets)
{
	const struct usbip_submit *urb = &w->command.submit;
	bool is_in = w->command.direction == USBIP_DIR_IN;

	assert(reply->ret_submit.status <= 0);
	assert(reply->ret_submit.actual_length <= urb->length);
	assert(reply->ret_submit.num_packets == urb->num_packets);
	assert(urb_reply_payload(reply, entry) ==
	       (is_in ? reply->ret_submit.actual_length : 0));
	if (urb_is_iso(urb->num_packets)) {
		assert(reply->ret_submit.error_count <= urb->num_packets);
		unpack(urb, &reply->ret_submit, packets);
	}
}

/* vhci_rx: what the guest's kernel does with what we let pass. */
static void receive(const struct usbip_header *reply,
		    const struct urb_entry *entry,
		    const struct usbip_iso_packet *packets)
{
	uint32_t command = reply->command - 2;
	struct waiting *w = find(command, reply->seqnum);
	uint32_t target;

	assert(w);
	assert(reply->devid == 0 && reply->direction == 0 &&
	       reply->endpoint == 0);
	if (command == USBIP_CMD_SUBMIT) {
		give_back(w, reply, entry, packets);
		drop(w);
		return;
	}
	assert(reply->unlink_status <= 0);
	target = w->command.unlink_seqnum;
	drop(w);
	drop(find(USBIP_CMD_SUBMIT, target));
}

static bool take_reply(struct stream *in, struct urb_table *table,
		       struct usbip_header *reply)
{
	struct usbip_iso_packet packets[MOST_PACKETS];
	const struct urb_entry *entry;

	if (urb_table_check_reply(table, reply, &entry) != URB_OK)
		return true;
	if (!skip(in, urb_reply_payload(reply, entry)))
		return false;
	if (entry->packets) {
		if (!take_packets(in, entry->num_packets, packets))
			return false;
		if (urb_check_reply_packets(entry, reply, packets) != URB_OK)
			return true;
	}
	receive(reply, entry, packets);
	urb_table_settle(table, reply);
	return true;
}

static void settle_all(struct urb_table *table)
{
	while (num_waiting > 0) {
		struct usbip_header reply = waiting[num_waiting - 1].command;

		reply.command += 2;
		urb_table_settle(table, &reply);
		drop(find(reply.command - 2, reply.seqnum));
		if (reply.command == USBIP_RET_UNLINK)
			drop(find(USBIP_CMD_SUBMIT, reply.unlink_seqnum));
	}
	assert(urb_table_count(table) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct urb_table *table; /* kept: making one is slow */
	struct stream in = { data, size };
	bool is_alive = true;

	if (!table)
		table = urb_table_new();
	assert(table);
	while (is_alive && in.rest >= USBIP_HEADER_BYTES) {
		struct usbip_header header;

		usbip_header_decode(&header, in.at);
		(void)skip(&in, USBIP_HEADER_BYTES);
		if (header.command < USBIP_RET_SUBMIT)
			is_alive = take_command(&in, table, &header);
		else
			is_alive = take_reply(&in, table, &header);
		assert(urb_table_count(table) == num_waiting);
	}
	settle_all(table);
	return 0;
}
