/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/relay.h"

#include <stdbool.h>
#include <stddef.h>

#include "vchan-transport/channel_watch.h"

#define ROUNDS_PER_TURN 16

struct relay {
	struct loop *loop;
	struct channel *const *ends;
	struct channel_watch watches[2];
	struct loop_source source;
	bool is_blocked[2]; /* this end takes no more */
	bool has_more[2];   /* the budget ended before this end's bytes did */
	bool is_over;
	struct relay_end over;
};

static void end_at(struct relay *r, unsigned end, int error)
{
	if (!r->is_over)
		r->over = (struct relay_end){ .end = end, .error = error };
	r->is_over = true;
	loop_stop(r->loop);
}

/* One piece from an end to the other; false: no more for now. */
static bool pass_piece(struct relay *r, unsigned from)
{
	const unsigned to = 1 - from;
	struct iovec pieces[2];
	ssize_t n = channel_peek(r->ends[from], pieces);
	ssize_t written;

	if (n < 0)
		end_at(r, from, (int)n);
	if (n <= 0)
		return false;
	written = channel_writev(r->ends[to], pieces,
				 pieces[1].iov_len > 0 ? 2 : 1);
	if (written < 0) {
		end_at(r, to, (int)written);
		return false;
	}
	channel_consume(r->ends[from], (size_t)written);
	r->is_blocked[to] = written < n;
	return !r->is_blocked[to];
}

static void pass(struct relay *r, unsigned from)
{
	bool has_more = true;

	for (int i = 0; i < ROUNDS_PER_TURN && has_more && !r->is_over; i++)
		has_more = pass_piece(r, from);
	r->has_more[from] = has_more;
}

static bool relay_has_work(void *arg)
{
	struct relay *r = arg;
	bool has_news = false;

	if (r->is_over)
		return false;
	for (unsigned i = 0; i < 2; i++) {
		unsigned want = 0;

		if (r->has_more[i])
			return true;
		if (!r->is_blocked[1 - i])
			want |= CHANNEL_READ;
		if (r->is_blocked[i])
			want |= CHANNEL_WRITE;
		has_news |= channel_watch_arm(&r->watches[i], want);
	}
	return has_news;
}

static void relay_work(void *arg)
{
	struct relay *r = arg;

	pass(r, 0);
	pass(r, 1);
	for (unsigned i = 0; i < 2; i++)
		channel_flush(r->ends[i]);
}

int relay_run(struct loop *loop, struct channel *const ends[static 2],
	      struct relay_end *ret_end)
{
	struct relay r = { .loop = loop,
			   .ends = ends,
			   .has_more = { true, true } };
	int error = channel_watch_start(&r.watches[0], loop, ends[0]);

	if (error == 0)
		error = channel_watch_start(&r.watches[1], loop, ends[1]);
	if (error == 0) {
		r.source = (struct loop_source){ .has_work = relay_has_work,
						 .work = relay_work,
						 .arg = &r };
		loop_add_source(loop, &r.source);
		loop_run(loop);
		*ret_end = r.over;
	}
	channel_watch_stop(&r.watches[0]);
	channel_watch_stop(&r.watches[1]);
	return error;
}
