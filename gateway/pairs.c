/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/pairs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/steady_watch.h"
#include "vchan-transport/store.h"

#define TOKEN "pair:"
/* However many events there are. */
#define LOOK_SOON_MS 50
#define MAX_DOMAINS  1024
#define MAX_NAMES    1024
#define UUID_CHARS   36
#define NO_UUID      "00000000-0000-0000-0000-000000000000"
/* "UUID NAME" with its NUL */
#define PEER_BYTES (POLICY_UUID_BYTES + 1 + POLICY_NAME_BYTES)

/* One that lives, as the last look found it. */
struct domain {
	unsigned domid;
	struct policy_peer peer;
	bool is_gateway;
	struct steady_watch name_watch;
};

struct pairs {
	struct loop *loop;
	struct store *store;
	const struct config *config;
	unsigned own;
	bool is_gateway;
	struct domain *domains;
	size_t num_domains;
	struct loop_timer *timer;
	uint64_t next_look_ms; /* not before */
	char names[MAX_NAMES][STORE_NAME_BYTES];
};

/* ---- who is there ---- */

/* Of a read: neither a value nor the news that there is no good one. */
static bool is_failure(int r)
{
	return r < 0 && r != -ENOENT && r != -EMSGSIZE && r != -EBADMSG;
}

static bool is_printable(const char *text)
{
	for (; *text; text++) {
		if (*text < ' ' || *text > '~')
			return false;
	}
	return true;
}

/* A name that no rule could give is none: the UUID is left then. */
static int read_name(struct pairs *p, unsigned domid,
		     char name[static POLICY_NAME_BYTES])
{
	char path[HANDSHAKE_PATH_BYTES];
	int r;

	(void)snprintf(path, sizeof(path), "/local/domain/%u/name", domid);
	r = store_read(p->store, path, name, POLICY_NAME_BYTES);
	if (r >= 0 && is_printable(name))
		return 0;
	name[0] = '\0';
	return is_failure(r) ? r : 0;
}

static int read_uuid(struct pairs *p, unsigned domid,
		     char uuid[static POLICY_UUID_BYTES])
{
	static const char prefix[] = "/vm/";
	const size_t skip = sizeof(prefix) - 1;
	char path[HANDSHAKE_PATH_BYTES];
	char text[sizeof(prefix) + UUID_CHARS];
	int r;

	(void)snprintf(path, sizeof(path), "/local/domain/%u/vm", domid);
	r = store_read(p->store, path, text, sizeof(text));
	if (r == -ENOENT && domid == 0) {
		(void)snprintf(uuid, POLICY_UUID_BYTES, "%s", NO_UUID);
		return 0;
	}
	if (r < 0)
		return is_failure(r) ? r : -ENOENT;
	if (strncmp(text, prefix, skip) != 0 ||
	    strspn(text + skip, "0123456789abcdefABCDEF-") != UUID_CHARS)
		return -ENOENT;
	(void)snprintf(uuid, POLICY_UUID_BYTES, "%s", text + skip);
	return 0;
}

/* 0; -ENOENT: it does not live, or nobody can say who it is; -errno. */
static int read_domain(struct pairs *p, unsigned domid, struct domain *domain)
{
	const struct config *config = p->config;
	int r = domid == 0 ? 1 : store_is_introduced(p->store, domid);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	*domain = (struct domain){ .domid = domid,
				   .peer.kind = POLICY_PEER_DOMAIN,
				   .is_gateway = p->is_gateway &&
						 domid == p->own };
	r = read_uuid(p, domid, domain->peer.uuid);
	if (r == 0)
		r = read_name(p, domid, domain->peer.name);
	for (size_t i = 0; r == 0 && i < config->num_gateways; i++)
		domain->is_gateway |= policy_is_called(
			&domain->peer, config->gateways[i].domain);
	return r;
}

static struct domain *find_domain(struct domain *domains, size_t num,
				  unsigned domid)
{
	for (size_t i = 0; i < num; i++) {
		if (domains[i].domid == domid)
			return &domains[i];
	}
	return NULL;
}

