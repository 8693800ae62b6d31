/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever happens to a channel only marks its guest: a look follows, from the
 * loop, and there channels are made, freed, and the guest's machine fed.
 */
#include "gateway/guest.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/guest_channels.h"
#include "gateway/guest_hold.h"
#include "gateway/guest_identity.h"
#include "gateway/guest_share.h"
#include "gateway/xen_check.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/steady_watch.h"

#define NEVER_MS       (1ull << 40)
#define REFUSAL_LOG_MS 1000
#define HELD_WORDS                                                          \
	"the gateway holds this domain still, to be saved or moved, until " \
	"\"xusbip resume\" there"

struct guest {
	struct guest_env *env;
	struct xen_guest id;
	enum guest_state state;
	struct guest_channels channels;
	struct guest_hold *hold;
	char own_folder[HANDSHAKE_PATH_BYTES];
	char guests_folder[HANDSHAKE_PATH_BYTES]; /* watched */
	char peer_node[HANDSHAKE_PATH_BYTES];
	char token[STORE_TOKEN_BYTES];
	struct steady_watch watch;
	struct loop_timer *look_timer;
	struct loop_timer *hold_timer;
	bool is_marked;
	bool is_hold_asked; /* for by the administrator; not both */
	bool is_resume_asked;
	uint64_t next_look_ms;
	bool is_devices_unsaid;
	struct guest_share share;
	unsigned num_refused; /* since the last line about it */
	uint64_t refusal_log_ms;
};

static void feed(struct guest *g, enum guest_stim stim);

/* ---- whom it may have ---- */

static const char *take_share(struct guest *g, uint32_t *ring_bytes)
{
	const struct guest_share_ask ask = {
		.ring_bytes = *ring_bytes,
		.full_bytes = g->channels.host.ring_bytes,
		.used = guest_channels_pages(&g->channels),
		.limit = xen_check_limit(""),
	};
	const bool was_short = g->share.is_short;
	const char *why = guest_share_take(
		&g->share, &ask, loop_now_ms(g->env->loop), ring_bytes);

	if (g->share.is_short && !was_short)
		log_info(
			"%s: gets smaller rings, which are slower, having had "
			"half of its share of the pages: if it is to have full "
			"ones, raise /sys/module/xen_gntalloc/parameters/limit",
			g->channels.host.who);
	return why;
}

/* Why not, in words for the guest, or NULL. */
static const char *refusal(struct guest *g, uint32_t *ring_bytes,
			   enum exit_status *ret_status)
{
	const struct guest_env *env = g->env;

	*ret_status = EXIT_CANNOT_REACH;
	if (env->is_stopping)
		return "the gateway stops";
	*ret_status = EXIT_BUSY;
	if (!guest_identity_is_same(env, &g->id))
		return "this number was another domain's: try again";
	if (g->state != GUEST_SERVING)
		return HELD_WORDS;
	*ret_status = EXIT_NOT_ALLOWED;
	if (!policy_names_peer(env->config, &g->channels.host.peer.policy))
		return "no rule of the gateway names this domain";
	*ret_status = EXIT_BUSY;
	/* The one that asks is counted. */
	if (guest_channels_count(&g->channels) >
	    env->config->max_sessions_per_peer)
		return "this domain has as many channels as it may: "
		       "max_sessions_per_peer of the gateway";
	if (sessions_reached_limit(env->sessions, g->channels.host.peer.key))
		return "the gateway serves as many sessions as it may: "
		       "max_sessions or max_sessions_per_peer";
	return take_share(g, ring_bytes);
}

static int on_admit(void *arg, uint32_t *ring_bytes,
		    enum exit_status *ret_status,
		    char why[static HANDSHAKE_WHY_BYTES])
{
	struct guest *g = arg;
	uint64_t now_ms = loop_now_ms(g->env->loop);
	const char *words = refusal(g, ring_bytes, ret_status);

	if (!words)
		return 0;
	(void)snprintf(why, HANDSHAKE_WHY_BYTES, "%s", words);
	g->num_refused++;
	if (now_ms >= g->refusal_log_ms) {
		log_warn("%s: channel refused: %s (%u refused since the last "
			 "such line)",
			 g->channels.host.who, words, g->num_refused);
		g->refusal_log_ms = now_ms + REFUSAL_LOG_MS;
		g->num_refused = 0;
	}
	return -EPERM;
}

static void on_session_ended(void *arg, const char *busid)
{
	struct guest *g = arg;

	/* What is let go of for a hold is wanted again behind it. */
	if (busid[0] != '\0' && !g->id.is_held)
		wants_session_ended(g->env->wants, g->id.domid, busid);
	/* Its machine may wait for this. */
	g->next_look_ms = 0;
	guest_mark(g);
}

/* ---- the folder ---- */

