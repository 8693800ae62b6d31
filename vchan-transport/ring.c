/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* The `bytes` bytes from free-running `index` on, as up to two pieces. */
static void pieces_at(const struct ring *r, uint32_t index, uint32_t bytes,
		      struct iovec ret_pieces[2])
{
	uint32_t start = index & (r->size - 1);
	uint32_t first = min_u32(bytes, r->size - start);

	ret_pieces[0] = (struct iovec){ r->data + start, first };
	ret_pieces[1] = (struct iovec){ r->data, bytes - first };
}

static bool has_end_mark(const struct ring *r)
{
	return atomic_load_explicit(&r->shared->is_ended,
				    memory_order_acquire) != 0;
}

bool ring_is_ended(struct ring *r)
{
	r->is_end_told = has_end_mark(r);
	return r->is_end_told;
}

ssize_t ring_peek(struct ring *r, struct iovec ret_pieces[2])
{
	/* The end mark first: what was produced before it is then visible. */
	bool is_ended = has_end_mark(r);
	uint32_t produced = atomic_load_explicit(&r->shared->produced,
						 memory_order_acquire);
	uint32_t ready = produced - r->index;

	if (ready > r->size)
		return -EPROTO;
	r->seen = produced;
	pieces_at(r, r->index, ready, ret_pieces);
	if (ready == 0 && is_ended)
		return -EPIPE;
	return (ssize_t)ready;
}

void ring_consume(struct ring *r, uint32_t bytes)
{
	r->index += bytes;
	atomic_store_explicit(&r->shared->consumed, r->index,
			      memory_order_release);
}

static bool take_mark(_Atomic uint32_t *mark)
{
	return atomic_load_explicit(mark, memory_order_relaxed) != 0 &&
	       atomic_exchange(mark, 0) != 0;
}

bool ring_reader_must_notify(struct ring *r)
{
	uint32_t left;

	/* Our index must be visible before we look whether anybody waits. */
	atomic_thread_fence(memory_order_seq_cst);
	left = r->seen - r->index;
	/*
	 * A writer that found the ring full is woken when half of it is free:
	 * waking it for each piece would cost a switch a piece.  It holds no bytes
	 * that a reader could wait for, as long as nobody has to gather more than
	 * half a ring (CHANNEL_PEEK_BYTES).
	 */
	if (left > r->size / 2)
		return false;
	return take_mark(&r->shared->writer_waits);
}

bool ring_reader_has_news(const struct ring *r)
{
	return atomic_load_explicit(&r->shared->produced,
				    memory_order_acquire) != r->seen ||
	       (has_end_mark(r) && !r->is_end_told);
}

bool ring_reader_arm(struct ring *r)
{
	if (ring_reader_has_news(r))
		return true;
	atomic_store(&r->shared->reader_waits, 1);
	atomic_thread_fence(memory_order_seq_cst);
	return ring_reader_has_news(r);
}

/* Bytes that may be written now, or -EPROTO. */
static int64_t ring_room(struct ring *r)
{
	uint32_t consumed = atomic_load_explicit(&r->shared->consumed,
						 memory_order_acquire);
	uint32_t used = r->index - consumed;

	if (used > r->size)
		return -EPROTO;
	r->seen = consumed;
	return r->size - used;
}

ssize_t ring_reserve(struct ring *r, struct iovec ret_pieces[2])
{
	int64_t room = ring_room(r);

	if (room > 0)
		pieces_at(r, r->index, (uint32_t)room, ret_pieces);
	return (ssize_t)room;
}

void ring_commit(struct ring *r, uint32_t bytes)
{
	r->index += bytes;
	atomic_store_explicit(&r->shared->produced, r->index,
			      memory_order_release);
}

ssize_t ring_writev(struct ring *r, const struct iovec *v, int n)
{
	int64_t room = ring_room(r);
	uint32_t written = 0;

	if (room < 0)
		return -EPROTO;
	for (int i = 0; i < n && written < room; i++) {
		size_t left = (size_t)room - written;
		uint32_t bytes =
			(uint32_t)(v[i].iov_len < left ? v[i].iov_len : left);
		struct iovec to[2];

		if (bytes == 0)
			continue;
		pieces_at(r, r->index + written, bytes, to);
		memcpy(to[0].iov_base, v[i].iov_base, to[0].iov_len);
		if (to[1].iov_len > 0)
			memcpy(to[1].iov_base,
			       (const uint8_t *)v[i].iov_base + to[0].iov_len,
			       to[1].iov_len);
		written += bytes;
	}
	ring_commit(r, written);
	return (ssize_t)written;
}

bool ring_writer_must_notify(struct ring *r)
{
	atomic_thread_fence(memory_order_seq_cst);
	return take_mark(&r->shared->reader_waits);
}

bool ring_writer_arm(struct ring *r)
{
	int64_t room;

	atomic_store(&r->shared->writer_waits, 1);
	atomic_thread_fence(memory_order_seq_cst);
	room = ring_room(r);
	return room < 0 || room >= r->size / 2;
}

void ring_end(struct ring *r)
{
	atomic_store_explicit(&r->shared->is_ended, 1, memory_order_release);
}