/* So that a domain's new name, and the removal of its nodes, is told. */
static void watch_name(struct pairs *p, struct domain *d, bool is_there)
{
	char path[HANDSHAKE_PATH_BYTES];
	char token[STORE_TOKEN_BYTES];

	(void)snprintf(path, sizeof(path), "/local/domain/%u/name", d->domid);
	(void)snprintf(token, sizeof(token), TOKEN "%u", d->domid);
	if (is_there)
		(void)steady_watch_set(&d->name_watch, p->store, path, token);
	else
		steady_watch_remove(&d->name_watch, p->store, path, token);
}

static void take_domains(struct pairs *p, struct domain *domains, size_t num)
{
	for (size_t i = 0; i < p->num_domains; i++) {
		struct domain *before = &p->domains[i];
		struct domain *now = find_domain(domains, num, before->domid);

		if (now)
			now->name_watch = before->name_watch;
		else
			watch_name(p, before, false);
	}
	for (size_t i = 0; i < num; i++)
		watch_name(p, &domains[i], true);
	free(p->domains);
	p->domains = domains;
	p->num_domains = num;
}

static int read_domains(struct pairs *p)
{
	struct domain *domains = calloc(MAX_DOMAINS, sizeof(*domains));
	size_t num = 0;
	int r = -ENOMEM;
	int count = 0;

	if (domains)
		r = count = store_list(p->store, "/local/domain", p->names,
				       MAX_NAMES);
	for (int i = 0; r >= 0 && i < count && num < MAX_DOMAINS; i++) {
		uint32_t domid;

		if (!handshake_parse_number(p->names[i], HANDSHAKE_MAX_DOMID,
					    &domid))
			continue;
		r = read_domain(p, domid, &domains[num]);
		num += r == 0;
		if (r == -ENOENT)
			r = 0;
	}
	if (r < 0) {
		free(domains);
		return r;
	}
	take_domains(p, domains, num);
	return 0;
}

/* ---- who may talk ---- */

/* "*" is every guest: who wants dom0 to be one has to say so. */
static bool is_guest_of(const struct config_gateway *gateway,
			const struct domain *f)
{
	const struct policy_names *domains = &gateway->domains;

	if (f->domid != 0)
		return policy_is_listed(domains, &f->peer);
	for (size_t i = 0; i < domains->num; i++) {
		if (policy_is_called(&f->peer, domains->names[i]))
			return true;
	}
	return false;
}

static bool is_wanted(const struct pairs *p, const struct domain *g,
		      const struct domain *f)
{
	const struct config *config = p->config;

	if (!g->is_gateway || g == f)
		return false;
	if (p->is_gateway && g->domid == p->own &&
	    policy_names_peer(config, &f->peer))
		return true;
	for (size_t i = 0; i < config->num_gateways; i++) {
		if (policy_is_called(&g->peer, config->gateways[i].domain) &&
		    is_guest_of(&config->gateways[i], f))
			return true;
	}
	return false;
}

/* ---- the folders of a pair ---- */

struct pair_paths {
	char gateway_root[HANDSHAKE_PATH_BYTES]; /* /local/domain/G */
	char guest_root[HANDSHAKE_PATH_BYTES];
	char gateway[HANDSHAKE_PATH_BYTES]; /* the folder that is G's */
	char guest[HANDSHAKE_PATH_BYTES];
	char peer[HANDSHAKE_PATH_BYTES];
	char name[HANDSHAKE_PATH_BYTES];
};

static struct pair_paths paths_of(unsigned g, unsigned f)
{
	struct pair_paths paths = { 0 };

	(void)snprintf(paths.gateway_root, sizeof(paths.gateway_root),
		       "/local/domain/%u", g);
	(void)snprintf(paths.guest_root, sizeof(paths.guest_root),
		       "/local/domain/%u", f);
	handshake_pair_path(paths.gateway, g, f);
	handshake_pair_path(paths.guest, f, g);
	handshake_name_path(paths.peer, g, f, "peer");
	handshake_name_path(paths.name, f, g, "name");
	return paths;
}

static void remove_pair(struct pairs *p, const struct pair_paths *paths)
{
	(void)store_remove(p->store, paths->gateway);
	(void)store_remove(p->store, paths->guest);
}

