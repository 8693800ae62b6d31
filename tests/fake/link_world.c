/* SPDX-License-Identifier: Apache-2.0 */
/* See link_world.h. */
#include "tests/fake/link_world.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "gateway/xen_link.h"

#define OURS        "/local/domain/0/data/xusbip/5"
#define THEIRS      "/local/domain/5/data/xusbip/0"
#define OTHER_EPOCH 0xfeedu

enum event {
	ASK,
	ASK_AGAIN,
	UP,
	UP_OTHER,
	GARBAGE,
	LEAVE,
	FOLDER_GONE,
	FOLDER_BACK,
	GRANTED,
	ENDED,
	REVOKE,
	DEAD,
	LIMIT,
	RESTART,
	RESTART_ALONE,
	NUM_EVENTS,
};

static const char *const event_names[] = {
	[ASK] = "ASK",
	[ASK_AGAIN] = "ASK_AGAIN",
	[UP] = "UP",
	[UP_OTHER] = "UP_OTHER",
	[GARBAGE] = "GARBAGE",
	[LEAVE] = "LEAVE",
	[FOLDER_GONE] = "FOLDER_GONE",
	[FOLDER_BACK] = "FOLDER_BACK",
	[GRANTED] = "GRANTED",
	[ENDED] = "ENDED",
	[REVOKE] = "REVOKE",
	[DEAD] = "DEAD",
	[LIMIT] = "LIMIT",
	[RESTART] = "RESTART",
	[RESTART_ALONE] = "RESTART_ALONE",
};

/* The one link, its session, and what has happened to them. */
static struct {
	struct store *store;
	struct xen_link *link;
	bool is_alive; /* the session */
	bool is_granted;
	bool is_told; /* to end */
	bool is_killed;
	uint64_t serves;
	bool is_limited;
	bool is_dead; /* the guest */
	bool has_folder;
	uint64_t last_epoch;
	const uint8_t *events; /* that are played */
	size_t length;
	size_t at;
	struct link_world_result *result;
	jmp_buf end;
} world;

static const struct sequences_game game;

/* Ends the game. */
_Noreturn static void fail(const char *what)
{
	char *text = world.result->failure;
	size_t cap = sizeof(world.result->failure);
	size_t used = (size_t)snprintf(text, cap, "%s, after ", what);
	size_t to = world.at < world.length ? world.at + 1 : world.length;

	sequences_tell(&game, world.events, to, text + used, cap - used);
	longjmp(world.end, 1);
}

void link_world_fail(const char *what)
{
	fail(what);
}

static void expect(bool is_true, const char *what)
{
	if (!is_true)
		fail(what);
}

/* ---- the session ---- */

static int on_start(void *arg, struct xen_link *link, uint32_t ring_bytes,
		    enum exit_status *ret_status,
		    char why[static HANDSHAKE_WHY_BYTES])
{
	(void)arg;
	(void)ring_bytes;
	*ret_status = EXIT_OK;
	why[0] = '\0';
	expect(!world.is_alive, "a second session was started");
	world.is_alive = true;
	world.is_granted = false;
	world.is_told = false;
	world.is_killed = false;
	world.serves = xen_link_epoch(link);
	return 0;
}

static void on_terminate(void *arg, struct xen_link *link)
{
	(void)arg;
	(void)link;
	expect(world.is_alive, "a session that is not there was to end");
	world.is_told = true;
}

static void on_kill(void *arg, struct xen_link *link)
{
	on_terminate(arg, link);
	world.is_killed = true;
}

static void on_set_limit(void *arg, struct xen_link *link, unsigned after_ms)
{
	(void)arg;
	(void)link;
	world.is_limited = after_ms > 0;
}

static const struct xen_link_ops ops = { on_start, on_terminate, on_kill,
					 on_set_limit };

/* ---- the store ---- */

static void write_node(const char *path, const char *value)
{
	expect(store_write(world.store, path, value) == 0, "store_write");
}

static void remove_node(const char *path)
{
	expect(store_remove(world.store, path) == 0, "store_remove");
}

static bool has_node(const char *path)
{
	char text[HANDSHAKE_WORD_BYTES];

	return store_read(world.store, path, text, sizeof(text)) != -ENOENT;
}

static struct handshake_word read_word(const char *path)
{
	char text[HANDSHAKE_WORD_BYTES];
	struct handshake_word word = { .verb = HANDSHAKE_NONE };