static void say_devices(struct guest *g)
{
	char path[HANDSHAKE_PATH_BYTES];
	char text[16];
	int r;

	handshake_name_path(path, g->env->gateway, g->id.domid, "devices");
	(void)snprintf(text, sizeof(text), "%u", g->env->devices_number);
	r = store_write_under(g->env->store, g->peer_node, path, text);
	g->is_devices_unsaid = r < 0 && r != -ENOENT;
}

void guest_say_devices(struct guest *guest)
{
	if (guest_is_served(guest, NULL))
		say_devices(guest);
}

static void remove_node(struct guest *g, const char *name)
{
	char path[HANDSHAKE_PATH_BYTES + STORE_NAME_BYTES];

	(void)snprintf(path, sizeof(path), "%s/%s", g->own_folder, name);
	(void)store_remove(g->env->store, path);
}

/*
 * The folder itself is the manager's, but one without its node was made by a
 * session that wrote when it had gone.
 */
static void clean_folder(struct guest *g)
{
	char text[HANDSHAKE_WORD_BYTES];
	int n;

	if (store_read(g->env->store, g->peer_node, text, sizeof(text)) ==
	    -ENOENT) {
		(void)store_remove(g->env->store, g->own_folder);
		return;
	}
	n = store_list(g->env->store, g->own_folder, g->env->names,
		       GUEST_MAX_NAMES);
	for (int i = 0; i < n; i++)
		if (strcmp(g->env->names[i], "peer") != 0)
			remove_node(g, g->env->names[i]);
}

/* ---- what is taken from it ---- */

static bool is_called(void *arg, const char *busid)
{
	return strcmp(busid, (const char *)arg) == 0;
}

static void revoke_all(struct guest *g, enum exit_status status,
		       const char *why)
{
	(void)guest_channels_revoke(&g->channels, NULL, NULL, status, why);
}

unsigned guest_revoke(struct guest *guest, const char *busid)
{
	char wanted[USBIP_BUSID_BYTES];

	(void)snprintf(wanted, sizeof(wanted), "%s", busid);
	return guest_channels_revoke(&guest->channels, is_called, wanted,
				     EXIT_NOT_ALLOWED,
				     "the gateway's administrator has taken "
				     "the device back");
}

void guest_stop(struct guest *guest)
{
	revoke_all(guest, EXIT_CANNOT_REACH, "the gateway stops");
}

/* What another gateway has, sessions_judge asks the remotes for. */
static bool is_not_given(void *arg, const char *busid)
{
	const struct guest *g = arg;

	return busid[0] != '\0' &&
	       !registry_is_given(g->env->registry, busid,
				  &g->channels.host.peer.policy);
}

void guest_apply_config(struct guest *guest)
{
	struct guest_channels *channels = &guest->channels;
	const struct config *config = guest->env->config;

	channels->host.ring_bytes = (uint32_t)config->vchan_ring_bytes;
	if (!guest_is_served(guest, NULL))
		return;
	if (!policy_names_peer(config, &channels->host.peer.policy))
		revoke_all(guest, EXIT_NOT_ALLOWED,
			   "no rule of the gateway names this domain any more");
	else
		(void)guest_channels_revoke(channels, is_not_given, guest,
					    EXIT_NOT_ALLOWED,
					    "no rule of the gateway gives this "
					    "domain the device any more");
}

/* ---- actions ---- */

static void set_limit(struct guest *g, uint64_t after_ms)
{
	loop_timer_again(g->hold_timer, after_ms);
}

static void set_names(struct guest *g)
{
	struct xen_channel_host *host = &g->channels.host;

	(void)snprintf(host->who, sizeof(host->who), "domain %u (%.63s)",
		       g->id.domid, g->id.name);
	host->peer = (struct sessions_peer){ .kind = ADDRESS_XEN,
					     .domid = g->id.domid };
	host->peer.policy.kind = POLICY_PEER_DOMAIN;
	(void)snprintf(host->peer.policy.name, sizeof(host->peer.policy.name),
		       "%s", g->id.name);
	(void)snprintf(host->peer.policy.uuid, sizeof(host->peer.policy.uuid),
		       "%s", g->id.uuid);
	(void)snprintf(host->peer.key, sizeof(host->peer.key), "xen:%s",
		       g->id.uuid);
}

/* What cannot be watched is polled. */
static void watch_folder(struct guest *g)
{
	(void)steady_watch_set(&g->watch, g->env->store, g->guests_folder,
			       g->token);
}

static void serve(struct guest *g)
{
	struct guest_env *env = g->env;

	watch_folder(g);
	log_info("%s: served (%s)", g->channels.host.who, g->id.uuid);
	guest_channels_take_up(&g->channels);
	say_devices(g);
	wants_guest_came(env->wants, &g->id);
	if (guest_hold_begin(g->hold, g->id.uuid))
		feed(g, GUEST_ON_HOLD);
	guest_mark(g);
}

