/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/front_fsm.h"

#include <assert.h>

static const struct front_step table[FRONT_NUM_STATES][FRONT_NUM_STIMS] = {
#define ON(state, stim, to, action) \
	[FRONT_##state][FRONT_ON_##stim] = { FRONT_##to, FRONT_DO_##action },
#include "vchan-transport/front_fsm.def"
};

/* A second row for a cell is refused by -Woverride-init: the table is total. */
enum {
	NUM_ROWS = 0
#define ON(state, stim, to, action) +1
#include "vchan-transport/front_fsm.def"
};
_Static_assert(NUM_ROWS == FRONT_NUM_STATES * FRONT_NUM_STIMS,
	       "front_fsm.def answers every stimulus in every state");

static const char *const state_names[] = {
#define STATE(name, meaning) [FRONT_##name] = #name,
#include "vchan-transport/front_fsm.def"
};

static const char *const stim_names[] = {
#define STIM(name, meaning) [FRONT_ON_##name] = #name,
#include "vchan-transport/front_fsm.def"
};

static const char *const act_names[] = {
#define ACT(name, meaning) [FRONT_DO_##name] = #name,
#include "vchan-transport/front_fsm.def"
};

struct front_step front_fsm_step(enum front_state state, enum front_stim stim)
{
	assert((int)state < FRONT_NUM_STATES && (int)stim < FRONT_NUM_STIMS);
	return table[state][stim];
}

const char *front_state_name(enum front_state state)
{
	return state_names[state];
}

const char *front_stim_name(enum front_stim stim)
{
	return stim_names[stim];
}

const char *front_act_name(enum front_act act)
{
	return act_names[act];
}
