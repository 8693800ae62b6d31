/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/loop.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

/* Rounds of sources' work before descriptors are looked at again. */
#define SOURCE_ROUNDS 8

struct loop {
	uv_loop_t uv;
	uv_prepare_t prepare; /* asks the sources before each sleep */
	uv_idle_t idle;       /* active: the next sleep is no sleep */
	struct loop_source *sources;
	unsigned watchdog_s;
};

struct loop_watch {
	uv_poll_t uv;
	loop_fd_cb *on_ready;
	void *arg;
};

struct loop_timer {
	uv_timer_t uv;
	loop_cb *on_time;
	void *arg;
};

struct loop_signal {
	uv_signal_t uv;
	loop_signal_cb *on_signal;
	void *arg;
};

static void on_closed(uv_handle_t *handle)
{
	/* Every handle that is closed one by one is its struct's first member. */
	free(handle);
}

static void on_idle(uv_idle_t *idle)
{
	(void)idle;
}

/* True if a source still has work after its share of this turn. */
static bool run_sources(struct loop *loop)
{
	bool has_more = false;

	for (int round = 0; round < SOURCE_ROUNDS; round++) {
		has_more = false;
		for (struct loop_source *s = loop->sources; s; s = s->next) {
			if (!s->has_work(s->arg))
				continue;
			s->work(s->arg);
			has_more = true;
		}
		if (!has_more)
			return false;
	}
	return has_more;
}

static void on_prepare(uv_prepare_t *prepare)
{
	struct loop *loop = prepare->data;

	if (run_sources(loop))
		uv_idle_start(&loop->idle, on_idle);
	else
		uv_idle_stop(&loop->idle);
}

int loop_new(struct loop **ret_loop)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int r;

	if (!loop)
		return -ENOMEM;
	r = uv_loop_init(&loop->uv);
	if (r < 0) {
		free(loop);
		return r;
	}
	loop->uv.data = loop;
	(void)uv_prepare_init(&loop->uv, &loop->prepare);
	(void)uv_idle_init(&loop->uv, &loop->idle);
	loop->prepare.data = loop;
	(void)uv_prepare_start(&loop->prepare, on_prepare);
	*ret_loop = loop;
	return 0;
}

static void close_left_over(uv_handle_t *handle, void *arg)
{
	struct loop *loop = arg;
	bool is_embedded = handle == (uv_handle_t *)&loop->prepare ||
			   handle == (uv_handle_t *)&loop->idle;

	if (!uv_is_closing(handle))
		uv_close(handle, is_embedded ? NULL : on_closed);
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	if (loop->watchdog_s > 0)
		(void)alarm(0);
	uv_walk(&loop->uv, close_left_over, loop);
	(void)uv_run(&loop->uv, UV_RUN_DEFAULT);
	(void)uv_loop_close(&loop->uv);
	free(loop);
}

void loop_run(struct loop *loop)
{
	(void)uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *loop)
{
	uv_stop(&loop->uv);
}

uint64_t loop_now_ms(struct loop *loop)
{
	return uv_now(&loop->uv);
}

static void on_watchdog(void *arg)
{
	const struct loop *loop = arg;

	(void)alarm(loop->watchdog_s);
}

int loop_set_watchdog(struct loop *loop, unsigned seconds)
{
	struct loop_timer *timer;
	uint64_t every_ms = seconds * 1000ull / 3;

	loop->watchdog_s = seconds;
	(void)alarm(seconds);
	return loop_timer_start(loop, every_ms, every_ms, on_watchdog, loop,
				&timer);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct loop_watch *watch = poll->data;
	short revents = 0;

	if (status < 0) {
		(void)uv_poll_stop(poll);
		watch->on_ready(watch->arg, POLLERR);
		return;
	}
	if (events & UV_READABLE)
		revents |= POLLIN;
	if (events & UV_WRITABLE)
		revents |= POLLOUT;
	watch->on_ready(watch->arg, revents);
}

int loop_watch_set(struct loop_watch *watch, short events)
{
	int wanted = 0;

	if (events & POLLIN)
		wanted |= UV_READABLE;
	if (events & POLLOUT)
		wanted |= UV_WRITABLE;
	if (wanted == 0)
		return uv_poll_stop(&watch->uv);
	return uv_poll_start(&watch->uv, wanted, on_poll);
}

int loop_watch_fd(struct loop *loop, int fd, short events, loop_fd_cb *on_ready,
		  void *arg, struct loop_watch **ret_watch)
{
	struct loop_watch *watch = calloc(1, sizeof(*watch));
	int r;

	if (!watch)
		return -ENOMEM;
	watch->on_ready = on_ready;
	watch->arg = arg;
	watch->uv.data = watch;
	r = uv_poll_init(&loop->uv, &watch->uv, fd);
	if (r < 0) {
		free(watch);
		return r;
	}
	r = loop_watch_set(watch, events);
	if (r < 0) {
		loop_watch_stop(watch);
		return r;
	}
	*ret_watch = watch;
	return 0;
}

void loop_watch_stop(struct loop_watch *watch)
{
	if (!watch)
		return;
	/* At once, since the descriptor may be closed and reused next. */
	(void)uv_poll_stop(&watch->uv);
	uv_close((uv_handle_t *)&watch->uv, on_closed);
}

static void on_uv_timer(uv_timer_t *uv)
{
	struct loop_timer *timer = uv->data;

	timer->on_time(timer->arg);
}

int loop_timer_start(struct loop *loop, uint64_t after_ms, uint64_t every_ms,
		     loop_cb *on_time, void *arg, struct loop_timer **ret_timer)
{
	struct loop_timer *timer = calloc(1, sizeof(*timer));

	if (!timer)
		return -ENOMEM;
	timer->on_time = on_time;
	timer->arg = arg;
	timer->uv.data = timer;
	(void)uv_timer_init(&loop->uv, &timer->uv);
	(void)uv_timer_start(&timer->uv, on_uv_timer, after_ms, every_ms);
	*ret_timer = timer;
	return 0;
}

void loop_timer_again(struct loop_timer *timer, uint64_t after_ms)
{
	(void)uv_timer_start(&timer->uv, on_uv_timer, after_ms, 0);
}

void loop_timer_stop(struct loop_timer *timer)
{
	if (timer)
		uv_close((uv_handle_t *)&timer->uv, on_closed);
}

static void on_uv_signal(uv_signal_t *uv, int signo)
{
	struct loop_signal *signal = uv->data;

	signal->on_signal(signal->arg, signo);
}

int loop_on_signal(struct loop *loop, int signo, loop_signal_cb *on_signal,
		   void *arg)
{
	struct loop_signal *signal = calloc(1, sizeof(*signal));
	int r;

	if (!signal)
		return -ENOMEM;
	signal->on_signal = on_signal;
	signal->arg = arg;
	signal->uv.data = signal;
	r = uv_signal_init(&loop->uv, &signal->uv);
	if (r < 0) {
		free(signal);
		return r;
	}
	r = uv_signal_start(&signal->uv, on_uv_signal, signo);
	if (r < 0)
		uv_close((uv_handle_t *)&signal->uv, on_closed);
	return r;
}

void loop_add_source(struct loop *loop, struct loop_source *source)
{
	source->next = loop->sources;
	loop->sources = source;
}
