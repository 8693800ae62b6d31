/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/urb_fsm.h"

#include <assert.h>

static const struct urb_step table[URB_NUM_STATES][URB_NUM_STIMS] = {
#define ON(state, stim, to, action) \
	[URB_##state][URB_ON_##stim] = { URB_##to, URB_DO_##action },
#include "gateway/urb_fsm.def"
};

/* A second row for a cell is refused by -Woverride-init: the table is total. */
enum {
	NUM_ROWS = 0
#define ON(state, stim, to, action) +1
#include "gateway/urb_fsm.def"
};
_Static_assert(NUM_ROWS == URB_NUM_STATES * URB_NUM_STIMS,
	       "urb_fsm.def answers every stimulus in every state");

static const char *const state_names[] = {
#define STATE(name, meaning) [URB_##name] = #name,
#include "gateway/urb_fsm.def"
};

static const char *const stim_names[] = {
#define STIM(name, meaning) [URB_ON_##name] = #name,
#include "gateway/urb_fsm.def"
};

static const char *const act_names[] = {
#define ACT(name, meaning) [URB_DO_##name] = #name,
#include "gateway/urb_fsm.def"
};

struct urb_step urb_fsm_step(enum urb_state state, enum urb_stim stim)
{
	assert((int)state < URB_NUM_STATES && (int)stim < URB_NUM_STIMS);
	return table[state][stim];
}

const char *urb_state_name(enum urb_state state)
{
	return state_names[state];
}

const char *urb_stim_name(enum urb_stim stim)
{
	return stim_names[stim];
}

const char *urb_act_name(enum urb_act act)
{
	return act_names[act];
}
