/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every sequence of what can happen to a guest, on the real guest with its real
 * channels: after each event it is judged, and when the guest is dead at the end,
 * nothing is left of it: no channel, no session, no node, watch, lock or timer.
 */
#include "guest_world.h"

/* ---- what must be true ---- */

static void judge_start(const struct xen_guest *id, bool is_served)
{
	bool is_new = num_started != world.num_before;

	world.num_before = num_started;
	if (!is_new)
		return;
	expect(is_served && !id->is_held, "a session for whom is not served");
	expect(strncmp(folders_uuid(), id->uuid, strlen(id->uuid)) == 0 &&
		       strcmp(the_session_of(CHANNEL)->peer.policy.uuid,
			      id->uuid) == 0,
	       "a session for another domain");
	expect(world.has_rule, "a session without a rule");
}

static void judge_session(enum event event, bool is_served)
{
	if (!session_of(CHANNEL))
		return;
	expect(is_served || world.told == SIGKILL,
	       "a session goes on, and its guest is gone");
	/* What it has mapped while it may be dying is not freed. */
	expect(event != RULE_GONE || world.told != 0 || !memory_has(THEIRS),
	       "a session goes on without a rule");
}

/* Who has let go has no session that was not told to end. */
static void judge_done(const struct xen_guest *id)
{
	struct handshake_word ours = word_in(OURS "/hold");
	struct handshake_word theirs = word_in(THEIRS "/hold");

	if (!id->is_held || !world.has_looked || !memory_has(THEIRS) ||
	    theirs.verb != HANDSHAKE_DONE || theirs.epoch != ours.epoch)
		return;
	expect(!session_of(CHANNEL) || world.told != 0,
	       "a session goes on, and its guest has let go");
	expect(world.is_alive || world.num_holds == 0,
	       "it is held, and the administrator was not told");
}

static void judge_hold(const struct xen_guest *id)
{
	bool is_noted = hold_note_read("", id->uuid) != 0;
	enum handshake_verb verb = word_in(OURS "/hold").verb;

	expect(is_noted == id->is_held, "held, and not noted, or noted still");
	expect(!id->is_held ||
		       world.is_hold_asked[strcmp(id->uuid, UUID1) != 0],
	       "held, and nobody has asked for it");
	if (strncmp(folders_uuid(), id->uuid, strlen(id->uuid)) == 0)
		expect((verb == HANDSHAKE_HOLD) == id->is_held,
		       "what it is told and what it is differ");
}

static void judge(enum event event)
{
	struct xen_guest id = { .domid = 0 };
	bool is_served = guest_is_served(world.guest, &id);

	judge_start(&id, is_served);
	judge_session(event, is_served);
	if (is_served)
		judge_hold(&id);
	if (is_served)
		judge_done(&id);
	else
		expect(world.num_holds == 0 && world.num_resumes == 0,
		       "the administrator waits for whom is not served");
	expect(memory_num_watches == (guest_is_absent(world.guest) ? 0 : 1),
	       "a watch too many or too few");
	if (is_served)
		world.is_inherited = false;
	if (!guest_is_absent(world.guest) || world.is_inherited)
		return;
	expect(!session_of(CHANNEL), "absent, with a session");
	expect(!memory_has(OURS NODE) && !memory_has(OURS "/hold") &&
		       !memory_has(OURS "/devices"),
	       "absent, with a node of ours");
}

static void judge_end(void)
{
	happen_to_domain(DEAD);
	if (world.is_alive)
		end_it();
	fake_loop_run(GUEST_LOOK_MS);
	guest_check(world.guest);
	judge(DEAD);
	expect(guest_is_absent(world.guest), "something stays of the guest");
	guest_free(world.guest);
	fake_loop_sweep();
	expect(fake_timers == NULL, "a timer stays");
	expect(!lock.is_there, "a lock stays");
}

/* ---- playing ---- */

static void note_word(char **at, char *end, const char *node,
		      const uint64_t *epochs)
{
	struct handshake_word word = word_in(node);
	size_t same = 0;

	while (same < 3 && epochs[same] != word.epoch)
		same++;
	*at += snprintf(*at, (size_t)(end - *at), " %d%d%zu", memory_has(node),
			(int)word.verb, same);
}

