/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_promises.h - the tests of what channel.h promises, asked of any kind
 * of channel that a test program can open both ends of.
 */
#ifndef CHANNEL_PROMISES_H
#define CHANNEL_PROMISES_H

#include "vchan-transport/channel.h"

struct channel_kind {
	const char *name;
	/* Both ends, in this process and quiet; 0 or -errno. */
	int (*open)(struct channel **ret_a, struct channel **ret_b);
	/* What reading ends in when the peer is killed; 0: ends do not fork. */
	int killed;
	/* Of conversations that end at once, 50 each. */
	int batches;
	bool has_memory; /* to be filled in place */
};

/* cmocka's count of failures. */
int channel_promises_run(const struct channel_kind *kinds, size_t num_kinds);

#endif
