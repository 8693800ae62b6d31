/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches say only that something has changed.  What has, is found by looking:
 * at one guest when its folder's watch fires, at who is there when ours does or
 * a domain has ended, and at everything every 10 s, since an event may be lost.
 */
#include "gateway/xen.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "gateway/channel_lock.h"
#include "gateway/guest.h"
#include "gateway/wants.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/steady_watch.h"
#include "vchan-transport/store.h"

#define TOKEN_PREFIX  "xen:"
#define TOKEN_FOLDER  TOKEN_PREFIX "folder"
#define TOKEN_RELEASE TOKEN_PREFIX "release"

#define NEVER_MS      (1ull << 40)
#define DEVICES_MS    100
#define FOLDER_LENGTH 48

struct member {
	struct member *next;
	struct guest *guest;
};

struct xen {
	struct guest_env env;
	struct member *members;
	char folder[FOLDER_LENGTH];
	struct steady_watch folder_watch;
	struct loop_timer *look_timer;
	struct loop_timer *slow_timer;
	struct loop_timer *devices_timer;
	bool is_marked;
	bool is_devices_marked;
	uint64_t next_look_ms;
	uint64_t next_devices_ms;
};

/* ---- who is there ---- */

static struct guest *find_guest(const struct xen *xen, unsigned domid)
{
	for (const struct member *m = xen->members; m; m = m->next)
		if (guest_domid(m->guest) == domid)
			return m->guest;
	return NULL;
}

static void ensure_guest(struct xen *xen, unsigned domid)
{
	struct member *m;
	int r;

	if (find_guest(xen, domid))
		return;
	m = calloc(1, sizeof(*m));
	r = m ? guest_new(&xen->env, domid, &m->guest) : -ENOMEM;
	if (r < 0) {
		free(m);
		log_error("domain %u: cannot be served yet: %s; it is tried "
			  "again",
			  domid, strerror(-r));
		return;
	}
	m->next = xen->members;
	xen->members = m;
}

static void sweep(struct xen *xen)
{
	struct member **at = &xen->members;

	while (*at) {
		struct member *m = *at;

		if (guest_is_absent(m->guest)) {
			*at = m->next;
			guest_free(m->guest);
			free(m);
		} else {
			at = &m->next;
		}
	}
}

/* 0, also without a folder, or -errno. */
static int look(struct xen *xen)
{
	int n = store_list(xen->env.store, xen->folder, xen->env.names,
			   GUEST_MAX_NAMES);
	uint32_t domid;

	if (n < 0 && n != -ENOENT) {
		if (n != -ECONNRESET)
			log_warn("xenstore: %s cannot be listed: %s; it is "
				 "tried again",
				 xen->folder, strerror(-n));
		return n;
	}
	for (int i = 0; i < n; i++)
		if (handshake_parse_number(xen->env.names[i],
					   HANDSHAKE_MAX_DOMID, &domid))
			ensure_guest(xen, domid);
	for (const struct member *m = xen->members; m; m = m->next)
		guest_check(m->guest);
	sweep(xen);
	return 0;
}

static void on_look_time(void *arg)
{
	struct xen *xen = arg;

	xen->is_marked = false;
	xen->next_look_ms = loop_now_ms(xen->env.loop) + GUEST_LOOK_MS;
	(void)look(xen);
}

static void mark(struct xen *xen)
{
	uint64_t now_ms = loop_now_ms(xen->env.loop);

	if (xen->is_marked)
		return;
	xen->is_marked = true;
	loop_timer_again(xen->look_timer, xen->next_look_ms > now_ms
						  ? xen->next_look_ms - now_ms
						  : 0);
}

static void on_left(void *arg)
{
	mark(arg);
}

/* ---- every 10 s ---- */

static int watch_folder(struct xen *xen)
{
	int r = steady_watch_set(&xen->folder_watch, xen->env.store,
				 xen->folder, TOKEN_FOLDER);

	return r == -ECONNRESET ? r : 0;
}

/*
 * A lock that somebody still held when its channel ended goes now, if it is free;
 * those of channels are held. A session whose guest is not served is killed: its
 * domain ended without a manager.
 */
