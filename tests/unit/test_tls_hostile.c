/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handshakes with what is no xusbip: OpenSSL as it comes, plain bytes, and what
 * never comes to an end.
 */
#include "vchan-transport/tls.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cmocka.h>

#include "tests/fake/tcp_pair.h"
#include "tests/fake/tls_stock.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* -------------------------------------------------------- stock clients */

/* The gateway refuses the client, and the client hears of it by an alert. */
static void expect_refused(struct tls_bed *bed, struct tls_stock *stock,
			   int result, const char *why, int alert)
{
	struct tls_bed_gateway gateway;
	int fd;

	tls_bed_serve(bed, &gateway, &fd);
	(void)tls_stock_connect(stock, fd);
	assert_int_equal(tls_stock_read_alert(stock), alert);
	tls_stock_free(stock);
	tls_bed_join(&gateway);

	assert_int_equal(gateway.end.result, result);
	assert_string_equal(gateway.end.why, why);
	assert_null(gateway.end.channel);
}

static void a_client_without_a_certificate_is_refused(void **state)
{
	struct tls_stock stock = { .context =
					   SSL_CTX_new(TLS_client_method()) };

	expect_refused(*state, &stock, -EKEYREJECTED,
		       "it has shown no certificate",
		       TLS13_AD_CERTIFICATE_REQUIRED);
}

static void an_older_tls_is_refused(void **state)
{
	struct tls_stock stock;

	tls_stock_make(&stock, *state);
	(void)SSL_CTX_set_max_proto_version(stock.context, TLS1_2_VERSION);
	expect_refused(*state, &stock, -EPROTO,
		       "it speaks an older TLS than 1.3",
		       SSL_AD_PROTOCOL_VERSION);
}

static void another_protocol_by_alpn_is_refused(void **state)
{
	static const uint8_t offer[] = "\x08http/1.1\x02h2";
	struct tls_stock stock;

	tls_stock_make(&stock, *state);
	(void)SSL_CTX_set_alpn_protos(stock.context, offer, sizeof(offer) - 1);
	expect_refused(*state, &stock, -EPROTO,
		       "it wants to speak something else than xusbip/1 (ALPN)",
		       SSL_AD_NO_APPLICATION_PROTOCOL);
}

static void ours_among_other_protocols_is_found(void **state)
{
	static const uint8_t offer[] = "\x02h2\x08xusbip/1\x02h3";
	struct tls_bed_gateway gateway;
	struct tls_stock stock;
	int fd;

	tls_stock_make(&stock, *state);
	(void)SSL_CTX_set_alpn_protos(stock.context, offer, sizeof(offer) - 1);
	tls_bed_serve(*state, &gateway, &fd);
	assert_int_equal(tls_stock_connect(&stock, fd), 1);
	tls_bed_join(&gateway);

	assert_int_equal(gateway.end.result, 0);
	assert_true(channel_tells_reasons(gateway.end.channel));
	channel_free(gateway.end.channel);
	tls_stock_free(&stock);
}

static void a_client_that_knows_no_alpn_is_served_without_reasons(void **state)
{
	struct tls_bed_gateway gateway;
	struct tls_stock stock;

	tls_stock_meet(*state, &stock, &gateway);

	assert_false(channel_tells_reasons(gateway.end.channel));
	channel_free(gateway.end.channel);
	tls_stock_free(&stock);
}

static void a_chain_that_is_too_long_is_refused(void **state)
{
	struct tls_bed *bed = *state;
	struct tls_files_leaf leaf = tls_bed_client_leaf;
	struct tls_stock stock;

	leaf.padding_bytes = TLS_HANDSHAKE_BYTES / 2;
	tls_files_issue(&bed->ca, bed->client_dir, &leaf);
	tls_stock_make(&stock, bed);
	expect_refused(bed, &stock, -EPROTO,
		       "its chain of certificates is too long",
		       SSL_AD_ILLEGAL_PARAMETER);
}

/* ------------------------------------------------------------- plain bytes */

/* What the gateway says of somebody who sends these and waits for the end. */
static void expect_bytes_refused(struct tls_bed *bed, const void *bytes,
				 size_t num, int result, const char *why)
{
	struct tls_bed_gateway gateway;
	char answer[64];
	int fd;

	tls_bed_serve(bed, &gateway, &fd);
	(void)send(fd, bytes, num, MSG_NOSIGNAL);
	(void)shutdown(fd, SHUT_WR);
	while (read(fd, answer, sizeof(answer)) > 0)
		;
	(void)close(fd);
	tls_bed_join(&gateway);

	assert_int_equal(gateway.end.result, result);
	assert_string_equal(gateway.end.why, why);
}

