/* SPDX-License-Identifier: Apache-2.0 */
/* See sessions.h. */
#include "gateway/sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/ipc.h"
#include "gateway/manager.h"
#include "gateway/remote_name.h"
#include "gateway/remotes.h"
#include "gateway/sessions_private.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

#define ARRAY_SIZE(a)   (sizeof(a) / sizeof((a)[0]))
#define IPC_QUEUE_BYTES (4 << 20) /* a list of USBIP_MAX_DEVICES fits */

/* ---- what a session asks ---- */

static void stop_talking(struct session *s)
{
	remotes_cancel(s->question);
	s->question = NULL;
	if (s->sock < 0)
		return;
	loop_watch_stop(s->watch);
	s->watch = NULL;
	(void)close(s->sock);
	s->sock = -1;
}

static void free_session(struct session *s)
{
	stop_talking(s);
	loop_timer_stop(s->kill_timer);
	free(s);
}

static void kill_session(struct session *s, const char *why)
{
	log_error("session %d (%s): killed: %s", (int)s->pid, s->peer.name,
		  why);
	(void)kill(s->pid, SIGKILL);
	stop_talking(s);
}

/* After an answer: a session that is gone, or that must go. */
static void settle(struct session *s, int r, const char *why)
{
	if (r == -EPIPE || r == -ECONNRESET)
		stop_talking(s);
	else if (r == -EPROTO)
		kill_session(s, why);
	else if (r < 0)
		kill_session(s, "it does not take the manager's answers");
}

static int send_device(void *arg, const struct ipc_answer *answer)
{
	struct session *s = arg;

	s->num_listed++;
	return ipc_answer(s->sock, answer, -1, -1);
}

/* A session that has a device and nothing more to ask is putting it back. */
static bool is_returning(const struct sessions *sessions, const char *busid)
{
	for (const struct session *s = sessions->first; s; s = s->next)
		if (s->sock >= 0 && strcmp(s->busid, busid) == 0)
			return false;
	return true;
}

/* What its peer may know of it: nothing of other peers, nothing of the rules. */
static void note_refusal(struct session *s, struct ipc_answer *answer)
{
	const char *why = answer->reason;

	if (answer->status == USBIP_ST_NODEV)
		why = "there is no such device";
	else if (answer->status == USBIP_ST_DEV_BUSY)
		why = "the device is in use";
	(void)snprintf(s->refusal, sizeof(s->refusal), "%s", why);
	(void)snprintf(answer->peer_reason, sizeof(answer->peer_reason), "%s",
		       why);
}

static int refuse(struct session *s, const char *busid,
		  struct ipc_answer *answer)
{
	note_refusal(s, answer);
	answer->is_returning = answer->is_returning &&
			       is_returning(s->sessions, busid);
	return ipc_answer(s->sock, answer, -1, -1);
}

static int hand_out(struct session *s, const char *busid,
		    const struct ipc_answer *answer, int device_fd, int lock_fd)
{
	struct ipc_answer refusal = {
		.type = IPC_REFUSED,
		.status = USBIP_ST_DEV_ERR,
		.reason = "the gateway cannot note whose it is: see its log",
	};

	/* First: this is what keeps it from others as long as it lives. */
	if (session_note_peer(s, busid) < 0)
		return refuse(s, busid, &refusal);
	log_debug("session %d (%s): device %s: handed out", (int)s->pid,
		  s->peer.name, busid);
	s->refusal[0] = '\0';
	(void)snprintf(s->busid, sizeof(s->busid), "%s", busid);
	if (s->events)
		s->events->took(s->owner, s->pid, s->busid);
	return ipc_answer(s->sock, answer, device_fd, lock_fd);
}

/* What is told of other gateways' devices: now, or later. */
static void on_remote_answer(void *arg, const struct ipc_answer *answer,
			     int device_fd, int lock_fd)
{
	struct session *s = arg;
	struct ipc_answer refusal;

	if (answer->type == IPC_DEVICE) {
		if (s->error == 0)
			s->error = send_device(s, answer);
		return;
	}
	s->question = NULL;
	if (answer->type == IPC_OPENED) {
		s->error = hand_out(s, answer->device.busid, answer, device_fd,
				    lock_fd);
	} else if (answer->type == IPC_REFUSED) {
		refusal = *answer;
		s->error = refuse(s, answer->device.busid, &refusal);
	} else if (s->error == 0) {
		s->error = ipc_answer(s->sock, answer, -1, -1);
	}
	settle(s, s->error, NULL);
}

