/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_link_bed.h - a link (gateway/xen_link.h) over a store in memory, and a
 * session that is only counted.  Included by a test, once.
 */
#ifndef XEN_LINK_BED_H
#define XEN_LINK_BED_H

#include "gateway/xen_link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "memory_store.h"

#define OURS   "/local/domain/0/data/xusbip/5"
#define THEIRS "/local/domain/5/data/xusbip/0"
#define E1     "00000000000000a1"
#define E2     "00000000000000a2"

/* What was asked of the session. */
static struct {
	unsigned starts;
	unsigned terminates;
	unsigned kills;
	unsigned limit_ms; /* 0: not set */
	uint32_t ring_bytes;
	bool is_refusing;
} session;

static int on_start(void *arg, struct xen_link *link, uint32_t ring_bytes,
		    enum exit_status *ret_status,
		    char why[static HANDSHAKE_WHY_BYTES])
{
	(void)arg;
	(void)link;
	if (session.is_refusing) {
		*ret_status = EXIT_BUSY;
		(void)snprintf(why, HANDSHAKE_WHY_BYTES, "no room");
		return -EPERM;
	}
	session.starts++;
	session.ring_bytes = ring_bytes;
	return 0;
}

static void on_terminate(void *arg, struct xen_link *link)
{
	(void)arg;
	(void)link;
	session.terminates++;
}

static void on_kill(void *arg, struct xen_link *link)
{
	(void)arg;
	(void)link;
	session.kills++;
}

static void on_set_limit(void *arg, struct xen_link *link, unsigned after_ms)
{
	(void)arg;
	(void)link;
	session.limit_ms = after_ms;
}

static const struct xen_link_ops ops = { on_start, on_terminate, on_kill,
					 on_set_limit };

/* ------------------------------------------------------------------ a link */

static struct xen_link *new_link(enum xen_link_heir heir, uint64_t epoch)
{
	const struct xen_link_options options = {
		.ops = &ops,
		.guest = 5,
		.channel = 3,
		.who = "domain 5 (u1)",
	};
	struct xen_link *link = NULL;

	assert_int_equal(xen_link_new(&options, heir, epoch, &link), 0);
	return link;
}

static void begin(void)
{
	memory_clear();
	memset(&session, 0, sizeof(session));
	memory_set(OURS "/peer", "UUID u1");
	memory_set(THEIRS, "");
}

static void guest_says(struct xen_link *link, const char *word)
{
	if (word)
		memory_set(THEIRS "/3", word);
	else
		memory_remove(THEIRS "/3");
	memory_set(THEIRS, "");
	xen_link_review(link);
}

static void end(struct xen_link *link)
{
	memory_set(OURS "/3/ring-ref", "8");
	xen_link_ended(link, EXIT_OK, "it has ended");
}

/* A link in this state, for the epoch E1 unless it is IDLE. */
static struct xen_link *reach(enum xen_link_state state)
{
	struct xen_link *link;

	begin();
	link = new_link(XEN_LINK_NO_SESSION, 0);
	if (state == XEN_LINK_IDLE)
		return link;
	guest_says(link, E1 " ask 0");
	if (state != XEN_LINK_STARTING)
		xen_link_feed(link, XEN_LINK_ON_GRANTED);
	if (state == XEN_LINK_WAITING || state == XEN_LINK_REVOKED) {
		memory_remove(THEIRS);
		xen_link_review(link);
	}
	if (state == XEN_LINK_REVOKED || state == XEN_LINK_ENDING ||
	    state == XEN_LINK_KILLING || state == XEN_LINK_WEDGED)
		xen_link_revoke(link, EXIT_BUSY, "for a reason");
	if (state == XEN_LINK_KILLING || state == XEN_LINK_WEDGED)
		xen_link_feed(link, XEN_LINK_ON_LIMIT);
	if (state == XEN_LINK_WEDGED)
		xen_link_feed(link, XEN_LINK_ON_LIMIT);
	if (state == XEN_LINK_CLOSED)
		end(link);
	assert_int_equal(xen_link_state(link), state);
	return link;
}

static bool our_word_begins(const char *text)
{
	const char *value = memory_get(OURS "/3");

	return value && strncmp(value, text, strlen(text)) == 0;
}

#endif
