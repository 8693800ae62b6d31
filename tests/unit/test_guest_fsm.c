/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of guest_fsm.def on the real guest; then what is no row: answers to
 * other holds, askers, and who the guest is.
 */
#include "guest_bed.h"

static void stimulate(struct guest *g, enum guest_state from,
		      enum guest_stim stim)
{
	switch (stim) {
	case GUEST_ON_OFFERED:
		memory_set(OURS "/peer", UUID1 " u1");
		guest_check(g);
		break;
	case GUEST_ON_CHANGED:
		memory_set("/local/domain/5/vm", "/vm/" UUID2);
		memory_set(OURS "/peer", UUID2 " u1");
		guest_check(g);
		break;
	case GUEST_ON_GONE:
		memory_remove(OURS);
		guest_check(g);
		break;
	case GUEST_ON_HOLD:
		assert_int_equal(guest_hold(g, on_done, NULL), 0);
		break;
	case GUEST_ON_DONE:
		if (from >= GUEST_HOLDING && from <= GUEST_HELD)
			answer(g, "done");
		break;
	case GUEST_ON_QUIET:
		if (session_of(3))
			end_session(3);
		break;
	case GUEST_ON_RESUME:
		assert_int_equal(guest_resume(g, on_done, NULL), 0);
		break;
	case GUEST_ON_LIMIT:
		/* Sessions that end when they are told to are no matter here. */
		fake_loop_run(GUEST_HOLDING_MS);
		break;
	}
	fake_loop_run(GUEST_LOOK_MS);
}

static bool is_served(const struct guest *g)
{
	return guest_is_served(g, NULL);
}

/* What can be seen of the state that a row leads to. */
static void assert_state(const struct guest *g, enum guest_state state)
{
	struct xen_guest id = { .domid = 0 };
	bool has_session = session_of(3) != NULL;

	(void)guest_is_served(g, &id);
	switch (state) {
	case GUEST_ABSENT:
		assert_true(guest_is_absent(g));
		assert_false(has_session);
		assert_false(memory_has(OURS "/3"));
		assert_false(memory_has(OURS "/devices"));
		break;
	case GUEST_SERVING:
		assert_true(is_served(g) && !id.is_held);
		break;
	case GUEST_HOLDING:
		assert_true(id.is_held && our_word_has(OURS "/hold", "hold"));
		break;
	case GUEST_EMPTYING:
		assert_true(id.is_held && has_session);
		break;
	case GUEST_HELD:
		assert_true(id.is_held && !has_session);
		assert_true(our_word_has(OURS "/3", "closed 7 "));
		break;
	case GUEST_LEAVING:
		assert_false(is_served(g) || guest_is_absent(g));
		assert_true(has_session);
		break;
	}
}

static void assert_action(enum guest_act act)
{
	switch (act) {
	case GUEST_DO_NONE:
	case GUEST_DO_EMPTY:
	case GUEST_DO_BUG:
		break;
	case GUEST_DO_SERVE:
		assert_string_equal(memory_get(OURS "/devices"), "7");
		break;
	case GUEST_DO_ASK_HOLD:
		assert_true(our_word_has(OURS "/hold", "hold"));
		assert_true(hold_note_read(env.state_dir, UUID1) != 0);
		break;
	case GUEST_DO_CONFIRM:
		assert_int_equal(hold_note_read(env.state_dir, UUID1) != 0, 1);
		break;
	case GUEST_DO_RELEASE:
		assert_true(our_word_has(OURS "/hold", "resume"));
		assert_true(hold_note_read(env.state_dir, UUID1) == 0);
		break;
	case GUEST_DO_DROP:
		assert_int_equal(num_left, 0);
		break;
	case GUEST_DO_FORGET:
		assert_int_equal(num_left, 1);
		break;
	}
}

/*
 * Limits of HOLDING alone are walked: in the other states the clock moves the
 * sessions on first.
 */
static bool is_walked(enum guest_state from, enum guest_stim stim)
{
	if (guest_fsm_step(from, stim).act == GUEST_DO_BUG)
		return false;
	return stim != GUEST_ON_LIMIT || from == GUEST_HOLDING;
}

/* One that was HELD without a channel leaves at once. */
static enum guest_state settled(enum guest_state from, enum guest_state next)
{
	if (next == GUEST_LEAVING && from == GUEST_HELD)
		return GUEST_ABSENT;
	return next;
}

