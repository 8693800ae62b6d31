/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_fsm.h - one guest domain as a table (guest_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef GUEST_FSM_H
#define GUEST_FSM_H

enum guest_state {
#define STATE(name, meaning) GUEST_##name,
#include "gateway/guest_fsm.def"
};

enum guest_stim {
#define STIM(name, meaning) GUEST_ON_##name,
#include "gateway/guest_fsm.def"
};

enum guest_act {
#define ACT(name, meaning) GUEST_DO_##name,
#include "gateway/guest_fsm.def"
};

/* Counted apart from the enums, so that -Wswitch sees real members only. */
enum {
	GUEST_NUM_STATES = 0
#define STATE(name, meaning) +1
#include "gateway/guest_fsm.def"
};

enum {
	GUEST_NUM_STIMS = 0
#define STIM(name, meaning) +1
#include "gateway/guest_fsm.def"
};

struct guest_step {
	enum guest_state next;
	enum guest_act act;
};

/* Reads the table, touches nothing. */
struct guest_step guest_fsm_step(enum guest_state state, enum guest_stim stim);

const char *guest_state_name(enum guest_state state);
const char *guest_stim_name(enum guest_stim stim);
const char *guest_act_name(enum guest_act act);

#endif