static void drop(struct guest *g)
{
	set_limit(g, NEVER_MS);
	log_info("%s: gone", g->channels.host.who);
	/* It was asked of this one: who has its number next is another. */
	g->is_hold_asked = false;
	g->is_resume_asked = false;
	guest_hold_lost(g->hold);
	wants_guest_left(g->env->wants, g->id.domid);
	guest_channels_die(&g->channels);
}

static void forget(struct guest *g)
{
	steady_watch_remove(&g->watch, g->env->store, g->guests_folder,
			    g->token);
	guest_channels_free(&g->channels);
	clean_folder(g);
	g->env->left(g->env->arg);
}

static void act(struct guest *g, enum guest_act action)
{
	switch (action) {
	case GUEST_DO_NONE:
		break;
	case GUEST_DO_SERVE:
		serve(g);
		break;
	case GUEST_DO_ASK_HOLD:
		guest_hold_ask(g->hold);
		set_limit(g, GUEST_HOLDING_MS);
		break;
	case GUEST_DO_EMPTY:
		set_limit(g, NEVER_MS);
		revoke_all(g, EXIT_BUSY, HELD_WORDS);
		break;
	case GUEST_DO_CONFIRM:
		guest_hold_confirm(g->hold);
		break;
	case GUEST_DO_RELEASE:
		set_limit(g, GUEST_RESUMING_MS);
		guest_hold_release(g->hold);
		break;
	case GUEST_DO_DROP:
		drop(g);
		break;
	case GUEST_DO_FORGET:
		forget(g);
		break;
	case GUEST_DO_BUG:
		assert(!"the table of guests was left");
		break;
	}
}

static void step(struct guest *g, enum guest_stim stim)
{
	enum guest_state from = g->state;
	struct guest_step to = guest_fsm_step(from, stim);

	if (to.next != from || to.act != GUEST_DO_NONE)
		log_debug("%s: %s + %s -> %s", g->channels.host.who,
			  guest_state_name(from), guest_stim_name(stim),
			  guest_state_name(to.next));
	g->state = to.next;
	g->id.is_held = to.next == GUEST_HOLDING || to.next == GUEST_EMPTYING ||
			to.next == GUEST_HELD;
	act(g, to.act);
}

static void feed(struct guest *g, enum guest_stim stim)
{
	step(g, stim);
	if (guest_channels_are_quiet(&g->channels))
		step(g, GUEST_ON_QUIET);
}

static void on_hold_time(void *arg)
{
	struct guest *g = arg;

	if (g->state == GUEST_HOLDING) {
		guest_hold_unanswered(g->hold);
		feed(g, GUEST_ON_LIMIT);
	} else {
		guest_hold_not_resumed(g->hold);
	}
}

/* ---- looking ---- */

static void serve_askers(struct guest *g)
{
	if (g->is_hold_asked)
		feed(g, GUEST_ON_HOLD);
	if (g->is_resume_asked && !g->id.is_held)
		guest_hold_not_held(g->hold);
	if (g->is_resume_asked)
		feed(g, GUEST_ON_RESUME);
	g->is_hold_asked = false;
	g->is_resume_asked = false;
}

static void look(struct guest *g)
{
	/* What stands there now is not the word of whom it serves. */
	if (g->state != GUEST_ABSENT && !guest_identity_is_same(g->env, &g->id))
		guest_check(g);
	if (g->state == GUEST_ABSENT)
		return;
	serve_askers(g);
	if (g->state != GUEST_LEAVING) {
		guest_channels_review(&g->channels);
		if (g->is_devices_unsaid)
			say_devices(g);
		if (guest_hold_review(g->hold) == HANDSHAKE_DONE)
			feed(g, GUEST_ON_DONE);
		wants_review(g->env->wants, g->id.domid);
	}
	if (guest_channels_are_quiet(&g->channels))
		step(g, GUEST_ON_QUIET);
}

static void on_look_time(void *arg)
{
	struct guest *g = arg;

	g->is_marked = false;
	g->next_look_ms = loop_now_ms(g->env->loop) + GUEST_LOOK_MS;
	look(g);
}

void guest_mark(struct guest *guest)
{
	uint64_t now_ms = loop_now_ms(guest->env->loop);
	uint64_t wait_ms = 0;

	if (guest->next_look_ms > now_ms)
		wait_ms = guest->next_look_ms - now_ms;
	if (guest->is_marked && wait_ms > 0)
		return;
	guest->is_marked = true;
	loop_timer_again(guest->look_timer, wait_ms);
}

void guest_poll(struct guest *guest)
{
	if (guest->watch.is_refused)
		watch_folder(guest);
	guest_channels_poll(&guest->channels);
	guest_mark(guest);
}

/* ---- who it is ---- */