	if (store_read(world.store, path, text, sizeof(text)) >= 0)
		(void)handshake_parse(text, &word);
	return word;
}

static void guest_says(const char *verb, uint64_t epoch)
{
	char text[HANDSHAKE_WORD_BYTES];

	(void)snprintf(text, sizeof(text), "%016" PRIx64 " %s", epoch, verb);
	write_node(THEIRS "/3", text);
	xen_link_review(world.link);
}

static void make_folder(void)
{
	write_node(OURS "/peer", "UUID u1");
	write_node(THEIRS, "");
	world.has_folder = true;
}

/* ---- what can happen ---- */

static uint64_t latest_epoch(void)
{
	if (world.last_epoch == 0)
		world.last_epoch++;
	return world.last_epoch;
}

static void make_link(enum xen_link_heir heir)
{
	const struct xen_link_options options = {
		.store = world.store,
		.ops = &ops,
		.guest = 5,
		.channel = 3,
		.who = "domain 5 (u1)",
	};

	world.is_limited = false;
	world.link = NULL;
	expect(xen_link_new(&options, heir, world.serves, &world.link) == 0,
	       "no link can be made");
	xen_link_review(world.link);
}

static void restart(bool has_session)
{
	xen_link_free(world.link);
	if (!has_session) {
		world.is_alive = false;
		world.serves = 0;
	}
	make_link(has_session ? XEN_LINK_SESSION : XEN_LINK_NO_SESSION);
}

static bool can_happen(enum event event)
{
	switch (event) {
	case FOLDER_GONE:
		return world.has_folder;
	case FOLDER_BACK:
		return !world.has_folder;
	case GRANTED:
		return world.is_alive && !world.is_granted;
	case ENDED:
		return world.is_alive;
	case LIMIT:
		return world.is_limited;
	case DEAD:
		return !world.is_dead;
	case RESTART:
		return world.is_alive && !world.is_dead;
	case RESTART_ALONE:
		return !world.is_dead;
	default:
		return true;
	}
}

static void end_session(void)
{
	world.is_alive = false;
	world.serves = 0;
	xen_link_ended(world.link, EXIT_OK, "it has ended");
}

/*
 * As libxenvchan does: it does not know that the folder may be gone. Of one that
 * was killed only the message may be on its way.
 */
static void grant(void)
{
	if (!world.is_killed) {
		write_node(OURS "/3/ring-ref", "8");
		write_node(OURS "/3/event-channel", "9");
	}
	world.is_granted = true;
	xen_link_feed(world.link, XEN_LINK_ON_GRANTED);
}

static void remove_folder(void)
{
	remove_node(OURS);
	remove_node(THEIRS);
	world.has_folder = false;
	xen_link_review(world.link);
}

static void happen(enum event event)
{
	switch (event) {
	case ASK:
		guest_says("ask 0", ++world.last_epoch);
		break;
	case ASK_AGAIN:
		guest_says("ask 0", latest_epoch());
		break;
	case UP:
		guest_says("up", latest_epoch());
		break;
	case UP_OTHER:
		guest_says("up", OTHER_EPOCH);
		break;
	case GARBAGE:
		write_node(THEIRS "/3", "what is no word");
		xen_link_review(world.link);
		break;
	case LEAVE:
		remove_node(THEIRS "/3");
		xen_link_review(world.link);
		break;
	case FOLDER_GONE:
		remove_folder();
		break;
	case FOLDER_BACK:
		make_folder();
		xen_link_review(world.link);
		break;
	case GRANTED:
		grant();
		break;
	case ENDED:
		end_session();
		break;
	case REVOKE:
		xen_link_revoke(world.link, EXIT_BUSY, "for a reason");
		break;
	case DEAD:
		world.is_dead = true;
		xen_link_feed(world.link, XEN_LINK_ON_DEAD);
		break;
	case LIMIT:
		world.is_limited = false;
		xen_link_feed(world.link, XEN_LINK_ON_LIMIT);
		break;
	case RESTART:
	case RESTART_ALONE:
		restart(event == RESTART);
		break;
	case NUM_EVENTS:
		break;
	}
}

/* ---- what must be true ---- */

