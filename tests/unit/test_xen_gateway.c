/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent does about one gateway's words, over a store in memory and
 * with jobs that the test plays.
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
	(void)snprintf(ret_record->host, sizeof(ret_record->host), "xen:0");
	(void)snprintf(ret_record->busid, sizeof(ret_record->busid), "1-1");
	return 0;
}

int record_identify(const char *dir, uint32_t port, struct record_id *ret_id)
{
	(void)dir;
	(void)port;
	(void)ret_id;
	return 0;
}

bool record_is(const char *dir, uint32_t port, const struct record_id *id)
{
	(void)dir;
	(void)port;
	(void)id;
	return true;
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
	assert_int_equal(xen_gateway_look(gateway), 0);
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

/* ---- holding ---- */

static void begin_hold(void)
{
	say("hold", E2 " hold");
}

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

static void assert_nothing_is_taken_back(void)
{
	struct xen_note notes[XEN_NOTES_MAX];

	say("hold", E3 " resume");
	assert_string_equal(played.verb, "hold");
	assert_string_equal(memory_get(OURS "/hold"), E3 " resumed");
	assert_int_equal(xen_notes_held(0, notes), 0);
	assert_int_equal(want()->state, TASK_NONE);
	assert_null(memory_get(OURS "/want/0"));
}

static void a_want_that_goes_while_held_is_not_taken_back(void **state)
{
	(void)state;
	attach();
	begin_hold();
	note("1-1");
	end_hold();

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
	attach();
	begin_hold();
	note("1-1");
	end_hold();
	want()->due_ms = 0;

	say("hold", E3 " resume");

	assert_string_equal(played.verb, "attach");
	assert_int_equal(xen_notes_held(0, notes), 0);
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
	assert_int_equal(want()->state, TASK_NONE);
	assert_null(memory_get(OURS "/want/0"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_want_that_goes_while_held_is_not_taken_back),
		TEST(a_want_that_goes_before_it_is_noted_is_not_taken_back),
		TEST(a_want_that_goes_while_attached_is_not_taken_back),
		TEST(a_want_that_goes_with_the_hold_is_not_taken_back),
		TEST(a_want_that_stays_is_attached_anew_and_once),
		TEST(what_nobody_wanted_is_taken_back),
		TEST(a_failed_read_detaches_nothing),
		TEST(a_failed_read_lets_no_guest_go_on),
		TEST(a_failed_read_forgets_no_attachment_of_an_agent_before),
		TEST(what_may_not_be_read_any_more_is_not_wanted),
		TEST(what_is_no_word_any_more_is_not_wanted),
	};

	return cmocka_run_group_tests_name("xen_gateway", tests, NULL, NULL);
}
