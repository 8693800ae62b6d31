/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scsi.h - a removable direct-access disk over an image file: the SCSI commands
 * that hosts send to memory sticks.
 *
 * A command has three steps. scsi_begin() judges it and says which way how many
 * bytes will go. scsi_data_in() or scsi_data_out() moves them in pieces of any
 * size, straight between the image and the caller's memory. scsi_end() does what
 * needs all data to be there, and says how it went; a command that failed
 * anywhere leaves the reason for REQUEST SENSE. A command may be given up at any
 * point by beginning the next one.
 *
 * The host chooses every byte of a command; nothing in it is believed.
 *
 * Source: SPC-3, SBC-3; what Linux's sd and usb-storage ask of a stick.
 */
#ifndef SCSI_H
#define SCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCSI_BLOCK_BYTES  512u
#define SCSI_CDB_BYTES    16
#define SCSI_SERIAL_BYTES 64 /* its NUL included */

/* Of an UNMAP's list; also enough for every answer that is not read data. */
#define SCSI_MAX_UNMAP_RANGES 32
#define SCSI_BUFFER_BYTES     (8 + 16 * SCSI_MAX_UNMAP_RANGES)

enum scsi_direction {
	SCSI_NO_DATA,
	SCSI_TO_HOST,
	SCSI_FROM_HOST,
};

/* Sense key, additional code and qualifier, a byte each. */
enum scsi_sense {
	SCSI_OK = 0,
	SCSI_NO_MEDIUM = 0x023a00,
	SCSI_WRITE_ERROR = 0x030c00,
	SCSI_READ_ERROR = 0x031100,
	SCSI_BAD_LIST_LENGTH = 0x051a00,
	SCSI_BAD_COMMAND = 0x052000,
	SCSI_BAD_BLOCK = 0x052100,
	SCSI_BAD_FIELD = 0x052400,
	SCSI_BAD_PARAMETER = 0x052600,
	SCSI_CANNOT_SAVE = 0x053900,
	SCSI_REMOVAL_PREVENTED = 0x055302,
	SCSI_MEDIUM_CHANGED = 0x062800,
	SCSI_WRITE_PROTECTED = 0x072700,
	SCSI_NO_SPACE = 0x072707,
};

struct scsi_disk {
	int image_fd; /* borrowed */
	uint64_t num_blocks;
	bool is_read_only;
	bool can_unmap; /* the image's file system makes holes */
	char serial[SCSI_SERIAL_BYTES];

	bool is_ejected;
	bool is_removal_prevented;
	bool has_new_medium; /* to be told to the host once */
	enum scsi_sense sense;

	/* The command at hand. */
	enum scsi_direction direction;
	uint64_t left; /* bytes still to be moved */
	bool is_image; /* they are the image's, at `offset`; else the buffer's */
	uint64_t offset;
	bool is_through; /* to be on stable storage at the end */
	bool is_unmap;   /* the buffer gathers an UNMAP's list */
	uint8_t buffer[SCSI_BUFFER_BYTES];
};

/*
 * A disk over an image, a file or a block device; a last part of less than a
 * block is not used.  -EINVAL: there is not even one block; else -errno.
 */
int scsi_disk_init(struct scsi_disk *disk, int image_fd, bool is_read_only,
		   const char *serial);

/*
 * Begins a command: disk->direction and disk->left say what will be moved, which
 * is nothing if it failed already.
 */
void scsi_begin(struct scsi_disk *disk, const uint8_t *cdb, size_t num_bytes);

/* Ends the command at hand for this reason; nothing more is moved. */
void scsi_fail(struct scsi_disk *disk, enum scsi_sense reason);

/*
 * Moves the next bytes, at most disk->left.  Fewer than asked for: the command
 * failed there, and nothing more is moved.
 */
size_t scsi_data_in(struct scsi_disk *disk, uint8_t *to, size_t num_bytes);
size_t scsi_data_out(struct scsi_disk *disk, const uint8_t *from,
		     size_t num_bytes);

/* Ends the command, once; true if it went well. */
bool scsi_end(struct scsi_disk *disk);

#endif
