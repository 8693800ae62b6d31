/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_world.h - a guest as in guest_bed.h, and everything that can happen to it
 * as its gateway sees it: it comes, hides, dies, its number is another domain's,
 * it asks for a channel and leaves it, its session does this and that, the
 * administrator holds it and lets it go on, its rule goes, the manager is started
 * anew. Notes are no files here. Included by a test, once.
 */
#ifndef GUEST_WORLD_H
#define GUEST_WORLD_H

#include "guest_bed.h"

#include <inttypes.h>
#include <signal.h>
#include <strings.h>

#include "gateway/channel_lock.h"
#include "sequences_played.h"
#include "vchan-transport/log.h"

#define DOMID   5
#define CHANNEL 3
#define NODE    "/3"
/* More than any limit of a channel. */
#define LONG_MS 100000

enum event {
	OFFERED,
	OTHER, /* with the same number */
	STALE, /* it is, and its folder does not say so yet */
	REMOVED,
	HIDDEN,
	DEAD,
	ASK,
	LEAVE,
	GRANTED,
	ENDED,
	HOLD,
	RESUME,
	DONE,
	RESUMED,
	RULE_GONE,
	RULE_BACK,
	LOOK,
	LIMIT,
	RESTART,
	NUM_EVENTS,
};

static const char *const event_names[] = {
	[OFFERED] = "OFFERED",
	[OTHER] = "OTHER",
	[STALE] = "STALE",
	[REMOVED] = "REMOVED",
	[HIDDEN] = "HIDDEN",
	[DEAD] = "DEAD",
	[ASK] = "ASK",
	[LEAVE] = "LEAVE",
	[GRANTED] = "GRANTED",
	[ENDED] = "ENDED",
	[HOLD] = "HOLD",
	[RESUME] = "RESUME",
	[DONE] = "DONE",
	[RESUMED] = "RESUMED",
	[RULE_GONE] = "RULE_GONE",
	[RULE_BACK] = "RULE_BACK",
	[LOOK] = "LOOK",
	[LIMIT] = "LIMIT",
	[RESTART] = "RESTART",
};

static struct world {
	struct guest *guest;
	bool is_dead;
	bool has_rule;
	bool has_looked;
	bool is_granted; /* the session */
	int told;        /* the last signal that it got */
	bool is_alive;   /* it, its manager's or nobody's */
	/* Nodes are there of a manager who knew who the folder is for. */
	bool is_inherited;
	uint64_t last_epoch;
	bool is_hold_asked[2]; /* ever, for the one domain and the other */
	unsigned num_holds;    /* that the administrator waits for */
	unsigned num_resumes;  /* that he waits for */
	unsigned num_before;   /* sessions that were started */
} world;

/* ---- notes, which are files otherwise ---- */

static struct {
	bool is_there;
	bool is_locked;
	struct channel_note note;
} lock;

int channel_lock_take(const char *dir, unsigned domid, unsigned channel,
		      int *ret_fd)
{
	(void)dir;
	(void)domid;
	(void)channel;
	if (lock.is_locked)
		return -EBUSY;
	*ret_fd = dup(STDIN_FILENO);
	lock.is_there = true;
	lock.is_locked = true;
	return 0;
}

void channel_lock_release(int fd)
{
	(void)fd;
	lock.is_locked = false;
}

int channel_lock_note(int fd, struct channel_note *note)
{
	(void)fd;
	lock.note = *note;
	return 0;
}

/* It is no process, so nobody knows its number. */
int channel_lock_find(const char *dir, unsigned domid, unsigned channel,
		      struct channel_note *ret_note)
{
	(void)dir;
	(void)domid;
	(void)channel;
	lock.is_there = lock.is_locked;
	if (!lock.is_locked)
		return 0;
	*ret_note = lock.note;
	ret_note->pid = 0;
	return 1;
}

void channel_lock_remove(const char *dir, unsigned domid, unsigned channel)
{
	struct channel_note note;

	(void)channel_lock_find(dir, domid, channel, &note);
}

void channel_lock_each(const char *dir, channel_lock_cb *each, void *arg)
{
	(void)dir;
	if (lock.is_there)
		each(arg, DOMID, CHANNEL);
}

static uint64_t notes[2]; /* of the one domain, and of the other */

