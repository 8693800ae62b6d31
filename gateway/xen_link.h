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

#include "vchan-transport/exit_status.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/store.h"

enum xen_link_state {
#define STATE(name, meaning) XEN_LINK_##name,
#include "gateway/xen_link_fsm.def"
};

enum xen_link_stim {
#define STIM(name, meaning) XEN_LINK_ON_##name,
#include "gateway/xen_link_fsm.def"
};

enum xen_link_act {
#define ACT(name, meaning) XEN_LINK_DO_##name,
#include "gateway/xen_link_fsm.def"
};

struct xen_link;

/* What a link has done for it. `arg` is xen_link_options.arg. */
struct xen_link_ops {
	/*
	 * Starts the session: 0, or -errno with the words and the status for
	 * the guest. Its end comes as XEN_LINK_ON_ENDED, not from within.
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

/*
 * Begins from what the store says. `has_session`: one outlived the manager
 * before, and serves the epoch that our node says open with; if our node says
 * anything else it is killed.
 */
int xen_link_new(const struct xen_link_options *options, bool has_session,
		 struct xen_link **ret_link);
void xen_link_free(struct xen_link *link);

/* The guest's node may have changed: reads it and steps as long as it matters. */
void xen_link_review(struct xen_link *link);
/* Anything but what the store says: GRANTED, REVOKE, DEAD, LIMIT; reviews. */
void xen_link_feed(struct xen_link *link, enum xen_link_stim stim);
/* Its session has ended: with these words for the guest. Reviews. */
void xen_link_ended(struct xen_link *link, enum exit_status status,
		    const char *why);

enum xen_link_state xen_link_state(const struct xen_link *link);
unsigned xen_link_channel(const struct xen_link *link);
/* Neither a session that could end nor a node of ours: it may be freed. */
bool xen_link_is_idle(const struct xen_link *link);
/* No session that could still end. */
bool xen_link_is_quiet(const struct xen_link *link);

const char *xen_link_state_name(enum xen_link_state state);

#endif
