/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store against a xenstored of the test's, in a thread, that says anything:
 * what is too long, what conflicts, and that it has gone. How the real one
 * behaves is tested in tests/integration.
 */
#include "vchan-transport/store.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include <xen/io/xs_wire.h>

#define LIMIT_MS    5000
#define MAX_PAYLOAD 4096

/* What it answers to a request of one type; the last ones are repeated. */
struct answer {
	uint32_t type;
	const char *error; /* NULL: done */
	const void *payload;
	size_t bytes;
};

struct xenstored {
	char path[64];
	int listener;
	int client;
	pthread_t thread;
	const struct answer *answers; /* until one of type 0 */
	atomic_uint num_starts;       /* of transactions */
	struct store *store;
};

static int receive(int fd, void *to, size_t bytes)
{
	return recv(fd, to, bytes, MSG_WAITALL) == (ssize_t)bytes ? 0 : -1;
}

static void reply(int fd, struct xsd_sockmsg head, const void *payload,
		  size_t bytes)
{
	head.len = (uint32_t)bytes;
	(void)send(fd, &head, sizeof(head), MSG_NOSIGNAL);
	if (bytes > 0)
		(void)send(fd, payload, bytes, MSG_NOSIGNAL);
}

/* False: it hangs up. */
static bool serve_request(struct xenstored *x)
{
	const struct answer *answer = x->answers;
	char payload[MAX_PAYLOAD];
	struct xsd_sockmsg head;
	size_t watch_bytes;

	if (receive(x->client, &head, sizeof(head)) < 0 ||
	    receive(x->client, payload, head.len) < 0)
		return false;
	watch_bytes = head.len;
	if (head.type == XS_TRANSACTION_START)
		x->num_starts++;
	while (answer->type != 0 && answer->type != head.type)
		answer++;
	if (answer->type == 0)
		return false;
	if (answer->error) {
		head.type = XS_ERROR;
		reply(x->client, head, answer->error,
		      strlen(answer->error) + 1);
	} else {
		reply(x->client, head, answer->payload, answer->bytes);
	}
	if (head.type == XS_WATCH) {
		/* It fires with what was asked for: the path, the token. */
		struct xsd_sockmsg event = { .type = XS_WATCH_EVENT };

		reply(x->client, event, payload, watch_bytes);
	}
	return true;
}

static void *run_xenstored(void *arg)
{
	struct xenstored *x = arg;

	x->client = accept(x->listener, NULL, NULL);
	while (x->client >= 0 && serve_request(x))
		;
	(void)shutdown(x->client, SHUT_RDWR);
	return NULL;
}

static int start(void **state)
{
	static struct xenstored x;
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	x = (struct xenstored){ .client = -1 };
	(void)snprintf(x.path, sizeof(x.path), "/tmp/test_store.%d", getpid());
	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", x.path);
	(void)unlink(x.path);
	x.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(x.listener, (const struct sockaddr *)&un, sizeof(un)) < 0 ||
	    listen(x.listener, 1) < 0 ||
	    setenv("XENSTORED_PATH", x.path, 1) < 0)
		return -1;
	*state = &x;
	return 0;
}

/* The store's other side says these. */
static struct store *open_with(struct xenstored *x,
			       const struct answer *answers)
{
	x->answers = answers;
	assert_int_equal(pthread_create(&x->thread, NULL, run_xenstored, x), 0);
	assert_int_equal(store_open(&x->store), 0);
	return x->store;
}

static int stop(void **state)
{
	struct xenstored *x = *state;

	store_close(x->store);
	(void)pthread_join(x->thread, NULL);
	(void)close(x->client);
	(void)close(x->listener);
	return unlink(x->path);
}

#define DONE(type)                    \
	{                             \
		(type), NULL, "OK", 3 \
	}
#define VALUE(type, text)                              \
	{                                              \
		(type), NULL, (text), sizeof(text) - 1 \
	}
#define FAILS(type, name)               \
	{                               \
		(type), (name), NULL, 0 \
	}
