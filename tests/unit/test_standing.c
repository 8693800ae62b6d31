/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of standing_fsm.def on the real machine, its jobs played by the
 * test; then its times, and what comes of what jobs say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/fake_loop.h"

#include "frontend/standing_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/vhci.h"

#define JITTER_MS(ms) ((ms) / 4)

static struct {
	unsigned num_started;
	char verb[16];
	char busid[USBIP_BUSID_BYTES];
	bool is_cancelled;
	bool is_forgotten;
	int start_result;
	const char *text; /* what the job has said */
	enum exit_status status;
	bool has_record; /* the port's is its own */
	int is_free;     /* of the port */
	bool may;
} played;

/* ---- what the machine stands on ---- */

int job_start(struct job *job, const char *verb, const char *const *words,
	      bool is_debug)
{
	(void)is_debug;
	if (played.start_result < 0)
		return played.start_result;
	played.num_started++;
	(void)snprintf(played.verb, sizeof(played.verb), "%s", verb);
	(void)snprintf(played.busid, sizeof(played.busid), "%s", words[3]);
	job->pid = 7;
	return 0;
}

enum exit_status job_end(struct job *job, int status,
			 char ret_text[static JOB_TEXT_BYTES])
{
	(void)status;
	*job = (struct job){ 0 };
	(void)snprintf(ret_text, JOB_TEXT_BYTES, "%s", played.text);
	return played.status;
}

void job_cancel(const struct job *job)
{
	(void)job;
	played.is_cancelled = true;
}

void job_forget(struct job *job)
{
	if (job->pid != 0)
		played.is_forgotten = true;
	*job = (struct job){ 0 };
}

int record_identify(const char *dir, uint32_t port, struct record_id *ret_id)
{
	(void)dir;
	(void)port;
	(void)ret_id;
	return played.has_record ? 0 : -ENOENT;
}

bool record_is(const char *dir, uint32_t port, const struct record_id *id)
{
	(void)dir;
	(void)port;
	(void)id;
	return played.has_record;
}

int vhci_is_free(const char *dir, uint32_t number)
{
	(void)dir;
	(void)number;
	return played.is_free;
}

static bool may_attach(void *arg, const struct address *gateway)
{
	(void)arg;
	(void)gateway;
	return played.may;
}

/* ---- one of them ---- */

static char dir[64];
static struct standing *standing;
static struct agent_config config;

static struct standing_one *one(void)
{
	return &standing->ones[0];
}

