/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_tls_open.c - the handshake, and what is told to whom when it fails.
 */
#include "vchan-transport/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

#include "vchan-transport/channel_tls.h"
#include "vchan-transport/usbip.h"

/* For the peer to read why it is refused. */
#define REFUSAL_LIMIT_MS 1000u

/* Owns `fd` from here on. */
static int make(int fd, const struct tls_judge *judge,
		struct channel_tls **ret_channel, char *why)
{
	struct channel_tls *s = calloc(1, sizeof(*s));
	int r = -ENOMEM;

	if (!s) {
		(void)close(fd);
		(void)snprintf(why, CHANNEL_WHY_BYTES, "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	s->base.ops = &channel_tls_ops;
	s->fd = fd;
	s->judge = *judge;
	s->may_have_more = true;
	s->ssl = SSL_new(judge->context->ssl);
	if (s->ssl && channel_tls_attach(s))
		r = tls_judge_start(&s->judge, s->ssl);
	if (r < 0) {
		ERR_clear_error();
		(void)snprintf(why, CHANNEL_WHY_BYTES, "%s",
			       r == -EINVAL ? "no certificate can be for such "
					      "an address"
					    : strerror(-r));
		channel_free(&s->base);
		return r;
	}
	if (judge->role == TLS_GATEWAY)
		SSL_set_accept_state(s->ssl);
	else
		SSL_set_connect_state(s->ssl);
	*ret_channel = s;
	return 0;
}

static bool is_tls(const struct channel_tls *s)
{
	uint8_t type = s->first_bytes[0];

	return s->num_handshake_bytes == 0 ||
	       (type >= SSL3_RT_CHANGE_CIPHER_SPEC &&
		type <= SSL3_RT_APPLICATION_DATA);
}

/* Why the handshake failed, when it was not for the limit. */
static int explain(struct channel_tls *s, char *why)
{
	int r = tls_explain(&s->judge, why, CHANNEL_WHY_BYTES);
	const char *words = NULL;

	if (s->is_too_long) {
		r = -EPROTO;
		words = "its handshake is too long";
	} else if (!is_tls(s)) {
		r = -EPROTO;
		words = s->first_bytes[0] == USBIP_VERSION >> 8 &&
					s->first_bytes[1] ==
						(USBIP_VERSION & 0xff)
				? "it speaks USB/IP without TLS"
				: "it speaks no TLS";
	} else if (r == 0 && (s->socket_end == 0 || s->socket_end == -EPIPE)) {
		r = -ECONNRESET;
		words = s->num_handshake_bytes == 0
				? "it ended the connection before TLS began"
				: "it ended the connection in the handshake of TLS";
	} else if (r == 0) {
		r = s->socket_end;
		words = strerror(-r);
	}
	if (words)
		(void)snprintf(why, CHANNEL_WHY_BYTES, "%s", words);
	return r;
}

static int shake_hands(struct channel_tls *s, uint64_t deadline_ms, char *why)
{
	int r;

	while ((r = SSL_do_handshake(s->ssl)) != 1) {
		int error = SSL_get_error(s->ssl, r);

		channel_tls_send(s);
		if (error != SSL_ERROR_WANT_READ &&
		    error != SSL_ERROR_WANT_WRITE)
			return explain(s, why);
		r = channel_wait(&s->base, CHANNEL_READ, deadline_ms);
		if (r < 0) {
			(void)snprintf(why, CHANNEL_WHY_BYTES,
				       "its handshake of TLS was not done in "
				       "time");
			return r;
		}
	}
	channel_tls_send(s);
	return 0;
}

/*
 * Bytes that were not read when a socket is closed reset its connection, and
 * may take the alert with them.
 */
static void let_it_read_why(struct channel_tls *s, uint64_t deadline_ms)
{
	uint64_t limit_ms = clock_ms() + REFUSAL_LIMIT_MS;

	if (limit_ms > deadline_ms)
		limit_ms = deadline_ms;
	if (shutdown(s->fd, SHUT_WR) < 0)
		return;
	do {
		s->in_start = s->in_end;
		channel_tls_receive(s);
	} while (s->socket_end == 0 && clock_ms() < limit_ms &&
		 (s->may_have_more ||
		  channel_wait(&s->base, CHANNEL_READ, limit_ms) == 0));
}

/* Both agree on the protocol, or one of them knows nothing of ALPN. */
static int agree(struct channel_tls *s, char *why)
{
	const uint8_t *name;
	unsigned bytes;

	SSL_get0_alpn_selected(s->ssl, &name, &bytes);
	s->tells_reasons = bytes == strlen(TLS_ALPN) &&
			   memcmp(name, TLS_ALPN, bytes) == 0;
	if (bytes == 0 || s->tells_reasons)
		return 0;
	(void)snprintf(why, CHANNEL_WHY_BYTES,
		       "it chose another protocol than " TLS_ALPN " (ALPN)");
	return -EPROTO;
}

static int open_channel(int fd, const struct tls_judge *judge,
			uint64_t deadline_ms, struct channel_tls **ret_channel,
			char *why)
{
	struct channel_tls *s;
	int r = make(fd, judge, &s, why);

	if (r < 0)
		return r;
	r = shake_hands(s, deadline_ms, why);
	if (r == 0)
		r = agree(s, why);
	if (r == 0 && !s->judge.is_accepted) {
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "its certificate was not looked at");
		r = -EKEYREJECTED;
	}
	if (r < 0) {
		if (s->socket_end == 0 && r != -ETIMEDOUT)
			let_it_read_why(s, deadline_ms);
		channel_free(&s->base);
		return r;
	}
	/* With the context our key is gone. */
	SSL_certs_clear(s->ssl);
	s->judge.context = NULL;
	*ret_channel = s;
	return 0;
}

int channel_tls_accept(int fd, const struct tls_context *context,
		       uint64_t deadline_ms, struct channel **ret_channel,
		       struct tls_peer *ret_peer,
		       char why[static CHANNEL_WHY_BYTES])
{
	const struct tls_judge judge = { .role = TLS_GATEWAY,
					 .context = context };
	struct channel_tls *s;
	int r = open_channel(fd, &judge, deadline_ms, &s, why);

	if (r < 0)
		return r;
	*ret_peer = s->judge.peer;
	*ret_channel = &s->base;
	return 0;
}

int channel_tls_connect(int fd, const struct tls_context *context,
			const struct tls_wanted *wanted, uint64_t deadline_ms,
			struct channel **ret_channel,
			char why[static CHANNEL_WHY_BYTES])
{
	const struct tls_judge judge = { .role = TLS_CLIENT,
					 .context = context,
					 .host = wanted->host,
					 .pin = wanted->pin };
	struct channel_tls *s;
	int r = open_channel(fd, &judge, deadline_ms, &s, why);

	if (r < 0)
		return r;
	*ret_channel = &s->base;
	return 0;
}