#define END                      \
	{                        \
		0, NULL, NULL, 0 \
	}

/* ----------------------------------------------------------------- reading */

static void a_value_is_read_whole_or_not_at_all(void **state)
{
	static const struct answer answers[] = { VALUE(XS_READ, "12345678"),
						 END };
	struct store *store = open_with(*state, answers);
	char value[9] = "";

	assert_int_equal(store_read(store, "x", value, 9), 8);
	assert_string_equal(value, "12345678");
	assert_int_equal(store_read(store, "x", value, 8), -EMSGSIZE);
	assert_string_equal(value, "12345678");
}

static void a_value_with_a_nul_inside_is_none(void **state)
{
	static const struct answer answers[] = { VALUE(XS_READ, "5\0006"),
						 END };
	struct store *store = open_with(*state, answers);
	char value[16];

	assert_int_equal(store_read(store, "x", value, 16), -EBADMSG);
	assert_int_equal(store_domid(store), -EBADMSG);
}

static void the_longest_value_there_is_does_no_harm(void **state)
{
	static char longest[MAX_PAYLOAD];
	static struct answer answers[] = {
		{ XS_READ, NULL, longest, sizeof(longest) }, END
	};
	struct store *store = open_with(*state, answers);
	char value[256];

	memset(longest, 'x', sizeof(longest));
	assert_int_equal(store_read(store, "x", value, 256), -EMSGSIZE);
}

static void this_domains_number_is_a_number(void **state)
{
	static const struct answer answers[] = { VALUE(XS_READ, "32751"), END };
	struct store *store = open_with(*state, answers);

	assert_int_equal(store_domid(store), 32751);
}

static void errors_keep_their_names(void **state)
{
	static const struct answer answers[] = { FAILS(XS_READ, "ENOENT"),
						 FAILS(XS_DIRECTORY, "EACCES"),
						 FAILS(XS_WRITE, "ENOSPC"),
						 FAILS(XS_RM, "ENOENT"), END };
	struct store *store = open_with(*state, answers);
	char names[1][STORE_NAME_BYTES];
	char value[8];

	assert_int_equal(store_read(store, "x", value, 8), -ENOENT);
	assert_int_equal(store_list(store, "x", names, 1), -EACCES);
	assert_int_equal(store_write(store, "x", "y"), -ENOSPC);
	assert_int_equal(store_remove(store, "x"), 0);
}

static void of_a_folder_no_more_is_listed_than_there_is_room_for(void **state)
{
	static const char folder[] =
		"a\0"
		"0123456789012345678901234567890123456789012345678901234567890123\0"
		"012345678901234567890123456789012345678901234567890123456789012\0"
		"b";
	static const struct answer answers[] = {
		{ XS_DIRECTORY, NULL, folder, sizeof(folder) }, END
	};
	struct store *store = open_with(*state, answers);
	char names[4][STORE_NAME_BYTES];

	assert_int_equal(store_list(store, "x", names, 4), 3);
	assert_string_equal(names[0], "a");
	assert_int_equal(strlen(names[1]), STORE_NAME_BYTES - 1);
	assert_string_equal(names[2], "b");
	assert_int_equal(store_list(store, "x", names, 1), 1);
	assert_int_equal(store_list(store, "x", names, 0), 0);
}

/* ----------------------------------------------------------------- writing */

static void a_write_under_a_folder_that_is_gone_is_not_done(void **state)
{
	static const struct answer answers[] = {
		VALUE(XS_TRANSACTION_START, "7\0"), FAILS(XS_READ, "ENOENT"),
		DONE(XS_TRANSACTION_END), END
	};
	struct xenstored *x = *state;
	struct store *store = open_with(x, answers);

	/* A write would hang up. */
	assert_int_equal(store_write_under(store, "x", "x/y", "z"), -ENOENT);
	assert_int_equal(x->num_starts, 1);
}

