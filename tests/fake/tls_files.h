/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_files.h - a CA of a test's own, and what it puts into a folder for
 * vchan-transport/tls.h, good or with one thing wrong. Whatever fails here ends
 * the test program with a line.
 */
#ifndef TLS_FILES_H
#define TLS_FILES_H

#include <stddef.h>

#include <openssl/x509.h>

struct tls_files_ca {
	X509 *certificate;
	EVP_PKEY *key;
};

/* A certificate to be issued. Times are seconds from now. */
struct tls_files_leaf {
	const char *file;  /* "gateway" or "client": .pem and .key */
	const char *names; /* "DNS:lab,IP:127.0.0.1"; NULL: none */
	const char *usage; /* "serverAuth", "clientAuth"; NULL: any */
	long serial;
	long from_s;
	long until_s; /* 0: a day */
	/* Of octets, a comment in it: a long one makes a long chain. */
	size_t padding_bytes;
};

struct tls_files_list {
	long serial; /* that it revokes; 0: none */
	long from_s;
	long until_s; /* 0: a day */
};

void tls_files_make_ca(struct tls_files_ca *ca, const char *name);
void tls_files_free_ca(struct tls_files_ca *ca);

/* A folder below /tmp, made and removed with all that is in it. */
void tls_files_make_dir(char *path, size_t path_bytes);
void tls_files_remove_dir(const char *path);

void tls_files_write_ca(const struct tls_files_ca *ca, const char *dir);
void tls_files_issue(const struct tls_files_ca *ca, const char *dir,
		     const struct tls_files_leaf *leaf);
void tls_files_revoke(const struct tls_files_ca *ca, const char *dir,
		      const struct tls_files_list *list);

#endif
