/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unlinks that vhci_hcd sends ahead of the submits that they name: the link
 * passes each behind its submit, wherever the bytes are cut.
 */
#include "frontend/link.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/link_private.h"
#include "tests/fake/link_bench.h"

#define LONG_BYTES 30000u

static bool over_shm = true;
static bool over_socket = false;

/* What vhci sends, what the gateway gets, what it answers. */
static struct link_bytes sent;
static struct link_bytes expected;
static struct link_bytes replies;

static int setup(void **state)
{
	struct link_bench *b = calloc(1, sizeof(*b));
	bool is_shm = *(const bool *)*state;

	*state = b;
	if (!b || link_bench_prepare(b, is_shm) < 0)
		return -1;
	link_bytes_clear(&sent);
	link_bytes_clear(&expected);
	link_bytes_clear(&replies);
	return link_bench_start(b);
}

static int teardown(void **state)
{
	link_bench_close(*state);
	free(*state);
	return 0;
}

/* Data differs by its place, so it is copied. */
static void pass_submit_out(uint32_t seqnum, uint32_t length)
{
	size_t start = sent.used;

	link_submit_out(&sent, seqnum, length);
	link_put_bytes(&expected, sent.bytes + start, sent.used - start);
}

static void pass_submit_in(uint32_t seqnum)
{
	link_submit_in(&sent, seqnum, 64);
	link_submit_in(&expected, seqnum, 64);
}

static void pass_submit_iso(uint32_t seqnum)
{
	static const struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 100 },
		{ .offset = 100, .length = 50 },
	};
	size_t start = sent.used;

	link_submit_iso(&sent, seqnum, 0x06, 150, packets, 2);
	link_put_bytes(&expected, sent.bytes + start, sent.used - start);
}

static void gets_what_is_expected(struct link_bench *b)
{
	expected.sent = expected.used;
	assert_true(link_bench_expect_commands(b, &expected));
	assert_true(link_bench_is_silent(b));
}

static void passes_as_expected(struct link_bench *b)
{
	assert_true(link_bench_send_all(b, &sent));
	gets_what_is_expected(b);
}

static void an_unlink_ahead_of_its_submit_goes_behind_it(void **state)
{
	struct link_bench *b = *state;

	pass_submit_in(8);
	link_unlink(&sent, 10, 9);
	pass_submit_in(9);
	link_unlink(&expected, 10, 9);
	pass_submit_in(11);
	passes_as_expected(b);

	link_ret_unlink(&replies, 10, -ECONNRESET);
	link_ret_submit_in(&replies, 8, 0, 64);
	assert_true(link_bench_pass_replies(b, &replies));
}

static void it_goes_behind_the_data_and_the_packets_of_its_submit(void **state)
{
	struct link_bench *b = *state;

	link_unlink(&sent, 5, 2);
	link_unlink(&sent, 6, 4);
	pass_submit_out(2, LONG_BYTES);
	link_unlink(&expected, 5, 2);
	pass_submit_out(3, 7);
	pass_submit_iso(4);
	link_unlink(&expected, 6, 4);
	passes_as_expected(b);
}

static void bytes_may_come_one_by_one(void **state)
{
	struct link_bench *b = *state;

	link_unlink(&sent, 4, 2);
	pass_submit_out(1, 3);
	link_unlink(&sent, 5, 3);
	pass_submit_out(2, 20);
	link_unlink(&expected, 4, 2);
	pass_submit_in(3);
	link_unlink(&expected, 5, 3);

	for (size_t i = 0; i < sent.used; i++)
		assert_int_equal(write(b->vhci, sent.bytes + i, 1), 1);
	gets_what_is_expected(b);
}

static void numbers_go_on_behind_the_largest_one(void **state)
{
	struct link_bench *b = *state;

	pass_submit_in(UINT32_MAX - 1);
	link_unlink(&sent, 1, UINT32_MAX);
	pass_submit_in(UINT32_MAX);
	link_unlink(&expected, 1, UINT32_MAX);
	passes_as_expected(b);
}

static void one_more_than_are_held_back_goes_as_it_came(void **state)
{
	struct link_bench *b = *state;
	const uint32_t many = LINK_MAX_EARLY + 1;

	for (uint32_t i = 1; i <= many; i++)
		link_unlink(&sent, 100 + i, i);
	link_unlink(&expected, 100 + many, many);
	for (uint32_t i = 1; i <= many; i++) {
		pass_submit_in(i);
		if (i < many)
			link_unlink(&expected, 100 + i, i);
	}
	passes_as_expected(b);
}

static void an_unlink_of_what_was_answered_waits_for_nothing(void **state)
{
	struct link_bench *b = *state;

	pass_submit_in(2);
	link_unlink(&sent, 3, 1);
	link_unlink(&sent, 4, 2);
	link_unlink(&expected, 3, 1);
	link_unlink(&expected, 4, 2);
	passes_as_expected(b);
}

#define TEST(function)                                                      \
	cmocka_unit_test_prestate_setup_teardown(function, setup, teardown, \
						 &over_shm),                \
		cmocka_unit_test_prestate_setup_teardown(                   \
			function, setup, teardown, &over_socket)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_unlink_ahead_of_its_submit_goes_behind_it),
		TEST(it_goes_behind_the_data_and_the_packets_of_its_submit),
		TEST(bytes_may_come_one_by_one),
		TEST(numbers_go_on_behind_the_largest_one),
		TEST(one_more_than_are_held_back_goes_as_it_came),
		TEST(an_unlink_of_what_was_answered_waits_for_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
