/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_vchan.h - what the two files of this channel share: channel_vchan.c,
 * which reads and writes, and channel_vchan_open.c, which makes it.
 */
#ifndef CHANNEL_VCHAN_H
#define CHANNEL_VCHAN_H

#include <libxenvchan.h>
#include <xentoollog.h>

#include "vchan-transport/channel.h"

#define CHANNEL_VCHAN_BUFFER_BYTES (64u << 10)
_Static_assert(CHANNEL_VCHAN_BUFFER_BYTES >= CHANNEL_PEEK_BYTES,
	       "holds what peek promises");

/* The first thing that the libraries below said about a failure. */
struct complaint {
	struct xentoollog_logger logger;
	int error; /* errno, 0: nothing was said */
};

struct channel_vchan {
	struct channel base;
	struct complaint complaint;
	struct libxenvchan *vchan;
	const uint8_t *peer_live;
	uint8_t *peer_marks; /* what the peer wants to be notified of */
	uint8_t *own_marks;
	int event_fd;
	int life_fd;       /* client: to its warden; server: -1 */
	uint32_t consumed; /* the indices that are ours to move */
	uint32_t produced;
	int end;          /* how reading ended, 0 before */
	bool is_end_told; /* the caller knows of it */
	bool is_gone;     /* life_fd hung up */
	bool owes_data;   /* the peer waits to be notified of bytes */
	bool owes_room;   /* and of room */
	bool has_unshown; /* what a read left in the buffer */
	bool has_last_word;
	struct channel_last_word last_word;
	size_t start; /* of what is buffered */
	size_t used;
	uint8_t buffer[CHANNEL_VCHAN_BUFFER_BYTES];
};

extern const struct channel_ops channel_vchan_ops;

#endif