/* `peer` comes last: with it the pair is there. */
static int make_pair(struct pairs *p, const struct domain *g,
		     const struct domain *f, const struct pair_paths *paths,
		     const char *peer)
{
	int r;

	remove_pair(p, paths);
	r = store_make_under(p->store, paths->guest_root, paths->guest, "",
			     f->domid, g->domid);
	if (r == 0)
		r = store_make_under(p->store, paths->guest, paths->name,
				     g->peer.name, p->own, f->domid);
	if (r == 0)
		r = store_make_under(p->store, paths->gateway_root,
				     paths->gateway, "", g->domid, f->domid);
	if (r == 0)
		r = store_make_under(p->store, paths->gateway, paths->peer,
				     peer, p->own, g->domid);
	if (r == 0)
		log_info(
			"domain %u (%s): may use the gateway in domain %u (%s)",
			f->domid, f->peer.name, g->domid, g->peer.name);
	return r;
}

/* Nodes of a domain that had the number before do not stay. */
static int keep_pair(struct pairs *p, const struct domain *g,
		     const struct domain *f)
{
	const struct pair_paths paths = paths_of(g->domid, f->domid);
	char peer[PEER_BYTES];
	char found_peer[PEER_BYTES];
	char found_name[POLICY_NAME_BYTES];
	int has_peer;
	int has_name;

	(void)snprintf(peer, sizeof(peer), "%s %s", f->peer.uuid, f->peer.name);
	has_peer = store_read(p->store, paths.peer, found_peer,
			      sizeof(found_peer));
	has_name = store_read(p->store, paths.name, found_name,
			      sizeof(found_name));
	if (is_failure(has_peer) || is_failure(has_name))
		return is_failure(has_peer) ? has_peer : has_name;
	if (has_peer < 0 || has_name < 0 ||
	    strncmp(found_peer, peer, UUID_CHARS + 1) != 0)
		return make_pair(p, g, f, &paths, peer);
	if (strcmp(found_name, g->peer.name) != 0) {
		int r = store_make_under(p->store, paths.guest, paths.name,
					 g->peer.name, p->own, f->domid);

		if (r < 0)
			return r;
	}
	if (strcmp(found_peer, peer) == 0)
		return 0;
	return store_make_under(p->store, paths.gateway, paths.peer, peer,
				p->own, g->domid);
}

/* Has the gateway let go of this channel, or never had it? */
static bool is_free(struct pairs *p, unsigned g, unsigned f, unsigned channel)
{
	char path[HANDSHAKE_PATH_BYTES];
	char text[HANDSHAKE_WORD_BYTES];
	struct handshake_word word;
	int r;

	handshake_channel_path(path, g, f, channel);
	r = store_read(p->store, path, text, sizeof(text));
	if (r < 0)
		return r == -ENOENT;
	return handshake_parse(text, &word) && word.verb == HANDSHAKE_CLOSED;
}

static bool is_in_use(struct pairs *p, unsigned g, unsigned f)
{
	for (unsigned i = 0; i < HANDSHAKE_CHANNELS; i++) {
		if (!is_free(p, g, f, i))
			return true;
	}
	return false;
}

/* What one domain's folder has for others that it does not talk to. */
static void clean_domain(struct pairs *p, const struct domain *d)
{
	char path[HANDSHAKE_PATH_BYTES];
	int count;

	(void)snprintf(path, sizeof(path), "/local/domain/%u/data/xusbip",
		       d->domid);
	count = store_list(p->store, path, p->names, MAX_NAMES);
	for (int i = 0; i < count; i++) {
		const struct domain *other;
		uint32_t domid;

		if (!handshake_parse_number(p->names[i], HANDSHAKE_MAX_DOMID,
					    &domid))
			continue;
		other = find_domain(p->domains, p->num_domains, domid);
		if (other && (is_wanted(p, d, other) || is_wanted(p, other, d)))
			continue;
		/* Its nodes go before it is dead and what it maps is free. */
		if (d->is_gateway && !other &&
		    store_is_introduced(p->store, domid) > 0 &&
		    is_in_use(p, d->domid, domid))
			continue;
		handshake_pair_path(path, d->domid, domid);
		/* Others can make such nodes as often as they like. */
		if (store_remove(p->store, path) == 0 && d->domid == p->own)
			log_info("domain %u: nothing to do with it any more",
				 domid);
	}
}

