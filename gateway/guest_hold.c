/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_hold.h. */
#include "gateway/guest_hold.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/hold_note.h"
#include "vchan-transport/log.h"

struct asker {
	struct asker *next;
	bool is_for_hold;
	xen_done_cb *on_done;
	void *arg;
};

struct guest_hold {
	const struct guest_env *env;
	unsigned domid;
	char uuid[40];
	char our_node[HANDSHAKE_PATH_BYTES];
	char guests_node[HANDSHAKE_PATH_BYTES];
	char guard[HANDSHAKE_PATH_BYTES];
	struct handshake_word word; /* what we say; NONE: nothing yet */
	bool is_unsaid;             /* the store did not take it */
	bool is_unanswered;         /* the agent's time is over */
	struct asker *askers;
};

/* ---- askers ---- */

/* Whoever is told may ask again from within: the list is emptied first. */
static void tell(struct guest_hold *h, bool is_for_hold,
		 enum exit_status status, const char *text)
{
	struct asker **at = &h->askers;
	struct asker *told = NULL;

	while (*at) {
		struct asker *a = *at;

		if (a->is_for_hold != is_for_hold) {
			at = &a->next;
			continue;
		}
		*at = a->next;
		a->next = told;
		told = a;
	}
	while (told) {
		struct asker *a = told;

		told = a->next;
		a->on_done(a->arg, status, text);
		free(a);
	}
}

/* ---- words ---- */

static void say(struct guest_hold *h)
{
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	handshake_format(text, &h->word);
	r = store_write_under(h->env->store, h->guard, h->our_node, text);
	if (r < 0 && r != -ENOENT && !h->is_unsaid)
		log_warn("domain %u: xenstore: %s cannot be written: %s; it is "
			 "tried again",
			 h->domid, h->our_node, strerror(-r));
	h->is_unsaid = r < 0 && r != -ENOENT;
}

static void say_new(struct guest_hold *h, enum handshake_verb verb,
		    uint64_t epoch)
{
	h->word = (struct handshake_word){ .verb = verb, .epoch = epoch };
	say(h);
}

static struct handshake_word read_word(const struct guest_hold *h,
				       const char *path)
{
	struct handshake_word word = { .verb = HANDSHAKE_NONE };
	char text[HANDSHAKE_WORD_BYTES];

	if (store_read(h->env->store, path, text, sizeof(text)) >= 0)
		(void)handshake_parse(text, &word);
	return word;
}

bool guest_hold_begin(struct guest_hold *hold, const char *uuid)
{
	bool is_held = hold_note_read(hold->env->state_dir, uuid) != 0;

	(void)snprintf(hold->uuid, sizeof(hold->uuid), "%s", uuid);
	hold->word = read_word(hold, hold->our_node);
	hold->is_unsaid = false;
	/* A manager was killed in the middle of letting it go on. */
	if (!is_held && hold->word.verb == HANDSHAKE_HOLD)
		say_new(hold, HANDSHAKE_RESUME, handshake_new_epoch());
	return is_held;
}

static void note(const struct guest_hold *h, uint64_t epoch)
{
	const char *dir = h->env->state_dir;
	char gone[STATE_NOTE_UUID_BYTES];
	int r = hold_note_write(dir, h->uuid, epoch, gone);

	if (gone[0] != '\0')
		log_warn("%s: will not be held when it comes back: of %d that "
			 "are, it was seen longest ago",
			 gone, HOLD_NOTE_MAX);
	if (r < 0)
		log_warn("domain %u: cannot be noted as held in %s: %s; it "
			 "will not be when it comes back",
			 h->domid, dir, strerror(-r));
}

void guest_hold_ask(struct guest_hold *hold)
{
	uint64_t epoch = hold_note_read(hold->env->state_dir, hold->uuid);

	/* An agent that has answered that one need not do so again. */
	if (epoch == 0)
		epoch = handshake_new_epoch();
	hold->is_unanswered = false;
	note(hold, epoch);
	say_new(hold, HANDSHAKE_HOLD, epoch);
	tell(hold, false, EXIT_FAILED, "it was told to hold meanwhile");
}

