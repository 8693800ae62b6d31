/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - one event loop for every role, on epoll.
 *
 * Descriptors, timers, signals, and sources: a source is asked before each
 * sleep whether it has work that no descriptor will announce (a ring, libusb);
 * if one has, the loop calls its work() instead of sleeping.  Work is done
 * within a budget: it returns early and says true to has_work() again.
 *
 * Callbacks do not block.  Everything here is owned by its loop; a handle may be
 * stopped inside any callback, its own included, and is not used afterwards.
 */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_watch;
struct loop_timer;

struct loop_source {
	bool (*has_work)(void *arg);
	void (*work)(void *arg);
	void *arg;
	struct loop_source *next; /* of the loop */
};

int loop_new(struct loop **ret_loop);
/* Stops what is left and frees it.  NULL is fine. */
void loop_free(struct loop *loop);

/* Runs until loop_stop, and finishes the turn that it was called in. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* Milliseconds, monotonic. */
uint64_t loop_now_ms(struct loop *loop);

/*
 * Kills this process with SIGALRM if the loop does not turn for `seconds`: a
 * device or a peer that manages to block it ends its own attachment, no more.
 */
int loop_set_watchdog(struct loop *loop, unsigned seconds);

/*
 * With POLLIN or POLLOUT: report only what is new, so that who is woken by it
 * need not read it away.  POLLRDHUP comes, whatever is watched for, when the
 * other end has said its last: there is an end behind what lies there, and no
 * edge tells of that one.
 */
#define LOOP_EDGE 0x4000

/*
 * Watches `fd` for `events` of poll(2) (POLLIN, POLLOUT).  An error condition is
 * reported once, as POLLERR, and ends the watching.  The descriptor stays the
 * caller's, who stops the watch before closing it.
 */
typedef void loop_fd_cb(void *arg, short revents);
int loop_watch_fd(struct loop *loop, int fd, short events, loop_fd_cb *on_ready,
		  void *arg, struct loop_watch **ret_watch);
int loop_watch_set(struct loop_watch *watch, short events);
/* NULL is fine. */
void loop_watch_stop(struct loop_watch *watch);

typedef void loop_cb(void *arg);
/* Fires after `after_ms`, then each `every_ms` unless that is 0. */
int loop_timer_start(struct loop *loop, uint64_t after_ms, uint64_t every_ms,
		     loop_cb *on_time, void *arg,
		     struct loop_timer **ret_timer);
/* Sets it anew, for once. */
void loop_timer_again(struct loop_timer *timer, uint64_t after_ms);
/* NULL is fine. */
void loop_timer_stop(struct loop_timer *timer);

typedef void loop_signal_cb(void *arg, int signo);
/* For the life of the loop; one loop of a process at a time may ask for it. */
int loop_on_signal(struct loop *loop, int signo, loop_signal_cb *on_signal,
		   void *arg);

void loop_add_source(struct loop *loop, struct loop_source *source);

#endif
