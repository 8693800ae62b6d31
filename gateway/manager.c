/* SPDX-License-Identifier: Apache-2.0 */
/* See manager.h. */
#include "gateway/manager.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/claim.h"
#include "gateway/ipc.h"
#include "gateway/listener.h"
#include "gateway/registry.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

#define STOP_LIMIT_MS   3000
#define KILL_LIMIT_MS   1000
#define SWEEP_EVERY_MS  500
#define REFUSAL_LOG_MS  1000
#define IPC_QUEUE_BYTES (4 << 20) /* a list of USBIP_MAX_DEVICES fits */

enum manager_state {
	MANAGER_SERVING,
	MANAGER_STOPPING, /* sessions were asked to end */
	MANAGER_KILLING,  /* sessions were killed */
};

/* Owned by the manager's list, from fork to waitpid. */
struct session {
	struct session *next;
	struct manager *manager;
	pid_t pid;
	int sock; /* -1: it has nothing more to ask */
	struct loop_watch *watch;
	struct listener_peer peer;
	char busid[USBIP_BUSID_BYTES]; /* of the device it has, or empty */
};

struct manager {
	const char *config_path;
	struct config *config;
	bool is_debug;
	enum manager_state state;
	struct loop *loop;
	struct registry *registry;
	struct listener *listeners;
	struct session *sessions;
	unsigned num_sessions;
	struct loop_timer *stop_timer;
	struct loop_timer *sweep_timer;
	unsigned num_refused; /* since the last line about it */
	uint64_t refusal_log_ms;
	int lock_fd; /* RUNTIME_DIR/manager.pid */
};

/* ---- what a session asks ---- */

static void stop_talking(struct session *s)
{
	if (s->sock < 0)
		return;
	loop_watch_stop(s->watch);
	s->watch = NULL;
	(void)close(s->sock);
	s->sock = -1;
}

static void kill_session(struct session *s, const char *why)
{
	log_error("session %d (%s): killed: %s", (int)s->pid, s->peer.name,
		  why);
	(void)kill(s->pid, SIGKILL);
	stop_talking(s);
}

static int send_device(void *arg, const struct ipc_answer *answer)
{
	const struct session *s = arg;

	return ipc_answer(s->sock, answer, -1, -1);
}

static int answer_list(struct session *s)
{
	const struct ipc_answer end = { .type = IPC_END };
	int r = registry_list(s->manager->registry, send_device, s);

	return r < 0 ? r : ipc_answer(s->sock, &end, -1, -1);
}

/* A session that has a device and nothing more to ask is putting it back. */
static bool is_returning(const struct manager *m, const char *busid)
{
	for (const struct session *s = m->sessions; s; s = s->next)
		if (s->sock >= 0 && strcmp(s->busid, busid) == 0)
			return false;
	return true;
}

static int answer_open(struct session *s, const char *busid)
{
	struct ipc_answer answer;
	int device_fd = -1;
	int lock_fd = -1;
	int r;

	r = registry_open(s->manager->registry, busid, &answer, &device_fd,
			  &lock_fd);
	if (r < 0) {
		answer.is_returning = r == -EBUSY &&
				      is_returning(s->manager, busid);
		return ipc_answer(s->sock, &answer, -1, -1);
	}
	log_debug("session %d (%s): device %s: handed out", (int)s->pid,
		  s->peer.name, busid);
	(void)snprintf(s->busid, sizeof(s->busid), "%s", busid);
	r = ipc_answer(s->sock, &answer, device_fd, lock_fd);
	if (device_fd >= 0)
		(void)close(device_fd);
	(void)close(lock_fd);
	return r;
}

static void on_request(void *arg, short revents)
{
	struct session *s = arg;
	struct ipc_request request;
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
	if (request.type == IPC_OPEN && s->busid[0] != '\0') {
		kill_session(s, "it asked for a second device");
		return;
	}
	r = request.type == IPC_OPEN ? answer_open(s, request.busid)
				     : answer_list(s);
	if (r == -EPIPE || r == -ECONNRESET)
		stop_talking(s);
	else if (r < 0)
		kill_session(s, "it does not take the manager's answers");
}

/* ---- starting sessions ---- */