/* Gone and there again between two looks: nothing of ours is in it. */
static bool was_folder_replaced(const struct guest *g)
{
	char path[HANDSHAKE_PATH_BYTES];
	char text[16];

	if (!guest_is_served(g, NULL) || g->is_devices_unsaid)
		return false;
	handshake_name_path(path, g->env->gateway, g->id.domid, "devices");
	return store_read(g->env->store, path, text, sizeof(text)) == -ENOENT;
}

void guest_check(struct guest *guest)
{
	struct xen_guest id = guest->id;
	int r = guest_identity_read(guest->env, guest->id.domid, &id);

	if (r < 0) /* as it was, until it is known */
		return;
	if (r == 0) {
		feed(guest, GUEST_ON_GONE);
	} else if (guest->state == GUEST_ABSENT) {
		if (strcasecmp(id.uuid, guest->id.uuid) != 0)
			guest_share_init(&guest->share,
					 loop_now_ms(guest->env->loop));
		guest->id = id;
		set_names(guest);
		feed(guest, GUEST_ON_OFFERED);
	} else if (strcasecmp(id.uuid, guest->id.uuid) != 0 ||
		   was_folder_replaced(guest)) {
		feed(guest, GUEST_ON_CHANGED);
	} else if (strcmp(id.name, guest->id.name) != 0 &&
		   guest_is_served(guest, NULL)) {
		guest->id = id;
		set_names(guest);
		log_info("%s: has a new name", guest->channels.host.who);
		guest_apply_config(guest);
	}
}

/* ---- for others ---- */

unsigned guest_domid(const struct guest *guest)
{
	return guest->id.domid;
}

bool guest_is_absent(const struct guest *guest)
{
	return guest->state == GUEST_ABSENT;
}

bool guest_is_served(const struct guest *guest, struct xen_guest *ret_guest)
{
	if (guest->state == GUEST_ABSENT || guest->state == GUEST_LEAVING)
		return false;
	if (ret_guest)
		*ret_guest = guest->id;
	return true;
}

/* Whoever asks is answered later, from a look. */
static int add_asker(struct guest *g, bool is_for_hold, xen_done_cb *on_done,
		     void *arg)
{
	int r;

	/* First those who asked for the other before, and are told of this. */
	if (is_for_hold ? g->is_resume_asked : g->is_hold_asked)
		serve_askers(g);
	r = guest_hold_add_asker(g->hold, is_for_hold, on_done, arg);
	if (r < 0)
		return r;
	if (is_for_hold)
		g->is_hold_asked = true;
	else
		g->is_resume_asked = true;
	g->next_look_ms = 0;
	guest_mark(g);
	return 0;
}

int guest_hold(struct guest *guest, xen_done_cb *on_done, void *arg)
{
	return add_asker(guest, true, on_done, arg);
}

int guest_resume(struct guest *guest, xen_done_cb *on_done, void *arg)
{
	return add_asker(guest, false, on_done, arg);
}

void guest_forget_asker(struct guest *guest, const void *arg)
{
	guest_hold_forget_asker(guest->hold, arg);
}

/* ---- life ---- */

int guest_new(struct guest_env *env, unsigned domid, struct guest **ret_guest)
{
	struct guest *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return -ENOMEM;
	g->env = env;
	g->id.domid = domid;
	guest_share_init(&g->share, loop_now_ms(env->loop));
	g->channels.host = (struct xen_channel_host){
		.loop = env->loop,
		.store = env->store,
		.sessions = env->sessions,
		.runtime_dir = env->runtime_dir,
		.gateway = env->gateway,
		.guest = domid,
		.ring_bytes = (uint32_t)env->config->vchan_ring_bytes,
		.admit = on_admit,
		.ended = on_session_ended,
		.arg = g,
	};
	set_names(g);
	handshake_pair_path(g->own_folder, env->gateway, domid);
	handshake_pair_path(g->guests_folder, domid, env->gateway);
	handshake_name_path(g->peer_node, env->gateway, domid, "peer");
	(void)snprintf(g->token, sizeof(g->token), "xen:%u", domid);
	r = guest_hold_new(env, domid, &g->hold);
	if (r == 0)
		r = loop_timer_start(env->loop, NEVER_MS, 0, on_look_time, g,
				     &g->look_timer);
	if (r == 0)
		r = loop_timer_start(env->loop, NEVER_MS, 0, on_hold_time, g,
				     &g->hold_timer);
	if (r < 0) {
		guest_free(g);
		return r;
	}
	*ret_guest = g;
	return 0;
}

void guest_free(struct guest *guest)
{
	if (!guest)
		return;
	guest_channels_free(&guest->channels);
	loop_timer_stop(guest->look_timer);
	loop_timer_stop(guest->hold_timer);
	guest_hold_free(guest->hold);
	free(guest);
}