static int answer_list(struct session *s, const struct ipc_request *request)
{
	struct remotes_asked asked = { .peer = s->peer.policy,
				       .hops = request->hops };
	const struct ipc_answer end = { .type = IPC_END };
	int r;

	s->num_listed = 0;
	s->error = 0;
	r = registry_list(s->sessions->registry, &s->peer.policy, send_device,
			  s);
	if (r < 0)
		return r;
	if (!s->sessions->remotes)
		return ipc_answer(s->sock, &end, -1, -1);
	asked.room = USBIP_MAX_DEVICES - s->num_listed;
	return remotes_list(s->sessions->remotes, &asked, on_remote_answer, s,
			    &s->question);
}

static int answer_open(struct session *s, const struct ipc_request *request)
{
	struct remotes_asked asked = { .peer = s->peer.policy,
				       .hops = request->hops };
	struct ipc_answer answer;
	int device_fd = -1;
	int lock_fd = -1;
	int r;

	if (s->sessions->remotes && remote_name_is_one(request->busid)) {
		memcpy(asked.busid, request->busid, sizeof(asked.busid));
		return remotes_open(s->sessions->remotes, &asked,
				    on_remote_answer, s, &s->question);
	}
	r = registry_open(s->sessions->registry, request->busid,
			  &s->peer.policy, &answer, &device_fd, &lock_fd);
	if (r < 0) {
		answer.is_returning = r == -EBUSY;
		return refuse(s, request->busid, &answer);
	}
	r = hand_out(s, request->busid, &answer, device_fd, lock_fd);
	if (device_fd >= 0)
		(void)close(device_fd);
	(void)close(lock_fd);
	return r;
}

/* -EPROTO: the session breaks the rules of ipc.h, and why. */
static int answer(struct session *s, const struct ipc_request *request,
		  const char **ret_why)
{
	*ret_why = "it asked before it was answered";
	if (s->question)
		return -EPROTO;
	if (request->type == IPC_PEER)
		return session_on_peer(s, &request->peer, ret_why);
	*ret_why = "it asked before its peer had proved who it is";
	if (s->peer.kind == ADDRESS_TLS && !s->is_proved)
		return -EPROTO;
	if (s->is_crowded && request->type != IPC_GRANTED)
		return session_answer_crowded(s);
	if (request->type == IPC_LIST)
		return answer_list(s, request);
	if (request->type == IPC_OPEN) {
		*ret_why = "it asked for a second device";
		return s->busid[0] != '\0' ? -EPROTO : answer_open(s, request);
	}
	*ret_why = "it granted what it was not asked for";
	if (s->peer.kind != ADDRESS_XEN || s->has_granted)
		return -EPROTO;
	s->has_granted = true;
	if (s->events)
		s->events->granted(s->owner, s->pid);
	return 0;
}

static void on_request(void *arg, short revents)
{
	struct session *s = arg;
	struct ipc_request request;
	const char *why = NULL;
	int r = ipc_receive_request(s->sock, &request);

	(void)revents;
	if (r == -EAGAIN)
		return;
	if (r <= 0) {
		if (r == -EBADMSG)
			kill_session(s, "it sent the manager a malformed "
					"request");
		stop_talking(s);
		return;
	}
	r = answer(s, &request, &why);
	settle(s, r, why);
}

/* ---- starting ---- */

static void __attribute__((noreturn))
exec_session(const struct sessions *sessions, const struct sessions_peer *peer,
	     int peer_fd, int manager_fd)
{
	const struct config *config = sessions->config;
	const int kept[] = { peer_fd, manager_fd };
	bool is_xen = peer->kind == ADDRESS_XEN;
	char numbers[SESSION_ARGV_COUNT][24];
	char path[48];
	char name[sizeof(peer->name)];
	char tls_dir[TLS_DIR_BYTES];
	char program[] = "xusbip-gateway";
	char mark[] = SESSION_ARGV_MARK;
	char *argv[SESSION_ARGV_COUNT + 1] = {
		[0] = program,
		[SESSION_ARGV_MODE] = mark,
		[SESSION_ARGV_PATH] = path,
		[SESSION_ARGV_TLS_DIR] = tls_dir,
		[SESSION_ARGV_PEER] = name,
	};
	const size_t values[SESSION_ARGV_COUNT] = {
		[SESSION_ARGV_KIND] = peer->kind,
		[SESSION_ARGV_PEER_FD] = (size_t)peer_fd,
		[SESSION_ARGV_MANAGER_FD] = (size_t)manager_fd,
		[SESSION_ARGV_RING_BYTES] = is_xen ? peer->ring_bytes
						   : config->ring_bytes,
		[SESSION_ARGV_BUDGET_BYTES] = config->budget_bytes,
		[SESSION_ARGV_IS_DEBUG] = sessions->is_debug,
		[SESSION_ARGV_DOMID] = peer->domid,
	};

	for (size_t i = 0; i < SESSION_ARGV_COUNT; i++) {
		if (argv[i])
			continue;
		(void)snprintf(numbers[i], sizeof(numbers[i]), "%zu",
			       values[i]);
		argv[i] = numbers[i];
	}
	(void)snprintf(path, sizeof(path), "data/xusbip/%u/%u", peer->domid,
		       peer->channel);
	(void)snprintf(name, sizeof(name), "%s", peer->name);
	(void)snprintf(tls_dir, sizeof(tls_dir), "%s", config->tls_dir);

	ipc_exec(argv, kept, ARRAY_SIZE(kept));
}

