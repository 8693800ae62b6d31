/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/xen_link_fsm.h"

#include <assert.h>

static const struct xen_link_step table[XEN_LINK_NUM_STATES]
				       [XEN_LINK_NUM_STIMS] = {
#define ON(state, stim, to, action)                               \
	[XEN_LINK_##state][XEN_LINK_ON_##stim] = { XEN_LINK_##to, \
						   XEN_LINK_DO_##action },
#include "gateway/xen_link_fsm.def"
				       };

/* A second row for a cell is refused by -Woverride-init: the table is total. */
enum {
	NUM_ROWS = 0
#define ON(state, stim, to, action) +1
#include "gateway/xen_link_fsm.def"
};
_Static_assert(NUM_ROWS == XEN_LINK_NUM_STATES * XEN_LINK_NUM_STIMS,
	       "xen_link_fsm.def answers every stimulus in every state");

static const char *const state_names[] = {
#define STATE(name, meaning) [XEN_LINK_##name] = #name,
#include "gateway/xen_link_fsm.def"
};

static const char *const stim_names[] = {
#define STIM(name, meaning) [XEN_LINK_ON_##name] = #name,
#include "gateway/xen_link_fsm.def"
};

static const char *const act_names[] = {
#define ACT(name, meaning) [XEN_LINK_DO_##name] = #name,
#include "gateway/xen_link_fsm.def"
};

struct xen_link_step xen_link_fsm_step(enum xen_link_state state,
				       enum xen_link_stim stim)
{
	assert((int)state < XEN_LINK_NUM_STATES &&
	       (int)stim < XEN_LINK_NUM_STIMS);
	return table[state][stim];
}

const char *xen_link_state_name(enum xen_link_state state)
{
	return state_names[state];
}

const char *xen_link_stim_name(enum xen_link_stim stim)
{
	return stim_names[stim];
}

const char *xen_link_act_name(enum xen_link_act act)
{
	return act_names[act];
}
