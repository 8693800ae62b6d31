/* SPDX-License-Identifier: Apache-2.0 */
/* The tasks of a gateway: see xen_gateway_private.h. */
#include "frontend/xen_gateway_private.h"

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

void task_clear(struct task *task)
{
	*task = (struct task){ .started_ms = task->started_ms };
}

void task_forget(struct xen_gateway *g, struct task *want)
{
	char path[HANDSHAKE_PATH_BYTES];

	handshake_want_path(path, g->own, g->domid, task_number(g, want));
	(void)store_remove(g->store, path);
	task_clear(want);
	/* Its number may have been given to another one meanwhile. */
	g->needs_look = true;
}

/* The earliest moment from `at_ms` on that a task may be begun anew. */
void task_wait(struct task *task, uint64_t at_ms)
{
	uint64_t earliest_ms = task->started_ms + START_EVERY_MS;

	task->state = TASK_WAITING;
	task->due_ms = task->started_ms && at_ms < earliest_ms ? earliest_ms
							       : at_ms;
}

void task_retry(struct task *task)
{
	unsigned delay_ms = task->delay_ms * 2;

	if (delay_ms < RETRY_FIRST_MS)
		delay_ms = RETRY_FIRST_MS;
	if (delay_ms > RETRY_LAST_MS)
		delay_ms = RETRY_LAST_MS;
	task->delay_ms = delay_ms;
	/* So that many guests do not come at the same moment. */
	task_wait(task, clock_ms() + delay_ms -
				handshake_new_epoch() % (delay_ms / 4));
}

void task_attach(struct xen_gateway *g, struct task *task)
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
		task_retry(task);
		return;
	}
	task->state = TASK_ATTACHING;
}

static void start_detaching(struct xen_gateway *g, struct task *want)
{
	char port[16];
	const char *words[] = { g->address, port, want->note.busid, NULL };
	int r = -ENOENT;

	(void)snprintf(port, sizeof(port), "%u", want->port);
	if (record_is(RECORD_DIR, want->port, &want->record))
		r = job_start(&want->job, "detach", words, g->is_debug);
	if (r == 0) {
		want->state = TASK_DETACHING;
		return;
	}
	if (r != -ENOENT) /* otherwise it has ended by itself */
		gateway_log_start(g, "detach a device", r);
	task_forget(g, want);
}

void task_let_go(struct xen_gateway *g, struct task *want)
{
	if (want->is_gone)
		return;
	want->is_gone = true;
	if (want->state == TASK_WAITING && g->hold != HOLD_HOLDING)
		task_forget(g, want);
	else if (want->state == TASK_ATTACHING)
		job_cancel(&want->job);
	else if (want->state == TASK_ATTACHED)
		start_detaching(g, want);
}

static void on_taken_back(struct xen_gateway *g, struct task *task)
{
	log_info("%s: took back %s", g->address, task->note.busid);
	(void)xen_notes_drop(g->domid, task->note.busid);
	task_clear(task);
}

static void on_attached(struct xen_gateway *g, struct task *task,
			const char *text)
{
	const char *end = sysfs_scan_number(text, 10, &task->port);

	if (!end ||
	    record_identify(RECORD_DIR, task->port, &task->record) < 0) {
		task_retry(task); /* it is gone already */
		return;
	}
	task->state = TASK_ATTACHED;
	task->delay_ms = 0;
	if (task->is_gone) {
		start_detaching(g, task);
		return;
	}
	log_info("%s: attached %s at port %02u, as it wants", g->address,
		 task->note.busid, task->port);
	task_answer(g, task, EXIT_OK, NULL);
}

static void on_failed(struct xen_gateway *g, struct task *task,
		      enum exit_status status, const char *why)
{
	bool gives_up = !is_want(g, task) && ++task->tries >= RESTORE_TRIES;

	log_warn("%s: %s was not attached: %s%s", g->address, task->note.busid,
		 why, gives_up ? "; gives up" : "");
	if (gives_up) {
		(void)xen_notes_drop(g->domid, task->note.busid);
		task_clear(task);
		return;
	}
	task_retry(task);
	if (is_want(g, task))
		task_answer(g, task, status, why);
}

void task_on_job_end(struct xen_gateway *g, struct task *task, int wstatus)
{
	char text[JOB_TEXT_BYTES];
	enum exit_status status = job_end(&task->job, wstatus, text);
	bool was_attaching = task->state == TASK_ATTACHING;

	if (!was_attaching && status != EXIT_OK)
		log_warn("%s: %s", g->address, text);
	if (g->hold == HOLD_HOLDING)
		task_wait(task, 0); /* what is attached is let go of */
	else if (!was_attaching || (task->is_gone && status != EXIT_OK))
		task_forget(g, task);
	else if (status != EXIT_OK)
		on_failed(g, task, status, text);
	else if (is_want(g, task))
		on_attached(g, task, text);
	else
		on_taken_back(g, task);
}
