/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of guest_fsm.def on the real guest, over a store in memory, a clock
 * that the test moves and sessions that are only counted; then its limits: looks,
 * channels, their rate.
 */
#include "gateway/guest.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_loop.h"
#include "gateway/hold_note.h"
#include "memory_store.h"

#define OURS         "/local/domain/0/data/xusbip/5"
#define THEIRS       "/local/domain/5/data/xusbip/0"
#define UUID1        "11111111-2222-3333-4444-555555555555"
#define UUID2        "11111111-2222-3333-4444-666666666666"
#define E1           "00000000000000a1"

#define MAX_SESSIONS 64

/* ---------------------------------------------------------------- sessions */

/* Processes that do nothing: their numbers are out of the kernel's range. */
static struct fake_session {
	pid_t pid; /* 0: not there */
	const struct sessions_events *events;
	void *owner;
	struct sessions_peer peer;
} fake_sessions[MAX_SESSIONS];
static unsigned num_started;

int sessions_start(struct sessions *sessions, int fd,
		   const struct sessions_peer *peer,
		   const struct sessions_events *events, void *owner,
		   pid_t *ret_pid)
{
	(void)sessions;
	(void)fd;
	for (size_t i = 0; i < MAX_SESSIONS; i++) {
		struct fake_session *s = &fake_sessions[i];

		if (s->pid != 0)
			continue;
		num_started++;
		*s = (struct fake_session){ .pid = 0x40000000 + (pid_t)i,
					    .events = events,
					    .owner = owner,
					    .peer = *peer };
		*ret_pid = s->pid;
		return 0;
	}
	return -EAGAIN;
}

void sessions_disown(struct sessions *sessions, pid_t pid)
{
	(void)sessions;
	for (size_t i = 0; i < MAX_SESSIONS; i++)
		if (fake_sessions[i].pid == pid)
			fake_sessions[i].pid = 0;
}

const char *sessions_reached_limit(const struct sessions *sessions,
				   const char *key)
{
	(void)sessions;
	(void)key;
	return NULL;
}

/* The one device that the rules give it. */
static const char *given_busid;

int registry_list(struct registry *registry, const struct policy_peer *peer,
		  registry_cb *each, void *arg)
{
	struct ipc_answer answer = { .type = IPC_DEVICE };

	(void)registry;
	assert_true(peer->is_domain);
	(void)snprintf(answer.device.busid, sizeof(answer.device.busid), "%s",
		       given_busid);
	return each(arg, &answer);
}

static struct fake_session *session_of(unsigned channel)
{
	for (size_t i = 0; i < MAX_SESSIONS; i++)
		if (fake_sessions[i].pid != 0 &&
		    fake_sessions[i].peer.channel == channel)
			return &fake_sessions[i];
	return NULL;
}

static struct fake_session *the_session_of(unsigned channel)
{
	struct fake_session *s = session_of(channel);

	assert_non_null(s);
	return s ? s : &fake_sessions[0];
}

static void end_session(unsigned channel)
{
	struct fake_session s = *the_session_of(channel);

	the_session_of(channel)->pid = 0;
	s.events->ended(s.owner, s.pid, EXIT_OK, "it has ended");
}

static void grant(unsigned channel)
{
	const struct fake_session *s = the_session_of(channel);

	s->events->granted(s->owner, s->pid);
}

/* ------------------------------------------------------------------ a guest */

static struct config config;
static struct guest_env env;
static unsigned num_left;

static struct {
	unsigned count;
	enum exit_status status;
} told;

static void on_left(void *arg)
{
	(void)arg;
	num_left++;
}

static void on_done(void *arg, enum exit_status status, const char *text)
{
	(void)arg;
	assert_true(text[0] != '\0');
	told.count++;
	told.status = status;
}

static int set_up(void **state)
{
	(void)state;
	memset(&env, 0, sizeof(env));
	memset(&config, 0, sizeof(config));
	memset(fake_sessions, 0, sizeof(fake_sessions));
	memset(&told, 0, sizeof(told));
	num_started = 0;
	num_left = 0;
	memory_clear();
	config.max_sessions = 128;
	config.max_sessions_per_peer = 40;
	config.vchan_ring_bytes = 65536;
	config.num_virtuals = 1;
	config.virtuals[0].kind = IPC_KIND_ZERO;
	config.virtuals[0].domains.num = 1;
	(void)snprintf(config.virtuals[0].domains.names[0], POLICY_NAME_BYTES,
		       "%s", "u1");
	(void)snprintf(env.runtime_dir, sizeof(env.runtime_dir), "%s",
		       "/tmp/test_guest_XXXXXX");
	assert_non_null(mkdtemp(env.runtime_dir));
	env.config = &config;
	env.left = on_left;
	env.devices_number = 7;
	assert_int_equal(wants_new(NULL, env.runtime_dir, 0, &env.wants), 0);
	memory_set("/local/domain/5", "");
	memory_set("/local/domain/5/vm", "/vm/" UUID1);
	memory_set(THEIRS, "");
	memory_set(OURS "/peer", UUID1 " u1");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	wants_free(env.wants);
	fake_loop_sweep();
	hold_note_remove(env.runtime_dir, UUID1);
	assert_int_equal(rmdir(env.runtime_dir), 0);
	return 0;
}

