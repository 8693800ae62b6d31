/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of xen_link_fsm.def on the real link, over a store in memory and a
 * session that is only counted; then what is no row: what the store refuses, and
 * what a manager before has left.
 */
#include "xen_link_bed.h"

static void stimulate(struct xen_link *link, enum xen_link_stim stim)
{
	switch (stim) {
	case XEN_LINK_ON_ASK:
		guest_says(link, E2 " ask 65536");
		break;
	case XEN_LINK_ON_ASKED:
		guest_says(link, E1 " ask 0");
		break;
	case XEN_LINK_ON_UP:
		guest_says(link, E1 " up");
		break;
	case XEN_LINK_ON_LOST:
		guest_says(link, E2 " up");
		break;
	case XEN_LINK_ON_GARBAGE:
		guest_says(link, E1 " open");
		break;
	case XEN_LINK_ON_LEFT:
		guest_says(link, NULL);
		break;
	case XEN_LINK_ON_HIDDEN:
		memory_remove(THEIRS);
		xen_link_review(link);
		break;
	case XEN_LINK_ON_ENDED:
		end(link);
		break;
	case XEN_LINK_ON_REVOKE:
		xen_link_revoke(link, EXIT_BUSY, "for a reason");
		break;
	case XEN_LINK_ON_GRANTED:
	case XEN_LINK_ON_DEAD:
	case XEN_LINK_ON_LIMIT:
		xen_link_feed(link, stim);
		break;
	}
}

static void assert_action(enum xen_link_act act)
{
	switch (act) {
	case XEN_LINK_DO_NONE:
		assert_int_equal(
			session.starts + session.terminates + session.kills, 0);
		break;
	case XEN_LINK_DO_START:
		assert_int_equal(session.starts, 1);
		assert_int_equal(session.ring_bytes, 65536);
		assert_int_equal(session.limit_ms, XEN_LINK_STARTING_MS);
		break;
	case XEN_LINK_DO_OPEN:
		assert_int_equal(session.limit_ms, 0);
		assert_string_equal(memory_get(OURS "/3"), E1 " open");
		break;
	case XEN_LINK_DO_WAIT:
		assert_int_equal(session.limit_ms, XEN_LINK_WAITING_MS);
		assert_string_equal(memory_get(OURS "/3"), E1 " open");
		break;
	case XEN_LINK_DO_END:
		assert_int_equal(session.terminates, 1);
		assert_int_equal(session.limit_ms, XEN_LINK_ENDING_MS);
		break;
	case XEN_LINK_DO_KILL:
		assert_int_equal(session.kills, 1);
		assert_int_equal(session.limit_ms, XEN_LINK_KILLING_MS);
		break;
	case XEN_LINK_DO_CLOSE:
		assert_int_equal(session.limit_ms, 0);
		assert_true(our_word_begins(E1 " closed "));
		assert_null(memory_get(OURS "/3/ring-ref"));
		break;
	case XEN_LINK_DO_DISOWN:
		assert_true(our_word_begins(E2 " closed "));
		break;
	case XEN_LINK_DO_REMOVE:
		assert_false(memory_has(OURS "/3"));
		break;
	case XEN_LINK_DO_BUG:
		fail_msg("a row that says BUG was walked");
		break;
	}
}

static void test_every_row_does_what_it_says(void **state)
{
	unsigned num_walked = 0;

	(void)state;
	for (int from = 0; from < XEN_LINK_NUM_STATES; from++) {
		for (int stim = 0; stim < XEN_LINK_NUM_STIMS; stim++) {
			struct xen_link_step row =
				xen_link_fsm_step((enum xen_link_state)from,
						  (enum xen_link_stim)stim);
			struct xen_link *link;

			if (row.act == XEN_LINK_DO_BUG)
				continue;
			link = reach((enum xen_link_state)from);
			memset(&session, 0, sizeof(session));
			stimulate(link, (enum xen_link_stim)stim);
			assert_int_equal(xen_link_state(link), row.next);
			assert_action(row.act);
			xen_link_free(link);
			num_walked++;
		}
	}
	assert_int_equal(num_walked, 98);
}

