/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a wrong row of front_fsm.def would be found: the table is walked
 * breadth-first with everything that can happen to a channel in the guest, each
 * world is judged, and then again with each row that does something changed, one
 * at a time, so that it does less.
 */
#include "vchan-transport/front_fsm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MAX_WORLDS 512

enum process {
	WAITS,
	MAPS,
	USES,
	FAILED,
	GONE
};

enum node {
	NO_NODE,
	SAYS_ASK,
	SAYS_UP
};

struct world {
	enum front_state state;
	enum process process;
	enum node node;
	bool is_limited;
	bool is_refused;
	bool is_hung_up;
	bool is_killed;
};

static struct {
	bool is_changed;
	enum front_state state;
	enum front_stim stim;
	struct front_step to;
} mutant;

static struct world worlds[MAX_WORLDS];
static size_t num_worlds;

static struct front_step step_of(enum front_state state, enum front_stim stim)
{
	if (mutant.is_changed && mutant.state == state && mutant.stim == stim)
		return mutant.to;
	return front_fsm_step(state, stim);
}

static bool is_mapped(const struct world *w)
{
	return w->process == MAPS || w->process == USES;
}

/* False: an action that must not be there. */
static bool act(struct world *w, enum front_act action)
{
	switch (action) {
	case FRONT_DO_NONE:
		return true;
	case FRONT_DO_ASK:
		w->node = SAYS_ASK;
		w->is_limited = true;
		return true;
	case FRONT_DO_MAP:
		w->process = w->process == WAITS ? MAPS : w->process;
		return w->node == SAYS_ASK;
	case FRONT_DO_SAY_UP:
		w->node = SAYS_UP;
		w->is_limited = false;
		return w->process == USES;
	case FRONT_DO_REFUSE:
		w->is_refused = true;
		w->node = NO_NODE;
		return !is_mapped(w);
	case FRONT_DO_HANG_UP:
		w->is_hung_up = true;
		w->is_limited = true;
		return true;
	case FRONT_DO_KILL:
		w->is_killed = true;
		return w->is_hung_up;
	case FRONT_DO_REMOVE:
		w->node = NO_NODE;
		return w->process == GONE;
	case FRONT_DO_BUG:
		break;
	}
	return false;
}

static bool can_happen(const struct world *w, enum front_stim stim)
{
	if (w->state == FRONT_DONE)
		return false;
	switch (stim) {
	case FRONT_ON_START:
		return w->state == FRONT_IDLE;
	case FRONT_ON_MAPPED:
	case FRONT_ON_FAILED:
		return w->process == MAPS;
	case FRONT_ON_LEFT:
		return w->process != GONE;
	case FRONT_ON_LIMIT:
		return w->is_limited;
	default:
		return true;
	}
}

static bool is_end_of_gateway(enum front_stim stim)
{
	return stim == FRONT_ON_CLOSED || stim == FRONT_ON_OTHER ||
	       stim == FRONT_ON_ABSENT || stim == FRONT_ON_UNOFFERED;
}

static bool judge_state(const struct world *w)
{
	bool is_waiting = w->state == FRONT_ASKING ||
			  w->state == FRONT_MAPPING ||
			  w->state == FRONT_LEAVING;
	bool is_silent = w->state == FRONT_IDLE || w->state == FRONT_DONE;

	return (w->node == NO_NODE) == is_silent &&
	       (!is_waiting || w->is_limited) &&
	       (w->state != FRONT_UP || w->node == SAYS_UP) &&
	       (w->state != FRONT_MAPPING || w->process != WAITS) &&
	       (w->state != FRONT_LEAVING || w->is_hung_up) &&
	       (w->process != GONE || w->state == FRONT_DONE) &&
	       (w->state != FRONT_DONE ||
		(!is_mapped(w) && (w->is_refused || w->process == GONE)));
}

