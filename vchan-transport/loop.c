/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On epoll, with a timerfd for all timers and a pipe for all signals.
 *
 * A turn: sources' work, then sleep, then the descriptors that are ready.  A
 * watch that is stopped while its batch is served is only marked, and freed
 * after the batch.  Timers never move the timerfd to a later time: one that is
 * set anew for each URB costs no system call, at the price of a wake-up for
 * nothing now and then.
 */
#include "vchan-transport/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Rounds of sources' work before descriptors are looked at again. */
#define SOURCE_ROUNDS 8
#define BATCH         32
#define NEVER         UINT64_MAX

struct loop_watch {
	struct loop *loop;
	int fd;
	short events;
	bool is_stopped;
	loop_fd_cb *on_ready;
	void *arg;
	struct loop_watch *next;
};

struct loop_timer {
	struct loop *loop;
	uint64_t due_ms; /* NEVER: not set */
	uint64_t every_ms;
	bool is_stopped;
	loop_cb *on_time;
	void *arg;
	struct loop_timer *next;
};

struct loop_signal {
	int signo;
	loop_signal_cb *on_signal;
	void *arg;
	struct loop_signal *next;
};

struct loop {
	int epoll_fd;
	int timer_fd;
	uint64_t armed_ms; /* when the timerfd fires */
	bool is_stopped;
	bool has_stopped_some; /* watches or timers, to be swept */
	struct loop_source *sources;
	struct loop_watch *watches;
	struct loop_timer *timers;
	struct loop_signal *signals;
	unsigned watchdog_s;
};

/* Written by the handler of any signal, read by the one loop that asked. */
static int signal_pipe[2] = { -1, -1 };

/* ---------------------------------------------------------------- watches */

static int watch_control(struct loop_watch *w, int op)
{
	struct epoll_event event = { .data.ptr = w };

	if (w->events & POLLIN)
		event.events |= EPOLLIN;
	if (w->events & POLLOUT)
		event.events |= EPOLLOUT;
	if (w->events & LOOP_EDGE)
		event.events |= EPOLLET | EPOLLRDHUP;
	return epoll_ctl(w->loop->epoll_fd, op, w->fd, &event) < 0 ? -errno : 0;
}

int loop_watch_fd(struct loop *loop, int fd, short events, loop_fd_cb *on_ready,
		  void *arg, struct loop_watch **ret_watch)
{
	struct loop_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->loop = loop;
	w->fd = fd;
	w->events = events;
	w->on_ready = on_ready;
	w->arg = arg;
	r = watch_control(w, EPOLL_CTL_ADD);
	if (r < 0) {
		free(w);
		return r;
	}
	w->next = loop->watches;
	loop->watches = w;
	*ret_watch = w;
	return 0;
}

int loop_watch_set(struct loop_watch *watch, short events)
{
	if (events == watch->events)
		return 0;
	watch->events = events;
	return watch_control(watch, EPOLL_CTL_MOD);
}

void loop_watch_stop(struct loop_watch *watch)
{
	if (!watch)
		return;
	/* At once, since the descriptor may be closed and reused next. */
	(void)epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->is_stopped = true;
	watch->loop->has_stopped_some = true;
}

/* A hang-up counts as something to read where reading is what is awaited. */
static void serve_watch(struct loop_watch *w, uint32_t events)
{
	short revents = 0;

	if (events & EPOLLIN)
		revents |= POLLIN;
	if (events & EPOLLOUT)
		revents |= POLLOUT;
	if (revents == 0 && !(events & EPOLLERR) && (w->events & POLLIN))
		revents |= POLLIN;
	if ((w->events & LOOP_EDGE) && (events & (EPOLLRDHUP | EPOLLHUP)))
		revents |= POLLRDHUP;
	if (revents == 0 || (events & EPOLLERR)) {
		/* The owner may stop it, or look and let it lie: once is enough. */
		(void)epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
		revents = POLLERR;
	}
	w->on_ready(w->arg, revents);
}

/* Frees what was stopped. */
static void sweep(struct loop *loop)
{
	struct loop_watch **w = &loop->watches;
	struct loop_timer **t = &loop->timers;

	if (!loop->has_stopped_some)
		return;
	loop->has_stopped_some = false;
	while (*w) {
		struct loop_watch *stopped = *w;

		if (stopped->is_stopped) {
			*w = stopped->next;
			free(stopped);
		} else {
			w = &stopped->next;
		}
	}
	while (*t) {
		struct loop_timer *stopped = *t;

		if (stopped->is_stopped) {
			*t = stopped->next;
			free(stopped);
		} else {
			t = &stopped->next;
		}
	}
}

/* ----------------------------------------------------------------- timers */

