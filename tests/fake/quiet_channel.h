/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quiet_channel.h - a channel in memory, one of whose ends is the test's own: it
 * puts in what is to be read, takes out what was written, and says how much room
 * there is and how it ends. It has no descriptors and wakes nobody.
 */
#ifndef QUIET_CHANNEL_H
#define QUIET_CHANNEL_H

#include "vchan-transport/channel.h"

#define QUIET_CHANNEL_BYTES 2048

/* Owned by its test; channel_free() leaves it alone. */
struct quiet_channel {
	struct channel base;
	uint8_t in[QUIET_CHANNEL_BYTES];
	size_t in_used;
	size_t in_read;
	size_t in_seen; /* so much of it was shown */
	uint8_t out[QUIET_CHANNEL_BYTES];
	size_t out_used;
	size_t room; /* that is left for what is written; SIZE_MAX: always */
	int end;     /* of what is read, when it is; also -ECONNRESET of all */
};

/* Empty, and with room for everything. */
void quiet_channel_init(struct quiet_channel *q);

void quiet_channel_put(struct quiet_channel *q, const void *bytes, size_t n);
/* Drops what was looked at in `out`. */
void quiet_channel_taken(struct quiet_channel *q, size_t n);
/* What was put in and is not read yet. */
size_t quiet_channel_unread(const struct quiet_channel *q,
			    const uint8_t **ret_bytes);

#endif
