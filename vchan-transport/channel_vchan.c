/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_vchan.c - a channel over libxenvchan's two rings, for processes of
 * two domains. The gateway serves: it grants the pages; the guest maps them.
 *
 * Everything in the rings is the other domain's to scribble on. What is
 * received is copied to private memory before anybody sees it, and our own
 * indices are kept there too: the library, which trusts the page, is called
 * only when the page says what we know, and never with more than there is. So
 * it neither blocks nor asks to be notified by itself.
 *
 * Notification is libxenvchan's, but once for a batch: a request of the peer is
 * taken from the page before the library would answer it, and is answered by
 * vchan_flush. A writer is told of room when half of the ring is free.
 */
#include "vchan-transport/channel_vchan.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* In the byte of a side's requests to be notified: it has written its last. */
#define MARK_ENDED 0x80u

/* Of cli_live and srv_live; a server sees 2 before its client has come. */
enum {
	LIVE_GONE,
	LIVE_HERE,
	LIVE_NOT_YET
};

static struct channel_vchan *vchan_of(struct channel *c)
{
	return (struct channel_vchan *)c;
}

static uint32_t size_of(const struct libxenvchan_ring *ring)
{
	return 1u << ring->order;
}

/* --------------------------------------------------- what the page says now */

static uint8_t look_at(const uint8_t *shared)
{
	return __atomic_load_n(shared, __ATOMIC_SEQ_CST);
}

static bool is_peer_gone(const struct channel_vchan *s)
{
	return s->is_gone || look_at(s->peer_live) == LIVE_GONE;
}

/*
 * To be called before the ring is looked at, so that what was written before an
 * end is read before the end is told; and who ends, marks that before it goes.
 */
static void look_for_end(struct channel_vchan *s)
{
	const uint8_t live = look_at(s->peer_live);
	const uint8_t marks = look_at(s->peer_marks);

	if (s->end < 0)
		return;
	if (marks & MARK_ENDED)
		s->end = -EPIPE;
	else if (live == LIVE_GONE || s->is_gone)
		s->end = -ECONNRESET;
	else if (live > (s->vchan->is_server ? LIVE_NOT_YET : LIVE_HERE))
		s->end = -EPROTO;
}

static int break_channel(struct channel_vchan *s)
{
	s->end = -EPROTO;
	return s->end;
}

/* Bytes in the ring to us, or -EPROTO. */
static int64_t count_ready(struct channel_vchan *s)
{
	const struct libxenvchan_ring *ring = &s->vchan->read;
	uint32_t prod = __atomic_load_n(&ring->shr->prod, __ATOMIC_ACQUIRE);
	uint32_t cons = __atomic_load_n(&ring->shr->cons, __ATOMIC_RELAXED);
	uint32_t ready = prod - s->consumed;

	if (cons != s->consumed || ready > size_of(ring))
		return break_channel(s);
	return ready;
}

/* Room in the ring to the peer, or -EPROTO. */
static int64_t count_room(struct channel_vchan *s)
{
	const struct libxenvchan_ring *ring = &s->vchan->write;
	uint32_t cons = __atomic_load_n(&ring->shr->cons, __ATOMIC_ACQUIRE);
	uint32_t prod = __atomic_load_n(&ring->shr->prod, __ATOMIC_RELAXED);
	uint32_t used = s->produced - cons;

	if (prod != s->produced || used > size_of(ring))
		return break_channel(s);
	return size_of(ring) - used;
}

/* From now on a request that the peer has made is ours to answer. */
static bool take_request(struct channel_vchan *s, uint8_t what)
{
	if (!(look_at(s->peer_marks) & what))
		return false;
	return __atomic_fetch_and(s->peer_marks, (uint8_t)~what,
				  __ATOMIC_SEQ_CST) &
	       what;
}

static void notify(const struct channel_vchan *s)
{
	/* Fails only when there is nobody to hear of it. */
	(void)xenevtchn_notify(s->vchan->event, s->vchan->event_port);
}

/* ------------------------------------------------------------------ reading */