enum handshake_verb guest_hold_review(struct guest_hold *hold)
{
	struct handshake_word answer;

	if (hold->is_unsaid)
		say(hold);
	if (hold->word.verb != HANDSHAKE_HOLD && !hold->askers)
		return HANDSHAKE_NONE;
	answer = read_word(hold, hold->guests_node);
	if (answer.verb == HANDSHAKE_NONE || answer.epoch != hold->word.epoch)
		return HANDSHAKE_NONE;
	if (answer.verb == HANDSHAKE_DONE && hold->word.verb == HANDSHAKE_HOLD)
		return HANDSHAKE_DONE;
	if (answer.verb == HANDSHAKE_RESUMED &&
	    hold->word.verb == HANDSHAKE_RESUME)
		tell(hold, false, EXIT_OK, "it has taken its devices back");
	return HANDSHAKE_NONE;
}

void guest_hold_release(struct guest_hold *hold)
{
	/* The note first: without it an old hold is taken back. */
	int r = hold_note_remove(hold->env->state_dir, hold->uuid);

	if (r < 0)
		log_warn("domain %u: is held again when it comes back: "
			 "hold-%s cannot be removed from %s: %s",
			 hold->domid, hold->uuid, hold->env->state_dir,
			 strerror(-r));
	say_new(hold, HANDSHAKE_RESUME, handshake_new_epoch());
	tell(hold, true, EXIT_FAILED, "it was told to go on meanwhile");
}

/* ---- what askers are told ---- */

int guest_hold_add_asker(struct guest_hold *hold, bool is_for_hold,
			 xen_done_cb *on_done, void *arg)
{
	struct asker *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	*a = (struct asker){ .next = hold->askers,
			     .is_for_hold = is_for_hold,
			     .on_done = on_done,
			     .arg = arg };
	hold->askers = a;
	return 0;
}

void guest_hold_forget_asker(struct guest_hold *hold, const void *arg)
{
	struct asker **at = &hold->askers;

	while (*at) {
		struct asker *a = *at;

		if (a->arg == arg) {
			*at = a->next;
			free(a);
		} else {
			at = &a->next;
		}
	}
}

void guest_hold_confirm(struct guest_hold *hold)
{
	if (hold->is_unanswered)
		tell(hold, true, EXIT_TIMEOUT,
		     "it is held, but its agent did not answer: what it had "
		     "was taken from it");
	else
		tell(hold, true, EXIT_OK, "it has let go of its devices");
}

void guest_hold_unanswered(struct guest_hold *hold)
{
	hold->is_unanswered = true;
}

void guest_hold_not_resumed(struct guest_hold *hold)
{
	tell(hold, false, EXIT_TIMEOUT,
	     "it may have devices again, but its agent did not answer");
}

void guest_hold_not_held(struct guest_hold *hold)
{
	tell(hold, false, EXIT_OK, "it was not held");
}

void guest_hold_lost(struct guest_hold *hold)
{
	tell(hold, true, EXIT_CANNOT_REACH, "the domain is gone");
	tell(hold, false, EXIT_CANNOT_REACH, "the domain is gone");
}

/* ---- life ---- */

int guest_hold_new(const struct guest_env *env, unsigned domid,
		   struct guest_hold **ret_hold)
{
	struct guest_hold *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->env = env;
	h->domid = domid;
	handshake_name_path(h->our_node, env->gateway, domid, "hold");
	handshake_name_path(h->guests_node, domid, env->gateway, "hold");
	handshake_name_path(h->guard, env->gateway, domid, "peer");
	*ret_hold = h;
	return 0;
}

void guest_hold_free(struct guest_hold *hold)
{
	if (!hold)
		return;
	while (hold->askers) {
		struct asker *a = hold->askers;

		hold->askers = a->next;
		free(a);
	}
	free(hold);
}
