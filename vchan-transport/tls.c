/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See tls.h. Whatever OpenSSL would load late is loaded with the context:
 * handshakes run in a sandbox that opens no files.
 */
#include "vchan-transport/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include "vchan-transport/tls_private.h"

/* A gateway's or client's, some between, and the CA's. */
#define MAX_CHAIN 5

/* --------------------------------------------------------- of the folder */

static int open_needed(struct tls_file *f, const char *dir, const char *name,
		       bool is_key, char *why)
{
	int r = tls_file_open(f, dir, name, is_key, why);

	return r == -ENOENT ? -ENOKEY : r;
}

static int load_authorities(struct tls_context *c, char *why)
{
	X509_STORE *store = SSL_CTX_get_cert_store(c->ssl);
	struct tls_file f;
	bool is_good = true;
	size_t num = 0;
	X509 *x;
	int r = open_needed(&f, c->dir, "ca.pem", false, why);

	if (r < 0)
		return r;
	while (is_good && (x = PEM_read_bio_X509(f.bio, NULL, NULL, NULL))) {
		is_good = X509_STORE_add_cert(store, x) == 1;
		X509_free(x);
		num++;
	}
	is_good = is_good && tls_file_was_last();
	if (!is_good)
		r = tls_refuse(why, f.path, "it holds a broken certificate");
	else if (num == 0)
		r = tls_refuse(why, f.path, "it holds no certificate");
	tls_file_close(&f);
	return r;
}

static int load_revoked(struct tls_context *c, char *why)
{
	X509_STORE *store = SSL_CTX_get_cert_store(c->ssl);
	struct tls_file f;
	X509_CRL *list;
	size_t num = 0;
	int r = tls_file_open(&f, c->dir, "crl.pem", false, why);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	while ((list = tls_file_next_list(&f, &num, why))) {
		(void)X509_STORE_add_crl(store, list);
		X509_CRL_free(list);
	}
	tls_file_close(&f);
	if (why[0] != '\0')
		return -ENOKEY;
	(void)X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(c->ssl),
					  X509_V_FLAG_CRL_CHECK);
	return 0;
}

static int load_certificate(struct tls_context *c, const char *name, char *why)
{
	struct tls_file f;
	X509 *x;
	int r = open_needed(&f, c->dir, name, false, why);

	if (r < 0)
		return r;
	c->certificate = PEM_read_bio_X509(f.bio, NULL, NULL, NULL);
	while (c->certificate &&
	       (x = PEM_read_bio_X509(f.bio, NULL, NULL, NULL))) {
		if (sk_X509_push(c->chain, x) == 0) {
			X509_free(x);
			break;
		}
	}
	if (!tls_file_was_last())
		r = tls_refuse(why, f.path, "it holds a broken certificate");
	else if (!c->certificate)
		r = tls_refuse(why, f.path, "it holds no certificate");
	tls_file_close(&f);
	return r;
}

/* One block of a PEM file; the last word of its name says what it is. */
struct pem_block {
	char *name;
	char *header; /* not empty: it is encrypted */
	uint8_t *bytes;
	long num_bytes;
};

static bool read_block(BIO *bio, struct pem_block *block)
{
	*block = (struct pem_block){ .name = NULL };
	return PEM_read_bio_ex(bio, &block->name, &block->header, &block->bytes,
			       &block->num_bytes,
			       PEM_FLAG_SECURE | PEM_FLAG_EAY_COMPATIBLE) == 1;
}

/* Leaves nothing of a key behind in freed memory. */
static void free_block(struct pem_block *block)
{
	OPENSSL_secure_free(block->name);
	OPENSSL_secure_free(block->header);
	OPENSSL_secure_clear_free(block->bytes, (size_t)block->num_bytes);
}

/*
 * The first key of a file, behind curves' parameters if need be. Not by
 * PEM_read_bio_PrivateKey, which asks for a passphrase on the terminal.
 */
static EVP_PKEY *read_key(BIO *bio, bool *ret_is_locked)
{
	struct pem_block block;
	EVP_PKEY *key = NULL;
	bool is_key = false;

	*ret_is_locked = false;
	while (!is_key && read_block(bio, &block)) {
		const uint8_t *at = block.bytes;

		is_key = strstr(block.name, "PRIVATE KEY");
		if (is_key && (strncmp(block.name, "ENCRYPTED", 9) == 0 ||
			       block.header[0] != '\0'))
			*ret_is_locked = true;
		else if (is_key)
			key = d2i_AutoPrivateKey(NULL, &at, block.num_bytes);
		free_block(&block);
	}
	return key;
}

static int load_key(struct tls_context *c, const char *name, char *why)
{
	struct tls_file f;
	bool is_locked;
	int r = open_needed(&f, c->dir, name, true, why);

	if (r < 0)
		return r;
	c->key = read_key(f.bio, &is_locked);
	if (is_locked)
		r = tls_refuse(
			why, f.path,
			"it is locked by a passphrase; store it without");
	else if (!c->key)
		r = tls_refuse(why, f.path, "it holds no private key");
	else if (X509_check_private_key(c->certificate, c->key) != 1)
		r = tls_refuse(
			why, f.path,
			"it is not the key of the certificate beside it");
	tls_file_close(&f);
	return r;
}

/* ----------------------------------------------------------------- context */

