/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session is a child of this manager, which sessions.h looks after, or one of
 * a manager before, known by the lock that it holds and watched by a pidfd.  Of
 * one that was being started when that manager died nobody knows the process:
 * it gets no answer from any manager, so it ends by its own limit.
 */
#include "gateway/xen_channel.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "gateway/channel_lock.h"
#include "gateway/xen_check.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

/* For a timer that is not set: a time that does not come. */
#define NEVER_MS (1ull << 40)
/* Why it has ended only its own manager would know. */
#define ORPHAN_WORDS "the session has ended, and its manager before it"

struct xen_channel {
	const struct xen_channel_host *host;
	struct xen_link *link;
	unsigned number;
	pid_t pid;  /* a child's; 0: none */
	int pid_fd; /* of one that is not; -1: none */
	struct loop_watch *pid_watch;
	bool is_held; /* by an unknown process */
	int lock_fd;  /* of a child's; else -1 */
	struct channel_note note;
	uint64_t pages;
	struct loop_timer *limit_timer;
};

/* ---- the session's process ---- */

/* Nothing of it is left, and the channel can be used again. */
static void forget_process(struct xen_channel *c)
{
	loop_watch_stop(c->pid_watch);
	c->pid_watch = NULL;
	if (c->pid_fd >= 0)
		(void)close(c->pid_fd);
	c->pid_fd = -1;
	c->pid = 0;
	c->is_held = false;
	if (c->lock_fd >= 0)
		(void)close(c->lock_fd);
	c->lock_fd = -1;
	c->note = (struct channel_note){ .pid = 0 };
	c->pages = 0;
}

static void finish(struct xen_channel *c, enum exit_status status,
		   const char *why)
{
	const struct xen_channel_host *host = c->host;
	char busid[USBIP_BUSID_BYTES];

	memcpy(busid, c->note.busid, sizeof(busid));
	if (c->lock_fd >= 0)
		channel_lock_release(c->lock_fd);
	forget_process(c);
	channel_lock_remove(host->runtime_dir, host->guest, c->number);
	xen_link_ended(c->link, status, why);
	host->ended(host->arg, busid);
}

static void on_granted(void *owner, pid_t pid)
{
	struct xen_channel *c = owner;

	(void)pid;
	xen_link_feed(c->link, XEN_LINK_ON_GRANTED);
}

static void write_note(struct xen_channel *c)
{
	int r = channel_lock_note(c->lock_fd, &c->note);

	if (r < 0)
		log_warn("%s channel %u: the lock file cannot be written: %s; "
			 "the session would not outlive this process",
			 c->host->who, c->number, strerror(-r));
}

static void on_took(void *owner, pid_t pid, const char *busid)
{
	struct xen_channel *c = owner;

	(void)pid;
	(void)snprintf(c->note.busid, sizeof(c->note.busid), "%s", busid);
	write_note(c);
}

static void on_ended(void *owner, pid_t pid, enum exit_status status,
		     const char *why)
{
	(void)pid;
	finish(owner, status, why);
}

static const struct sessions_events session_events = {
	.granted = on_granted,
	.took = on_took,
	.ended = on_ended,
};

static void on_pid_ended(void *arg, short revents)
{
	const struct xen_channel *c = arg;

	(void)revents;
	log_info("session %d (%s channel %u), which outlived its manager: "
		 "ended",
		 (int)c->note.pid, c->host->who, c->number);
	finish(arg, EXIT_CANNOT_REACH, ORPHAN_WORDS);
}

static void send_signal(const struct xen_channel *c, int signo)
{
	if (c->pid > 0)
		(void)kill(c->pid, signo);
	else if (c->pid_fd >= 0)
		(void)pidfd_send_signal(c->pid_fd, signo, NULL, 0);
}

/* ---- what its link has done ---- */

/* A power of two that libxenvchan takes, and no more than the gateway's. */
static uint32_t fit_ring(const struct xen_channel_host *host, uint32_t asked)
{
	uint32_t bytes = CHANNEL_VCHAN_MIN_RING_BYTES;

	if (asked == 0 || asked > host->ring_bytes)
		asked = host->ring_bytes;
	while (bytes <= asked / 2)
		bytes *= 2;
	return bytes;
}

static int start_session(struct xen_channel *c, uint32_t ring_bytes)
{
	const struct xen_channel_host *host = c->host;
	struct sessions_peer peer = host->peer;
	int r = channel_lock_take(host->runtime_dir, host->guest, c->number,
				  &c->lock_fd);

	if (r < 0)
		return r;
	peer.channel = c->number;
	peer.ring_bytes = ring_bytes;
	(void)snprintf(peer.name, sizeof(peer.name), "%.80s channel %u",
		       host->who, c->number);
	r = sessions_start(host->sessions, c->lock_fd, &peer, &session_events,
			   c, &c->pid);
	if (r < 0) {
		channel_lock_release(c->lock_fd);
		forget_process(c);
		channel_lock_remove(host->runtime_dir, host->guest, c->number);
		return r;
	}
	c->pages = xen_check_pages(ring_bytes);
	c->note = (struct channel_note){ .pid = c->pid,
					 .epoch = xen_link_epoch(c->link) };
	(void)snprintf(c->note.uuid, sizeof(c->note.uuid), "%s",
		       peer.policy.uuid);
	write_note(c);
	return 0;
}