static bool judge(const struct world *before, enum front_stim stim,
		  const struct world *w)
{
	bool was_open = before->state == FRONT_MAPPING ||
			before->state == FRONT_UP;

	if (was_open && is_end_of_gateway(stim) && w->state != FRONT_LEAVING)
		return false;
	if (stim == FRONT_ON_CLOSED && before->state == FRONT_ASKING &&
	    w->state != FRONT_DONE)
		return false;
	if (stim == FRONT_ON_UNOFFERED && !was_open &&
	    before->state != FRONT_LEAVING && w->state != FRONT_DONE)
		return false;
	if (stim == FRONT_ON_OPEN && before->state == FRONT_ASKING &&
	    w->state != FRONT_MAPPING)
		return false;
	if ((stim == FRONT_ON_MAPPED || stim == FRONT_ON_FAILED ||
	     stim == FRONT_ON_START) &&
	    w->state == before->state && w->state != FRONT_LEAVING)
		return false;
	if (stim == FRONT_ON_LIMIT && w->state == before->state &&
	    !w->is_killed)
		return false;
	return judge_state(w);
}

static void note(const struct world *w)
{
	for (size_t i = 0; i < num_worlds; i++) {
		if (memcmp(&worlds[i], w, sizeof(*w)) == 0)
			return;
	}
	assert_true(num_worlds < MAX_WORLDS);
	memcpy(&worlds[num_worlds++], w, sizeof(*w));
}

static bool happen(const struct world *before, enum front_stim stim)
{
	struct front_step step = step_of(before->state, stim);
	struct world w;

	memcpy(&w, before, sizeof(w));
	if (stim == FRONT_ON_MAPPED)
		w.process = USES;
	else if (stim == FRONT_ON_FAILED)
		w.process = FAILED;
	else if (stim == FRONT_ON_LEFT)
		w.process = GONE;
	w.state = step.next;
	if (!act(&w, step.act) || !judge(before, stim, &w))
		return false;
	note(&w);
	return true;
}

/* True: every world that can be reached is as it should be. */
static bool walk(void)
{
	memset(worlds, 0, sizeof(worlds));
	worlds[0].state = FRONT_IDLE;
	num_worlds = 1;
	for (size_t i = 0; i < num_worlds; i++) {
		for (int on = 0; on < FRONT_NUM_STIMS; on++) {
			if (can_happen(&worlds[i], (enum front_stim)on) &&
			    !happen(&worlds[i], (enum front_stim)on))
				return false;
		}
	}
	return true;
}

static void the_table_is_right(void **state)
{
	(void)state;
	mutant.is_changed = false;
	assert_true(walk());
	assert_true(num_worlds > 10);
}

static unsigned try_mutant(enum front_state next, enum front_act act_of_it)
{
	mutant.is_changed = true;
	mutant.to = (struct front_step){ next, act_of_it };
	if (!walk())
		return 0;
	print_message("survives: %s + %s -> %s %s\n",
		      front_state_name(mutant.state),
		      front_stim_name(mutant.stim), front_state_name(next),
		      front_act_name(act_of_it));
	return 1;
}

/* How many of its mutants survive. */
static unsigned try_row(enum front_state state, enum front_stim stim)
{
	struct front_step row = front_fsm_step(state, stim);
	bool has_act = row.act != FRONT_DO_NONE;
	unsigned survivors;

	if (row.act == FRONT_DO_BUG || (!has_act && row.next == state))
		return 0;
	mutant.state = state;
	mutant.stim = stim;
	survivors = try_mutant(state, FRONT_DO_NONE);
	if (has_act && row.next != state)
		survivors += try_mutant(row.next, FRONT_DO_NONE) +
			     try_mutant(state, row.act);
	return survivors;
}

static void a_row_that_does_less_is_found(void **state)
{
	unsigned survivors = 0;

	(void)state;
	for (int from = 0; from < FRONT_NUM_STATES; from++) {
		for (int on = 0; on < FRONT_NUM_STIMS; on++)
			survivors += try_row((enum front_state)from,
					     (enum front_stim)on);
	}
	assert_int_equal(survivors, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_is_right),
		cmocka_unit_test(a_row_that_does_less_is_found),
	};

	return cmocka_run_group_tests_name("front_rows", tests, NULL, NULL);
}
