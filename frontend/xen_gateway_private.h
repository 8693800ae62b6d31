/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_gateway_private.h - inside xen_gateway.h: what is known of one gateway
 * (xen_gateway.c), how it is read (xen_gateway_look.c), and the tasks that
 * follow from it (xen_gateway_task.c).
 */
#ifndef XEN_GATEWAY_PRIVATE_H
#define XEN_GATEWAY_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "frontend/job.h"
#include "frontend/record.h"
#include "frontend/task_fsm.h"
#include "frontend/xen_gateway.h"
#include "frontend/xen_notes.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/store.h"

#define MAX_TASKS HANDSHAKE_CHANNELS

_Static_assert(XEN_NOTES_MAX == MAX_TASKS, "there is a place for each note");

/* Its place, in one of the gateway's lists, is used again. */
struct task {
	enum task_state state;
	bool is_seen; /* want: its node is there */
	uint64_t epoch;
	struct xen_note note;
	uint32_t port;
	struct record_id record;
	struct job job;
	unsigned tries;
	unsigned delay_ms;
	uint64_t due_ms;
	uint64_t started_ms; /* outlives the task, as its place does */
};

enum hold_state {
	HOLD_UNKNOWN, /* whether it holds is not known yet */
	HOLD_FREE,
	HOLD_HOLDING, /* jobs end, then one lets go of everything */
	HOLD_HELD,
};

struct xen_gateway {
	struct store *store;
	unsigned own; /* domains */
	unsigned domid;
	bool is_debug;
	char address[16];
	char name[STORE_NAME_BYTES];
	enum hold_state hold;
	struct job hold_job;
	uint64_t hold_ms;           /* the next hold, at the earliest */
	struct handshake_word word; /* the gateway's latest: hold, resume, none */
	uint64_t answered_epoch;
	bool is_held_here;
	bool is_waiting; /* for others, before it answers a hold */
	bool has_looked;
	bool needs_look;
	bool has_devices;
	bool has_news; /* its devices changed, or it holds or goes on */
	char devices[64];
	uint64_t check_ms;
	struct task wants[MAX_TASKS]; /* by the numbers of their nodes */
	struct task taken[MAX_TASKS]; /* to be taken back */
};

/* ---- xen_gateway_task.c ---- */

void gateway_log_start(const struct xen_gateway *g, const char *what, int r);
/* Nothing happens if the folder for answers is not there any more. */
void gateway_answer(struct xen_gateway *g, const char *path,
		    const struct handshake_word *word);

uint32_t task_number(const struct xen_gateway *g, const struct task *want);
void task_feed(struct xen_gateway *g, struct task *task, enum task_stim stim);
void task_on_job_end(struct xen_gateway *g, struct task *task, int wstatus);

#endif
