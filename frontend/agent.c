/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frontend/agent_config.h"
#include "frontend/agent_xen.h"
#include "frontend/record.h"
#include "frontend/standing.h"
#include "frontend/usb_events.h"
#include "frontend/vhci.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/notify.h"
#include "vchan-transport/xen_guest.h"

#define BACKLOG 64

/* No descriptor for a new connection: it waits so long. */
#define PAUSE_MS 500

/*
 * An end is followed by a few looks: vhci_hcd frees ports late, and records
 * younger than this may belong to an attachment that is just being made.
 */
#define STALE_RECORD_MS 2000u
#define SWEEP_EVERY_MS  500u
#define SWEEPS          6u

struct agent;

/* One listening socket. Owned by the agent. */
struct listener {
	struct agent *agent;
	int fd;
	struct loop_watch *watch;
};

struct agent {
	const struct agent_options *options;
	struct agent_config config;
	struct loop *loop;
	struct listener listeners[AGENT_MAX_LISTENERS];
	size_t num_listeners;
	unsigned num_children;
	struct loop_timer *pause_timer; /* running: listeners are paused */
	struct loop_timer *sweep_timer; /* running: while sweeps are left */
	unsigned sweeps_left;
	struct usb_events *events;
	struct loop_watch *events_watch;
	struct agent_xen *xen;     /* NULL where there is no Xen */
	struct standing *standing; /* NULL where another agent has it */
	enum exit_status status;
};

