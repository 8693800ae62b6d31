/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a channel over TLS, which channel_tls_open.c makes by the
 * handshake and channel_tls.c reads and writes.
 */
#ifndef CHANNEL_TLS_H
#define CHANNEL_TLS_H

#include "vchan-transport/channel.h"
#include "vchan-transport/tls_private.h"

#define RECORD_BYTES ((size_t)SSL3_RT_MAX_PLAIN_LENGTH)
/* One encrypted, a KeyUpdate before it, and a last alert behind it. */
#define RECORD_ROOM (RECORD_BYTES + 512)

/* URBs of storage have 64 KiB: one goes with one system call, heads and all. */
#define IN_BYTES    (80u << 10)
#define OUT_BYTES   (5 * RECORD_ROOM)
#define PLAIN_BYTES (64u << 10)
/* Shown at once to who reads what follows a head straight to its place. */
#define HEADERS_BYTES 4096u
_Static_assert(PLAIN_BYTES >= CHANNEL_PEEK_BYTES, "holds what peek promises");

struct channel_tls {
	struct channel base;
	int fd;
	SSL *ssl;
	BIO_METHOD *method;
	bool tells_reasons;

	struct tls_judge judge;
	size_t num_handshake_bytes;
	uint8_t first_bytes[2]; /* of the peer's, whatever it speaks */
	bool is_too_long;

	bool may_have_more; /* the last recv did not say that it was all */
	bool is_starved;    /* OpenSSL wanted more than there was */
	int socket_end;     /* how the socket ended, 0 before */
	int end;            /* how reading ended, 0 before */
	bool is_end_told;   /* the caller knows of it */
	bool has_unshown;   /* what a read left in `plain` */
	bool has_peeked;
	bool is_read_from; /* by a caller that peeks at heads only */
	unsigned num_idle_messages;
	char why[HANDSHAKE_WHY_BYTES]; /* of an end that TLS has words for */

	int write_error;
	bool has_ended; /* nothing may be written any more */
	bool is_end_sent;
	bool is_full; /* the socket took not all of `out` */
	unsigned num_records;

	size_t in_start;
	size_t in_end;
	size_t out_start;
	size_t out_end;
	size_t plain_start;
	size_t num_plain;
	size_t num_staged;
	uint8_t in[IN_BYTES];
	uint8_t out[OUT_BYTES];
	uint8_t plain[PLAIN_BYTES];
	uint8_t stage[RECORD_BYTES];
};

extern const struct channel_ops channel_tls_ops;

/* What OpenSSL reads from and writes to. */
bool channel_tls_attach(struct channel_tls *s);
/* More of what the peer sent, when all of `in` has been used. */
void channel_tls_receive(struct channel_tls *s);
/* As much of `out` as the socket takes. */
void channel_tls_send(struct channel_tls *s);

#endif
