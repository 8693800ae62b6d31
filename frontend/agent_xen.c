/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/agent_xen.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/agent_config.h"
#include "frontend/xen_gateway.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/steady_watch.h"
#include "vchan-transport/store.h"
#include "vchan-transport/xen_guest.h"

#define MAX_GATEWAYS    AGENT_MAX_GATEWAYS
#define LOOK_EVERY_MS   50u
#define LOOK_AGAIN_MS   1000u /* after a failure */
#define EVENTS_PER_TURN 64

#define DOMID_NODE      "domid"
#define OWN_FOLDER      "data/xusbip"
#define OWN_WORD        OWN_FOLDER "/hold"
#define OWN_ANSWER      OWN_FOLDER "/held"

#define TOKEN_DOMID     "domid"
#define TOKEN_OWN       "own"
#define TOKEN_GATEWAY   "gateway:"

/* One that serves this domain. */
struct place {
	struct xen_gateway *gateway; /* NULL: free */
	struct steady_watch watch;
	bool is_dirty;
};

struct agent_xen {
	struct loop *loop;
	struct store *store;
	struct loop_watch *watch;
	struct loop_source source;
	struct loop_timer *timer;
	struct agent_xen_events events;
	bool is_debug;
	int error; /* of the connection; nothing is done any more */
	int next;  /* 1: the token below; 0, or -errno */
	char token[STORE_TOKEN_BYTES];
	unsigned domid; /* ours */
	struct steady_watch domid_watch;
	struct steady_watch own_watch;
	uint64_t slow_ms;           /* the next look at what is not watched */
	bool is_dirty;              /* what is ours is to be read again */
	uint64_t look_ms;           /* the next look, at the earliest */
	int look_error;             /* of the last one, or 0 */
	struct handshake_word word; /* this guest's own hold or resume */
	uint64_t answered_epoch;
	bool has_news; /* the guest itself holds, or goes on */
	struct place places[MAX_GATEWAYS];
};

/* ---- which gateways there are ---- */

static void folder_of(const struct agent_xen *x, unsigned gateway,
		      char path[static HANDSHAKE_PATH_BYTES],
		      char token[static STORE_TOKEN_BYTES])
{
	handshake_pair_path(path, gateway, x->domid);
	(void)snprintf(token, STORE_TOKEN_BYTES, TOKEN_GATEWAY "%u", gateway);
}

static struct place *find(struct agent_xen *x, unsigned gateway)
{
	for (size_t i = 0; i < MAX_GATEWAYS; i++) {
		struct place *place = &x->places[i];

		if (place->gateway &&
		    xen_gateway_domid(place->gateway) == gateway)
			return place;
	}
	return NULL;
}

static void drop(struct agent_xen *x, struct place *place)
{
	char path[HANDSHAKE_PATH_BYTES];
	char token[STORE_TOKEN_BYTES];

	if (!place->gateway)
		return;
	folder_of(x, xen_gateway_domid(place->gateway), path, token);
	steady_watch_remove(&place->watch, x->store, path, token);
	xen_gateway_free(place->gateway);
	*place = (struct place){ 0 };
}

/* What is refused is tried again: 0, or -errno if nothing more will come. */
static int set_watch(struct agent_xen *x, struct steady_watch *watch,
		     const char *path, const char *token)
{
	int r = steady_watch_set(watch, x->store, path, token);

	return r == -ECONNRESET ? r : 0;
}

static int watch_place(struct agent_xen *x, struct place *place)
{
	char path[HANDSHAKE_PATH_BYTES];
	char token[STORE_TOKEN_BYTES];

	folder_of(x, xen_gateway_domid(place->gateway), path, token);
	return set_watch(x, &place->watch, path, token);
}

static int add(struct agent_xen *x, unsigned gateway)
{
	struct place *place = x->places;
	int r;

	while (place < x->places + MAX_GATEWAYS && place->gateway)
		place++;
	if (place == x->places + MAX_GATEWAYS)
		return -ENOSPC;
	r = xen_gateway_new(x->store, x->domid, gateway, x->is_debug,
			    &place->gateway);
	if (r < 0)
		return r;
	place->is_dirty = true;
	return watch_place(x, place);
}

