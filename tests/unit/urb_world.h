/* SPDX-License-Identifier: Apache-2.0 */
/*
 * urb_world.h - one URB or two between a peer and a device, and all that can meet
 * them: on the real engine, with a loop, a channel and a device that do nothing
 * by themselves. What the peer gets is judged by docs/protocol.md, "Unlink".
 * Included by a test, once.
 */
#ifndef URB_WORLD_H
#define URB_WORLD_H

#include "gateway/engine_private.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_loop.h"
#include "sequences_played.h"
#include "tests/fake/fake_usb_device.h"
#include "tests/fake/quiet_channel.h"
#include "vchan-transport/log.h"

#define DEVID       0x00020003
#define DATA_BYTES  16
#define HALF_BYTES  7
#define PART_BYTES  20 /* of an answer */
#define MAX_URBS    2
#define MAX_UNLINKS 2
#define MAX_UNREAD  3 /* commands at once */
/* More than are ever used at once here; the first ones are taken first. */
#define USED_SLOTS 16
#define MAX_ROUNDS 16
#define LIMIT_MS   3000

/* ---- the loop ---- */

static struct loop_source *the_source;
static bool is_stopped;

void loop_add_source(struct loop *loop, struct loop_source *source)
{
	(void)loop;
	the_source = source;
}

void loop_stop(struct loop *loop)
{
	(void)loop;
	is_stopped = true;
}

int loop_watch_set(struct loop_watch *watch, short events)
{
	(void)watch;
	(void)events;
	return 0;
}

/* ---- the world ---- */

enum event {
	SUBMIT,
	UNLINK = SUBMIT + MAX_URBS,
	ENDED = UNLINK + MAX_URBS,
	CANCELLED = ENDED + MAX_URBS,
	/* Of the first URB alone. */
	HEAD = CANCELLED + MAX_URBS,
	REST,
	SUBMIT_NOWHERE,
	SUBMIT_AGAIN,
	/* Of all. */
	TURN,
	FULL,
	ROOM,
	PEER_ENDED,
	PEER_LOST,
	UNPLUGGED,
	STOP,
	LIMIT,
	NUM_EVENTS,
};

static const char *const event_names[] = {
	"SUBMIT_1",
	"SUBMIT_2",
	"UNLINK_1",
	"UNLINK_2",
	"ENDED_1",
	"ENDED_2",
	"CANCELLED_1",
	"CANCELLED_2",
	"HEAD_1",
	"REST_1",
	"SUBMIT_1_NOWHERE",
	"SUBMIT_1_AGAIN",
	"TURN",
	"FULL",
	"ROOM",
	"PEER_ENDED",
	"PEER_LOST",
	"UNPLUGGED",
	"STOP",
	"LIMIT",
};

enum kind {
	BULK_OUT,
	BULK_IN,
	CONTROL,
	APPLIED, /* by the host's stack */
};

/* A CMD_UNLINK that is not answered yet. */
struct unlink {
	bool is_out;
	bool is_live; /* its URB was out when it was sent, and is the same */
};

/* One URB as its peer and the device know it. */
struct fate {
	enum kind kind;
	unsigned num_out; /* submitted, and not settled */
	bool has_ended;
	bool is_answerable; /* given back while the peer was heard */
	bool is_unlinked;   /* given back as it was asked for */
	struct unlink unlinks[MAX_UNLINKS];
};

static struct world {
	struct engine *engine; /* kept while nothing has ended it */
	struct quiet_channel channel;
	struct fake_usb_device device;
	unsigned num_urbs;
	uint32_t alphabet; /* events, each a bit */
	struct fate fates[MAX_URBS];
	unsigned num_unread; /* commands */
	bool is_half;
	bool is_turned;
	bool is_full;
	bool has_limit_passed;
	unsigned num_asked_back; /* that were given back */
	unsigned may_end;        /* 1 << enum engine_end */
} world;

static struct urb *find_held(const struct fate *f)
{
	static const uint8_t endpoints[] = { 0x02, 0x81, 0x00 };

	return f->kind == APPLIED ? NULL
				  : fake_usb_device_find(&world.device,
							 endpoints[f->kind]);
}

/* ---- the peer ---- */

static uint32_t seqnum_of(const struct fate *f)
{
	return (uint32_t)(f - world.fates) + 1;
}

static void send_bytes(const void *bytes, size_t n)
{
	quiet_channel_put(&world.channel, bytes, n);
}

static void send_data(size_t n)
{
	uint8_t data[DATA_BYTES] = { 0 };

	send_bytes(data, n);
}

static void send_header(const struct usbip_header *h)
{
	uint8_t bytes[USBIP_HEADER_BYTES];

	world.num_unread++;
	usbip_header_encode(bytes, h);
	send_bytes(bytes, sizeof(bytes));
}

