/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every sequence of what an agent's tasks for one gateway can meet, on the real
 * ones. When nothing is wanted any more, nothing stays but what was taken back.
 */
#include "task_world.h"

/* ---- what must be true ---- */

static struct handshake_word word_in(const char *node)
{
	struct handshake_word word = { .verb = HANDSHAKE_NONE };
	const char *text = memory_get(node);

	if (text)
		(void)handshake_parse(text, &word);
	return word;
}

static void judge_task(const struct task *task)
{
	bool has_job = task->state == TASK_ATTACHING ||
		       task->state == TASK_UNDOING ||
		       task->state == TASK_DETACHING;

	expect((task->job.pid != 0) == has_job, "a job too many or too few");
}

static void judge_hold(void)
{
	const struct xen_gateway *g = world.gateway;
	struct handshake_word answer = word_in(OURS "/hold");
	struct handshake_word word = word_in(THEIRS "/hold");
	bool is_asked = word.verb == HANDSHAKE_HOLD || world.is_held_here;

	if (answer.verb == HANDSHAKE_DONE && word.verb == HANDSHAKE_HOLD &&
	    answer.epoch == word.epoch)
		expect(!world.is_attached && !want()->job.pid &&
			       !taken()->job.pid,
		       "it says that it has let go, and has not");
	if (g->needs_look)
		return;
	expect(!is_asked || xen_gateway_holds(g) || g->hold_ms > world.now_ms,
	       "it was told to hold, and does not");
	expect(is_asked || g->hold != HOLD_HELD ||
		       (word.verb == HANDSHAKE_NONE && !g->has_devices),
	       "it may go on, and does not");
}

static void judge_want(void)
{
	const struct xen_gateway *g = world.gateway;
	struct handshake_word answer = word_in(OURS "/want/0");
	struct handshake_word word = word_in(THEIRS "/want/0");
	bool is_kept = want()->state == TASK_WAITING ||
		       want()->state == TASK_ATTACHING ||
		       want()->state == TASK_ATTACHED;

	if (want()->state == TASK_ATTACHED)
		expect(answer.verb == HANDSHAKE_ATTACHED &&
			       answer.epoch == want()->epoch,
		       "it is attached, and nobody was told");
	if (want()->state == TASK_ABSENT)
		expect(!memory_has(OURS "/want/0"), "an answer to nothing");
	if (g->needs_look || g->hold == HOLD_HOLDING)
		return;
	expect(!is_kept || word.epoch == want()->epoch,
	       "what is not wanted is kept");
	expect(word.verb == HANDSHAKE_NONE || want()->state != TASK_ABSENT,
	       "what is wanted is not begun");
}

static void judge_cancel(void)
{
	bool is_to_end = want()->state == TASK_UNDOING ||
			 (want()->state == TASK_ATTACHING &&
			  world.gateway->hold == HOLD_HOLDING);

	expect(!is_to_end || world.is_cancelled,
	       "a job is to end, and was not told so");
}

static void judge(void)
{
	judge_task(want());
	judge_task(taken());
	judge_cancel();
	judge_hold();
	judge_want();
}

/* Nothing is wanted, everything goes on, and all jobs end well. */
static void judge_end(void)
{
	const struct xen_gateway *g = world.gateway;

	if (memory_has(THEIRS "/want/0"))
		happen(UNWANT);
	if (world.is_held_here)
		happen(RESUME_HERE);
	happen(RESUME);
	for (int i = 0; i < ENOUGH; i++) {
		if (can_happen(WANT_OK))
			happen(WANT_OK);
		else if (can_happen(WANT_FAILED))
			happen(WANT_FAILED);
		if (can_happen(TAKEN_OK))
			happen(TAKEN_OK);
		else if (can_happen(TAKEN_FAILED))
			happen(TAKEN_FAILED);
		if (can_happen(HOLD_OK))
			happen(HOLD_OK);
		if (i < ENOUGH / 2)
			happen(TIME);
	}
	judge();
	expect(want()->state == TASK_ABSENT && taken()->state == TASK_ABSENT,
	       "a task stays");
	expect(g->hold == HOLD_FREE && !g->hold_job.pid, "it holds still");
	expect(!world.is_noted, "a note stays");
	expect(!world.is_attached || world.is_restored || world.may_stay,
	       "what nobody wants stays attached");
	expect(word_in(OURS "/hold").verb == HANDSHAKE_RESUMED,
	       "the gateway is not told that it goes on");
	xen_gateway_free(world.gateway);
}

