/* SPDX-License-Identifier: Apache-2.0 */
/* The tasks of a gateway: see xen_gateway_private.h. */
#include "frontend/xen_gateway_private.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "frontend/sysfs.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"

#define RETRY_FIRST_MS 1000u
#define RETRY_LAST_MS  30000u
#define START_EVERY_MS 1000u /* of one task */
#define RESTORE_TRIES  6u

void gateway_log_start(const struct xen_gateway *g, const char *what, int r)
{
	log_error("%s: cannot start a job to %s: %s", g->address, what,
		  strerror(-r));
}

/* ---- answers ---- */

void gateway_answer(struct xen_gateway *g, const char *path,
		    const struct handshake_word *word)
{
	char folder[HANDSHAKE_PATH_BYTES];
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	handshake_format(text, word);
	handshake_pair_path(folder, g->own, g->domid);
	r = store_write_under(g->store, folder, path, text);
	if (r < 0 && r != -ENOENT)
		log_warn("%s: cannot be answered: %s", g->address,
			 strerror(-r));
}

uint32_t task_number(const struct xen_gateway *g, const struct task *want)
{
	return (uint32_t)(want - g->wants);
}

static bool is_want(const struct xen_gateway *g, const struct task *task)
{
	return task >= g->wants && task < g->wants + MAX_TASKS;
}

static void task_answer(struct xen_gateway *g, const struct task *want,
			enum exit_status status, const char *why)
{
	struct handshake_word word = { .epoch = want->epoch,
				       .verb = HANDSHAKE_ATTACHED,
				       .port = want->port };
	char path[HANDSHAKE_PATH_BYTES];

	if (status != EXIT_OK) {
		word.verb = HANDSHAKE_FAILED;
		word.status = status;
		(void)snprintf(word.why, sizeof(word.why), "%s", why);
	}
	handshake_want_path(path, g->own, g->domid, task_number(g, want));
	gateway_answer(g, path, &word);
}

/* ---- tasks ---- */

static void clear(struct task *task)
{
	*task = (struct task){ .started_ms = task->started_ms };
}

static void forget(struct xen_gateway *g, struct task *task)
{
	char path[HANDSHAKE_PATH_BYTES];

	if (is_want(g, task)) {
		/* A domain that was restored has its wants elsewhere. */
		if (store_domid(g->store) == (int)g->own)
			(void)xen_notes_drop(g->domid, task->note.busid);
		handshake_want_path(path, g->own, g->domid,
				    task_number(g, task));
		(void)store_remove(g->store, path);
		/* Its number may have been given to another one meanwhile. */
		g->needs_look = true;
	}
	clear(task);
}

/* The earliest moment from `at_ms` on that a task may be begun anew. */
static void wait_until(struct task *task, uint64_t at_ms)
{
	uint64_t earliest_ms = task->started_ms + START_EVERY_MS;

	task->due_ms = task->started_ms && at_ms < earliest_ms ? earliest_ms
							       : at_ms;
}

static void retry(struct task *task)
{
	unsigned delay_ms = task->delay_ms * 2;

	if (delay_ms < RETRY_FIRST_MS)
		delay_ms = RETRY_FIRST_MS;
	if (delay_ms > RETRY_LAST_MS)
		delay_ms = RETRY_LAST_MS;
	task->delay_ms = delay_ms;
	/* So that many guests do not come at the same moment. */
	wait_until(task, clock_ms() + delay_ms -
				 handshake_new_epoch() % (delay_ms / 4));
}

static void start_attaching(struct xen_gateway *g, struct task *task)
{
	char usbid[16];
	const char *words[] = { g->address, task->note.busid, NULL, NULL };
	int r;

	(void)snprintf(usbid, sizeof(usbid), "%04x:%04x", task->note.vendor,
		       task->note.product);
	if (!is_want(g, task))
		words[2] = usbid;
	task->started_ms = clock_ms();
	r = job_start(&task->job, words[2] ? "restore" : "attach", words,
		      g->is_debug);
	if (r < 0) {
		gateway_log_start(g, "attach a device", r);
		task_feed(g, task, TASK_ON_FAILED);
	}
}

