/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/dial_take.h"

#include <errno.h>
#include <string.h>

#include "vchan-transport/channel.h"

/* USB 2.0, 9.4 and 9.6. */
#define DEVICE_TO_HOST    0x80
#define GET_DESCRIPTOR    6
#define DESCRIPTOR_STRING 3
#define STRING_BYTES      255
#define CONFIG_BYTES      9
#define DEVICE_SERIAL_AT  16
#define DEVICE_CONFIGS_AT 17

struct taker {
	struct import *import;
	uint32_t devid;
	uint32_t next_seqnum;
	struct urb_table *table;
};

static uint16_t get_le16(const uint8_t *in)
{
	return (uint16_t)(in[0] | in[1] << 8);
}

static enum exit_status broke(struct taker *t, int error)
{
	return failure_set(
		&t->import->failure,
		error == -ETIMEDOUT ? EXIT_TIMEOUT : EXIT_CANNOT_REACH,
		"%s: reading the device's descriptors: %s", t->import->gateway,
		error == -ETIMEDOUT ? "it did not answer in time"
		: error == -EPIPE   ? "it ended the conversation"
				    : strerror(-error));
}

static enum exit_status refuse(struct taker *t, const char *what)
{
	return failure_set(&t->import->failure, EXIT_PROTOCOL,
			   "%s: it sent %s; the device is not used",
			   t->import->gateway, what);
}

/* The judged answer's data, `*ret_bytes` of it, or its error in `*ret_status`. */
static enum exit_status receive_answer(struct taker *t, uint8_t *to,
				       size_t *ret_bytes, int *ret_status)
{
	const uint64_t deadline_ms = t->import->deadline_ms;
	uint8_t bytes[USBIP_HEADER_BYTES];
	const struct urb_entry *entry;
	struct usbip_header reply;
	enum urb_verdict verdict;
	int r = channel_read_all(t->import->channel, bytes, sizeof(bytes),
				 deadline_ms);

	if (r < 0)
		return broke(t, r);
	usbip_header_decode(&reply, bytes);
	verdict = urb_table_check_reply(t->table, &reply, &entry);
	if (verdict != URB_OK)
		return refuse(t, urb_verdict_sentence(verdict));
	*ret_bytes = urb_reply_payload(&reply, entry);
	*ret_status = reply.ret_submit.status;
	r = channel_read_all(t->import->channel, to, *ret_bytes, deadline_ms);
	if (r < 0)
		return broke(t, r);
	urb_table_settle(t->table, &reply);
	return EXIT_OK;
}

/* One descriptor of at most `cap` bytes; none is 0 of them. */
static enum exit_status get_descriptor(struct taker *t, uint16_t value,
				       uint16_t index, struct iovec to,
				       size_t *ret_bytes)
{
	struct usbip_header h = {
		.command = USBIP_CMD_SUBMIT,
		.seqnum = t->next_seqnum++,
		.devid = t->devid,
		.direction = USBIP_DIR_IN,
		.submit = { .length = (uint32_t)to.iov_len,
			    .setup = { DEVICE_TO_HOST, GET_DESCRIPTOR,
				       value & 0xff, value >> 8, index & 0xff,
				       index >> 8, to.iov_len & 0xff,
				       (uint8_t)(to.iov_len >> 8) } },
	};
	uint8_t bytes[USBIP_HEADER_BYTES];
	enum exit_status status;
	int urb_status = 0;
	int r;

	usbip_header_encode(bytes, &h);
	(void)urb_table_note(t->table, &h, NULL);
	r = channel_write_all(t->import->channel, bytes, sizeof(bytes),
			      t->import->deadline_ms);
	if (r < 0)
		return broke(t, r);
	status = receive_answer(t, to.iov_base, ret_bytes, &urb_status);
	if (status == EXIT_OK && urb_status != 0)
		*ret_bytes = 0;
	return status;
}

static enum exit_status
get_device(struct taker *t, const struct usbip_device *device, uint8_t *to)
{
	const struct iovec v = { to, URB_DEVICE_DESCRIPTOR_BYTES };
	size_t n = 0;
	enum exit_status status =
		get_descriptor(t, DESCRIPTOR_DEVICE << 8, 0, v, &n);

	if (status != EXIT_OK)
		return status;
	if (n != v.iov_len || to[1] != DESCRIPTOR_DEVICE)
		return refuse(t, "no device descriptor");
	if (urb_check_device_descriptor(device, to, n) != URB_OK)
		return refuse(t, urb_verdict_sentence(URB_BAD_DESCRIPTOR));
	if (to[DEVICE_CONFIGS_AT] > DIAL_MAX_CONFIGURATIONS)
		return refuse(t, "a device of too many configurations");
	return EXIT_OK;
}

