/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks the table of an URB's life breadth-first in the smallest honest world
 * around one slot: a peer that submits, unlinks once and waits for its answers;
 * a device that gives back what it holds, asked for it or not; a link that may
 * be lost at any moment. One thing is not honest: a peer may unlink an URB a
 * second time. What the world asserts on the way is what docs/protocol.md says.
 */
#include "gateway/urb_fsm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MAX_WORLDS 512

/* All that matters about one slot; every member counts when comparing. */
struct world {
	enum urb_state state;
	enum urb_act queued; /* the slot's answer: RET_*; or NONE */
	bool has_buffer;
	bool device_holds;
	bool is_done; /* the device did what was asked */
	bool is_linked;
	bool is_violated;        /* a violation: the link must be lost next */
	bool is_too_late_queued; /* RET_UNLINK 0, behind the slot's answer */
	/* The peer: what it waits for. */
	bool owes_submit;
	bool owes_unlink;
	bool has_unlinked;
};

struct walk {
	struct world worlds[MAX_WORLDS];
	size_t num_worlds;
	bool can_rest[MAX_WORLDS];
	/* leads_to[a][b]: one step goes from world a to world b. */
	bool leads_to[MAX_WORLDS][MAX_WORLDS];
	bool met[URB_NUM_STATES][URB_NUM_STIMS];
};

static bool is_resting(const struct world *w)
{
	return w->state == URB_FREE && !w->has_buffer && !w->owes_submit &&
	       !w->owes_unlink;
}

/* ------------------------------------------------------------------- world */

static void queue_answer(struct world *w, enum urb_act answer)
{
	assert_int_equal(w->queued, URB_DO_NONE);
	assert_true(w->owes_submit);
	assert_false(w->device_holds);
	w->queued = answer;
}

static void act(struct world *w, enum urb_act action)
{
	switch (action) {
	case URB_DO_NONE:
		break;
	case URB_DO_START:
		assert_true(w->has_buffer && !w->device_holds);
		w->device_holds = true;
		break;
	case URB_DO_CANCEL:
		assert_true(w->device_holds);
		break;
	case URB_DO_RET_SUBMIT:
		/* Who unlinked while the device had it is owed a second one. */
		assert_false(w->owes_unlink);
		queue_answer(w, action);
		break;
	case URB_DO_RET_UNLINK:
		assert_true(w->owes_unlink);
		assert_false(w->is_done);
		queue_answer(w, action);
		break;
	case URB_DO_RET_BOTH:
		assert_true(w->owes_unlink);
		assert_true(w->is_done);
		queue_answer(w, action);
		break;
	case URB_DO_TOO_LATE:
		assert_true(w->owes_unlink);
		assert_int_not_equal(w->queued, URB_DO_NONE);
		w->is_too_late_queued = true;
		break;
	case URB_DO_RELEASE:
		assert_true(w->has_buffer && !w->device_holds);
		assert_false(w->is_linked && w->owes_submit);
		w->has_buffer = false;
		break;
	case URB_DO_VIOLATION:
		w->is_violated = true;
		break;
	case URB_DO_BUG:
		fail_msg("a cell that says BUG was met");
		break;
	}
}

static void feed(struct walk *walk, struct world *w, enum urb_stim stim)
{
	struct urb_step step = urb_fsm_step(w->state, stim);

	walk->met[w->state][stim] = true;
	w->state = step.next;
	act(w, step.act);
}

/* The queued answer reaches the peer. */
static void deliver(struct world *w)
{
	assert_true(w->owes_submit);
	w->owes_submit = false;
	if (w->queued != URB_DO_RET_SUBMIT)
		w->owes_unlink = false;
	w->queued = URB_DO_NONE;
}

/* Can it happen now, in an honest world? */
static bool can_happen(const struct world *w, enum urb_stim stim)
{
	bool is_alive = w->is_linked && !w->is_violated;

	switch (stim) {
	case URB_ON_SUBMIT:
		return is_alive && !w->owes_submit && !w->owes_unlink;
	case URB_ON_RECEIVED:
	case URB_ON_REFUSED:
		return is_alive && w->state == URB_RECEIVING;
	case URB_ON_UNLINK:
		/* Behind the data of the URB; unknown once it was answered. */
		return is_alive && w->owes_submit &&
		       w->state != URB_RECEIVING &&
		       (!w->has_unlinked || w->state == URB_CANCELLING);
	case URB_ON_ENDED:
	case URB_ON_CANCELLED:
		return w->device_holds && !w->is_violated;
	case URB_ON_SENT:
		return is_alive && w->queued != URB_DO_NONE;
	case URB_ON_LOST:
		return w->is_linked;
	}
	return false;
}