/* Laws of the table as a whole. */
static void test_a_row_that_says_bug_changes_nothing(void **state)
{
	(void)state;
	for (int from = 0; from < XEN_LINK_NUM_STATES; from++) {
		for (int stim = 0; stim < XEN_LINK_NUM_STIMS; stim++) {
			struct xen_link_step row =
				xen_link_fsm_step((enum xen_link_state)from,
						  (enum xen_link_stim)stim);

			if (row.act == XEN_LINK_DO_BUG)
				assert_int_equal(row.next, from);
		}
	}
}

/* ------------------------------------------------------------------ a life */

static void test_a_channel_lives_from_ask_to_nothing(void **state)
{
	struct xen_link *link;

	(void)state;
	begin();
	link = new_link(XEN_LINK_NO_SESSION, 0);
	assert_true(xen_link_is_idle(link) && xen_link_is_quiet(link));
	guest_says(link, E1 " ask 0");
	assert_false(xen_link_is_idle(link) || xen_link_is_quiet(link));
	assert_null(memory_get(OURS "/3"));
	xen_link_feed(link, XEN_LINK_ON_GRANTED);
	assert_string_equal(memory_get(OURS "/3"), E1 " open");
	guest_says(link, E1 " up");
	guest_says(link, NULL);
	assert_int_equal(session.terminates, 1);
	end(link);
	assert_true(xen_link_is_idle(link));
	assert_false(memory_has(OURS "/3"));
	assert_int_equal(session.starts, 1);
	assert_int_equal(session.kills, 0);
	xen_link_free(link);
}

static void test_a_guest_that_starts_anew_is_served_behind_the_end(void **state)
{
	struct xen_link *link = reach(XEN_LINK_OPEN);

	(void)state;
	guest_says(link, E2 " ask 4096");
	assert_int_equal(xen_link_state(link), XEN_LINK_ENDING);
	end(link);
	assert_int_equal(xen_link_state(link), XEN_LINK_STARTING);
	assert_int_equal(session.starts, 2);
	assert_int_equal(session.ring_bytes, 4096);
	assert_int_equal(xen_link_epoch(link), 0xa2);
	xen_link_free(link);
}

static void test_a_refused_ask_is_answered_with_the_reason(void **state)
{
	struct xen_link *link;

	(void)state;
	begin();
	session.is_refusing = true;
	link = new_link(XEN_LINK_NO_SESSION, 0);
	guest_says(link, E1 " ask 0");
	assert_string_equal(memory_get(OURS "/3"), E1 " closed 7 no room");
	guest_says(link, E2 " ask 0");
	assert_string_equal(memory_get(OURS "/3"), E2 " closed 7 no room");
	xen_link_free(link);
}

static void
test_the_first_reason_for_an_end_is_what_the_guest_reads(void **state)
{
	struct xen_link *link = reach(XEN_LINK_OPEN);

	(void)state;
	xen_link_revoke(link, EXIT_NOT_ALLOWED, "not yours any more");
	end(link);
	assert_string_equal(memory_get(OURS "/3"),
			    E1 " closed 4 not yours any more");
	xen_link_free(link);

	for (int i = 0; i < 2; i++) {
		link = reach(i == 0 ? XEN_LINK_STARTING : XEN_LINK_WAITING);
		xen_link_feed(link, XEN_LINK_ON_LIMIT);
		end(link);
		assert_true(our_word_begins(E1 " closed 11 "));
		xen_link_free(link);
	}
}

static void
test_what_a_guest_that_is_not_seen_has_is_taken_when_it_is_dead(void **state)
{
	struct xen_link *link = reach(XEN_LINK_OPEN);

	(void)state;
	/* Nobody has told of this yet. */
	memory_remove(THEIRS);
	xen_link_revoke(link, EXIT_NOT_ALLOWED, "not yours any more");
	assert_int_equal(xen_link_state(link), XEN_LINK_REVOKED);
	assert_int_equal(session.terminates, 0);
	assert_int_equal(session.limit_ms, XEN_LINK_WAITING_MS);

	xen_link_feed(link, XEN_LINK_ON_DEAD);

	assert_int_equal(session.kills, 1);
	xen_link_free(link);
}

static void
test_a_guest_that_comes_back_reads_why_it_was_revoked_meanwhile(void **state)
{
	struct xen_link *link = reach(XEN_LINK_WAITING);

	(void)state;
	xen_link_revoke(link, EXIT_NOT_ALLOWED, "not yours any more");
	assert_string_equal(memory_get(OURS "/3"), E1 " open");

	guest_says(link, E1 " up");

	assert_int_equal(session.terminates, 1);
	end(link);
	assert_string_equal(memory_get(OURS "/3"),
			    E1 " closed 4 not yours any more");
	xen_link_free(link);
}

