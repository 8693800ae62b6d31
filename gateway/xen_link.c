/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What our node shall hold follows from the state, so a write that the store
 * refused is made up for at the next look, and needs no state of its own.
 */
#include "gateway/xen_link.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vchan-transport/log.h"

/*
 * Steps of one review.  The longest way without a word of the guest's in between
 * has four; what is left over has fired a watch, so it is looked at again.
 */
#define MAX_STEPS  8

#define NODE_BYTES (HANDSHAKE_PATH_BYTES + 16)

struct xen_link {
	struct xen_link_options options;
	enum xen_link_state state;
	uint64_t epoch;             /* served, or answered last; 0: none */
	struct handshake_word word; /* the guest's, as last read */
	bool is_dead;               /* the guest */
	bool is_unsaid;             /* our node is not as it shall be */
	bool is_store_failing;      /* and that was logged */
	bool has_reason;
	enum exit_status status; /* why it ends, or has ended */
	char why[HANDSHAKE_WHY_BYTES];
	char our_node[HANDSHAKE_PATH_BYTES];
	char guests_node[HANDSHAKE_PATH_BYTES];
	char guests_folder[HANDSHAKE_PATH_BYTES];
	char guard[HANDSHAKE_PATH_BYTES];
};

/* The first reason is the cause. */
static void set_reason(struct xen_link *l, enum exit_status status,
		       const char *why)
{
	if (l->has_reason)
		return;
	l->has_reason = true;
	l->status = status;
	(void)snprintf(l->why, sizeof(l->why), "%s", why);
}

static void replace_reason(struct xen_link *l, enum exit_status status,
			   const char *why)
{
	l->has_reason = false;
	set_reason(l, status, why);
}

/* ---- our node ---- */

/* One line when it begins; what ends with xenstored is for its owner. */
static void note_store(struct xen_link *l, int r, const char *what)
{
	if (r < 0 && !l->is_store_failing && r != -ECONNRESET)
		log_warn("%s channel %u: xenstore: %s: %s; it is tried again",
			 l->options.who, l->options.channel, what,
			 strerror(-r));
	l->is_store_failing = r < 0;
}

static int remove_rings(const struct xen_link *l)
{
	static const char *const names[] = { "ring-ref", "event-channel" };
	char path[NODE_BYTES];
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(names) / sizeof(names[0]);
	     i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", l->our_node,
			       names[i]);
		r = store_remove(l->options.store, path);
	}
	return r;
}

static int write_word(const struct xen_link *l, enum handshake_verb verb)
{
	struct handshake_word word = { .verb = verb, .epoch = l->epoch };
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	if (verb == HANDSHAKE_CLOSED) {
		word.status = (unsigned)l->status;
		memcpy(word.why, l->why, sizeof(word.why));
	}
	handshake_format(text, &word);
	r = store_write_under(l->options.store, l->guard, l->our_node, text);
	/* Without its folder the guest is gone, and nobody reads it. */
	return r == -ENOENT ? 0 : r;
}

/* Makes our node what it shall be in this state. */
static void say(struct xen_link *l)
{
	int r = 0;

	l->is_unsaid = false;
	switch (l->state) {
	case XEN_LINK_STARTING:
	case XEN_LINK_ENDING:
	case XEN_LINK_KILLING:
		return;
	case XEN_LINK_IDLE:
		r = store_remove(l->options.store, l->our_node);
		break;
	case XEN_LINK_OPEN:
	case XEN_LINK_WAITING:
	case XEN_LINK_REVOKED:
		r = write_word(l, HANDSHAKE_OPEN);
		break;
	case XEN_LINK_WEDGED:
	case XEN_LINK_CLOSED:
		r = remove_rings(l);
		/* A session that was killed before it had an epoch. */
		if (r == 0 && l->epoch == 0)
			r = store_remove(l->options.store, l->our_node);
		else if (r == 0)
			r = write_word(l, HANDSHAKE_CLOSED);
		break;
	}
	note_store(l, r, "our node cannot be written");
	l->is_unsaid = r < 0;
}

/* ---- actions ---- */

static void set_limit(struct xen_link *l, unsigned after_ms)
{
	l->options.ops->limit(l->options.arg, l, after_ms);
}

static void step(struct xen_link *l, enum xen_link_stim stim);

static void start(struct xen_link *l)
{
	enum exit_status status = EXIT_FAILED;
	char why[HANDSHAKE_WHY_BYTES] = "";
	int r;

	l->epoch = l->word.epoch;
	l->has_reason = false;
	r = l->options.ops->start(l->options.arg, l, l->word.ring_bytes,
				  &status, why);
	if (r < 0) {
		set_reason(l, status, why);
		step(l, XEN_LINK_ON_ENDED);
		return;
	}
	set_limit(l, XEN_LINK_STARTING_MS);
}

/* A word for a channel that no session serves. */
static void disown(struct xen_link *l)
{
	l->epoch = l->word.epoch;
	if (l->state == XEN_LINK_WEDGED)
		replace_reason(l, EXIT_BUSY,
			       "this channel is held by a session that does "
			       "not end; try again");
	else
		replace_reason(l, EXIT_CANNOT_REACH,
			       "the gateway was started anew and does not "
			       "know this channel");
	say(l);
}

