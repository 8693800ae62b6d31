/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of task_fsm.def on the real machine, over a store in memory and with
 * jobs that the test plays; then what the agent does about a gateway's words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "frontend/xen_gateway_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "frontend/vhci.h"
#include "tests/unit/memory_store.h"
#include "vchan-transport/channel.h"

#define OURS   "/local/domain/5/data/xusbip/0"
#define THEIRS "/local/domain/0/data/xusbip/5"
#define E1     "00000000000000a1"
#define E2     "00000000000000a2"
#define E3     "00000000000000a3"

static struct {
	pid_t last_pid;
	char verb[16]; /* of the last job */
	unsigned num_detached;
	bool is_cancelled;
	bool has_no_record; /* or the port's is another's */
	enum exit_status status;
	const char *text;
} played;

/* ---- what it stands on ---- */

int job_start(struct job *job, const char *verb, const char *const *words,
	      bool is_debug)
{
	(void)words;
	(void)is_debug;
	(void)snprintf(played.verb, sizeof(played.verb), "%s", verb);
	played.num_detached += strcmp(verb, "detach") == 0;
	job->pid = ++played.last_pid;
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
	*job = (struct job){ 0 };
}

int record_read(const char *dir, uint32_t port, struct record *ret_record)
{
	(void)dir;
	assert_int_equal(port, 3);
	*ret_record = (struct record){ .host = "xen:0", .busid = "1-1" };
	return 0;
}

int record_identify(const char *dir, uint32_t port, struct record_id *ret_id)
{
	(void)dir;
	(void)port;
	(void)ret_id;
	return played.has_no_record ? -ENOENT : 0;
}

bool record_is(const char *dir, uint32_t port, const struct record_id *id)
{
	(void)dir;
	(void)port;
	(void)id;
	return !played.has_no_record;
}

int vhci_is_free(const char *dir, uint32_t number)
{
	(void)dir;
	(void)number;
	return 0;
}

/* ---- one of them ---- */

static char dir[64];
static struct xen_gateway *gateway;

static int set_up(void **state)
{
	(void)state;
	memset(&played, 0, sizeof(played));
	played.last_pid = 100;
	memory_clear();
	memory_set(OURS, "");
	memory_set(THEIRS "/devices", "1");
	(void)snprintf(dir, sizeof(dir), "/tmp/test_xen_gateway.XXXXXX");
	if (!mkdtemp(dir) || setenv("XUSBIP_XEN_DIR", dir, 1) < 0)
		return -1;
	memory_domid = 5;
	return xen_gateway_new(NULL, 5, 0, false, &gateway);
}

static int tear_down(void **state)
{
	char path[sizeof(dir) + 16];

	(void)state;
	xen_gateway_free(gateway);
	(void)snprintf(path, sizeof(path), "%s/held-0", dir);
	(void)unlink(path);
	return rmdir(dir);
}

static void look(void)
{
	do
		assert_int_equal(xen_gateway_look(gateway), 0);
	while (xen_gateway_needs_look(gateway));
	(void)xen_gateway_step(gateway);
}

static void say(const char *name, const char *word)
{
	char path[HANDSHAKE_PATH_BYTES];

	(void)snprintf(path, sizeof(path), THEIRS "/%s", name);
	if (word)
		memory_set(path, word);
	else
		memory_remove(path);
	look();
}

static struct task *want(void)
{
	return &gateway->wants[0];
}

static void end_job(enum exit_status status, const char *text)
{
	played.status = status;
	played.text = text;
	assert_true(xen_gateway_on_child(gateway, played.last_pid, 0));
	(void)xen_gateway_step(gateway);
}

static void begin_attaching(void)
{
	say("want/0", E1 " attach 1-1");
	assert_string_equal(played.verb, "attach");
}

static void attach(void)
{
	begin_attaching();
	end_job(EXIT_OK, "3");
	assert_int_equal(want()->state, TASK_ATTACHED);
	assert_string_equal(memory_get(OURS "/want/0"), E1 " attached 3");
}

