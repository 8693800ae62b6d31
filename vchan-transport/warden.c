/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/warden.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vchan-transport/exit_status.h"
#include "vchan-transport/front_link.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"
#include "vchan-transport/process.h"
#include "vchan-transport/store.h"
#include "vchan-transport/xen_guest.h"

/* Without a watch: soon when a folder may go unseen, else to be sure. */
#define ASKING_LOOK_MS 500
#define LOOK_MS        10000

/*
 * Who writes without an end is looked at 20 times a second; its events are
 * taken each time, more than xenstored brings meanwhile, or they would pile up.
 */
#define EVENTS_AT_ONCE 65536
#define LOOKS_AT_ONCE  16
#define CALM_MS        50

/* What the process answers to an offer. */
#define ANSWER_MAPPED 'm'
#define ANSWER_FAILED 'f'

/* From the warden, once: where to map, or why not. */
struct offer {
	int error; /* 0 or -errno */
	unsigned gateway;
	char path[HANDSHAKE_PATH_BYTES];
	char why[HANDSHAKE_WHY_BYTES];
};

struct warden {
	struct front_link link; /* first: what it does is done here */
	int life_fd;            /* to the process that uses the channel */
	int pidfd;              /* that process */
};

/* ---- what the link does to that process --------------------------------- */

static const struct warden *warden_of(const struct front_link *link)
{
	return (const struct warden *)link;
}