static void __attribute__((noreturn))
exec_session(const struct manager *m, const struct listener_peer *peer,
	     int peer_fd, int manager_fd)
{
	char kind[12];
	char peer_text[12];
	char manager_text[12];
	char ring[24];
	char budget[24];
	char name[sizeof(peer->name)];
	char program[] = "xusbip-gateway";
	char mark[] = SESSION_ARGV_MARK;
	char is_debug[] = { m->is_debug ? '1' : '0', '\0' };
	char *argv[SESSION_ARGV_COUNT + 1] = {
		[0] = program,
		[SESSION_ARGV_MODE] = mark,
		[SESSION_ARGV_KIND] = kind,
		[SESSION_ARGV_PEER_FD] = peer_text,
		[SESSION_ARGV_MANAGER_FD] = manager_text,
		[SESSION_ARGV_RING_BYTES] = ring,
		[SESSION_ARGV_BUDGET_BYTES] = budget,
		[SESSION_ARGV_IS_DEBUG] = is_debug,
		[SESSION_ARGV_PEER] = name,
	};

	(void)snprintf(kind, sizeof(kind), "%d", (int)peer->kind);
	(void)snprintf(peer_text, sizeof(peer_text), "%d", peer_fd);
	(void)snprintf(manager_text, sizeof(manager_text), "%d", manager_fd);
	(void)snprintf(ring, sizeof(ring), "%zu", m->config->ring_bytes);
	(void)snprintf(budget, sizeof(budget), "%zu", m->config->budget_bytes);
	(void)snprintf(name, sizeof(name), "%s", peer->name);

	/* Whatever else is open, a library's too, ends with exec. */
	(void)close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	(void)fcntl(peer_fd, F_SETFD, 0);
	(void)fcntl(manager_fd, F_SETFD, 0);
	(void)execv("/proc/self/exe", argv);
	log_error("cannot start a session: exec of /proc/self/exe: %s",
		  strerror(errno));
	_exit(EXIT_FAILED);
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

/* peer_fd stays the caller's. */
static int start_session(struct manager *m, int peer_fd,
			 const struct listener_peer *peer)
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
	*s = (struct session){ .manager = m, .sock = fds[0], .peer = *peer };
	r = loop_watch_fd(m->loop, s->sock, POLLIN, on_request, s, &s->watch);
	if (r == 0) {
		s->pid = ipc_fork();
		if (s->pid == 0)
			exec_session(m, peer, peer_fd, fds[1]);
		r = s->pid < 0 ? -errno : 0;
	}
	(void)close(fds[1]);
	if (r < 0) {
		stop_talking(s);
		free(s);
		return r;
	}
	s->next = m->sessions;
	m->sessions = s;
	m->num_sessions++;
	log_info("session %d (%s): started", (int)s->pid, peer->name);
	return 0;
}

/* The word of the configuration whose limit is reached; NULL: none. */
static const char *reached_limit(const struct manager *m,
				 const struct listener_peer *peer)
{
	unsigned num_same = 0;

	if (m->num_sessions >= m->config->max_sessions)
		return "max_sessions";
	for (const struct session *s = m->sessions; s; s = s->next)
		num_same += strcmp(s->peer.key, peer->key) == 0;
	return num_same >= m->config->max_sessions_per_peer
		       ? "max_sessions_per_peer"
		       : NULL;
}

/* A peer that calls without end does not fill the log. */
static void log_refusal(struct manager *m, const struct listener_peer *peer,
			const char *limit)
{
	uint64_t now_ms = loop_now_ms(m->loop);

	m->num_refused++;
	if (now_ms < m->refusal_log_ms)
		return;
	log_warn("%s: connection refused: %s is reached (%u refused since the "
		 "last such line)",
		 peer->name, limit, m->num_refused);
	m->refusal_log_ms = now_ms + REFUSAL_LOG_MS;
	m->num_refused = 0;
}

static void on_call(void *arg, int fd, const struct listener_peer *peer)
{
	struct manager *m = arg;
	const char *limit = reached_limit(m, peer);
	int r;

	if (limit) {
		log_refusal(m, peer, limit);
	} else {
		r = start_session(m, fd, peer);
		if (r < 0)
			log_error("%s: no session can be started: %s",
				  peer->name, strerror(-r));
	}
	(void)close(fd);
}

/* ---- the end of sessions ---- */

static void sweep(struct manager *m);

static void on_sweep_time(void *arg)
{
	struct manager *m = arg;

	loop_timer_stop(m->sweep_timer);
	m->sweep_timer = NULL;
	sweep(m);
}