/* Why it ends, seen from `from`, if nobody has said so before. */
static void reason_of_end(struct xen_link *l, enum xen_link_state from,
			  enum xen_link_stim stim)
{
	if (from == XEN_LINK_STARTING && l->state == XEN_LINK_KILLING)
		set_reason(l, EXIT_TIMEOUT,
			   "the gateway could not grant the channel in time");
	else if (l->state == XEN_LINK_WEDGED)
		set_reason(l, EXIT_BUSY,
			   "the session was killed but does not end");
	else if (from == XEN_LINK_WAITING && stim == XEN_LINK_ON_LIMIT)
		set_reason(l, EXIT_TIMEOUT,
			   "the guest was not to be seen in xenstore");
}

static void act(struct xen_link *l, enum xen_link_act action)
{
	const struct xen_link_options *o = &l->options;

	switch (action) {
	case XEN_LINK_DO_NONE:
		break;
	case XEN_LINK_DO_START:
		start(l);
		break;
	case XEN_LINK_DO_OPEN:
		set_limit(l, 0);
		say(l);
		break;
	case XEN_LINK_DO_WAIT:
		set_limit(l, XEN_LINK_WAITING_MS);
		break;
	case XEN_LINK_DO_END:
		o->ops->terminate(o->arg, l);
		set_limit(l, XEN_LINK_ENDING_MS);
		break;
	case XEN_LINK_DO_KILL:
		o->ops->kill(o->arg, l);
		set_limit(l, XEN_LINK_KILLING_MS);
		break;
	case XEN_LINK_DO_CLOSE:
		set_limit(l, 0);
		say(l);
		break;
	case XEN_LINK_DO_DISOWN:
		disown(l);
		break;
	case XEN_LINK_DO_REMOVE:
		l->epoch = 0;
		say(l);
		break;
	case XEN_LINK_DO_BUG:
		assert(!"the table of Xen links was left");
		break;
	}
}

static void step(struct xen_link *l, enum xen_link_stim stim)
{
	enum xen_link_state from = l->state;
	struct xen_link_step to = xen_link_fsm_step(from, stim);

	if (to.next != from || to.act != XEN_LINK_DO_NONE)
		log_debug("%s channel %u: %s + %s -> %s", l->options.who,
			  l->options.channel, xen_link_state_name(from),
			  xen_link_stim_name(stim),
			  xen_link_state_name(to.next));
	l->state = to.next;
	if (to.next != from)
		reason_of_end(l, from, stim);
	act(l, to.act);
}

/* ---- the guest's node ---- */

static enum xen_link_stim judge(const struct xen_link *l)
{
	bool is_ours = l->word.epoch == l->epoch;

	if (l->word.verb == HANDSHAKE_ASK)
		return is_ours ? XEN_LINK_ON_ASKED : XEN_LINK_ON_ASK;
	if (l->word.verb == HANDSHAKE_UP)
		return is_ours ? XEN_LINK_ON_UP : XEN_LINK_ON_LOST;
	return XEN_LINK_ON_GARBAGE;
}

/*
 * Its node is not there, or not for us: by the guest's will, unless its folder
 * is gone as well.  So it looks when xl destroys a domain, which is not dead yet.
 */
static int look_at_folder(struct xen_link *l, bool is_node_there,
			  enum xen_link_stim *ret_stim)
{
	char text[HANDSHAKE_WORD_BYTES];
	int r = store_read(l->options.store, l->guests_folder, text,
			   sizeof(text));

	if (r == -ENOENT || r == -EACCES)
		*ret_stim = XEN_LINK_ON_HIDDEN;
	else if (r < 0 && r != -EMSGSIZE && r != -EBADMSG)
		return r;
	else
		*ret_stim = is_node_there ? XEN_LINK_ON_GARBAGE
					  : XEN_LINK_ON_LEFT;
	return 0;
}

/* What the guest says now: 0, or -errno of the store's. */
static int look(struct xen_link *l, enum xen_link_stim *ret_stim)
{
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	if (l->is_dead) {
		*ret_stim = XEN_LINK_ON_DEAD;
		return 0;
	}
	r = store_read(l->options.store, l->guests_node, text, sizeof(text));
	if (r == -ENOENT || r == -EACCES) {
		r = look_at_folder(l, r == -EACCES, ret_stim);
	} else if (r == -EMSGSIZE || r == -EBADMSG) {
		*ret_stim = XEN_LINK_ON_GARBAGE;
		r = 0;
	} else if (r >= 0) {
		(void)handshake_parse(text, &l->word);
		*ret_stim = judge(l);
		r = 0;
	}
	if (r < 0)
		note_store(l, r, "what the guest says cannot be read");
	return r;
}

void xen_link_review(struct xen_link *link)
{
	if (link->is_unsaid)
		say(link);
	for (int i = 0; i < MAX_STEPS; i++) {
		enum xen_link_stim stim;
		struct xen_link_step to;

		if (look(link, &stim) < 0)
			return;
		to = xen_link_fsm_step(link->state, stim);
		if (to.next == link->state && to.act == XEN_LINK_DO_NONE)
			return;
		step(link, stim);
	}
}