static struct guest *new_guest(void)
{
	struct guest *g;

	assert_int_equal(guest_new(&env, 5, &g), 0);
	guest_check(g);
	fake_loop_run(0);
	return g;
}

static void say(struct guest *g, const char *name, const char *word)
{
	char path[HANDSHAKE_PATH_BYTES];

	(void)snprintf(path, sizeof(path), THEIRS "/%s", name);
	if (word)
		memory_set(path, word);
	else
		memory_remove(path);
	guest_mark(g);
	fake_loop_run(GUEST_LOOK_MS);
}

/* The agent's answer to what the gateway says now. */
static void answer(struct guest *g, const char *verb)
{
	const char *ours = memory_get(OURS "/hold");
	char text[HANDSHAKE_WORD_BYTES];

	assert_non_null(ours);
	(void)snprintf(text, sizeof(text), "%.16s %s", ours, verb);
	say(g, "hold", text);
}

static bool our_word_has(const char *node, const char *verb)
{
	const char *value = memory_get(node);

	return value && strlen(value) >= 17 &&
	       strncmp(value + 17, verb, strlen(verb)) == 0;
}

static void finish(struct guest *g)
{
	for (unsigned i = 0; i < HANDSHAKE_CHANNELS; i++)
		if (session_of(i))
			end_session(i);
	guest_free(g);
}

/* A guest in this state; from SERVING on with a channel that is open. */
static struct guest *reach(enum guest_state state)
{
	struct guest *g;

	if (state == GUEST_ABSENT)
		memory_remove(OURS);
	g = new_guest();
	if (state == GUEST_ABSENT)
		return g;
	say(g, "3", E1 " ask 0");
	grant(3);
	if (state == GUEST_SERVING)
		return g;
	if (state == GUEST_LEAVING) {
		memory_remove(OURS);
		guest_check(g);
		return g;
	}
	assert_int_equal(guest_hold(g, on_done, NULL), 0);
	fake_loop_run(GUEST_LOOK_MS);
	if (state != GUEST_HOLDING)
		answer(g, "done");
	if (state == GUEST_HELD) {
		end_session(3);
		fake_loop_run(GUEST_LOOK_MS);
	}
	memset(&told, 0, sizeof(told));
	return g;
}

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
		assert_true(hold_note_read(env.runtime_dir, UUID1) != 0);
		break;
	case GUEST_DO_CONFIRM:
		assert_int_equal(hold_note_read(env.runtime_dir, UUID1) != 0,
				 1);
		break;
	case GUEST_DO_RELEASE:
		assert_true(our_word_has(OURS "/hold", "resume"));
		assert_true(hold_note_read(env.runtime_dir, UUID1) == 0);
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
		hold_note_remove(env.runtime_dir, UUID1);
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
	fake_loop_run(GUEST_HOLDING_MS - 2 * GUEST_LOOK_MS);
	assert_true(our_word_has(OURS "/3", "open"));
	fake_loop_run(2 * GUEST_LOOK_MS);
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

/* ------------------------------------------------------------- identity */

