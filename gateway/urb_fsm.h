/* SPDX-License-Identifier: Apache-2.0 */
/*
 * urb_fsm.h - the life of one URB in the gateway as a table (urb_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef URB_FSM_H
#define URB_FSM_H

enum urb_state {
#define STATE(name, meaning) URB_##name,
#include "gateway/urb_fsm.def"
};

enum urb_stim {
#define STIM(name, meaning) URB_ON_##name,
#include "gateway/urb_fsm.def"
};

enum urb_act {
#define ACT(name, meaning) URB_DO_##name,
#include "gateway/urb_fsm.def"
};

/* Counted apart from the enums, so that -Wswitch sees real members only. */
enum {
	URB_NUM_STATES = 0
#define STATE(name, meaning) +1
#include "gateway/urb_fsm.def"
};

enum {
	URB_NUM_STIMS = 0
#define STIM(name, meaning) +1
#include "gateway/urb_fsm.def"
};

struct urb_step {
	enum urb_state next;
	enum urb_act act;
};

/* Reads the table, touches nothing. */
struct urb_step urb_fsm_step(enum urb_state state, enum urb_stim stim);

const char *urb_state_name(enum urb_state state);
const char *urb_stim_name(enum urb_stim stim);
const char *urb_act_name(enum urb_act act);

#endif