/* ---- events ---- */

void xen_link_feed(struct xen_link *link, enum xen_link_stim stim)
{
	assert(stim == XEN_LINK_ON_GRANTED || stim == XEN_LINK_ON_DEAD ||
	       stim == XEN_LINK_ON_LIMIT);
	if (stim == XEN_LINK_ON_DEAD)
		link->is_dead = true;
	step(link, stim);
	xen_link_review(link);
}

void xen_link_revoke(struct xen_link *link, enum exit_status status,
		     const char *why)
{
	/* Of one that is destroyed this may be the first that is heard. */
	xen_link_review(link);
	if (link->state == XEN_LINK_STARTING || link->state == XEN_LINK_OPEN ||
	    link->state == XEN_LINK_WAITING)
		replace_reason(link, status, why);
	step(link, XEN_LINK_ON_REVOKE);
	xen_link_review(link);
}

void xen_link_ended(struct xen_link *link, enum exit_status status,
		    const char *why)
{
	set_reason(link, status, why);
	step(link, XEN_LINK_ON_ENDED);
	xen_link_review(link);
}

/* ---- life ---- */

/* Our node as the manager before left it. */
static int read_our_node(struct xen_link *l, struct handshake_word *ret_word,
			 bool *ret_is_there)
{
	char text[HANDSHAKE_WORD_BYTES];
	int r = store_read(l->options.store, l->our_node, text, sizeof(text));

	*ret_word = (struct handshake_word){ .verb = HANDSHAKE_NONE };
	*ret_is_there = r != -ENOENT;
	if (r >= 0)
		(void)handshake_parse(text, ret_word);
	return r == -ENOENT || r == -EMSGSIZE || r == -EBADMSG || r >= 0 ? 0
									 : r;
}

static void begin(struct xen_link *l, enum xen_link_heir heir, uint64_t epoch,
		  const struct handshake_word *ours)
{
	bool is_open = ours->verb == HANDSHAKE_OPEN;

	if (heir != XEN_LINK_NO_SESSION) {
		l->epoch = epoch;
		l->state = XEN_LINK_OPEN;
		if (heir == XEN_LINK_SESSION && is_open && ours->epoch == epoch)
			return;
		set_reason(l, EXIT_CANNOT_REACH,
			   "the gateway was started anew in the middle of "
			   "this");
		l->state = XEN_LINK_KILLING;
		act(l, XEN_LINK_DO_KILL);
	} else if (is_open) {
		l->epoch = ours->epoch;
		l->state = XEN_LINK_CLOSED;
		set_reason(l, EXIT_CANNOT_REACH,
			   "the session and its gateway have ended");
		say(l);
	} else if (ours->verb == HANDSHAKE_CLOSED) {
		l->epoch = ours->epoch;
		l->state = XEN_LINK_CLOSED;
		set_reason(l, (enum exit_status)ours->status, ours->why);
		/* A session behind it may have left its rings. */
		say(l);
	} else {
		/* Half a grant, or nothing: it was never said to be open. */
		say(l);
	}
}

int xen_link_new(const struct xen_link_options *options,
		 enum xen_link_heir heir, uint64_t epoch,
		 struct xen_link **ret_link)
{
	struct xen_link *l = calloc(1, sizeof(*l));
	struct handshake_word ours;
	bool is_there;
	int r;

	if (!l)
		return -ENOMEM;
	l->options = *options;
	handshake_channel_path(l->our_node, options->gateway, options->guest,
			       options->channel);
	handshake_channel_path(l->guests_node, options->guest, options->gateway,
			       options->channel);
	handshake_pair_path(l->guests_folder, options->guest, options->gateway);
	handshake_name_path(l->guard, options->gateway, options->guest, "peer");
	r = read_our_node(l, &ours, &is_there);
	if (r < 0) {
		free(l);
		return r;
	}
	if (heir != XEN_LINK_NO_SESSION || is_there)
		begin(l, heir, epoch, &ours);
	*ret_link = l;
	return 0;
}

void xen_link_free(struct xen_link *link)
{
	free(link);
}

enum xen_link_state xen_link_state(const struct xen_link *link)
{
	return link->state;
}

unsigned xen_link_channel(const struct xen_link *link)
{
	return link->options.channel;
}

uint64_t xen_link_epoch(const struct xen_link *link)
{
	return link->epoch;
}

bool xen_link_is_idle(const struct xen_link *link)
{
	return link->state == XEN_LINK_IDLE && !link->is_unsaid;
}

bool xen_link_is_quiet(const struct xen_link *link)
{
	switch (link->state) {
	case XEN_LINK_STARTING:
	case XEN_LINK_OPEN:
	case XEN_LINK_WAITING:
	case XEN_LINK_REVOKED:
	case XEN_LINK_ENDING:
	case XEN_LINK_KILLING:
		return false;
	case XEN_LINK_IDLE:
	case XEN_LINK_WEDGED:
	case XEN_LINK_CLOSED:
		break;
	}
	return true;
}