static int open_sockets(int ret_fds[2])
{
	int size = IPC_QUEUE_BYTES;
	int r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) < 0)
		return -errno;
	/* The manager's end does not wait, so a whole list must fit. */
	if (setsockopt(ret_fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &size,
		       sizeof(size)) < 0)
		(void)setsockopt(ret_fds[0], SOL_SOCKET, SO_SNDBUF, &size,
				 sizeof(size));
	if (fcntl(ret_fds[0], F_SETFL, O_NONBLOCK) == 0)
		return 0;
	r = -errno;
	(void)close(ret_fds[0]);
	(void)close(ret_fds[1]);
	return r;
}

int sessions_start(struct sessions *sessions, int fd,
		   const struct sessions_peer *peer,
		   const struct sessions_events *events, void *owner,
		   pid_t *ret_pid)
{
	struct session *s = calloc(1, sizeof(*s));
	int fds[2];
	int r;

	if (!s)
		return -ENOMEM;
	r = open_sockets(fds);
	if (r < 0) {
		free(s);
		return r;
	}
	*s = (struct session){ .sessions = sessions,
			       .sock = fds[0],
			       .peer = *peer,
			       .events = events,
			       .owner = owner };
	r = loop_watch_fd(sessions->loop, s->sock, POLLIN, on_request, s,
			  &s->watch);
	if (r == 0) {
		s->pid = ipc_fork();
		if (s->pid == 0)
			exec_session(sessions, peer, fd, fds[1]);
		r = s->pid < 0 ? -errno : 0;
	}
	(void)close(fds[1]);
	if (r < 0) {
		free_session(s);
		return r;
	}
	s->next = sessions->first;
	sessions->first = s;
	sessions->count++;
	log_info("session %d (%s): started", (int)s->pid, peer->name);
	*ret_pid = s->pid;
	return 0;
}

/* ---- the end ---- */

/* How it ended, for the log and for its peer. */
static const struct words {
	const char *log;
	const char *peer;
} words[] = {
	[EXIT_OK] = { "done", "it has ended" },
	[EXIT_FAILED] = { "it failed",
			  "the gateway's session failed: see its log" },
	[EXIT_USAGE] = { "it was started wrongly",
			 "the gateway's session failed: see its log" },
	[EXIT_NO_DEVICE] = { "no such device", "the device is gone" },
	[EXIT_NOT_ALLOWED] = { "not allowed", "not allowed" },
	[EXIT_CANNOT_REACH] = { "the peer is gone", "you were gone" },
	[EXIT_NO_VHCI] = { "no vhci", "no vhci" },
	[EXIT_BUSY] = { "the device is in use", "the device is in use" },
	[EXIT_NO_PORT] = { "no port", "no port" },
	[EXIT_CONFIG] = { "wrong configuration",
			  "the gateway's session failed: see its log" },
	[EXIT_PROTOCOL] = { "the peer broke the protocol",
			    "what you sent breaks the protocol: see the "
			    "gateway's log" },
	[EXIT_TIMEOUT] = { "the peer did not answer in time",
			   "you, or the device, did not answer in time" },
	[EXIT_NOT_TRUSTED] = { "the peer did not prove who it is",
			       "your certificate is not accepted" },
};

/* Before a guest has its channel it has asked for nothing else. */
static const struct words *words_for(const struct session *s,
				     enum exit_status status)
{
	static const struct words no_pages = {
		"no pages are left to grant",
		"the gateway has no memory to share left (the limit of "
		"xen_gntalloc where it runs): detach something, or try later"
	};
	static const struct words no_channel = {
		"it could not grant the channel",
		"the gateway could not grant the channel: see its log"
	};

	if (s->peer.kind != ADDRESS_XEN || s->has_granted)
		return &words[status];
	if (status == EXIT_BUSY)
		return &no_pages;
	return status == EXIT_FAILED ? &no_channel : &words[status];
}

static void tell_end(const struct session *s, enum exit_status status,
		     const char *why)
{
	if (s->events)
		s->events->ended(s->owner, s->pid, status, why);
}