static void judge_node(enum xen_link_state state, bool is_sure)
{
	struct handshake_word ours = read_word(OURS "/3");
	uint64_t epoch = xen_link_epoch(world.link);

	switch (state) {
	case XEN_LINK_IDLE:
		expect(!has_node(OURS "/3"), "an idle link has a node");
		expect(epoch == 0, "an idle link has an epoch");
		break;
	case XEN_LINK_OPEN:
	case XEN_LINK_WAITING:
	case XEN_LINK_REVOKED:
		expect(epoch == world.serves, "open, for another epoch");
		expect(!is_sure || (ours.verb == HANDSHAKE_OPEN &&
				    ours.epoch == epoch),
		       "open, and our node does not say so");
		break;
	case XEN_LINK_CLOSED:
	case XEN_LINK_WEDGED:
		expect(!is_sure || epoch == 0 ||
			       (ours.verb == HANDSHAKE_CLOSED &&
				ours.epoch == epoch),
		       "closed, and our node does not say so");
		expect(!has_node(OURS "/3/ring-ref"), "closed, with rings");
		break;
	case XEN_LINK_STARTING:
	case XEN_LINK_ENDING:
	case XEN_LINK_KILLING:
		break;
	}
}

/* Who asks, or says up, is served, waited for, or answered. */
static void judge_answer(enum xen_link_state state)
{
	struct handshake_word theirs = read_word(THEIRS "/3");
	bool is_question = theirs.verb == HANDSHAKE_ASK ||
			   theirs.verb == HANDSHAKE_UP;

	if (!is_question || world.is_dead)
		return;
	expect(state != XEN_LINK_IDLE, "a word without an answer");
	if (state == XEN_LINK_CLOSED || state == XEN_LINK_OPEN ||
	    state == XEN_LINK_WEDGED)
		expect(theirs.epoch == xen_link_epoch(world.link),
		       "an answer for another epoch");
}

/* What has to end ends, and what has to go on goes on. */
static void judge_direction(enum xen_link_state state)
{
	struct handshake_word theirs = read_word(THEIRS "/3");
	bool is_served = state == XEN_LINK_STARTING || state == XEN_LINK_OPEN;
	bool is_seen = has_node(THEIRS);
	bool is_killed = state == XEN_LINK_KILLING || state == XEN_LINK_WEDGED;

	expect(is_seen ? state != XEN_LINK_WAITING && state != XEN_LINK_REVOKED
		       : state != XEN_LINK_OPEN,
	       "it is wrong about whether the guest is to be seen");
	expect(state != XEN_LINK_ENDING || world.is_told,
	       "the session was not told to end");
	expect(!is_killed || world.is_killed, "the session was not killed");
	if (world.is_dead)
		expect(state == XEN_LINK_IDLE || is_killed,
		       "the guest is dead, and its link lives");
	else if (is_served && is_seen)
		expect((theirs.verb == HANDSHAKE_ASK ||
			theirs.verb == HANDSHAKE_UP) &&
			       theirs.epoch == xen_link_epoch(world.link),
		       "served, and does not ask for it");
}

static void judge_event(enum event event, enum xen_link_state before)
{
	enum xen_link_state state = xen_link_state(world.link);

	if (event == REVOKE)
		expect(state != XEN_LINK_STARTING && state != XEN_LINK_OPEN &&
			       state != XEN_LINK_WAITING,
		       "it was revoked and goes on");
	if (event == GRANTED)
		expect(state != XEN_LINK_STARTING, "a grant was missed");
	if (event == LIMIT)
		expect(state != before, "there is no limit");
}

static void judge(bool is_node_sure)
{
	enum xen_link_state state = xen_link_state(world.link);
	bool has_session = state != XEN_LINK_IDLE && state != XEN_LINK_CLOSED;
	bool is_limited = state == XEN_LINK_STARTING ||
			  state == XEN_LINK_WAITING ||
			  state == XEN_LINK_REVOKED ||
			  state == XEN_LINK_ENDING || state == XEN_LINK_KILLING;

	expect(has_session == world.is_alive, "it is wrong about its session");
	expect(is_limited == world.is_limited, "a limit too many or too few");
	expect(xen_link_is_quiet(world.link) ==
		       (!world.is_alive || state == XEN_LINK_WEDGED),
	       "it is wrong about being quiet");
	judge_node(state, is_node_sure);
	judge_answer(state);
	judge_direction(state);
}

/* Nothing stays when the guest leaves and the session ends. */
static void judge_end(void)
{
	write_node(THEIRS, "");
	remove_node(THEIRS "/3");
	xen_link_review(world.link);
	if (world.is_alive)
		end_session();
	expect(xen_link_is_idle(world.link), "something stays of the link");
	expect(!has_node(OURS "/3"), "a node of ours stays");
	expect(has_node(OURS "/peer") == world.has_folder,
	       "a folder came back");
}

