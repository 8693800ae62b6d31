/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes after the handshake: peers that keep to TLS but not to what is
 * decent, and what a process needs and keeps.
 */
#include "vchan-transport/tls.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cmocka.h>

#include "tests/fake/tcp_pair.h"
#include "tests/fake/tls_stock.h"
#include "vchan-transport/sandbox.h"
#include "vchan-transport/tls_private.h"

#define LOAD_BYTES (2u << 20)

/* ------------------------------------------------------------------ streams */

static void records_of_one_byte_arrive_in_order(void **state)
{
	struct tls_bed_gateway gateway;
	struct tls_stock stock;
	uint8_t got[3000];

	tls_stock_meet(*state, &stock, &gateway);
	for (size_t i = 0; i < sizeof(got); i++) {
		uint8_t byte = (uint8_t)(i * 7);

		assert_int_equal(SSL_write(stock.ssl, &byte, 1), 1);
	}
	assert_int_equal(channel_read_all(gateway.end.channel, got, sizeof(got),
					  tls_bed_soon()),
			 0);
	for (size_t i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], (uint8_t)(i * 7));
	channel_free(gateway.end.channel);
	tls_stock_free(&stock);
}

static void change_keys(struct tls_stock *stock, int kind)
{
	assert_int_equal(SSL_key_update(stock->ssl, kind), 1);
	assert_int_equal(SSL_do_handshake(stock->ssl), 1);
}

static void new_keys_are_taken_and_given(void **state)
{
	struct tls_bed_gateway gateway;
	struct tls_stock stock;
	uint8_t byte;

	tls_stock_meet(*state, &stock, &gateway);
	for (int i = 0; i < 200; i++) {
		change_keys(&stock, SSL_KEY_UPDATE_REQUESTED);
		assert_int_equal(SSL_write(stock.ssl, "x", 1), 1);
		assert_int_equal(channel_read_all(gateway.end.channel, &byte, 1,
						  tls_bed_soon()),
				 0);
		assert_int_equal(channel_write_all(gateway.end.channel, "y", 1,
						   tls_bed_soon()),
				 0);
		assert_int_equal(SSL_read(stock.ssl, &byte, 1), 1);
		assert_int_equal(byte, 'y');
	}
	channel_free(gateway.end.channel);
	tls_stock_free(&stock);
}

static void a_storm_of_new_keys_is_a_violation(void **state)
{
	struct tls_bed_gateway gateway;
	struct tls_stock stock;
	uint8_t byte;

	tls_stock_meet(*state, &stock, &gateway);
	for (int i = 0; i < 100; i++)
		change_keys(&stock, SSL_KEY_UPDATE_NOT_REQUESTED);
	assert_int_equal(channel_read_all(gateway.end.channel, &byte, 1,
					  tls_bed_soon()),
			 -EPROTO);
	assert_int_equal(channel_write_all(gateway.end.channel, &byte, 1,
					   tls_bed_soon()),
			 -EPROTO);
	channel_free(gateway.end.channel);
	tls_stock_free(&stock);
}

static void an_end_without_a_word_is_no_end(void **state)
{
	for (int is_said = 0; is_said < 2; is_said++) {
		struct tls_bed_gateway gateway;
		struct tls_stock stock;
		uint8_t bytes[100];

		tls_stock_meet(*state, &stock, &gateway);
		assert_int_equal(SSL_write(stock.ssl, bytes, sizeof(bytes)),
				 sizeof(bytes));
		if (is_said)
			(void)SSL_shutdown(stock.ssl);
		tls_stock_free(&stock);

		assert_int_equal(channel_read_all(gateway.end.channel, bytes,
						  sizeof(bytes),
						  tls_bed_soon()),
				 0);
		assert_int_equal(channel_read_all(gateway.end.channel, bytes, 1,
						  tls_bed_soon()),
				 is_said ? -EPIPE : -ECONNRESET);
		channel_free(gateway.end.channel);
	}
}

static void what_came_before_a_reset_is_not_lost(void **state)
{
	static uint8_t bytes[50000];
	const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	struct tls_bed_gateway gateway;
	struct pollfd polled = { .events = POLLERR };
	struct tls_stock stock;
	struct iovec v = { bytes, sizeof(bytes) };

	tls_stock_meet(*state, &stock, &gateway);
	assert_int_equal(SSL_write(stock.ssl, bytes, sizeof(bytes)),
			 sizeof(bytes));
	(void)setsockopt(stock.fd, SOL_SOCKET, SO_LINGER, &reset,
			 sizeof(reset));
	tls_stock_free(&stock);
	polled.fd = gateway.end.fd;
	assert_int_equal(poll(&polled, 1, TLS_BED_LIMIT_MS), 1);
	/* That writing fails changes nothing for what is to be read. */
	while (channel_writev(gateway.end.channel, &v, 1) > 0)
		channel_flush(gateway.end.channel);

	assert_int_equal(channel_read_all(gateway.end.channel, bytes,
					  sizeof(bytes), tls_bed_soon()),
			 0);
	assert_int_equal(channel_read_all(gateway.end.channel, bytes, 1,
					  tls_bed_soon()),
			 -ECONNRESET);
	channel_free(gateway.end.channel);
}

