/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be told from a header alone: field against limit. Lengths are
 * compared before they are added, and sums are made in 64 bits.
 */
#include "vchan-transport/urb_check.h"

#include <assert.h>

/* The largest errno that Linux returns. */
#define MAX_ERRNO 4095

const char *urb_verdict_sentence(enum urb_verdict verdict)
{
	switch (verdict) {
	case URB_OK:
		return "what it may send";
	case URB_BAD_COMMAND:
		return "a command that it may not send";
	case URB_BAD_DEVID:
		return "a command for another device";
	case URB_BAD_DIRECTION:
		return "a direction that is neither in nor out";
	case URB_BAD_ENDPOINT:
		return "an endpoint number above 15";
	case URB_BAD_LENGTH:
		return "a transfer longer than 16 MiB";
	case URB_BAD_PACKETS:
		return "a wrong number of isochronous packets";
	case URB_BAD_PACKET:
		return "an isochronous packet outside its buffer";
	case URB_BAD_STATUS:
		return "a status that is neither 0 nor an error";
	case URB_BAD_ACTUAL:
		return "an actual length that cannot be";
	case URB_BAD_SEQNUM:
		return "a sequence number that is in flight already";
	case URB_UNKNOWN_SEQNUM:
		return "an answer to nothing that was asked";
	case URB_BAD_DESCRIPTOR:
		return "the descriptor of another device than was imported";
	case URB_TOO_MANY:
		return "more transfers at once than may be in flight";
	}
	return "something unknown";
}

bool urb_is_in(const struct usbip_header *command)
{
	return command->direction == USBIP_DIR_IN;
}

bool urb_is_setup_in(const uint8_t setup[static 8])
{
	return (setup[0] & 0x80) != 0 && (setup[6] | setup[7]) != 0;
}

static enum urb_verdict check_submit(const struct usbip_header *command)
{
	const struct usbip_submit *submit = &command->submit;

	if (command->direction > USBIP_DIR_IN)
		return URB_BAD_DIRECTION;
	if (command->endpoint > 15)
		return URB_BAD_ENDPOINT;
	if (submit->length > URB_MAX_LENGTH)
		return URB_BAD_LENGTH;
	if (!urb_is_iso(submit->num_packets))
		return URB_OK;
	if (submit->num_packets > USBIP_MAX_ISO_PACKETS ||
	    command->endpoint == 0)
		return URB_BAD_PACKETS;
	return URB_OK;
}

enum urb_verdict urb_check_command(const struct usbip_header *command,
				   uint32_t devid)
{
	bool is_submit = command->command == USBIP_CMD_SUBMIT;

	if (!is_submit && command->command != USBIP_CMD_UNLINK)
		return URB_BAD_COMMAND;
	if (command->devid != devid)
		return URB_BAD_DEVID;
	return is_submit ? check_submit(command) : URB_OK;
}

size_t urb_command_payload(const struct usbip_header *command)
{
	if (command->command != USBIP_CMD_SUBMIT || urb_is_in(command))
		return 0;
	return command->submit.length;
}

enum urb_verdict urb_check_packets(const struct usbip_iso_packet *packets,
				   size_t num_packets, size_t length)
{
	uint64_t sum = 0;

	if (num_packets > USBIP_MAX_ISO_PACKETS)
		return URB_BAD_PACKETS;
	for (size_t i = 0; i < num_packets; i++) {
		if (packets[i].offset > length ||
		    packets[i].length > length - packets[i].offset)
			return URB_BAD_PACKET;
		sum += packets[i].length;
	}
	return sum > length ? URB_BAD_PACKET : URB_OK;
}

bool urb_is_status(int32_t status)
{
	return status <= 0 && status >= -MAX_ERRNO;
}

size_t urb_reply_payload(const struct usbip_header *reply,
			 const struct urb_entry *entry)
{
	if (reply->command != USBIP_RET_SUBMIT || !entry->is_in)
		return 0;
	return reply->ret_submit.actual_length;
}

static uint16_t get_le16(const uint8_t *bytes)
{
	return (uint16_t)(bytes[0] | bytes[1] << 8);
}

/* USB 2.0, 9.6.1. */
enum urb_verdict urb_check_device_descriptor(const struct usbip_device *device,
					     const uint8_t *bytes,
					     size_t num_bytes)
{
	if (num_bytes >= 7 &&
	    (bytes[4] != device->class || bytes[5] != device->subclass ||
	     bytes[6] != device->protocol))
		return URB_BAD_DESCRIPTOR;
	if (num_bytes >= 14 && (get_le16(bytes + 8) != device->vendor ||
				get_le16(bytes + 10) != device->product ||
				get_le16(bytes + 12) != device->release))
		return URB_BAD_DESCRIPTOR;
	return URB_OK;
}

enum urb_verdict urb_check_reply_packets(const struct urb_entry *entry,
					 const struct usbip_header *reply,
					 const struct usbip_iso_packet *packets)
{
	uint64_t sum = 0;

	assert(entry->packets);
	for (uint32_t i = 0; i < entry->num_packets; i++) {
		const struct usbip_iso_packet *asked = &entry->packets[i];

		if (packets[i].offset != asked->offset ||
		    packets[i].length != asked->length)
			return URB_BAD_PACKET;
		if (packets[i].actual_length > asked->length)
			return URB_BAD_ACTUAL;
		if (!urb_is_status(packets[i].status))
			return URB_BAD_STATUS;
		sum += packets[i].actual_length;
	}
	return sum == reply->ret_submit.actual_length ? URB_OK : URB_BAD_ACTUAL;
}
