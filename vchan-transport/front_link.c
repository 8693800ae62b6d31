/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/front_link.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vchan-transport/log.h"
#include "vchan-transport/store.h"

#define ASK_LIMIT_MS   10000u
#define LEAVE_LIMIT_MS 2000u

/* Processes that disturb each other's transactions go apart. */
#define SAY_PAUSE_US    5000u
#define SAY_PAUSE_STEPS 16u

void front_link_init(struct front_link *link, const struct front_link_ops *ops,
		     uint32_t ring_bytes)
{
	*link = (struct front_link){ .ops = ops,
				     .ring_bytes = ring_bytes,
				     .limit_at_ms = FRONT_LINK_NEVER_MS };
}

void front_link_place(struct front_link *link, unsigned guest, unsigned gateway,
		      unsigned channel)
{
	link->guest = guest;
	link->gateway = gateway;
	link->channel = channel;
	handshake_pair_path(link->folder, guest, gateway);
	handshake_pair_path(link->gateway_folder, gateway, guest);
	handshake_channel_path(link->own_node, guest, gateway, channel);
	handshake_channel_path(link->gateway_node, gateway, guest, channel);
}

void front_link_set_reason(struct front_link *link, int error,
			   enum exit_status status, const char *fmt, ...)
{
	va_list args;

	link->error = error;
	link->reason.status = status;
	va_start(args, fmt);
	(void)vsnprintf(link->reason.why, sizeof(link->reason.why), fmt, args);
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

void front_link_lose_store(struct front_link *link, int error)
{
	front_link_set_reason(link, error, EXIT_CANNOT_REACH,
			      "xenstore does not answer: %s", strerror(-error));
	if (error == -ECONNRESET) {
		store_close(link->store);
		link->store = NULL;
	}
}

/* The store does not answer as it should: then nothing is known. */
static enum front_stim know_nothing(struct front_link *l, int error)
{
	front_link_lose_store(l, error);
	return FRONT_ON_UNOFFERED;
}

static enum front_stim judge_word(struct front_link *l, const char *text)
{
	struct handshake_word word;

	if (handshake_parse(text, &word) && word.epoch == l->epoch) {
		if (word.verb == HANDSHAKE_OPEN)
			return FRONT_ON_OPEN;
		if (word.verb == HANDSHAKE_CLOSED) {
			front_link_set_reason(l, error_of_status(word.status),
					      (enum exit_status)word.status,
					      "%s", word.why);
			return FRONT_ON_CLOSED;
		}
	}
	front_link_set_reason(l, -ECONNRESET, EXIT_CANNOT_REACH,
			      "the gateway has given the channel up");
	return FRONT_ON_OTHER;
}

/* The gateway has no word for us: because it does not know us? */
static enum front_stim judge_absence(struct front_link *l)
{
	const char *const folders[] = { l->folder, l->gateway_folder };

