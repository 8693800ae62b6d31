/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_share.h - how soon a guest may open channels, and how many pages it may
 * be granted for them (docs/protocol.md, "Guests").  Pure: time comes in.
 *
 * Linux tells its programs nothing of a page that was let go of and is mapped
 * elsewhere still.  Before 5.17 it counts against xen_gntalloc's limit, since
 * then no more, but its memory and its entry in the grant table are lost all the
 * same.  So pages count against the guest when its channel has ended, too, and
 * are forgiven so slowly that somebody can do something about one that keeps
 * them.
 */
#ifndef GUEST_SHARE_H
#define GUEST_SHARE_H

#include <stdint.h>

/* Channels in a row, and how soon there is one more. */
#define GUEST_BURST     128
#define GUEST_REFILL_MS 1000
/* Its part of the pages that can be granted, and how soon all of it is forgiven. */
#define GUEST_SHARE_PART 2
#define GUEST_FORGIVE_MS 3600000u

struct guest_share {
	unsigned channels; /* that it may open now */
	uint64_t refilled_ms;
	uint64_t pages; /* granted to it and not forgiven */
	uint64_t forgiven_ms;
};

void guest_share_init(struct guest_share *share, uint64_t now_ms);

struct guest_share_ask {
	uint64_t pages; /* for a channel */
	uint64_t used;  /* of channels that it has; never forgiven */
	uint64_t limit; /* pages that can be granted in all */
};

/* NULL: one more channel is counted; else why not, in words for the guest. */
const char *guest_share_take(struct guest_share *share,
			     const struct guest_share_ask *ask,
			     uint64_t now_ms);

#endif
