/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a channel begins and ends: connecting to a listener of each kind, and
 * the farewell with its limit.
 */
#include "vchan-transport/channel.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define LIMIT_MS   5000
#define REST_BYTES 70000

static const struct channel_options usual = { 0 };

static uint64_t soon(void)
{
	return clock_ms() + LIMIT_MS;
}

/* -------------------------------------------------------------- connecting */

/* A socket that listens; `*to` is its address. */
struct listener {
	int fd;
	struct address to;
	struct sockaddr_un un; /* ADDRESS_UNIX */
};

static int listen_tcp(void **state)
{
	static struct listener l;
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t bytes = sizeof(in);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	l.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(l.fd, (const struct sockaddr *)&in, sizeof(in)) < 0 ||
	    listen(l.fd, 4) < 0 ||
	    getsockname(l.fd, (struct sockaddr *)&in, &bytes) < 0)
		return -1;
	l.to = (struct address){ .kind = ADDRESS_TCP,
				 .host = "127.0.0.1",
				 .port = ntohs(in.sin_port) };
	*state = &l;
	return 0;
}

static int listen_unix(void **state)
{
	static struct listener l;

	l.to = (struct address){ .kind = ADDRESS_UNIX };
	l.un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	(void)snprintf(l.un.sun_path, sizeof(l.un.sun_path),
		       "/tmp/test_channel_connect.%d", getpid());
	(void)snprintf(l.to.host, sizeof(l.to.host), "%s", l.un.sun_path);
	l.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(l.fd, (const struct sockaddr *)&l.un, sizeof(l.un)) < 0 ||
	    listen(l.fd, 4) < 0)
		return -1;
	*state = &l;
	return 0;
}

static int close_listener(void **state)
{
	const struct listener *l = *state;

	(void)close(l->fd);
	if (l->to.kind == ADDRESS_UNIX)
		(void)unlink(l->un.sun_path);
	return 0;
}

/* Accepts one connection and greets. */
static void *accept_and_greet(void *arg)
{
	const struct listener *l = arg;
	struct channel *c = NULL;
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	bool is_sent;

	if (channel_accept(l->to.kind, fd, CHANNEL_MIN_RING_BYTES, &c) < 0)
		return arg;
	is_sent = channel_write_all(c, "hello", 5, soon()) == 0;
	channel_finish(c, soon());
	channel_free(c);
	return is_sent ? NULL : arg;
}

static void check_that_it_connects(struct listener *l, const char *kind)
{
	struct channel *c = NULL;
	char why[CHANNEL_WHY_BYTES];
	char bytes[6] = "";
	pthread_t thread;
	void *failed;

	assert_int_equal(pthread_create(&thread, NULL, accept_and_greet, l), 0);
	assert_int_equal(channel_connect(&l->to, &usual, soon(), &c, why), 0);
	assert_string_equal(channel_kind(c), kind);
	assert_int_equal(channel_read_all(c, bytes, 5, soon()), 0);
	assert_string_equal(bytes, "hello");
	assert_int_equal(channel_read_all(c, bytes, 1, soon()), -EPIPE);
	assert_int_equal(channel_end(c), 0);
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
	channel_free(c);
}

static void a_tcp_address_is_carried_by_a_socket(void **state)
{
	check_that_it_connects(*state, "socket");
}

static void a_unix_address_is_carried_by_shared_memory(void **state)
{
	check_that_it_connects(*state, "shm");
}

static void where_nobody_listens_the_failure_says_so(void **state)
{
	struct listener *l = *state;
	struct channel *c = NULL;
	char why[CHANNEL_WHY_BYTES] = "";

	(void)close(l->fd);
	assert_int_equal(channel_connect(&l->to, &usual, soon(), &c, why),
			 -ECONNREFUSED);
	assert_string_equal(why, strerror(ECONNREFUSED));
	assert_null(c);
	/* For the teardown. */
	l->fd = -1;
}

static void a_unix_listener_that_offers_nothing_is_given_up(void **state)
{
	const struct listener *l = *state;
	struct channel *c = NULL;
	char why[CHANNEL_WHY_BYTES] = "";
	uint64_t start = clock_ms();

	assert_int_equal(channel_connect(&l->to, &usual, start + 50, &c, why),
			 -ETIMEDOUT);
	assert_true(clock_ms() >= start + 50);
	assert_true(clock_ms() < start + LIMIT_MS);
	assert_null(c);
	assert_string_equal(why, strerror(ETIMEDOUT));
}

static void a_path_that_no_socket_has_room_for_is_refused(void **state)
{
	struct address to = { .kind = ADDRESS_UNIX };
	struct channel *c = NULL;
	char why[CHANNEL_WHY_BYTES] = "";

	(void)state;
	memset(to.host, 'x', sizeof(((struct sockaddr_un *)0)->sun_path));
	assert_int_equal(channel_connect(&to, &usual, soon(), &c, why),
			 -ENAMETOOLONG);
	assert_string_not_equal(why, "");
	assert_null(c);
}

