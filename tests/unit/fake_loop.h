/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_loop.h - the functions of vchan-transport/loop.h that need time, with a
 * clock that only the test moves; included by the test, it takes the real ones'
 * place.
 */
#ifndef FAKE_LOOP_H
#define FAKE_LOOP_H

#include "vchan-transport/loop.h"

#include <stdlib.h>

struct loop_timer {
	struct loop_timer *next;
	uint64_t due_ms;
	uint64_t every_ms;
	bool is_stopped;
	loop_cb *on_time;
	void *arg;
};

static struct loop_timer *fake_timers;
static uint64_t fake_now_ms = 1000;

uint64_t loop_now_ms(struct loop *loop)
{
	(void)loop;
	return fake_now_ms;
}

int loop_timer_start(struct loop *loop, uint64_t after_ms, uint64_t every_ms,
		     loop_cb *on_time, void *arg, struct loop_timer **ret_timer)
{
	struct loop_timer *t = calloc(1, sizeof(*t));

	(void)loop;
	assert_non_null(t);
	*t = (struct loop_timer){ .next = fake_timers,
				  .due_ms = fake_now_ms + after_ms,
				  .every_ms = every_ms,
				  .on_time = on_time,
				  .arg = arg };
	fake_timers = t;
	*ret_timer = t;
	return 0;
}

void loop_timer_again(struct loop_timer *timer, uint64_t after_ms)
{
	timer->every_ms = 0;
	timer->due_ms = fake_now_ms + after_ms;
}

void loop_timer_stop(struct loop_timer *timer)
{
	if (timer)
		timer->is_stopped = true;
}

int loop_watch_fd(struct loop *loop, int fd, short events, loop_fd_cb *on_ready,
		  void *arg, struct loop_watch **ret_watch)
{
	(void)loop;
	(void)fd;
	(void)events;
	(void)on_ready;
	(void)arg;
	*ret_watch = NULL;
	return 0;
}

void loop_watch_stop(struct loop_watch *watch)
{
	(void)watch;
}

static void fake_loop_sweep(void)
{
	struct loop_timer **at = &fake_timers;

	while (*at) {
		struct loop_timer *t = *at;

		if (t->is_stopped) {
			*at = t->next;
			free(t);
		} else {
			at = &t->next;
		}
	}
}

/* The timer that is due first, until then; NULL: none. */
static struct loop_timer *fake_loop_next(uint64_t until_ms)
{
	struct loop_timer *next = NULL;

	for (struct loop_timer *t = fake_timers; t; t = t->next)
		if (!t->is_stopped && t->due_ms <= until_ms &&
		    (!next || t->due_ms < next->due_ms))
			next = t;
	return next;
}

/* Lets so much time pass, and what is due happen in its order. */
static void fake_loop_run(uint64_t ms)
{
	uint64_t until_ms = fake_now_ms + ms;
	struct loop_timer *t;

	while ((t = fake_loop_next(until_ms))) {
		if (t->due_ms > fake_now_ms)
			fake_now_ms = t->due_ms;
		t->due_ms = t->every_ms > 0 ? fake_now_ms + t->every_ms
					    : UINT64_MAX;
		t->on_time(t->arg);
		fake_loop_sweep();
	}
	fake_now_ms = until_ms;
}

#endif
