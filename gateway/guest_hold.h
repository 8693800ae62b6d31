/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_hold.h - what is said between the gateway and a guest's agent about
 * letting go of the devices and taking them back (docs/protocol.md, "Guests", 4
 * and 5), and who is to be told how it went.  When, is for guest_fsm.def.
 */
#ifndef GUEST_HOLD_H
#define GUEST_HOLD_H

#include <stdbool.h>

#include "gateway/guest.h"

struct guest_hold;

int guest_hold_new(const struct guest_env *env, unsigned domid,
		   struct guest_hold **ret_hold);
/* NULL is fine. */
void guest_hold_free(struct guest_hold *hold);

/* The guest is served from now on.  Was it held when it was last seen? */
bool guest_hold_begin(struct guest_hold *hold, const char *uuid);
/* Says hold, and notes it. */
void guest_hold_ask(struct guest_hold *hold);
/* Says resume, and removes the note. */
void guest_hold_release(struct guest_hold *hold);
/*
 * Reads the answer: HANDSHAKE_DONE if the agent has let go for our hold, else
 * HANDSHAKE_NONE.  Says again what the store did not take.
 */
enum handshake_verb guest_hold_review(struct guest_hold *hold);

/* What askers are told. */
int guest_hold_add_asker(struct guest_hold *hold, bool is_for_hold,
			 xen_done_cb *on_done, void *arg);
void guest_hold_forget_asker(struct guest_hold *hold, const void *arg);
void guest_hold_confirm(struct guest_hold *hold);
void guest_hold_unanswered(struct guest_hold *hold);
void guest_hold_not_resumed(struct guest_hold *hold);
void guest_hold_not_held(struct guest_hold *hold);
void guest_hold_lost(struct guest_hold *hold);

#endif
