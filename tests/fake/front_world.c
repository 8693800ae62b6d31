/* SPDX-License-Identifier: Apache-2.0 */
/* See front_world.h. */
#include "tests/fake/front_world.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "vchan-transport/front_link.h"
#include "vchan-transport/store.h"

#define GUEST   FRONT_WORLD_GUEST
#define GATEWAY FRONT_WORLD_GATEWAY
#define CHANNEL 3u
#define OURS    "/local/domain/0/data/xusbip/5"
#define THEIRS  "/local/domain/5/data/xusbip/0"

enum event {
	START,
	START_FULL,
	OPEN,
	CLOSE,
	SAY_OTHER,
	UNSAY,
	LET_GO,
	HIDE,
	SHOW,
	MOVE,
	LOOK,
	LOOK_FAILS,
	LOOK_LOST,
	MAPPED,
	MAPPED_FULL,
	FAILED,
	LEFT,
	LIMIT,
	NUM_EVENTS,
};

static const char *const event_names[] = {
	[START] = "START",
	[START_FULL] = "START_FULL",
	[OPEN] = "OPEN",
	[CLOSE] = "CLOSE",
	[SAY_OTHER] = "SAY_OTHER",
	[UNSAY] = "UNSAY",
	[LET_GO] = "LET_GO",
	[HIDE] = "HIDE",
	[SHOW] = "SHOW",
	[MOVE] = "MOVE",
	[LOOK] = "LOOK",
	[LOOK_FAILS] = "LOOK_FAILS",
	[LOOK_LOST] = "LOOK_LOST",
	[MAPPED] = "MAPPED",
	[MAPPED_FULL] = "MAPPED_FULL",
	[FAILED] = "FAILED",
	[LEFT] = "LEFT",
	[LIMIT] = "LIMIT",
};

enum process {
	WAITS,
	MAPS,
	USES,
	COULD_NOT,
	GONE,
};

static struct {
	const struct front_world_bed *bed;
	struct front_link link;
	unsigned domid; /* that it is told */
	enum process process;
	bool is_refused;
	bool is_hung_up;
	bool is_killed;
	bool is_forgotten;     /* its node went with its folder */
	const uint8_t *events; /* that are played */
	size_t length;
	size_t at;
	jmp_buf end;
} world;

static char failure[512];

static const struct sequences_game game;

/* ---- losing ---- */

/* Ends the game. */
_Noreturn static void fail(const char *what)
{
	size_t used =
		(size_t)snprintf(failure, sizeof(failure), "%s, after ", what);
	size_t to = world.at < world.length ? world.at + 1 : world.length;

	sequences_tell(&game, world.events, to, failure + used,
		       sizeof(failure) - used);
	longjmp(world.end, 1);
}

void front_world_fail(const char *what)
{
	fail(what);
}

static void expect(bool is_true, const char *what)
{
	if (!is_true)
		fail(what);
}

/* ---- the store ---- */

static bool has_node(const char *path)
{
	char text[HANDSHAKE_WORD_BYTES];

	return store_read(world.bed->store, path, text, sizeof(text)) !=
	       -ENOENT;
}

static void write_node(const char *path, const char *value)
{
	expect(store_write(world.bed->store, path, value) == 0, "store_write");
}

static void remove_node(const char *path)
{
	expect(store_remove(world.bed->store, path) == 0, "store_remove");
}

static struct handshake_word word_in(const char *path)
{
	char text[HANDSHAKE_WORD_BYTES];
	struct handshake_word word = { .verb = HANDSHAKE_NONE };

	if (store_read(world.bed->store, path, text, sizeof(text)) >= 0)
		(void)handshake_parse(text, &word);
	return word;
}

static void show(void)
{
	write_node(THEIRS, "");
	write_node(OURS, "");
}

static void be_told(unsigned domid)
{
	world.domid = domid;
	world.bed->set_domid(domid);
}

