/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/engine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/control.h"
#include "gateway/reply.h"
#include "gateway/slot.h"
#include "vchan-transport/channel_watch.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/seq_map.h"

/* Commands read and answers gathered in one turn of the loop. */
#define COMMANDS_PER_TURN 64
#define PIECES_PER_WRITE  64
/* Cancelled URBs come back within this, or the device is stuck. */
#define DRAIN_LIMIT_MS 3000
/* After a device is gone: to let its last answers out. */
#define FLUSH_LIMIT_MS 1000
#define ENDPOINTS      32 /* number | direction << 4 */

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
	struct descriptor_endpoint endpoints[ENDPOINTS];
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

	uint32_t num_lent; /* URBs that the device holds */
	bool is_reading;   /* the peer's commands still count */
	bool is_lost;      /* nothing is read or written any more */
	enum engine_end end;
	enum urb_verdict verdict; /* ENGINE_VIOLATION */
};

static void feed(struct slot *slot, enum urb_stim stim);

static void lose(struct engine *e, enum engine_end why);

static void violate(struct engine *e, enum urb_verdict verdict)
{
	if (e->end == ENGINE_RUNNING)
		e->verdict = verdict;
	lose(e, ENGINE_VIOLATION);
}

/* ------------------------------------------------------------- endpoints */

static void map_endpoints(struct engine *e)
{
	const struct usb_device *d = e->device;

	for (unsigned i = 0; i < ENDPOINTS; i++) {
		uint8_t address = (uint8_t)((i & 0x0f) | (i & 0x10) << 3);
		struct descriptor_endpoint *ep = &e->endpoints[i];

		if ((address & 0x0f) == 0 ||
		    !descriptors_find_endpoint(&d->descriptors,
					       d->configuration, e->alternates,
					       address, ep))
			*ep = (struct descriptor_endpoint){ .address = 0 };
	}
}

static const struct descriptor_endpoint *find_endpoint(const struct engine *e,
						       uint8_t address)
{
	const struct descriptor_endpoint *ep =
		&e->endpoints[(address & 0x0f) | (address & 0x80) >> 3];

	return ep->address != 0 ? ep : NULL;
}

/* --------------------------------------------------------------- answers */

static void queue_answer(struct slot *slot, enum urb_act reply)
{
	struct engine *e = slot->engine;

	slot->reply = reply;
	slot->next = NULL;
	reply_prepare(slot);
	*e->last_answer = slot;
	e->last_answer = &slot->next;
}

static void queue_too_late(struct engine *e, uint32_t unlink_seqnum)
{
	/* The caller read this command only because a slot was free. */
	struct slot *slot = slot_take(e->pool);

	slot->unlink_seqnum = unlink_seqnum;
	slot->state = URB_REPLYING;
	queue_answer(slot, URB_DO_TOO_LATE);
}

static void release(struct slot *slot)
{
	struct engine *e = slot->engine;
	uint32_t index;

	if (slot->reply != URB_DO_TOO_LATE &&
	    seq_map_get(e->seqnums, slot->seqnum, &index) &&
	    index == slot_index(e->pool, slot))
		(void)seq_map_remove(e->seqnums, slot->seqnum);
	slot_give(e->pool, slot);
}

static void pop_answer(struct engine *e)
{
	struct slot *slot = e->first_answer;

	e->first_answer = slot->next;
	if (!e->first_answer)
		e->last_answer = &e->first_answer;
	feed(slot, URB_ON_SENT);
}

/* Takes `bytes` that were written off the queue of answers. */
static void account_written(struct engine *e, size_t bytes)
{
	bytes += e->answered_bytes;
	while (e->first_answer) {
		struct iovec pieces[REPLY_MAX_PIECES];
		int n = reply_pieces(e->first_answer, pieces);
		size_t whole = 0;

		for (int i = 0; i < n; i++)
			whole += pieces[i].iov_len;
		if (bytes < whole)
			break;
		bytes -= whole;
		pop_answer(e);
	}
	e->answered_bytes = bytes;
}

