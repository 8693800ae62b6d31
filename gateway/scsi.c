/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/scsi.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "gateway/scsi_answer.h"

#define VERIFY_BYTES 16384

/* What a command needs before it is looked at. */
#define NEEDS_MEDIUM   1u
#define NEEDS_WRITABLE 2u
#define IS_FIRST       4u /* not held up by a unit attention */

#define REQUEST_SENSE  0x03

struct command {
	enum scsi_sense (*begin)(struct scsi_disk *disk, const uint8_t *cdb);
	uint8_t num_bytes; /* of its CDB */
	uint8_t flags;
};

/* ---- steps -------------------------------------------------------------- */

static bool is_on_disk(const struct scsi_disk *disk, uint64_t block,
		       uint64_t count)
{
	return block <= disk->num_blocks && count <= disk->num_blocks - block;
}

static enum scsi_sense move_blocks(struct scsi_disk *disk,
				   enum scsi_direction direction,
				   uint64_t block, uint64_t count)
{
	if (!is_on_disk(disk, block, count))
		return SCSI_BAD_BLOCK;
	disk->direction = direction;
	disk->is_image = true;
	disk->offset = block * SCSI_BLOCK_BYTES;
	disk->left = count * SCSI_BLOCK_BYTES;
	return SCSI_OK;
}

static enum scsi_sense flush(const struct scsi_disk *disk)
{
	if (!disk->is_read_only && fdatasync(disk->image_fd) < 0)
		return SCSI_WRITE_ERROR;
	return SCSI_OK;
}

void scsi_fail(struct scsi_disk *disk, enum scsi_sense reason)
{
	disk->sense = reason;
	disk->left = 0;
	disk->is_through = false;
	disk->is_unmap = false;
}

static size_t read_image(struct scsi_disk *disk, uint8_t *to, size_t num_bytes)
{
	size_t done = 0;

	while (done < num_bytes) {
		ssize_t r = pread(disk->image_fd, to + done, num_bytes - done,
				  (off_t)(disk->offset + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0) { /* 0: the image has become shorter */
			scsi_fail(disk, SCSI_READ_ERROR);
			break;
		}
		done += (size_t)r;
	}
	return done;
}

/* ---- commands ----------------------------------------------------------- */

static enum scsi_sense test_unit_ready(struct scsi_disk *disk,
				       const uint8_t *cdb)
{
	(void)disk;
	(void)cdb;
	return SCSI_OK;
}

static enum scsi_sense start_stop(struct scsi_disk *disk, const uint8_t *cdb)
{
	bool has_power_condition = (cdb[4] & 0xf0) != 0;
	bool is_start = (cdb[4] & 1) != 0;
	bool is_load_eject = (cdb[4] & 2) != 0;

	if (has_power_condition || !is_load_eject)
		return SCSI_OK;
	if (is_start) {
		disk->has_new_medium |= disk->is_ejected;
		disk->is_ejected = false;
		return SCSI_OK;
	}
	if (disk->is_removal_prevented)
		return SCSI_REMOVAL_PREVENTED;
	disk->is_ejected = true;
	return flush(disk);
}

static enum scsi_sense prevent_removal(struct scsi_disk *disk,
				       const uint8_t *cdb)
{
	disk->is_removal_prevented = (cdb[4] & 1) != 0;
	return SCSI_OK;
}

/* READ and WRITE in their four sizes; the operation is in bits 0 to 4. */
static enum scsi_sense read_write_6(struct scsi_disk *disk, const uint8_t *cdb)
{
	uint64_t block = get_be32(cdb) & 0x1fffff;

	return move_blocks(disk, cdb[0] == 0x0a ? SCSI_FROM_HOST : SCSI_TO_HOST,
			   block, cdb[4] ? cdb[4] : 256);
}

static enum scsi_sense read_write(struct scsi_disk *disk, const uint8_t *cdb,
				  uint64_t block, uint64_t count)
{
	bool is_write = (cdb[0] & 0x0f) == 0x0a;

	if (cdb[1] >> 5) /* protection information */
		return SCSI_BAD_FIELD;
	disk->is_through = is_write && (cdb[1] & 0x08);
	return move_blocks(disk, is_write ? SCSI_FROM_HOST : SCSI_TO_HOST,
			   block, count);
}

static enum scsi_sense read_write_10(struct scsi_disk *disk, const uint8_t *cdb)
{
	return read_write(disk, cdb, get_be32(cdb + 2), get_be16(cdb + 7));
}

static enum scsi_sense read_write_12(struct scsi_disk *disk, const uint8_t *cdb)
{
	return read_write(disk, cdb, get_be32(cdb + 2), get_be32(cdb + 6));
}

static enum scsi_sense read_write_16(struct scsi_disk *disk, const uint8_t *cdb)
{
	return read_write(disk, cdb, get_be64(cdb + 2), get_be32(cdb + 10));
}

static enum scsi_sense verify_10(struct scsi_disk *disk, const uint8_t *cdb)
{
	uint64_t block = get_be32(cdb + 2);
	uint64_t count = get_be16(cdb + 7);
	uint64_t left = count * SCSI_BLOCK_BYTES;
	uint8_t bytes[VERIFY_BYTES];

	if (cdb[1] & 0xe6) /* protection, or a comparison with data */
		return SCSI_BAD_FIELD;
	if (!is_on_disk(disk, block, count))
		return SCSI_BAD_BLOCK;
	disk->offset = block * SCSI_BLOCK_BYTES;
	while (left > 0) {
		size_t n = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);

		if (read_image(disk, bytes, n) < n)
			return SCSI_READ_ERROR;
		disk->offset += n;
		left -= n;
	}
	return SCSI_OK;
}