/* As recv(2), but 0 when there is nothing now. */
static ssize_t receive(struct channel_vchan *s, void *to, size_t bytes)
{
	int64_t ready;
	int n;

	look_for_end(s);
	ready = count_ready(s);
	if (s->end == -EPROTO || s->end == -EIO || ready == 0)
		return s->end;
	if ((uint64_t)ready < bytes)
		bytes = (size_t)ready;
	s->owes_room |= take_request(s, VCHAN_NOTIFY_READ);
	n = libxenvchan_read(s->vchan, to, bytes);
	if (n < 0 || (size_t)n > bytes)
		return break_channel(s);
	s->consumed += (uint32_t)n;
	return n;
}

static ssize_t vchan_peek(struct channel *c, struct iovec ret_pieces[2])
{
	struct channel_vchan *s = vchan_of(c);
	ssize_t n = 0;

	if (s->used < CHANNEL_PEEK_BYTES) {
		if (s->used == 0) {
			s->start = 0;
		} else if (s->start >
			   CHANNEL_VCHAN_BUFFER_BYTES - CHANNEL_PEEK_BYTES) {
			memmove(s->buffer, s->buffer + s->start, s->used);
			s->start = 0;
		}
		n = receive(s, s->buffer + s->start + s->used,
			    CHANNEL_VCHAN_BUFFER_BYTES - s->start - s->used);
		if (n > 0)
			s->used += (size_t)n;
	}
	s->has_unshown = false;
	ret_pieces[0] = (struct iovec){ s->buffer + s->start, s->used };
	ret_pieces[1] = (struct iovec){ s->buffer, 0 };
	if (s->used > 0)
		return (ssize_t)s->used;
	s->is_end_told = n < 0;
	return n;
}

static void vchan_consume(struct channel *c, size_t bytes)
{
	struct channel_vchan *s = vchan_of(c);

	s->start += bytes;
	s->used -= bytes;
}

static int vchan_ended(struct channel *c)
{
	struct channel_vchan *s = vchan_of(c);

	look_for_end(s);
	s->is_end_told = s->end < 0;
	return s->end;
}

static ssize_t vchan_read(struct channel *c, void *to, size_t bytes)
{
	struct channel_vchan *s = vchan_of(c);
	ssize_t n;

	if (s->used == 0) {
		n = receive(s, to, bytes);
		s->is_end_told |= n < 0;
		return n;
	}
	if (bytes > s->used)
		bytes = s->used;
	memcpy(to, s->buffer + s->start, bytes);
	vchan_consume(c, bytes);
	s->has_unshown = s->used > 0;
	return (ssize_t)bytes;
}

/* ------------------------------------------------------------------ writing */

static ssize_t vchan_writev(struct channel *c, const struct iovec *v, int n)
{
	struct channel_vchan *s = vchan_of(c);
	int64_t room = count_room(s);
	size_t written = 0;

	if (room < 0)
		return (ssize_t)room;
	if (is_peer_gone(s))
		return -ECONNRESET;
	s->owes_data |= take_request(s, VCHAN_NOTIFY_WRITE);
	for (int i = 0; i < n && written < (uint64_t)room; i++) {
		size_t bytes = (size_t)room - written;
		int done;

		if (v[i].iov_len < bytes)
			bytes = v[i].iov_len;
		if (bytes == 0)
			continue;
		done = libxenvchan_write(s->vchan, v[i].iov_base, bytes);
		if (done < 0 && is_peer_gone(s))
			return -ECONNRESET;
		/* There was room, and only a peer that breaks the rules takes it. */
		if (done < 0 || (size_t)done != bytes)
			return break_channel(s);
		s->produced += (uint32_t)bytes;
		written += bytes;
	}
	return (ssize_t)written;
}

static void vchan_flush(struct channel *c)
{
	struct channel_vchan *s = vchan_of(c);
	bool must_notify = s->owes_data;

	s->owes_data = false;
	if (s->owes_room &&
	    count_ready(s) <= (int64_t)size_of(&s->vchan->read) / 2) {
		s->owes_room = false;
		must_notify = true;
	}
	if (must_notify)
		notify(s);
}

static int vchan_end(struct channel *c)
{
	const struct channel_vchan *s = vchan_of(c);

	(void)__atomic_fetch_or(s->own_marks, MARK_ENDED, __ATOMIC_SEQ_CST);
	notify(s);
	return 0;
}

/* ----------------------------------------------------------------- sleeping */