static void a_write_that_is_always_disturbed_is_given_up(void **state)
{
	static const struct answer answers[] = {
		VALUE(XS_TRANSACTION_START, "7\0"), VALUE(XS_READ, ""),
		DONE(XS_WRITE), FAILS(XS_TRANSACTION_END, "EAGAIN"), END
	};
	struct xenstored *x = *state;
	struct store *store = open_with(x, answers);

	assert_int_equal(store_write_under(store, "x", "x/y", "z"), -EAGAIN);
	assert_true(x->num_starts > 10);
}

static void a_quota_of_transactions_is_waited_for(void **state)
{
	static const struct answer answers[] = {
		FAILS(XS_TRANSACTION_START, "ENOSPC"), END
	};
	struct xenstored *x = *state;
	struct store *store = open_with(x, answers);

	assert_int_equal(store_write_under(store, "x", "x/y", "z"), -EAGAIN);
	assert_true(x->num_starts > 10);
}

/* ---------------------------------------------------------------- watching */

static void a_watch_fires_with_its_token_and_then_no_more(void **state)
{
	static const struct answer answers[] = { DONE(XS_WATCH), END };
	struct store *store = open_with(*state, answers);
	struct pollfd polled = { .fd = store_fd(store), .events = POLLIN };
	char token[STORE_TOKEN_BYTES];

	assert_int_equal(store_watch(store, "x", "token"), 0);
	assert_int_equal(poll(&polled, 1, LIMIT_MS), 1);
	assert_int_equal(store_next_event(store, token), 1);
	assert_string_equal(token, "token");
	assert_int_equal(store_next_event(store, token), 0);
	assert_int_equal(poll(&polled, 1, 0), 0);
}

/* --------------------------------------------------------------------- end */

static void who_has_hung_up_is_told_by_every_call(void **state)
{
	static const struct answer answers[] = { DONE(XS_WATCH), END };
	struct store *store = open_with(*state, answers);
	char token[STORE_TOKEN_BYTES];
	char names[1][STORE_NAME_BYTES];
	char value[8];

	assert_int_equal(store_watch(store, "x", "token"), 0);
	assert_int_equal(store_read(store, "x", value, 8), -ECONNRESET);
	assert_int_equal(store_read(store, "x", value, 8), -ECONNRESET);
	assert_int_equal(store_list(store, "x", names, 1), -ECONNRESET);
	assert_int_equal(store_write(store, "x", "y"), -ECONNRESET);
	assert_int_equal(store_write_under(store, "x", "x/y", "z"),
			 -ECONNRESET);
	assert_int_equal(store_remove(store, "x"), -ECONNRESET);
	assert_int_equal(store_domid(store), -ECONNRESET);
	while (store_next_event(store, token) == 1)
		;
	assert_int_equal(store_next_event(store, token), -ECONNRESET);
}

static void where_there_is_none_it_is_told(void **state)
{
	struct store *store = NULL;

	(void)state;
	assert_int_equal(setenv("XENSTORED_PATH", "/nonexistent/socket", 1), 0);
	assert_int_equal(store_open(&store), -ENODEV);
	assert_null(store);
	store_close(NULL);
}

#define with_xenstored(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_xenstored(a_value_is_read_whole_or_not_at_all),
		with_xenstored(a_value_with_a_nul_inside_is_none),
		with_xenstored(the_longest_value_there_is_does_no_harm),
		with_xenstored(this_domains_number_is_a_number),
		with_xenstored(errors_keep_their_names),
		with_xenstored(
			of_a_folder_no_more_is_listed_than_there_is_room_for),
		with_xenstored(a_write_under_a_folder_that_is_gone_is_not_done),
		with_xenstored(a_write_that_is_always_disturbed_is_given_up),
		with_xenstored(a_quota_of_transactions_is_waited_for),
		with_xenstored(a_watch_fires_with_its_token_and_then_no_more),
		with_xenstored(who_has_hung_up_is_told_by_every_call),
		cmocka_unit_test(where_there_is_none_it_is_told),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