static int on_alpn(SSL *ssl, const unsigned char **ret_name,
		   unsigned char *ret_bytes, const unsigned char *offered,
		   unsigned num_offered, void *arg)
{
	const size_t wanted = strlen(TLS_ALPN);

	(void)ssl;
	(void)arg;
	for (size_t i = 0; i < num_offered; i += (size_t)1 + offered[i]) {
		if (offered[i] != wanted || num_offered - i <= wanted ||
		    memcmp(offered + i + 1, TLS_ALPN, wanted) != 0)
			continue;
		*ret_name = offered + i + 1;
		*ret_bytes = offered[i];
		return SSL_TLSEXT_ERR_OK;
	}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool set_alpn(struct tls_context *c)
{
	uint8_t offer[sizeof(TLS_ALPN)] = { sizeof(TLS_ALPN) - 1 };

	if (c->role == TLS_GATEWAY) {
		SSL_CTX_set_alpn_select_cb(c->ssl, on_alpn, NULL);
		return true;
	}
	memcpy(offer + 1, TLS_ALPN, sizeof(offer) - 1);
	return SSL_CTX_set_alpn_protos(c->ssl, offer, sizeof(offer)) == 0;
}

static bool set_terms(struct tls_context *c)
{
	SSL_CTX *ssl = c->ssl;
	char groups[] = "X25519:P-256"; /* the macro wants no const */

	(void)SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET |
					       SSL_OP_NO_COMPRESSION |
					       SSL_OP_NO_RENEGOTIATION |
					       SSL_OP_CIPHER_SERVER_PREFERENCE |
					       SSL_OP_PRIORITIZE_CHACHA);
	(void)SSL_CTX_clear_options(ssl, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
	/* So that a peer's messages without data are counted. */
	(void)SSL_CTX_clear_mode(ssl, SSL_MODE_AUTO_RETRY);
	(void)SSL_CTX_set_mode(ssl, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	(void)SSL_CTX_set_max_cert_list(ssl, TLS_HANDSHAKE_BYTES / 2);
	SSL_CTX_set_verify_depth(ssl, MAX_CHAIN);
	SSL_CTX_set_security_level(ssl, 2);
	return SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) == 1 &&
	       SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) == 1 &&
	       SSL_CTX_set_num_tickets(ssl, 0) == 1 &&
	       SSL_CTX_set1_groups_list(ssl, groups) == 1 &&
	       SSL_CTX_set_ciphersuites(ssl,
					"TLS_AES_128_GCM_SHA256:"
					"TLS_AES_256_GCM_SHA384:"
					"TLS_CHACHA20_POLY1305_SHA256") == 1 &&
	       set_alpn(c);
}

/* Would OpenSSL use them? Also loads what it needs for that. */
static bool are_usable(const struct tls_context *c)
{
	SSL *ssl = SSL_new(c->ssl);
	uint8_t byte;
	bool is = ssl &&
		  SSL_use_cert_and_key(ssl, c->certificate, c->key, c->chain,
				       1) == 1 &&
		  RAND_bytes(&byte, 1) == 1;

	SSL_free(ssl);
	return is;
}

static int load_own(struct tls_context *c, char *why)
{
	static const char *const names[][2] = {
		[TLS_GATEWAY] = { "gateway.pem", "gateway.key" },
		[TLS_CLIENT] = { "client.pem", "client.key" },
	};
	char path[TLS_PATH_BYTES];
	int r = load_certificate(c, names[c->role][0], why);

	if (r == 0)
		r = load_key(c, names[c->role][1], why);
	if (r < 0 || are_usable(c))
		return r;
	(void)snprintf(path, sizeof(path), "%s/%s", c->dir, names[c->role][0]);
	return tls_refuse(why, path, ERR_reason_error_string(ERR_peek_error()));
}

int tls_context_new(enum tls_role role, const char *dir,
		    struct tls_context **ret_context,
		    char why[static CHANNEL_WHY_BYTES])
{
	struct tls_context *c = calloc(1, sizeof(*c));
	int r;

	tls_wipe_freed_memory();
	if (!c)
		return tls_refuse(why, dir, strerror(ENOMEM));
	if (strlen(dir) >= sizeof(c->dir)) {
		free(c);
		return tls_refuse(why, dir, strerror(ENAMETOOLONG));
	}
	/* A sandbox may follow, and gmtime, by which dates are judged, reads
	 * the time zone's file at its first call. */
	tzset();
	c->role = role;
	memcpy(c->dir, dir, strlen(dir) + 1);
	c->chain = sk_X509_new_null();
	c->ssl = SSL_CTX_new(role == TLS_GATEWAY ? TLS_server_method()
						 : TLS_client_method());
	if (!c->chain || !c->ssl || !set_terms(c)) {
		r = tls_refuse(why, dir,
			       "OpenSSL has no TLS 1.3 as it is needed");
	} else {
		r = load_own(c, why);
		if (r == 0)
			r = load_authorities(c, why);
		if (r == 0)
			r = load_revoked(c, why);
	}
	ERR_clear_error();
	if (r < 0) {
		tls_context_free(c);
		return r;
	}
	*ret_context = c;
	return 0;
}

void tls_context_free(struct tls_context *context)
{
	if (!context)
		return;
	SSL_CTX_free(context->ssl);
	X509_free(context->certificate);
	sk_X509_pop_free(context->chain, X509_free);
	EVP_PKEY_free(context->key);
	free(context);
}
