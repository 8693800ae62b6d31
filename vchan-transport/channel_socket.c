/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_socket.c - a channel over a connected stream socket: TCP, AF_UNIX,
 * vsock.
 *
 * Received bytes gather in one buffer, so that several small messages cost one
 * system call; a long read goes past it, straight to where it is wanted.
 * Written bytes are not buffered: what the socket does not take is left with
 * the caller, which is how a slow peer holds up the device and not our memory.
 */
#include "vchan-transport/channel.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_BYTES (64u << 10)
_Static_assert(BUFFER_BYTES >= CHANNEL_PEEK_BYTES, "holds what peek promises");

struct channel_socket {
	struct channel base;
	int fd;
	bool may_have_more; /* the last recv did not say that it was all */
	bool may_have_room; /* woken since the last write that did not fit */
	int end;            /* how reading ended, 0 before */
	bool is_end_told;   /* the caller knows of it */
	size_t start;       /* of what is buffered */
	size_t used;
	uint8_t buffer[BUFFER_BYTES];
};

static struct channel_socket *socket_of(struct channel *c)
{
	return (struct channel_socket *)c;
}

/* As recv(2), but 0 when there is nothing now; remembers the end. */
static ssize_t receive(struct channel_socket *s, void *to, size_t bytes)
{
	ssize_t n;

	if (!s->may_have_more || s->end < 0)
		return s->end;
	do
		n = recv(s->fd, to, bytes, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		s->may_have_more = false;
		return 0;
	}
	if (n <= 0) {
		s->end = n == 0 ? -EPIPE : -errno;
		return s->end;
	}
	if ((size_t)n < bytes)
		s->may_have_more = false;
	return n;
}

static ssize_t socket_peek(struct channel *c, struct iovec ret_pieces[2])
{
	struct channel_socket *s = socket_of(c);
	ssize_t n = 0;

	if (s->used < CHANNEL_PEEK_BYTES) {
		if (s->used == 0) {
			s->start = 0;
		} else if (s->start > BUFFER_BYTES - CHANNEL_PEEK_BYTES) {
			memmove(s->buffer, s->buffer + s->start, s->used);
			s->start = 0;
		}
		n = receive(s, s->buffer + s->start + s->used,
			    BUFFER_BYTES - s->start - s->used);
		if (n > 0)
			s->used += (size_t)n;
	}
	ret_pieces[0] = (struct iovec){ s->buffer + s->start, s->used };
	ret_pieces[1] = (struct iovec){ s->buffer, 0 };
	return s->used > 0 ? (ssize_t)s->used : n;
}

static void socket_consume(struct channel *c, size_t bytes)
{
	struct channel_socket *s = socket_of(c);

	s->start += bytes;
	s->used -= bytes;
}

static int socket_ended(struct channel *c)
{
	struct channel_socket *s = socket_of(c);

	s->is_end_told = s->end != 0;
	return s->end;
}

static ssize_t socket_read(struct channel *c, void *to, size_t bytes)
{
	struct channel_socket *s = socket_of(c);

	if (s->used == 0)
		return receive(s, to, bytes);
	if (bytes > s->used)
		bytes = s->used;
	memcpy(to, s->buffer + s->start, bytes);
	socket_consume(c, bytes);
	return (ssize_t)bytes;
}

static ssize_t socket_writev(struct channel *c, const struct iovec *v, int n)
{
	struct channel_socket *s = socket_of(c);
	struct msghdr msg = { .msg_iovlen = (size_t)n };
	size_t whole = 0;
	ssize_t sent;
	union { /* sendmsg does not write through it */
		const struct iovec *in;
		struct iovec *out;
	} iov = { .in = v };

	msg.msg_iov = iov.out;
	for (int i = 0; i < n; i++)
		whole += v[i].iov_len;
	do
		sent = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
		return -errno;
	if (sent < 0)
		sent = 0;
	s->may_have_room = (size_t)sent == whole;
	return sent;
}

static void socket_flush(struct channel *c)
{
	(void)c; /* what was written is on its way */
}

static bool socket_arm(struct channel *c, unsigned want)
{
	const struct channel_socket *s = socket_of(c);

	if ((want & CHANNEL_WRITE) && s->may_have_room)
		return true;
	if (!(want & CHANNEL_READ))
		return false;
	return s->end == 0 ? s->may_have_more : !s->is_end_told;
}

static bool socket_wake(struct channel *c, int fd)
{
	struct channel_socket *s = socket_of(c);

	(void)fd;
	s->may_have_more = true;
	s->may_have_room = true;
	return true;
}

static size_t socket_fds(struct channel *c, unsigned want,
			 struct channel_fd ret_fds[CHANNEL_MAX_FDS])
{
	short events = 0;

	if (want & CHANNEL_READ)
		events |= POLLIN;
	if (want & CHANNEL_WRITE)
		events |= POLLOUT;
	ret_fds[0] = (struct channel_fd){ socket_of(c)->fd, events,
					  CHANNEL_FD_LEVEL };
	return 1;
}

static int socket_end(struct channel *c)
{
	if (shutdown(socket_of(c)->fd, SHUT_WR) < 0)
		return -errno;
	return 0;
}

static void socket_free(struct channel *c)
{
	struct channel_socket *s = socket_of(c);

	(void)close(s->fd);
	free(s);
}

static const struct channel_ops socket_ops = {
	.name = "socket",
	.peek = socket_peek,
	.consume = socket_consume,
	.ended = socket_ended,
	.read = socket_read,
	.writev = socket_writev,
	.flush = socket_flush,
	.arm = socket_arm,
	.wake = socket_wake,
	.fds = socket_fds,
	.end = socket_end,
	.free = socket_free,
};

int channel_socket_new(int fd, struct channel **ret_channel)
{
	struct channel_socket *s = calloc(1, sizeof(*s));

	if (!s) {
		(void)close(fd);
		return -ENOMEM;
	}
	s->base.ops = &socket_ops;
	s->fd = fd;
	s->may_have_more = true;
	*ret_channel = &s->base;
	return 0;
}