static enum scsi_sense synchronize_10(struct scsi_disk *disk,
				      const uint8_t *cdb)
{
	if (!is_on_disk(disk, get_be32(cdb + 2), get_be16(cdb + 7)))
		return SCSI_BAD_BLOCK;
	return flush(disk);
}

static enum scsi_sense synchronize_16(struct scsi_disk *disk,
				      const uint8_t *cdb)
{
	if (!is_on_disk(disk, get_be64(cdb + 2), get_be32(cdb + 10)))
		return SCSI_BAD_BLOCK;
	return flush(disk);
}

static enum scsi_sense unmap(struct scsi_disk *disk, const uint8_t *cdb)
{
	uint32_t length = get_be16(cdb + 7);

	if (!disk->can_unmap)
		return SCSI_BAD_COMMAND;
	if ((cdb[1] & 1) || length > sizeof(disk->buffer))
		return SCSI_BAD_FIELD;
	if (length > 0 && length < 8)
		return SCSI_BAD_LIST_LENGTH;
	disk->is_unmap = length > 0;
	disk->direction = SCSI_FROM_HOST;
	disk->left = length;
	return SCSI_OK;
}

/* All ranges are judged before the first is unmapped. */
static enum scsi_sense unmap_ranges(struct scsi_disk *disk)
{
	size_t num_ranges = get_be16(disk->buffer + 2) / 16;
	const uint8_t *range = disk->buffer + 8;

	if (num_ranges > (disk->offset - 8) / 16)
		return SCSI_BAD_PARAMETER;
	for (size_t i = 0; i < num_ranges; i++)
		if (!is_on_disk(disk, get_be64(range + 16 * i),
				get_be32(range + 16 * i + 8)))
			return SCSI_BAD_BLOCK;
	for (size_t i = 0; i < num_ranges; i++, range += 16) {
		off_t count = (off_t)get_be32(range + 8);

		if (count > 0 &&
		    fallocate(disk->image_fd,
			      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)get_be64(range) * SCSI_BLOCK_BYTES,
			      count * SCSI_BLOCK_BYTES) < 0)
			return SCSI_WRITE_ERROR;
	}
	return SCSI_OK;
}

/* ---- the command set ---------------------------------------------------- */

#define READS  NEEDS_MEDIUM
#define WRITES (NEEDS_MEDIUM | NEEDS_WRITABLE)

/* By operation code; without a function, there is no such command. */
static const struct command commands[256] = {
	[0x00] = { test_unit_ready, 6, NEEDS_MEDIUM },
	[REQUEST_SENSE] = { scsi_request_sense, 6, IS_FIRST },
	[0x08] = { read_write_6, 6, READS },
	[0x0a] = { read_write_6, 6, WRITES },
	[0x12] = { scsi_inquiry, 6, IS_FIRST },
	[0x1a] = { scsi_mode_sense_6, 6, 0 },
	[0x1b] = { start_stop, 6, 0 },
	[0x1e] = { prevent_removal, 6, 0 },
	[0x23] = { scsi_read_format_capacities, 10, NEEDS_MEDIUM },
	[0x25] = { scsi_read_capacity_10, 10, NEEDS_MEDIUM },
	[0x28] = { read_write_10, 10, READS },
	[0x2a] = { read_write_10, 10, WRITES },
	[0x2f] = { verify_10, 10, READS },
	[0x35] = { synchronize_10, 10, NEEDS_MEDIUM },
	[0x42] = { unmap, 10, WRITES },
	[0x5a] = { scsi_mode_sense_10, 10, 0 },
	[0x88] = { read_write_16, 16, READS },
	[0x8a] = { read_write_16, 16, WRITES },
	[0x91] = { synchronize_16, 16, NEEDS_MEDIUM },
	[0x9e] = { scsi_service_action_in, 16, NEEDS_MEDIUM },
	[0xa0] = { scsi_report_luns, 12, IS_FIRST },
	[0xa8] = { read_write_12, 12, READS },
	[0xaa] = { read_write_12, 12, WRITES },
};

