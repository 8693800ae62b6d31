/* SPDX-License-Identifier: Apache-2.0 */
/* tls_stock.h - OpenSSL as it comes, as a client of a test's gateway. */
#ifndef TLS_STOCK_H
#define TLS_STOCK_H

#include <openssl/ssl.h>

#include "tests/fake/tls_bed.h"

struct tls_stock {
	SSL_CTX *context;
	SSL *ssl;
	int fd;
};

/* With the client's certificate; its context may be changed before connecting. */
void tls_stock_make(struct tls_stock *stock, const struct tls_bed *bed);
/* What SSL_connect says. Blocks. */
int tls_stock_connect(struct tls_stock *stock, int fd);
/* Also closes its end of the connection. */
void tls_stock_free(struct tls_stock *stock);

/* The alert that the gateway sends it, if it has not read it yet. */
int tls_stock_read_alert(struct tls_stock *stock);

/* A meeting that must not fail; the caller frees the gateway's channel. */
void tls_stock_meet(struct tls_bed *bed, struct tls_stock *stock,
		    struct tls_bed_gateway *gateway);

#endif