static void begin_hold(void)
{
	say("hold", E2 " hold");
}

/* ---- the table ---- */

static void bring_to(enum task_state state)
{
	say("hold", E3 " resume");
	if (state == TASK_ABSENT)
		return;
	begin_attaching();
	if (state == TASK_ATTACHING)
		return;
	if (state == TASK_UNDOING) {
		say("want/0", NULL);
		return;
	}
	if (state == TASK_WAITING) {
		end_job(EXIT_NO_DEVICE, "not there");
		return;
	}
	end_job(EXIT_OK, "3");
	if (state == TASK_DETACHING)
		say("want/0", NULL);
}

/* As if it had failed before, and were one that is to be taken back. */
static void take_back(void)
{
	struct task *taken = &gateway->taken[0];

	*taken = *want();
	*want() = (struct task){ 0 };
	end_job(EXIT_OK, "3");
	*want() = *taken;
}

static void lose_it(enum task_state from)
{
	played.has_no_record = true;
	if (from == TASK_ATTACHED) {
		xen_gateway_suspect(gateway);
		(void)xen_gateway_step(gateway);
	} else if (from == TASK_DETACHING) {
		want()->state = TASK_ATTACHED;
		want()->job = (struct job){ 0 };
		look();
	} else {
		end_job(EXIT_OK, "3");
	}
}

static void stimulate(enum task_state from, enum task_stim stim)
{
	switch (stim) {
	case TASK_ON_WANTED:
		memory_set(THEIRS "/want/0", E1 " attach 1-1");
		memory_set(THEIRS "/devices", "2");
		assert_int_equal(xen_gateway_look(gateway), 0);
		break;
	case TASK_ON_FOUND:
		memory_set(OURS "/want/0", E1 " attached 3");
		say("want/0", E1 " attach 1-1");
		break;
	case TASK_ON_UNWANTED:
		say("want/0", NULL);
		break;
	case TASK_ON_DUE:
		want()->due_ms = 0;
		(void)xen_gateway_step(gateway);
		break;
	case TASK_ON_DONE:
		end_job(EXIT_OK, "3");
		break;
	case TASK_ON_FAILED:
		end_job(EXIT_CANNOT_REACH, "nobody there");
		break;
	case TASK_ON_OVER:
		take_back();
		break;
	case TASK_ON_LOST:
		lose_it(from);
		break;
	case TASK_ON_HOLD:
		begin_hold();
		break;
	case TASK_ON_STOPPED:
		begin_hold();
		end_job(EXIT_FAILED, "ended by signal 15");
		break;
	}
}

static void assert_action(enum task_act action)
{
	uint64_t now_ms = clock_ms();

	switch (action) {
	case TASK_DO_NONE:
	case TASK_DO_BUG:
		break;
	case TASK_DO_WAIT:
		assert_true(want()->due_ms <= now_ms + 1000);
		break;
	case TASK_DO_RETRY:
		assert_true(want()->delay_ms >= 1000);
		assert_true(want()->due_ms <= now_ms + want()->delay_ms);
		break;
	case TASK_DO_TRY:
		assert_string_equal(played.verb, "attach");
		break;
	case TASK_DO_TELL:
		assert_string_equal(memory_get(OURS "/want/0"),
				    E1 " attached 3");
		break;
	case TASK_DO_CANCEL:
		assert_true(played.is_cancelled);
		break;
	case TASK_DO_DETACH:
		assert_string_equal(played.verb, "detach");
		break;
	case TASK_DO_FORGET:
		assert_null(memory_get(OURS "/want/0"));
		break;
	case TASK_DO_DROP:
		assert_int_equal(want()->note.busid[0], '\0');
		break;
	}
}

