/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_share.h - how soon a guest may open channels, and how many pages it may
 * be granted for them (docs/protocol.md, "Guests").  Pure: time comes in.
 *
 * Who has had much of its share gets smaller rings, and is refused only when
 * there is no room for the smallest.
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

#include <stdbool.h>
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
	/* It has got a smaller ring, and not had 3/4 of its share left since. */
	bool is_short;
};

void guest_share_init(struct guest_share *share, uint64_t now_ms);

struct guest_share_ask {
	uint32_t ring_bytes; /* for a channel; a power of two, at most full */
	uint32_t full_bytes; /* of the largest ring that the gateway gives */
	uint64_t used;       /* pages of channels that it has; never forgiven */
	uint64_t limit;      /* pages that can be granted in all */
};

/*
 * NULL: one more channel is counted, with this ring, which may be smaller than
 * what was asked for; else why not, in words for the guest.
 */
const char *guest_share_take(struct guest_share *share,
			     const struct guest_share_ask *ask, uint64_t now_ms,
			     uint32_t *ret_ring_bytes);

#endif
