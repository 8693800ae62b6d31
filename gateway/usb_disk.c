/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory stick: the USB mass storage class, bulk-only transport, around a SCSI
 * disk over an image (scsi.h).
 *
 * A command is a command block (CBW) on bulk OUT, a data stage, and a status
 * (CSW) on bulk IN. Each stage takes the URBs of its endpoint as they come, in
 * whatever pieces the guest chose, and what waits on the other endpoint stays
 * there, so URBs may be queued ahead of their stage. Everything is done inside
 * submit: the data goes between the image and the URB's own memory.
 *
 * Where guest and command disagree about the data ("the thirteen cases"), a data
 * stage to the guest ends with a halt, one from it is taken to its end, and the
 * CSW says residue or phase error.
 *
 * Source: Universal Serial Bus Mass Storage Class, Bulk-Only Transport 1.0.
 */
#include "gateway/usb_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/scsi.h"
#include "gateway/usb_virtual.h"

#define ENDPOINT_IN   0x81
#define ENDPOINT_OUT  0x02

#define CBW_BYTES     31
#define CSW_BYTES     13
#define CBW_SIGNATURE 0x43425355u
#define CSW_SIGNATURE 0x53425355u

/* bmRequestType and bRequest. */
#define CLASS_OUT       0x21
#define CLASS_IN        0xa1
#define BULK_ONLY_RESET 0xff
#define GET_MAX_LUN     0xfe

enum csw_status {
	CSW_PASSED = 0,
	CSW_FAILED = 1,
	CSW_PHASE_ERROR = 2,
};

enum bot_state {
	BOT_COMMAND,  /* waits for a CBW */
	BOT_DATA_IN,  /* the guest takes data */
	BOT_DATA_OUT, /* the guest gives data */
	BOT_STATUS,   /* waits for the guest to take the CSW */
	BOT_BROKEN,   /* got what is no CBW: halted until Bulk-Only Reset */
};

struct usb_disk {
	struct usb_virtual virtual; /* first */
	struct scsi_disk scsi;
	enum bot_state state;
	bool is_pumping;
	/* The command at hand. */
	uint32_t tag;
	uint32_t stage_left; /* of the data that the guest expects to move */
	uint32_t residue;    /* of it, what the disk has not dealt with */
	enum csw_status status;
};

#define LE16(value) (value) & 0xff, (value) >> 8

#define VENDOR_ID   0x1d6b
#define PRODUCT_ID  0x0104
#define RELEASE     0x0100

#define CONFIGURATION(total, max_power)                                      \
	9, 2, LE16(total), 1, 1, 0, 0x80,                                    \
		(max_power), /* mass storage, SCSI transparent, bulk-only */ \
		9, 4, 0, 0, 2, 0x08, 0x06, 0x50, 0
#define BULK_ENDPOINT(address, max_packet) \
	7, 5, (address), 2, LE16(max_packet), 0
#define COMPANION 6, 0x30, 15, 0, 0, 0

/* clang-format off */
static const uint8_t super_descriptors[] = {
	18, 1, LE16(0x0300), 0, 0, 0, 9,
	LE16(VENDOR_ID), LE16(PRODUCT_ID), LE16(RELEASE), 1, 2, 3, 1,
	CONFIGURATION(9 + 9 + 2 * (7 + 6), 13),
	BULK_ENDPOINT(ENDPOINT_IN, 1024), COMPANION,
	BULK_ENDPOINT(ENDPOINT_OUT, 1024), COMPANION,
};

static const uint8_t high_descriptors[] = {
	18, 1, LE16(0x0200), 0, 0, 0, 64,
	LE16(VENDOR_ID), LE16(PRODUCT_ID), LE16(RELEASE), 1, 2, 3, 1,
	CONFIGURATION(9 + 9 + 2 * 7, 50),
	BULK_ENDPOINT(ENDPOINT_IN, 512),
	BULK_ENDPOINT(ENDPOINT_OUT, 512),
};

/* USB 2.0 extension, no LPM; SuperSpeed, only that speed, no exit latency. */
static const uint8_t super_bos[] = {
	5, 15, LE16(5 + 7 + 10), 2,
	7, 16, 2, 0, 0, 0, 0,
	10, 16, 3, 0, LE16(8), 3, 0, LE16(0),
};

/* No configuration for another speed. */
static const uint8_t high_qualifier[] = {
	10, 6, LE16(0x0200), 0, 0, 0, 64, 0, 0,
};
/* clang-format on */

static struct usb_disk *disk_of(struct usb_virtual *v)
{
	return (struct usb_disk *)v;
}

static uint32_t get_le32(const uint8_t *from)
{
	return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
	       (uint32_t)from[3] << 24;
}