static bool has_news_to_read(struct channel_vchan *s)
{
	int64_t ready;

	look_for_end(s);
	ready = count_ready(s);
	/* With a full buffer it is the caller who has to go on. */
	return ready < 0 || (ready > 0 && s->used < CHANNEL_PEEK_BYTES) ||
	       s->has_unshown || (s->end < 0 && !s->is_end_told);
}

static bool has_news_to_write(struct channel_vchan *s)
{
	int64_t room = count_room(s);

	return room < 0 || room >= size_of(&s->vchan->write) / 2 ||
	       is_peer_gone(s);
}

static bool vchan_arm(struct channel *c, unsigned want)
{
	struct channel_vchan *s = vchan_of(c);

	vchan_flush(c);
	if (((want & CHANNEL_READ) && has_news_to_read(s)) ||
	    ((want & CHANNEL_WRITE) && has_news_to_write(s)))
		return true;
	/* These two ask to be notified; then what they tell is looked at. */
	if (want & CHANNEL_READ)
		(void)libxenvchan_data_ready(s->vchan);
	if (want & CHANNEL_WRITE)
		(void)libxenvchan_buffer_space(s->vchan);
	return ((want & CHANNEL_READ) && has_news_to_read(s)) ||
	       ((want & CHANNEL_WRITE) && has_news_to_write(s));
}

/* The warden has spoken or hung up: either is the end of the gateway. */
static bool hear_warden(struct channel_vchan *s)
{
	struct channel_last_word word;
	ssize_t n = recv(s->life_fd, &word, sizeof(word), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	s->is_gone = true;
	s->has_last_word = n == (ssize_t)sizeof(word) &&
			   memchr(word.why, '\0', sizeof(word.why));
	if (s->has_last_word)
		s->last_word = word;
	return false;
}

static bool vchan_wake(struct channel *c, int fd)
{
	struct channel_vchan *s = vchan_of(c);

	if (fd == s->life_fd)
		return hear_warden(s);
	if (libxenvchan_wait(s->vchan) == 0 || errno == EAGAIN ||
	    errno == EINTR)
		return true;
	s->end = -EIO;
	return false;
}

static size_t vchan_fds(struct channel *c, unsigned want,
			struct channel_fd ret_fds[CHANNEL_MAX_FDS])
{
	const struct channel_vchan *s = vchan_of(c);

	(void)want;
	/* Not a bell: the event channel is closed until an event is taken. */
	ret_fds[0] =
		(struct channel_fd){ s->event_fd, POLLIN, CHANNEL_FD_EDGE };
	if (s->life_fd < 0 || s->is_gone)
		return 1;
	ret_fds[1] =
		(struct channel_fd){ s->life_fd, POLLIN, CHANNEL_FD_LEVEL };
	return 2;
}

static int vchan_reason(struct channel *c, uint64_t deadline_ms,
			unsigned *ret_status,
			char why[static HANDSHAKE_WHY_BYTES])
{
	struct channel_vchan *s = vchan_of(c);

	if (s->life_fd < 0)
		return -EOPNOTSUPP;
	while (!s->is_gone) {
		struct pollfd p = { .fd = s->life_fd, .events = POLLIN };
		uint64_t now = clock_ms();

		if (now >= deadline_ms)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)(deadline_ms - now)) > 0)
			(void)hear_warden(s);
	}
	if (!s->has_last_word)
		return -ENOENT;
	*ret_status = s->last_word.status;
	memcpy(why, s->last_word.why, sizeof(s->last_word.why));
	return 0;
}

static void vchan_free(struct channel *c)
{
	struct channel_vchan *s = vchan_of(c);

	libxenvchan_close(s->vchan);
	if (s->life_fd >= 0)
		(void)close(s->life_fd);
	free(s);
}

const struct channel_ops channel_vchan_ops = {
	.name = "vchan",
	.peek = vchan_peek,
	.consume = vchan_consume,
	.ended = vchan_ended,
	.read = vchan_read,
	.writev = vchan_writev,
	.flush = vchan_flush,
	.arm = vchan_arm,
	.wake = vchan_wake,
	.fds = vchan_fds,
	.end = vchan_end,
	.reason = vchan_reason,
	.free = vchan_free,
};