static enum scsi_sense begin(struct scsi_disk *disk, const uint8_t *cdb,
			     size_t num_bytes)
{
	const struct command *command = &commands[cdb[0]];

	if (cdb[0] != REQUEST_SENSE)
		disk->sense = SCSI_OK;
	if (disk->has_new_medium && !(command->flags & IS_FIRST)) {
		disk->has_new_medium = false;
		return SCSI_MEDIUM_CHANGED;
	}
	if (!command->begin)
		return SCSI_BAD_COMMAND;
	if (num_bytes < command->num_bytes)
		return SCSI_BAD_FIELD;
	if ((command->flags & NEEDS_MEDIUM) && disk->is_ejected)
		return SCSI_NO_MEDIUM;
	if ((command->flags & NEEDS_WRITABLE) && disk->is_read_only)
		return SCSI_WRITE_PROTECTED;
	return command->begin(disk, cdb);
}

void scsi_begin(struct scsi_disk *disk, const uint8_t *cdb, size_t num_bytes)
{
	uint8_t padded[SCSI_CDB_BYTES] = { 0 };
	enum scsi_sense sense;

	if (num_bytes > sizeof(padded))
		num_bytes = sizeof(padded);
	memcpy(padded, cdb, num_bytes);
	disk->direction = SCSI_NO_DATA;
	disk->left = 0;
	disk->offset = 0;
	disk->is_image = false;
	disk->is_through = false;
	disk->is_unmap = false;
	memset(disk->buffer, 0, sizeof(disk->buffer));
	sense = begin(disk, padded, num_bytes);
	if (sense != SCSI_OK)
		scsi_fail(disk, sense);
}

static size_t write_image(struct scsi_disk *disk, const uint8_t *from,
			  size_t num_bytes)
{
	size_t done = 0;

	while (done < num_bytes) {
		ssize_t r = pwrite(disk->image_fd, from + done,
				   num_bytes - done,
				   (off_t)(disk->offset + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0) {
			bool is_full = r < 0 &&
				       (errno == ENOSPC || errno == EDQUOT);

			scsi_fail(disk,
				  is_full ? SCSI_NO_SPACE : SCSI_WRITE_ERROR);
			break;
		}
		done += (size_t)r;
	}
	return done;
}

/* The buffer ends before `left` would: answer() and unmap() saw to it. */
size_t scsi_data_in(struct scsi_disk *disk, uint8_t *to, size_t num_bytes)
{
	size_t done = num_bytes < disk->left ? num_bytes : (size_t)disk->left;

	if (done == 0)
		return 0;
	if (disk->is_image)
		done = read_image(disk, to, done);
	else
		memcpy(to, disk->buffer + disk->offset, done);
	disk->offset += done;
	if (disk->left > 0)
		disk->left -= done;
	return done;
}

size_t scsi_data_out(struct scsi_disk *disk, const uint8_t *from,
		     size_t num_bytes)
{
	size_t done = num_bytes < disk->left ? num_bytes : (size_t)disk->left;

	if (done == 0)
		return 0;
	if (disk->is_image)
		done = write_image(disk, from, done);
	else
		memcpy(disk->buffer + disk->offset, from, done);
	disk->offset += done;
	if (disk->left > 0)
		disk->left -= done;
	return done;
}

bool scsi_end(struct scsi_disk *disk)
{
	enum scsi_sense sense = SCSI_OK;

	if (disk->is_unmap && disk->left == 0)
		sense = unmap_ranges(disk);
	else if (disk->is_through && disk->left == 0)
		sense = flush(disk);
	if (sense != SCSI_OK)
		scsi_fail(disk, sense);
	disk->is_unmap = false;
	disk->is_through = false;
	disk->left = 0;
	return disk->sense == SCSI_OK;
}

/* A hole behind the end changes nothing, but tells whether holes can be made. */
static bool can_punch(int fd, off_t size)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, size,
			 SCSI_BLOCK_BYTES) == 0;
}

int scsi_disk_init(struct scsi_disk *disk, int image_fd, bool is_read_only,
		   const char *serial)
{
	off_t size = lseek(image_fd, 0, SEEK_END);
	size_t length = strlen(serial);

	if (size < 0)
		return -errno;
	if (size < (off_t)SCSI_BLOCK_BYTES)
		return -EINVAL;
	if (length >= sizeof(disk->serial))
		length = sizeof(disk->serial) - 1;
	*disk = (struct scsi_disk){
		.image_fd = image_fd,
		.num_blocks = (uint64_t)size / SCSI_BLOCK_BYTES,
		.is_read_only = is_read_only,
		.can_unmap = !is_read_only && can_punch(image_fd, size),
	};
	memcpy(disk->serial, serial, length);
	return 0;
}