/* Drops the first `bytes` bytes of `v`; how many pieces are left, moved up. */
static int skip_bytes(struct iovec *v, int n, size_t bytes)
{
	int skipped = 0;

	while (skipped < n && bytes >= v[skipped].iov_len) {
		bytes -= v[skipped].iov_len;
		skipped++;
	}
	if (skipped < n) {
		v[skipped].iov_base = (uint8_t *)v[skipped].iov_base + bytes;
		v[skipped].iov_len -= bytes;
	}
	memmove(v, v + skipped, (size_t)(n - skipped) * sizeof(*v));
	return n - skipped;
}

static void send_answers(struct engine *e)
{
	while (e->first_answer && !e->is_lost) {
		struct iovec v[PIECES_PER_WRITE];
		size_t whole = 0;
		int n = 0;
		ssize_t written;

		for (struct slot *slot = e->first_answer;
		     slot && n + REPLY_MAX_PIECES <= PIECES_PER_WRITE;
		     slot = slot->next)
			n += reply_pieces(slot, v + n);
		n = skip_bytes(v, n, e->answered_bytes);
		for (int i = 0; i < n; i++)
			whole += v[i].iov_len;
		written = channel_writev(e->channel, v, n);
		if (written < 0) {
			lose(e, ENGINE_PEER_LOST);
			return;
		}
		account_written(e, (size_t)written);
		e->is_blocked = (size_t)written < whole;
		if (e->is_blocked)
			return;
	}
}

/* ------------------------------------------------------------ life of URBs */

void urb_complete(struct urb *urb)
{
	struct slot *slot = (struct slot *)urb;

	slot->engine->num_lent--;
	feed(slot,
	     urb->status == -ECONNRESET ? URB_ON_CANCELLED : URB_ON_ENDED);
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
		map_endpoints(e);
	else
		log_debug("%s: control request %02x %02x: %s", e->who, setup[0],
			  setup[1], strerror(-r));
	slot->urb.status = r;
	slot->urb.actual_length = 0;
	urb_complete(&slot->urb);
}

static void start(struct slot *slot)
{
	struct engine *e = slot->engine;
	int r;

	e->num_lent++;
	if (slot->urb.type == USB_CONTROL &&
	    control_classify(slot->urb.setup) != CONTROL_RAW) {
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
		e->device->ops->cancel(e->device, &slot->urb);
		break;
	case URB_DO_RET_SUBMIT:
	case URB_DO_RET_UNLINK:
	case URB_DO_RET_BOTH:
		queue_answer(slot, action);
		break;
	case URB_DO_TOO_LATE:
		queue_too_late(e, slot->unlink_seqnum);
		break;
	case URB_DO_RELEASE:
		release(slot);
		break;
	case URB_DO_VIOLATION:
		violate(e, URB_BAD_SEQNUM);
		break;
	case URB_DO_BUG:
		assert(!"the URB table was left");
		break;
	}
}

/* The only place that changes an URB's state. */
static void feed(struct slot *slot, enum urb_stim stim)
{
	struct urb_step step = urb_fsm_step(slot->state, stim);

	slot->state = step.next; /* first: an action may feed again */
	act(slot, step.act);
}

/* --------------------------------------------------------------- commands */

/* All that belongs to the URB has arrived. */
static void finish_receiving(struct engine *e)
{
	struct slot *slot = e->receiver;

	e->receiver = NULL;
	e->receiving = RECEIVE_HEADER;
	if (slot->refused != 0) {
		slot->urb.status = slot->refused;
		slot->urb.actual_length = 0;
		feed(slot, URB_ON_REFUSED);
		return;
	}
	/* An isochronous URB without packets is done: usbfs would refuse it. */
	if (slot->urb.type == USB_ISOCHRONOUS && slot->urb.num_packets == 0) {
		slot->urb.status = 0;
		slot->urb.actual_length = 0;
		feed(slot, URB_ON_REFUSED);
		return;
	}
	feed(slot, URB_ON_RECEIVED);
}

static void take_packets(struct engine *e)
{
	struct slot *slot = e->receiver;
	enum urb_verdict verdict;

	for (uint32_t i = 0; i < slot->urb.num_packets; i++) {
		struct usbip_iso_packet *p = &slot->urb.packets[i];

		usbip_iso_decode(p, slot->packet_bytes +
					    (size_t)i * USBIP_ISO_BYTES);
		p->actual_length = 0;
		p->status = 0;
	}
	verdict = urb_check_packets(slot->urb.packets, slot->urb.num_packets,
				    slot->submit.length);
	if (verdict != URB_OK)
		violate(e, verdict);
	else
		finish_receiving(e);
}