/* One end of a load in both directions: what it has sent, and had. */
struct load {
	struct channel *channel;
	size_t sent;
	size_t had;
};

static uint8_t byte_at(size_t n)
{
	return (uint8_t)(n * 31 + (n >> 10));
}

/* Writes a bit and reads a bit, as much as goes now; is anything done? */
static bool turn(struct load *l)
{
	uint8_t bytes[20011];
	struct iovec v = { bytes, sizeof(bytes) - l->sent % 7000 };
	ssize_t n = 0;
	bool is_moved;

	if (v.iov_len > LOAD_BYTES - l->sent)
		v.iov_len = LOAD_BYTES - l->sent;
	for (size_t i = 0; i < v.iov_len; i++)
		bytes[i] = byte_at(l->sent + i);
	if (v.iov_len > 0)
		n = channel_writev(l->channel, &v, 1);
	channel_flush(l->channel);
	assert_true(n >= 0);
	l->sent += (size_t)n;
	is_moved = n > 0;
	n = channel_read(l->channel, bytes, sizeof(bytes) - l->had % 9000);
	assert_true(n >= 0);
	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(bytes[i], byte_at(l->had + (size_t)i));
	l->had += (size_t)n;
	return is_moved || n > 0;
}

/* Sleeps as a loop does, until one of them has news. */
static void sleep_until_news(struct load loads[2])
{
	struct channel_fd fds[2][CHANNEL_MAX_FDS];
	struct pollfd polled[2];
	unsigned want[2];

	for (int i = 0; i < 2; i++) {
		want[i] = CHANNEL_READ;
		if (loads[i].sent < LOAD_BYTES)
			want[i] |= CHANNEL_WRITE;
		if (channel_arm(loads[i].channel, want[i]))
			return;
		assert_int_equal(channel_fds(loads[i].channel, want[i], fds[i]),
				 1);
		polled[i] = (struct pollfd){ .fd = fds[i][0].fd,
					     .events = fds[i][0].events };
	}
	assert_true(poll(polled, 2, TLS_BED_LIMIT_MS) > 0);
	for (int i = 0; i < 2; i++) {
		if (polled[i].revents)
			(void)channel_wake(loads[i].channel, polled[i].fd);
	}
}

static void both_directions_fit_through_small_buffers(void **state)
{
	const int small = 4096;
	struct tls_bed_gateway gateway;
	struct tls_bed_end client;
	struct load loads[2] = { { .sent = 0 } };

	tls_bed_meet(*state, NULL, &gateway, &client);
	loads[0].channel = gateway.end.channel;
	loads[1].channel = client.channel;
	(void)setsockopt(gateway.end.fd, SOL_SOCKET, SO_SNDBUF, &small,
			 sizeof(small));
	(void)setsockopt(client.fd, SOL_SOCKET, SO_SNDBUF, &small,
			 sizeof(small));
	while (loads[0].had < LOAD_BYTES || loads[1].had < LOAD_BYTES) {
		bool is_moved = turn(&loads[0]);

		is_moved = turn(&loads[1]) || is_moved;
		if (!is_moved)
			sleep_until_news(loads);
	}
	assert_int_equal(loads[0].sent, LOAD_BYTES);
	assert_int_equal(loads[1].sent, LOAD_BYTES);
	tls_bed_part(&gateway, &client);
}

static void broken_bytes_end_the_channel(void **state)
{
	static const uint8_t record[] = { 23, 3, 3, 0, 32, 1, 2, 3 };
	uint8_t bytes[37] = { 0 };
	struct tls_bed_gateway gateway;
	struct tls_stock stock;

	tls_stock_meet(*state, &stock, &gateway);
	assert_int_equal(SSL_write(stock.ssl, "good", 4), 4);
	memcpy(bytes, record, sizeof(record));
	assert_int_equal(send(stock.fd, bytes, sizeof(bytes), 0),
			 sizeof(bytes));

	assert_int_equal(channel_read_all(gateway.end.channel, bytes, 4,
					  tls_bed_soon()),
			 0);
	assert_memory_equal(bytes, "good", 4);
	assert_int_equal(channel_read_all(gateway.end.channel, bytes, 1,
					  tls_bed_soon()),
			 -EPROTO);
	assert_int_equal(tls_stock_read_alert(&stock), SSL_AD_BAD_RECORD_MAC);
	channel_free(gateway.end.channel);
	tls_stock_free(&stock);
}

