/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/tls_stock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>

static void need(int is_good, const char *what)
{
	if (is_good)
		return;
	(void)fprintf(stderr, "tls_stock: %s failed\n", what);
	abort();
}

void tls_stock_make(struct tls_stock *stock, const struct tls_bed *bed)
{
	char path[TLS_BED_DIR_BYTES + 16];

	*stock = (struct tls_stock){ .fd = -1 };
	stock->context = SSL_CTX_new(TLS_client_method());
	(void)snprintf(path, sizeof(path), "%s/client.pem", bed->client_dir);
	need(SSL_CTX_use_certificate_file(stock->context, path,
					  SSL_FILETYPE_PEM) == 1,
	     path);
	(void)snprintf(path, sizeof(path), "%s/client.key", bed->client_dir);
	need(SSL_CTX_use_PrivateKey_file(stock->context, path,
					 SSL_FILETYPE_PEM) == 1,
	     path);
}

int tls_stock_connect(struct tls_stock *stock, int fd)
{
	stock->fd = fd;
	stock->ssl = SSL_new(stock->context);
	need(stock->ssl && SSL_set_fd(stock->ssl, fd) == 1, "SSL_new");
	return SSL_connect(stock->ssl);
}

void tls_stock_free(struct tls_stock *stock)
{
	SSL_free(stock->ssl);
	SSL_CTX_free(stock->context);
	(void)close(stock->fd);
}

int tls_stock_read_alert(struct tls_stock *stock)
{
	unsigned long error = ERR_peek_error();
	char byte;

	if (error == 0 && SSL_read(stock->ssl, &byte, 1) <= 0)
		error = ERR_peek_error();
	ERR_clear_error();
	return ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET;
}

void tls_stock_meet(struct tls_bed *bed, struct tls_stock *stock,
		    struct tls_bed_gateway *gateway)
{
	int fd;

	tls_stock_make(stock, bed);
	tls_bed_serve(bed, gateway, &fd);
	need(tls_stock_connect(stock, fd) == 1, "SSL_connect");
	tls_bed_join(gateway);
	need(gateway->end.result == 0, gateway->end.why);
}