/* What is due, and when. */
static void note_timers(char **at, char *end)
{
	for (const struct loop_timer *t = fake_timers; t; t = t->next)
		if (!t->is_stopped && t->due_ms < fake_now_ms + LONG_MS)
			*at += snprintf(*at, (size_t)(end - *at), " %" PRIu64,
					t->due_ms - fake_now_ms);
}

/* The part of it that differs. */
static const char *end_of(const char *uuid)
{
	return strlen(uuid) > 24 ? uuid + 24 : "";
}

static void note_key(char key[static SEQUENCES_KEY_BYTES])
{
	struct xen_guest id = { .uuid = "" };
	bool is_served = guest_is_served(world.guest, &id);
	const struct fake_session *s = session_of(CHANNEL);
	const uint64_t epochs[] = { world.last_epoch,
				    word_in(OURS "/hold").epoch, 0 };
	const char *vm = memory_get("/local/domain/5/vm");
	char *end = key + SEQUENCES_KEY_BYTES;
	char *at = key;

	at += snprintf(at, SEQUENCES_KEY_BYTES,
		       "%d%d%d %s session %d%d%d%d %s asked %d%d%d%d",
		       guest_is_absent(world.guest), is_served, id.is_held,
		       end_of(id.uuid), s != NULL, world.is_granted && s,
		       s ? world.told : 0, world.is_alive,
		       end_of(s ? s->peer.policy.uuid : ""),
		       world.is_hold_asked[0], world.is_hold_asked[1],
		       (int)world.num_holds, (int)world.num_resumes);
	at += snprintf(at, (size_t)(end - at), " is %d%d%d%d %s %s %d%d",
		       world.is_dead, world.has_rule, world.has_looked,
		       world.is_inherited, end_of(vm ? vm + 4 : ""),
		       end_of(folders_uuid()), notes[0] != 0, notes[1] != 0);
	note_word(&at, end, OURS NODE, epochs);
	note_word(&at, end, OURS "/hold", epochs);
	note_word(&at, end, THEIRS NODE, epochs);
	note_word(&at, end, THEIRS "/hold", epochs);
	at += snprintf(at, (size_t)(end - at), " %d", memory_has(THEIRS));
	note_timers(&at, end);
	assert_true(at < end);
}

/* As set_up() does, but for what no sequence changes. */
static void begin(const uint8_t *events, size_t length)
{
	played.events = events;
	played.length = length;
	played.at = 0;
	world = (struct world){ .has_rule = true };
	memset(fake_sessions, 0, sizeof(fake_sessions));
	memset(notes, 0, sizeof(notes));
	memset(&lock, 0, sizeof(lock));
	num_started = 0;
	memory_clear();
	memory_set("/local/domain/5", "");
	show(UUID1, UUID1);
	world.guest = new_guest();
	take_a_look();
	set_rule(true);
}

static uint32_t play(const uint8_t *events, size_t length,
		     char ret_key[static SEQUENCES_KEY_BYTES])
{
	uint32_t possible = 0;

	begin(events, length);
	for (; played.at < length; played.at++) {
		happen((enum event)events[played.at]);
		judge((enum event)events[played.at]);
	}
	for (int event = 0; event < NUM_EVENTS; event++)
		if (can_happen((enum event)event))
			possible |= 1u << event;
	note_key(ret_key);
	judge_end();
	return possible;
}

static const struct sequences_game game = { NUM_EVENTS, event_names, play,
					    fail_game };

/* Sanitizers are slower; and so many are then played here. */
#ifdef __SANITIZE_ADDRESS__
#define LESS 1
#else
#define LESS 0
#endif
#define ALL_LENGTH     6
#define LONGEST        8
#define NUM_ALL        1731309
#define NUM_FIRST      159650
#define NUM_SITUATIONS 29457

static void nothing_is_left_of_a_guest_whatever_happened(void **state)
{
	struct sequences_result first;
	struct sequences_result all;

	(void)state;
	sequences_play_first(&game, LONGEST - 2 * LESS, &first);
	sequences_play_all(&game, ALL_LENGTH - 2 * LESS, &all);
	if (LESS)
		return;
	assert_int_equal(all.num_played, NUM_ALL);
	assert_int_equal(first.num_played, NUM_FIRST);
	assert_int_equal(first.num_situations, NUM_SITUATIONS);
}

#define GAME(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		GAME(nothing_is_left_of_a_guest_whatever_happened),
	};

	return cmocka_run_group_tests_name("guest_sequences", tests, NULL,
					   NULL);
}