static void test_a_dead_guests_node_is_not_looked_at(void **state)
{
	struct xen_link *link = reach(XEN_LINK_OPEN);

	(void)state;
	xen_link_feed(link, XEN_LINK_ON_DEAD);
	/* Somebody else has the number already. */
	guest_says(link, E2 " ask 0");
	end(link);
	assert_true(xen_link_is_idle(link));
	assert_false(memory_has(OURS "/3"));
	assert_int_equal(session.starts, 1);
	xen_link_free(link);
}

static void test_garbage_of_every_kind_serves_nobody(void **state)
{
	static const char *const words[] = {
		"",
		"ask",
		E1,
		E1 " ask",
		E1 " ask 00",
		E1 " ask -1",
		E1 " ask 4294967296",
		"0000000000000000 ask 0",
		"A0000000000000A1 ask 0",
		E1 "  ask 0",
		E1 " ask 0 ",
		E1 " ask 0\n",
		E1 " open",
		E1 " closed 0 done",
		E1 " attach 1-1",
		E1 " hold",
	};
	char lengthy[HANDSHAKE_WORD_BYTES + 4];
	struct xen_link *link;

	(void)state;
	begin();
	link = new_link(XEN_LINK_NO_SESSION, 0);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		guest_says(link, words[i]);
	memset(lengthy, 'a', sizeof(lengthy) - 1);
	lengthy[sizeof(lengthy) - 1] = '\0';
	guest_says(link, lengthy);
	assert_true(xen_link_is_idle(link));
	assert_int_equal(session.starts, 0);
	xen_link_free(link);
}

/* -------------------------------------------------------------- the store */

static void test_what_the_store_refuses_is_said_at_the_next_look(void **state)
{
	struct xen_link *link = reach(XEN_LINK_STARTING);

	(void)state;
	memory_error = -ENOSPC;
	xen_link_feed(link, XEN_LINK_ON_GRANTED);
	assert_int_equal(xen_link_state(link), XEN_LINK_OPEN);
	assert_null(memory_get(OURS "/3"));
	memory_error = 0;
	xen_link_review(link);
	assert_string_equal(memory_get(OURS "/3"), E1 " open");

	memory_error = -ENOSPC;
	guest_says(link, NULL);
	end(link);
	assert_false(xen_link_is_idle(link));
	memory_error = 0;
	xen_link_review(link);
	assert_true(xen_link_is_idle(link));
	assert_false(memory_has(OURS "/3"));
	xen_link_free(link);
}

static void test_a_folder_that_was_removed_does_not_come_back(void **state)
{
	struct xen_link *link = reach(XEN_LINK_STARTING);

	(void)state;
	memory_remove(OURS);
	xen_link_feed(link, XEN_LINK_ON_GRANTED);
	assert_false(memory_has(OURS));
	xen_link_ended(link, EXIT_OK, "it has ended");
	assert_false(memory_has(OURS));
	xen_link_free(link);
}

/* ------------------------------------------------- after another manager */

static void test_a_session_that_outlived_its_manager_goes_on(void **state)
{
	struct xen_link *link;

	(void)state;
	begin();
	memory_set(OURS "/3", E1 " open");
	memory_set(THEIRS "/3", E1 " up");
	link = new_link(XEN_LINK_SESSION, 0xa1);
	xen_link_review(link);
	assert_int_equal(xen_link_state(link), XEN_LINK_OPEN);
	assert_int_equal(session.kills + session.terminates, 0);
	xen_link_free(link);
}

static void test_a_session_that_was_not_open_yet_is_killed(void **state)
{
	static const char *const ours[] = { E2 " open", E1 " closed 0 done",
					    "" };

	(void)state;
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		struct xen_link *link;

		begin();
		memory_set(OURS "/3", ours[i]);
		memory_set(THEIRS "/3", E1 " ask 0");
		link = new_link(XEN_LINK_SESSION, 0xa1);
		xen_link_review(link);
		assert_int_equal(xen_link_state(link), XEN_LINK_KILLING);
		assert_int_equal(session.kills, 1);
		end(link);
		/* Its ask is answered, so that it does not wait. */
		assert_int_equal(xen_link_state(link), XEN_LINK_CLOSED);
		assert_true(our_word_begins(E1 " closed 5 "));
		xen_link_free(link);
	}
}

