/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link_world.h - sequences of everything that can happen to a gateway's link,
 * played on the real xen_link.c over a store; only its session is pretended.
 * After each event, and when the guest and the session have left at the end, it
 * is judged: our node says what the link is, there is one session at most, who
 * asks is answered, and nothing stays.
 */
#ifndef LINK_WORLD_H
#define LINK_WORLD_H

#include <stdbool.h>
#include <stddef.h>

struct store;

#define LINK_WORLD_MAX_LENGTH 16

struct link_world_result {
	unsigned num_played;
	size_t length;         /* of the longest one, breadth-first */
	size_t num_situations; /* that differ, breadth-first */
	char failure[512];
};

/*
 * Every sequence to this length; or with 0 breadth-first, one for each situation
 * that was reached, until nothing is new. False: one failed, and which.
 */
bool link_world_play(struct store *store, size_t all_length,
		     struct link_world_result *ret_result);

/* From within: the game is lost. */
_Noreturn void link_world_fail(const char *what);

#endif