static int on_start(void *arg, struct xen_link *link, uint32_t ring_bytes,
		    enum exit_status *ret_status,
		    char why[static HANDSHAKE_WHY_BYTES])
{
	struct xen_channel *c = arg;
	int r;

	(void)link;
	ring_bytes = fit_ring(c->host, ring_bytes);
	r = c->host->admit(c->host->arg, &ring_bytes, ret_status, why);
	if (r < 0)
		return r;
	r = start_session(c, ring_bytes);
	if (r == 0)
		return 0;
	log_error("%s channel %u: no session can be started: %s", c->host->who,
		  c->number, strerror(-r));
	*ret_status = r == -EBUSY ? EXIT_BUSY : EXIT_FAILED;
	(void)snprintf(why, HANDSHAKE_WHY_BYTES,
		       "the gateway cannot start a session: see its log");
	return r;
}

static void on_terminate(void *arg, struct xen_link *link)
{
	(void)link;
	send_signal(arg, SIGTERM);
}

static void on_kill(void *arg, struct xen_link *link)
{
	(void)link;
	send_signal(arg, SIGKILL);
}

static void set_limit(void *arg, struct xen_link *link, unsigned after_ms)
{
	const struct xen_channel *c = arg;

	(void)link;
	loop_timer_again(c->limit_timer, after_ms > 0 ? after_ms : NEVER_MS);
}

static void on_limit(void *arg)
{
	const struct xen_channel *c = arg;
	const struct xen_channel_host *host = c->host;

	xen_link_feed(c->link, XEN_LINK_ON_LIMIT);
	if (xen_link_state(c->link) == XEN_LINK_WEDGED) {
		log_error("%s channel %u: its session was killed and does not "
			  "end: its device may be wedged; unplug it",
			  host->who, c->number);
		host->ended(host->arg, "");
	}
}

static const struct xen_link_ops link_ops = {
	.start = on_start,
	.terminate = on_terminate,
	.kill = on_kill,
	.limit = set_limit,
};

/* ---- life ---- */

/* A session that outlived the manager before. */
static enum xen_link_heir take_up(struct xen_channel *c)
{
	const struct xen_channel_host *host = c->host;
	int r;

	if (channel_lock_find(host->runtime_dir, host->guest, c->number,
			      &c->note) == 0)
		return XEN_LINK_NO_SESSION;
	if (c->note.pid > 0)
		c->pid_fd = pidfd_open(c->note.pid, 0);
	r = c->pid_fd < 0 ? -ESRCH
			  : loop_watch_fd(host->loop, c->pid_fd, POLLIN,
					  on_pid_ended, c, &c->pid_watch);
	c->is_held = r < 0;
	/* Its rings are no larger, unless the configuration has changed. */
	c->pages = xen_check_pages(host->ring_bytes);
	log_info("%s channel %u: session %d has outlived its manager",
		 host->who, c->number, (int)c->note.pid);
	return !c->is_held && strcmp(c->note.uuid, host->peer.policy.uuid) == 0
		       ? XEN_LINK_SESSION
		       : XEN_LINK_WRONG_SESSION;
}

int xen_channel_new(const struct xen_channel_host *host, unsigned number,
		    struct xen_channel **ret_channel)
{
	struct xen_channel *c = calloc(1, sizeof(*c));
	struct xen_link_options options = {
		.store = host->store,
		.ops = &link_ops,
		.arg = c,
		.gateway = host->gateway,
		.guest = host->guest,
		.channel = number,
		.who = host->who,
	};
	enum xen_link_heir heir;
	int r;

	if (!c)
		return -ENOMEM;
	c->host = host;
	c->number = number;
	c->pid_fd = -1;
	c->lock_fd = -1;
	r = loop_timer_start(host->loop, NEVER_MS, 0, on_limit, c,
			     &c->limit_timer);
	if (r < 0) {
		free(c);
		return r;
	}
	heir = take_up(c);
	r = xen_link_new(&options, heir, c->note.epoch, &c->link);
	if (r < 0) {
		xen_channel_free(c);
		return r;
	}
	*ret_channel = c;
	return 0;
}

void xen_channel_free(struct xen_channel *channel)
{
	if (!channel)
		return;
	if (channel->pid > 0)
		sessions_disown(channel->host->sessions, channel->pid);
	forget_process(channel);
	loop_timer_stop(channel->limit_timer);
	xen_link_free(channel->link);
	free(channel);
}

void xen_channel_review(struct xen_channel *channel)
{
	xen_link_review(channel->link);
}

void xen_channel_revoke(struct xen_channel *channel, enum exit_status status,
			const char *why)
{
	xen_link_revoke(channel->link, status, why);
}

void xen_channel_die(struct xen_channel *channel)
{
	xen_link_feed(channel->link, XEN_LINK_ON_DEAD);
}

void xen_channel_poll(struct xen_channel *channel)
{
	const struct xen_channel_host *host = channel->host;
	struct channel_note note;

	if (channel->is_held &&
	    channel_lock_find(host->runtime_dir, host->guest, channel->number,
			      &note) == 0)
		finish(channel, EXIT_CANNOT_REACH, ORPHAN_WORDS);
}

enum xen_link_state xen_channel_state(const struct xen_channel *channel)
{
	return xen_link_state(channel->link);
}

bool xen_channel_is_idle(const struct xen_channel *channel)
{
	return xen_link_is_idle(channel->link);
}

bool xen_channel_is_quiet(const struct xen_channel *channel)
{
	return xen_link_is_quiet(channel->link);
}

uint64_t xen_channel_pages(const struct xen_channel *channel)
{
	return channel->pages;
}

const char *xen_channel_busid(const struct xen_channel *channel)
{
	return channel->note.busid;
}