static void test_an_unknown_session_is_waited_for_without_a_word(void **state)
{
	struct xen_link *link;

	(void)state;
	begin();
	link = new_link(XEN_LINK_WRONG_SESSION, 0);
	xen_link_review(link);
	xen_link_feed(link, XEN_LINK_ON_LIMIT);
	assert_int_equal(xen_link_state(link), XEN_LINK_WEDGED);
	assert_false(memory_has(OURS "/3"));
	end(link);
	assert_true(xen_link_is_idle(link));
	xen_link_free(link);
}

static void test_what_a_dead_session_left_open_is_closed(void **state)
{
	struct xen_link *link;

	(void)state;
	begin();
	memory_set(OURS "/3", E1 " open");
	memory_set(OURS "/3/ring-ref", "8");
	memory_set(THEIRS "/3", E1 " up");
	link = new_link(XEN_LINK_NO_SESSION, 0);
	xen_link_review(link);
	assert_int_equal(xen_link_state(link), XEN_LINK_CLOSED);
	assert_true(our_word_begins(E1 " closed 5 "));
	assert_null(memory_get(OURS "/3/ring-ref"));
	guest_says(link, NULL);
	assert_true(xen_link_is_idle(link));
	xen_link_free(link);
}

static void test_half_a_grant_of_a_dead_session_is_removed(void **state)
{
	struct xen_link *link;

	(void)state;
	begin();
	memory_set(OURS "/3/ring-ref", "8");
	link = new_link(XEN_LINK_NO_SESSION, 0);
	assert_true(xen_link_is_idle(link));
	assert_false(memory_has(OURS "/3"));
	xen_link_free(link);
}

static void test_an_up_that_nobody_serves_is_answered(void **state)
{
	struct xen_link *link;

	(void)state;
	begin();
	link = new_link(XEN_LINK_NO_SESSION, 0);
	guest_says(link, E1 " up");
	assert_true(our_word_begins(E1 " closed 5 "));
	assert_int_equal(session.starts, 0);
	xen_link_free(link);
}

static void test_who_asks_for_a_wedged_channel_is_told(void **state)
{
	struct xen_link *link = reach(XEN_LINK_WEDGED);

	(void)state;
	assert_true(xen_link_is_quiet(link));
	guest_says(link, E2 " ask 0");
	assert_true(our_word_begins(E2 " closed 7 "));
	/* It ends at last: whoever asks then is served. */
	end(link);
	guest_says(link, E1 " ask 0");
	assert_int_equal(xen_link_state(link), XEN_LINK_STARTING);
	xen_link_free(link);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_row_does_what_it_says),
		cmocka_unit_test(test_a_row_that_says_bug_changes_nothing),
		cmocka_unit_test(test_a_channel_lives_from_ask_to_nothing),
		cmocka_unit_test(
			test_a_guest_that_starts_anew_is_served_behind_the_end),
		cmocka_unit_test(
			test_a_refused_ask_is_answered_with_the_reason),
		cmocka_unit_test(
			test_the_first_reason_for_an_end_is_what_the_guest_reads),
		cmocka_unit_test(
			test_what_a_guest_that_is_not_seen_has_is_taken_when_it_is_dead),
		cmocka_unit_test(
			test_a_guest_that_comes_back_reads_why_it_was_revoked_meanwhile),
		cmocka_unit_test(test_a_dead_guests_node_is_not_looked_at),
		cmocka_unit_test(test_garbage_of_every_kind_serves_nobody),
		cmocka_unit_test(
			test_what_the_store_refuses_is_said_at_the_next_look),
		cmocka_unit_test(
			test_a_folder_that_was_removed_does_not_come_back),
		cmocka_unit_test(
			test_a_session_that_outlived_its_manager_goes_on),
		cmocka_unit_test(
			test_a_session_that_was_not_open_yet_is_killed),
		cmocka_unit_test(
			test_an_unknown_session_is_waited_for_without_a_word),
		cmocka_unit_test(test_what_a_dead_session_left_open_is_closed),
		cmocka_unit_test(
			test_half_a_grant_of_a_dead_session_is_removed),
		cmocka_unit_test(test_an_up_that_nobody_serves_is_answered),
		cmocka_unit_test(test_who_asks_for_a_wedged_channel_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