/* ---- what must be so ---- */

static bool may_have_mapped(void)
{
	return world.process == MAPS || world.process == USES;
}

static void judge_node(void)
{
	const struct front_link *l = &world.link;
	struct handshake_word word = word_in(l->own_node);

	expect(has_node(OURS) || !has_node(l->own_node),
	       "a folder that was removed is there again");
	if (word.verb != HANDSHAKE_NONE)
		expect(word.epoch == l->epoch && word.epoch != 0,
		       "another epoch stands in our node");
	if (l->state == FRONT_UP && !world.is_forgotten)
		expect(word.verb == HANDSHAKE_UP, "it is up, and says not so");
	if ((l->state == FRONT_ASKING || l->state == FRONT_MAPPING) &&
	    !world.is_forgotten)
		expect(word.verb == HANDSHAKE_ASK, "it asks, and says not so");
	if (l->state == FRONT_DONE && l->store)
		expect(!has_node(l->own_node), "a word is left behind");
}

static void judge_process(void)
{
	const struct front_link *l = &world.link;

	if (l->state == FRONT_DONE)
		expect(!may_have_mapped(), "it is done, and may be mapped");
	if (l->state == FRONT_MAPPING)
		expect(world.process == MAPS, "nobody was told to map");
	if (l->state == FRONT_LEAVING)
		expect(world.is_hung_up, "it is to leave, and was not told");
	if (l->state == FRONT_DONE)
		expect(world.process == GONE || world.is_refused,
		       "a process waits for an answer for ever");
	if (l->state == FRONT_ASKING || l->state == FRONT_MAPPING ||
	    l->state == FRONT_LEAVING)
		expect(l->limit_at_ms != FRONT_LINK_NEVER_MS,
		       "it waits without a limit");
	if (l->state == FRONT_UP)
		expect(l->limit_at_ms == FRONT_LINK_NEVER_MS,
		       "a channel that is used has a limit");
	if (world.is_refused)
		expect(l->error < 0, "it is refused for no reason");
}

/* It has just looked: what it saw has counted. */
static void judge_look(void)
{
	const struct front_link *l = &world.link;
	struct handshake_word word = word_in(l->gateway_node);
	bool is_open = word.verb == HANDSHAKE_OPEN && word.epoch == l->epoch &&
		       world.domid == GUEST && l->store;
	bool is_closed = word.verb == HANDSHAKE_CLOSED &&
			 word.epoch == l->epoch;

	if (l->state == FRONT_UP || l->state == FRONT_MAPPING)
		expect(is_open, "it uses what is not open");
	if (l->state == FRONT_ASKING)
		expect(!is_open && !is_closed, "it was answered, and asks");
	if (l->state == FRONT_IDLE)
		expect(word.verb != HANDSHAKE_NONE ||
			       (has_node(OURS) && has_node(THEIRS)),
		       "nobody serves it, and it stays");
}

/* What just happened has counted. */
static void judge_event(enum event event)
{
	enum front_state state = world.link.state;

	if (event == START || event == START_FULL)
		expect(state != FRONT_IDLE, "it was not begun");
	if (event == LIMIT)
		expect(state == FRONT_LEAVING || state == FRONT_DONE,
		       "it waits on when its time is over");
	if (event == FAILED)
		expect(state == FRONT_LEAVING || state == FRONT_DONE,
		       "it goes on without a process that has mapped");
	if (event == LEFT)
		expect(state == FRONT_DONE, "it goes on without a process");
}

static void judge(void)
{
	judge_node();
	judge_process();
}

/* ---- the process ---- */

static void on_offer(const struct front_link *link, int error)
{
	(void)link;
	expect(!world.is_refused, "it was refused before");
	if (error == 0) {
		expect(world.process == WAITS, "it is to map twice");
		world.process = MAPS;
		return;
	}
	expect(!may_have_mapped(), "it is refused what it may have mapped");
	world.is_refused = true;
}