static void put_le32(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t)value;
	to[1] = (uint8_t)(value >> 8);
	to[2] = (uint8_t)(value >> 16);
	to[3] = (uint8_t)(value >> 24);
}

/* The interface has one setting: as long as it is configured, both are there. */
static struct usb_virtual_endpoint *endpoint_in(struct usb_disk *disk)
{
	return usb_virtual_endpoint(&disk->virtual, ENDPOINT_IN);
}

static struct usb_virtual_endpoint *endpoint_out(struct usb_disk *disk)
{
	return usb_virtual_endpoint(&disk->virtual, ENDPOINT_OUT);
}

/* ---- stages ------------------------------------------------------------- */

static void enter_status(struct usb_disk *disk)
{
	bool is_good = scsi_end(&disk->scsi);

	if (disk->status == CSW_PASSED && !is_good)
		disk->status = CSW_FAILED;
	disk->state = BOT_STATUS;
}

/* Gives up the command; the guest will reset the transport. */
static void fail_phase(struct usb_disk *disk)
{
	scsi_fail(&disk->scsi, SCSI_BAD_FIELD);
	disk->status = CSW_PHASE_ERROR;
}

static void begin_command(struct usb_disk *disk, const uint8_t *cbw)
{
	bool is_in = (cbw[12] & 0x80) != 0;
	bool is_wrong_way;

	disk->tag = get_le32(cbw + 4);
	disk->stage_left = get_le32(cbw + 8);
	disk->residue = disk->stage_left;
	disk->status = CSW_PASSED;
	scsi_begin(&disk->scsi, cbw + 15, cbw[14]);
	is_wrong_way = (disk->scsi.direction == SCSI_TO_HOST) != is_in;
	if (disk->scsi.left > 0 &&
	    (disk->scsi.left > disk->stage_left || is_wrong_way))
		fail_phase(disk);
	if (disk->stage_left == 0)
		enter_status(disk);
	else
		disk->state = is_in ? BOT_DATA_IN : BOT_DATA_OUT;
}

static bool is_cbw(const struct urb *urb)
{
	const uint8_t *cbw = urb->data;

	return urb->length == CBW_BYTES && get_le32(cbw) == CBW_SIGNATURE &&
	       (cbw[12] & 0x7f) == 0 && cbw[13] == 0 && cbw[14] >= 1 &&
	       cbw[14] <= SCSI_CDB_BYTES;
}

/* Each step deals with one URB or one change of state; false: it must wait. */

static bool take_command(struct usb_disk *disk)
{
	struct usb_virtual_endpoint *out = endpoint_out(disk);
	const struct urb *urb = out->head;

	if (!urb)
		return false;
	if (is_cbw(urb)) {
		begin_command(disk, urb->data);
		usb_virtual_finish(out, 0, urb->length);
		return true;
	}
	disk->state = BOT_BROKEN;
	usb_virtual_finish(out, 0, urb->length);
	usb_virtual_halt(out);
	usb_virtual_halt(endpoint_in(disk));
	return true;
}

static bool give_data(struct usb_disk *disk)
{
	struct usb_virtual_endpoint *in = endpoint_in(disk);
	struct urb *urb = in->head;
	size_t wanted;
	size_t moved;

	if (disk->scsi.left == 0 && disk->stage_left > 0) {
		usb_virtual_halt(in);
		enter_status(disk);
		return true;
	}
	if (!urb)
		return false;
	wanted = urb->length < disk->scsi.left ? urb->length
					       : (size_t)disk->scsi.left;
	moved = scsi_data_in(&disk->scsi, urb->data, wanted);
	disk->stage_left -= (uint32_t)moved;
	disk->residue -= (uint32_t)moved;
	if (moved < wanted) {
		/* The halt, next, ends this URB with what it has. */
		urb->actual_length = moved;
		return true;
	}
	if (disk->stage_left == 0)
		enter_status(disk);
	usb_virtual_finish(in, 0, moved);
	return true;
}

static bool take_data(struct usb_disk *disk)
{
	struct usb_virtual_endpoint *out = endpoint_out(disk);
	const struct urb *urb = out->head;
	size_t wanted;

	if (!urb)
		return false;
	wanted = urb->length;
	if (wanted > disk->stage_left) {
		/* More than it announced. */
		fail_phase(disk);
		wanted = disk->stage_left;
	}
	disk->stage_left -= (uint32_t)wanted;
	if (wanted > disk->scsi.left)
		wanted = (size_t)disk->scsi.left;
	disk->residue -=
		(uint32_t)scsi_data_out(&disk->scsi, urb->data, wanted);
	if (disk->stage_left == 0)
		enter_status(disk);
	usb_virtual_finish(out, 0, urb->length);
	return true;
}