static void end_leftover(void *arg, unsigned domid, unsigned channel)
{
	const struct xen *xen = arg;
	struct channel_note note;
	int fd;

	if (channel_lock_find(xen->env.runtime_dir, domid, channel, &note) ==
		    0 ||
	    note.pid == 0 || find_guest(xen, domid))
		return;
	log_warn("session %d (domain %u channel %u): killed: the domain that "
		 "it was started for is not served any more",
		 (int)note.pid, domid, channel);
	fd = pidfd_open(note.pid, 0);
	if (fd < 0)
		return;
	(void)pidfd_send_signal(fd, SIGKILL, NULL, 0);
	(void)close(fd);
}

static void on_slow_time(void *arg)
{
	struct xen *xen = arg;

	(void)watch_folder(xen);
	(void)look(xen);
	for (const struct member *m = xen->members; m; m = m->next)
		guest_poll(m->guest);
	channel_lock_each(xen->env.runtime_dir, end_leftover, xen);
}

/* ---- the list of devices ---- */

static void on_devices_time(void *arg)
{
	struct xen *xen = arg;

	xen->is_devices_marked = false;
	xen->next_devices_ms = loop_now_ms(xen->env.loop) + DEVICES_MS;
	xen->env.devices_number++;
	for (const struct member *m = xen->members; m; m = m->next)
		guest_say_devices(m->guest);
}

void xen_devices_changed(struct xen *xen)
{
	uint64_t now_ms = loop_now_ms(xen->env.loop);

	if (xen->is_devices_marked)
		return;
	xen->is_devices_marked = true;
	loop_timer_again(xen->devices_timer,
			 xen->next_devices_ms > now_ms
				 ? xen->next_devices_ms - now_ms
				 : 0);
}

/* ---- events ---- */

void xen_on_watch(struct xen *xen, const char *token)
{
	struct guest *guest;
	uint32_t domid;

	if (strcmp(token, TOKEN_FOLDER) == 0 ||
	    strcmp(token, TOKEN_RELEASE) == 0) {
		mark(xen);
		return;
	}
	if (strncmp(token, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) != 0 ||
	    !handshake_parse_number(token + strlen(TOKEN_PREFIX),
				    HANDSHAKE_MAX_DOMID, &domid))
		return;
	guest = find_guest(xen, domid);
	if (guest)
		guest_mark(guest);
}

void xen_set_config(struct xen *xen, const struct config *config)
{
	xen->env.config = config;
	for (const struct member *m = xen->members; m; m = m->next)
		guest_apply_config(m->guest);
	xen_devices_changed(xen);
}

void xen_stop(struct xen *xen)
{
	xen->env.is_stopping = true;
	for (const struct member *m = xen->members; m; m = m->next)
		guest_stop(m->guest);
}

/* ---- for the administrator ---- */

static bool is_meant(const struct xen_guest *guest, const char *domain)
{
	char number[12];

	(void)snprintf(number, sizeof(number), "%u", guest->domid);
	if (strcmp(domain, number) == 0 || strcasecmp(domain, guest->uuid) == 0)
		return true;
	/* What is a number is never a name. */
	return domain[strspn(domain, "0123456789")] != '\0' &&
	       strcmp(domain, guest->name) == 0;
}

static struct guest *find_meant(const struct xen *xen, const char *domain,
				struct xen_guest *ret_guest)
{
	for (const struct member *m = xen->members; m; m = m->next)
		if (guest_is_served(m->guest, ret_guest) &&
		    is_meant(ret_guest, domain))
			return m->guest;
	return NULL;
}

int xen_find_guest(const struct xen *xen, const char *domain,
		   struct xen_guest *ret_guest)
{
	struct xen_guest found;

	if (!find_meant(xen, domain, &found))
		return -ENOENT;
	*ret_guest = found;
	return 0;
}

int xen_guest_at(const struct xen *xen, size_t i, struct xen_guest *ret_guest)
{
	struct xen_guest found;

	for (const struct member *m = xen->members; m; m = m->next) {
		if (!guest_is_served(m->guest, &found) || i-- > 0)
			continue;
		*ret_guest = found;
		return 0;
	}
	return -ENOENT;
}

