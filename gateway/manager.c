/* SPDX-License-Identifier: Apache-2.0 */
/* See manager.h. */
#include "gateway/manager.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/call_rate.h"
#include "gateway/claim.h"
#include "gateway/config_tls.h"
#include "gateway/listener.h"
#include "gateway/manager_xen.h"
#include "gateway/registry.h"
#include "gateway/remotes.h"
#include "gateway/sessions.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/notify.h"

#define STOP_LIMIT_MS  3000
#define KILL_LIMIT_MS  1000
#define SWEEP_EVERY_MS 500
#define REFUSAL_LOG_MS 1000

enum manager_state {
	MANAGER_SERVING,
	MANAGER_STOPPING, /* sessions were asked to end */
	MANAGER_KILLING,  /* sessions were killed */
};

struct manager {
	const char *config_path;
	struct config *config;
	bool is_debug;
	bool has_pairs_only;
	bool is_lost; /* xenstore is */
	bool has_tls; /* a listener, from the start to the end */
	enum manager_state state;
	struct loop *loop;
	struct registry *registry; /* NULL: pairs only */
	struct remotes *remotes;   /* NULL: pairs only */
	struct manager_xen *xen;   /* NULL: no Xen */
	struct listener *listeners;
	struct sessions *sessions;
	struct loop_timer *stop_timer;
	struct loop_timer *sweep_timer;
	unsigned num_held;    /* claims at the last sweep */
	unsigned num_refused; /* since the last line about it */
	uint64_t refusal_log_ms;
	struct call_rate call_rate; /* over TCP and TLS */
	int lock_fd;                /* RUNTIME_DIR/manager.pid */
};

/* ---- starting sessions ---- */

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

/* The word of the configuration, or NULL. */
static const char *reached_limit(struct manager *m,
				 const struct listener_peer *peer)
{
	bool is_remote = peer->kind == ADDRESS_TCP || peer->kind == ADDRESS_TLS;

	if (is_remote &&
	    !call_rate_take(&m->call_rate, peer->key,
			    m->config->calls_per_second, loop_now_ms(m->loop)))
		return "calls_per_second";
	return sessions_reached_limit(m->sessions, peer->key);
}

