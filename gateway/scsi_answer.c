/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/scsi_answer.h"

#include <string.h>

#define VENDOR   "xusbip  "
#define PRODUCT  "Virtual disk    "
#define REVISION "1.0 "

static void put_be16(uint8_t *to, size_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

static void put_be32(uint8_t *to, uint32_t value)
{
	put_be16(to, value >> 16);
	put_be16(to + 2, value & 0xffff);
}

static void put_be64(uint8_t *to, uint64_t value)
{
	put_be32(to, (uint32_t)(value >> 32));
	put_be32(to + 4, (uint32_t)value);
}

/* Will answer with the buffer's first num_bytes, as far as there is room. */
static enum scsi_sense answer(struct scsi_disk *disk, size_t num_bytes,
			      uint32_t allocated)
{
	disk->direction = SCSI_TO_HOST;
	disk->left = num_bytes < allocated ? num_bytes : allocated;
	return SCSI_OK;
}

enum scsi_sense scsi_request_sense(struct scsi_disk *disk, const uint8_t *cdb)
{
	enum scsi_sense sense = disk->sense;

	if (sense == SCSI_OK && disk->has_new_medium) {
		disk->has_new_medium = false;
		sense = SCSI_MEDIUM_CHANGED;
	}
	disk->sense = SCSI_OK;
	disk->buffer[0] = 0x70; /* current, fixed format */
	disk->buffer[2] = (uint8_t)(sense >> 16);
	disk->buffer[7] = 10;
	disk->buffer[12] = (uint8_t)(sense >> 8);
	disk->buffer[13] = (uint8_t)sense;
	return answer(disk, 18, cdb[4]);
}

/* A T10 designator: who made it, what, and which one. */
static size_t put_identification(struct scsi_disk *disk)
{
	uint8_t *to = disk->buffer + 4;
	size_t serial = strlen(disk->serial);

	to[0] = 2; /* ASCII */
	to[1] = 1; /* of the logical unit, T10 vendor */
	to[3] = (uint8_t)(8 + 16 + serial);
	memcpy(to + 4, VENDOR PRODUCT, 8 + 16);
	memcpy(to + 4 + 8 + 16, disk->serial, serial);
	return 4 + 8 + 16 + serial;
}

static void put_block_limits(struct scsi_disk *disk)
{
	if (!disk->can_unmap)
		return;
	put_be32(disk->buffer + 20, UINT32_MAX);
	put_be32(disk->buffer + 24, SCSI_MAX_UNMAP_RANGES);
	put_be32(disk->buffer + 28, 4096 / SCSI_BLOCK_BYTES);
}

/* Vital product data. */
static enum scsi_sense inquire_page(struct scsi_disk *disk, const uint8_t *cdb)
{
	static const uint8_t pages[] = { 0x00, 0x80, 0x83, 0xb0, 0xb2 };
	size_t length;

	switch (cdb[2]) {
	case 0x00:
		length = sizeof(pages);
		memcpy(disk->buffer + 4, pages, length);
		break;
	case 0x80:
		length = strlen(disk->serial);
		memcpy(disk->buffer + 4, disk->serial, length);
		break;
	case 0x83:
		length = put_identification(disk);
		break;
	case 0xb0:
		length = 60;
		put_block_limits(disk);
		break;
	case 0xb2:
		length = 4;
		/* UNMAP, after which blocks read as zeros; thin. */
		disk->buffer[5] = disk->can_unmap ? 0x84 : 0;
		disk->buffer[6] = disk->can_unmap ? 2 : 0;
		break;
	default:
		return SCSI_BAD_FIELD;
	}
	disk->buffer[1] = cdb[2];
	put_be16(disk->buffer + 2, length);
	return answer(disk, 4 + length, get_be16(cdb + 3));
}

enum scsi_sense scsi_inquiry(struct scsi_disk *disk, const uint8_t *cdb)
{
	if (cdb[1] & 1)
		return inquire_page(disk, cdb);
	if (cdb[2] != 0)
		return SCSI_BAD_FIELD;
	disk->buffer[1] = 0x80; /* removable */
	disk->buffer[2] = 5;    /* SPC-3 */
	disk->buffer[3] = 2;    /* in this format */
	disk->buffer[4] = 31;   /* so many bytes after this one */
	memcpy(disk->buffer + 8, VENDOR PRODUCT REVISION, 28);
	return answer(disk, 36, get_be16(cdb + 3));
}

enum scsi_sense scsi_report_luns(struct scsi_disk *disk, const uint8_t *cdb)
{
	if (cdb[2] > 2)
		return SCSI_BAD_FIELD;
	/* One entry, which is 0; there are no well-known ones (1). */
	put_be32(disk->buffer, cdb[2] == 1 ? 0 : 8);
	return answer(disk, cdb[2] == 1 ? 8 : 16, get_be32(cdb + 6));
}

/*
 * The mode pages asked for, behind a header of header_bytes; the whole length,
 * or 0 for what there is not.
 */
static size_t put_mode_pages(struct scsi_disk *disk, const uint8_t *cdb,
			     size_t header_bytes)
{
	uint8_t page = cdb[2] & 0x3f;
	bool is_changeable = (cdb[2] & 0xc0) == 0x40;
	uint8_t *to = disk->buffer + header_bytes;

	if ((page != 0x08 && page != 0x3f && page != 0x00) ||
	    (cdb[3] != 0 && cdb[3] != 0xff))
		return 0;
	if (page == 0x00)
		return header_bytes;
	to[0] = 0x08; /* caching */
	to[1] = 18;
	to[2] = is_changeable ? 0 : 0x04; /* writes are cached */
	return header_bytes + 20;
}

static enum scsi_sense mode_sense(struct scsi_disk *disk, const uint8_t *cdb,
				  size_t header_bytes, uint32_t allocated)
{
	uint8_t flags = 0x10 | (disk->is_read_only ? 0x80 : 0); /* FUA */
	size_t length;

	if ((cdb[2] & 0xc0) == 0xc0)
		return SCSI_CANNOT_SAVE;
	length = put_mode_pages(disk, cdb, header_bytes);
	if (length == 0)
		return SCSI_BAD_FIELD;
	if (header_bytes == 4) {
		disk->buffer[0] = (uint8_t)(length - 1);
		disk->buffer[2] = flags;
	} else {
		put_be16(disk->buffer, length - 2);
		disk->buffer[3] = flags;
	}
	return answer(disk, length, allocated);
}

enum scsi_sense scsi_mode_sense_6(struct scsi_disk *disk, const uint8_t *cdb)
{
	return mode_sense(disk, cdb, 4, cdb[4]);
}

enum scsi_sense scsi_mode_sense_10(struct scsi_disk *disk, const uint8_t *cdb)
{
	return mode_sense(disk, cdb, 8, get_be16(cdb + 7));
}

enum scsi_sense scsi_read_capacity_10(struct scsi_disk *disk,
				      const uint8_t *cdb)
{
	uint64_t last = disk->num_blocks - 1;

	if (get_be32(cdb + 2) != 0 || (cdb[8] & 1))
		return SCSI_BAD_FIELD;
	put_be32(disk->buffer, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
	put_be32(disk->buffer + 4, SCSI_BLOCK_BYTES);
	return answer(disk, 8, UINT32_MAX);
}

enum scsi_sense scsi_service_action_in(struct scsi_disk *disk,
				       const uint8_t *cdb)
{
	if ((cdb[1] & 0x1f) != 0x10) /* READ CAPACITY 16 */
		return SCSI_BAD_FIELD;
	if (get_be64(cdb + 2) != 0 || (cdb[14] & 1))
		return SCSI_BAD_FIELD;
	put_be64(disk->buffer, disk->num_blocks - 1);
	put_be32(disk->buffer + 8, SCSI_BLOCK_BYTES);
	disk->buffer[14] = disk->can_unmap ? 0xc0 : 0; /* reads as zeros */
	return answer(disk, 32, get_be32(cdb + 10));
}

enum scsi_sense scsi_read_format_capacities(struct scsi_disk *disk,
					    const uint8_t *cdb)
{
	uint64_t blocks = disk->num_blocks;

	disk->buffer[3] = 8;
	put_be32(disk->buffer + 4,
		 blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)blocks);
	put_be32(disk->buffer + 8, SCSI_BLOCK_BYTES);
	disk->buffer[8] = 2; /* formatted */
	return answer(disk, 12, get_be16(cdb + 7));
}
