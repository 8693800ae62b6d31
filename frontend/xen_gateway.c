/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/xen_gateway.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/vhci.h"
#include "frontend/xen_gateway_private.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"

#define MAX_JOBS       16
#define CHECK_EVERY_MS 2000u /* is what was attached still there? */
#define HOLD_EVERY_MS  1000u

static void answer_hold(struct xen_gateway *g, enum handshake_verb verb)
{
	struct handshake_word word = { .verb = verb, .epoch = g->word.epoch };
	char path[HANDSHAKE_PATH_BYTES];

	handshake_name_path(path, g->own, g->domid, "hold");
	gateway_answer(g, path, &word);
	g->answered_epoch = g->word.epoch;
}

/* ---- holding and going on ---- */

static unsigned count_jobs(const struct xen_gateway *g)
{
	unsigned count = g->hold_job.pid != 0;

	for (size_t i = 0; i < MAX_TASKS; i++) {
		count += g->wants[i].job.pid != 0;
		count += g->taken[i].job.pid != 0;
	}
	return count;
}

static void begin_hold(struct xen_gateway *g, uint64_t now_ms)
{
	log_info("%s: lets go of all its devices, to hold still", g->address);
	g->hold = HOLD_HOLDING;
	g->hold_ms = now_ms + HOLD_EVERY_MS;
	g->has_news = true;
	for (size_t i = 0; i < MAX_TASKS; i++) {
		task_feed(g, &g->wants[i], TASK_ON_HOLD);
		task_feed(g, &g->taken[i], TASK_ON_HOLD);
	}
}

/* Which wants are left is not known: meanwhile they were not let go of. */
static void become_held(struct xen_gateway *g)
{
	g->hold = HOLD_HELD;
	g->needs_look = true;
}

static void let_go_of_all(struct xen_gateway *g)
{
	char domid[12];
	const char *words[] = { domid, g->name, NULL };
	int r;

	/* What was not taken back yet stays noted. */
	for (size_t i = 0; i < MAX_TASKS; i++)
		task_feed(g, &g->taken[i], TASK_ON_UNWANTED);
	(void)snprintf(domid, sizeof(domid), "%u", g->domid);
	r = job_start(&g->hold_job, "hold", words, g->is_debug);
	if (r == 0)
		return;
	/* Then the gateway takes them. */
	gateway_log_start(g, "let go of its devices", r);
	become_held(g);
}

static void on_hold_end(struct xen_gateway *g, int status)
{
	char text[JOB_TEXT_BYTES];

	if (job_end(&g->hold_job, status, text) != EXIT_OK)
		log_warn("%s: %s", g->address, text);
	become_held(g);
}

static bool is_wanted(const struct xen_gateway *g, const char *busid)
{
	for (size_t i = 0; i < MAX_TASKS; i++)
		if (g->wants[i].state != TASK_ABSENT &&
		    strcmp(g->wants[i].note.busid, busid) == 0)
			return true;
	return false;
}

static void go_on(struct xen_gateway *g)
{
	struct xen_note notes[XEN_NOTES_MAX];
	size_t count = xen_notes_held(g->domid, notes);

	if (g->hold == HOLD_HELD)
		log_info("%s: goes on; takes back %zu device(s)", g->address,
			 count);
	g->hold = HOLD_FREE;
	g->has_news = true;
	for (size_t i = 0; i < count; i++) {
		if (is_wanted(g, notes[i].busid)) {
			(void)xen_notes_drop(g->domid, notes[i].busid);
			continue;
		}
		g->taken[i].note = notes[i];
		task_feed(g, &g->taken[i], TASK_ON_WANTED);
	}
}

static bool has_tried_all(const struct xen_gateway *g)
{
	for (size_t i = 0; i < MAX_TASKS; i++)
		if (g->taken[i].state != TASK_ABSENT && g->taken[i].tries == 0)
			return false;
	return true;
}

static bool is_to_hold(const struct xen_gateway *g)
{
	return (g->word.verb == HANDSHAKE_HOLD || g->is_held_here) &&
	       (g->hold == HOLD_FREE || g->hold == HOLD_UNKNOWN);
}

static void step_hold(struct xen_gateway *g, uint64_t now_ms)
{
	bool holds = g->word.verb == HANDSHAKE_HOLD || g->is_held_here;

	/* Without a word it is a gateway that serves, or none that does. */
	bool goes_on = !holds &&
		       (g->word.verb == HANDSHAKE_RESUME || g->has_devices);

	if (is_to_hold(g) && now_ms >= g->hold_ms)
		begin_hold(g, now_ms);
	if (g->hold == HOLD_HOLDING && count_jobs(g) == 0)
		let_go_of_all(g);
	if (goes_on && !g->needs_look &&
	    (g->hold == HOLD_HELD || g->hold == HOLD_UNKNOWN))
		go_on(g);
	if (g->word.epoch == g->answered_epoch)
		return;
	if (g->word.verb == HANDSHAKE_HOLD && g->hold == HOLD_HELD &&
	    !g->is_waiting)
		answer_hold(g, HANDSHAKE_DONE);
	if (g->word.verb == HANDSHAKE_RESUME && g->hold == HOLD_FREE &&
	    has_tried_all(g))
		answer_hold(g, HANDSHAKE_RESUMED);
}

