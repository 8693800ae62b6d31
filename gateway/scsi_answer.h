/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scsi_answer.h - the commands of a scsi_disk that ask what it is: each writes
 * its answer into the disk's buffer, which the caller has zeroed, and cuts it to
 * the room that the command block says there is.
 */
#ifndef SCSI_ANSWER_H
#define SCSI_ANSWER_H

#include "gateway/scsi.h"

static inline uint32_t get_be16(const uint8_t *from)
{
	return (uint32_t)from[0] << 8 | from[1];
}

static inline uint32_t get_be32(const uint8_t *from)
{
	return get_be16(from) << 16 | get_be16(from + 2);
}

static inline uint64_t get_be64(const uint8_t *from)
{
	return (uint64_t)get_be32(from) << 32 | get_be32(from + 4);
}

enum scsi_sense scsi_request_sense(struct scsi_disk *disk, const uint8_t *cdb);
enum scsi_sense scsi_inquiry(struct scsi_disk *disk, const uint8_t *cdb);
enum scsi_sense scsi_report_luns(struct scsi_disk *disk, const uint8_t *cdb);
enum scsi_sense scsi_mode_sense_6(struct scsi_disk *disk, const uint8_t *cdb);
enum scsi_sense scsi_mode_sense_10(struct scsi_disk *disk, const uint8_t *cdb);
enum scsi_sense scsi_read_capacity_10(struct scsi_disk *disk,
				      const uint8_t *cdb);
enum scsi_sense scsi_service_action_in(struct scsi_disk *disk,
				       const uint8_t *cdb);
enum scsi_sense scsi_read_format_capacities(struct scsi_disk *disk,
					    const uint8_t *cdb);

#endif