static uint64_t *find_note(const char *uuid)
{
	return &notes[strcmp(uuid, UUID1) != 0];
}

int hold_note_write(const char *dir, const char *uuid, uint64_t epoch,
		    char ret_gone[static STATE_NOTE_UUID_BYTES])
{
	(void)dir;
	ret_gone[0] = '\0';
	*find_note(uuid) = epoch;
	return 0;
}

uint64_t hold_note_read(const char *dir, const char *uuid)
{
	(void)dir;
	return *find_note(uuid);
}

int hold_note_remove(const char *dir, const char *uuid)
{
	(void)dir;
	*find_note(uuid) = 0;
	return 0;
}

/* ---- the world around ---- */

/* What is said of a session that is wedged is said too often here. */
void log_error(const char *fmt, ...)
{
	(void)fmt;
}

void log_warn(const char *fmt, ...)
{
	(void)fmt;
}

void log_info(const char *fmt, ...)
{
	(void)fmt;
}

void log_debug(const char *fmt, ...)
{
	(void)fmt;
}

/* The sessions here are no processes. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
int kill(pid_t pid, int signo)
{
	(void)pid;
	world.told = signo;
	return 0;
}

static void on_held(void *arg, enum exit_status status, const char *text)
{
	(void)arg;
	(void)status;
	expect(text[0] != '\0' && world.num_holds > 0, "told twice of a hold");
	world.num_holds--;
}

static void on_resumed(void *arg, enum exit_status status, const char *text)
{
	(void)arg;
	(void)status;
	expect(text[0] != '\0' && world.num_resumes > 0,
	       "told twice of a resume");
	world.num_resumes--;
}

/* ---- what can happen ---- */

static bool is_there(void)
{
	return !world.is_dead && memory_has(THEIRS) && memory_has(OURS "/peer");
}

static const char *folders_uuid(void)
{
	const char *peer = memory_get(OURS "/peer");

	return peer ? peer : "";
}

static void show(const char *uuid, const char *folders)
{
	char text[64];

	world.is_dead = false;
	memory_is_dead = false;
	(void)snprintf(text, sizeof(text), "/vm/%s", uuid);
	memory_set("/local/domain/5/vm", text);
	memory_set(THEIRS, "");
	(void)snprintf(text, sizeof(text), "%s u1", folders);
	memory_set(OURS "/peer", text);
}

static void hide(void)
{
	memory_remove("/local/domain/5");
	memory_set("/local/domain", "");
}

static void say_in(const char *node, const char *verb, uint64_t epoch)
{
	char text[HANDSHAKE_WORD_BYTES];

	(void)snprintf(text, sizeof(text), "%016" PRIx64 " %s", epoch, verb);
	memory_set(node, text);
	guest_mark(world.guest);
}

static struct handshake_word word_in(const char *node)
{
	struct handshake_word word = { .verb = HANDSHAKE_NONE };
	const char *text = memory_get(node);

	if (text)
		(void)handshake_parse(text, &word);
	return word;
}

static void set_rule(bool has_rule)
{
	world.has_rule = has_rule;
	(void)snprintf(config.virtuals[0].to.domains.names[0],
		       POLICY_NAME_BYTES, "%s", has_rule ? "u1" : "nobody");
	guest_apply_config(world.guest);
}

/*
 * What is due later is as far away behind it, and so is the next look: time that
 * passes otherwise makes no difference.
 */
static void take_a_look(void)
{
	const uint64_t ms = 2ull * GUEST_LOOK_MS;

	for (struct loop_timer *t = fake_timers; t; t = t->next)
		if (t->due_ms > fake_now_ms + GUEST_LOOK_MS &&
		    t->due_ms < fake_now_ms + LONG_MS)
			t->due_ms += ms;
	fake_loop_run(ms);
}

static void reach_limit(void)
{
	const struct loop_timer *next = fake_loop_next(fake_now_ms + LONG_MS);

	if (next)
		fake_loop_run(next->due_ms - fake_now_ms);
	take_a_look();
}

static void restart(void)
{
	guest_free(world.guest);
	world.num_holds = 0;
	world.num_resumes = 0;
	memory_num_watches = 0;
	world.guest = new_guest();
	take_a_look();
	world.is_inherited = guest_is_absent(world.guest);
}