/* The process may have ended; then its end is read next. */
static void tell(const struct warden *w, const void *message, size_t bytes)
{
	(void)send(w->life_fd, message, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void offer(const struct front_link *link, int error)
{
	struct offer message = { .error = error, .gateway = link->gateway };

	(void)snprintf(message.path, sizeof(message.path), "%s",
		       link->gateway_node);
	(void)snprintf(message.why, sizeof(message.why), "%s",
		       link->reason.why);
	tell(warden_of(link), &message, sizeof(message));
}

static void hang_up(const struct front_link *link)
{
	const struct warden *w = warden_of(link);

	tell(w, &link->reason, sizeof(link->reason));
	(void)shutdown(w->life_fd, SHUT_WR);
}

static void kill_process(const struct front_link *link)
{
	log_warn("channel %u to domain %u: its process does not let go; "
		 "killed",
		 link->channel, link->gateway);
	(void)pidfd_send_signal(warden_of(link)->pidfd, SIGKILL, NULL, 0);
}

static const struct front_link_ops link_ops = {
	.offer = offer,
	.hang_up = hang_up,
	.kill = kill_process,
};

/* ---- waiting ------------------------------------------------------------ */

static void hear_process(struct warden *w)
{
	char answer;
	ssize_t n = recv(w->life_fd, &answer, 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == 1 && answer == ANSWER_MAPPED)
		front_link_feed(&w->link, FRONT_ON_MAPPED);
	else if (n == 1 && answer == ANSWER_FAILED)
		front_link_fail(&w->link);
	else
		front_link_feed(&w->link, FRONT_ON_LEFT);
}

static int time_to_sleep(const struct front_link *l)
{
	uint64_t now = clock_ms();
	int most = l->state == FRONT_ASKING ? ASKING_LOOK_MS : LOOK_MS;

	if (now >= l->limit_at_ms)
		return 0;
	return l->limit_at_ms - now < (uint64_t)most
		       ? (int)(l->limit_at_ms - now)
		       : most;
}

/* Is there a watch that fired? They are taken, as many as are there. */
static bool has_fired(struct front_link *l)
{
	char token[STORE_TOKEN_BYTES];
	bool is_news = false;
	int r = 1;

	for (int i = 0; l->store && r > 0 && i < EVENTS_AT_ONCE; i++) {
		r = store_next_event(l->store, token);
		if (r < 0)
			front_link_lose_store(l, -ECONNRESET);
		is_news |= r != 0;
	}
	return is_news;
}

static void wait_for_news(struct warden *w)
{
	struct front_link *l = &w->link;
	bool is_calm = l->looks > LOOKS_AT_ONCE;
	struct pollfd fds[] = {
		{ .fd = w->life_fd, .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
	};

	if (is_calm) {
		(void)poll(fds, 1, CALM_MS);
	} else if (!has_fired(l)) {
		if (l->store)
			fds[1].fd = store_fd(l->store);
		(void)poll(fds, 2, time_to_sleep(l));
	}
	if (fds[0].revents)
		hear_process(w);
	if (l->state != FRONT_DONE && clock_ms() >= l->limit_at_ms)
		front_link_limit(l);
	if (is_calm && !has_fired(l))
		l->looks = 0;
}

/* ---- the process -------------------------------------------------------- */

/* Which channel it is: 0, or -errno and the reason. */
static int find_place(struct front_link *l, unsigned guest, const char *domain)
{
	unsigned gateway;
	unsigned channel;
	int r = xen_guest_find(l->store, guest, domain, &gateway);

	if (r < 0) {
		front_link_set_reason(
			l, r, EXIT_CANNOT_REACH,
			"no domain of this name offers anything to this "
			"domain");
		return r;
	}
	(void)xen_guest_sweep(l->store, guest, gateway);
	r = xen_guest_take_channel(l->store, guest, gateway, &channel);
	if (r == -EBUSY)
		front_link_set_reason(l, r, EXIT_BUSY,
				      "all %u channels to domain %u are in use",
				      HANDSHAKE_CHANNELS, gateway);
	else if (r < 0)
		front_link_set_reason(l, r, EXIT_FAILED,
				      "cannot lock a file in %s: %s",
				      XEN_GUEST_LOCK_DIR, strerror(-r));
	else
		front_link_place(l, guest, gateway, channel);
	return r;
}

/* All that comes before the machine: 0, or -errno and the reason. */
static int prepare(struct front_link *l, const char *domain)
{
	int r = store_open(&l->store);

	if (r == 0)
		r = store_domid(l->store);
	if (r == -ENODEV)
		front_link_set_reason(l, r, EXIT_CANNOT_REACH,
				      "this is no Xen domain, or it has no "
				      "/dev/xen/xenbus");
	else if (r < 0)
		front_link_set_reason(l, r, EXIT_CANNOT_REACH,
				      "cannot use xenstore: %s", strerror(-r));
	if (r < 0)
		return r;
	r = find_place(l, (unsigned)r, domain);
	if (r < 0)
		return r;
	r = store_watch(l->store, l->gateway_node, "channel");
	if (r < 0)
		front_link_set_reason(
			l, r, EXIT_FAILED,
			"cannot watch in xenstore: %s; its quota may be "
			"used up",
			strerror(-r));
	return r;
}

/* The lock of the channel's number goes with this process. */
_Noreturn static void run_warden(const struct address *to, size_t ring_bytes,
				 int life_fd, int pidfd)
{
	const int keep[] = { life_fd, pidfd };
	struct warden w = { .life_fd = life_fd, .pidfd = pidfd };
	struct front_link *l = &w.link;

	front_link_init(l, &link_ops, (uint32_t)ring_bytes);
	process_detach("xusbip-warden", keep, 2);
	log_to_syslog();
	if (prepare(l, to->host) < 0) {
		offer(l, l->error);
		_exit(EXIT_FAILED);
	}
	front_link_review(l);
	if (l->state == FRONT_IDLE)
		front_link_feed(l, FRONT_ON_START);
	while (l->state != FRONT_DONE) {
		front_link_review(l);
		if (l->state != FRONT_DONE)
			wait_for_news(&w);
	}
	_exit(EXIT_OK);
}

/* It is nobody's child, so that nobody has to wait for its end. */
_Noreturn static void fork_warden(const struct address *to, size_t ring_bytes,
				  int life_fd, int pidfd)
{
	if (fork() == 0)
		run_warden(to, ring_bytes, life_fd, pidfd);
	_exit(EXIT_OK);
}

static int start_warden(const struct address *to, size_t ring_bytes,
			int *ret_life_fd)
{
	int pidfd = pidfd_open(getpid(), 0);
	int pair[2];
	pid_t pid;
	int r;

	if (pidfd < 0)
		return -errno;
	r = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0
		    ? -errno
		    : 0;
	if (r < 0) {
		(void)close(pidfd);
		return r;
	}
	pid = fork();
	if (pid == 0)
		fork_warden(to, ring_bytes, pair[1], pidfd);
	r = pid < 0 ? -errno : 0;
	(void)close(pidfd);
	(void)close(pair[1]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		(void)close(pair[0]);
	else
		*ret_life_fd = pair[0];
	return r;
}

static int receive_offer(int life_fd, uint64_t deadline_ms, struct offer *offer,
			 char *why)
{
	int r = process_receive(life_fd, offer, sizeof(*offer), deadline_ms);

	if (r == 1) {
		offer->path[sizeof(offer->path) - 1] = '\0';
		(void)snprintf(why, CHANNEL_WHY_BYTES, "%.*s",
			       CHANNEL_WHY_BYTES - 1, offer->why);
		return offer->error;
	}
	if (r == -ETIMEDOUT) {
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "the gateway does not answer");
		return r;
	}
	(void)snprintf(why, CHANNEL_WHY_BYTES,
		       "the process that speaks with the gateway was killed");
	return -ECONNRESET;
}

int warden_connect(const struct address *to, size_t ring_bytes,
		   uint64_t deadline_ms, struct channel **ret_channel,
		   char why[static CHANNEL_WHY_BYTES])
{
	struct offer offer;
	char answer;
	int life_fd = -1;
	int r = start_warden(to, ring_bytes, &life_fd);

	if (r < 0) {
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "cannot start a process: %s", strerror(-r));
		return r;
	}
	r = receive_offer(life_fd, deadline_ms, &offer, why);
	if (r == 0) {
		r = channel_vchan_join(offer.gateway, offer.path, life_fd,
				       ret_channel, why);
		answer = r == 0 ? ANSWER_MAPPED : ANSWER_FAILED;
		(void)process_send(life_fd, &answer, 1);
	}
	if (r < 0)
		(void)close(life_fd);
	return r;
}