static enum exit_status get_configuration(struct taker *t, unsigned index,
					  uint8_t *to, size_t *ret_bytes)
{
	const uint16_t value =
		(uint16_t)(DESCRIPTOR_CONFIGURATION << 8 | index);
	struct iovec v = { to, CONFIG_BYTES };
	size_t n = 0;
	enum exit_status status = get_descriptor(t, value, 0, v, &n);

	if (status != EXIT_OK)
		return status;
	if (n != CONFIG_BYTES || get_le16(to + 2) < CONFIG_BYTES)
		return refuse(t, "no configuration descriptor");
	v.iov_len = get_le16(to + 2);
	if (v.iov_len > URB_MAX_SETUP_LENGTH)
		return refuse(t, "a configuration of more than 4096 bytes");
	status = get_descriptor(t, value, 0, v, &n);
	if (status != EXIT_OK)
		return status;
	if (n != v.iov_len || to[1] != DESCRIPTOR_CONFIGURATION ||
	    get_le16(to + 2) != n)
		return refuse(t, "a configuration that is cut short");
	*ret_bytes = n;
	return EXIT_OK;
}

/* A device without one, or one that does not tell it, has none. */
static enum exit_status get_serial(struct taker *t, uint8_t index,
				   char ret_serial[POLICY_SERIAL_BYTES])
{
	uint8_t bytes[STRING_BYTES];
	const struct iovec v = { bytes, sizeof(bytes) };
	enum exit_status status;
	size_t n = 0;

	ret_serial[0] = '\0';
	if (index == 0)
		return EXIT_OK;
	status = get_descriptor(t, DESCRIPTOR_STRING << 8, 0, v, &n);
	if (status != EXIT_OK || n < 4 || bytes[1] != DESCRIPTOR_STRING)
		return status;
	status = get_descriptor(t, (uint16_t)(DESCRIPTOR_STRING << 8 | index),
				get_le16(bytes + 2), v, &n);
	if (status == EXIT_OK)
		dial_string(bytes, n, ret_serial, POLICY_SERIAL_BYTES);
	return status;
}

static enum exit_status take(struct taker *t, const struct usbip_device *device,
			     struct dial_packet *packet)
{
	uint8_t *bytes = packet->descriptors;
	size_t used = URB_DEVICE_DESCRIPTOR_BYTES;
	enum exit_status status = get_device(t, device, bytes);

	if (status != EXIT_OK)
		return status;
	for (unsigned i = 0; i < bytes[DEVICE_CONFIGS_AT]; i++) {
		size_t n = 0;

		status = get_configuration(t, i, bytes + used, &n);
		if (status != EXIT_OK)
			return status;
		used += n;
	}
	status = get_serial(t, bytes[DEVICE_SERIAL_AT], packet->report.serial);
	packet->report.type = DIAL_TAKEN;
	packet->report.device = *device;
	packet->report.num_descriptor_bytes = (uint32_t)used;
	packet->report.next_seqnum = t->next_seqnum;
	return status;
}

enum exit_status dial_take(struct import *import,
			   const struct usbip_device *device,
			   struct dial_packet *ret_packet)
{
	struct taker t = { .import = import,
			   .devid = usbip_devid(device),
			   .next_seqnum = 1,
			   .table = urb_table_new() };
	enum exit_status status;

	if (!t.table)
		return failure_set(&import->failure, EXIT_FAILED, "no memory");
	status = take(&t, device, ret_packet);
	urb_table_free(t.table);
	return status;
}

/* ---- strings ---- */

/* The code point at *at, which moves behind it; halves of pairs become U+FFFD. */
static uint32_t next_point(const uint8_t *bytes, size_t num_bytes, size_t *at)
{
	uint32_t unit = get_le16(bytes + *at);
	uint32_t low;

	*at += 2;
	if (unit < 0xd800 || unit > 0xdfff)
		return unit;
	if (unit > 0xdbff || num_bytes - *at < 2)
		return 0xfffd;
	low = get_le16(bytes + *at);
	if (low < 0xdc00 || low > 0xdfff)
		return 0xfffd;
	*at += 2;
	return 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
}

static size_t put_utf8(uint32_t point, uint8_t to[static 4])
{
	static const uint8_t marks[] = { 0, 0x00, 0xc0, 0xe0, 0xf0 };
	size_t n = point < 0x80      ? 1
		   : point < 0x800   ? 2
		   : point < 0x10000 ? 3
				     : 4;

	for (size_t i = n - 1; i > 0; i--) {
		to[i] = (uint8_t)(0x80 | (point & 0x3f));
		point >>= 6;
	}
	to[0] = (uint8_t)(marks[n] | point);
	return n;
}

void dial_string(const uint8_t *descriptor, size_t num_bytes, char *ret_text,
		 size_t cap)
{
	size_t used = 0;
	size_t at = 2;

	ret_text[0] = '\0';
	if (num_bytes < 2 || descriptor[1] != DESCRIPTOR_STRING)
		return;
	if (num_bytes > descriptor[0])
		num_bytes = descriptor[0];
	while (at + 2 <= num_bytes) {
		uint8_t bytes[4];
		uint32_t point = next_point(descriptor, num_bytes, &at);
		size_t n = put_utf8(point, bytes);

		if (point == 0 || used + n >= cap)
			break;
		memcpy(ret_text + used, bytes, n);
		used += n;
	}
	ret_text[used] = '\0';
}
