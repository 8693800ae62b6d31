/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_tls.c - a channel over TLS 1.3 on a connected stream socket.
 *
 * OpenSSL never sees the socket: it reads from `in` and writes to `out`, which
 * this file fills and empties, many records with one system call. Received
 * plaintext gathers in `plain` when it is peeked at; a read with nothing
 * gathered goes past it. Written plaintext gathers in `stage`, up to a full
 * record, until that is full or the batch is flushed; long pieces are encrypted
 * from where they lie. What `out` cannot hold is left with the caller.
 */
#include "vchan-transport/channel_tls.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>

#include "vchan-transport/exit_status.h"

/* KeyUpdates, tickets and the like in a row, with no data between them. */
#define MAX_IDLE_MESSAGES 64u
/* AES-GCM keys are good for 2^24.5 records (RFC 8446, 5.5). */
#define RECORDS_PER_KEY (1u << 23)
static struct channel_tls *tls_of(struct channel *c)
{
	return (struct channel_tls *)c;
}

/* -------------------------------------------------------------- the socket */

void channel_tls_receive(struct channel_tls *s)
{
	ssize_t n;

	if (!s->may_have_more || s->socket_end < 0)
		return;
	do
		n = recv(s->fd, s->in, sizeof(s->in), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	s->may_have_more = n == (ssize_t)sizeof(s->in);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n <= 0) {
		s->socket_end = n == 0 ? -EPIPE : -errno;
		return;
	}
	s->in_start = 0;
	s->in_end = (size_t)n;
}

void channel_tls_send(struct channel_tls *s)
{
	size_t bytes = s->out_end - s->out_start;
	ssize_t n;

	if (bytes == 0 || s->write_error < 0)
		return;
	do
		n = send(s->fd, s->out + s->out_start, bytes,
			 MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
		s->write_error = -errno;
		s->is_full = false;
		return;
	}
	if (n > 0)
		s->out_start += (size_t)n;
	s->is_full = s->out_start < s->out_end;
	if (!s->is_full) {
		s->out_start = 0;
		s->out_end = 0;
	}
}

/* Is there room for that many bytes more? Makes it where it can. */
static bool has_room(struct channel_tls *s, size_t bytes)
{
	if (sizeof(s->out) - s->out_end >= bytes)
		return true;
	if (!s->is_full)
		channel_tls_send(s);
	if (s->out_start > 0) {
		s->out_end -= s->out_start;
		memmove(s->out, s->out + s->out_start, s->out_end);
		s->out_start = 0;
	}
	return sizeof(s->out) - s->out_end >= bytes;
}

/* ------------------------------------------------------ OpenSSL's own ends */

static void count_handshake(struct channel_tls *s, const uint8_t *bytes,
			    size_t n)
{
	for (size_t i = 0; i < n && s->num_handshake_bytes + i < 2; i++)
		s->first_bytes[s->num_handshake_bytes + i] = bytes[i];
	s->num_handshake_bytes += n;
	s->is_too_long = s->num_handshake_bytes > TLS_HANDSHAKE_BYTES;
}

static int bio_read(BIO *bio, char *to, size_t bytes, size_t *ret_bytes)
{
	struct channel_tls *s = BIO_get_data(bio);
	size_t n;

	BIO_clear_retry_flags(bio);
	if (s->is_too_long)
		return 0;
	if (s->in_start == s->in_end)
		channel_tls_receive(s);
	n = s->in_end - s->in_start;
	if (n == 0 && s->socket_end < 0)
		return 0;
	if (n == 0) {
		s->is_starved = true;
		BIO_set_retry_read(bio);
		return 0;
	}
	if (n > bytes)
		n = bytes;
	memcpy(to, s->in + s->in_start, n);
	if (s->judge.context)
		count_handshake(s, s->in + s->in_start, n);
	s->in_start += n;
	*ret_bytes = n;
	return 1;
}

static int bio_write(BIO *bio, const char *from, size_t bytes,
		     size_t *ret_bytes)
{
	struct channel_tls *s = BIO_get_data(bio);
	size_t room;

	BIO_clear_retry_flags(bio);
	(void)has_room(s, bytes);
	room = sizeof(s->out) - s->out_end;
	if (room == 0) {
		BIO_set_retry_write(bio);
		return 0;
	}
	if (bytes > room)
		bytes = room;
	memcpy(s->out + s->out_end, from, bytes);
	s->out_end += bytes;
	*ret_bytes = bytes;
	return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	const struct channel_tls *s = BIO_get_data(bio);

	(void)number;
	(void)pointer;
	if (command == BIO_CTRL_FLUSH)
		return 1;
	if (command == BIO_CTRL_EOF)
		return s->in_start == s->in_end && s->socket_end < 0;
	return 0;
}

bool channel_tls_attach(struct channel_tls *s)
{
	BIO *bio;

	s->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "channel_tls");
	if (!s->method || BIO_meth_set_read_ex(s->method, bio_read) != 1 ||
	    BIO_meth_set_write_ex(s->method, bio_write) != 1 ||
	    BIO_meth_set_ctrl(s->method, bio_ctrl) != 1)
		return false;
	bio = BIO_new(s->method);
	if (!bio)
		return false;
	BIO_set_data(bio, s);
	BIO_set_init(bio, 1);
	SSL_set_bio(s->ssl, bio, bio);
	return true;
}