static void who_speaks_no_tls_is_told_apart(void **state)
{
	static const uint8_t usbip[] = { 1, 0x11, 0x80, 5, 0, 0, 0, 0 };
	static const uint8_t half[] = { 22, 3, 1, 2, 0, 1, 0, 1, 0xfc };

	expect_bytes_refused(*state, usbip, sizeof(usbip), -EPROTO,
			     "it speaks USB/IP without TLS");
	expect_bytes_refused(*state, "SSH-2.0-x\r\n", 11, -EPROTO,
			     "it speaks no TLS");
	expect_bytes_refused(*state, "GET / HTTP/1.0\r\n", 16, -EPROTO,
			     "it speaks no TLS");
	expect_bytes_refused(*state, half, sizeof(half), -ECONNRESET,
			     "it ended the connection in the handshake of TLS");
	expect_bytes_refused(*state, half, 0, -ECONNRESET,
			     "it ended the connection before TLS began");
}

static void a_handshake_without_an_end_has_a_limit(void **state)
{
	/* A ClientHello of 128 KiB, in records of 16 KiB. */
	static uint8_t bytes[5 * (16384 + 5)];
	static const uint8_t record[] = { 22, 3, 1, 0x40, 0 };
	static const uint8_t hello[] = { 1, 1, 0xff, 0xff, 3, 3 };

	for (size_t i = 0; i < 5; i++)
		memcpy(bytes + i * (16384 + sizeof(record)), record,
		       sizeof(record));
	memcpy(bytes + sizeof(record), hello, sizeof(hello));
	expect_bytes_refused(*state, bytes, sizeof(bytes), -EPROTO,
			     "its handshake is too long");
}

static void a_handshake_that_never_comes_ends_at_its_limit(void **state)
{
	struct tls_bed *bed = *state;
	struct tls_bed_gateway gateway;
	int fd;

	bed->limit_ms = 30;
	tls_bed_serve(bed, &gateway, &fd);
	tls_bed_join(&gateway);
	(void)close(fd);

	assert_int_equal(gateway.end.result, -ETIMEDOUT);
	assert_string_equal(gateway.end.why,
			    "its handshake of TLS was not done in time");
}

static void a_handshake_that_dribbles_ends_at_its_limit(void **state)
{
	static const uint8_t record[] = { 22, 3, 1, 0x40, 0, 1, 0, 0x3f };
	struct tls_bed *bed = *state;
	struct tls_bed_gateway gateway;
	struct pollfd polled = { .events = POLLIN };
	uint64_t limit = tls_bed_soon();
	size_t sent = 0;

	bed->limit_ms = 100;
	tls_bed_serve(bed, &gateway, &polled.fd);
	do {
		uint8_t byte = sent < sizeof(record) ? record[sent] : 0;

		(void)send(polled.fd, &byte, 1, MSG_NOSIGNAL);
		sent++;
		assert_true(clock_ms() < limit);
	} while (poll(&polled, 1, 2) == 0);
	tls_bed_join(&gateway);
	(void)close(polled.fd);

	assert_int_equal(gateway.end.result, -ETIMEDOUT);
}

/* ------------------------------------------------------- gateways of others */

/* The client's end of a pair of which the other one is the caller's. */
struct call {
	struct tls_bed_end end;
	struct tls_context *context;
	pthread_t thread;
};

static void *call(void *arg)
{
	const struct tls_wanted wanted = { .host = TLS_BED_HOST };
	struct call *c = arg;

	c->end.result = channel_tls_connect(c->end.fd, c->context, &wanted,
					    tls_bed_soon(), &c->end.channel,
					    c->end.why);
	return NULL;
}

static void call_start(struct call *c, const struct tls_bed *bed, int *ret_fd)
{
	char why[CHANNEL_WHY_BYTES];
	int fds[2];

	*c = (struct call){ .end.fd = -1 };
	assert_int_equal(tls_context_new(TLS_CLIENT, bed->client_dir,
					 &c->context, why),
			 0);
	assert_int_equal(tcp_pair(fds), 0);
	c->end.fd = fds[0];
	*ret_fd = fds[1];
	assert_int_equal(pthread_create(&c->thread, NULL, call, c), 0);
}

