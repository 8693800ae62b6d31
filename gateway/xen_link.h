/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_link.h - one channel of one guest, from its ask in xenstore to the end of
 * its session: the machine of xen_link_fsm.def and what its actions do. The
 * session processes are behind `xen_link_ops`, so that the machine is tested
 * with a real xenstore and no process.
 */
#ifndef XEN_LINK_H
#define XEN_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "gateway/xen_link_fsm.h"
#include "vchan-transport/exit_status.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/store.h"

struct xen_link;

/* What a link has done for it. `arg` is xen_link_options.arg. */
struct xen_link_ops {
	/*
	 * Starts the session: 0, or -errno with the words and the status for
	 * the guest. Its end is told by xen_link_ended, not from within.
	 */
	int (*start)(void *arg, struct xen_link *link, uint32_t ring_bytes,
		     enum exit_status *ret_status,
		     char why[static HANDSHAKE_WHY_BYTES]);
	void (*terminate)(void *arg, struct xen_link *link);
	void (*kill)(void *arg, struct xen_link *link);
	/* XEN_LINK_ON_LIMIT after so long; 0: no more. One at a time. */
	void (*limit)(void *arg, struct xen_link *link, unsigned after_ms);
};

struct xen_link_options {
	struct store *store;
	const struct xen_link_ops *ops;
	void *arg;
	unsigned gateway; /* domains */
	unsigned guest;
	unsigned channel;
	const char *who; /* for the log: "domain 5 (u1)"; borrowed */
};

/* How long STARTING, WAITING, ENDING and KILLING may last. */
#define XEN_LINK_STARTING_MS 10000
#define XEN_LINK_WAITING_MS  15000
#define XEN_LINK_ENDING_MS   3000
#define XEN_LINK_KILLING_MS  1000

/* A session that outlived the manager before. */
enum xen_link_heir {
	XEN_LINK_NO_SESSION,
	XEN_LINK_SESSION,       /* it serves the epoch given */
	XEN_LINK_WRONG_SESSION, /* nobody knows what it serves */
};

/*
 * Begins from what the store says.  A session that outlived the manager goes on
 * if our node says open with its epoch; otherwise it is killed.  Then wants a
 * review.
 */
int xen_link_new(const struct xen_link_options *options,
		 enum xen_link_heir heir, uint64_t epoch,
		 struct xen_link **ret_link);
/* What is in the store stays there.  NULL is fine. */
void xen_link_free(struct xen_link *link);

/* The guest's node may have changed: reads it and steps as long as it matters. */
void xen_link_review(struct xen_link *link);
/*
 * GRANTED, DEAD or LIMIT; reviews.  After DEAD the guest's node is not looked at
 * any more: it may be somebody else's already.
 */
void xen_link_feed(struct xen_link *link, enum xen_link_stim stim);
/*
 * This side wants it to end, with these words for the guest: at once, or when a
 * guest that is not to be seen now is dead, seen again, or given up.  Reviews.
 */
void xen_link_revoke(struct xen_link *link, enum exit_status status,
		     const char *why);
/* Its session has ended: with these words for the guest. Reviews. */
void xen_link_ended(struct xen_link *link, enum exit_status status,
		    const char *why);

enum xen_link_state xen_link_state(const struct xen_link *link);
unsigned xen_link_channel(const struct xen_link *link);
/* Neither a session that could end nor a node of ours: it may be freed. */
bool xen_link_is_idle(const struct xen_link *link);
/* No session that could still end. */
bool xen_link_is_quiet(const struct xen_link *link);

/* What its session was started for, or what was answered last; 0: nothing. */
uint64_t xen_link_epoch(const struct xen_link *link);

#endif