/* ----------------------------------------------------------------- reading */

/* Could a read show more than was shown? */
static bool has_news(const struct channel_tls *s)
{
	return s->may_have_more || s->in_start < s->in_end ||
	       SSL_pending(s->ssl) > 0;
}

static void end_reading(struct channel_tls *s, int error)
{
	int r = -EPIPE;

	if (error != SSL_ERROR_ZERO_RETURN)
		r = tls_explain(&s->judge, s->why, sizeof(s->why));
	/* Ended without a word of TLS: who knows what is missing. */
	if (r == 0)
		r = s->socket_end < 0 && s->socket_end != -EPIPE ? s->socket_end
								 : -ECONNRESET;
	s->end = r;
	channel_tls_send(s); /* an alert */
}

/* As channel_read, past what has gathered. */
static ssize_t receive(struct channel_tls *s, void *to, size_t bytes)
{
	size_t n;

	while (s->end == 0 && has_news(s)) {
		int error;

		s->is_starved = false;
		if (SSL_read_ex(s->ssl, to, bytes, &n) == 1) {
			s->num_idle_messages = 0;
			return (ssize_t)n;
		}
		error = SSL_get_error(s->ssl, 0);
		if (error != SSL_ERROR_WANT_READ) {
			end_reading(s, error);
		} else if (!s->is_starved &&
			   ++s->num_idle_messages > MAX_IDLE_MESSAGES) {
			(void)snprintf(s->why, sizeof(s->why),
				       "it sends TLS messages without data");
			s->end = -EPROTO;
		}
	}
	return s->end;
}

static ssize_t tls_peek(struct channel *c, struct iovec ret_pieces[2])
{
	struct channel_tls *s = tls_of(c);
	size_t goal = s->num_plain +
		      (s->is_read_from ? HEADERS_BYTES : sizeof(s->plain));
	ssize_t n = s->end;

	if (s->num_plain == 0)
		s->plain_start = 0;
	if (s->num_plain < CHANNEL_PEEK_BYTES &&
	    s->plain_start > sizeof(s->plain) - CHANNEL_PEEK_BYTES) {
		memmove(s->plain, s->plain + s->plain_start, s->num_plain);
		s->plain_start = 0;
	}
	if (goal > sizeof(s->plain) - s->plain_start)
		goal = sizeof(s->plain) - s->plain_start;
	while (s->num_plain < goal) {
		n = receive(s, s->plain + s->plain_start + s->num_plain,
			    goal - s->num_plain);
		if (n <= 0)
			break;
		s->num_plain += (size_t)n;
	}
	s->has_peeked = true;
	s->has_unshown = false;
	ret_pieces[0] =
		(struct iovec){ s->plain + s->plain_start, s->num_plain };
	ret_pieces[1] = (struct iovec){ s->plain, 0 };
	return s->num_plain > 0 ? (ssize_t)s->num_plain : n;
}

static void tls_consume(struct channel *c, size_t bytes)
{
	struct channel_tls *s = tls_of(c);

	s->plain_start += bytes;
	s->num_plain -= bytes;
}

static int tls_ended(struct channel *c)
{
	struct channel_tls *s = tls_of(c);

	s->is_end_told = s->end != 0;
	return s->end;
}

static ssize_t tls_read(struct channel *c, void *to, size_t bytes)
{
	struct channel_tls *s = tls_of(c);

	s->is_read_from = s->has_peeked;
	if (s->num_plain == 0)
		return receive(s, to, bytes);
	if (bytes > s->num_plain)
		bytes = s->num_plain;
	memcpy(to, s->plain + s->plain_start, bytes);
	tls_consume(c, bytes);
	s->has_unshown = s->num_plain > 0;
	return (ssize_t)bytes;
}

/* ----------------------------------------------------------------- writing */