static bool give_status(struct usb_disk *disk)
{
	struct usb_virtual_endpoint *in = endpoint_in(disk);
	const struct urb *urb = in->head;

	if (!urb)
		return false;
	if (urb->length < CSW_BYTES) {
		usb_virtual_finish(in, -EOVERFLOW, 0);
		return true;
	}
	put_le32(urb->data, CSW_SIGNATURE);
	put_le32(urb->data + 4, disk->tag);
	put_le32(urb->data + 8, disk->residue);
	urb->data[12] = (uint8_t)disk->status;
	disk->state = BOT_COMMAND;
	usb_virtual_finish(in, 0, CSW_BYTES);
	return true;
}

static bool step(struct usb_disk *disk)
{
	if (!endpoint_in(disk) || !endpoint_out(disk))
		return false;
	switch (disk->state) {
	case BOT_COMMAND:
		return take_command(disk);
	case BOT_DATA_IN:
		return give_data(disk);
	case BOT_DATA_OUT:
		return take_data(disk);
	case BOT_STATUS:
		return give_status(disk);
	case BOT_BROKEN:
		return false;
	}
	return false;
}

/* ---- the model ---------------------------------------------------------- */

static void pump(struct usb_disk *disk)
{
	/* An URB may come while another one is given back: the loop sees it. */
	if (disk->is_pumping)
		return;
	disk->is_pumping = true;
	while (step(disk))
		;
	disk->is_pumping = false;
}

static void disk_on_queued(struct usb_virtual *v,
			   struct usb_virtual_endpoint *e)
{
	(void)e;
	pump(disk_of(v));
}

static int disk_control(struct usb_virtual *v,
			const struct usb_request *request, uint8_t *data)
{
	struct usb_disk *disk = disk_of(v);

	if (request->value != 0 || request->index != 0)
		return -EPIPE;
	if (request->type == CLASS_IN && request->request == GET_MAX_LUN) {
		if (request->length < 1)
			return -EPIPE;
		data[0] = 0;
		return 1;
	}
	if (request->type == CLASS_OUT && request->request == BULK_ONLY_RESET &&
	    request->length == 0) {
		disk->state = BOT_COMMAND;
		pump(disk);
		return 0;
	}
	return -EPIPE;
}

static void disk_on_halt_cleared(struct usb_virtual *v,
				 struct usb_virtual_endpoint *endpoint)
{
	if (disk_of(v)->state == BOT_BROKEN)
		usb_virtual_halt(endpoint);
}

static void disk_on_settings(struct usb_virtual *v)
{
	disk_of(v)->state = BOT_COMMAND;
}

static void disk_free(struct usb_virtual *v)
{
	struct usb_disk *disk = disk_of(v);

	(void)close(disk->scsi.image_fd);
	free(disk);
}

static const struct usb_virtual_model super_disk = {
	.name = "disk",
	.speed = USBIP_SPEED_SUPER,
	.descriptors = super_descriptors,
	.num_descriptor_bytes = sizeof(super_descriptors),
	.bos = super_bos,
	.num_bos_bytes = sizeof(super_bos),
	.control = disk_control,
	.on_queued = disk_on_queued,
	.on_halt_cleared = disk_on_halt_cleared,
	.on_settings = disk_on_settings,
	.free = disk_free,
};

static const struct usb_virtual_model high_disk = {
	.name = "disk",
	.speed = USBIP_SPEED_HIGH,
	.descriptors = high_descriptors,
	.num_descriptor_bytes = sizeof(high_descriptors),
	.qualifier = high_qualifier,
	.control = disk_control,
	.on_queued = disk_on_queued,
	.on_halt_cleared = disk_on_halt_cleared,
	.on_settings = disk_on_settings,
	.free = disk_free,
};

size_t usb_disk_descriptors(bool is_high_speed, const uint8_t **ret_bytes)
{
	const struct usb_virtual_model *m = is_high_speed ? &high_disk
							  : &super_disk;

	*ret_bytes = m->descriptors;
	return m->num_descriptor_bytes;
}

int usb_disk_open(struct loop *loop, int image_fd, bool is_read_only,
		  bool is_high_speed, const char *serial,
		  struct usb_device **ret_device)
{
	const char *const strings[USB_VIRTUAL_STRINGS] = { "xusbip",
							   "Virtual disk",
							   serial };
	struct usb_disk *disk = calloc(1, sizeof(*disk));
	int r = -ENOMEM;

	(void)loop;
	if (!disk)
		goto out;
	r = usb_virtual_init(&disk->virtual,
			     is_high_speed ? &high_disk : &super_disk, strings);
	if (r < 0)
		goto out;
	r = scsi_disk_init(&disk->scsi, image_fd, is_read_only,
			   disk->virtual.strings[2]);
	if (r < 0)
		goto out;
	*ret_device = &disk->virtual.device;
	return 0;
out:
	free(disk);
	(void)close(image_fd);
	return r;
}