static void tell(struct xen_gateway *g, struct task *task)
{
	task->delay_ms = 0;
	log_info("%s: attached %s at port %02u, as it wants", g->address,
		 task->note.busid, task->port);
	task_answer(g, task, EXIT_OK, NULL);
}

static void start_detaching(struct xen_gateway *g, struct task *task)
{
	char port[16];
	const char *words[] = { g->address, port, task->note.busid, NULL };
	int r;

	(void)snprintf(port, sizeof(port), "%u", task->port);
	if (!record_is(RECORD_DIR, task->port, &task->record)) {
		task_feed(g, task, TASK_ON_LOST);
		return;
	}
	r = job_start(&task->job, "detach", words, g->is_debug);
	if (r < 0) {
		gateway_log_start(g, "detach a device", r);
		task_feed(g, task, TASK_ON_FAILED);
	}
}

static void drop(struct xen_gateway *g, struct task *task)
{
	(void)xen_notes_drop(g->domid, task->note.busid);
	forget(g, task);
}

static void act(struct xen_gateway *g, struct task *task, enum task_act action)
{
	switch (action) {
	case TASK_DO_NONE:
		break;
	case TASK_DO_WAIT:
		wait_until(task, 0);
		break;
	case TASK_DO_RETRY:
		retry(task);
		break;
	case TASK_DO_TRY:
		start_attaching(g, task);
		break;
	case TASK_DO_TELL:
		tell(g, task);
		break;
	case TASK_DO_CANCEL:
		job_cancel(&task->job);
		break;
	case TASK_DO_DETACH:
		start_detaching(g, task);
		break;
	case TASK_DO_FORGET:
		forget(g, task);
		break;
	case TASK_DO_DROP:
		drop(g, task);
		break;
	case TASK_DO_BUG:
		assert(!"the table of tasks was left");
		break;
	}
}

void task_feed(struct xen_gateway *g, struct task *task, enum task_stim stim)
{
	struct task_step step = task_fsm_step(task->state, stim);

	if (step.next != task->state)
		log_debug("%s: %s: %s + %s -> %s", g->address, task->note.busid,
			  task_state_name(task->state), task_stim_name(stim),
			  task_state_name(step.next));
	task->state = step.next;
	act(g, task, step.act);
}

/* ---- the ends of jobs ---- */

static enum task_stim on_attached(struct xen_gateway *g, struct task *task,
				  const char *text)
{
	if (!is_want(g, task)) {
		log_info("%s: took back %s", g->address, task->note.busid);
		return TASK_ON_OVER;
	}
	if (!sysfs_scan_number(text, 10, &task->port) ||
	    record_identify(RECORD_DIR, task->port, &task->record) < 0)
		return TASK_ON_LOST; /* it is gone already */
	return TASK_ON_DONE;
}

static enum task_stim on_failed(struct xen_gateway *g, struct task *task,
				const char *why)
{
	bool gives_up = !is_want(g, task) && ++task->tries >= RESTORE_TRIES;

	log_warn("%s: %s was not attached: %s%s", g->address, task->note.busid,
		 why, gives_up ? "; gives up" : "");
	return gives_up ? TASK_ON_OVER : TASK_ON_FAILED;
}

void task_on_job_end(struct xen_gateway *g, struct task *task, int wstatus)
{
	char text[JOB_TEXT_BYTES];
	enum exit_status status = job_end(&task->job, wstatus, text);
	enum task_state before = task->state;
	enum task_stim stim = TASK_ON_DONE;

	if (before == TASK_DETACHING && status != EXIT_OK)
		log_warn("%s: %s", g->address, text);
	if (g->hold == HOLD_HOLDING)
		stim = TASK_ON_STOPPED;
	else if (before == TASK_ATTACHING && status != EXIT_OK)
		stim = on_failed(g, task, text);
	else if (status != EXIT_OK)
		stim = TASK_ON_FAILED;
	else if (before != TASK_DETACHING)
		stim = on_attached(g, task, text);
	task_feed(g, task, stim);
	if (before == TASK_ATTACHING && stim == TASK_ON_FAILED &&
	    is_want(g, task))
		task_answer(g, task, status, text);
}