static void receive_packets(struct engine *e)
{
	struct slot *slot = e->receiver;

	if (!urb_is_iso(slot->submit.num_packets)) {
		finish_receiving(e);
		return;
	}
	e->receiving = RECEIVE_PACKETS;
	e->receive_to = slot->packet_bytes;
	e->receive_left = (size_t)slot->submit.num_packets * USBIP_ISO_BYTES;
}

/* Reads on into the URB; false if the peer has not sent more yet. */
static bool receive_body(struct engine *e)
{
	uint8_t dropped[4096];
	uint8_t *to = e->receive_to;
	size_t wanted = e->receive_left;
	ssize_t n;

	if (!to) {
		to = dropped;
		wanted = wanted < sizeof(dropped) ? wanted : sizeof(dropped);
	}
	n = channel_read(e->channel, to, wanted);
	if (n < 0) {
		lose(e, ENGINE_PEER_LOST); /* in the middle of an URB */
		return false;
	}
	e->receive_left -= (size_t)n;
	if (e->receive_to)
		e->receive_to += n;
	if (e->receive_left > 0)
		return n > 0;
	if (e->receiving == RECEIVE_DATA)
		receive_packets(e);
	else
		take_packets(e);
	return true;
}

/* What kind of transfer this is, and whether it can be done at all. */
static void resolve_endpoint(const struct engine *e, struct slot *slot,
			     const struct usbip_header *h)
{
	struct urb *urb = &slot->urb;
	const struct descriptor_endpoint *ep;

	slot->is_in = urb_is_in(h);
	urb->endpoint = (uint8_t)(h->endpoint | (slot->is_in ? 0x80 : 0));
	urb->flags = 0;
	if (h->endpoint == 0) {
		urb->type = USB_CONTROL;
		memcpy(urb->setup, h->submit.setup, sizeof(urb->setup));
		urb->endpoint = urb_is_setup_in(urb->setup) ? 0x80 : 0;
		return;
	}
	ep = find_endpoint(e, urb->endpoint);
	if (!ep) {
		/* Of a kind that fits what the peer sends with it. */
		urb->type = urb_is_iso(h->submit.num_packets) ? USB_ISOCHRONOUS
							      : USB_BULK;
		slot->refused = -EPIPE;
		return;
	}
	urb->type = ep->type;
	if (ep->type == USB_BULK && !urb_is_device_to_host(urb))
		urb->flags = h->submit.flags & USBIP_URB_ZERO_PACKET;
}

/* How much memory the URB's data needs, as opposed to what the peer asked for. */
static size_t buffer_need(struct slot *slot)
{
	size_t need = slot->submit.length;
	uint16_t wanted;

	slot->urb.length = need;
	if (slot->urb.type != USB_CONTROL)
		return need;
	/* wLength rules what the device does, whatever the buffer's length. */
	wanted = control_length(slot->urb.setup);
	slot->urb.length = wanted;
	if (wanted > URB_MAX_SETUP_LENGTH || need > URB_MAX_SETUP_LENGTH)
		slot->refused = -EINVAL;
	return need > wanted ? need : wanted;
}

static void on_submit(struct engine *e, const struct usbip_header *h)
{
	struct slot *slot = slot_take(e->pool);
	size_t need;
	int r;

	slot->seqnum = h->seqnum;
	slot->submit = h->submit;
	slot->refused = 0;
	slot->reply = URB_DO_NONE;
	slot->urb.actual_length = 0;
	slot->urb.num_packets = 0;
	feed(slot, URB_ON_SUBMIT);
	e->receiver = slot;
	if (!seq_map_put(e->seqnums, h->seqnum, slot_index(e->pool, slot))) {
		violate(e, URB_BAD_SEQNUM);
		return;
	}
	resolve_endpoint(e, slot, h);
	if (urb_is_iso(h->submit.num_packets)) {
		if (slot->urb.type != USB_ISOCHRONOUS) {
			violate(e, URB_BAD_PACKETS);
			return;
		}
		if (slot_reserve_packets(slot) < 0) {
			lose(e, ENGINE_PEER_LOST);
			return;
		}
		slot->urb.num_packets = h->submit.num_packets;
	}
	need = buffer_need(slot);
	if (slot->refused == 0) {
		r = slot_reserve(e->pool, slot, need);
		if (r < 0)
			slot->refused = r;
	}
	e->receiving = RECEIVE_DATA;
	e->receive_left = urb_command_payload(h);
	e->receive_to = slot->refused == 0 ? slot->urb.data : NULL;
	if (slot->urb.data && need > e->receive_left && !urb_is_in(h))
		memset(slot->urb.data + e->receive_left, 0,
		       need - e->receive_left);
	if (e->receive_left == 0)
		receive_packets(e);
}