	for (size_t i = 0; i < 2; i++) {
		char text[HANDSHAKE_WORD_BYTES];
		int r = store_read(l->store, folders[i], text, sizeof(text));

		if (r == -ENOENT || r == -EACCES) {
			front_link_set_reason(
				l, -ENOENT, EXIT_CANNOT_REACH,
				"domain %u offers nothing to this domain: "
				"is xusbip-gateway running there with a "
				"rule that names this domain?",
				l->gateway);
			return FRONT_ON_UNOFFERED;
		}
		if (r < 0 && r != -EMSGSIZE && r != -EBADMSG)
			return know_nothing(l, r);
	}
	front_link_set_reason(l, -ECONNRESET, EXIT_CANNOT_REACH,
			      "the gateway is gone, or was started anew");
	return FRONT_ON_ABSENT;
}

static enum front_stim look(struct front_link *l)
{
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	if (!l->store)
		return FRONT_ON_UNOFFERED;
	r = store_domid(l->store);
	if (r < 0)
		return know_nothing(l, r);
	if ((unsigned)r != l->guest) {
		front_link_set_reason(l, -ECONNRESET, EXIT_CANNOT_REACH,
				      "this domain was restored or has moved");
		return FRONT_ON_UNOFFERED;
	}
	r = store_read(l->store, l->gateway_node, text, sizeof(text));
	if (r == -ENOENT || r == -EACCES)
		return judge_absence(l);
	if (r >= 0)
		return judge_word(l, text);
	if (r == -EMSGSIZE || r == -EBADMSG)
		return judge_word(l, "");
	return know_nothing(l, r);
}

/* ---- the machine -------------------------------------------------------- */

/* Our node, as long as our folder is there: 0 or -errno. */
static int write_word(struct front_link *l, enum handshake_verb verb)
{
	struct handshake_word word = { .verb = verb,
				       .epoch = l->epoch,
				       .ring_bytes = l->ring_bytes };
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	handshake_format(text, &word);
	for (;;) {
		r = store_write_under(l->store, l->folder, l->own_node, text);
		if (r != -EAGAIN || clock_ms() >= l->limit_at_ms)
			return r;
		(void)usleep(SAY_PAUSE_US *
			     (1 + (unsigned)getpid() % SAY_PAUSE_STEPS));
	}
}

static void say(struct front_link *l, enum handshake_verb verb)
{
	int r = write_word(l, verb);

	if (r == 0)
		return;
	if (r == -ENOENT || r == -EACCES)
		(void)judge_absence(l);
	else if (r == -ENOSPC)
		front_link_set_reason(
			l, r, EXIT_FAILED,
			"this domain has used up its quota in xenstore");
	else
		front_link_lose_store(l, r);
	front_link_feed(l, FRONT_ON_UNOFFERED);
}

static void set_limit(struct front_link *l, unsigned after_ms)
{
	l->limit_at_ms = clock_ms() + after_ms;
}

static void ask(struct front_link *l)
{
	set_limit(l, ASK_LIMIT_MS);
	l->epoch = handshake_new_epoch();
	say(l, HANDSHAKE_ASK);
}

static void remove_node(struct front_link *l)
{
	if (l->store)
		(void)store_remove(l->store, l->own_node);
}

static void act(struct front_link *l, enum front_act action)
{
	switch (action) {
	case FRONT_DO_NONE:
		break;
	case FRONT_DO_ASK:
		ask(l);
		break;
	case FRONT_DO_MAP:
		l->ops->offer(l, 0);
		break;
	case FRONT_DO_SAY_UP:
		say(l, HANDSHAKE_UP);
		if (l->state == FRONT_UP)
			l->limit_at_ms = FRONT_LINK_NEVER_MS;
		break;
	case FRONT_DO_REFUSE:
		l->ops->offer(l, l->error);
		remove_node(l);
		break;
	case FRONT_DO_HANG_UP:
		l->ops->hang_up(l);
		set_limit(l, LEAVE_LIMIT_MS);
		break;
	case FRONT_DO_KILL:
		l->ops->kill(l);
		set_limit(l, LEAVE_LIMIT_MS);
		break;
	case FRONT_DO_REMOVE:
		remove_node(l);
		break;
	case FRONT_DO_BUG:
		assert(!"the table of the front was left");
		break;
	}
}

void front_link_feed(struct front_link *link, enum front_stim stim)
{
	struct front_step step = front_fsm_step(link->state, stim);

	if (step.next != link->state) {
		log_debug("channel %u to domain %u: %s + %s -> %s",
			  link->channel, link->gateway,
			  front_state_name(link->state), front_stim_name(stim),
			  front_state_name(step.next));
		link->looks = 0;
	}
	link->state = step.next;
	act(link, step.act);
}

void front_link_review(struct front_link *link)
{
	enum front_state state;

	link->looks++;
	do {
		state = link->state;
		front_link_feed(link, look(link));
	} while (link->state != state && link->state != FRONT_DONE);
}

void front_link_fail(struct front_link *link)
{
	front_link_set_reason(link, -EIO, EXIT_FAILED,
			      "the rings cannot be mapped");
	front_link_feed(link, FRONT_ON_FAILED);
}

void front_link_limit(struct front_link *link)
{
	front_link_set_reason(link, -ETIMEDOUT, EXIT_TIMEOUT,
			      "the gateway did not answer within %u s",
			      ASK_LIMIT_MS / 1000);
	front_link_feed(link, FRONT_ON_LIMIT);
}
