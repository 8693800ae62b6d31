/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The USB/IP 1.1.1 wire format, field by field. Numbers are big-endian and
 * read from bytes, never through a cast. Encoders write every byte of their
 * output, so nothing of ours that lay in the buffer before can leave.
 */
#include "vchan-transport/usbip.h"

#include <endian.h>
#include <string.h>

/* Where the fields of a device record begin. */
enum {
	DEVICE_BUSID = USBIP_PATH_BYTES,
	DEVICE_BUSNUM = DEVICE_BUSID + USBIP_BUSID_BYTES,
	DEVICE_VENDOR = DEVICE_BUSNUM + 12,
	DEVICE_CLASS = DEVICE_VENDOR + 6,
};

/* Where what depends on the command begins in a header. */
enum {
	HEADER_UNION = 20,
	SUBMIT_SETUP = 40
};

static uint16_t get_be16(const uint8_t *in)
{
	uint16_t value;

	memcpy(&value, in, sizeof(value));
	return be16toh(value);
}

static uint32_t get_be32(const uint8_t *in)
{
	uint32_t value;

	memcpy(&value, in, sizeof(value));
	return be32toh(value);
}

static void put_be16(uint8_t *out, uint16_t value)
{
	value = htobe16(value);
	memcpy(out, &value, sizeof(value));
}

static void put_be32(uint8_t *out, uint32_t value)
{
	value = htobe32(value);
	memcpy(out, &value, sizeof(value));
}

/* A string of at most cap - 1 characters; all that follows it becomes NUL. */
static void get_string(char *ret_text, const uint8_t *in, size_t cap)
{
	size_t length;

	memcpy(ret_text, in, cap);
	length = strnlen(ret_text, cap - 1);
	memset(ret_text + length, 0, cap - length);
}

static void put_string(uint8_t *out, const char *text, size_t cap)
{
	size_t length = strnlen(text, cap - 1);

	memcpy(out, text, length);
	memset(out + length, 0, cap - length);
}

void usbip_op_decode(struct usbip_op *ret_op, const uint8_t in[USBIP_OP_BYTES])
{
	ret_op->version = get_be16(in);
	ret_op->code = get_be16(in + 2);
	ret_op->status = get_be32(in + 4);
}

void usbip_op_encode(uint8_t out[USBIP_OP_BYTES], uint16_t code,
		     enum usbip_status status)
{
	put_be16(out, USBIP_VERSION);
	put_be16(out + 2, code);
	put_be32(out + 4, (uint32_t)status);
}

void usbip_busid_decode(char ret_busid[USBIP_BUSID_BYTES],
			const uint8_t in[USBIP_BUSID_BYTES])
{
	get_string(ret_busid, in, USBIP_BUSID_BYTES);
}

void usbip_busid_encode(uint8_t out[USBIP_BUSID_BYTES], const char *busid)
{
	put_string(out, busid, USBIP_BUSID_BYTES);
}

void usbip_device_decode(struct usbip_device *ret_device,
			 const uint8_t in[USBIP_DEVICE_BYTES])
{
	const uint8_t *numbers = in + DEVICE_BUSNUM;
	const uint8_t *ids = in + DEVICE_VENDOR;
	const uint8_t *bytes = in + DEVICE_CLASS;

	get_string(ret_device->path, in, USBIP_PATH_BYTES);
	get_string(ret_device->busid, in + DEVICE_BUSID, USBIP_BUSID_BYTES);
	ret_device->busnum = get_be32(numbers);
	ret_device->devnum = get_be32(numbers + 4);
	ret_device->speed = get_be32(numbers + 8);
	ret_device->vendor = get_be16(ids);
	ret_device->product = get_be16(ids + 2);
	ret_device->release = get_be16(ids + 4);
	ret_device->class = bytes[0];
	ret_device->subclass = bytes[1];
	ret_device->protocol = bytes[2];
	ret_device->configuration = bytes[3];
	ret_device->num_configurations = bytes[4];
	ret_device->num_interfaces = bytes[5];
}

void usbip_device_encode(uint8_t out[USBIP_DEVICE_BYTES],
			 const struct usbip_device *device)
{
	uint8_t *numbers = out + DEVICE_BUSNUM;
	uint8_t *ids = out + DEVICE_VENDOR;
	uint8_t *bytes = out + DEVICE_CLASS;

	put_string(out, device->path, USBIP_PATH_BYTES);
	put_string(out + DEVICE_BUSID, device->busid, USBIP_BUSID_BYTES);
	put_be32(numbers, device->busnum);
	put_be32(numbers + 4, device->devnum);
	put_be32(numbers + 8, device->speed);
	put_be16(ids, device->vendor);
	put_be16(ids + 2, device->product);
	put_be16(ids + 4, device->release);
	bytes[0] = device->class;
	bytes[1] = device->subclass;
	bytes[2] = device->protocol;
	bytes[3] = device->configuration;
	bytes[4] = device->num_configurations;
	bytes[5] = device->num_interfaces;
}

void usbip_interface_decode(struct usbip_interface *ret_interface,
			    const uint8_t in[USBIP_INTERFACE_BYTES])
{
	ret_interface->class = in[0];
	ret_interface->subclass = in[1];
	ret_interface->protocol = in[2];
}

void usbip_interface_encode(uint8_t out[USBIP_INTERFACE_BYTES],
			    const struct usbip_interface *interface)
{
	out[0] = interface->class;
	out[1] = interface->subclass;
	out[2] = interface->protocol;
	out[3] = 0;
}