static bool is_loopback(const struct sockaddr_storage *peer)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)peer;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)peer;

	if (peer->ss_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	if (peer->ss_family != AF_INET6)
		return false;
	if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
		return v6->sin6_addr.s6_addr[12] == IN_LOOPBACKNET;
	return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static void name_peer(char *name, size_t cap,
		      const struct sockaddr_storage *peer, socklen_t bytes)
{
	char host[64];
	char port[8];

	if (getnameinfo((const struct sockaddr *)peer, bytes, host,
			sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		(void)snprintf(name, cap, "%s:%s", host, port);
	else
		(void)snprintf(name, cap, "an unknown address");
}

/*
 * This program anew, so that what a connection can reach by a mistake of ours
 * is not laid out as in the agent. The gateways go along as arguments.
 */
_Noreturn static void exec_serve(const struct agent *agent, int fd)
{
	static char texts[AGENT_MAX_GATEWAYS][ADDRESS_TEXT_CAP];
	char program[] = "xusbip-frontend";
	char debug[] = "--debug";
	char serve[32];
	char tls_dir[TLS_DIR_BYTES + 12];
	char *argv[AGENT_MAX_GATEWAYS + 5];
	size_t n = 0;

	argv[n++] = program;
	if (agent->options->is_debug)
		argv[n++] = debug;
	(void)snprintf(serve, sizeof(serve), "--serve=%d", fd);
	argv[n++] = serve;
	(void)snprintf(tls_dir, sizeof(tls_dir), "--tls-dir=%s",
		       agent->config.tls_dir);
	argv[n++] = tls_dir;
	for (size_t i = 0; i < agent->config.num_gateways; i++) {
		if (!agent_config_has_gateway(&agent->config, i))
			continue;
		(void)address_format(&agent->config.gateways[i], texts[i],
				     sizeof(texts[i]));
		argv[n++] = texts[i];
	}
	argv[n] = NULL;
	if (fcntl(fd, F_SETFD, 0) == 0)
		(void)execv("/proc/self/exe", argv);
	log_error("cannot run a process for a connection: %s", strerror(errno));
	_exit(EXIT_FAILED);
}

static void start_child(struct agent *agent, int fd, const char *peer)
{
	pid_t pid = fork();

	if (pid == 0)
		exec_serve(agent, fd);
	if (pid < 0) {
		log_error("%s: refused: cannot start a process: %s", peer,
			  strerror(errno));
		return;
	}
	agent->num_children++;
	log_debug("%s: served by process %d", peer, (int)pid);
}

static void set_listening(struct agent *agent, short events)
{
	for (size_t i = 0; i < agent->num_listeners; i++)
		(void)loop_watch_set(agent->listeners[i].watch, events);
}

static void on_pause_end(void *arg)
{
	struct agent *agent = arg;

	loop_timer_stop(agent->pause_timer);
	agent->pause_timer = NULL;
	set_listening(agent, POLLIN);
}

/* Otherwise the loop would turn round one connection that it cannot take. */
static void pause_listening(struct agent *agent, int error)
{
	if (agent->pause_timer)
		return;
	log_warn("cannot accept a connection: %s; trying again in %d ms",
		 strerror(error), PAUSE_MS);
	if (loop_timer_start(agent->loop, PAUSE_MS, 0, on_pause_end, agent,
			     &agent->pause_timer) == 0)
		set_listening(agent, 0);
}

static void on_connection(void *arg, short revents)
{
	struct listener *listener = arg;
	struct agent *agent = listener->agent;
	struct sockaddr_storage peer = { 0 };
	socklen_t bytes = sizeof(peer);
	char name[80];
	int fd = accept4(listener->fd, (struct sockaddr *)&peer, &bytes,
			 SOCK_CLOEXEC);

	(void)revents;
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
		    errno == ENOMEM)
			pause_listening(agent, errno);
		return;
	}
	name_peer(name, sizeof(name), &peer, bytes);
	if (!agent->config.allow_remote && !is_loopback(&peer))
		log_warn("%s: refused: it is another host, and allow_remote is "
			 "not set",
			 name);
	else if (agent->num_children >= agent->config.max_connections)
		log_warn("%s: refused: %u connections are there already; "
			 "max_connections would allow more",
			 name, agent->num_children);
	else
		start_child(agent, fd, name);
	(void)close(fd);
}

static int listen_at(struct agent *agent, const struct addrinfo *at)
{
	struct listener *listener = &agent->listeners[agent->num_listeners];
	const int on = 1;
	int fd = socket(at->ai_family,
			SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = 0;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (at->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on,
				 sizeof(on));
	if (bind(fd, at->ai_addr, at->ai_addrlen) < 0 ||
	    listen(fd, BACKLOG) < 0)
		r = -errno;
	*listener = (struct listener){ .agent = agent, .fd = fd };
	if (r == 0)
		r = loop_watch_fd(agent->loop, fd, POLLIN, on_connection,
				  listener, &listener->watch);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	agent->num_listeners++;
	return 0;
}

static enum exit_status open_listener(struct agent *agent,
				      const struct address *address)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					.ai_flags = AI_PASSIVE };
	struct addrinfo *found;
	char name[ADDRESS_TEXT_CAP];
	char port[8];
	int r;

	(void)address_format(address, name, sizeof(name));
	(void)snprintf(port, sizeof(port), "%u", address->port);
	r = getaddrinfo(address->host, port, &hints, &found);
	if (r != 0) {
		log_error("cannot listen at %s: %s", name, gai_strerror(r));
		return EXIT_FAILED;
	}
	r = listen_at(agent, found);
	freeaddrinfo(found);
	if (r < 0) {
		log_error("cannot listen at %s: %s%s", name, strerror(-r),
			  r == -EADDRINUSE ? "; is a usbipd or another "
					     "xusbip-frontend running?"
					   : "");
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

static void on_sweep(void *arg)
{
	struct agent *agent = arg;
	int removed = record_sweep(RECORD_DIR, VHCI_DIR, STALE_RECORD_MS);

	if (removed > 0)
		log_info("removed %d record(s) of attachments that have ended",
			 removed);
	/* A lock is free as soon as its process has ended. */
	removed = agent->sweeps_left == SWEEPS ? xen_guest_sweep_all() : 0;
	if (removed > 0)
		log_info("removed %d channel(s) of processes that were killed",
			 removed);
	if (--agent->sweeps_left > 0)
		return;
	loop_timer_stop(agent->sweep_timer);
	agent->sweep_timer = NULL;
}

static void sweep_soon(struct agent *agent)
{
	agent->sweeps_left = SWEEPS;
	if (agent->sweep_timer)
		return;
	if (loop_timer_start(agent->loop, SWEEP_EVERY_MS, SWEEP_EVERY_MS,
			     on_sweep, agent, &agent->sweep_timer) < 0)
		log_warn("no timer to remove records with");
}

static void on_events(void *arg, short revents)
{
	struct agent *agent = arg;

	(void)revents;
	if (!usb_events_has_removal(agent->events))
		return;
	sweep_soon(agent);
	agent_xen_on_removal(agent->xen);
	standing_on_removal(agent->standing);
}

static void on_child(void *arg, int signo)
{
	struct agent *agent = arg;
	int status;
	pid_t pid;

	(void)signo;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (agent_xen_on_child(agent->xen, pid, status) ||
		    standing_on_child(agent->standing, pid, status))
			continue;
		agent->num_children--;
		if (WIFSIGNALED(status))
			log_warn("process %d was killed by signal %d", (int)pid,
				 WTERMSIG(status));
		sweep_soon(agent);
	}
}

static void on_end(void *arg, int signo)
{
	struct agent *agent = arg;

	log_info("ending by signal %d; attachments stay", signo);
	loop_stop(agent->loop);
}

/* Listeners stay as they are: what they are bound to is not given up. */
static void on_reload(void *arg, int signo)
{
	struct agent *agent = arg;
	char why[AGENT_WHY_BYTES];

	(void)signo;
	if (agent_config_load(agent->options->config_path, &agent->config,
			      why) < 0) {
		log_error("%s: %s; the configuration stays as it was",
			  agent->options->config_path, why);
		return;
	}
	log_info("read %s anew: %zu gateway(s), %zu to stay attached",
		 agent->options->config_path, agent->config.num_gateways,
		 agent->config.num_wishes);
	agent_config_warn_tls(&agent->config);
	standing_configure(agent->standing, &agent->config);
}

static void on_day(void *arg)
{
	const struct agent *agent = arg;

	agent_config_warn_tls(&agent->config);
}

/* Started anew, the agent may find it again. */
static void on_xen_lost(void *arg)
{
	struct agent *agent = arg;

	agent->status = EXIT_FAILED;
	loop_stop(agent->loop);
}

static void on_xen_news(void *arg)
{
	struct agent *agent = arg;

	standing_on_news(agent->standing);
}

static void watch_xen(struct agent *agent)
{
	const struct agent_xen_events events = { .on_lost = on_xen_lost,
						 .on_news = on_xen_news,
						 .arg = agent };
	int r = agent_xen_new(agent->loop, agent->options->is_debug, &events,
			      &agent->xen);

	if (r == -ENODEV)
		log_debug("no xenstore: this is no Xen guest");
	else if (r < 0)
		log_warn("does not hear of gateways in xenstore: %s",
			 strerror(-r));
}

static bool may_attach(void *arg, const struct address *gateway)
{
	const struct agent *agent = arg;

	return !agent_xen_holds(agent->xen, gateway);
}

static void keep_attached(struct agent *agent)
{
	int r = standing_new(agent->loop, agent->options->is_debug, may_attach,
			     agent, &agent->standing);

	if (r == -EWOULDBLOCK)
		log_warn("another xusbip-frontend keeps what is to stay "
			 "attached; this one does not");
	else if (r < 0)
		log_warn("keeps nothing attached: %s", strerror(-r));
	standing_configure(agent->standing, &agent->config);
}

static int watch_signals(struct agent *agent)
{
	static const struct {
		int signo;
		loop_signal_cb *on_signal;
	} signals[] = {
		{ SIGCHLD, on_child },
		{ SIGTERM, on_end },
		{ SIGINT, on_end },
		{ SIGHUP, on_reload },
	};

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		int r = loop_on_signal(agent->loop, signals[i].signo,
				       signals[i].on_signal, agent);

		if (r < 0)
			return r;
	}
	return 0;
}

