/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wants.h - devices that the administrator gives to guests: "xusbip attach --to".
 * A want is a node in the guest's folder (docs/protocol.md, "Guests", 6) that
 * its agent acts on and answers. One that is to persist is also noted in
 * STATE_DIR (want_note.h).  What xenstore does not take then is tried again
 * whenever the guest is looked at.
 *
 * Called by xen.c for what happens to guests, by admin.c for what is asked.
 */
#ifndef WANTS_H
#define WANTS_H

#include <stdbool.h>

#include "gateway/xen.h"
#include "vchan-transport/handshake.h"

/* What one guest can be told to take: it has a node for each. */
#define WANTS_MAX HANDSHAKE_CHANNELS

struct store;
struct wants;

int wants_new(struct store *store, const char *state_dir,
	      unsigned gateway_domid, struct wants **ret_wants);
/* NULL is fine. */
void wants_free(struct wants *wants);

/* It is served from now on: what persists for its UUID is wanted again. */
void wants_guest_came(struct wants *wants, const struct xen_guest *guest);
void wants_guest_left(struct wants *wants, unsigned domid);
/* Something in its folder may have changed: reads its answers. */
void wants_review(struct wants *wants, unsigned domid);
/*
 * Its session for that device has ended, and not for a hold: a want that does
 * not persist goes.
 */
void wants_session_ended(struct wants *wants, unsigned domid,
			 const char *busid);

/*
 * Answered through on_done, once: when the guest's agent has answered, or at
 * once when it cannot be told.
 */
void wants_add(struct wants *wants, const struct xen_guest *guest,
	       const char *busid, bool persists, xen_done_cb *on_done,
	       void *arg);
/* 1, 0 if there was none, or -errno: it will be told again some day. */
int wants_remove(struct wants *wants, const struct xen_guest *guest,
		 const char *busid);
void wants_forget_asker(struct wants *wants, void *arg);

#endif