static void decode_submit(struct usbip_submit *ret_submit, const uint8_t *in)
{
	const uint8_t *fields = in + HEADER_UNION;

	ret_submit->flags = get_be32(fields);
	ret_submit->length = get_be32(fields + 4);
	ret_submit->start_frame = get_be32(fields + 8);
	ret_submit->num_packets = get_be32(fields + 12);
	ret_submit->interval = get_be32(fields + 16);
	memcpy(ret_submit->setup, in + SUBMIT_SETUP, sizeof(ret_submit->setup));
}

static void decode_ret_submit(struct usbip_ret_submit *ret_reply,
			      const uint8_t *in)
{
	const uint8_t *fields = in + HEADER_UNION;

	ret_reply->status = (int32_t)get_be32(fields);
	ret_reply->actual_length = get_be32(fields + 4);
	ret_reply->start_frame = get_be32(fields + 8);
	ret_reply->num_packets = get_be32(fields + 12);
	ret_reply->error_count = get_be32(fields + 16);
}

void usbip_header_decode(struct usbip_header *ret_header,
			 const uint8_t in[USBIP_HEADER_BYTES])
{
	uint8_t bytes[USBIP_HEADER_BYTES];

	/*
	 * A private copy: the command chooses how the rest is read, so it must
	 * not change meanwhile, and without the barrier the compiler may fetch
	 * it from the peer's memory a second time.
	 */
	memcpy(bytes, in, sizeof(bytes));
	__asm__ volatile("" : : : "memory");

	memset(ret_header, 0, sizeof(*ret_header));
	ret_header->command = get_be32(bytes);
	ret_header->seqnum = get_be32(bytes + 4);
	ret_header->devid = get_be32(bytes + 8);
	ret_header->direction = get_be32(bytes + 12);
	ret_header->endpoint = get_be32(bytes + 16);
	switch (ret_header->command) {
	case USBIP_CMD_SUBMIT:
		decode_submit(&ret_header->submit, bytes);
		break;
	case USBIP_RET_SUBMIT:
		decode_ret_submit(&ret_header->ret_submit, bytes);
		break;
	case USBIP_CMD_UNLINK:
		ret_header->unlink_seqnum = get_be32(bytes + HEADER_UNION);
		break;
	case USBIP_RET_UNLINK:
		ret_header->unlink_status =
			(int32_t)get_be32(bytes + HEADER_UNION);
		break;
	}
}

static void encode_submit(uint8_t *out, const struct usbip_submit *submit)
{
	uint8_t *fields = out + HEADER_UNION;

	put_be32(fields, submit->flags);
	put_be32(fields + 4, submit->length);
	put_be32(fields + 8, submit->start_frame);
	put_be32(fields + 12, submit->num_packets);
	put_be32(fields + 16, submit->interval);
	memcpy(out + SUBMIT_SETUP, submit->setup, sizeof(submit->setup));
}

static void encode_ret_submit(uint8_t *out,
			      const struct usbip_ret_submit *reply)
{
	uint8_t *fields = out + HEADER_UNION;

	put_be32(fields, (uint32_t)reply->status);
	put_be32(fields + 4, reply->actual_length);
	put_be32(fields + 8, reply->start_frame);
	put_be32(fields + 12, reply->num_packets);
	put_be32(fields + 16, reply->error_count);
}

void usbip_header_encode(uint8_t out[USBIP_HEADER_BYTES],
			 const struct usbip_header *header)
{
	put_be32(out, header->command);
	put_be32(out + 4, header->seqnum);
	put_be32(out + 8, header->devid);
	put_be32(out + 12, header->direction);
	put_be32(out + 16, header->endpoint);
	memset(out + HEADER_UNION, 0, USBIP_HEADER_BYTES - HEADER_UNION);
	switch (header->command) {
	case USBIP_CMD_SUBMIT:
		encode_submit(out, &header->submit);
		break;
	case USBIP_RET_SUBMIT:
		encode_ret_submit(out, &header->ret_submit);
		break;
	case USBIP_CMD_UNLINK:
		put_be32(out + HEADER_UNION, header->unlink_seqnum);
		break;
	case USBIP_RET_UNLINK:
		put_be32(out + HEADER_UNION, (uint32_t)header->unlink_status);
		break;
	}
}

void usbip_iso_decode(struct usbip_iso_packet *ret_packet,
		      const uint8_t in[USBIP_ISO_BYTES])
{
	ret_packet->offset = get_be32(in);
	ret_packet->length = get_be32(in + 4);
	ret_packet->actual_length = get_be32(in + 8);
	ret_packet->status = (int32_t)get_be32(in + 12);
}

void usbip_iso_encode(uint8_t out[USBIP_ISO_BYTES],
		      const struct usbip_iso_packet *packet)
{
	put_be32(out, packet->offset);
	put_be32(out + 4, packet->length);
	put_be32(out + 8, packet->actual_length);
	put_be32(out + 12, (uint32_t)packet->status);
}

const char *usbip_status_sentence(uint32_t status)
{
	static const char *const sentences[] = {
		[USBIP_ST_OK] = "success",
		[USBIP_ST_NA] = "the request is refused",
		[USBIP_ST_DEV_BUSY] = "the device is in use by somebody else",
		[USBIP_ST_DEV_ERR] = "the device does not work",
		[USBIP_ST_NODEV] = "no such device",
		[USBIP_ST_ERROR] = "the request failed",
	};

	if (status >= sizeof(sentences) / sizeof(sentences[0]))
		return "a status that USB/IP does not know";
	return sentences[status];
}
