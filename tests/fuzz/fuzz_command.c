/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that says anything: the input is a stream of commands with their
 * data and packets, as a gateway reads it. What is accepted keeps to every
 * limit, and the stream ends at the first violation.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vchan-transport/urb_check.h"

enum {
	DEVID = 0x00010002,
	MOST_COMMANDS = 256
};

struct stream {
	const uint8_t *at;
	size_t rest;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool skip(struct stream *in, size_t num_bytes)
{
	if (num_bytes > in->rest)
		return false;
	in->at += num_bytes;
	in->rest -= num_bytes;
	return true;
}

/* Every limit, said another way than the check says it. */
static void assert_within_limits(const struct usbip_header *header,
				 const uint8_t *bytes)
{
	uint8_t again[USBIP_HEADER_BYTES];

	assert(header->devid == DEVID);
	assert(urb_command_payload(header) <= URB_MAX_LENGTH);
	if (header->command != USBIP_CMD_SUBMIT)
		return;
	assert((header->endpoint & ~15u) == 0);
	assert((header->direction & ~1u) == 0);
	assert((int32_t)header->submit.length >= 0);
	assert((int32_t)header->submit.num_packets >= -1);
	assert((int32_t)header->submit.num_packets <= USBIP_MAX_ISO_PACKETS);
	usbip_header_encode(again, header);
	assert(memcmp(again, bytes, sizeof(again)) == 0);
}

static bool take_packets(struct stream *in, const struct usbip_submit *submit,
			 struct usbip_iso_packet *packets)
{
	const uint8_t *bytes = in->at;
	size_t sum = 0;

	if (!skip(in, (size_t)submit->num_packets * USBIP_ISO_BYTES))
		return false;
	for (uint32_t i = 0; i < submit->num_packets; i++)
		usbip_iso_decode(&packets[i],
				 bytes + (size_t)i * USBIP_ISO_BYTES);
	if (urb_check_packets(packets, submit->num_packets, submit->length) !=
	    URB_OK)
		return false;
	for (uint32_t i = 0; i < submit->num_packets; i++) {
		sum += packets[i].length;
		assert((uint64_t)packets[i].offset + packets[i].length <=
		       submit->length);
	}
	assert(sum <= submit->length);
	return true;
}

/* True if the command was noted, and the stream goes on. */
static bool take_command(struct stream *in, struct urb_table *table,
			 uint32_t *ret_seqnum)
{
	static struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS];
	const uint8_t *bytes = in->at;
	struct usbip_header header;
	bool has_packets;

	if (!skip(in, USBIP_HEADER_BYTES))
		return false;
	usbip_header_decode(&header, bytes);
	if (urb_check_command(&header, DEVID) != URB_OK)
		return false;
	assert_within_limits(&header, bytes);
	has_packets = header.command == USBIP_CMD_SUBMIT &&
		      urb_is_iso(header.submit.num_packets);
	if (!skip(in, urb_command_payload(&header)) ||
	    (has_packets && !take_packets(in, &header.submit, packets)))
		return false;
	*ret_seqnum = header.seqnum;
	return urb_table_note(table, &header, has_packets ? packets : NULL) ==
	       URB_OK;
}

/* Each noted seqnum is settled as what it was. */
static void settle(struct urb_table *table, uint32_t seqnum)
{
	struct usbip_header reply = {
		.command = USBIP_RET_SUBMIT,
		.seqnum = seqnum,
	};

	urb_table_settle(table, &reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct urb_table *table; /* kept: making one is slow */
	uint32_t seqnums[MOST_COMMANDS];
	struct stream in = { data, size };
	size_t count = 0;

	if (!table)
		table = urb_table_new();
	assert(table);
	while (count < MOST_COMMANDS &&
	       take_command(&in, table, &seqnums[count])) {
		count++;
		assert(urb_table_count(table) == count);
	}
	for (size_t i = 0; i < count; i++)
		settle(table, seqnums[i]);
	assert(urb_table_count(table) == 0);
	return 0;
}