static void end_session(const struct session *s, int status)
{
	const char *device = s->busid[0] != '\0' ? s->busid : "no device";
	const struct words *how;
	int signo = WTERMSIG(status);
	unsigned code;

	if (s->taken_back) {
		log_info("session %d (%s, %s): ended: as it had to",
			 (int)s->pid, s->peer.name, device);
		tell_end(s, EXIT_NOT_ALLOWED, s->taken_back);
		return;
	}
	if (WIFSIGNALED(status)) {
		log_warn("session %d (%s, %s): ended: killed by signal %d (%s)",
			 (int)s->pid, s->peer.name, device, signo,
			 strsignal(signo));
		if (signo == SIGALRM)
			tell_end(s, EXIT_TIMEOUT, words[EXIT_TIMEOUT].peer);
		else
			tell_end(s, EXIT_FAILED,
				 "the gateway's session was killed");
		return;
	}
	code = (unsigned)WEXITSTATUS(status);
	if (code >= ARRAY_SIZE(words)) {
		log_warn("session %d (%s, %s): ended: unknown status %u",
			 (int)s->pid, s->peer.name, device, code);
		code = EXIT_FAILED;
	} else {
		log_info("session %d (%s, %s): ended: %s", (int)s->pid,
			 s->peer.name, device,
			 words_for(s, (enum exit_status)code)->log);
	}
	how = words_for(s, (enum exit_status)code);
	tell_end(s, (enum exit_status)code,
		 code != EXIT_OK && s->refusal[0] != '\0' ? s->refusal
							  : how->peer);
}

static void forget_session(struct sessions *sessions, pid_t pid, int status)
{
	struct session **at = &sessions->first;
	struct session *s;

	while (*at && (*at)->pid != pid)
		at = &(*at)->next;
	s = *at;
	if (!s) /* a child of the sweep's, which has said what it did */
		return;
	*at = s->next;
	sessions->count--;
	end_session(s, status);
	free_session(s);
}

void sessions_reap(struct sessions *sessions)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		forget_session(sessions, pid, status);
}

/* ---- what is known of them ---- */

static struct session *find(const struct sessions *sessions, pid_t pid)
{
	struct session *s = sessions->first;

	while (s && s->pid != pid)
		s = s->next;
	return s;
}

bool sessions_is_crowded(const struct sessions *sessions, const char *key)
{
	unsigned num_same = 0;

	for (const struct session *s = sessions->first; s; s = s->next)
		num_same += strcmp(s->peer.key, key) == 0;
	return num_same >= sessions->config->max_sessions_per_peer;
}

const char *sessions_reached_limit(const struct sessions *sessions,
				   const char *key)
{
	if (sessions->count >= sessions->config->max_sessions)
		return "max_sessions";
	return sessions_is_crowded(sessions, key) ? "max_sessions_per_peer"
						  : NULL;
}

void sessions_disown(struct sessions *sessions, pid_t pid)
{
	struct session *s = find(sessions, pid);

	if (s)
		s->events = NULL;
}

bool sessions_has(const struct sessions *sessions, pid_t pid)
{
	return find(sessions, pid) != NULL;
}

const char *sessions_busid(const struct sessions *sessions, pid_t pid)
{
	const struct session *s = find(sessions, pid);

	return s ? s->busid : "";
}

unsigned sessions_count(const struct sessions *sessions)
{
	return sessions->count;
}

unsigned sessions_count_devices(const struct sessions *sessions)
{
	unsigned num = 0;

	for (const struct session *s = sessions->first; s; s = s->next)
		num += s->busid[0] != '\0';
	return num;
}

void sessions_signal_all(const struct sessions *sessions, int signo)
{
	for (const struct session *s = sessions->first; s; s = s->next)
		(void)kill(s->pid, signo);
}

/* ---- life ---- */

int sessions_new(struct loop *loop, const struct config *config,
		 struct registry *registry, bool is_debug,
		 struct sessions **ret_sessions)
{
	struct sessions *sessions = calloc(1, sizeof(*sessions));

	if (!sessions)
		return -ENOMEM;
	*sessions = (struct sessions){ .loop = loop,
				       .config = config,
				       .registry = registry,
				       .is_debug = is_debug };
	*ret_sessions = sessions;
	return 0;
}

void sessions_free(struct sessions *sessions)
{
	if (!sessions)
		return;
	while (sessions->first) {
		struct session *s = sessions->first;

		sessions->first = s->next;
		free_session(s);
	}
	tls_revocations_free(sessions->revocations);
	free(sessions);
}

void sessions_set_remotes(struct sessions *sessions, struct remotes *remotes)
{
	sessions->remotes = remotes;
}

void sessions_set_config(struct sessions *sessions, const struct config *config)
{
	sessions->config = config;
}