/* Rows that only a mistake of ours would lead to are not walked. */
static void every_row_does_what_it_says(void **state)
{
	for (int from = 0; from < TASK_NUM_STATES; from++) {
		for (int stim = 0; stim < TASK_NUM_STIMS; stim++) {
			struct task_step step = task_fsm_step(
				(enum task_state)from, (enum task_stim)stim);

			if (step.act == TASK_DO_BUG)
				continue;
			assert_int_equal(set_up(state), 0);
			bring_to((enum task_state)from);
			assert_int_equal(want()->state, from);

			stimulate((enum task_state)from, (enum task_stim)stim);

			assert_int_equal(want()->state, step.next);
			assert_action(step.act);
			assert_int_equal(tear_down(state), 0);
		}
	}
}

/* ---- holding ---- */

/* What the job does for each port of the gateway's. */
static void note(const char *busid)
{
	struct xen_note held = { .vendor = 0x1234, .product = 0x5678 };

	(void)snprintf(held.busid, sizeof(held.busid), "%s", busid);
	assert_string_equal(played.verb, "hold");
	assert_int_equal(xen_notes_hold(0, &held), 0);
}

static void end_hold(void)
{
	assert_string_equal(played.verb, "hold");
	end_job(EXIT_OK, "");
	assert_string_equal(memory_get(OURS "/hold"), E2 " done");
}

static void attach_and_hold(void)
{
	attach();
	begin_hold();
	note("1-1");
	end_hold();
}

static void assert_nothing_is_taken_back(void)
{
	struct xen_note notes[XEN_NOTES_MAX];

	say("hold", E3 " resume");
	assert_string_equal(played.verb, "hold");
	assert_string_equal(memory_get(OURS "/hold"), E3 " resumed");
	assert_int_equal(xen_notes_held(0, notes), 0);
	assert_int_equal(want()->state, TASK_ABSENT);
	assert_null(memory_get(OURS "/want/0"));
}

static void a_want_that_goes_while_held_is_not_taken_back(void **state)
{
	(void)state;
	attach_and_hold();

	say("want/0", NULL);

	assert_nothing_is_taken_back();
}

static void a_want_that_goes_before_it_is_noted_is_not_taken_back(void **state)
{
	(void)state;
	attach();
	begin_hold();

	say("want/0", NULL);
	note("1-1");
	end_hold();

	assert_nothing_is_taken_back();
}

static void a_want_that_goes_while_attached_is_not_taken_back(void **state)
{
	(void)state;
	begin_attaching();
	begin_hold();
	assert_true(played.is_cancelled);

	say("want/0", NULL);
	end_job(EXIT_OK, "3");
	note("1-1");
	end_hold();

	assert_nothing_is_taken_back();
}

static void a_want_that_goes_with_the_hold_is_not_taken_back(void **state)
{
	(void)state;
	begin_attaching();
	say("want/0", NULL);
	begin_hold();
	end_job(EXIT_OK, "3");
	note("1-1");
	end_hold();

	assert_nothing_is_taken_back();
}

static void a_want_that_stays_is_attached_anew_and_once(void **state)
{
	struct xen_note notes[XEN_NOTES_MAX];

	(void)state;
	attach_and_hold();
	want()->due_ms = 0;

	say("hold", E3 " resume");

	assert_string_equal(played.verb, "attach");
	assert_int_equal(xen_notes_held(0, notes), 0);
}

static void
what_was_wanted_of_a_domain_that_is_restored_stays_noted(void **state)
{
	struct xen_note notes[XEN_NOTES_MAX];

	(void)state;
	attach_and_hold();
	memory_domid = 6;

	say("want/0", NULL);

	assert_int_equal(want()->state, TASK_ABSENT);
	assert_int_equal(xen_notes_held(0, notes), 1);
}

static void what_nobody_wanted_is_taken_back(void **state)
{
	struct xen_note notes[XEN_NOTES_MAX];

	(void)state;
	attach();
	begin_hold();
	note("1-1");
	note("1-2");
	end_hold();
	say("want/0", NULL);

	say("hold", E3 " resume");

	assert_string_equal(played.verb, "restore");
	assert_int_equal(xen_notes_held(0, notes), 1);
	end_job(EXIT_OK, "3");
	assert_string_equal(memory_get(OURS "/hold"), E3 " resumed");
	assert_int_equal(xen_notes_held(0, notes), 0);
}

