/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/warden.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vchan-transport/exit_status.h"
#include "vchan-transport/front_fsm.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"
#include "vchan-transport/process.h"
#include "vchan-transport/store.h"
#include "vchan-transport/xen_guest.h"

#define ASK_LIMIT_MS   10000u
#define LEAVE_LIMIT_MS 2000u
#define NEVER_MS       UINT64_MAX

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

/* Processes that disturb each other's transactions go apart. */
#define SAY_PAUSE_US    5000u
#define SAY_PAUSE_STEPS 16u

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
	struct store *store; /* NULL: none, or xenstored has hung up */
	enum front_state state;
	unsigned guest; /* domains */
	unsigned gateway;
	unsigned channel;
	uint64_t epoch;
	uint32_t ring_bytes;
	uint64_t limit_at_ms;
	int life_fd; /* to the process that uses the channel */
	int pidfd;   /* that process */
	unsigned looks;
	int error;                       /* why not, for who asks */
	struct channel_last_word reason; /* and why no more */
	char folder[HANDSHAKE_PATH_BYTES];
	char own_node[HANDSHAKE_PATH_BYTES];
	char gateway_folder[HANDSHAKE_PATH_BYTES];
	char gateway_node[HANDSHAKE_PATH_BYTES];
};

static void set_reason(struct warden *w, int error, enum exit_status status,
		       const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void set_reason(struct warden *w, int error, enum exit_status status,
		       const char *fmt, ...)
{
	va_list args;

	w->error = error;
	w->reason.status = status;
	va_start(args, fmt);
	(void)vsnprintf(w->reason.why, sizeof(w->reason.why), fmt, args);
	va_end(args);
}

/* ---- what the gateway says ---------------------------------------------- */

static int error_of_status(unsigned status)
{
	switch (status) {
	case EXIT_NOT_ALLOWED:
		return -EACCES;
	case EXIT_BUSY:
		return -EBUSY;
	case EXIT_TIMEOUT:
		return -ETIMEDOUT;
	case EXIT_PROTOCOL:
		return -EPROTO;
	default:
		return -ECONNREFUSED;
	}
}

/* The store does not answer as it should: then nothing is known. */
static enum front_stim lose_store(struct warden *w, int r)
{
	set_reason(w, r, EXIT_CANNOT_REACH, "xenstore does not answer: %s",
		   strerror(-r));
	if (r == -ECONNRESET) {
		store_close(w->store);
		w->store = NULL;
	}
	return FRONT_ON_UNOFFERED;
}

static enum front_stim judge_word(struct warden *w, const char *text)
{
	struct handshake_word word;

	if (handshake_parse(text, &word) && word.epoch == w->epoch) {
		if (word.verb == HANDSHAKE_OPEN)
			return FRONT_ON_OPEN;
		if (word.verb == HANDSHAKE_CLOSED) {
			set_reason(w, error_of_status(word.status),
				   (enum exit_status)word.status, "%s",
				   word.why);
			return FRONT_ON_CLOSED;
		}
	}
	set_reason(w, -ECONNRESET, EXIT_CANNOT_REACH,
		   "the gateway has given the channel up");
	return FRONT_ON_OTHER;
}

/* The gateway has no word for us: because it does not know us? */
static enum front_stim judge_absence(struct warden *w)
{
	const char *const folders[] = { w->folder, w->gateway_folder };

	for (size_t i = 0; i < 2; i++) {
		char text[HANDSHAKE_WORD_BYTES];
		int r = store_read(w->store, folders[i], text, sizeof(text));

		if (r == -ENOENT || r == -EACCES) {
			set_reason(w, -ENOENT, EXIT_CANNOT_REACH,
				   "domain %u offers nothing to this domain: "
				   "is xusbip-gateway running there with a "
				   "rule that names this domain?",
				   w->gateway);
			return FRONT_ON_UNOFFERED;
		}
		if (r < 0 && r != -EMSGSIZE && r != -EBADMSG)
			return lose_store(w, r);
	}
	set_reason(w, -ECONNRESET, EXIT_CANNOT_REACH,
		   "the gateway is gone, or was started anew");
	return FRONT_ON_ABSENT;
}

static enum front_stim look(struct warden *w)
{
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	if (!w->store)
		return FRONT_ON_UNOFFERED;
	r = store_domid(w->store);
	if (r < 0)
		return lose_store(w, r);
	if ((unsigned)r != w->guest) {
		set_reason(w, -ECONNRESET, EXIT_CANNOT_REACH,
			   "this domain was restored or has moved");
		return FRONT_ON_UNOFFERED;
	}
	r = store_read(w->store, w->gateway_node, text, sizeof(text));
	if (r == -ENOENT || r == -EACCES)
		return judge_absence(w);
	if (r >= 0)
		return judge_word(w, text);
	if (r == -EMSGSIZE || r == -EBADMSG)
		return judge_word(w, "");
	return lose_store(w, r);
}

/* ---- the machine -------------------------------------------------------- */

static void feed(struct warden *w, enum front_stim stim);

/* Our node, as long as our folder is there: 0 or -errno. */
static int write_word(struct warden *w, enum handshake_verb verb)
{
	struct handshake_word word = { .verb = verb,
				       .epoch = w->epoch,
				       .ring_bytes = w->ring_bytes };
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	handshake_format(text, &word);
	for (;;) {
		r = store_write_under(w->store, w->folder, w->own_node, text);
		if (r != -EAGAIN || clock_ms() >= w->limit_at_ms)
			return r;
		(void)usleep(SAY_PAUSE_US *
			     (1 + (unsigned)getpid() % SAY_PAUSE_STEPS));
	}
}

static void say(struct warden *w, enum handshake_verb verb)
{
	int r = write_word(w, verb);

	if (r == 0)
		return;
	if (r == -ENOENT || r == -EACCES)
		(void)judge_absence(w);
	else if (r == -ENOSPC)
		set_reason(w, r, EXIT_FAILED,
			   "this domain has used up its quota in xenstore");
	else
		(void)lose_store(w, r);
	feed(w, FRONT_ON_UNOFFERED);
}

/* The process may have ended; then its end is read next. */
static void tell(const struct warden *w, const void *message, size_t bytes)
{
	(void)send(w->life_fd, message, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void ask(struct warden *w)
{
	w->limit_at_ms = clock_ms() + ASK_LIMIT_MS;
	w->epoch = handshake_new_epoch();
	say(w, HANDSHAKE_ASK);
}

static void offer(const struct warden *w, int error)
{
	struct offer message = { .error = error, .gateway = w->gateway };

	(void)snprintf(message.path, sizeof(message.path), "%s",
		       w->gateway_node);
	(void)snprintf(message.why, sizeof(message.why), "%s", w->reason.why);
	tell(w, &message, sizeof(message));
}

static void remove_node(struct warden *w)
{
	if (w->store)
		(void)store_remove(w->store, w->own_node);
}

static void hang_up(struct warden *w)
{
	tell(w, &w->reason, sizeof(w->reason));
	(void)shutdown(w->life_fd, SHUT_WR);
	w->limit_at_ms = clock_ms() + LEAVE_LIMIT_MS;
}

static void kill_process(struct warden *w)
{
	log_warn("channel %u to domain %u: its process does not let go; "
		 "killed",
		 w->channel, w->gateway);
	(void)pidfd_send_signal(w->pidfd, SIGKILL, NULL, 0);
	w->limit_at_ms = clock_ms() + LEAVE_LIMIT_MS;
}

static void act(struct warden *w, enum front_act action)
{
	switch (action) {
	case FRONT_DO_NONE:
		break;
	case FRONT_DO_ASK:
		ask(w);
		break;
	case FRONT_DO_MAP:
		offer(w, 0);
		break;
	case FRONT_DO_SAY_UP:
		say(w, HANDSHAKE_UP);
		if (w->state == FRONT_UP)
			w->limit_at_ms = NEVER_MS;
		break;
	case FRONT_DO_REFUSE:
		offer(w, w->error);
		remove_node(w);
		break;
	case FRONT_DO_HANG_UP:
		hang_up(w);
		break;
	case FRONT_DO_KILL:
		kill_process(w);
		break;
	case FRONT_DO_REMOVE:
		remove_node(w);
		break;
	case FRONT_DO_BUG:
		assert(!"the table of the front was left");
		break;
	}
}

static void feed(struct warden *w, enum front_stim stim)
{
	struct front_step step = front_fsm_step(w->state, stim);

	if (step.next != w->state) {
		log_debug("channel %u to domain %u: %s + %s -> %s", w->channel,
			  w->gateway, front_state_name(w->state),
			  front_stim_name(stim), front_state_name(step.next));
		w->looks = 0;
	}
	w->state = step.next;
	act(w, step.act);
}

/* What the gateway says is given to each state that it leads to. */
static void review(struct warden *w)
{
	enum front_state state;

	w->looks++;
	do {
		state = w->state;
		feed(w, look(w));
	} while (w->state != state && w->state != FRONT_DONE);
}

/* ---- waiting ------------------------------------------------------------ */

static void hear_process(struct warden *w)
{
	char answer;
	ssize_t n = recv(w->life_fd, &answer, 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == 1 && answer == ANSWER_MAPPED)
		feed(w, FRONT_ON_MAPPED);
	else if (n == 1 && answer == ANSWER_FAILED)
		feed(w, FRONT_ON_FAILED);
	else
		feed(w, FRONT_ON_LEFT);
}

static int time_to_sleep(const struct warden *w)
{
	uint64_t now = clock_ms();
	int most = w->state == FRONT_ASKING ? ASKING_LOOK_MS : LOOK_MS;

	if (now >= w->limit_at_ms)
		return 0;
	return w->limit_at_ms - now < (uint64_t)most
		       ? (int)(w->limit_at_ms - now)
		       : most;
}

/* Is there a watch that fired? They are taken, as many as are there. */
static bool has_fired(struct warden *w)
{
	char token[STORE_TOKEN_BYTES];
	bool is_news = false;
	int r = 1;

	for (int i = 0; w->store && r > 0 && i < EVENTS_AT_ONCE; i++) {
		r = store_next_event(w->store, token);
		if (r < 0)
			(void)lose_store(w, -ECONNRESET);
		is_news |= r != 0;
	}
	return is_news;
}

static void wait_for_news(struct warden *w)
{
	bool is_calm = w->looks > LOOKS_AT_ONCE;
	struct pollfd fds[] = {
		{ .fd = w->life_fd, .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
	};

	if (is_calm) {
		(void)poll(fds, 1, CALM_MS);
	} else if (!has_fired(w)) {
		if (w->store)
			fds[1].fd = store_fd(w->store);
		(void)poll(fds, 2, time_to_sleep(w));
	}
	if (fds[0].revents)
		hear_process(w);
	if (w->state != FRONT_DONE && clock_ms() >= w->limit_at_ms) {
		set_reason(w, -ETIMEDOUT, EXIT_TIMEOUT,
			   "the gateway did not answer within %u s",
			   ASK_LIMIT_MS / 1000);
		feed(w, FRONT_ON_LIMIT);
	}
	if (is_calm && !has_fired(w))
		w->looks = 0;
}

/* ---- the process -------------------------------------------------------- */

/* All that comes before the machine; false with the reason. */
static bool prepare(struct warden *w, const char *domain)
{
	int r = store_open(&w->store);

	if (r == 0)
		r = store_domid(w->store);
	if (r == -ENODEV)
		set_reason(w, r, EXIT_CANNOT_REACH,
			   "this is no Xen domain, or it has no "
			   "/dev/xen/xenbus");
	else if (r < 0)
		set_reason(w, r, EXIT_CANNOT_REACH, "cannot use xenstore: %s",
			   strerror(-r));
	if (r < 0)
		return false;
	w->guest = (unsigned)r;
	r = xen_guest_find(w->store, w->guest, domain, &w->gateway);
	if (r < 0) {
		set_reason(w, r, EXIT_CANNOT_REACH,
			   "no domain of this name offers anything to this "
			   "domain");
		return false;
	}
	(void)xen_guest_sweep(w->store, w->guest, w->gateway);
	r = xen_guest_take_channel(w->store, w->guest, w->gateway, &w->channel);
	if (r == -EBUSY)
		set_reason(w, r, EXIT_BUSY,
			   "all %u channels to domain %u are in use",
			   HANDSHAKE_CHANNELS, w->gateway);
	else if (r < 0)
		set_reason(w, r, EXIT_FAILED, "cannot lock a file in %s: %s",
			   XEN_GUEST_LOCK_DIR, strerror(-r));
	if (r < 0)
		return false;
	handshake_pair_path(w->folder, w->guest, w->gateway);
	handshake_pair_path(w->gateway_folder, w->gateway, w->guest);
	handshake_channel_path(w->own_node, w->guest, w->gateway, w->channel);
	handshake_channel_path(w->gateway_node, w->gateway, w->guest,
			       w->channel);
	r = store_watch(w->store, w->gateway_node, "channel");
	if (r < 0)
		set_reason(w, r, EXIT_FAILED,
			   "cannot watch in xenstore: %s; its quota may be "
			   "used up",
			   strerror(-r));
	return r == 0;
}

/* The lock of the channel's number goes with this process. */
_Noreturn static void run_warden(const struct address *to, size_t ring_bytes,
				 int life_fd, int pidfd)
{
	const int keep[] = { life_fd, pidfd };
	struct warden w = { .limit_at_ms = NEVER_MS,
			    .ring_bytes = (uint32_t)ring_bytes,
			    .life_fd = life_fd,
			    .pidfd = pidfd };

	process_detach("xusbip-warden", keep, 2);
	log_to_syslog();
	if (!prepare(&w, to->host)) {
		offer(&w, w.error);
		_exit(EXIT_FAILED);
	}
	review(&w);
	if (w.state == FRONT_IDLE)
		feed(&w, FRONT_ON_START);
	while (w.state != FRONT_DONE) {
		review(&w);
		if (w.state != FRONT_DONE)
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