static void on_call(void *arg, int fd, const struct listener_peer *peer)
{
	struct manager *m = arg;
	struct sessions_peer known = { .kind = peer->kind };
	const char *limit = reached_limit(m, peer);
	pid_t pid;
	int r;

	if (limit) {
		log_refusal(m, peer, limit);
	} else {
		memcpy(known.name, peer->name, sizeof(peer->name));
		memcpy(known.key, peer->key, sizeof(peer->key));
		if (peer->kind == ADDRESS_UNIX) {
			known.policy.kind = POLICY_PEER_USER;
			memcpy(known.policy.name, peer->user,
			       sizeof(peer->user));
		}
		r = sessions_start(m->sessions, fd, &known, NULL, NULL, &pid);
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

/* Sessions, those of an earlier manager too, and devices on their way back. */
static unsigned num_left(const struct manager *m)
{
	unsigned num_ours = sessions_count(m->sessions);

	return m->num_held > num_ours ? m->num_held : num_ours;
}

/* Claims that no session of ours explains end without a SIGCHLD: look again. */
static void sweep(struct manager *m)
{
	unsigned num_held = claim_sweep(m->config->runtime_dir);
	unsigned num_ours = sessions_count_devices(m->sessions);

	if (num_held != m->num_held)
		manager_xen_devices_changed(m->xen);
	m->num_held = num_held;
	if (m->state != MANAGER_SERVING && num_left(m) == 0)
		loop_stop(m->loop);
	if (num_held <= num_ours || m->sweep_timer)
		return;
	if (loop_timer_start(m->loop, SWEEP_EVERY_MS, 0, on_sweep_time, m,
			     &m->sweep_timer) < 0)
		log_warn("out of memory: what other sessions held is put back "
			 "later");
}

static void on_child(void *arg, int signo)
{
	struct manager *m = arg;

	(void)signo;
	sessions_reap(m->sessions);
	sweep(m);
}

/* ---- stopping and reloading ---- */

static void signal_sessions(const struct manager *m, int signo)
{
	sessions_signal_all(m->sessions, signo);
	sessions_signal_orphans(m->sessions, signo);
}

static void on_stop_time(void *arg)
{
	struct manager *m = arg;

	if (m->state == MANAGER_KILLING) {
		log_error("%u sessions do not end although they were killed: "
			  "their devices may be wedged; unplug them",
			  num_left(m));
		loop_stop(m->loop);
		return;
	}
	m->state = MANAGER_KILLING;
	log_warn("%u sessions did not end within %d s: killed", num_left(m),
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
	manager_xen_stop(m->xen);
	signal_sessions(m, SIGTERM);
	if (loop_timer_start(m->loop, STOP_LIMIT_MS, 0, on_stop_time, m,
			     &m->stop_timer) < 0)
		loop_stop(m->loop);
	else
		sweep(m);
}

static bool has_other_listeners(const struct config *a, const struct config *b)
{
	if (a->num_listen != b->num_listen ||
	    a->peer_timeout_s != b->peer_timeout_s ||
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

static bool has_domains(const struct config *config)
{
	for (size_t i = 0; i < config->num_rules; i++) {
		if (config->rules[i].to.domains.num > 0)
			return true;
	}
	for (size_t i = 0; i < config->num_virtuals; i++) {
		if (config->virtuals[i].to.domains.num > 0)
			return true;
	}
	return false;
}

static void log_config(const struct manager *m, const char *what)
{
	const struct config *config = m->config;

	if (!m->xen && has_domains(config))
		log_warn("what has domains = { ... } is exported to nobody "
			 "without xen = true");

	if (m->has_pairs_only)
		log_info("%s: %zu gateways in other domains", what,
			 config->num_gateways);
	else
		log_info("%s: %zu export rules, %zu virtual devices", what,
			 config->num_rules, config->num_virtuals);
}

/* No TLS: NULL. 0 or -errno and why. */
static int load_revocations(const struct manager *m, const char *tls_dir,
			    struct tls_revocations **ret_revocations,
			    char why[static CHANNEL_WHY_BYTES])
{
	if (m->has_tls)
		return tls_revocations_new(tls_dir, ret_revocations, why);
	*ret_revocations = NULL;
	return 0;
}

static int load_all(const struct manager *m, struct config **ret_config,
		    struct tls_revocations **ret_revocations,
		    char why[static CONFIG_WHY_BYTES])
{
	struct config *config;
	int r = config_load(m->config_path, &config, why);

	if (r < 0)
		return r;
	r = load_revocations(m, config->tls_dir, ret_revocations, why);
	if (r < 0)
		config_free(config);
	else
		*ret_config = config;
	return r;
}

static void on_reload(void *arg, int signo)
{
	struct manager *m = arg;
	char why[CONFIG_WHY_BYTES];
	struct config *old = m->config;
	struct config *config;
	struct tls_revocations *revocations;

	(void)signo;
	if (load_all(m, &config, &revocations, why) < 0) {
		log_error("configuration not reloaded, the old one stays: %s",
			  why);
		return;
	}
	if (has_other_listeners(old, config) ||
	    old->has_xen != config->has_xen ||
	    strcmp(old->runtime_dir, config->runtime_dir) != 0 ||
	    strcmp(old->state_dir, config->state_dir) != 0)
		log_warn("changes of listen, socket_mode, socket_group, "
			 "peer_timeout, xen, runtime_dir and state_dir apply "
			 "when the gateway is restarted");
	memcpy(config->runtime_dir, old->runtime_dir, sizeof(old->runtime_dir));
	m->config = config;
	if (m->registry)
		registry_set_config(m->registry, config);
	if (m->remotes)
		remotes_set_config(m->remotes, config);
	sessions_set_config(m->sessions, config);
	sessions_set_revocations(m->sessions, revocations);
	manager_xen_set_config(m->xen, config);
	config_free(old);
	log_config(m, "configuration reloaded");
	config_warn_tls(config);
	if (m->registry)
		sessions_judge(m->sessions);
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

static void on_devices_changed(void *arg)
{
	const struct manager *m = arg;

	manager_xen_devices_changed(m->xen);
}

static void on_xen_lost(void *arg)
{
	struct manager *m = arg;

	m->is_lost = true;
	loop_stop(m->loop);
}

static int start_xen(struct manager *m)
{
	const struct manager_xen_options options = {
		.loop = m->loop,
		.config = m->config,
		.has_pairs_only = m->has_pairs_only,
		.sessions = m->sessions,
		.registry = m->registry,
		.on_lost = on_xen_lost,
		.arg = m,
	};

	return manager_xen_open(&options, &m->xen);
}

/* What peers reach; failures have been logged. */
static int start_serving(struct manager *m)
{
	int r = 0;

	if (m->config->has_xen || m->has_pairs_only)
		r = start_xen(m);
	if (m->has_pairs_only)
		return r;
	for (size_t i = 0; r == 0 && i < m->config->num_listen; i++)
		r = listener_open(m->loop, m->config, &m->config->listen[i],
				  on_call, m, &m->listeners);
	return r;
}

/* Whose devices are passed on. */
static int start_remotes(struct manager *m)
{
	const struct remotes_options options = { .loop = m->loop,
						 .config = m->config,
						 .is_debug = m->is_debug,
						 .on_change =
							 on_devices_changed,
						 .arg = m };
	int r = remotes_new(&options, &m->remotes);

	if (r == 0)
		sessions_set_remotes(m->sessions, m->remotes);
	return r;
}

static void on_day(void *arg)
{
	const struct manager *m = arg;

	config_warn_tls(m->config);
}

/* What is revoked when it starts. */
static int start_tls(struct manager *m)
{
	char why[CHANNEL_WHY_BYTES];
	struct tls_revocations *revocations;
	int r;

	m->has_tls = config_has_tls(m->config);
	r = load_revocations(m, m->config->tls_dir, &revocations, why);
	if (r < 0) {
		log_error("%s", why);
		return r;
	}
	sessions_set_revocations(m->sessions, revocations);
	r = tls_warn_daily(m->loop, on_day, m);
	if (r < 0)
		log_error("cannot start: %s", strerror(-r));
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
	if (r == 0 && !m->has_pairs_only)
		r = registry_new(m->loop, m->config, &m->registry);
	if (r == 0)
		r = sessions_new(m->loop, m->config, m->registry, m->is_debug,
				 &m->sessions);
	if (r == 0 && !m->has_pairs_only)
		r = start_remotes(m);
	if (r < 0) {
		log_error("cannot start: %s", strerror(-r));
		return r;
	}
	if (m->registry)
		registry_on_change(m->registry, on_devices_changed, m);
	sweep(m);
	r = start_tls(m);
	if (r == 0 && m->registry)
		sessions_judge(m->sessions);
	return r < 0 ? r : start_serving(m);
}

static void finish(struct manager *m)
{
	listener_close_all(m->listeners);
	manager_xen_close(m->xen);
	sessions_free(m->sessions);
	remotes_free(m->remotes);
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
			     .has_pairs_only = options->has_pairs_only,
			     .lock_fd = -1 };
	int r = start(&m);

	if (r == 0) {
		log_config(&m, "ready");
		notify_ready();
		loop_run(m.loop);
		if (m.state != MANAGER_SERVING)
			manager_xen_clean(m.xen);
		log_info("stopped");
	}
	finish(&m);
	if (r == -ENOKEY)
		return EXIT_CONFIG;
	return r < 0 || m.is_lost ? EXIT_FAILED : EXIT_OK;
}