/* Another domain's goes with the domain. */
static void remove_own_folder_if_empty(struct pairs *p)
{
	char path[HANDSHAKE_PATH_BYTES];

	(void)snprintf(path, sizeof(path), "/local/domain/%u/data/xusbip",
		       p->own);
	if (store_list(p->store, path, p->names, MAX_NAMES) == 0)
		(void)store_remove(p->store, path);
}

typedef int pair_fn(struct pairs *p, const struct domain *g,
		    const struct domain *f);

static void for_each_pair(struct pairs *p, pair_fn *act)
{
	for (size_t i = 0; i < p->num_domains; i++) {
		const struct domain *g = &p->domains[i];

		for (size_t j = 0; g->is_gateway && j < p->num_domains; j++) {
			const struct domain *f = &p->domains[j];
			int r = is_wanted(p, g, f) ? act(p, g, f) : 0;

			/* -ENOENT: one has died, which is told later */
			if (r < 0 && r != -ENOENT)
				log_warn("domain %u (%s): cannot be told of "
					 "the gateway in domain %u: %s",
					 f->domid, f->peer.name, g->domid,
					 strerror(-r));
		}
	}
}

/* ---- when ---- */

static void on_time(void *arg);

static int set_timer(struct pairs *p, uint64_t after_ms)
{
	if (p->timer) {
		loop_timer_again(p->timer, after_ms);
		return 0;
	}
	return loop_timer_start(p->loop, after_ms, 0, on_time, p, &p->timer);
}

static void look(struct pairs *p)
{
	int r = read_domains(p);

	p->next_look_ms = loop_now_ms(p->loop) + LOOK_SOON_MS;
	if (r < 0) {
		log_warn("xenstore: the domains cannot be read: %s",
			 strerror(-r));
		return;
	}
	for (size_t i = 0; i < p->num_domains; i++)
		clean_domain(p, &p->domains[i]);
	for_each_pair(p, keep_pair);
	remove_own_folder_if_empty(p);
}

static void on_time(void *arg)
{
	struct pairs *p = arg;

	look(p);
	(void)set_timer(p, STEADY_WATCH_LOOK_MS);
}

static void look_soon(struct pairs *p)
{
	uint64_t now_ms = loop_now_ms(p->loop);

	(void)set_timer(p, now_ms < p->next_look_ms ? p->next_look_ms - now_ms
						    : 1);
}

void pairs_on_watch(struct pairs *pairs, const char *token)
{
	if (strncmp(token, TOKEN, strlen(TOKEN)) == 0)
		look_soon(pairs);
}

void pairs_set_config(struct pairs *pairs, const struct config *config)
{
	pairs->config = config;
	look_soon(pairs);
}

/* ---- life ---- */

static int remove_unused(struct pairs *p, const struct domain *g,
			 const struct domain *f)
{
	const struct pair_paths paths = paths_of(g->domid, f->domid);

	if (!is_in_use(p, g->domid, f->domid))
		remove_pair(p, &paths);
	return 0;
}

void pairs_remove_unused(struct pairs *pairs)
{
	for_each_pair(pairs, remove_unused);
	remove_own_folder_if_empty(pairs);
}

static int start(struct pairs *p)
{
	int own = store_domid(p->store);
	int r;

	if (own < 0)
		return own;
	p->own = (unsigned)own;
	r = store_watch(p->store, "@introduceDomain", TOKEN);
	if (r == 0)
		r = store_watch(p->store, "@releaseDomain", TOKEN);
	if (r == 0)
		r = set_timer(p, STEADY_WATCH_LOOK_MS);
	if (r == 0)
		look(p);
	return r;
}

int pairs_new(struct loop *loop, struct store *store,
	      const struct config *config, bool is_gateway,
	      struct pairs **ret_pairs)
{
	struct pairs *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->loop = loop;
	p->store = store;
	p->config = config;
	p->is_gateway = is_gateway;
	r = start(p);
	if (r < 0) {
		pairs_free(p);
		return r;
	}
	*ret_pairs = p;
	return 0;
}

void pairs_free(struct pairs *pairs)
{
	if (!pairs)
		return;
	loop_timer_stop(pairs->timer);
	free(pairs->domains);
	free(pairs);
}