/* What is different around the slot because it happens. */
static void change(struct world *w, enum urb_stim stim)
{
	switch (stim) {
	case URB_ON_SUBMIT:
		w->owes_submit = true;
		w->has_unlinked = false;
		w->is_done = false;
		w->has_buffer = true;
		break;
	case URB_ON_RECEIVED:
	case URB_ON_REFUSED:
		break;
	case URB_ON_UNLINK:
		w->owes_unlink = true;
		w->has_unlinked = true;
		break;
	case URB_ON_ENDED:
	case URB_ON_CANCELLED:
		w->device_holds = false;
		w->is_done = stim == URB_ON_ENDED;
		break;
	case URB_ON_SENT:
		deliver(w);
		break;
	case URB_ON_LOST:
		/* No answer will come: nothing is owed any more. */
		w->is_linked = false;
		w->is_violated = false;
		w->queued = URB_DO_NONE;
		w->is_too_late_queued = false;
		w->owes_submit = false;
		w->owes_unlink = false;
		break;
	}
}

/* RET_UNLINK 0 leaves from a slot of its own, behind the other's answer. */
static bool deliver_too_late(struct world *w)
{
	if (!w->is_linked || !w->is_too_late_queued || w->queued != URB_DO_NONE)
		return false;
	assert_false(w->owes_submit);
	assert_true(w->owes_unlink);
	w->owes_unlink = false;
	w->is_too_late_queued = false;
	return true;
}

/* -------------------------------------------------------------------- walk */

static bool is_same(const struct world *a, const struct world *b)
{
	return a->state == b->state && a->queued == b->queued &&
	       a->has_buffer == b->has_buffer &&
	       a->device_holds == b->device_holds && a->is_done == b->is_done &&
	       a->is_linked == b->is_linked &&
	       a->is_violated == b->is_violated &&
	       a->is_too_late_queued == b->is_too_late_queued &&
	       a->owes_submit == b->owes_submit &&
	       a->owes_unlink == b->owes_unlink &&
	       a->has_unlinked == b->has_unlinked;
}

static void note(struct walk *walk, size_t from, const struct world *w)
{
	size_t i = 0;

	/* Held by nobody, and yet somebody holds it. */
	assert_false(w->state == URB_FREE && w->device_holds);
	assert_false(w->state == URB_FREE && w->has_buffer);
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
	walk->worlds[0] = (struct world){ .is_linked = true };
	walk->num_worlds = 1;
	for (size_t i = 0; i < walk->num_worlds; i++) {
		struct world w = walk->worlds[i];

		for (int stim = 0; stim < URB_NUM_STIMS; stim++) {
			w = walk->worlds[i];
			if (!can_happen(&w, (enum urb_stim)stim))
				continue;
			change(&w, (enum urb_stim)stim);
			feed(walk, &w, (enum urb_stim)stim);
			note(walk, i, &w);
		}
		w = walk->worlds[i];
		if (deliver_too_late(&w))
			note(walk, i, &w);
	}
}

static int setup(void **state)
{
	static struct walk walk;

	memset(&walk, 0, sizeof(walk));
	*state = &walk;
	return 0;
}

static void exactly_the_cells_that_say_bug_are_never_met(void **state)
{
	struct walk *walk = *state;

	walk_all(walk);
	for (int s = 0; s < URB_NUM_STATES; s++) {
		for (int on = 0; on < URB_NUM_STIMS; on++) {
			bool is_bug = urb_fsm_step((enum urb_state)s,
						   (enum urb_stim)on)
					      .act == URB_DO_BUG;

			if (walk->met[s][on] == is_bug)
				fail_msg("%s + %s",
					 urb_state_name((enum urb_state)s),
					 urb_stim_name((enum urb_stim)on));
		}
	}
}

/* Marks all worlds from which a marked one can be reached. */
static void spread_rest(struct walk *walk)
{
	bool has_changed = true;

	while (has_changed) {
		has_changed = false;
		for (size_t a = 0; a < walk->num_worlds; a++) {
			for (size_t b = 0; b < walk->num_worlds; b++) {
				if (walk->can_rest[a] || !walk->can_rest[b] ||
				    !walk->leads_to[a][b])
					continue;
				walk->can_rest[a] = true;
				has_changed = true;
			}
		}
	}
}

static void whatever_happened_rest_can_be_reached(void **state)
{
	struct walk *walk = *state;

	walk_all(walk);
	assert_true(walk->num_worlds > 20);
	for (size_t i = 0; i < walk->num_worlds; i++)
		walk->can_rest[i] = is_resting(&walk->worlds[i]);
	spread_rest(walk);
	for (size_t i = 0; i < walk->num_worlds; i++)
		assert_true(walk->can_rest[i]);
}

static void only_rest_is_an_end(void **state)
{
	struct walk *walk = *state;

	walk_all(walk);
	for (size_t i = 0; i < walk->num_worlds; i++) {
		bool has_next = false;

		for (size_t k = 0; k < walk->num_worlds; k++)
			has_next |= walk->leads_to[i][k] && k != i;
		if (!has_next)
			assert_true(is_resting(&walk->worlds[i]));
	}
}

/* -------------------------------------------------------------------- laws */

static bool is_held(enum urb_state state)
{
	return state == URB_IN_FLIGHT || state == URB_CANCELLING ||
	       state == URB_ORPHAN;
}