int xen_hold(struct xen *xen, const char *domain, xen_done_cb *on_done,
	     void *arg)
{
	struct xen_guest found;
	struct guest *guest = find_meant(xen, domain, &found);

	return guest ? guest_hold(guest, on_done, arg) : -ENOENT;
}

int xen_resume(struct xen *xen, const char *domain, xen_done_cb *on_done,
	       void *arg)
{
	struct xen_guest found;
	struct guest *guest = find_meant(xen, domain, &found);

	return guest ? guest_resume(guest, on_done, arg) : -ENOENT;
}

void xen_forget_asker(struct xen *xen, void *arg)
{
	for (const struct member *m = xen->members; m; m = m->next)
		guest_forget_asker(m->guest, arg);
}

unsigned xen_revoke(struct xen *xen, unsigned domid, const char *busid)
{
	struct guest *guest = find_guest(xen, domid);

	return guest ? guest_revoke(guest, busid) : 0;
}

struct wants *xen_wants(struct xen *xen)
{
	return xen->env.wants;
}

/* ---- life ---- */

static int start_timers(struct xen *xen)
{
	struct loop *loop = xen->env.loop;
	int r = loop_timer_start(loop, NEVER_MS, 0, on_look_time, xen,
				 &xen->look_timer);

	if (r == 0)
		r = loop_timer_start(loop, NEVER_MS, 0, on_devices_time, xen,
				     &xen->devices_timer);
	if (r == 0)
		r = loop_timer_start(loop, STEADY_WATCH_LOOK_MS,
				     STEADY_WATCH_LOOK_MS, on_slow_time, xen,
				     &xen->slow_timer);
	return r;
}

static int begin(struct xen *xen)
{
	struct guest_env *env = &xen->env;
	int r = store_domid(env->store);

	if (r < 0)
		return r;
	env->gateway = (unsigned)r;
	(void)snprintf(xen->folder, sizeof(xen->folder),
		       "/local/domain/%u/data/xusbip", env->gateway);
	r = wants_new(env->store, env->state_dir, env->gateway, &env->wants);
	if (r == 0)
		r = start_timers(xen);
	if (r == 0)
		r = watch_folder(xen);
	/* Not for every domain, and only a hint. */
	if (r == 0 &&
	    store_watch(env->store, "@releaseDomain", TOKEN_RELEASE) < 0)
		log_debug("xenstore: the ends of domains are not announced to "
			  "domain %u",
			  env->gateway);
	return r < 0 ? r : look(xen);
}

int xen_new(struct loop *loop, struct store *store, const struct config *config,
	    struct sessions *sessions, struct registry *registry,
	    struct xen **ret_xen)
{
	struct xen *xen = calloc(1, sizeof(*xen));
	int r;

	if (!xen)
		return -ENOMEM;
	xen->env.loop = loop;
	xen->env.store = store;
	xen->env.config = config;
	xen->env.sessions = sessions;
	xen->env.registry = registry;
	/* They stay what they are when the configuration is read again. */
	(void)snprintf(xen->env.runtime_dir, sizeof(xen->env.runtime_dir), "%s",
		       config->runtime_dir);
	(void)snprintf(xen->env.state_dir, sizeof(xen->env.state_dir), "%s",
		       config->state_dir);
	xen->env.left = on_left;
	xen->env.arg = xen;
	/* Not what a manager before has said. */
	xen->env.devices_number = (uint32_t)handshake_new_epoch() >> 1;
	r = begin(xen);
	if (r < 0) {
		xen_free(xen);
		return r;
	}
	*ret_xen = xen;
	return 0;
}

void xen_free(struct xen *xen)
{
	if (!xen)
		return;
	while (xen->members) {
		struct member *m = xen->members;

		xen->members = m->next;
		guest_free(m->guest);
		free(m);
	}
	loop_timer_stop(xen->look_timer);
	loop_timer_stop(xen->slow_timer);
	loop_timer_stop(xen->devices_timer);
	wants_free(xen->env.wants);
	free(xen);
}
