/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/engine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/control.h"
#include "gateway/engine_private.h"
#include "vchan-transport/log.h"

/* Cancelled URBs come back within this, or the device is stuck. */
#define DRAIN_LIMIT_MS 3000
/* After a device is gone: to let its last answers out. */
#define FLUSH_LIMIT_MS 1000

/* ------------------------------------------------------------ life of URBs */

static void lend_waiting(struct engine *e);

void urb_complete(struct urb *urb)
{
	struct slot *slot = (struct slot *)urb;
	struct engine *e = slot->engine;
	bool is_control = urb->type == USB_CONTROL;

	e->num_lent--;
	e->num_lent_controls -= is_control;
	engine_feed(slot, urb->status == -ECONNRESET ? URB_ON_CANCELLED
						     : URB_ON_ENDED);
	if (is_control)
		lend_waiting(e);
}

/* A control request that the host's stack carries out, here and now. */
static void apply_control(struct slot *slot)
{
	struct engine *e = slot->engine;
	struct usb_device *d = e->device;
	const uint8_t *setup = slot->urb.setup;
	enum control_kind kind = control_classify(setup);
	int r = control_apply(d, setup);

	if (r == 0 && kind == CONTROL_SET_INTERFACE)
		e->alternates[control_index(setup)] =
			(uint8_t)control_value(setup);
	if (r == 0 &&
	    (kind == CONTROL_SET_CONFIGURATION || kind == CONTROL_RESET))
		memset(e->alternates, 0, sizeof(e->alternates));
	if (r == 0 && kind == CONTROL_SET_CONFIGURATION)
		d->configuration = (uint8_t)control_value(setup);
	if (r == 0)
		engine_map_endpoints(e);
	else
		log_debug("%s: control request %02x %02x: %s", e->who, setup[0],
			  setup[1], strerror(-r));
	slot->urb.status = r;
	slot->urb.actual_length = 0;
	urb_complete(&slot->urb);
}

/* Is it carried out by the host's stack, and not queued behind the others? */
static bool is_applied(const struct slot *slot)
{
	return slot->urb.type == USB_CONTROL &&
	       control_classify(slot->urb.setup) != CONTROL_RAW;
}

static void lend(struct slot *slot)
{
	struct engine *e = slot->engine;
	int r;

	e->num_lent++;
	e->num_lent_controls += slot->urb.type == USB_CONTROL;
	if (is_applied(slot)) {
		apply_control(slot);
		return;
	}
	r = e->device->ops->submit(e->device, &slot->urb);
	if (r < 0) {
		slot->urb.status = r;
		slot->urb.actual_length = 0;
		urb_complete(&slot->urb);
	}
}

/*
 * Endpoint 0 does one thing after the other: a request that is applied waits
 * until the device has done those before it, and what comes then waits behind.
 */
static bool must_wait(const struct slot *slot)
{
	return is_applied(slot) && slot->engine->num_lent_controls > 0;
}

static void start(struct slot *slot)
{
	struct engine *e = slot->engine;

	if (slot->urb.type != USB_CONTROL ||
	    (!e->first_waiting && !must_wait(slot))) {
		lend(slot);
		return;
	}
	slot->next = NULL;
	*e->last_waiting = slot;
	e->last_waiting = &slot->next;
}

static void unlink_waiting(struct engine *e, struct slot **at)
{
	struct slot *slot = *at;

	*at = slot->next;
	if (!*at)
		e->last_waiting = at;
	slot->next = NULL;
}

static void lend_waiting(struct engine *e)
{
	/* What is lent may end at once, and come here again. */
	if (e->is_lending)
		return;
	e->is_lending = true;
	while (e->first_waiting && !e->is_lost &&
	       !must_wait(e->first_waiting)) {
		struct slot *slot = e->first_waiting;

		unlink_waiting(e, &e->first_waiting);
		lend(slot);
	}
	e->is_lending = false;
}

static void cancel(struct slot *slot)
{
	struct engine *e = slot->engine;
	struct slot **at = &e->first_waiting;

	while (*at && *at != slot)
		at = &(*at)->next;
	if (!*at) {
		e->device->ops->cancel(e->device, &slot->urb);
		return;
	}
	unlink_waiting(e, at);
	slot->urb.status = -ECONNRESET;
	slot->urb.actual_length = 0;
	engine_feed(slot, URB_ON_CANCELLED);
	lend_waiting(e);
}

static void act(struct slot *slot, enum urb_act action)
{
	struct engine *e = slot->engine;

	switch (action) {
	case URB_DO_NONE:
		break;
	case URB_DO_START:
		start(slot);
		break;
	case URB_DO_CANCEL:
		cancel(slot);
		break;
	case URB_DO_RET_SUBMIT:
	case URB_DO_RET_UNLINK:
	case URB_DO_RET_BOTH:
		engine_queue_answer(slot, action);
		break;
	case URB_DO_TOO_LATE:
		engine_queue_too_late(e, slot->unlink_seqnum);
		break;
	case URB_DO_RELEASE:
		engine_release(slot);
		break;
	case URB_DO_VIOLATION:
		engine_violate(e, URB_BAD_SEQNUM);
		break;
	case URB_DO_BUG:
		assert(!"the URB table was left");
		break;
	}
}

void engine_feed(struct slot *slot, enum urb_stim stim)
{
	struct urb_step step = urb_fsm_step(slot->state, stim);

	slot->state = step.next; /* first: an action may feed again */
	act(slot, step.act);
}

/* -------------------------------------------------------------------- end */

