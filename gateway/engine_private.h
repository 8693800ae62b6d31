/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_private.h - the engine's own state, shared by its three files and by
 * nobody else: engine.c (life of URBs, beginning and end), engine_commands.c
 * (what the peer sends), engine_answers.c (what it gets).
 */
#ifndef ENGINE_PRIVATE_H
#define ENGINE_PRIVATE_H

#include "gateway/engine.h"
#include "gateway/slot.h"
#include "vchan-transport/channel_watch.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/seq_map.h"

#define ENGINE_ENDPOINTS 32 /* number | direction << 4 */

/* What the next bytes from the peer are. */
enum receiving {
	RECEIVE_HEADER,
	RECEIVE_DATA,
	RECEIVE_PACKETS,
};

struct engine {
	struct loop *loop;
	struct channel *channel;
	struct usb_device *device;
	uint32_t devid;
	const char *who;

	struct channel_watch watch;
	struct loop_source source;
	struct loop_timer *limit;
	struct slot_pool *pool;
	struct seq_map *seqnums; /* -> slot, from SUBMIT until SENT */

	/* Endpoints of the current alternate settings; max_packet 0: none. */
	struct descriptor_endpoint endpoints[ENGINE_ENDPOINTS];
	uint8_t alternates[DESCRIPTORS_MAX_INTERFACES];

	enum receiving receiving;
	struct slot *receiver; /* the URB that the bytes belong to */
	uint8_t *receive_to;   /* NULL: they are dropped */
	size_t receive_left;
	bool has_unread; /* the budget of a turn ended before the bytes did */

	struct slot *first_answer;
	struct slot **last_answer; /* where the next one is linked */
	size_t answered_bytes;     /* of the first answer, already written */
	bool is_blocked;           /* the channel has no room */

	uint32_t num_lent;          /* URBs that the device holds */
	uint32_t num_lent_controls; /* those of endpoint 0 */
	struct slot *first_waiting; /* of endpoint 0, for those to end */
	struct slot **last_waiting; /* where the next one is linked */
	bool is_lending;            /* those that wait */

	bool is_reading; /* the peer's commands still count */
	bool is_lost;    /* nothing is read or written any more */
	enum engine_end end;
	enum urb_verdict verdict; /* ENGINE_VIOLATION */
};

/* The only place that changes an URB's state. */
void engine_feed(struct slot *slot, enum urb_stim stim);

/* The conversation is over: takes every URB back, then stops the loop. */
void engine_lose(struct engine *engine, enum engine_end why);
/* The channel has failed, with this error. */
void engine_lose_channel(struct engine *engine, int error);
void engine_violate(struct engine *engine, enum urb_verdict verdict);

/* Reads again which endpoints the device has now. */
void engine_map_endpoints(struct engine *engine);

/* Does what the peer may send count, and is there room for it? */
bool engine_can_read(const struct engine *engine);
/* Reads and carries out commands, within a turn's budget. */
void engine_read_commands(struct engine *engine);

/* Puts a slot's answer into the queue. */
void engine_queue_answer(struct slot *slot, enum urb_act reply);
/* RET_UNLINK with 0; a slot must be free. */
void engine_queue_too_late(struct engine *engine, uint32_t unlink_seqnum);
/* Writes what the channel takes. */
void engine_send_answers(struct engine *engine);
/* A slot that has been answered, or will not be, goes back to its pool. */
void engine_release(struct slot *slot);

#endif