static void test_every_row_does_what_it_says(void **state)
{
	unsigned num_walked = 0;

	for (int i = 0; i < GUEST_NUM_STATES * GUEST_NUM_STIMS; i++) {
		enum guest_state from = (enum guest_state)(i / GUEST_NUM_STIMS);
		enum guest_stim stim = (enum guest_stim)(i % GUEST_NUM_STIMS);
		struct guest_step row = guest_fsm_step(from, stim);
		struct guest *g;

		if (!is_walked(from, stim))
			continue;
		if (num_walked++ > 0)
			(void)set_up(state);
		g = reach(from);
		assert_state(g, from);
		stimulate(g, from, stim);
		assert_state(g, settled(from, row.next));
		if (settled(from, row.next) == row.next)
			assert_action(row.act);
		finish(g);
		(void)hold_note_remove(env.state_dir, UUID1);
		(void)tear_down(state);
	}
	(void)set_up(state);
	assert_int_equal(num_walked, 42);
}

/* --------------------------------------------------------------- hold */

static void test_done_counts_only_for_the_hold_that_was_asked(void **state)
{
	struct guest *g;
	struct xen_guest id;

	(void)state;
	g = reach(GUEST_HOLDING);
	say(g, "hold", E1 " done");
	say(g, "hold", "done");
	assert_true(guest_is_served(g, &id) && id.is_held);
	assert_true(our_word_has(OURS "/3", "open"));
	answer(g, "done");
	end_session(3);
	fake_loop_run(GUEST_LOOK_MS);
	assert_int_equal(told.count, 1);
	assert_int_equal(told.status, EXIT_OK);
	finish(g);
}

static void test_an_agent_that_does_not_answer_loses_its_devices(void **state)
{
	struct guest *g;

	(void)state;
	g = reach(GUEST_HOLDING);
	fake_loop_run(GUEST_HOLDING_MS - 2ull * GUEST_LOOK_MS);
	assert_true(our_word_has(OURS "/3", "open"));
	fake_loop_run(2ull * GUEST_LOOK_MS);
	end_session(3);
	fake_loop_run(GUEST_LOOK_MS);
	assert_true(our_word_has(OURS "/3", "closed 7"));
	assert_int_equal(told.count, 1);
	assert_int_equal(told.status, EXIT_TIMEOUT);
	finish(g);
}

static void test_a_guest_that_comes_back_is_still_held(void **state)
{
	struct guest *g;
	struct xen_guest id;

	(void)state;
	g = reach(GUEST_HELD);
	memory_remove(OURS);
	guest_check(g);
	assert_true(guest_is_absent(g));
	guest_free(g);
	memory_remove(THEIRS);
	memory_set(OURS "/peer", UUID1 " u1");
	g = new_guest();
	assert_true(guest_is_served(g, &id) && id.is_held);
	say(g, "0", E1 " ask 0");
	assert_true(our_word_has(OURS "/0", "closed 7"));
	assert_int_equal(guest_resume(g, on_done, NULL), 0);
	fake_loop_run(GUEST_LOOK_MS);
	assert_int_equal(told.count, 0);
	answer(g, "resumed");
	assert_int_equal(told.count, 1);
	assert_int_equal(told.status, EXIT_OK);
	say(g, "0", "00000000000000a2 ask 0");
	assert_non_null(session_of(0));
	finish(g);
}

static void test_an_asker_is_answered_later_and_once(void **state)
{
	struct guest *g;
	int asker;

	(void)state;
	g = reach(GUEST_SERVING);
	assert_int_equal(guest_resume(g, on_done, NULL), 0);
	assert_int_equal(told.count, 0);
	fake_loop_run(GUEST_LOOK_MS);
	assert_int_equal(told.count, 1);
	/* Gone before it is answered. */
	assert_int_equal(guest_hold(g, on_done, &asker), 0);
	guest_forget_asker(g, &asker);
	fake_loop_run(GUEST_HOLDING_MS);
	assert_int_equal(told.count, 1);
	finish(g);
}

static void test_who_asks_for_a_guest_that_dies_is_told(void **state)
{
	struct guest *g;

	(void)state;
	g = reach(GUEST_HOLDING);
	memory_remove(OURS);
	guest_check(g);
	assert_int_equal(told.count, 1);
	assert_int_equal(told.status, EXIT_CANNOT_REACH);
	finish(g);
}

/* Both are asked for before the guest is looked at. */
static void ask_for_both(struct guest *g)
{
	assert_int_equal(guest_hold(g, on_done, NULL), 0);
	assert_int_equal(guest_resume(g, on_done, NULL), 0);
}

static void
test_what_was_asked_for_one_that_went_is_not_done_to_others(void **s)
{
	struct guest *g;
	struct xen_guest id;

	(void)s;
	g = reach(GUEST_SERVING);
	assert_int_equal(guest_hold(g, on_done, NULL), 0);
	memory_set("/local/domain/5/vm", "/vm/" UUID2);
	memory_set(OURS "/peer", UUID2 " u1");
	guest_check(g);
	assert_int_equal(told.count, 1);
	end_session(3);
	fake_loop_run(GUEST_LOOK_MS);
	guest_check(g);
	fake_loop_run(GUEST_LOOK_MS);
	assert_true(guest_is_served(g, &id) && !id.is_held);
	assert_string_equal(id.uuid, UUID2);
	finish(g);
}

