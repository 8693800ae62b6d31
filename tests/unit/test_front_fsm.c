/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks the table of a channel in the guest breadth-first: a gateway that says
 * anything at any time, and a process of ours that is honest, slow, or dies at
 * any moment. What the world asserts on the way is what docs/protocol.md says.
 */
#include "vchan-transport/front_fsm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MAX_WORLDS 128

enum process {
	WAITS,  /* for an offer */
	MAPS,   /* has it, and has not answered */
	USES,   /* has said mapped */
	FAILED, /* has said failed */
	GONE,
};

enum node {
	NO_NODE,
	SAYS_ASK,
	SAYS_UP,
};

/* All that matters about one channel. */
struct world {
	enum front_state state;
	enum process process;
	enum node node;
	bool is_limited; /* a limit runs */
	bool is_refused; /* what the process was told */
	bool is_hung_up;
	bool is_killed;
};

struct walk {
	struct world worlds[MAX_WORLDS];
	size_t num_worlds;
	bool can_end[MAX_WORLDS];
	/* leads_to[a][b]: one step goes from world a to world b. */
	bool leads_to[MAX_WORLDS][MAX_WORLDS];
	bool met[FRONT_NUM_STATES][FRONT_NUM_STIMS];
};

/* ------------------------------------------------------------------- world */

static void act(struct world *w, enum front_act action)
{
	switch (action) {
	case FRONT_DO_NONE:
		break;
	case FRONT_DO_ASK:
		assert_int_equal(w->node, NO_NODE);
		w->node = SAYS_ASK;
		w->is_limited = true;
		break;
	case FRONT_DO_MAP:
		assert_int_equal(w->node, SAYS_ASK);
		assert_false(w->is_refused);
		if (w->process == WAITS)
			w->process = MAPS;
		break;
	case FRONT_DO_SAY_UP:
		assert_int_equal(w->node, SAYS_ASK);
		assert_int_equal(w->process, USES);
		w->node = SAYS_UP;
		w->is_limited = false;
		break;
	case FRONT_DO_REFUSE:
		assert_true(w->process != MAPS && w->process != USES);
		w->is_refused = true;
		w->node = NO_NODE;
		break;
	case FRONT_DO_HANG_UP:
		assert_false(w->is_hung_up || w->is_refused);
		w->is_hung_up = true;
		w->is_limited = true;
		break;
	case FRONT_DO_KILL:
		assert_true(w->is_hung_up);
		assert_true(w->process != GONE || w->is_killed);
		w->is_killed = true;
		break;
	case FRONT_DO_REMOVE:
		assert_int_equal(w->process, GONE);
		w->node = NO_NODE;
		break;
	case FRONT_DO_BUG:
		fail_msg("a cell that says BUG was met");
		break;
	}
}

static void feed(struct walk *walk, struct world *w, enum front_stim stim)
{
	struct front_step step = front_fsm_step(w->state, stim);

	walk->met[w->state][stim] = true;
	w->state = step.next;
	act(w, step.act);
}

static bool can_happen(const struct world *w, enum front_stim stim)
{
	switch (stim) {
	case FRONT_ON_START:
		return w->state == FRONT_IDLE && w->process != GONE;
	case FRONT_ON_OPEN:
	case FRONT_ON_CLOSED:
	case FRONT_ON_OTHER:
	case FRONT_ON_ABSENT:
	case FRONT_ON_UNOFFERED:
		return true;
	case FRONT_ON_MAPPED:
	case FRONT_ON_FAILED:
		/* The warden that is done hears nobody any more. */
		return w->process == MAPS || w->state == FRONT_DONE;
	case FRONT_ON_LEFT:
		return w->process != GONE || w->state == FRONT_DONE;
	case FRONT_ON_LIMIT:
		return w->is_limited || w->state == FRONT_DONE;
	}
	return false;
}

/* What is different around the channel because it happens. */
static void change(struct world *w, enum front_stim stim)
{
	if (stim == FRONT_ON_MAPPED && w->process == MAPS)
		w->process = USES;
	else if (stim == FRONT_ON_FAILED && w->process == MAPS)
		w->process = FAILED;
	else if (stim == FRONT_ON_LEFT)
		w->process = GONE;
}

/* -------------------------------------------------------------------- walk */

static bool is_same(const struct world *a, const struct world *b)
{
	return a->state == b->state && a->process == b->process &&
	       a->node == b->node && a->is_limited == b->is_limited &&
	       a->is_refused == b->is_refused &&
	       a->is_hung_up == b->is_hung_up && a->is_killed == b->is_killed;
}