static void on_limit(void *arg)
{
	struct engine *e = arg;

	if (!e->is_lost) {
		engine_lose(e, e->end);
		return;
	}
	e->end = ENGINE_STUCK;
	loop_stop(e->loop);
}

static void set_limit(struct engine *e, uint64_t limit_ms)
{
	if (e->limit)
		loop_timer_again(e->limit, limit_ms);
	else
		(void)loop_timer_start(e->loop, limit_ms, 0, on_limit, e,
				       &e->limit);
}

void engine_lose(struct engine *e, enum engine_end why)
{
	if (e->is_lost)
		return;
	if (e->end == ENGINE_RUNNING)
		e->end = why;
	e->is_lost = true;
	e->is_reading = false;
	e->receiver = NULL;
	e->first_answer = NULL;
	e->last_answer = &e->first_answer;
	channel_watch_stop(&e->watch);
	set_limit(e, DRAIN_LIMIT_MS);
	for (uint32_t i = 0; i < slot_count(e->pool); i++) {
		struct slot *slot = slot_at(e->pool, i);

		if (slot->state != URB_FREE)
			engine_feed(slot, URB_ON_LOST);
	}
}

void engine_lose_channel(struct engine *e, int error)
{
	engine_lose(e,
		    error == -EPROTO ? ENGINE_BAD_CHANNEL : ENGINE_PEER_LOST);
}

void engine_violate(struct engine *e, enum urb_verdict verdict)
{
	if (e->end == ENGINE_RUNNING)
		e->verdict = verdict;
	engine_lose(e, ENGINE_VIOLATION);
}

/* Ends from our side: nothing more is read, what is answered goes out. */
static void wind_down(struct engine *e, enum engine_end why)
{
	if (e->end != ENGINE_RUNNING)
		return;
	e->end = why;
	e->is_reading = false;
	set_limit(e, FLUSH_LIMIT_MS);
}

static void on_device_gone(void *arg)
{
	wind_down(arg, ENGINE_DEVICE_GONE);
}

void engine_stop(struct engine *e)
{
	wind_down(e, ENGINE_STOPPED);
}

/* ------------------------------------------------------------------- loop */

static unsigned wanted(const struct engine *e)
{
	unsigned want = 0;

	if (engine_can_read(e))
		want |= CHANNEL_READ;
	if (e->is_blocked)
		want |= CHANNEL_WRITE;
	if (e->num_lent == 0)
		want |= CHANNEL_SPIN;
	return want;
}

static bool engine_has_work(void *arg)
{
	struct engine *e = arg;

	if (e->is_lost)
		return e->num_lent == 0;
	if (e->first_answer && !e->is_blocked)
		return true;
	if (e->end != ENGINE_RUNNING && !e->first_answer)
		return true;
	if (e->has_unread && engine_can_read(e))
		return true;
	return channel_watch_arm(&e->watch, wanted(e));
}

static void engine_work(void *arg)
{
	struct engine *e = arg;

	if (!e->is_lost) {
		engine_send_answers(e);
		if (engine_can_read(e))
			engine_read_commands(e);
		engine_send_answers(e);
	}
	if (!e->is_lost && e->end != ENGINE_RUNNING && !e->first_answer)
		engine_lose(e, e->end);
	if (!e->is_lost)
		channel_flush(e->channel);
	if (e->is_lost && e->num_lent == 0)
		loop_stop(e->loop);
}

int engine_new(const struct engine_options *options, struct engine **ret_engine)
{
	struct engine *e = calloc(1, sizeof(*e));
	int r = -ENOMEM;

	if (!e)
		return -ENOMEM;
	e->loop = options->loop;
	e->channel = options->channel;
	e->device = options->device;
	e->devid = options->devid;
	e->who = options->who;
	e->is_reading = true;
	e->has_unread = true; /* URBs may have come with the import */
	e->last_answer = &e->first_answer;
	e->last_waiting = &e->first_waiting;
	e->seqnums = seq_map_new(URB_MAX_IN_FLIGHT + SLOT_RESERVE);
	e->pool = slot_pool_new(e, e->device, options->budget_bytes);
	if (e->seqnums && e->pool)
		r = channel_watch_start(&e->watch, e->loop, e->channel);
	if (r < 0) {
		engine_free(e);
		return r;
	}
	engine_map_endpoints(e);
	e->source = (struct loop_source){ .has_work = engine_has_work,
					  .work = engine_work,
					  .arg = e };
	loop_add_source(e->loop, &e->source);
	e->device->on_gone = on_device_gone;
	e->device->on_gone_arg = e;
	*ret_engine = e;
	return 0;
}

enum engine_end engine_end(const struct engine *e)
{
	return e->end;
}

const char *engine_end_sentence(const struct engine *e)
{
	switch (e->end) {
	case ENGINE_RUNNING:
		return "is running";
	case ENGINE_PEER_ENDED:
		return "peer detached";
	case ENGINE_PEER_LOST:
		return "peer is gone";
	case ENGINE_BAD_CHANNEL:
		return "peer broke the channel";
	case ENGINE_VIOLATION:
		return urb_verdict_sentence(e->verdict);
	case ENGINE_DEVICE_GONE:
		return "device was unplugged";
	case ENGINE_STOPPED:
		return "gateway is stopping";
	case ENGINE_STUCK:
		return "device did not give its transfers back";
	}
	return "";
}

void engine_free(struct engine *e)
{
	if (!e)
		return;
	channel_watch_stop(&e->watch);
	loop_timer_stop(e->limit);
	slot_pool_free(e->pool);
	seq_map_free(e->seqnums);
	free(e);
}
