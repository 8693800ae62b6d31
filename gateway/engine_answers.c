/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/engine_private.h"

#include <string.h>

#include "gateway/reply.h"

#define PIECES_PER_WRITE 16

void engine_queue_answer(struct slot *slot, enum urb_act reply)
{
	struct engine *e = slot->engine;

	slot->reply = reply;
	slot->next = NULL;
	reply_prepare(slot);
	*e->last_answer = slot;
	e->last_answer = &slot->next;
}

void engine_queue_too_late(struct engine *e, uint32_t unlink_seqnum)
{
	/* The caller read this command only because a slot was free. */
	struct slot *slot = slot_take(e->pool);

	slot->unlink_seqnum = unlink_seqnum;
	slot->state = URB_REPLYING;
	engine_queue_answer(slot, URB_DO_TOO_LATE);
}

void engine_release(struct slot *slot)
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
	engine_feed(slot, URB_ON_SENT);
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

void engine_send_answers(struct engine *e)
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
			engine_lose_channel(e, (int)written);
			return;
		}
		account_written(e, (size_t)written);
		e->is_blocked = (size_t)written < whole;
		if (e->is_blocked)
			return;
	}
}