static void send_submit(struct fate *f, uint32_t endpoint)
{
	struct usbip_header h = { .command = USBIP_CMD_SUBMIT,
				  .seqnum = seqnum_of(f),
				  .devid = DEVID,
				  .endpoint = endpoint };

	if (f->kind == BULK_IN)
		h.direction = USBIP_DIR_IN;
	if (f->kind == CONTROL)
		h.submit.setup[0] = 0x40; /* a vendor's, without data */
	else if (f->kind == APPLIED)
		memcpy(h.submit.setup, (uint8_t[8]){ 1, 11, 1, 0, 1 }, 8);
	else
		h.submit.length = DATA_BYTES;
	f->num_out++;
	send_header(&h);
}

static void send_whole(struct fate *f)
{
	static const uint32_t endpoints[] = { 2, 1, 0, 0 };

	send_submit(f, endpoints[f->kind]);
	if (f->kind == BULK_OUT)
		send_data(DATA_BYTES);
}

/* A number that is out: against the rules, unless its answer is on the way. */
static void send_again(struct fate *f)
{
	send_whole(f);
	world.may_end |= 1u << ENGINE_VIOLATION;
}

static void send_unlink(struct fate *f)
{
	struct usbip_header h = { .command = USBIP_CMD_UNLINK,
				  .devid = DEVID,
				  .unlink_seqnum = seqnum_of(f) };
	size_t i = f->unlinks[0].is_out ? 1 : 0;

	/* Two for one that is not settled are against the rules. */
	if (f->num_out > 0 && (f->unlinks[0].is_live || f->unlinks[1].is_live))
		world.may_end |= 1u << ENGINE_VIOLATION;
	f->unlinks[i] = (struct unlink){ true, f->num_out > 0 };
	h.seqnum = 10 * seqnum_of(f) + (uint32_t)i;
	send_header(&h);
}

/* ---- what the peer gets ---- */

static void settle(struct fate *f)
{
	expect(f->num_out > 0, "an URB is settled twice");
	f->num_out--;
	f->has_ended = false;
	f->is_answerable = false;
	f->is_unlinked = false;
	for (size_t i = 0; i < MAX_UNLINKS; i++)
		f->unlinks[i].is_live = false;
}

static size_t judge_ret_submit(const struct usbip_header *h)
{
	struct fate *f = &world.fates[h->seqnum - 1];

	expect(h->seqnum >= 1 && h->seqnum <= world.num_urbs,
	       "an answer to nothing");
	expect(!f->is_unlinked && (f->kind != APPLIED ||
				   h->ret_submit.status != -ECONNRESET),
	       "what was unlinked is answered");
	settle(f);
	return f->kind == BULK_IN ? h->ret_submit.actual_length : 0;
}

static void judge_ret_unlink(const struct usbip_header *h)
{
	uint32_t number = h->seqnum / 10;
	struct unlink *u;
	struct fate *f;
	bool is_live;

	expect(number >= 1 && number <= world.num_urbs && h->seqnum % 10 < 2,
	       "an answer to nothing");
	f = &world.fates[number - 1];
	u = &f->unlinks[h->seqnum % 10];
	expect(u->is_out, "an unlink is answered twice");
	is_live = u->is_live;
	*u = (struct unlink){ false, false };
	if (h->unlink_status == 0) {
		expect(!is_live,
		       "too late, and the answer did not come before");
		return;
	}
	expect(h->unlink_status == -ECONNRESET, "another status");
	expect(is_live, "what was settled, or not there, is unlinked");
	expect(!f->has_ended, "what has ended is unlinked");
	settle(f);
}

static void read_answers(void)
{
	size_t at = 0;

	while (world.channel.out_used - at >= USBIP_HEADER_BYTES) {
		struct usbip_header h;
		size_t bytes = USBIP_HEADER_BYTES;
		struct fate saved[MAX_URBS];

		usbip_header_decode(&h, world.channel.out + at);
		memcpy(saved, world.fates, sizeof(saved));
		if (h.command == USBIP_RET_SUBMIT)
			bytes += judge_ret_submit(&h);
		else
			judge_ret_unlink(&h);
		if (world.channel.out_used - at < bytes) {
			/* Its data is on the way: it is not there yet. */
			memcpy(world.fates, saved, sizeof(saved));
			break;
		}
		at += bytes;
	}
	quiet_channel_taken(&world.channel, at);
}

/* ---- what can happen ---- */

/* All that was sent was read, and was not against the rules. */
static void forgive(void)
{
	world.num_unread = 0;
	if (world.engine->end == ENGINE_RUNNING)
		world.may_end &= ~(1u << ENGINE_VIOLATION);
}

static void turn(void)
{
	for (int i = 0; i < MAX_ROUNDS && !is_stopped; i++) {
		if (!the_source->has_work(the_source->arg))
			break;
		the_source->work(the_source->arg);
		expect(i + 1 < MAX_ROUNDS, "it does not come to rest");
	}
	read_answers();
	if (world.channel.in_used == 0)
		forgive();
	world.is_turned = true;
}

