/* SPDX-License-Identifier: Apache-2.0 */
/*
 * front_world.h - sequences of everything that can meet the guest's side of a
 * channel, played on the real front_link.c over a store: the gateway's words and
 * the folders, the process that uses the channel, which is pretended, its time,
 * and a store that fails, where that can be made. After each event it is judged:
 * our node says what the link is, a process that may have mapped is told to let
 * go, none waits without a limit, and at the end no word stays.
 */
#ifndef FRONT_WORLD_H
#define FRONT_WORLD_H

#include "tests/fake/sequences.h"

struct store;

/* The domain that plays, and its gateway. */
#define FRONT_WORLD_GUEST   0u
#define FRONT_WORLD_GATEWAY 5u

struct front_world_bed {
	struct store *store; /* where the domain may do everything */
	/* What it is told is its number. */
	void (*set_domid)(unsigned domid);
	/* The next read fails so, or each write, unless 0. NULL: neither can. */
	void (*fail_read)(int error);
	void (*fail_writes)(int error);
};

/*
 * As those of sequences.h: NULL, or what failed, which stays until the next
 * call.
 */
const char *front_world_play_first(const struct front_world_bed *bed,
				   struct sequences_result *ret_result);
const char *front_world_play_all(const struct front_world_bed *bed,
				 size_t length,
				 struct sequences_result *ret_result);

/* From within: the game is lost. */
_Noreturn void front_world_fail(const char *what);

#endif
