/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/guest_fsm.h"

#include <assert.h>

static const struct guest_step table[GUEST_NUM_STATES][GUEST_NUM_STIMS] = {
#define ON(state, stim, to, action) \
	[GUEST_##state][GUEST_ON_##stim] = { GUEST_##to, GUEST_DO_##action },
#include "gateway/guest_fsm.def"
};

/* A second row for a cell is refused by -Woverride-init: the table is total. */
enum {
	NUM_ROWS = 0
#define ON(state, stim, to, action) +1
#include "gateway/guest_fsm.def"
};
_Static_assert(NUM_ROWS == GUEST_NUM_STATES * GUEST_NUM_STIMS,
	       "guest_fsm.def answers every stimulus in every state");

static const char *const state_names[] = {
#define STATE(name, meaning) [GUEST_##name] = #name,
#include "gateway/guest_fsm.def"
};

static const char *const stim_names[] = {
#define STIM(name, meaning) [GUEST_ON_##name] = #name,
#include "gateway/guest_fsm.def"
};

static const char *const act_names[] = {
#define ACT(name, meaning) [GUEST_DO_##name] = #name,
#include "gateway/guest_fsm.def"
};

struct guest_step guest_fsm_step(enum guest_state state, enum guest_stim stim)
{
	assert((int)state < GUEST_NUM_STATES && (int)stim < GUEST_NUM_STIMS);
	return table[state][stim];
}

const char *guest_state_name(enum guest_state state)
{
	return state_names[state];
}

const char *guest_stim_name(enum guest_stim stim)
{
	return stim_names[stim];
}

const char *guest_act_name(enum guest_act act)
{
	return act_names[act];
}
