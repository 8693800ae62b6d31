/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_channel.h - a channel of a guest with what xen_link.h keeps out: the
 * session's process, its lock (channel_lock.h), the clock.
 */
#ifndef XEN_CHANNEL_H
#define XEN_CHANNEL_H

#include <stdbool.h>

#include "gateway/sessions.h"
#include "gateway/xen_link.h"

struct loop;
struct store;
struct xen_channel;

/* What the channels of one guest share; the guest's, and outlives them. */
struct xen_channel_host {
	struct loop *loop;
	struct store *store;
	struct sessions *sessions;
	const char *runtime_dir;
	unsigned gateway; /* domains */
	unsigned guest;
	uint32_t ring_bytes; /* the most, and what 0 means */
	char who[96];        /* "domain 5 (u1)" */
	struct sessions_peer peer;

	/*
	 * May the guest have one more, with such rings? 0, and with what rings,
	 * which may be smaller; or -errno with status and words.
	 */
	int (*admit)(void *arg, uint32_t *ring_bytes,
		     enum exit_status *ret_status,
		     char why[static HANDSHAKE_WHY_BYTES]);
	/*
	 * A session has ended, and so may the channel, but not from within;
	 * `busid` is that of the device it had, or empty.
	 */
	void (*ended)(void *arg, const char *busid);
	void *arg;
};

/* Takes up the session that serves it, if one outlived the manager before. */
int xen_channel_new(const struct xen_channel_host *host, unsigned number,
		    struct xen_channel **ret_channel);
/* Its session, if there is one, is nobody's then.  NULL is fine. */
void xen_channel_free(struct xen_channel *channel);

void xen_channel_review(struct xen_channel *channel);
void xen_channel_revoke(struct xen_channel *channel, enum exit_status status,
			const char *why);
void xen_channel_die(struct xen_channel *channel);
/* Looks whether a session of an unknown process has ended at last. */
void xen_channel_poll(struct xen_channel *channel);

enum xen_link_state xen_channel_state(const struct xen_channel *channel);
bool xen_channel_is_idle(const struct xen_channel *channel);
bool xen_channel_is_quiet(const struct xen_channel *channel);
/* Granted for its session, also for one that does not end. */
uint64_t xen_channel_pages(const struct xen_channel *channel);
/* The device that its session has, or "". */
const char *xen_channel_busid(const struct xen_channel *channel);

#endif