static void on_hang_up(const struct front_link *link)
{
	expect(!world.is_hung_up, "it is hung up on twice");
	expect(link->reason.why[0] != '\0', "it is over for no reason");
	world.is_hung_up = true;
}

static void on_kill(const struct front_link *link)
{
	(void)link;
	expect(world.is_hung_up, "it is killed unasked");
	world.is_killed = true;
}

static const struct front_link_ops ops = { on_offer, on_hang_up, on_kill };

/* ---- what can happen ---- */

static bool can_happen(enum event event)
{
	const struct front_link *l = &world.link;

	if (l->state == FRONT_DONE)
		return false;
	switch (event) {
	case START:
		return l->state == FRONT_IDLE;
	case START_FULL:
		return l->state == FRONT_IDLE && world.bed->fail_writes;
	case OPEN:
	case CLOSE:
		/* Nobody guesses an epoch; who hides has no node. */
		return l->epoch != 0 && has_node(THEIRS);
	case SAY_OTHER:
		return has_node(THEIRS);
	case UNSAY:
		return has_node(l->gateway_node);
	case LET_GO:
		return has_node(OURS);
	case HIDE:
		return has_node(THEIRS);
	case SHOW:
		return !has_node(THEIRS) || !has_node(OURS);
	case MOVE:
		return world.domid == GUEST;
	case LOOK:
		return true;
	case LOOK_FAILS:
	case LOOK_LOST:
		return l->store && world.bed->fail_read;
	case MAPPED_FULL:
		return world.process == MAPS && world.bed->fail_writes;
	case MAPPED:
	case FAILED:
		return world.process == MAPS;
	case LEFT:
		return world.process != GONE;
	case LIMIT:
		return l->limit_at_ms != FRONT_LINK_NEVER_MS;
	case NUM_EVENTS:
		break;
	}
	return false;
}

static void gateway_says(const char *verb, uint64_t epoch)
{
	char text[HANDSHAKE_WORD_BYTES];

	(void)snprintf(text, sizeof(text), "%016" PRIx64 " %s", epoch, verb);
	write_node(world.link.gateway_node, text);
}

static void review(int error)
{
	if (error < 0)
		world.bed->fail_read(error);
	front_link_review(&world.link);
	if (error == 0)
		judge_look();
}

/* A domain that has used up its quota can remove, but not write. */
static void feed_full(enum front_stim stim)
{
	world.process = stim == FRONT_ON_MAPPED ? USES : world.process;
	world.bed->fail_writes(-ENOSPC);
	front_link_feed(&world.link, stim);
	world.bed->fail_writes(0);
}

/* What changes in xenstore; what has not been looked at has no effect. */
static void change(enum event event)
{
	const struct front_link *l = &world.link;

	if (event == OPEN)
		gateway_says("open", l->epoch);
	else if (event == CLOSE)
		gateway_says("closed 7 busy", l->epoch);
	else if (event == SAY_OTHER)
		gateway_says("open", l->epoch + 1);
	else if (event == UNSAY)
		remove_node(l->gateway_node);
	else if (event == HIDE)
		remove_node(THEIRS);
	else if (event == SHOW)
		show();
	else if (event == MOVE)
		be_told(GUEST + 1);
	if (event != LET_GO)
		return;
	world.is_forgotten |= has_node(l->own_node);
	remove_node(OURS);
}

static void feed(enum front_stim stim, enum process process)
{
	world.process = process;
	world.is_forgotten &= stim != FRONT_ON_MAPPED;
	front_link_feed(&world.link, stim);
}