uint64_t loop_now_ms(struct loop *loop)
{
	struct timespec ts;

	(void)loop;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void arm(struct loop *loop, uint64_t due_ms)
{
	struct itimerspec when = { 0 };

	if (due_ms >= loop->armed_ms)
		return;
	loop->armed_ms = due_ms;
	/* 0 would disarm it. */
	if (due_ms == 0)
		due_ms = 1;
	when.it_value.tv_sec = (time_t)(due_ms / 1000);
	when.it_value.tv_nsec = (long)(due_ms % 1000) * 1000000;
	(void)timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

int loop_timer_start(struct loop *loop, uint64_t after_ms, uint64_t every_ms,
		     loop_cb *on_time, void *arg, struct loop_timer **ret_timer)
{
	struct loop_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->loop = loop;
	t->on_time = on_time;
	t->arg = arg;
	t->next = loop->timers;
	loop->timers = t;
	loop_timer_again(t, after_ms);
	t->every_ms = every_ms;
	*ret_timer = t;
	return 0;
}

void loop_timer_again(struct loop_timer *timer, uint64_t after_ms)
{
	timer->every_ms = 0;
	timer->due_ms = loop_now_ms(timer->loop) + after_ms;
	arm(timer->loop, timer->due_ms);
}

void loop_timer_stop(struct loop_timer *timer)
{
	if (!timer)
		return;
	timer->is_stopped = true;
	timer->loop->has_stopped_some = true;
}

static void serve_timers(struct loop *loop)
{
	uint64_t now_ms = loop_now_ms(loop);
	uint64_t next_ms = NEVER;
	uint64_t fired;

	(void)!read(loop->timer_fd, &fired, sizeof(fired));
	loop->armed_ms = NEVER;
	for (struct loop_timer *t = loop->timers; t; t = t->next) {
		if (t->is_stopped || t->due_ms > now_ms)
			continue;
		t->due_ms = t->every_ms > 0 ? now_ms + t->every_ms : NEVER;
		t->on_time(t->arg);
	}
	for (const struct loop_timer *t = loop->timers; t; t = t->next) {
		if (!t->is_stopped && t->due_ms < next_ms)
			next_ms = t->due_ms;
	}
	if (next_ms != NEVER)
		arm(loop, next_ms);
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

/* ---------------------------------------------------------------- signals */

static void on_any_signal(int signo)
{
	const uint8_t byte = (uint8_t)signo;
	int saved_errno = errno;

	(void)!write(signal_pipe[1], &byte, sizeof(byte));
	errno = saved_errno;
}

static void on_signal_pipe(void *arg, short revents)
{
	struct loop *loop = arg;
	uint8_t bytes[64];
	ssize_t n = read(signal_pipe[0], bytes, sizeof(bytes));

	(void)revents;
	for (ssize_t i = 0; i < n; i++) {
		for (struct loop_signal *s = loop->signals; s; s = s->next) {
			if (s->signo == bytes[i])
				s->on_signal(s->arg, s->signo);
		}
	}
}

static int open_signal_pipe(struct loop *loop)
{
	struct loop_watch *watch;

	if (loop->signals)
		return 0;
	if (signal_pipe[0] >= 0)
		return -EBUSY;
	if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	return loop_watch_fd(loop, signal_pipe[0], POLLIN, on_signal_pipe, loop,
			     &watch);
}

int loop_on_signal(struct loop *loop, int signo, loop_signal_cb *on_signal,
		   void *arg)
{
	const struct sigaction action = { .sa_handler = on_any_signal,
					  .sa_flags = SA_RESTART };
	struct loop_signal *s;
	int r = open_signal_pipe(loop);

	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct loop_signal){ signo, on_signal, arg, loop->signals };
	loop->signals = s;
	return sigaction(signo, &action, NULL) < 0 ? -errno : 0;
}

static void free_signals(struct loop *loop)
{
	if (!loop->signals)
		return;
	while (loop->signals) {
		struct loop_signal *s = loop->signals;

		loop->signals = s->next;
		(void)signal(s->signo, SIG_DFL);
		free(s);
	}
	(void)close(signal_pipe[0]);
	(void)close(signal_pipe[1]);
	signal_pipe[0] = -1;
	signal_pipe[1] = -1;
}

/* ------------------------------------------------------------------- loop */

int loop_new(struct loop **ret_loop)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	struct epoll_event event = { .events = EPOLLIN };
	int r;

	if (!loop)
		return -ENOMEM;
	loop->armed_ms = NEVER;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	/* The timerfd is known by its empty pointer. */
	if (loop->epoll_fd < 0 || loop->timer_fd < 0 ||
	    epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->timer_fd, &event) <
		    0) {
		r = -errno;
		loop_free(loop);
		return r;
	}
	*ret_loop = loop;
	return 0;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	if (loop->watchdog_s > 0)
		(void)alarm(0);
	for (struct loop_watch *w = loop->watches; w; w = w->next)
		w->is_stopped = true;
	for (struct loop_timer *t = loop->timers; t; t = t->next)
		t->is_stopped = true;
	loop->has_stopped_some = true;
	sweep(loop);
	free_signals(loop);
	if (loop->timer_fd >= 0)
		(void)close(loop->timer_fd);
	if (loop->epoll_fd >= 0)
		(void)close(loop->epoll_fd);
	free(loop);
}

void loop_add_source(struct loop *loop, struct loop_source *source)
{
	source->next = loop->sources;
	loop->sources = source;
}

/* True if a source still has work after its share of this turn. */
static bool run_sources(struct loop *loop)
{
	bool has_more = loop->sources != NULL;

	for (int round = 0; round < SOURCE_ROUNDS && has_more; round++) {
		has_more = false;
		for (struct loop_source *s = loop->sources; s; s = s->next) {
			if (!s->has_work(s->arg))
				continue;
			s->work(s->arg);
			has_more = true;
		}
	}
	return has_more;
}

static void serve_batch(struct loop *loop, const struct epoll_event *batch,
			int n)
{
	for (int i = 0; i < n; i++) {
		struct loop_watch *w = batch[i].data.ptr;

		if (!w)
			serve_timers(loop);
		else if (!w->is_stopped)
			serve_watch(w, batch[i].events);
	}
	sweep(loop);
}

void loop_run(struct loop *loop)
{
	struct epoll_event batch[BATCH];

	loop->is_stopped = false;
	do {
		bool has_more = run_sources(loop);
		bool is_waiting = !has_more && !loop->is_stopped;
		int n = epoll_wait(loop->epoll_fd, batch, BATCH,
				   is_waiting ? -1 : 0);

		serve_batch(loop, batch, n);
	} while (!loop->is_stopped);
	(void)run_sources(loop); /* with what the last batch brought */
}

void loop_stop(struct loop *loop)
{
	loop->is_stopped = true;
}
