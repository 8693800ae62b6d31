/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standing_private.h - inside standing.h: all of them, and where they come from
 * (standing.c); one of them (standing_one.c).
 */
#ifndef STANDING_PRIVATE_H
#define STANDING_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "frontend/job.h"
#include "frontend/record.h"
#include "frontend/standing.h"
#include "frontend/standing_fsm.h"
#include "frontend/standing_note.h"
#include "vchan-transport/loop.h"

/* Its place is used again. ABSENT: free. */
struct standing_one {
	struct standing *all;
	struct wish wish;
	enum standing_state state;
	bool is_noted; /* there is a note that is its own */
	struct job job;
	struct loop_timer *timer;
	unsigned delay_ms;
	uint64_t started_ms; /* its last job; 0: none */
	uint64_t since_ms;   /* in its state, as others see it */
	uint64_t next_ms;    /* when its timer fires */
	uint32_t port;
	uint32_t devid; /* at the gateway, when it was attached */
	struct record_id record;
	char why[STANDING_NOTE_WHY_BYTES];
};

struct standing {
	struct loop *loop;
	bool is_debug;
	standing_may_cb *may;
	void *arg;
	int lock_fd;
	int files_fd; /* inotify; -1: not heard of */
	struct loop_watch *files_watch;
	struct loop_timer *check_timer;
	unsigned checks_left; /* quick ones */
	char tls_dir[TLS_DIR_BYTES];
	size_t num_sections;
	struct wish sections[WISH_MAX];
	struct standing_one ones[WISH_MAX];
};

/* ---- standing.c ---- */

/* Of one that has a port: has another one got it? */
bool standing_has_port(const struct standing *standing, uint32_t port);
/* May one more job be started? */
bool standing_has_room(const struct standing *standing);
/* Looks for losses from now on. */
void standing_check_soon(struct standing *standing);

/* ---- standing_one.c ---- */

void standing_one_init(struct standing_one *one, struct standing *all,
		       const struct wish *wish);
void standing_one_feed(struct standing_one *one, enum standing_stim stim);
void standing_one_on_job_end(struct standing_one *one, int wstatus);
/* Attached: is it still? */
void standing_one_check(struct standing_one *one);
/* It may be there now, or may not be attached any more. */
void standing_one_on_news(struct standing_one *one);
/* The agent ends. */
void standing_one_done(struct standing_one *one);

#endif
