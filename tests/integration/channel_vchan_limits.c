/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vchan channel where it has to say no: to a page that the other domain
 * scribbles on, at limits of this domain, in a sandbox. As channel_vchan.c.
 */
#include "vchan-transport/channel.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xenstore.h>

#include <cmocka.h>

#include "tests/fake/vchan_ends.h"
#include "vchan-transport/channel_vchan.h"
#include "vchan-transport/sandbox.h"

#define SCRIBBLE_ROUNDS      40
#define MAX_TRANSACTIONS     100
#define TRANSACTIONS_FREE_MS 200

struct scribbler {
	struct vchan_interface *page;
	uint32_t seed;
	uint32_t reach; /* how far beside itself an index is moved */
	_Atomic bool is_done;
};

static uint32_t next_random(struct scribbler *s)
{
	s->seed = s->seed * 1664525u + 1013904223u;
	return s->seed >> 8;
}

static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	uint32_t *const words[] = { &s->page->left.cons, &s->page->left.prod,
				    &s->page->right.cons,
				    &s->page->right.prod };

	while (!s->is_done) {
		uint32_t *word = words[next_random(s) % 4];
		uint32_t moved = next_random(s) % s->reach;

		__atomic_fetch_add(word, moved - s->reach / 2,
				   __ATOMIC_RELAXED);
	}
	return NULL;
}

/* However it goes on, it goes on: bytes of any value, or an end. */
static void use(struct channel *c, uint64_t until_ms)
{
	static uint8_t bytes[100000];
	struct iovec v = { bytes, 5000 };
	struct iovec pieces[2];

	while (clock_ms() < until_ms) {
		ssize_t n = channel_peek(c, pieces);

		if (n < 0 || channel_writev(c, &v, 1) < 0)
			return;
		assert_true((size_t)n <= sizeof(bytes));
		channel_gather(bytes, pieces, (size_t)n);
		channel_consume(c, (size_t)n);
		channel_flush(c);
		(void)channel_wait(c, CHANNEL_READ | CHANNEL_WRITE,
				   clock_ms() + 1);
	}
}

static void scribbled_indices_break_nothing_but_the_channel(void **state)
{
	struct vchan_ends *e = *state;
	struct iovec pieces[2];

	for (unsigned i = 0; i < SCRIBBLE_ROUNDS; i++) {
		struct scribbler s = { .seed = i,
				       .reach = i % 2 ? 256 : 0xffffff };
		struct channel *victim;
		pthread_t thread;

		assert_int_equal(vchan_open_ends(4096u << i % 5, e), 0);
		victim = i & 4 ? e->client : e->server;
		s.page = vchan_page(i & 4 ? e->server : e->client);
		assert_int_equal(pthread_create(&thread, NULL, scribble, &s),
				 0);
		use(victim, clock_ms() + 20);
		s.is_done = true;
		assert_int_equal(pthread_join(thread, NULL), 0);
		/* What is left of it is told, once for all. */
		if (channel_peek(victim, pieces) < 0)
			assert_int_equal(channel_peek(victim, pieces), -EPROTO);
		vchan_close_ends(e);
	}
}

/* Each field of the page, to a value that it cannot have. */
static void a_page_that_cannot_be_is_a_broken_channel(void **state)
{
	struct vchan_ends *e = *state;
	uint8_t byte = 0;
	struct iovec v = { &byte, 1 };

	for (int field = 0; field < 6; field++) {
		struct vchan_interface *page;

		assert_int_equal(vchan_open_ends(4096, e), 0);
		page = vchan_page(e->client);
		if (field == 0)
			page->left.prod = 4097;
		else if (field == 1)
			page->left.cons = 1;
		else if (field == 2)
			page->cli_live = 3;
		else if (field == 3)
			page->right.cons = 1;
		else if (field == 4)
			page->right.prod = 1;
		else
			page->right.cons = (uint32_t)-4097;
		if (field < 3)
			assert_int_equal(vchan_await(e->server), -EPROTO);
		else
			assert_int_equal(channel_writev(e->server, &v, 1),
					 -EPROTO);
		/* And so it stays, whatever the page says then. */
		memset(page, 0, offsetof(struct vchan_interface, left_order));
		page->cli_live = 1;
		assert_int_equal(vchan_await(e->server), -EPROTO);
		vchan_close_ends(e);
	}
}

/* ------------------------------------------------------------------ opening */

static void a_path_that_libxenvchan_would_cut_is_refused(void **state)
{
	struct vchan_ends *e = *state;
	char why[CHANNEL_WHY_BYTES];
	char path[65] = "data/xusbip/5/";
	int r;

	memset(path + strlen(path), '1', sizeof(path) - 1 - strlen(path));
	for (size_t length = 64; length >= 48; length--) {
		path[length] = '\0';
		vchan_as_domain(VCHAN_GATEWAY);
		r = channel_vchan_serve(VCHAN_GUEST, path, 4096, vchan_soon(),
					&e->server, why);
		assert_int_equal(r, length > 48 ? -ENAMETOOLONG : 0);
		vchan_as_domain(VCHAN_GUEST);
		r = channel_vchan_join(VCHAN_GATEWAY, path, -1, &e->client,
				       why);
		/* That one is relative to the gateway. */
		assert_int_equal(r, length > 48 ? -ENAMETOOLONG : -ENOENT);
	}
}