static void watch_removals(struct agent *agent)
{
	int fd;
	int r = usb_events_new(&agent->events, &fd);

	if (r == 0)
		r = loop_watch_fd(agent->loop, fd, POLLIN, on_events, agent,
				  &agent->events_watch);
	/* Then records go when a connection ends, or at the next start. */
	if (r < 0)
		log_warn("does not hear of USB devices that leave: %s",
			 strerror(-r));
}

static enum exit_status start(struct agent *agent)
{
	for (size_t i = 0; i < agent->config.num_listen; i++) {
		enum exit_status status =
			open_listener(agent, &agent->config.listen[i]);

		if (status != EXIT_OK)
			return status;
	}
	if (watch_signals(agent) < 0) {
		log_error("cannot watch signals");
		return EXIT_FAILED;
	}
	if (tls_warn_daily(agent->loop, on_day, agent) < 0)
		log_warn("no timer to warn of certificates with");
	watch_removals(agent);
	watch_xen(agent);
	keep_attached(agent);
	sweep_soon(agent);
	return EXIT_OK;
}

enum exit_status agent_run(const struct agent_options *options)
{
	struct agent agent = { .options = options };
	char why[AGENT_WHY_BYTES];
	enum exit_status status;

	if (agent_config_load(options->config_path, &agent.config, why) < 0) {
		log_error("%s: %s", options->config_path, why);
		return EXIT_CONFIG;
	}
	if (loop_new(&agent.loop) < 0) {
		log_error("no event loop");
		return EXIT_FAILED;
	}
	status = start(&agent);
	if (status == EXIT_OK) {
		log_info("ready: %zu listener(s), %zu gateway(s)",
			 agent.num_listeners, agent.config.num_gateways);
		notify_ready();
		loop_run(agent.loop);
		status = agent.status;
	}
	loop_watch_stop(agent.events_watch);
	usb_events_free(agent.events);
	agent_xen_free(agent.xen);
	standing_free(agent.standing);
	loop_free(agent.loop);
	for (size_t i = 0; i < agent.num_listeners; i++)
		(void)close(agent.listeners[i].fd);
	return status;
}