static void test_a_domain_that_dom0_does_not_know_is_dead(void **state)
{
	struct guest *g;

	(void)state;
	g = reach(GUEST_SERVING);
	memory_set("/local/domain/5/vm", "/vm/" UUID2);
	guest_check(g);
	assert_false(guest_is_served(g, NULL));
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

/* --------------------------------------------------------------- limits */

static void test_ten_thousand_writes_a_second_are_twenty_looks(void **state)
{
	struct guest *g;

	(void)state;
	g = reach(GUEST_SERVING);
	fake_loop_run(1000);
	memory_num_lists = 0;
	for (int i = 0; i < 10000; i++) {
		guest_mark(g);
		if (i % 10 == 9)
			fake_loop_run(1);
	}
	assert_in_range(memory_num_lists, 19, 21);
	/* And the last of them is not forgotten. */
	memory_num_lists = 0;
	guest_mark(g);
	fake_loop_run(GUEST_LOOK_MS);
	assert_in_range(memory_num_lists, 1, 2);
	finish(g);
}

static void ask(struct guest *g, unsigned channel, unsigned epoch)
{
	char name[12];
	char word[40];

	(void)snprintf(name, sizeof(name), "%u", channel);
	(void)snprintf(word, sizeof(word), "%016x ask 0", epoch);
	say(g, name, word);
}

static void test_a_guest_has_at_most_as_many_channels_as_it_may(void **state)
{
	struct guest *g;

	(void)state;
	g = new_guest();
	for (unsigned i = 0; i < 40; i++)
		ask(g, i, i + 1);
	assert_int_equal(num_started, 40);
	ask(g, 40, 41);
	assert_int_equal(num_started, 40);
	assert_true(our_word_has(OURS "/40", "closed 7"));
	/* One that ends makes room for one. */
	end_session(0);
	ask(g, 40, 42);
	assert_int_equal(num_started, 41);
	finish(g);
}

static void test_after_a_burst_there_is_a_channel_a_second(void **state)
{
	struct guest *g;
	unsigned epoch = 0;

	(void)state;
	g = new_guest();
	/* Faster than looks are is not possible, so time goes on meanwhile. */
	while (!our_word_has(OURS "/1", "closed 7") && epoch < 1000) {
		ask(g, 1, ++epoch);
		if (session_of(1))
			end_session(1);
	}
	assert_in_range(num_started, GUEST_BURST, GUEST_BURST + 8);
	num_started = 0;
	for (int i = 0; i < 200; i++) {
		ask(g, 1, ++epoch);
		if (session_of(1))
			end_session(1);
	}
	/* 200 looks of 50 ms are 10 s. */
	assert_in_range(num_started, 9, 11);
	finish(g);
}

static void test_ring_sizes_are_cut_to_what_the_gateway_allows(void **state)
{
	static const struct {
		const char *word;
		uint32_t bytes;
	} cases[] = {
		{ "0000000000000001 ask 0", 65536 },
		{ "0000000000000002 ask 1", 4096 },
		{ "0000000000000003 ask 4095", 4096 },
		{ "0000000000000004 ask 4097", 4096 },
		{ "0000000000000005 ask 16384", 16384 },
		{ "0000000000000006 ask 4294967295", 65536 },
	};
	struct guest *g;

	(void)state;
	g = new_guest();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		say(g, "1", cases[i].word);
		assert_int_equal(the_session_of(1)->peer.ring_bytes,
				 cases[i].bytes);
		end_session(1);
	}
	finish(g);
}

static void test_a_device_that_no_rule_gives_any_more_is_taken(void **state)
{
	const struct fake_session *s;
	struct guest *g;

	(void)state;
	g = reach(GUEST_SERVING);
	s = the_session_of(3);
	s->events->took(s->owner, s->pid, "1-1");
	given_busid = "1-1";
	guest_apply_config(g);
	assert_int_equal(guest_revoke(g, "1-2"), 0);
	end_session(3);
	assert_false(our_word_has(OURS "/3", "closed 4"));

	ask(g, 3, 2);
	s = the_session_of(3);
	s->events->took(s->owner, s->pid, "1-1");
	given_busid = "1-2";
	guest_apply_config(g);
	end_session(3);
	assert_true(our_word_has(OURS "/3", "closed 4"));
	finish(g);
}

static void test_names_that_are_no_channel_are_left_alone(void **state)
{
	static const char *const names[] = { "64", "00",         "-1", "+1",
					     "1 ", "4294967296", "x",  "hold" };
	struct guest *g;

	(void)state;
	g = new_guest();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		say(g, names[i], E1 " ask 0");
	assert_int_equal(num_started, 0);
	finish(g);
}

static void test_the_devices_number_is_said_until_it_is_taken(void **state)
{
	struct guest *g;

	(void)state;
	g = new_guest();
	env.devices_number = 8;
	memory_error = -ENOSPC;
	guest_say_devices(g);
	assert_string_equal(memory_get(OURS "/devices"), "7");
	memory_error = 0;
	guest_mark(g);
	fake_loop_run(GUEST_LOOK_MS);
	assert_string_equal(memory_get(OURS "/devices"), "8");
	finish(g);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_row_does_what_it_says),
		TEST(test_done_counts_only_for_the_hold_that_was_asked),
		TEST(test_an_agent_that_does_not_answer_loses_its_devices),
		TEST(test_a_guest_that_comes_back_is_still_held),
		TEST(test_an_asker_is_answered_later_and_once),
		TEST(test_who_asks_for_a_guest_that_dies_is_told),
		TEST(test_a_domain_that_dom0_does_not_know_is_dead),
		TEST(test_a_new_name_is_judged_by_the_rules),
		TEST(test_what_is_no_peer_is_nobody),
		TEST(test_ten_thousand_writes_a_second_are_twenty_looks),
		TEST(test_a_guest_has_at_most_as_many_channels_as_it_may),
		TEST(test_after_a_burst_there_is_a_channel_a_second),
		TEST(test_ring_sizes_are_cut_to_what_the_gateway_allows),
		TEST(test_a_device_that_no_rule_gives_any_more_is_taken),
		TEST(test_names_that_are_no_channel_are_left_alone),
		TEST(test_the_devices_number_is_said_until_it_is_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
