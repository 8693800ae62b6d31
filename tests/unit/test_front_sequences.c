/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sequences of front_world.h over a store in memory: until nothing is new,
 * and each one to length six. And whether they would find a wrong row: each row
 * of front_fsm.def that does something is changed, one at a time, so that it
 * does less. This takes the place of the real table.
 */
#include "tests/fake/front_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vchan-transport/front_fsm.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"

#include "memory_store.h"

#define ALL_LENGTH     6
#define NUM_ALL        62361
#define NUM_FIRST      6000
#define NUM_SITUATIONS 953
#define LENGTH         11
#define NUM_MUTANTS    44

static const struct front_step table[FRONT_NUM_STATES][FRONT_NUM_STIMS] = {
#define ON(state, stim, to, action) \
	[FRONT_##state][FRONT_ON_##stim] = { FRONT_##to, FRONT_DO_##action },
#include "vchan-transport/front_fsm.def"
};

static const char *const state_names[] = {
#define STATE(name, meaning) [FRONT_##name] = #name,
#include "vchan-transport/front_fsm.def"
};

static const char *const stim_names[] = {
#define STIM(name, meaning) [FRONT_ON_##name] = #name,
#include "vchan-transport/front_fsm.def"
};

/* The row that is changed, and to what; no row if is_changed is false. */
static struct {
	bool is_changed;
	enum front_state state;
	enum front_stim stim;
	struct front_step to;
} mutant;

struct front_step front_fsm_step(enum front_state state, enum front_stim stim)
{
	struct front_step step = table[state][stim];

	if (mutant.is_changed && mutant.state == state && mutant.stim == stim)
		step = mutant.to;
	if (step.act == FRONT_DO_BUG)
		front_world_fail("a row that says BUG was met");
	return step;
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
	(void)act;
	return "";
}

/* ---- the store ---- */

static void set_domid(unsigned domid)
{
	memory_domid = (int)domid;
}

static void fail_read(int error)
{
	memory_failing_read = 1;
	memory_read_error = error;
}

static void fail_writes(int error)
{
	memory_write_error = error;
}

static int some_store;

static struct front_world_bed bed_of(void)
{
	const struct front_world_bed bed = {
		.store = (struct store *)&some_store,
		.set_domid = set_domid,
		.fail_read = fail_read,
		.fail_writes = fail_writes,
	};

	return bed;
}

static int setup(void **state)
{
	(void)state;
	memory_clear();
	memset(&mutant, 0, sizeof(mutant));
	return 0;
}

/* ---- the tests ---- */

static void nothing_is_held_and_no_word_stays_whatever_happened(void **state)
{
	const struct front_world_bed bed = bed_of();
	struct sequences_result first;
	struct sequences_result all;
	const char *failure = front_world_play_first(&bed, &first);

	(void)state;
	if (failure)
		fail_msg("%s", failure);
	failure = front_world_play_all(&bed, ALL_LENGTH, &all);
	if (failure)
		fail_msg("%s", failure);
	assert_int_equal(first.num_played, NUM_FIRST);
	assert_int_equal(first.num_situations, NUM_SITUATIONS);
	assert_int_equal(first.length, LENGTH);
	assert_int_equal(all.num_played, NUM_ALL);
}

static bool is_found(enum front_state next, enum front_act act)
{
	const struct front_world_bed bed = bed_of();
	struct sequences_result first;

	memory_clear();
	mutant.to = (struct front_step){ next, act };
	return front_world_play_first(&bed, &first) != NULL;
}

static unsigned num_mutants;
static unsigned num_survivors;

static void try_mutant(enum front_state next)
{
	num_mutants++;
	if (is_found(next, FRONT_DO_NONE))
		return;
	print_message("not found: %s + %s -> %s without its action\n",
		      state_names[mutant.state], stim_names[mutant.stim],
		      state_names[next]);
	num_survivors++;
}

static void try_row(enum front_state state, enum front_stim stim)
{
	const struct front_step row = table[state][stim];

	if (row.act == FRONT_DO_BUG ||
	    (row.act == FRONT_DO_NONE && row.next == state))
		return;
	mutant.is_changed = true;
	mutant.state = state;
	mutant.stim = stim;
	try_mutant(state);
	if (row.act != FRONT_DO_NONE && row.next != state)
		try_mutant(row.next);
}

static void each_row_that_does_less_is_found(void **state)
{
	(void)state;
	for (int from = 0; from < FRONT_NUM_STATES; from++)
		for (int on = 0; on < FRONT_NUM_STIMS; on++)
			try_row((enum front_state)from, (enum front_stim)on);
	assert_int_equal(num_mutants, NUM_MUTANTS);
	assert_int_equal(num_survivors, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(
			nothing_is_held_and_no_word_stays_whatever_happened,
			setup),
		cmocka_unit_test_setup(each_row_that_does_less_is_found, setup),
	};

	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests_name("front_sequences", tests, NULL,
					   NULL);
}