/* One record into `out`, which has room for it. */
static void encrypt(struct channel_tls *s, const void *from, size_t bytes)
{
	size_t n;

	if (++s->num_records > RECORDS_PER_KEY &&
	    SSL_key_update(s->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
		s->num_records = 0;
	if (SSL_write_ex(s->ssl, from, bytes, &n) == 1)
		return;
	/* It has stopped in the middle of a message of its own. */
	ERR_clear_error();
	s->write_error = -EPROTO;
}

/* False: the stage is still full. */
static bool clear_stage(struct channel_tls *s)
{
	if (!has_room(s, RECORD_ROOM))
		return false;
	encrypt(s, s->stage, s->num_staged);
	s->num_staged = 0;
	return true;
}

/* Takes what there is room for of one piece; how much. */
static size_t write_piece(struct channel_tls *s, const uint8_t *from,
			  size_t bytes)
{
	size_t taken = 0;

	while (taken < bytes && s->write_error == 0) {
		size_t n = bytes - taken;

		if (s->num_staged == RECORD_BYTES && !clear_stage(s))
			break;
		if (s->num_staged == 0 && n >= RECORD_BYTES &&
		    has_room(s, RECORD_ROOM)) {
			n = RECORD_BYTES;
			encrypt(s, from + taken, n);
		} else {
			if (n > RECORD_BYTES - s->num_staged)
				n = RECORD_BYTES - s->num_staged;
			memcpy(s->stage + s->num_staged, from + taken, n);
			s->num_staged += n;
		}
		taken += n;
	}
	return taken;
}

static ssize_t tls_writev(struct channel *c, const struct iovec *v, int n)
{
	struct channel_tls *s = tls_of(c);
	size_t taken = 0;

	if (s->has_ended)
		return -EPIPE;
	if (s->end < 0 && s->end != -EPIPE)
		return s->end;
	for (int i = 0; i < n; i++) {
		size_t written = write_piece(s, v[i].iov_base, v[i].iov_len);

		taken += written;
		if (written < v[i].iov_len)
			break;
	}
	return s->write_error < 0 ? s->write_error : (ssize_t)taken;
}

static bool has_room_to_write(const struct channel_tls *s)
{
	return s->num_staged < RECORD_BYTES ||
	       OUT_BYTES - (s->out_end - s->out_start) >= RECORD_ROOM;
}

static void tls_flush(struct channel *c)
{
	struct channel_tls *s = tls_of(c);

	if (s->is_full)
		return;
	if (s->num_staged > 0 && s->write_error == 0)
		(void)clear_stage(s);
	if (s->has_ended && !s->is_end_sent && s->num_staged == 0) {
		s->is_end_sent = true;
		if (SSL_shutdown(s->ssl) < 0)
			ERR_clear_error();
	}
	channel_tls_send(s);
}

static int tls_end(struct channel *c)
{
	struct channel_tls *s = tls_of(c);

	s->has_ended = true;
	/* What was broken has been told why, and is told no more. */
	if (s->end < 0 && s->end != -EPIPE)
		s->is_end_sent = true;
	tls_flush(c);
	return s->write_error;
}

/* ----------------------------------------------------------------- waiting */

static bool tls_arm(struct channel *c, unsigned want)
{
	const struct channel_tls *s = tls_of(c);

	if ((want & CHANNEL_WRITE) &&
	    (s->write_error < 0 || has_room_to_write(s)))
		return true;
	if (!(want & CHANNEL_READ))
		return false;
	if (s->has_unshown)
		return true;
	return s->end == 0 ? has_news(s) : !s->is_end_told;
}

static bool tls_wake(struct channel *c, int fd)
{
	struct channel_tls *s = tls_of(c);

	(void)fd;
	s->may_have_more = true;
	if (s->is_full) {
		s->is_full = false;
		tls_flush(c);
	}
	return true;
}

static size_t tls_fds(struct channel *c, unsigned want,
		      struct channel_fd ret_fds[CHANNEL_MAX_FDS])
{
	const struct channel_tls *s = tls_of(c);
	short events = 0;

	if (want & CHANNEL_READ)
		events |= POLLIN;
	/* What has been taken is sent, whatever the caller waits for. */
	if (s->is_full)
		events |= POLLOUT;
	ret_fds[0] = (struct channel_fd){ s->fd, events, CHANNEL_FD_LEVEL };
	return 1;
}

/* ------------------------------------------------------------------ the end */

static bool tls_tells_reasons(const struct channel *c)
{
	return ((const struct channel_tls *)c)->tells_reasons;
}

static int tls_reason(struct channel *c, uint64_t deadline_ms,
		      unsigned *ret_status,
		      char why[static HANDSHAKE_WHY_BYTES])
{
	struct channel_tls *s = tls_of(c);
	struct iovec pieces[2];

	/* A write may have found out first. */
	while (s->end == 0) {
		ssize_t n = tls_peek(c, pieces);

		if (n > 0)
			tls_consume(c, (size_t)n);
		else if (n == 0 &&
			 channel_wait(c, CHANNEL_READ, deadline_ms) < 0)
			return -ETIMEDOUT;
		if (clock_ms() >= deadline_ms)
			return -ETIMEDOUT;
	}
	if (s->why[0] == '\0')
		return -ENOENT;
	*ret_status = s->end == -EACCES ? EXIT_NOT_ALLOWED : EXIT_PROTOCOL;
	memcpy(why, s->why, sizeof(s->why));
	return 0;
}

static void tls_free(struct channel *c)
{
	struct channel_tls *s = tls_of(c);

	SSL_free(s->ssl);
	BIO_meth_free(s->method);
	(void)close(s->fd);
	free(s);
}

const struct channel_ops channel_tls_ops = {
	.name = "tls",
	.peek = tls_peek,
	.consume = tls_consume,
	.ended = tls_ended,
	.read = tls_read,
	.writev = tls_writev,
	.flush = tls_flush,
	.arm = tls_arm,
	.wake = tls_wake,
	.fds = tls_fds,
	.end = tls_end,
	.tells_reasons = tls_tells_reasons,
	.reason = tls_reason,
	.free = tls_free,
};
