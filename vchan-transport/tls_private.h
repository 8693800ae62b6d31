/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the TLS parts share (tls_file.c: a folder's files; tls.c: what is made
 * of them; tls_revoked.c, tls_ends.c: what some of them say; tls_peer.c,
 * tls_judge.c: the other side's certificate; channel_tls.c). OpenSSL's types
 * end here.
 */
#ifndef TLS_PRIVATE_H
#define TLS_PRIVATE_H

#include <openssl/ssl.h>

#include "vchan-transport/tls.h"

#define TLS_FILE_NAME_BYTES 16
#define TLS_PATH_BYTES      (TLS_DIR_BYTES + TLS_FILE_NAME_BYTES)

/* One of the folder's files, read whole. */
struct tls_file {
	char path[TLS_PATH_BYTES];
	uint8_t *bytes;
	size_t num_bytes;
	BIO *bio;
};

/*
 * 0; -ENOENT or -ENOKEY, both with words in `why` of CHANNEL_WHY_BYTES. A key
 * has to be its owner's alone.
 */
int tls_file_open(struct tls_file *f, const char *dir, const char *name,
		  bool is_key, char *why);
void tls_file_close(struct tls_file *f);
/* Has what was read from it ended in order? Empties OpenSSL's queue of errors. */
bool tls_file_was_last(void);
/*
 * The next list of revoked certificates, the caller's; NULL behind the last one
 * with no words in `why`, or with some. `num` counts them.
 */
X509_CRL *tls_file_next_list(struct tls_file *f, size_t *num, char *why);
/* To be called before anything else of OpenSSL: later it is in vain. */
void tls_wipe_freed_memory(void);
/* What is wrong with a file, into `why`; empties the queue: -ENOKEY. */
int tls_refuse(char *why, const char *path, const char *what);

/*
 * The certificate and its key are lent to each handshake and taken back after
 * it, so that they go with the context and not with the last channel.
 */
struct tls_context {
	enum tls_role role;
	SSL_CTX *ssl;
	X509 *certificate;
	STACK_OF(X509) * chain; /* what its issuers are, beyond ca.pem */
	EVP_PKEY *key;
	char dir[TLS_DIR_BYTES];
};

/* What is asked of a peer's certificate, and how it did. */
struct tls_judge {
	enum tls_role role;                /* ours */
	const struct tls_context *context; /* NULL: the handshake is over */
	const char *host;   /* NULL: anyone that ca.pem vouches for */
	const uint8_t *pin; /* in place of the host; may be NULL */
	int error;          /* X509_V_..., 0: none */
	int depth;          /* of what has the error; 0: its own */
	bool is_accepted;
	struct tls_peer peer; /* what there was, accepted or not */
};

/* The SSL's peer is judged so from here on. 0, -EINVAL for the host, -ENOMEM. */
int tls_judge_start(struct tls_judge *judge, SSL *ssl);

/*
 * Why a call into OpenSSL failed, from its queue of errors, which is emptied:
 * -EKEYREJECTED, -EACCES or -EPROTO with words, as in tls.h; 0 if the queue
 * says nothing, or only that the bytes ended.
 */
int tls_explain(const struct tls_judge *judge, char *why, size_t why_bytes);

/* 0; -EKEYREJECTED if there is no telling it from others. */
int tls_peer_describe(const X509 *certificate, struct tls_peer *ret_peer);
/* False: not a number that a CA may give, or no memory. */
bool tls_certificate_identify(const X509_NAME *issuer,
			      const ASN1_INTEGER *serial,
			      struct tls_certificate_id *ret_which);
void tls_pin_print(const uint8_t pin[static TLS_PIN_BYTES],
		   char ret_text[static TLS_PIN_TEXT_BYTES]);

#endif
