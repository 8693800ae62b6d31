/* SPDX-License-Identifier: Apache-2.0 */
/*
 * front_fsm.h - the life of one channel in the guest as a table (front_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef FRONT_FSM_H
#define FRONT_FSM_H

enum front_state {
#define STATE(name, meaning) FRONT_##name,
#include "vchan-transport/front_fsm.def"
};

enum front_stim {
#define STIM(name, meaning) FRONT_ON_##name,
#include "vchan-transport/front_fsm.def"
};

enum front_act {
#define ACT(name, meaning) FRONT_DO_##name,
#include "vchan-transport/front_fsm.def"
};

/* Counted apart from the enums, so that -Wswitch sees real members only. */
enum {
	FRONT_NUM_STATES = 0
#define STATE(name, meaning) +1
#include "vchan-transport/front_fsm.def"
};

enum {
	FRONT_NUM_STIMS = 0
#define STIM(name, meaning) +1
#include "vchan-transport/front_fsm.def"
};

struct front_step {
	enum front_state next;
	enum front_act act;
};

/* Reads the table, touches nothing. */
struct front_step front_fsm_step(enum front_state state, enum front_stim stim);

const char *front_state_name(enum front_state state);
const char *front_stim_name(enum front_stim stim);
const char *front_act_name(enum front_act act);

#endif