static void on_unlink(struct engine *e, const struct usbip_header *h)
{
	uint32_t index;
	struct slot *slot;

	if (!seq_map_get(e->seqnums, h->unlink_seqnum, &index)) {
		queue_too_late(e, h->seqnum);
		return;
	}
	slot = slot_at(e->pool, index);
	if (slot->state != URB_CANCELLING)
		slot->unlink_seqnum = h->seqnum;
	feed(slot, URB_ON_UNLINK);
}

static void copy_header(const struct iovec pieces[2],
			uint8_t to[USBIP_HEADER_BYTES])
{
	size_t first = pieces[0].iov_len;

	if (first > USBIP_HEADER_BYTES)
		first = USBIP_HEADER_BYTES;
	memcpy(to, pieces[0].iov_base, first);
	memcpy(to + first, pieces[1].iov_base, USBIP_HEADER_BYTES - first);
}

/* Reads the next command; false if it has not arrived yet. */
static bool receive_header(struct engine *e)
{
	uint8_t bytes[USBIP_HEADER_BYTES];
	struct usbip_header h;
	struct iovec pieces[2];
	enum urb_verdict verdict;
	int ended = channel_ended(e->channel);
	ssize_t n = channel_peek(e->channel, pieces);

	if (n < USBIP_HEADER_BYTES) {
		if (n < 0 && !ended)
			ended = (int)n;
		if (ended)
			lose(e, ended == -EPIPE && n <= 0 ? ENGINE_PEER_ENDED
							  : ENGINE_PEER_LOST);
		return false;
	}
	copy_header(pieces, bytes);
	channel_consume(e->channel, USBIP_HEADER_BYTES);
	usbip_header_decode(&h, bytes);
	verdict = urb_check_command(&h, e->devid);
	if (verdict != URB_OK)
		violate(e, verdict);
	else if (h.command == USBIP_CMD_SUBMIT)
		on_submit(e, &h);
	else
		on_unlink(e, &h);
	return true;
}

static bool can_read(const struct engine *e)
{
	return e->is_reading && !e->is_blocked &&
	       (e->receiving != RECEIVE_HEADER || slot_is_any_free(e->pool));
}

static void read_commands(struct engine *e)
{
	bool has_more = true;

	for (int i = 0; i < COMMANDS_PER_TURN && has_more && can_read(e); i++)
		has_more = e->receiving == RECEIVE_HEADER ? receive_header(e)
							  : receive_body(e);
	e->has_unread = has_more;
}

/* -------------------------------------------------------------------- end */

static void on_limit(void *arg)
{
	struct engine *e = arg;

	if (!e->is_lost) {
		lose(e, e->end);
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

/* The conversation is over: takes every URB back, then stops the loop. */
static void lose(struct engine *e, enum engine_end why)
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
			feed(slot, URB_ON_LOST);
	}
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

	if (can_read(e))
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
	if (e->has_unread && can_read(e))
		return true;
	return channel_watch_arm(&e->watch, wanted(e));
}

static void engine_work(void *arg)
{
	struct engine *e = arg;

	if (!e->is_lost) {
		send_answers(e);
		if (can_read(e))
			read_commands(e);
		send_answers(e);
	}
	if (!e->is_lost && e->end != ENGINE_RUNNING && !e->first_answer)
		lose(e, e->end);
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
	e->seqnums = seq_map_new(URB_MAX_IN_FLIGHT + SLOT_RESERVE);
	e->pool = slot_pool_new(e, e->device, options->budget_bytes);
	if (e->seqnums && e->pool)
		r = channel_watch_start(&e->watch, e->loop, e->channel);
	if (r < 0) {
		engine_free(e);
		return r;
	}
	map_endpoints(e);
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