static bool is_among(unsigned domid, const unsigned *domids, int count)
{
	for (int i = 0; i < count; i++)
		if (domids[i] == domid)
			return true;
	return false;
}

static int look_for_gateways(struct agent_xen *x)
{
	unsigned domids[MAX_GATEWAYS];
	int count = xen_guest_gateways(x->store, domids, MAX_GATEWAYS);

	if (count < 0)
		return count;
	for (size_t i = 0; i < MAX_GATEWAYS; i++) {
		struct place *place = &x->places[i];

		if (place->gateway &&
		    !is_among(xen_gateway_domid(place->gateway), domids, count))
			drop(x, place);
	}
	for (int i = 0; i < count; i++) {
		int r = find(x, domids[i]) ? 0 : add(x, domids[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- what is ours ---- */

static bool holds_itself(const struct agent_xen *x)
{
	return x->word.verb == HANDSHAKE_HOLD;
}

/*
 * Dom0 saves and moves all of the domain, and can end it anyway: its hold is one
 * for all gateways.
 */
static bool is_to_hold_all(struct agent_xen *x)
{
	const struct place *dom0 = find(x, 0);

	return holds_itself(x) ||
	       (dom0 && xen_gateway_says_hold(dom0->gateway));
}

static int look_at_own(struct agent_xen *x)
{
	bool was_held = holds_itself(x);
	int domid = store_domid(x->store);
	int r;

	if (domid < 0)
		return domid;
	if ((unsigned)domid != x->domid) {
		log_info("this domain is number %d now, not %u", domid,
			 x->domid);
		for (size_t i = 0; i < MAX_GATEWAYS; i++)
			drop(x, &x->places[i]);
		x->domid = (unsigned)domid;
	}
	r = xen_gateway_read_word(x->store, OWN_WORD, &x->word);
	if (r < 0)
		return r;
	x->has_news |= holds_itself(x) != was_held;
	return look_for_gateways(x);
}

static bool is_dirty(const struct place *place)
{
	return place->gateway &&
	       (place->is_dirty || xen_gateway_needs_look(place->gateway));
}

/* What could not be read is as it was, and is looked at again. */
static int look(struct agent_xen *x)
{
	int result = 0;

	if (x->is_dirty) {
		result = look_at_own(x);
		x->is_dirty = result < 0;
	}
	for (size_t i = 0; i < MAX_GATEWAYS && result != -ECONNRESET; i++) {
		struct place *place = &x->places[i];
		int r;

		if (!is_dirty(place))
			continue;
		place->is_dirty = false;
		r = xen_gateway_look(place->gateway);
		if (r < 0)
			result = r;
	}
	return result;
}

static bool is_any_dirty(const struct agent_xen *x)
{
	bool is_any = x->is_dirty;

	for (size_t i = 0; i < MAX_GATEWAYS; i++)
		is_any = is_any || is_dirty(&x->places[i]);
	return is_any;
}

/* ---- what is not watched ---- */

static int watch_own(struct agent_xen *x)
{
	int r = set_watch(x, &x->domid_watch, DOMID_NODE, TOKEN_DOMID);

	return r < 0 ? r : set_watch(x, &x->own_watch, OWN_FOLDER, TOKEN_OWN);
}

static bool is_own_unwatched(const struct agent_xen *x)
{
	return x->domid_watch.is_refused || x->own_watch.is_refused;
}

static bool is_any_unwatched(const struct agent_xen *x)
{
	bool is_any = is_own_unwatched(x);

	for (size_t i = 0; i < MAX_GATEWAYS; i++)
		is_any = is_any || x->places[i].watch.is_refused;
	return is_any;
}

/* Then it is looked at, since nothing tells that it has changed. */
static int watch_again(struct agent_xen *x)
{
	int r = 0;

	if (is_own_unwatched(x)) {
		x->is_dirty = true;
		r = watch_own(x);
	}
	for (size_t i = 0; i < MAX_GATEWAYS && r == 0; i++) {
		struct place *place = &x->places[i];

		if (!place->watch.is_refused)
			continue;
		place->is_dirty = true;
		r = watch_place(x, place);
	}
	return r;
}

static int look_slowly(struct agent_xen *x, uint64_t now_ms)
{
	int r = 0;

	if (is_any_unwatched(x)) {
		if (now_ms < x->slow_ms)
			return 0;
		r = watch_again(x);
	}
	x->slow_ms = now_ms + STEADY_WATCH_LOOK_MS;
	return r;
}

/* ---- the guest's own word ---- */

/* Answers the guest's own word when every gateway's devices are settled. */
static void answer(struct agent_xen *x)
{
	bool is_hold = holds_itself(x);
	struct handshake_word word = { .epoch = x->word.epoch,
				       .verb = is_hold ? HANDSHAKE_DONE
						       : HANDSHAKE_RESUMED };
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	if ((!is_hold && x->word.verb != HANDSHAKE_RESUME) ||
	    x->word.epoch == x->answered_epoch)
		return;
	for (size_t i = 0; i < MAX_GATEWAYS; i++)
		if (x->places[i].gateway &&
		    !xen_gateway_has_settled(x->places[i].gateway))
			return;
	handshake_format(text, &word);
	r = store_write(x->store, OWN_ANSWER, text);
	if (r < 0)
		log_warn("cannot answer in xenstore: %s", strerror(-r));
	x->answered_epoch = x->word.epoch;
}

/* ---- its turn ---- */

static uint64_t step_one(struct xen_gateway *gateway, uint64_t next_ms)
{
	uint64_t due_ms = xen_gateway_step(gateway);

	return due_ms < next_ms ? due_ms : next_ms;
}

static uint64_t step(struct agent_xen *x)
{
	const bool is_hold = is_to_hold_all(x);
	struct place *dom0 = find(x, 0);
	uint64_t next_ms = XEN_GATEWAY_NEVER;
	bool is_waiting = false;

	for (size_t i = 0; i < MAX_GATEWAYS; i++) {
		struct xen_gateway *gateway = x->places[i].gateway;

		if (!gateway || &x->places[i] == dom0)
			continue;
		xen_gateway_set_held(gateway, is_hold);
		next_ms = step_one(gateway, next_ms);
		is_waiting |= !xen_gateway_has_settled(gateway);
	}
	if (dom0) {
		xen_gateway_set_held(dom0->gateway, holds_itself(x));
		xen_gateway_set_waiting(dom0->gateway, is_waiting);
		next_ms = step_one(dom0->gateway, next_ms);
	}
	answer(x);
	return next_ms;
}

static void pass_news_on(struct agent_xen *x)
{
	bool has_news = x->has_news;

	x->has_news = false;
	for (size_t i = 0; i < MAX_GATEWAYS; i++)
		if (x->places[i].gateway)
			has_news |= xen_gateway_take_news(x->places[i].gateway);
	if (has_news)
		x->events.on_news(x->events.arg);
}

static void lose(struct agent_xen *x, int r)
{
	log_error("xenstore is lost: %s; attachments stay", strerror(-r));
	x->error = r;
	x->events.on_lost(x->events.arg);
}

static int look_at_last(struct agent_xen *x, uint64_t now_ms)
{
	int r = look(x);

	x->look_ms = now_ms + (r < 0 ? LOOK_AGAIN_MS : LOOK_EVERY_MS);
	if (r < 0 && r != x->look_error)
		log_warn("cannot read xenstore: %s; looks again", strerror(-r));
	x->look_error = r;
	return r;
}

/* Looks if it is time to, does what is due, and sets the timer for the next. */
static void turn(struct agent_xen *x)
{
	uint64_t now_ms = clock_ms();
	uint64_t next_ms;
	int r;

	if (x->error < 0)
		return;
	r = look_slowly(x, now_ms);
	if (r == 0 && is_any_dirty(x) && now_ms >= x->look_ms)
		r = look_at_last(x, now_ms);
	if (r == -ECONNRESET) {
		lose(x, r);
		return;
	}
	next_ms = step(x);
	pass_news_on(x);
	if (is_any_dirty(x) && x->look_ms < next_ms)
		next_ms = x->look_ms;
	if (is_any_unwatched(x) && x->slow_ms < next_ms)
		next_ms = x->slow_ms;
	now_ms = clock_ms();
	if (next_ms != XEN_GATEWAY_NEVER)
		loop_timer_again(x->timer,
				 next_ms > now_ms ? next_ms - now_ms : 0);
}

static void on_time(void *arg)
{
	turn(arg);
}

static void mark(struct agent_xen *x, const char *token)
{
	size_t length = strlen(TOKEN_GATEWAY);
	struct place *place;
	uint32_t domid;

	if (strncmp(token, TOKEN_GATEWAY, length) != 0) {
		x->is_dirty = true;
		return;
	}
	if (!handshake_parse_number(token + length, HANDSHAKE_MAX_DOMID,
				    &domid))
		return;
	place = find(x, domid);
	if (place)
		place->is_dirty = true;
}

static bool has_event(void *arg)
{
	struct agent_xen *x = arg;

	if (x->error < 0)
		return false;
	if (x->next == 0)
		x->next = store_next_event(x->store, x->token);
	return x->next != 0;
}

static void on_event(void *arg)
{
	struct agent_xen *x = arg;

	for (int i = 0; i < EVENTS_PER_TURN && has_event(x); i++) {
		if (x->next < 0) {
			lose(x, x->next);
			return;
		}
		mark(x, x->token);
		x->next = 0;
	}
	turn(x);
}

/* It only wakes the loop, which asks has_event before it sleeps. */
static void on_readable(void *arg, short revents)
{
	(void)arg;
	(void)revents;
}

bool agent_xen_on_child(struct agent_xen *x, pid_t pid, int status)
{
	if (!x)
		return false;
	for (size_t i = 0; i < MAX_GATEWAYS; i++) {
		struct xen_gateway *gateway = x->places[i].gateway;

		if (gateway && xen_gateway_on_child(gateway, pid, status)) {
			turn(x);
			return true;
		}
	}
	return false;
}

bool agent_xen_holds(struct agent_xen *x, const struct address *gateway)
{
	if (!x)
		return false;
	for (size_t i = 0; i < MAX_GATEWAYS; i++) {
		const struct xen_gateway *holder = x->places[i].gateway;

		if (holder && xen_gateway_holds(holder) &&
		    gateway->kind == ADDRESS_XEN &&
		    xen_gateway_is_called(holder, gateway->host))
			return true;
	}
	return is_to_hold_all(x);
}

void agent_xen_on_removal(struct agent_xen *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < MAX_GATEWAYS; i++)
		if (x->places[i].gateway)
			xen_gateway_suspect(x->places[i].gateway);
	turn(x);
}

/* ---- beginning and end ---- */

static int start(struct agent_xen *x)
{
	int domid;
	int r = store_open(&x->store);

	if (r < 0)
		return r;
	domid = store_domid(x->store);
	if (domid < 0)
		return domid;
	x->domid = (unsigned)domid;
	x->is_dirty = true;
	r = watch_own(x);
	if (r == 0)
		r = loop_watch_fd(x->loop, store_fd(x->store), POLLIN,
				  on_readable, x, &x->watch);
	if (r == 0)
		r = loop_timer_start(x->loop, 0, 0, on_time, x, &x->timer);
	return r;
}

int agent_xen_new(struct loop *loop, bool is_debug,
		  const struct agent_xen_events *events,
		  struct agent_xen **ret_xen)
{
	struct agent_xen *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return -ENOMEM;
	x->loop = loop;
	x->is_debug = is_debug;
	x->events = *events;
	r = start(x);
	if (r < 0) {
		loop_watch_stop(x->watch);
		store_close(x->store);
		free(x);
		return r;
	}
	x->source = (struct loop_source){ .has_work = has_event,
					  .work = on_event,
					  .arg = x };
	loop_add_source(loop, &x->source);
	*ret_xen = x;
	return 0;
}

void agent_xen_free(struct agent_xen *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < MAX_GATEWAYS; i++)
		xen_gateway_free(x->places[i].gateway);
	store_close(x->store);
	free(x);
}