/* ---- playing ---- */

/* Which of the epochs before it, or of itself, each one is; 0: none. */
static void note_epochs(char *key, size_t bytes, const uint64_t *epochs,
			size_t count)
{
	size_t used = 0;

	for (size_t i = 0; i < count && used < bytes; i++) {
		size_t same = 0;

		while (epochs[same] != epochs[i])
			same++;
		used += (size_t)snprintf(key + used, bytes - used, " %zu",
					 epochs[i] == 0 ? 0 : same + 1);
	}
}

/*
 * All that what comes next can depend on: the link and its session, what stands
 * in both nodes and whether their folders are there, and which epochs are equal.
 * Why something ends is only said.
 */
static void note_key(char key[static SEQUENCES_KEY_BYTES])
{
	struct handshake_word ours = read_word(OURS "/3");
	struct handshake_word theirs = read_word(THEIRS "/3");
	const uint64_t epochs[] = { OTHER_EPOCH,  world.last_epoch,
				    world.serves, xen_link_epoch(world.link),
				    ours.epoch,   theirs.epoch };
	int used;

	used = snprintf(key, SEQUENCES_KEY_BYTES,
			"%d session %d%d%d%d is %d our %d%d%d%d %d their "
			"%d%d %d epochs",
			(int)xen_link_state(world.link), world.is_alive,
			world.is_granted, world.is_told, world.is_killed,
			world.is_dead, world.has_folder, has_node(OURS),
			has_node(OURS "/3"), has_node(OURS "/3/ring-ref"),
			(int)ours.verb, has_node(THEIRS), has_node(THEIRS "/3"),
			(int)theirs.verb);
	note_epochs(key + used, SEQUENCES_KEY_BYTES - (size_t)used, epochs,
		    sizeof(epochs) / sizeof(epochs[0]));
}

static void begin(const uint8_t *events, size_t length)
{
	world.is_alive = false;
	world.is_granted = false;
	world.is_told = false;
	world.is_killed = false;
	world.serves = 0;
	world.is_dead = false;
	world.last_epoch = 0;
	world.events = events;
	world.length = length;
	world.at = 0;
	remove_node(OURS);
	remove_node(THEIRS);
	make_folder();
	make_link(XEN_LINK_NO_SESSION);
}

/* The events that can happen now, each a bit. */
static uint32_t find_possible(void)
{
	uint32_t possible = 0;

	for (int event = 0; event < NUM_EVENTS; event++) {
		if (can_happen((enum event)event))
			possible |= 1u << event;
	}
	return possible;
}

static uint32_t play(const uint8_t *events, size_t length,
		     char ret_key[static SEQUENCES_KEY_BYTES])
{
	bool is_node_sure = true;
	uint32_t possible;

	begin(events, length);
	for (; world.at < length; world.at++) {
		enum event event = (enum event)events[world.at];
		enum xen_link_state before = xen_link_state(world.link);

		happen(event);
		/* What is not there is written at the next change. */
		if (event == FOLDER_GONE)
			is_node_sure = false;
		if (world.at + 1 < length)
			continue;
		judge(is_node_sure);
		judge_event(event, before);
	}
	possible = find_possible();
	note_key(ret_key);
	judge_end();
	xen_link_free(world.link);
	world.link = NULL;
	return possible;
}

static const struct sequences_game game = { NUM_EVENTS, event_names, play,
					    fail };

static void prepare(struct store *store, struct link_world_result *result)
{
	memset(result, 0, sizeof(*result));
	memset(&world, 0, sizeof(world));
	world.store = store;
	world.result = result;
}

bool link_world_play_first(struct store *store,
			   struct link_world_result *ret_result)
{
	prepare(store, ret_result);
	if (setjmp(world.end) == 0) {
		sequences_play_first(&game, SEQUENCES_MAX_LENGTH,
				     &ret_result->played);
		return !ret_result->played.is_cut;
	}
	xen_link_free(world.link);
	return false;
}

bool link_world_play_all(struct store *store, size_t length,
			 struct link_world_result *ret_result)
{
	prepare(store, ret_result);
	if (setjmp(world.end) == 0) {
		sequences_play_all(&game, length, &ret_result->played);
		return true;
	}
	xen_link_free(world.link);
	return false;
}
