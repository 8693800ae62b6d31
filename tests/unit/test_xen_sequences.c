/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sequences of link_world.h over a store in memory: until nothing is new, and
 * each one to length six. And whether they would find a wrong row: each row of
 * xen_link_fsm.def that does something is changed, one at a time, so that it does
 * less. This takes the place of the real table.
 */
#include "tests/fake/link_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gateway/xen_link.h"
#include "memory_store.h"
#include "vchan-transport/log.h"

/* Sanitizers take three times as long for each, and six has ten times as many. */
#ifdef __SANITIZE_ADDRESS__
#define ALL_LENGTH 5
#define NUM_ALL    171745
#else
#define ALL_LENGTH 6
#define NUM_ALL    2020444
#endif

static const struct xen_link_step table[XEN_LINK_NUM_STATES]
				       [XEN_LINK_NUM_STIMS] = {
#define ON(state, stim, to, action)                               \
	[XEN_LINK_##state][XEN_LINK_ON_##stim] = { XEN_LINK_##to, \
						   XEN_LINK_DO_##action },
#include "gateway/xen_link_fsm.def"
				       };

static const char *const state_names[] = {
#define STATE(name, meaning) [XEN_LINK_##name] = #name,
#include "gateway/xen_link_fsm.def"
};

static const char *const stim_names[] = {
#define STIM(name, meaning) [XEN_LINK_ON_##name] = #name,
#include "gateway/xen_link_fsm.def"
};

/* The row that is changed, and to what; no row if is_changed is false. */
static struct {
	bool is_changed;
	enum xen_link_state state;
	enum xen_link_stim stim;
	struct xen_link_step to;
} mutant;

struct xen_link_step xen_link_fsm_step(enum xen_link_state state,
				       enum xen_link_stim stim)
{
	struct xen_link_step step = table[state][stim];

	if (mutant.is_changed && mutant.state == state && mutant.stim == stim)
		step = mutant.to;
	if (step.act == XEN_LINK_DO_BUG)
		link_world_fail("a row that says BUG was met");
	return step;
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
	(void)act;
	return "";
}

static int setup(void **state)
{
	(void)state;
	memory_clear();
	memset(&mutant, 0, sizeof(mutant));
	log_init("test", LOG_LEVEL_ERROR);
	return 0;
}

static void longer_ones_are_right_until_nothing_is_new(void **state)
{
	struct link_world_result result;

	(void)state;
	if (!link_world_play_first(NULL, &result))
		fail_msg("%s", result.failure);
	assert_int_equal(result.played.num_played, LINK_WORLD_SEQUENCES);
	assert_int_equal(result.played.num_situations, LINK_WORLD_SITUATIONS);
	assert_int_equal(result.played.length, LINK_WORLD_LENGTH);
}

static void
every_sequence_to_a_length_is_right_and_leads_nowhere_else(void **state)
{
	struct link_world_result result;

	(void)state;
	if (!link_world_play_first(NULL, &result) ||
	    !link_world_play_all(NULL, ALL_LENGTH, &result))
		fail_msg("%s", result.failure);
	assert_int_equal(result.played.num_played, NUM_ALL);
}

static unsigned num_mutants;
static unsigned num_survivors;

static void try_mutant(enum xen_link_state next, enum xen_link_act act)
{
	struct link_world_result result;

	memory_clear();
	mutant.is_changed = true;
	mutant.to = (struct xen_link_step){ next, act };
	num_mutants++;
	if (!link_world_play_first(NULL, &result))
		return;
	print_message("survives: %s + %s -> %s, action %d\n",
		      state_names[mutant.state], stim_names[mutant.stim],
		      state_names[next], (int)act);
	num_survivors++;
}

static void try_row(enum xen_link_state state, enum xen_link_stim stim)
{
	struct xen_link_step row = table[state][stim];
	bool has_act = row.act != XEN_LINK_DO_NONE;

	mutant.state = state;
	mutant.stim = stim;
	if (row.act == XEN_LINK_DO_BUG || (!has_act && row.next == state))
		return;
	try_mutant(state, XEN_LINK_DO_NONE);
	if (has_act && row.next != state) {
		/* CLOSED looks again and disowns it itself. */
		if (state != XEN_LINK_IDLE || stim != XEN_LINK_ON_LOST)
			try_mutant(row.next, XEN_LINK_DO_NONE);
		try_mutant(state, row.act);
	}
}

static void a_row_that_does_less_is_found(void **state)
{
	(void)state;
	num_mutants = 0;
	num_survivors = 0;
	for (int from = 0; from < XEN_LINK_NUM_STATES; from++) {
		for (int on = 0; on < XEN_LINK_NUM_STIMS; on++)
			try_row((enum xen_link_state)from,
				(enum xen_link_stim)on);
	}
	mutant.is_changed = false;
	print_message("%u of %u changed rows are found\n",
		      num_mutants - num_survivors, num_mutants);
	assert_int_equal(num_survivors, 0);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(longer_ones_are_right_until_nothing_is_new),
		TEST(every_sequence_to_a_length_is_right_and_leads_nowhere_else),
		TEST(a_row_that_does_less_is_found),
	};

	return cmocka_run_group_tests_name("xen_sequences", tests, NULL, NULL);
}
