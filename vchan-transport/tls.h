/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls.h - who is who between hosts: certificates, keys and revocations from a
 * folder, and what a peer has proved by its certificate. TLS 1.3 only, both
 * sides prove themselves; no tickets, no resumption, no early data.
 *
 * The folder holds, under fixed names (xusbip-ca(1) makes them):
 *
 *	ca.pem				who is believed
 *	crl.pem				what is revoked; may be missing
 *	gateway.pem, gateway.key	this gateway, for those that it serves
 *	client.pem, client.key		this host, for gateways that it uses
 *
 * A key that others than its owner may read is refused.
 */
#ifndef TLS_H
#define TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vchan-transport/channel.h"

#define TLS_DIR          "/etc/xusbip/tls"
#define TLS_DIR_BYTES    256

#define TLS_NAME_BYTES   256 /* a dNSName has at most 253 */
#define TLS_SERIAL_BYTES 41  /* 20 bytes as hexadecimal digits */
#define TLS_ISSUER_BYTES 9   /* 4 */
#define TLS_PIN_TEXT     "sha256:"
/* The text of a pin, its NUL included. */
#define TLS_PIN_TEXT_BYTES (sizeof(TLS_PIN_TEXT) + (size_t)2 * TLS_PIN_BYTES)

/* Offered and chosen where both ends are ours (channel_tells_reasons). */
#define TLS_ALPN "xusbip/1"

enum tls_role {
	TLS_GATEWAY,
	TLS_CLIENT
};

/*
 * Which certificate: one CA gives a serial number once, but two may give the
 * same one.
 */
struct tls_certificate_id {
	/* Of its CA's name, lower case, as openssl x509 -issuer_hash prints it:
	 * the same for all ways to encode a name. */
	char issuer[TLS_ISSUER_BYTES];
	/* Upper case, as openssl prints it. */
	char serial[TLS_SERIAL_BYTES];
};

/* What a peer's certificate says, once its chain has been verified. */
struct tls_peer {
	/* The first dNSName; empty: none, or none that can be a name. */
	char name[TLS_NAME_BYTES];
	/* SHA-256 over the SubjectPublicKeyInfo, as "sha256:" and 64 digits. */
	char pin[TLS_PIN_TEXT_BYTES];
	struct tls_certificate_id certificate;
};

struct tls_context; /* opaque; freed by tls_context_free */

/*
 * Reads and checks the folder's files for a role. 0; -ENOKEY with words in
 * `why` that name the file: missing, not to be read, a key that others may
 * read, or that is not its certificate's, what is no certificate.
 */
int tls_context_new(enum tls_role role, const char *dir,
		    struct tls_context **ret_context,
		    char why[static CHANNEL_WHY_BYTES]);
/* NULL is fine. */
void tls_context_free(struct tls_context *context);

/*
 * Does what the folder has for a role, or its crl.pem, end within so many days,
 * or has it? With words for a warning. A file that is missing, or cannot be
 * read, is tell-tale enough where it is used: false.
 */
#define TLS_SOON_DAYS 7
bool tls_certificate_ends_soon(enum tls_role role, const char *dir,
			       char why[static CHANNEL_WHY_BYTES]);
bool tls_list_ends_soon(const char *dir, char why[static CHANNEL_WHY_BYTES]);
/* Both, as warnings in the log. */
void tls_warn_of_ends(enum tls_role role, const char *dir);
/* Calls `warn` now, and each day of the loop's life. 0 or -ENOMEM. */
struct loop;
int tls_warn_daily(struct loop *loop, void (*warn)(void *arg), void *arg);

/* "sha256:HEX", 64 digits of either case: 0 or -EINVAL. */
int tls_pin_parse(const char *text, uint8_t ret_pin[static TLS_PIN_BYTES]);

/*
 * Certificates that the folder's crl.pem revokes: read whole, asked often.
 * No file: an empty list. 0 or -ENOKEY with words.
 */
struct tls_revocations;
int tls_revocations_new(const char *dir, struct tls_revocations **ret_list,
			char why[static CHANNEL_WHY_BYTES]);
bool tls_is_revoked(const struct tls_revocations *list,
		    const struct tls_certificate_id *which);
/* NULL is fine. */
void tls_revocations_free(struct tls_revocations *list);

/*
 * The two ends of channel_tls, over a connected stream socket that they own
 * from the call on, on failure too. Each makes the whole handshake, within the
 * deadline and TLS_HANDSHAKE_BYTES. The context may be freed afterwards, and
 * with it goes the private key.
 *
 * Failures, with words that say which side refused what: -EKEYREJECTED, the
 * peer's certificate is not accepted (other CA, expired, not yet valid, revoked,
 * another name or pin, another use, none); -EACCES, it does not accept ours;
 * -EPROTO, what it speaks is no TLS 1.3; -ETIMEDOUT; -ECONNRESET and relatives.
 */
#define TLS_HANDSHAKE_BYTES (64u << 10)
int channel_tls_accept(int fd, const struct tls_context *context,
		       uint64_t deadline_ms, struct channel **ret_channel,
		       struct tls_peer *ret_peer,
		       char why[static CHANNEL_WHY_BYTES]);
/* Who must be there: the certificate is for the host, or has the pin. */
struct tls_wanted {
	const char *host;   /* a name or an IP address */
	const uint8_t *pin; /* of TLS_PIN_BYTES, in place of the host; or NULL */
};
int channel_tls_connect(int fd, const struct tls_context *context,
			const struct tls_wanted *wanted, uint64_t deadline_ms,
			struct channel **ret_channel,
			char why[static CHANNEL_WHY_BYTES]);

#endif