/* Claims that no session of ours explains end without a SIGCHLD: look again. */
static void sweep(struct manager *m)
{
	unsigned num_held = claim_sweep(m->config->runtime_dir);
	unsigned num_ours = 0;

	for (const struct session *s = m->sessions; s; s = s->next)
		num_ours += s->busid[0] != '\0';
	if (num_held <= num_ours || m->sweep_timer)
		return;
	if (loop_timer_start(m->loop, SWEEP_EVERY_MS, 0, on_sweep_time, m,
			     &m->sweep_timer) < 0)
		log_warn("out of memory: what other sessions held is put back "
			 "later");
}

static void log_end(const struct session *s, int status)
{
	static const char *const words[] = {
		[EXIT_OK] = "done",
		[EXIT_FAILED] = "it failed",
		[EXIT_USAGE] = "it was started wrongly",
		[EXIT_NO_DEVICE] = "no such device",
		[EXIT_NOT_ALLOWED] = "not allowed",
		[EXIT_CANNOT_REACH] = "the peer is gone",
		[EXIT_NO_VHCI] = "no vhci",
		[EXIT_BUSY] = "the device is in use",
		[EXIT_NO_PORT] = "no port",
		[EXIT_CONFIG] = "wrong configuration",
		[EXIT_PROTOCOL] = "the peer broke the protocol",
		[EXIT_TIMEOUT] = "the peer did not answer in time",
	};
	const char *device = s->busid[0] != '\0' ? s->busid : "no device";
	unsigned code;

	if (WIFSIGNALED(status)) {
		log_warn("session %d (%s, %s): ended: killed by signal %d (%s)",
			 (int)s->pid, s->peer.name, device, WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
		return;
	}
	code = (unsigned)WEXITSTATUS(status);
	log_info("session %d (%s, %s): ended: %s", (int)s->pid, s->peer.name,
		 device,
		 code < sizeof(words) / sizeof(words[0]) ? words[code]
							 : "unknown status");
}

static void forget_session(struct manager *m, pid_t pid, int status)
{
	struct session **at = &m->sessions;
	struct session *s;

	while (*at && (*at)->pid != pid)
		at = &(*at)->next;
	s = *at;
	if (!s) /* a child of the sweep's, which has said what it did */
		return;
	log_end(s, status);
	stop_talking(s);
	*at = s->next;
	m->num_sessions--;
	free(s);
}

static void on_child(void *arg, int signo)
{
	struct manager *m = arg;
	int status;
	pid_t pid;

	(void)signo;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		forget_session(m, pid, status);
	sweep(m);
	if (m->state != MANAGER_SERVING && !m->sessions)
		loop_stop(m->loop);
}

/* ---- stopping and reloading ---- */

static void signal_sessions(const struct manager *m, int signo)
{
	for (const struct session *s = m->sessions; s; s = s->next)
		(void)kill(s->pid, signo);
}

static void on_stop_time(void *arg)
{
	struct manager *m = arg;

	if (m->state == MANAGER_KILLING) {
		log_error("%u sessions do not end although they were killed: "
			  "their devices may be wedged; unplug them",
			  m->num_sessions);
		loop_stop(m->loop);
		return;
	}
	m->state = MANAGER_KILLING;
	log_warn("%u sessions did not end within %d s: killed", m->num_sessions,
		 STOP_LIMIT_MS / 1000);
	signal_sessions(m, SIGKILL);
	loop_timer_again(m->stop_timer, KILL_LIMIT_MS);
}

static void on_stop(void *arg, int signo)
{
	struct manager *m = arg;

	if (m->state != MANAGER_SERVING)
		return;
	m->state = MANAGER_STOPPING;
	log_info("stopping: %s", strsignal(signo));
	listener_close_all(m->listeners);
	m->listeners = NULL;
	if (!m->sessions ||
	    loop_timer_start(m->loop, STOP_LIMIT_MS, 0, on_stop_time, m,
			     &m->stop_timer) < 0) {
		loop_stop(m->loop);
		return;
	}
	signal_sessions(m, SIGTERM);
}

static bool has_other_listeners(const struct config *a, const struct config *b)
{
	if (a->num_listen != b->num_listen ||
	    a->socket_mode != b->socket_mode ||
	    a->socket_group != b->socket_group)
		return true;
	for (size_t i = 0; i < a->num_listen; i++) {
		if (a->listen[i].kind != b->listen[i].kind ||
		    a->listen[i].port != b->listen[i].port ||
		    a->listen[i].cid != b->listen[i].cid ||
		    strcmp(a->listen[i].host, b->listen[i].host) != 0)
			return true;
	}
	return false;
}

static void on_reload(void *arg, int signo)
{
	struct manager *m = arg;
	char why[CONFIG_WHY_BYTES];
	struct config *old = m->config;
	struct config *config;

	(void)signo;
	if (config_load(m->config_path, &config, why) < 0) {
		log_error("configuration not reloaded, the old one stays: %s",
			  why);
		return;
	}
	if (has_other_listeners(old, config) ||
	    strcmp(old->runtime_dir, config->runtime_dir) != 0)
		log_warn("changes of listen, socket_mode, socket_group and "
			 "runtime_dir apply when the gateway is restarted");
	memcpy(config->runtime_dir, old->runtime_dir, sizeof(old->runtime_dir));
	m->config = config;
	registry_set_config(m->registry, config);
	config_free(old);
	log_info(
		"configuration reloaded: %zu export rules, %zu virtual devices",
		config->num_rules, config->num_virtuals);
}

/* ---- life ---- */

/* Two managers on one directory would hand out a device twice. */
static int own_runtime_dir(struct manager *m)
{
	const char *dir = m->config->runtime_dir;
	int r = claim_own_dir(dir, &m->lock_fd);

	if (r == -EBUSY)
		log_error(
			"runtime_dir %s: another xusbip-gateway uses it: stop "
			"that one or choose another runtime_dir",
			dir);
	else if (r < 0)
		log_error("runtime_dir %s: %s: it must be a folder of this "
			  "user's that nobody else can write to",
			  dir, strerror(-r));
	return r;
}

/* Tells systemd, if it asked; sd_notify(3) describes the datagram. */
static void notify_ready(void)
{
	static const char text[] = "READY=1";
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (len < 2 || len >= sizeof(to.sun_path))
		return;
	memcpy(to.sun_path, path, len);
	if (to.sun_path[0] == '@')
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)sendto(fd, text, strlen(text), MSG_NOSIGNAL,
		     (const struct sockaddr *)&to,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	(void)close(fd);
}

static int watch_signals(struct manager *m)
{
	int r = loop_on_signal(m->loop, SIGCHLD, on_child, m);

	if (r == 0)
		r = loop_on_signal(m->loop, SIGHUP, on_reload, m);
	if (r == 0)
		r = loop_on_signal(m->loop, SIGTERM, on_stop, m);
	if (r == 0)
		r = loop_on_signal(m->loop, SIGINT, on_stop, m);
	return r;
}

static int start(struct manager *m)
{
	int r = own_runtime_dir(m);

	if (r < 0)
		return r;
	r = loop_new(&m->loop);
	if (r == 0)
		r = watch_signals(m);
	if (r == 0)
		r = registry_new(m->loop, m->config, &m->registry);
	if (r < 0) {
		log_error("cannot start: %s", strerror(-r));
		return r;
	}
	sweep(m);
	for (size_t i = 0; r == 0 && i < m->config->num_listen; i++)
		r = listener_open(m->loop, m->config, &m->config->listen[i],
				  on_call, m, &m->listeners);
	return r;
}

static void finish(struct manager *m)
{
	listener_close_all(m->listeners);
	while (m->sessions) {
		struct session *s = m->sessions;

		m->sessions = s->next;
		stop_talking(s);
		free(s);
	}
	registry_free(m->registry);
	loop_free(m->loop);
	config_free(m->config);
	if (m->lock_fd >= 0)
		(void)close(m->lock_fd);
}

enum exit_status manager_run(const struct manager_options *options)
{
	struct manager m = { .config_path = options->config_path,
			     .config = options->config,
			     .is_debug = options->is_debug,
			     .lock_fd = -1 };
	int r = start(&m);

	if (r == 0) {
		log_info("ready: %zu export rules, %zu virtual devices",
			 m.config->num_rules, m.config->num_virtuals);
		notify_ready();
		loop_run(m.loop);
		log_info("stopped");
	}
	finish(&m);
	return r < 0 ? EXIT_FAILED : EXIT_OK;
}