/* -------------------------------------------------------------- the process */

/* Accepts in a sandbox, sends back what comes, and exits in order. */
static int echo_in_a_sandbox(struct tls_context *context, int fd)
{
	struct channel *channel = NULL;
	struct tls_peer peer;
	char why[CHANNEL_WHY_BYTES];
	char bytes[5];
	int r = sandbox_enter(SANDBOX_LINK);

	if (r == 0)
		r = channel_tls_accept(fd, context, tls_bed_soon(), &channel,
				       &peer, why);
	tls_context_free(context);
	if (r == 0)
		r = channel_read_all(channel, bytes, sizeof(bytes),
				     tls_bed_soon());
	if (r == 0)
		r = channel_write_all(channel, bytes, sizeof(bytes),
				      tls_bed_soon());
	if (r < 0)
		return -r;
	channel_finish(channel, tls_bed_soon());
	channel_free(channel);
	return 0;
}

static void all_of_it_fits_into_a_sandbox(void **state)
{
	const struct tls_wanted wanted = { .host = TLS_BED_HOST };
	struct tls_bed *bed = *state;
	struct tls_context *contexts[2] = { NULL, NULL };
	struct channel *channel = NULL;
	char why[CHANNEL_WHY_BYTES];
	char bytes[5];
	int fds[2];
	int status;
	pid_t pid;

	assert_int_equal(tcp_pair(fds), 0);
	pid = fork();
	if (pid == 0) {
		(void)close(fds[1]);
		if (tls_context_new(TLS_GATEWAY, bed->gateway_dir, &contexts[0],
				    why) < 0)
			_exit(1);
		_exit(echo_in_a_sandbox(contexts[0], fds[0]));
	}
	(void)close(fds[0]);
	assert_int_equal(tls_context_new(TLS_CLIENT, bed->client_dir,
					 &contexts[1], why),
			 0);
	assert_int_equal(channel_tls_connect(fds[1], contexts[1], &wanted,
					     tls_bed_soon(), &channel, why),
			 0);
	assert_int_equal(channel_write_all(channel, "hello", 5, tls_bed_soon()),
			 0);
	assert_int_equal(channel_read_all(channel, bytes, 5, tls_bed_soon()),
			 0);
	channel_finish(channel, tls_bed_soon());
	channel_free(channel);
	tls_context_free(contexts[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static long resident_kib(void)
{
	char line[128];
	long kib = 0;
	FILE *file = fopen("/proc/self/status", "re");

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, "VmRSS:", 6) == 0)
			kib = strtol(line + 6, NULL, 10);
	}
	(void)fclose(file);
	return kib;
}

static void a_thousand_handshakes_leave_nothing_behind(void **state)
{
	struct tls_bed *bed = *state;
	long before_kib = 0;

	for (int i = 0; i < 1000; i++) {
		struct tls_bed_gateway gateway;
		struct tls_bed_end client;

		if (i == 100)
			before_kib = resident_kib();
		tls_bed_meet(bed, NULL, &gateway, &client);
		assert_int_equal(gateway.end.result, 0);
		tls_bed_part(&gateway, &client);
	}
	assert_int_equal(SSL_CTX_sess_number(bed->gateway->ssl), 0);
	assert_int_equal(SSL_CTX_sess_number(bed->client->ssl), 0);
	/* A sanitizer keeps what is freed for a while. */
	if (!SANDBOX_IS_SANITIZED)
		assert_true(resident_kib() - before_kib < 1024);
}

#define with_bed(test) \
	cmocka_unit_test_setup_teardown(test, tls_bed_set_up, tls_bed_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_bed(records_of_one_byte_arrive_in_order),
		with_bed(new_keys_are_taken_and_given),
		with_bed(a_storm_of_new_keys_is_a_violation),
		with_bed(an_end_without_a_word_is_no_end),
		with_bed(what_came_before_a_reset_is_not_lost),
		with_bed(both_directions_fit_through_small_buffers),
		with_bed(broken_bytes_end_the_channel),
		with_bed(all_of_it_fits_into_a_sandbox),
		with_bed(a_thousand_handshakes_leave_nothing_behind),
	};

	return cmocka_run_group_tests_name("tls stream", tests, NULL, NULL);
}