/* Of one that nobody waits for the lock is seen to be free, every 10 s. */
static void end_it(void)
{
	world.is_alive = false;
	world.told = 0;
	if (session_of(CHANNEL)) {
		end_session(CHANNEL);
		return;
	}
	lock.is_locked = false;
	guest_poll(world.guest);
	if (guest_is_absent(world.guest))
		channel_lock_remove("", DOMID, CHANNEL);
}

static bool has_due_timer(void)
{
	return fake_loop_next(fake_now_ms + LONG_MS) != NULL;
}

static bool can_happen(enum event event)
{
	const struct fake_session *s = session_of(CHANNEL);
	bool is_served = guest_is_served(world.guest, NULL);
	enum handshake_verb asked = word_in(OURS "/hold").verb;

	switch (event) {
	case OFFERED:
	case OTHER:
		return true;
	case STALE:
		return is_there();
	case REMOVED:
		return memory_has(OURS "/peer");
	case HIDDEN:
		return memory_has("/local/domain/5");
	case DEAD:
		return !world.is_dead;
	case ASK:
		return is_there();
	case LEAVE:
		return memory_has(THEIRS NODE);
	case GRANTED:
		return s && !world.is_granted;
	case ENDED:
		return world.is_alive;
	case HOLD:
		return is_served && world.num_holds == 0;
	case RESUME:
		return is_served && world.num_resumes == 0;
	case DONE:
		return is_there() && asked == HANDSHAKE_HOLD;
	case RESUMED:
		return is_there() && asked == HANDSHAKE_RESUME;
	case RULE_GONE:
		return world.has_rule;
	case RULE_BACK:
		return !world.has_rule;
	case LOOK:
		return !world.has_looked;
	case LIMIT:
		return has_due_timer();
	case RESTART:
		return true;
	case NUM_EVENTS:
		break;
	}
	return false;
}

static void happen_to_domain(enum event event)
{
	switch (event) {
	case OFFERED:
		show(UUID1, UUID1);
		break;
	case OTHER:
		show(UUID2, UUID2);
		break;
	case STALE:
		show(UUID2, folders_uuid());
		break;
	case REMOVED:
		memory_remove(OURS);
		break;
	case HIDDEN:
		hide();
		guest_mark(world.guest);
		return;
	default:
		hide();
		world.is_dead = true;
		memory_is_dead = true;
		break;
	}
	guest_check(world.guest);
}

static void note_hold(void)
{
	struct xen_guest id;

	if (guest_is_served(world.guest, &id))
		world.is_hold_asked[strcmp(id.uuid, UUID1) != 0] = true;
}

static void happen(enum event event)
{
	world.has_looked = event == LOOK || event == LIMIT;
	if (!session_of(CHANNEL))
		world.told = 0;
	switch (event) {
	case ASK:
		say_in(THEIRS NODE, "ask 0", ++world.last_epoch);
		break;
	case LEAVE:
		memory_remove(THEIRS NODE);
		guest_mark(world.guest);
		break;
	case GRANTED:
		world.is_granted = true;
		grant(CHANNEL);
		break;
	case ENDED:
		end_it();
		break;
	case HOLD:
		world.num_holds++;
		note_hold();
		assert_int_equal(guest_hold(world.guest, on_held, NULL), 0);
		expect(world.num_holds > 0, "told of a hold as it was asked");
		break;
	case RESUME:
		world.num_resumes++;
		assert_int_equal(guest_resume(world.guest, on_resumed, NULL),
				 0);
		expect(world.num_resumes > 0,
		       "told of a resume as it was asked");
		break;
	case DONE:
	case RESUMED:
		say_in(THEIRS "/hold", event == DONE ? "done" : "resumed",
		       word_in(OURS "/hold").epoch);
		break;
	case RULE_GONE:
	case RULE_BACK:
		set_rule(event == RULE_BACK);
		break;
	case LOOK:
		take_a_look();
		break;
	case LIMIT:
		reach_limit();
		break;
	case RESTART:
		restart();
		break;
	default:
		happen_to_domain(event);
		break;
	}
	if (num_started == world.num_before)
		return;
	world.is_alive = true;
	world.is_granted = false;
}

#endif