/* ---- playing ---- */

static int note_task(char *at, size_t cap, const struct task *task)
{
	return snprintf(
		at, cap, " %d%d%d%d%d%u", (int)task->state, task->job.pid != 0,
		task->is_seen, task->due_ms > world.now_ms,
		task->started_ms > 0 && world.now_ms - task->started_ms < 1000,
		task->tries);
}

static int note_answer(char *at, size_t cap, const char *node,
		       const char *question, uint64_t epoch)
{
	struct handshake_word word = word_in(node);
	struct handshake_word asked = word_in(question);

	return snprintf(at, cap, " %d%d%d%d%d", (int)word.verb, (int)asked.verb,
			word.epoch == asked.epoch, word.epoch == epoch,
			asked.epoch == epoch);
}

static void note_key(char key[static SEQUENCES_KEY_BYTES])
{
	const struct xen_gateway *g = world.gateway;
	char *end = key + SEQUENCES_KEY_BYTES;
	char *at = key;

	at += snprintf(at, SEQUENCES_KEY_BYTES,
		       "%d%d%d%d%d%d%d%d %d%d is %d%d%d%d%d%d%d%d", g->hold,
		       g->hold_job.pid != 0, g->hold_ms > world.now_ms,
		       (int)g->word.verb, g->word.epoch == g->answered_epoch,
		       g->needs_look, g->has_devices, g->has_looked,
		       g->check_ms > world.now_ms, g->devices[0] != '\0',
		       world.is_attached, world.is_restored, world.is_noted,
		       world.is_held_here, world.has_timed, world.is_detaching,
		       world.is_cancelled, world.may_stay);
	at += note_task(at, (size_t)(end - at), want());
	at += note_task(at, (size_t)(end - at), taken());
	at += note_answer(at, (size_t)(end - at), OURS "/want/0",
			  THEIRS "/want/0", want()->epoch);
	at += note_answer(at, (size_t)(end - at), OURS "/hold", THEIRS "/hold",
			  g->word.epoch);
	assert_true(at < end);
}

static uint32_t play(const uint8_t *events, size_t length,
		     char ret_key[static SEQUENCES_KEY_BYTES])
{
	uint32_t possible = 0;

	played.events = events;
	played.length = length;
	played.at = 0;
	world = (struct world){ .now_ms = LONG_MS, .last_pid = 100 };
	memory_clear();
	memory_domid = 5;
	memory_set(OURS, "");
	memory_set(THEIRS "/devices", "0");
	start_agent();
	settle(true);
	for (; played.at < length; played.at++) {
		happen((enum event)events[played.at]);
		judge();
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
#define NUM_ALL        781346
#define NUM_FIRST      122095
#define NUM_SITUATIONS 19888

static void nothing_stays_that_is_not_wanted_whatever_happened(void **state)
{
	struct sequences_result first;
	struct sequences_result all;

	(void)state;
	sequences_play_first(&game, LONGEST - LESS, &first);
	sequences_play_all(&game, ALL_LENGTH - 2 * LESS, &all);
	if (LESS)
		return;
	assert_int_equal(all.num_played, NUM_ALL);
	assert_int_equal(first.num_played, NUM_FIRST);
	assert_int_equal(first.num_situations, NUM_SITUATIONS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			nothing_stays_that_is_not_wanted_whatever_happened),
	};

	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests_name("task_sequences", tests, NULL, NULL);
}