void xen_gateway_set_held(struct xen_gateway *g, bool is_held)
{
	g->is_held_here = is_held;
}

void xen_gateway_set_waiting(struct xen_gateway *g, bool is_waiting)
{
	g->is_waiting = is_waiting;
}

bool xen_gateway_holds(const struct xen_gateway *g)
{
	return g->hold == HOLD_HOLDING || g->hold == HOLD_HELD;
}

bool xen_gateway_says_hold(const struct xen_gateway *g)
{
	return g->word.verb == HANDSHAKE_HOLD;
}

bool xen_gateway_take_news(struct xen_gateway *g)
{
	bool has_news = g->has_news;

	g->has_news = false;
	return has_news;
}

bool xen_gateway_has_settled(const struct xen_gateway *g)
{
	if (g->is_held_here)
		return g->hold == HOLD_HELD;
	return g->hold != HOLD_HOLDING && has_tried_all(g);
}

/* ---- time ---- */

static void check_attached(struct xen_gateway *g, uint64_t now_ms)
{
	if (now_ms < g->check_ms)
		return;
	g->check_ms = now_ms + CHECK_EVERY_MS;
	for (size_t i = 0; i < MAX_TASKS; i++) {
		struct task *want = &g->wants[i];

		if (want->state != TASK_ATTACHED ||
		    (record_is(RECORD_DIR, want->port, &want->record) &&
		     vhci_is_free(VHCI_DIR, want->port) == 0))
			continue;
		log_info("%s: %s was lost", g->address, want->note.busid);
		task_feed(g, want, TASK_ON_LOST);
	}
}

void xen_gateway_suspect(struct xen_gateway *g)
{
	g->check_ms = 0;
}

static uint64_t step_task(struct xen_gateway *g, struct task *task,
			  uint64_t now_ms)
{
	if (task->state == TASK_WAITING && g->hold == HOLD_FREE) {
		if (task->due_ms > now_ms)
			return task->due_ms;
		/* Otherwise the end of a job is the next step. */
		if (count_jobs(g) < MAX_JOBS)
			task_feed(g, task, TASK_ON_DUE);
	}
	return task->state == TASK_ATTACHED ? g->check_ms : XEN_GATEWAY_NEVER;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t xen_gateway_step(struct xen_gateway *g)
{
	uint64_t now_ms = clock_ms();
	uint64_t next_ms = XEN_GATEWAY_NEVER;

	step_hold(g, now_ms);
	check_attached(g, now_ms);
	for (size_t i = 0; i < MAX_TASKS; i++) {
		next_ms = earlier(next_ms, step_task(g, &g->wants[i], now_ms));
		next_ms = earlier(next_ms, step_task(g, &g->taken[i], now_ms));
	}
	return is_to_hold(g) ? earlier(next_ms, g->hold_ms) : next_ms;
}

bool xen_gateway_on_child(struct xen_gateway *g, pid_t pid, int status)
{
	if (g->hold_job.pid == pid) {
		on_hold_end(g, status);
		return true;
	}
	for (size_t i = 0; i < MAX_TASKS; i++) {
		struct task *task = g->wants[i].job.pid == pid ? &g->wants[i]
							       : &g->taken[i];

		if (task->job.pid != pid)
			continue;
		task_on_job_end(g, task, status);
		return true;
	}
	return false;
}

/* ---- beginning and end ---- */

bool xen_gateway_needs_look(const struct xen_gateway *g)
{
	return g->needs_look;
}

unsigned xen_gateway_domid(const struct xen_gateway *g)
{
	return g->domid;
}

bool xen_gateway_is_called(const struct xen_gateway *g, const char *domain)
{
	uint32_t domid;

	if (handshake_parse_number(domain, HANDSHAKE_MAX_DOMID, &domid))
		return domid == g->domid;
	return g->name[0] != '\0' && strcmp(g->name, domain) == 0;
}

int xen_gateway_new(struct store *store, unsigned own, unsigned gateway,
		    bool is_debug, struct xen_gateway **ret_gateway)
{
	struct xen_gateway *g = calloc(1, sizeof(*g));

	if (!g)
		return -ENOMEM;
	g->store = store;
	g->own = own;
	g->domid = gateway;
	g->is_debug = is_debug;
	(void)snprintf(g->address, sizeof(g->address), "xen:%u", gateway);
	*ret_gateway = g;
	return 0;
}

void xen_gateway_free(struct xen_gateway *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < MAX_TASKS; i++) {
		job_forget(&g->wants[i].job);
		job_forget(&g->taken[i].job);
	}
	job_forget(&g->hold_job);
	free(g);
}