static void a_ring_is_a_power_of_two_within_limits(void **state)
{
	static const size_t wrong[] = { 0,
					1,
					2048,
					4095,
					5000,
					4097,
					(1u << 20) + 1,
					1u << 21,
					SIZE_MAX,
					(size_t)1 << 44 };
	struct vchan_ends *e = *state;
	char why[CHANNEL_WHY_BYTES];

	vchan_as_domain(VCHAN_GATEWAY);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(channel_vchan_serve(VCHAN_GUEST,
						     "data/xusbip/5/1",
						     wrong[i], vchan_soon(),
						     &e->server, why),
				 -EINVAL);
	assert_int_equal(vchan_open_ends(1u << 20, e), 0);
}

static void pages_beyond_the_limit_are_refused_in_words(void **state)
{
	struct vchan_ends *e = *state;
	struct channel *more;
	char why[CHANNEL_WHY_BYTES];

	vchan_as_domain(VCHAN_SMALL);
	assert_int_equal(channel_vchan_serve(0, "data/xusbip/0/1", 4096,
					     vchan_soon(), &e->server, why),
			 0);
	assert_int_equal(channel_vchan_serve(0, "data/xusbip/0/2", 4096,
					     vchan_soon(), &more, why),
			 -ENOSPC);
	assert_string_equal(why, "no 3 pages left to grant: raise the limit in "
				 "/sys/module/xen_gntalloc/parameters/limit");
	channel_free(e->server);
	e->server = NULL;
	assert_int_equal(channel_vchan_serve(0, "data/xusbip/0/2", 4096,
					     vchan_soon(), &e->server, why),
			 0);
}

/* All transactions that a guest may have; freed after a while, by a thread. */
static struct xs_handle *transactions;

static void use_up_transactions(void)
{
	transactions = xs_open(0);
	assert_non_null(transactions);
	for (int i = 0; i < MAX_TRANSACTIONS; i++) {
		if (!xs_transaction_start(transactions))
			return;
	}
	fail_msg("there is no limit");
}

static void *free_transactions(void *arg)
{
	(void)poll(NULL, 0, TRANSACTIONS_FREE_MS);
	xs_close(transactions);
	return arg;
}

static void a_store_without_transactions_is_asked_again(void **state)
{
	struct vchan_ends *e = *state;
	char why[CHANNEL_WHY_BYTES];
	uint64_t start = clock_ms();
	pthread_t thread;

	vchan_as_domain(VCHAN_SMALL);
	use_up_transactions();
	assert_int_equal(channel_vchan_serve(0, "data/xusbip/0/1", 4096,
					     start + 60, &e->server, why),
			 -EAGAIN);
	assert_true(clock_ms() >= start + 60);
	assert_non_null(strstr(why, "in xenstore"));

	assert_int_equal(pthread_create(&thread, NULL, free_transactions, NULL),
			 0);
	assert_int_equal(channel_vchan_serve(0, "data/xusbip/0/1", 4096,
					     vchan_soon(), &e->server, why),
			 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

static void freeing_leaves_the_nodes_to_the_manager(void **state)
{
	struct vchan_ends *e = *state;
	char server[64];
	char client[64];
	char path[80];
	struct xs_handle *xs;
	void *value;

	vchan_next_paths(server, client);
	assert_int_equal(vchan_serve(4096, server, &e->server), 0);
	vchan_close_ends(e);
	(void)snprintf(path, sizeof(path), "%s/ring-ref", server);
	xs = xs_open(0);
	assert_non_null(xs);
	value = xs_read(xs, XBT_NULL, path, NULL);
	assert_non_null(value);
	free(value);
	xs_close(xs);
}

/* ------------------------------------------------------------------ sandbox */

static void talk_in_a_sandbox(struct channel *c, enum sandbox_role role)
{
	char bytes[4];
	int r = sandbox_enter(role);

	if (r == 0)
		r = channel_write_all(c, "ping", 4, vchan_soon());
	if (r == 0)
		r = channel_read_all(c, bytes, sizeof(bytes), vchan_soon());
	if (r == 0 && channel_end(c) == 0 && vchan_await(c) == -EPIPE)
		channel_free(c);
	else
		_exit(1);
	_exit(0);
}

static void talk_as_link(struct channel *c)
{
	talk_in_a_sandbox(c, SANDBOX_LINK);
}

static void talk_as_session(struct channel *c)
{
	talk_in_a_sandbox(c, SANDBOX_SESSION);
}

static void all_but_opening_fits_in_a_sandbox(void **state)
{
	void (*const roles[])(struct channel *) = { talk_as_link,
						    talk_as_session };
	struct vchan_ends *e = *state;
	uint8_t bytes[3004];

	for (size_t i = 0; i < 2; i++) {
		char server[64];
		char client[64];
		pid_t pid;
		int status;

		vchan_next_paths(server, client);
		assert_int_equal(vchan_serve(4096, server, &e->server), 0);
		pid = vchan_start_client(client, roles[i]);
		assert_int_equal(channel_read_all(e->server, bytes,
						  sizeof(bytes), vchan_soon()),
				 0);
		assert_int_equal(channel_write_all(e->server, "pong", 4,
						   vchan_soon()),
				 0);
		assert_int_equal(channel_end(e->server), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		vchan_close_ends(e);
	}
}

#define TEST(test) \
	cmocka_unit_test_setup_teardown(test, vchan_setup, vchan_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(scribbled_indices_break_nothing_but_the_channel),
		TEST(a_page_that_cannot_be_is_a_broken_channel),
		TEST(a_path_that_libxenvchan_would_cut_is_refused),
		TEST(a_ring_is_a_power_of_two_within_limits),
		TEST(pages_beyond_the_limit_are_refused_in_words),
		TEST(a_store_without_transactions_is_asked_again),
		TEST(freeing_leaves_the_nodes_to_the_manager),
		TEST(all_but_opening_fits_in_a_sandbox),
	};

	return cmocka_run_group_tests_name("vchan limits", tests, NULL, NULL);
}