static void test_nothing_is_written_for_one_that_has_gone(void **state)
{
	struct guest *g;

	(void)state;
	g = reach(GUEST_SERVING);
	ask_for_both(g);
	/* The number is another domain's, and its folder does not say so yet. */
	memory_set("/local/domain/5/vm", "/vm/" UUID2);
	guest_check(g);
	end_session(3);
	fake_loop_run(GUEST_LOOK_MS);
	assert_true(guest_is_absent(g));
	assert_false(memory_has(OURS "/3"));
	finish(g);
}

/* ------------------------------------------------------------- identity */

static void test_a_domain_without_nodes_is_served_until_it_is_dead(void **state)
{
	struct guest *g;

	(void)state;
	g = reach(GUEST_SERVING);
	memory_remove("/local/domain/5");
	guest_check(g);
	guest_mark(g);
	fake_loop_run(GUEST_LOOK_MS);
	assert_true(guest_is_served(g, NULL));
	assert_non_null(session_of(3));
	assert_true(our_word_has(OURS "/3", "open"));

	memory_is_dead = true;
	guest_check(g);
	assert_false(guest_is_served(g, NULL));
	finish(g);
}

static void test_a_number_that_is_another_domains_is_not_served(void **state)
{
	struct guest *g;

	(void)state;
	g = reach(GUEST_SERVING);
	memory_set("/local/domain/5/vm", "/vm/" UUID2);
	guest_check(g);
	assert_false(guest_is_served(g, NULL));
	finish(g);
}

static void test_a_word_of_whom_it_does_not_serve_is_not_heard(void **state)
{
	struct guest *g;
	unsigned num_before;

	(void)state;
	g = reach(GUEST_SERVING);
	num_before = num_started;
	memory_set("/local/domain/5/vm", "/vm/" UUID2);
	memory_set(OURS "/peer", UUID2 " u1");
	say(g, "3", "00000000000000a2 ask 0");
	say(g, "4", "00000000000000a3 ask 0");
	assert_int_equal(num_started, num_before);
	assert_false(guest_is_served(g, NULL));

	/* When nothing of the one before is left, it is served by its own name. */
	end_session(3);
	fake_loop_run(GUEST_LOOK_MS);
	guest_check(g);
	fake_loop_run(GUEST_LOOK_MS);
	assert_string_equal(the_session_of(4)->peer.policy.uuid, UUID2);
	finish(g);
}

static void test_a_lock_whose_session_has_ended_locks_nothing(void **state)
{
	struct guest *g;

	(void)state;
	g = reach(GUEST_SERVING);
	assert_true(lock_copy >= 0);
	say(g, "3", NULL);
	end_session(3);
	fake_loop_run(GUEST_LOOK_MS);
	say(g, "3", "00000000000000a2 ask 0");
	grant(3);
	assert_true(our_word_has(OURS "/3", "open"));
	finish(g);
}

static void test_a_new_name_is_judged_by_the_rules(void **state)
{
	struct guest *g;
	struct xen_guest id;

	(void)state;
	g = reach(GUEST_SERVING);
	memory_set(OURS "/peer", UUID1 " other");
	guest_check(g);
	assert_true(guest_is_served(g, &id));
	assert_string_equal(id.name, "other");
	end_session(3);
	fake_loop_run(GUEST_LOOK_MS);
	assert_true(our_word_has(OURS "/3", "closed 4"));
	say(g, "3", "00000000000000a2 ask 0");
	assert_true(our_word_has(OURS "/3", "closed 4"));
	finish(g);
}

static void test_what_is_no_peer_is_nobody(void **state)
{
	static const char *const words[] = {
		"", "u1", UUID1 "x u1", "1111 u1", UUID1 UUID1, "../../x u1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct guest *g;

		memory_set(OURS "/peer", words[i]);
		g = new_guest();
		assert_true(guest_is_absent(g));
		guest_free(g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_row_does_what_it_says),
		TEST(test_done_counts_only_for_the_hold_that_was_asked),
		TEST(test_an_agent_that_does_not_answer_loses_its_devices),
		TEST(test_a_guest_that_comes_back_is_still_held),
		TEST(test_an_asker_is_answered_later_and_once),
		TEST(test_who_asks_for_a_guest_that_dies_is_told),
		TEST(test_what_was_asked_for_one_that_went_is_not_done_to_others),
		TEST(test_nothing_is_written_for_one_that_has_gone),
		TEST(test_a_domain_without_nodes_is_served_until_it_is_dead),
		TEST(test_a_number_that_is_another_domains_is_not_served),
		TEST(test_a_word_of_whom_it_does_not_serve_is_not_heard),
		TEST(test_a_lock_whose_session_has_ended_locks_nothing),
		TEST(test_a_new_name_is_judged_by_the_rules),
		TEST(test_what_is_no_peer_is_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