/* Has the engine asked the device for it back? */
static bool is_asked_back(const struct fate *f)
{
	struct engine *e = world.engine;
	enum urb_state state;
	uint32_t index;

	if (!find_held(f) || !seq_map_get(e->seqnums, seqnum_of(f), &index))
		return false;
	state = slot_at(e->pool, index)->state;
	return state == URB_CANCELLING || state == URB_ORPHAN;
}

static void finish(struct fate *f, int status)
{
	bool is_asked = is_asked_back(f);

	world.num_asked_back += is_asked;
	f->has_ended = status != -ECONNRESET;
	f->is_unlinked = !f->has_ended && is_asked;
	f->is_answerable = !world.engine->is_lost;
	fake_usb_device_finish(&world.device, find_held(f), status, 0);
}

static void unplug(void)
{
	for (unsigned i = 0; i < world.num_urbs; i++) {
		struct fate *f = &world.fates[i];

		if (find_held(f))
			finish(f, -ESHUTDOWN);
	}
	world.may_end |= 1u << ENGINE_DEVICE_GONE;
	fake_usb_device_unplug(&world.device);
}

static void end_peer(int how)
{
	if (how == -EPIPE && !world.is_half)
		world.may_end |= 1u << ENGINE_PEER_ENDED;
	else
		world.may_end |= 1u << ENGINE_PEER_LOST;
	world.channel.end = how;
}

static void pass_limit(void)
{
	if (world.engine->is_lost)
		world.may_end |= 1u << ENGINE_STUCK;
	world.has_limit_passed = true;
	fake_loop_run(LIMIT_MS);
}

static void set_room(bool is_full)
{
	world.is_full = is_full;
	/* It ends in the middle of an answer. */
	if (!is_full)
		world.channel.room = SIZE_MAX;
	else if (world.engine->answered_bytes == 0)
		world.channel.room = PART_BYTES;
	else
		world.channel.room = 0;
}

static void happen_to_one(enum event event)
{
	struct fate *f = &world.fates[event % MAX_URBS];

	if (event < UNLINK)
		send_whole(f);
	else if (event < ENDED)
		send_unlink(f);
	else
		finish(f, event < CANCELLED ? 0 : -ECONNRESET);
}

static void happen(enum event event)
{
	struct fate *f = &world.fates[0];

	world.is_turned = false;
	switch (event) {
	case HEAD:
		send_submit(f, 2);
		send_data(HALF_BYTES);
		world.is_half = true;
		break;
	case REST:
		send_data(DATA_BYTES - HALF_BYTES);
		world.is_half = false;
		break;
	case SUBMIT_NOWHERE:
		send_submit(f, 10);
		send_data(DATA_BYTES);
		break;
	case SUBMIT_AGAIN:
		send_again(f);
		break;
	case TURN:
		turn();
		break;
	case FULL:
	case ROOM:
		set_room(event == FULL);
		break;
	case PEER_ENDED:
		end_peer(-EPIPE);
		break;
	case PEER_LOST:
		end_peer(-ECONNRESET);
		break;
	case UNPLUGGED:
		unplug();
		break;
	case STOP:
		world.may_end |= 1u << ENGINE_STOPPED;
		engine_stop(world.engine);
		break;
	case LIMIT:
		pass_limit();
		break;
	default:
		happen_to_one(event);
		break;
	}
}

static bool has_limit(void)
{
	return fake_loop_next(fake_now_ms + LIMIT_MS) != NULL;
}

static bool can_happen_to_one(enum event event, bool is_heard)
{
	const struct fate *f = &world.fates[event % MAX_URBS];

	if (f - world.fates >= world.num_urbs)
		return false;
	if (event < UNLINK)
		return is_heard && f->num_out == 0;
	if (event < ENDED)
		return is_heard && f->num_out < 2 &&
		       !(f->unlinks[0].is_out && f->unlinks[1].is_out);
	return find_held(f) != NULL;
}

static bool can_happen(enum event event)
{
	const struct fate *f = &world.fates[0];
	bool has_peer = world.channel.end == 0 && !world.engine->is_lost;
	bool is_heard = has_peer && !world.is_half &&
			world.num_unread < MAX_UNREAD;

	if (is_stopped)
		return false;
	switch (event) {
	case HEAD:
	case SUBMIT_NOWHERE:
		return is_heard && f->num_out == 0 && f->kind == BULK_OUT;
	case REST:
		return has_peer && world.is_half;
	case SUBMIT_AGAIN:
		return is_heard && f->num_out == 1 &&
		       !(world.may_end & 1u << ENGINE_VIOLATION);
	case TURN:
		return !world.is_turned;
	case FULL:
		return has_peer && !world.is_full;
	case ROOM:
		return has_peer && world.is_full;
	case PEER_ENDED:
	case PEER_LOST:
		return has_peer;
	case UNPLUGGED:
		return !world.device.base.is_gone && !world.engine->is_lost;
	case STOP:
		return world.engine->end == ENGINE_RUNNING;
	case LIMIT:
		return has_limit();
	default:
		return can_happen_to_one(event, is_heard);
	}
}

#endif