static const char *path_of(const char *name)
{
	static char path[sizeof(dir) + 16];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static int set_up(void **state)
{
	struct wish *wish = &config.wishes[0];

	(void)state;
	memset(&played, 0, sizeof(played));
	played.text = "3 65538";
	played.has_record = true;
	played.may = true;
	(void)snprintf(dir, sizeof(dir), "/tmp/test_standing.XXXXXX");
	if (!mkdtemp(dir) ||
	    setenv("XUSBIP_STANDING_DIR", path_of("notes"), 1) < 0 ||
	    setenv("XUSBIP_WISH_DIR", path_of("wishes"), 1) < 0)
		return -1;
	config = (struct agent_config){ .num_wishes = 1 };
	*wish = (struct wish){
		.name = "stick",
		.is_section = true,
		.gateway = { .kind = ADDRESS_TCP, .host = "lab", .port = 1 },
		.busid = "1-1"
	};
	return standing_new(NULL, false, may_attach, NULL, &standing);
}

static int tear_down(void **state)
{
	(void)state;
	standing_free(standing);
	fake_loop_sweep();
	(void)unlink(path_of("notes/.lock"));
	(void)rmdir(path_of("notes"));
	(void)rmdir(path_of("wishes"));
	return rmdir(dir);
}

static void end_job(enum exit_status status, const char *text)
{
	played.status = status;
	played.text = text;
	assert_true(standing_on_child(standing, 7, 0));
}

static void remove_wish(void)
{
	static const struct agent_config nothing;

	standing_configure(standing, &nothing);
}

static void lose_it(void)
{
	played.has_record = false;
	standing_on_removal(standing);
	played.has_record = true;
}

static void detach_it(void)
{
	standing_note_detached("stick");
}

/* Until the timer of that machine has fired, whatever its jitter. */
static void let_its_time_come(void)
{
	fake_loop_run(one()->next_ms - fake_now_ms);
}

static void bring_to(enum standing_state state)
{
	if (state == STANDING_ABSENT)
		return;
	standing_configure(standing, &config);
	if (state == STANDING_WAITING)
		return;
	let_its_time_come();
	if (state == STANDING_TRYING)
		return;
	if (state == STANDING_ENDING) {
		remove_wish();
		return;
	}
	end_job(EXIT_OK, "3 65538");
	if (state == STANDING_ATTACHED)
		return;
	detach_it();
	standing_on_removal(standing);
	if (state == STANDING_LOOKING)
		let_its_time_come();
}

static void stimulate(enum standing_state from, enum standing_stim stim)
{
	switch (stim) {
	case STANDING_ON_WANTED:
		standing_configure(standing, &config);
		break;
	case STANDING_ON_UNWANTED:
		remove_wish();
		break;
	case STANDING_ON_DUE:
		let_its_time_come();
		break;
	case STANDING_ON_DONE:
		end_job(EXIT_OK,
			from == STANDING_LOOKING ? "65538" : "3 65538");
		break;
	case STANDING_ON_FAILED:
		end_job(EXIT_CANNOT_REACH, "nobody there");
		break;
	case STANDING_ON_MISSING:
		end_job(EXIT_NO_DEVICE, "not there");
		break;
	case STANDING_ON_LOST:
		lose_it();
		break;
	case STANDING_ON_BY_HAND:
		detach_it();
		if (from == STANDING_WAITING)
			let_its_time_come();
		else
			standing_on_removal(standing);
		break;
	}
}

static bool is_due_within(uint64_t min_ms, uint64_t max_ms)
{
	uint64_t after_ms = one()->next_ms - fake_now_ms;

	return after_ms >= min_ms && after_ms <= max_ms;
}

static void assert_action(enum standing_act act)
{
	struct standing_note note[WISH_MAX];

	switch (act) {
	case STANDING_DO_NONE:
	case STANDING_DO_BUG:
		break;
	case STANDING_DO_WAIT:
		assert_int_equal(one()->job.pid, 0);
		assert_true(is_due_within(0, 1000));
		break;
	case STANDING_DO_RETRY:
		assert_true(is_due_within(750, 1250));
		break;
	case STANDING_DO_TRY:
		assert_string_equal(played.verb, "keep");
		assert_string_equal(played.busid, "1-1");
		break;
	case STANDING_DO_KEEP:
		assert_int_equal(one()->port, 3);
		assert_int_equal(standing_note_list(note), 1);
		assert_true(standing_note_is_attached(note));
		break;
	case STANDING_DO_HOLD:
		assert_true(is_due_within(15000, 15000));
		break;
	case STANDING_DO_LOOK:
		assert_string_equal(played.verb, "look");
		break;
	case STANDING_DO_CANCEL:
		assert_true(played.is_cancelled);
		assert_int_equal(standing_note_list(note), 0);
		break;
	case STANDING_DO_FORGET:
		assert_int_equal(standing_note_list(note), 0);
		break;
	}
}

/* Rows that only a mistake of ours would lead to are not walked. */
static void every_row_does_what_it_says(void **state)
{
	for (int from = 0; from < STANDING_NUM_STATES; from++) {
		for (int stim = 0; stim < STANDING_NUM_STIMS; stim++) {
			struct standing_step step =
				standing_fsm_step((enum standing_state)from,
						  (enum standing_stim)stim);

			if (step.act == STANDING_DO_BUG)
				continue;
			assert_int_equal(set_up(state), 0);
			bring_to((enum standing_state)from);
			assert_int_equal(one()->state, from);

			stimulate((enum standing_state)from,
				  (enum standing_stim)stim);

			assert_int_equal(one()->state, step.next);
			assert_action(step.act);
			assert_int_equal(tear_down(state), 0);
		}
	}
}

/* ---- times ---- */

static void the_time_between_tries_doubles_up_to_a_minute(void **state)
{
	unsigned delay_ms = 1000;

	(void)state;
	bring_to(STANDING_TRYING);
	for (int i = 0; i < 10; i++) {
		end_job(EXIT_CANNOT_REACH, "nobody there");
		assert_true(is_due_within(delay_ms - JITTER_MS(delay_ms),
					  delay_ms + JITTER_MS(delay_ms)));
		let_its_time_come();
		delay_ms = delay_ms * 2 > 60000 ? 60000 : delay_ms * 2;
	}
	assert_int_equal(delay_ms, 60000);
}

static void one_that_is_lost_again_and_again_is_tried_less_often(void **state)
{
	(void)state;
	bring_to(STANDING_ATTACHED);
	lose_it();
	assert_true(is_due_within(750, 1250));
	let_its_time_come();
	end_job(EXIT_OK, "3 65538");

	lose_it();
	assert_true(is_due_within(1500, 2500));
	let_its_time_come();
	end_job(EXIT_OK, "3 65538");
	fake_loop_run(60000);

	lose_it();
	assert_true(is_due_within(750, 1250));
}

static void a_loss_is_seen_without_an_event(void **state)
{
	(void)state;
	bring_to(STANDING_ATTACHED);
	played.is_free = 1;
	fake_loop_run(2000);
	assert_int_equal(one()->state, STANDING_TRYING);
	assert_int_equal(played.num_started, 2);
}

static void nothing_is_tried_while_it_may_not(void **state)
{
	(void)state;
	played.may = false;
	bring_to(STANDING_WAITING);
	fake_loop_run(10000);
	assert_int_equal(played.num_started, 0);

	played.may = true;
	fake_loop_run(1000);
	assert_int_equal(one()->state, STANDING_TRYING);
}

static void news_of_a_domain_hurry_only_what_waits_for_one(void **state)
{
	uint64_t next_ms;

	(void)state;
	bring_to(STANDING_TRYING);
	for (int i = 0; i < 6; i++) {
		end_job(EXIT_CANNOT_REACH, "nobody there");
		let_its_time_come();
	}
	end_job(EXIT_CANNOT_REACH, "nobody there");
	fake_loop_run(2000);
	next_ms = one()->next_ms;
	standing_on_news(standing);
	assert_int_equal(one()->next_ms, next_ms);

	one()->wish.gateway.kind = ADDRESS_XEN;
	standing_on_news(standing);
	assert_true(is_due_within(0, 0));
}

static void an_attaching_that_may_not_be_any_more_is_undone(void **state)
{
	(void)state;
	bring_to(STANDING_TRYING);
	standing_on_news(standing);
	assert_false(played.is_cancelled);

	played.may = false;
	standing_on_news(standing);
	assert_true(played.is_cancelled);
}

/* ---- what jobs say ---- */

static void a_port_is_of_one_wish_only(void **state)
{
	(void)state;
	config.num_wishes = 2;
	config.wishes[1] = config.wishes[0];
	config.wishes[1].name[0] = 'T';
	bring_to(STANDING_TRYING);
	end_job(EXIT_OK, "3 65538");
	assert_int_equal(standing->ones[0].state, STANDING_ATTACHED);

	end_job(EXIT_OK, "3 65538");
	assert_int_equal(standing->ones[1].state, STANDING_WAITING);
	assert_non_null(strstr(standing->ones[1].why, "port 03"));
}

static void one_that_was_unplugged_while_held_is_wanted_again(void **state)
{
	(void)state;
	bring_to(STANDING_LOOKING);
	end_job(EXIT_OK, "65539");
	assert_int_equal(one()->state, STANDING_WAITING);
}

static void what_waits_is_told_with_its_reason(void **state)
{
	struct standing_note notes[WISH_MAX];

	(void)state;
	bring_to(STANDING_TRYING);
	end_job(EXIT_CANNOT_REACH, "nobody \x1b there");

	assert_int_equal(standing_note_list(notes), 1);
	assert_string_equal(notes[0].name, "stick");
	assert_string_equal(notes[0].state, "waiting");
	assert_string_equal(notes[0].gateway, "tcp:lab:1");
	assert_string_equal(notes[0].device, "1-1");
	assert_string_equal(notes[0].why, "nobody \\x1b there");
	assert_int_equal(notes[0].next_ms, one()->next_ms);
	assert_true(notes[0].is_section);
}

static void a_job_that_cannot_be_started_is_a_failure(void **state)
{
	(void)state;
	played.start_result = -EAGAIN;
	bring_to(STANDING_TRYING);
	assert_int_equal(one()->state, STANDING_WAITING);
	assert_true(is_due_within(750, 1250));
}

/* ---- wishes ---- */

static void a_file_is_kept_until_somebody_detaches_it(void **state)
{
	static const struct agent_config nothing;
	struct wish wish = config.wishes[0];

	(void)state;
	wish.is_section = false;
	assert_int_equal(wish_write(&wish), 0);
	standing_configure(standing, &nothing);
	let_its_time_come();
	end_job(EXIT_OK, "3 65538");
	assert_int_equal(one()->state, STANDING_ATTACHED);

	detach_it();
	standing_configure(standing, &nothing);
	assert_int_equal(one()->state, STANDING_ABSENT);
}

static void a_section_that_changes_is_another_one(void **state)
{
	(void)state;
	bring_to(STANDING_ATTACHED);
	(void)snprintf(config.wishes[0].busid, sizeof(config.wishes[0].busid),
		       "1-2");
	standing_configure(standing, &config);
	let_its_time_come();
	assert_int_equal(one()->state, STANDING_TRYING);
	assert_string_equal(played.busid, "1-2");
}

static void there_is_one_agent_that_keeps(void **state)
{
	struct standing *second;

	(void)state;
	assert_true(standing_note_has_agent());
	assert_int_equal(standing_new(NULL, false, NULL, NULL, &second),
			 -EWOULDBLOCK);
}

#define standing_test(name) \
	cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_does_what_it_says),
		standing_test(the_time_between_tries_doubles_up_to_a_minute),
		standing_test(
			one_that_is_lost_again_and_again_is_tried_less_often),
		standing_test(a_loss_is_seen_without_an_event),
		standing_test(nothing_is_tried_while_it_may_not),
		standing_test(news_of_a_domain_hurry_only_what_waits_for_one),
		standing_test(an_attaching_that_may_not_be_any_more_is_undone),
		standing_test(a_port_is_of_one_wish_only),
		standing_test(
			one_that_was_unplugged_while_held_is_wanted_again),
		standing_test(what_waits_is_told_with_its_reason),
		standing_test(a_job_that_cannot_be_started_is_a_failure),
		standing_test(a_file_is_kept_until_somebody_detaches_it),
		standing_test(a_section_that_changes_is_another_one),
		standing_test(there_is_one_agent_that_keeps),
	};

	return cmocka_run_group_tests_name("standing", tests, NULL, NULL);
}