static void happen(enum event event)
{
	switch (event) {
	case START:
		feed(FRONT_ON_START, world.process);
		break;
	case START_FULL:
		feed_full(FRONT_ON_START);
		break;
	case LOOK:
		review(0);
		break;
	case LOOK_FAILS:
		review(-EIO);
		break;
	case LOOK_LOST:
		review(-ECONNRESET);
		break;
	case MAPPED:
		feed(FRONT_ON_MAPPED, USES);
		break;
	case MAPPED_FULL:
		feed_full(FRONT_ON_MAPPED);
		break;
	case FAILED:
		world.process = COULD_NOT;
		front_link_fail(&world.link);
		break;
	case LEFT:
		feed(FRONT_ON_LEFT, GONE);
		break;
	case LIMIT:
		front_link_limit(&world.link);
		break;
	default:
		change(event);
		break;
	}
}

/* ---- playing ---- */

/* The gateway gives up, and a process that does not leave is killed. */
static void judge_end(void)
{
	const struct front_link *l = &world.link;

	if (l->state == FRONT_IDLE)
		happen(START);
	remove_node(l->gateway_node);
	review(0);
	if (l->state == FRONT_ASKING)
		happen(LIMIT);
	if (l->state == FRONT_LEAVING) {
		happen(LIMIT);
		expect(world.is_killed, "who does not leave is not killed");
	}
	if (l->state != FRONT_DONE)
		happen(LEFT);
	judge();
	expect(l->state == FRONT_DONE, "it does not come to an end");
}

static unsigned verb_of(const char *node)
{
	struct handshake_word word = word_in(node);

	return (unsigned)word.verb * 2 + (word.epoch == world.link.epoch);
}

static void note_key(char key[static SEQUENCES_KEY_BYTES])
{
	const struct front_link *l = &world.link;

	(void)snprintf(key, SEQUENCES_KEY_BYTES,
		       "%d %d %d%d%d%d %d%d%d%d%d%d own %u theirs %u",
		       (int)l->state, (int)world.process, world.is_refused,
		       world.is_hung_up, world.is_killed, world.is_forgotten,
		       l->limit_at_ms != FRONT_LINK_NEVER_MS, l->epoch != 0,
		       l->store != NULL, has_node(OURS), has_node(THEIRS),
		       world.domid == GUEST, verb_of(l->own_node),
		       verb_of(l->gateway_node));
}

static void begin(void)
{
	const struct front_world_bed *bed = world.bed;

	remove_node(OURS);
	remove_node(THEIRS);
	be_told(GUEST);
	show();
	front_link_init(&world.link, &ops, 4096);
	front_link_place(&world.link, GUEST, GATEWAY, CHANNEL);
	world.link.store = bed->store;
	world.process = WAITS;
	world.is_refused = false;
	world.is_hung_up = false;
	world.is_killed = false;
	world.is_forgotten = false;
}

static uint32_t play(const uint8_t *events, size_t length,
		     char ret_key[static SEQUENCES_KEY_BYTES])
{
	uint32_t possible = 0;

	world.events = events;
	world.length = length;
	begin();
	for (world.at = 0; world.at < length; world.at++) {
		happen((enum event)events[world.at]);
		judge();
		judge_event((enum event)events[world.at]);
	}
	for (int event = 0; event < NUM_EVENTS; event++)
		if (can_happen((enum event)event))
			possible |= 1u << event;
	note_key(ret_key);
	judge_end();
	return possible;
}

static const struct sequences_game game = { NUM_EVENTS, event_names, play,
					    fail };

const char *front_world_play_first(const struct front_world_bed *bed,
				   struct sequences_result *ret_result)
{
	world.bed = bed;
	if (setjmp(world.end) != 0)
		return failure;
	sequences_play_first(&game, SEQUENCES_MAX_LENGTH, ret_result);
	return ret_result->is_cut ? "there is no end to them" : NULL;
}

const char *front_world_play_all(const struct front_world_bed *bed,
				 size_t length,
				 struct sequences_result *ret_result)
{
	world.bed = bed;
	if (setjmp(world.end) != 0)
		return failure;
	sequences_play_all(&game, length, ret_result);
	return NULL;
}