static void tls_without_files_says_which_one_is_missing(void **state)
{
	const struct address to = { .kind = ADDRESS_TLS };
	const struct channel_options options = { .tls_dir = "/nowhere" };
	struct channel *c = NULL;
	char why[CHANNEL_WHY_BYTES] = "";

	(void)state;
	assert_int_equal(channel_connect(&to, &options, soon(), &c, why),
			 -ENOKEY);
	assert_string_equal(why, "/nowhere/client.pem: there is no such file; "
				 "xusbip-ca makes it");
	assert_null(c);
}

/* --------------------------------------------------------------- finishing */

struct pair {
	struct channel *a;
	struct channel *b;
};

static int open_pair(void **state)
{
	static struct pair p;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	*state = &p;
	if (channel_socket_new(fds[0], &p.a) < 0)
		return -1;
	return channel_socket_new(fds[1], &p.b);
}

static int free_pair(void **state)
{
	const struct pair *p = *state;

	channel_free(p->a);
	channel_free(p->b);
	return 0;
}

static void *read_to_the_end_then_end(void *arg)
{
	static uint8_t bytes[REST_BYTES];
	struct channel *c = arg;
	bool is_right = channel_read_all(c, bytes, 1000, soon()) == 0 &&
			channel_read_all(c, bytes, 1, soon()) == -EPIPE &&
			channel_write_all(c, bytes, sizeof(bytes), soon()) ==
				0 &&
			channel_end(c) == 0;

	return is_right ? NULL : arg;
}

static void finish_waits_for_the_peers_end_and_drops_the_rest(void **state)
{
	const struct pair *p = *state;
	uint64_t limit = soon();
	pthread_t thread;
	void *failed;
	struct iovec pieces[2];
	static const uint8_t bytes[1000];

	assert_int_equal(pthread_create(&thread, NULL, read_to_the_end_then_end,
					p->b),
			 0);
	assert_int_equal(channel_write_all(p->a, bytes, sizeof(bytes), soon()),
			 0);
	channel_finish(p->a, limit);
	assert_true(clock_ms() < limit);
	assert_int_equal(channel_peek(p->a, pieces), -EPIPE);
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
}

static void finish_gives_up_at_its_limit(void **state)
{
	const struct pair *p = *state;
	uint64_t start = clock_ms();

	channel_finish(p->a, start + 30);
	assert_true(clock_ms() >= start + 30);
	assert_true(clock_ms() < start + LIMIT_MS);
}

/* A peer that sends faster than we drop, played by the table of functions. */
static ssize_t flood_peek(struct channel *c, struct iovec ret_pieces[2])
{
	static uint8_t byte;

	(void)c;
	ret_pieces[0] = (struct iovec){ &byte, 1 };
	ret_pieces[1] = (struct iovec){ &byte, 0 };
	return 1;
}

static void flood_consume(struct channel *c, size_t bytes)
{
	(void)c;
	(void)bytes;
}

static void flood_flush(struct channel *c)
{
	(void)c;
}

static int flood_end(struct channel *c)
{
	(void)c;
	return 0;
}

static void finish_gives_up_on_a_peer_that_never_stops_sending(void **state)
{
	static const struct channel_ops ops = { .name = "flood",
						.peek = flood_peek,
						.consume = flood_consume,
						.flush = flood_flush,
						.end = flood_end };
	struct channel flood = { .ops = &ops };
	uint64_t start = clock_ms();

	(void)state;
	(void)alarm(LIMIT_MS / 1000);
	channel_finish(&flood, start + 30);
	(void)alarm(0);
	assert_true(clock_ms() >= start + 30);
}

#define WITH(listen, test) \
	cmocka_unit_test_setup_teardown(test, listen, close_listener)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(listen_tcp, a_tcp_address_is_carried_by_a_socket),
		WITH(listen_unix, a_unix_address_is_carried_by_shared_memory),
		WITH(listen_tcp, where_nobody_listens_the_failure_says_so),
		WITH(listen_unix,
		     a_unix_listener_that_offers_nothing_is_given_up),
		cmocka_unit_test(a_path_that_no_socket_has_room_for_is_refused),
		cmocka_unit_test(tls_without_files_says_which_one_is_missing),
		cmocka_unit_test_setup_teardown(
			finish_waits_for_the_peers_end_and_drops_the_rest,
			open_pair, free_pair),
		cmocka_unit_test_setup_teardown(finish_gives_up_at_its_limit,
						open_pair, free_pair),
		cmocka_unit_test(
			finish_gives_up_on_a_peer_that_never_stops_sending),
	};

	return cmocka_run_group_tests_name("channel_connect", tests, NULL,
					   NULL);
}
