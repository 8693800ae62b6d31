/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/quiet_channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct quiet_channel *quiet_of(struct channel *c)
{
	return (struct quiet_channel *)c;
}

static ssize_t quiet_peek(struct channel *c, struct iovec ret_pieces[2])
{
	struct quiet_channel *q = quiet_of(c);
	size_t n = q->in_used - q->in_read;

	q->in_seen = q->in_used;
	ret_pieces[0] = (struct iovec){ q->in + q->in_read, n };
	ret_pieces[1] = (struct iovec){ NULL, 0 };
	return n > 0 ? (ssize_t)n : q->end;
}

static void quiet_consume(struct channel *c, size_t bytes)
{
	struct quiet_channel *q = quiet_of(c);

	q->in_read += bytes;
	if (q->in_read < q->in_used)
		return;
	q->in_read = 0;
	q->in_used = 0;
	q->in_seen = 0;
}

static int quiet_ended(struct channel *c)
{
	return quiet_of(c)->end;
}

static ssize_t quiet_read(struct channel *c, void *to, size_t bytes)
{
	struct iovec pieces[2];
	ssize_t n = quiet_peek(c, pieces);

	if (n <= 0)
		return n;
	if (bytes > (size_t)n)
		bytes = (size_t)n;
	memcpy(to, pieces[0].iov_base, bytes);
	quiet_consume(c, bytes);
	return (ssize_t)bytes;
}

static ssize_t quiet_writev(struct channel *c, const struct iovec *v, int n)
{
	struct quiet_channel *q = quiet_of(c);
	size_t written = 0;

	if (q->end == -ECONNRESET)
		return -ECONNRESET;
	for (int i = 0; i < n; i++) {
		size_t bytes = v[i].iov_len < q->room ? v[i].iov_len : q->room;

		if (bytes > sizeof(q->out) - q->out_used)
			abort();
		memcpy(q->out + q->out_used, v[i].iov_base, bytes);
		q->out_used += bytes;
		q->room -= q->room == SIZE_MAX ? 0 : bytes;
		written += bytes;
	}
	return (ssize_t)written;
}

static void quiet_flush(struct channel *c)
{
	(void)c;
}

static bool quiet_arm(struct channel *c, unsigned want)
{
	const struct quiet_channel *q = quiet_of(c);
	bool has_news = q->end != 0 || q->in_seen != q->in_used;
	bool has_room = q->end == -ECONNRESET || q->room > 0;

	return ((want & CHANNEL_READ) && has_news) ||
	       ((want & CHANNEL_WRITE) && has_room);
}

static size_t quiet_fds(struct channel *c, unsigned want,
			struct channel_fd ret_fds[CHANNEL_MAX_FDS])
{
	(void)c;
	(void)want;
	(void)ret_fds;
	return 0;
}

static int quiet_end(struct channel *c)
{
	(void)c;
	return 0;
}

static void quiet_free(struct channel *c)
{
	(void)c;
}

static const struct channel_ops ops = { .name = "quiet",
					.peek = quiet_peek,
					.consume = quiet_consume,
					.ended = quiet_ended,
					.read = quiet_read,
					.writev = quiet_writev,
					.flush = quiet_flush,
					.arm = quiet_arm,
					.fds = quiet_fds,
					.end = quiet_end,
					.free = quiet_free };

void quiet_channel_init(struct quiet_channel *q)
{
	q->base.ops = &ops;
	q->in_used = 0;
	q->in_read = 0;
	q->in_seen = 0;
	q->out_used = 0;
	q->room = SIZE_MAX;
	q->end = 0;
}

void quiet_channel_put(struct quiet_channel *q, const void *bytes, size_t n)
{
	if (n > sizeof(q->in) - q->in_used)
		abort();
	memcpy(q->in + q->in_used, bytes, n);
	q->in_used += n;
}

void quiet_channel_taken(struct quiet_channel *q, size_t n)
{
	q->out_used -= n;
	memmove(q->out, q->out + n, q->out_used);
}

size_t quiet_channel_unread(const struct quiet_channel *q,
			    const uint8_t **ret_bytes)
{
	*ret_bytes = q->in + q->in_read;
	return q->in_used - q->in_read;
}