static void check_laws(enum urb_state from, enum urb_stim on)
{
	struct urb_step step = urb_fsm_step(from, on);

	switch (step.act) {
	case URB_DO_START:
		assert_int_equal(on, URB_ON_RECEIVED);
		assert_int_equal(step.next, URB_IN_FLIGHT);
		break;
	case URB_DO_CANCEL:
		/* Once: the states after it do not ask again. */
		assert_int_equal(from, URB_IN_FLIGHT);
		assert_true(is_held(step.next));
		break;
	case URB_DO_RET_SUBMIT:
	case URB_DO_RET_UNLINK:
	case URB_DO_RET_BOTH:
		assert_int_not_equal(from, URB_REPLYING);
		assert_int_equal(step.next, URB_REPLYING);
		break;
	case URB_DO_RELEASE:
		assert_int_equal(step.next, URB_FREE);
		assert_int_not_equal(from, URB_FREE);
		break;
	case URB_DO_TOO_LATE:
	case URB_DO_VIOLATION:
		assert_int_equal(on, URB_ON_UNLINK);
		assert_int_equal(step.next, from);
		break;
	case URB_DO_BUG:
		assert_int_equal(step.next, from);
		break;
	case URB_DO_NONE:
		assert_int_not_equal(step.next, URB_REPLYING);
		break;
	}
}

static void each_action_keeps_its_law(void **state)
{
	(void)state;
	for (int from = 0; from < URB_NUM_STATES; from++) {
		for (int on = 0; on < URB_NUM_STIMS; on++)
			check_laws((enum urb_state)from, (enum urb_stim)on);
	}
}

static void
what_the_device_holds_is_let_go_only_when_it_gives_it_back(void **state)
{
	(void)state;
	for (int from = 0; from < URB_NUM_STATES; from++) {
		for (int on = 0; on < URB_NUM_STIMS; on++) {
			bool is_back = on == URB_ON_ENDED ||
				       on == URB_ON_CANCELLED;

			if (!is_held((enum urb_state)from) || is_back)
				continue;
			assert_true(is_held(urb_fsm_step((enum urb_state)from,
							 (enum urb_stim)on)
						    .next));
		}
	}
}

/* The states that tell apart what an unlink is owed, one by one. */
static void an_unlink_is_answered_by_what_the_device_did(void **state)
{
	struct urb_step step;

	(void)state;
	step = urb_fsm_step(URB_IN_FLIGHT, URB_ON_UNLINK);
	assert_int_equal(step.next, URB_CANCELLING);
	assert_int_equal(urb_fsm_step(step.next, URB_ON_ENDED).act,
			 URB_DO_RET_BOTH);
	assert_int_equal(urb_fsm_step(step.next, URB_ON_CANCELLED).act,
			 URB_DO_RET_UNLINK);
	assert_int_equal(urb_fsm_step(step.next, URB_ON_UNLINK).act,
			 URB_DO_VIOLATION);
	assert_int_equal(urb_fsm_step(URB_REPLYING, URB_ON_UNLINK).act,
			 URB_DO_TOO_LATE);
}

/* A refused URB and one that the loss met do not bother the device. */
static void the_device_is_asked_back_for_what_it_holds_and_no_more(void **state)
{
	(void)state;
	assert_int_equal(urb_fsm_step(URB_IN_FLIGHT, URB_ON_LOST).act,
			 URB_DO_CANCEL);
	assert_int_equal(urb_fsm_step(URB_IN_FLIGHT, URB_ON_UNLINK).act,
			 URB_DO_CANCEL);
	assert_int_equal(urb_fsm_step(URB_CANCELLING, URB_ON_LOST).act,
			 URB_DO_NONE);
	assert_int_equal(urb_fsm_step(URB_RECEIVING, URB_ON_REFUSED).act,
			 URB_DO_RET_SUBMIT);
}

static void every_name_is_there_and_its_own(void **state)
{
	(void)state;
	for (int a = 0; a < URB_NUM_STATES; a++) {
		for (int b = 0; b < a; b++)
			assert_string_not_equal(
				urb_state_name((enum urb_state)a),
				urb_state_name((enum urb_state)b));
	}
	for (int a = 0; a < URB_NUM_STIMS; a++) {
		for (int b = 0; b < a; b++)
			assert_string_not_equal(
				urb_stim_name((enum urb_stim)a),
				urb_stim_name((enum urb_stim)b));
	}
	assert_string_equal(urb_state_name(URB_IN_FLIGHT), "IN_FLIGHT");
	assert_string_equal(urb_stim_name(URB_ON_UNLINK), "UNLINK");
	assert_string_equal(urb_act_name(URB_DO_RET_BOTH), "RET_BOTH");
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(exactly_the_cells_that_say_bug_are_never_met),
		TEST(whatever_happened_rest_can_be_reached),
		TEST(only_rest_is_an_end),
		TEST(each_action_keeps_its_law),
		TEST(what_the_device_holds_is_let_go_only_when_it_gives_it_back),
		TEST(an_unlink_is_answered_by_what_the_device_did),
		TEST(the_device_is_asked_back_for_what_it_holds_and_no_more),
		TEST(every_name_is_there_and_its_own),
	};

	return cmocka_run_group_tests_name("urb_fsm", tests, NULL, NULL);
}