static void call_end(struct call *c)
{
	assert_int_equal(pthread_join(c->thread, NULL), 0);
	tls_context_free(c->context);
}

static SSL_CTX *stock_gateway(const struct tls_bed *bed)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/gateway.pem", bed->gateway_dir);
	assert_int_equal(SSL_CTX_use_certificate_file(context, path,
						      SSL_FILETYPE_PEM),
			 1);
	(void)snprintf(path, sizeof(path), "%s/gateway.key", bed->gateway_dir);
	assert_int_equal(SSL_CTX_use_PrivateKey_file(context, path,
						     SSL_FILETYPE_PEM),
			 1);
	return context;
}

static void a_gateway_that_knows_no_alpn_gives_no_reasons(void **state)
{
	SSL_CTX *context = stock_gateway(*state);
	SSL *ssl = SSL_new(context);
	struct call c;
	char bytes[5];
	int fd;

	call_start(&c, *state, &fd);
	assert_int_equal(SSL_set_fd(ssl, fd), 1);
	assert_int_equal(SSL_accept(ssl), 1);
	call_end(&c);

	assert_int_equal(c.end.result, 0);
	assert_false(channel_tells_reasons(c.end.channel));
	/* Behind two tickets, which nobody asked for. */
	assert_int_equal(SSL_write(ssl, "hello", 5), 5);
	assert_int_equal(
		channel_read_all(c.end.channel, bytes, 5, tls_bed_soon()), 0);
	assert_memory_equal(bytes, "hello", 5);
	channel_free(c.end.channel);
	SSL_free(ssl);
	SSL_CTX_free(context);
	(void)close(fd);
}

static void a_gateway_of_an_older_tls_is_refused(void **state)
{
	SSL_CTX *context = stock_gateway(*state);
	SSL *ssl = SSL_new(context);
	struct call c;
	int fd;

	(void)SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
	call_start(&c, *state, &fd);
	assert_int_equal(SSL_set_fd(ssl, fd), 1);
	assert_true(SSL_accept(ssl) <= 0);
	ERR_clear_error();
	(void)close(fd);
	call_end(&c);

	assert_int_equal(c.end.result, -EPROTO);
	assert_string_equal(c.end.why, "it speaks no TLS 1.3");
	SSL_free(ssl);
	SSL_CTX_free(context);
}

static void a_gateway_without_tls_is_told_apart(void **state)
{
	static const struct {
		const char *bytes;
		int result;
		const char *why;
	} rows[] = {
		{ "SSH-2.0-x\r\n", -EPROTO, "it speaks no TLS" },
		{ "", -ECONNRESET, "it ended the connection before TLS began" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char hello[2048];
		struct call c;
		int fd;

		call_start(&c, *state, &fd);
		assert_true(read(fd, hello, sizeof(hello)) > 0);
		(void)send(fd, rows[i].bytes, strlen(rows[i].bytes),
			   MSG_NOSIGNAL);
		(void)close(fd);
		call_end(&c);

		assert_int_equal(c.end.result, rows[i].result);
		assert_string_equal(c.end.why, rows[i].why);
	}
}

#define with_bed(test) \
	cmocka_unit_test_setup_teardown(test, tls_bed_set_up, tls_bed_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_bed(a_client_without_a_certificate_is_refused),
		with_bed(an_older_tls_is_refused),
		with_bed(another_protocol_by_alpn_is_refused),
		with_bed(ours_among_other_protocols_is_found),
		with_bed(a_client_that_knows_no_alpn_is_served_without_reasons),
		with_bed(a_chain_that_is_too_long_is_refused),
		with_bed(who_speaks_no_tls_is_told_apart),
		with_bed(a_handshake_without_an_end_has_a_limit),
		with_bed(a_handshake_that_never_comes_ends_at_its_limit),
		with_bed(a_handshake_that_dribbles_ends_at_its_limit),
		with_bed(a_gateway_that_knows_no_alpn_gives_no_reasons),
		with_bed(a_gateway_of_an_older_tls_is_refused),
		with_bed(a_gateway_without_tls_is_told_apart),
	};

	return cmocka_run_group_tests_name("tls, hostile", tests, NULL, NULL);
}