static void note(struct walk *walk, size_t from, const struct world *w)
{
	bool is_done = w->state == FRONT_DONE;
	size_t i = 0;

	/* A node of ours is there as long as somebody looks after it. */
	assert_int_equal(w->node == NO_NODE, is_done || w->state == FRONT_IDLE);
	assert_false(is_done && (w->process == MAPS || w->process == USES));
	while (i < walk->num_worlds && !is_same(&walk->worlds[i], w))
		i++;
	if (i == walk->num_worlds) {
		assert_true(i < MAX_WORLDS);
		walk->worlds[walk->num_worlds++] = *w;
	}
	walk->leads_to[from][i] = true;
}

static void walk_all(struct walk *walk)
{
	walk->worlds[0] = (struct world){ .state = FRONT_IDLE };
	walk->num_worlds = 1;
	for (size_t i = 0; i < walk->num_worlds; i++) {
		for (int stim = 0; stim < FRONT_NUM_STIMS; stim++) {
			struct world w = walk->worlds[i];

			if (!can_happen(&w, (enum front_stim)stim))
				continue;
			change(&w, (enum front_stim)stim);
			feed(walk, &w, (enum front_stim)stim);
			note(walk, i, &w);
		}
	}
}

static int setup(void **state)
{
	static struct walk walk;

	memset(&walk, 0, sizeof(walk));
	walk_all(&walk);
	*state = &walk;
	return 0;
}

static void exactly_the_cells_that_say_bug_are_never_met(void **state)
{
	const struct walk *walk = *state;

	for (int s = 0; s < FRONT_NUM_STATES; s++) {
		for (int on = 0; on < FRONT_NUM_STIMS; on++) {
			bool is_bug = front_fsm_step((enum front_state)s,
						     (enum front_stim)on)
					      .act == FRONT_DO_BUG;

			if (walk->met[s][on] == is_bug)
				fail_msg("%s + %s",
					 front_state_name((enum front_state)s),
					 front_stim_name((enum front_stim)on));
		}
	}
}

/* Does a step of this kind bring the channel closer to its end? */
static bool leads_to_end(struct walk *walk, size_t from)
{
	for (size_t to = 0; to < walk->num_worlds; to++) {
		if (walk->leads_to[from][to] && walk->can_end[to])
			return true;
	}
	return false;
}

static void whatever_happened_the_end_can_be_reached(void **state)
{
	struct walk *walk = *state;
	bool has_changed = true;

	for (size_t i = 0; i < walk->num_worlds; i++)
		walk->can_end[i] = walk->worlds[i].state == FRONT_DONE;
	while (has_changed) {
		has_changed = false;
		for (size_t i = 0; i < walk->num_worlds; i++) {
			if (walk->can_end[i] || !leads_to_end(walk, i))
				continue;
			walk->can_end[i] = true;
			has_changed = true;
		}
	}
	assert_true(walk->num_worlds > 20);
	for (size_t i = 0; i < walk->num_worlds; i++)
		assert_true(walk->can_end[i]);
}

static void no_wait_for_a_gateway_is_without_a_limit(void **state)
{
	const struct walk *walk = *state;

	for (size_t i = 0; i < walk->num_worlds; i++) {
		const struct world *w = &walk->worlds[i];

		if (w->state == FRONT_ASKING || w->state == FRONT_MAPPING ||
		    w->state == FRONT_LEAVING)
			assert_true(w->is_limited);
		if (w->state == FRONT_UP)
			assert_false(w->is_limited);
	}
}

static void the_end_of_the_process_ends_the_channel_in_every_state(void **state)
{
	(void)state;
	for (int from = 0; from < FRONT_NUM_STATES; from++)
		assert_int_equal(front_fsm_step((enum front_state)from,
						FRONT_ON_LEFT)
					 .next,
				 FRONT_DONE);
}

static void who_uses_a_channel_is_told_before_it_is_killed(void **state)
{
	(void)state;
	for (int from = 0; from < FRONT_NUM_STATES; from++) {
		for (int on = 0; on < FRONT_NUM_STIMS; on++) {
			struct front_step step = front_fsm_step(
				(enum front_state)from, (enum front_stim)on);

			if (step.act != FRONT_DO_KILL)
				continue;
			assert_int_equal(from, FRONT_LEAVING);
			assert_int_equal(on, FRONT_ON_LIMIT);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(
			exactly_the_cells_that_say_bug_are_never_met, setup),
		cmocka_unit_test_setup(whatever_happened_the_end_can_be_reached,
				       setup),
		cmocka_unit_test_setup(no_wait_for_a_gateway_is_without_a_limit,
				       setup),
		cmocka_unit_test(
			the_end_of_the_process_ends_the_channel_in_every_state),
		cmocka_unit_test(
			who_uses_a_channel_is_told_before_it_is_killed),
	};

	return cmocka_run_group_tests_name("front_fsm", tests, NULL, NULL);
}
