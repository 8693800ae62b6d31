/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_link_fsm.h - one channel of one guest as a table (xen_link_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef XEN_LINK_FSM_H
#define XEN_LINK_FSM_H

enum xen_link_state {
#define STATE(name, meaning) XEN_LINK_##name,
#include "gateway/xen_link_fsm.def"
};

enum xen_link_stim {
#define STIM(name, meaning) XEN_LINK_ON_##name,
#include "gateway/xen_link_fsm.def"
};

enum xen_link_act {
#define ACT(name, meaning) XEN_LINK_DO_##name,
#include "gateway/xen_link_fsm.def"
};

/* Counted apart from the enums, so that -Wswitch sees real members only. */
enum {
	XEN_LINK_NUM_STATES = 0
#define STATE(name, meaning) +1
#include "gateway/xen_link_fsm.def"
};

enum {
	XEN_LINK_NUM_STIMS = 0
#define STIM(name, meaning) +1
#include "gateway/xen_link_fsm.def"
};

struct xen_link_step {
	enum xen_link_state next;
	enum xen_link_act act;
};

/* Reads the table, touches nothing. */
struct xen_link_step xen_link_fsm_step(enum xen_link_state state,
				       enum xen_link_stim stim);

const char *xen_link_state_name(enum xen_link_state state);
const char *xen_link_stim_name(enum xen_link_stim stim);
const char *xen_link_act_name(enum xen_link_act act);

#endif
