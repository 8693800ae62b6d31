/* SPDX-License-Identifier: Apache-2.0 */
/* What one guest takes of the pages that can be granted, whatever it does. */
#include "gateway/guest_share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define START_MS  5000000u
#define SECOND_MS 1000u
#define MINUTE_MS 60000u
/* Of an attachment by default; what the installation sets, and Linux's own. */
#define PAGES        129u
#define LIMIT        16512u
#define LINUXS_LIMIT 1024u

static struct guest_share share;

static int set_up(void **state)
{
	(void)state;
	guest_share_init(&share, START_MS);
	return 0;
}

static bool take(unsigned limit, unsigned used, uint64_t now_ms)
{
	const struct guest_share_ask ask = { .pages = PAGES,
					     .used = used,
					     .limit = limit };

	return guest_share_take(&share, &ask, now_ms) == NULL;
}

/* What a guest has got that asks all the time and lets go of nothing in truth. */
static unsigned hoard(unsigned limit, uint64_t from_ms, uint64_t to_ms)
{
	unsigned pages = 0;

	for (uint64_t ms = from_ms; ms <= to_ms; ms += 50)
		while (take(limit, 0, ms))
			pages += PAGES;
	return pages;
}

static void half_of_the_pages_is_all_that_a_guest_gets_at_once(void **state)
{
	(void)state;
	assert_int_equal(hoard(LIMIT, START_MS, START_MS), LIMIT / 2);
	assert_int_equal(hoard(LIMIT, START_MS + SECOND_MS,
			       START_MS + 50 * SECOND_MS),
			 0);
}

static void one_guest_leaves_32_attachments_for_half_an_hour(void **state)
{
	unsigned taken;

	(void)state;
	taken = hoard(LIMIT, START_MS, START_MS + 30ull * MINUTE_MS);
	assert_true(LIMIT - taken >= 32 * PAGES);
	/* And is not starved: its devices may be lost and come again. */
	assert_true(taken >= LIMIT / 2 + 31 * PAGES);
	taken += hoard(LIMIT, START_MS + 30ull * MINUTE_MS,
		       START_MS + 59ull * MINUTE_MS);
	assert_true(LIMIT - taken >= PAGES);
}

static void of_linuxs_own_limit_it_leaves_half_at_first(void **state)
{
	unsigned taken;

	(void)state;
	taken = hoard(LINUXS_LIMIT, START_MS, START_MS + 15ull * MINUTE_MS);
	assert_int_equal(taken, 3 * PAGES + PAGES);
	assert_true(LINUXS_LIMIT - taken >= 3 * PAGES);
}

static void what_a_guest_has_is_never_forgiven(void **state)
{
	const uint64_t later_ms = START_MS + 48ull * 60 * MINUTE_MS;

	(void)state;
	for (unsigned i = 0; i < LIMIT / 2 / PAGES; i++)
		assert_true(take(LIMIT, i * PAGES, START_MS));
	assert_false(take(LIMIT, LIMIT / 2, later_ms));
	/* Of what it lets go of an attachment's is forgiven within a minute. */
	assert_false(take(LIMIT, LIMIT / 2 - PAGES, later_ms));
	assert_true(take(LIMIT, LIMIT / 2 - PAGES, later_ms + MINUTE_MS));
	/* Nor does it get more for having waited. */
	assert_false(take(LIMIT, 0, later_ms + MINUTE_MS));
}

static void a_share_is_whole_again_after_an_hour(void **state)
{
	(void)state;
	(void)hoard(LIMIT, START_MS, START_MS);
	assert_int_equal(hoard(LIMIT, START_MS + GUEST_FORGIVE_MS,
			       START_MS + GUEST_FORGIVE_MS),
			 LIMIT / 2);
}

static void a_limit_that_is_raised_counts_at_once(void **state)
{
	(void)state;
	(void)hoard(LINUXS_LIMIT, START_MS, START_MS);
	assert_false(take(LINUXS_LIMIT, 0, START_MS));
	assert_true(take(LIMIT, 0, START_MS));
}

static void nothing_is_left_of_a_limit_below_two_attachments(void **state)
{
	(void)state;
	assert_false(take(0, 0, START_MS));
	assert_false(take(1, 0, START_MS + GUEST_FORGIVE_MS));
	assert_false(take(2 * PAGES - 1, 0, START_MS + GUEST_FORGIVE_MS));
	assert_true(take(2 * PAGES, 0, START_MS + GUEST_FORGIVE_MS));
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(half_of_the_pages_is_all_that_a_guest_gets_at_once),
		TEST(one_guest_leaves_32_attachments_for_half_an_hour),
		TEST(of_linuxs_own_limit_it_leaves_half_at_first),
		TEST(what_a_guest_has_is_never_forgiven),
		TEST(a_share_is_whole_again_after_an_hour),
		TEST(a_limit_that_is_raised_counts_at_once),
		TEST(nothing_is_left_of_a_limit_below_two_attachments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
