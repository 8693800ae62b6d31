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

#include "tests/fake/sequences.h"

struct store;

/*
 * What is reached when nothing new comes any more, over whatever store; another
 * rule or another event makes it another number.
 */
#define LINK_WORLD_SEQUENCES  18142
#define LINK_WORLD_SITUATIONS 1644
#define LINK_WORLD_LENGTH     13

struct link_world_result {
	struct sequences_result played;
	char failure[512];
};

/* As those of sequences.h; false: one failed, and which. */
bool link_world_play_first(struct store *store,
			   struct link_world_result *ret_result);
bool link_world_play_all(struct store *store, size_t length,
			 struct link_world_result *ret_result);

/* From within: the game is lost. */
_Noreturn void link_world_fail(const char *what);

#endif