/* ---- reading ---- */

/* Each read of a look in turn; how many there were. */
static unsigned fail_each_read(int error)
{
	unsigned number = 0;

	for (;;) {
		memory_read_error = error;
		memory_failing_read = ++number;
		if (xen_gateway_look(gateway) == 0)
			break;
		assert_true(xen_gateway_needs_look(gateway));
		(void)xen_gateway_step(gateway);
	}
	assert_false(xen_gateway_needs_look(gateway));
	memory_failing_read = 0;
	return number - 1;
}

static void a_failed_read_detaches_nothing(void **state)
{
	(void)state;
	attach();

	assert_true(fail_each_read(-ENOMEM) >= 5);

	assert_int_equal(want()->state, TASK_ATTACHED);
	assert_int_equal(played.num_detached, 0);
	assert_string_equal(memory_get(OURS "/want/0"), E1 " attached 3");
}

static void a_failed_read_lets_no_guest_go_on(void **state)
{
	(void)state;
	begin_hold();
	end_hold();

	assert_true(fail_each_read(-ENOMEM) >= 4);

	assert_true(xen_gateway_holds(gateway));
}

static void a_failed_read_forgets_no_attachment_of_an_agent_before(void **state)
{
	(void)state;
	memory_set(THEIRS "/want/0", E1 " attach 1-1");
	memory_set(OURS "/want/0", E1 " attached 3");

	assert_true(fail_each_read(-ENOMEM) >= 5);

	assert_int_equal(want()->state, TASK_ATTACHED);
	assert_string_equal(played.verb, "");
}

static void what_may_not_be_read_any_more_is_not_wanted(void **state)
{
	(void)state;
	attach();

	memory_read_error = -EACCES;
	memory_failing_read = 2; /* the word itself */
	look();

	assert_int_equal(want()->state, TASK_DETACHING);
}

static void what_is_no_word_any_more_is_not_wanted(void **state)
{
	char text[HANDSHAKE_WORD_BYTES + 4];

	(void)state;
	attach();

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	say("want/0", text);

	assert_int_equal(want()->state, TASK_DETACHING);
	end_job(EXIT_OK, "");
	assert_int_equal(want()->state, TASK_ABSENT);
	assert_null(memory_get(OURS "/want/0"));
}

static void a_gateway_is_called_by_its_number_or_its_name(void **state)
{
	(void)state;
	memory_set(OURS "/name", "usbvm");
	look();
	assert_true(xen_gateway_is_called(gateway, "0"));
	assert_true(xen_gateway_is_called(gateway, "usbvm"));
	assert_false(xen_gateway_is_called(gateway, "usb"));

	/* That is another domain's number. */
	memory_set(OURS "/name", "7");
	look();
	assert_string_equal(gateway->name, "");
	assert_false(xen_gateway_is_called(gateway, ""));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_does_what_it_says),
		TEST(a_want_that_goes_while_held_is_not_taken_back),
		TEST(a_want_that_goes_before_it_is_noted_is_not_taken_back),
		TEST(a_want_that_goes_while_attached_is_not_taken_back),
		TEST(a_want_that_goes_with_the_hold_is_not_taken_back),
		TEST(a_want_that_stays_is_attached_anew_and_once),
		TEST(what_was_wanted_of_a_domain_that_is_restored_stays_noted),
		TEST(what_nobody_wanted_is_taken_back),
		TEST(a_failed_read_detaches_nothing),
		TEST(a_failed_read_lets_no_guest_go_on),
		TEST(a_failed_read_forgets_no_attachment_of_an_agent_before),
		TEST(what_may_not_be_read_any_more_is_not_wanted),
		TEST(what_is_no_word_any_more_is_not_wanted),
		TEST(a_gateway_is_called_by_its_number_or_its_name),
	};

	return cmocka_run_group_tests_name("xen_gateway", tests, NULL, NULL);
}
