/* SPDX-License-Identifier: Apache-2.0 */
/* What one guest takes of the pages that can be granted, whatever it does. */
#include "gateway/guest_share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/xen_check.h"

#define START_MS  5000000ull
#define SECOND_MS 1000ull
#define MINUTE_MS 60000ull
#define HOUR_MS   3600000ull
/* An attachment by default; what the installation sets, and Linux's own. */
#define FULL         262144u
#define PAGES        129u
#define LIMIT        16512u
#define LINUXS_LIMIT 1024u
#define SHARE        (LIMIT / 2)
#define SMALLEST     4096u
/* All that a vhci_hcd can have. */
#define PORTS 30u

static struct guest_share share;

static int set_up(void **state)
{
	(void)state;
	guest_share_init(&share, START_MS);
	return 0;
}

/* The ring that it gets, 0: none; and why. */
static uint32_t take_of(const struct guest_share_ask *ask, uint64_t now_ms,
			const char **ret_why)
{
	uint32_t ring_bytes = 0;

	*ret_why = guest_share_take(&share, ask, now_ms, &ring_bytes);
	assert_true(*ret_why ? ring_bytes == 0 : ring_bytes >= SMALLEST);
	return ring_bytes;
}

static uint32_t take(unsigned limit, unsigned used, uint64_t now_ms)
{
	const struct guest_share_ask ask = { .ring_bytes = FULL,
					     .full_bytes = FULL,
					     .used = used,
					     .limit = limit };
	const char *why;

	return take_of(&ask, now_ms, &why);
}

/* The same for a guest that has had so many pages of its share just now. */
static uint32_t take_after(unsigned pages, uint32_t asked, uint32_t full,
			   unsigned limit)
{
	const struct guest_share_ask ask = { .ring_bytes = asked,
					     .full_bytes = full,
					     .used = pages,
					     .limit = limit };
	const char *why;

	guest_share_init(&share, START_MS);
	return take_of(&ask, START_MS, &why);
}

/* What a guest has got that asks all the time and lets go of nothing in truth. */
static unsigned hoard(unsigned limit, uint64_t from_ms, uint64_t to_ms)
{
	unsigned pages = 0;

	for (uint64_t ms = from_ms; ms <= to_ms; ms += 50) {
		uint32_t bytes;

		while ((bytes = take(limit, 0, ms)) > 0)
			pages += (unsigned)xen_check_pages(bytes);
	}
	return pages;
}

/* ---- rings ---- */

static void a_ring_is_halved_as_often_as_half_of_the_share_is(void **state)
{
	static const struct {
		unsigned left;
		uint32_t bytes;
	} cases[] = {
		{ SHARE, FULL },
		{ SHARE - 1, FULL },
		{ SHARE / 2, FULL },
		{ SHARE / 2 - 1, FULL / 2 },
		{ SHARE / 4, FULL / 2 },
		{ SHARE / 4 - 1, FULL / 4 },
		{ SHARE / 8, FULL / 4 },
		{ SHARE / 8 - 1, FULL / 8 },
		{ SHARE / 16, FULL / 8 },
		{ SHARE / 16 - 1, FULL / 16 },
		{ SHARE / 32, FULL / 16 },
		{ SHARE / 32 - 1, FULL / 32 },
		{ SHARE / 64, FULL / 32 },
		{ SHARE / 64 - 1, SMALLEST },
		{ 4, SMALLEST },
		{ 3, SMALLEST },
		{ 2, 0 },
		{ 1, 0 },
		{ 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(take_after(SHARE - cases[i].left, FULL, FULL,
					    LIMIT),
				 cases[i].bytes);
	/* The limit may have been lowered. */
	assert_int_equal(take_after(SHARE + 1, FULL, FULL, LIMIT), 0);
	assert_int_equal(take_after(UINT32_MAX, FULL, FULL, LIMIT), 0);
}

static void who_asks_for_less_gets_that_for_longer(void **state)
{
	(void)state;
	for (uint32_t asked = SMALLEST; asked <= FULL; asked *= 2) {
		const unsigned enough = SHARE / 2 / (FULL / asked);

		assert_int_equal(take_after(0, asked, FULL, LIMIT), asked);
		assert_int_equal(take_after(SHARE - enough, asked, FULL, LIMIT),
				 asked);
	}
	assert_int_equal(take_after(SHARE - 3, SMALLEST, FULL, LIMIT),
			 SMALLEST);
	assert_int_equal(take_after(SHARE - 2, SMALLEST, FULL, LIMIT), 0);
}

static void a_ring_that_is_no_part_of_a_share_is_made_one(void **state)
{
	const uint32_t most = 1u << 20; /* 513 pages */

	(void)state;
	assert_int_equal(take_after(0, most, most, 2 * 513), most);
	assert_int_equal(take_after(0, most, most, 2 * 512), most / 2);
	assert_int_equal(take_after(0, most, most, 2 * 3), SMALLEST);
	assert_int_equal(take_after(0, most, most, 2 * 3 - 1), 0);
	assert_int_equal(take_after(0, SMALLEST, SMALLEST, 2 * 3), SMALLEST);
	assert_int_equal(take_after(0, SMALLEST, SMALLEST, 1), 0);
	assert_int_equal(take_after(0, FULL, FULL, 0), 0);
}

static void all_ports_of_a_guest_get_full_rings_at_one_moment(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PORTS; i++)
		assert_int_equal(take(LIMIT, i * PAGES, START_MS), FULL);
	assert_false(share.is_short);
	/* And get them all where there is room for no more than half of them. */
	guest_share_init(&share, START_MS);
	for (unsigned i = 0; i < PORTS; i++)
		assert_int_not_equal(take(PORTS * PAGES, 0, START_MS), 0);
	assert_true(share.is_short);
}

/* ---- how often ---- */

static const struct guest_share_ask full_ask = { .ring_bytes = FULL,
						 .full_bytes = FULL,
						 .limit = LIMIT };

/*
 * A guest that lets go at once, asks once in so long and waits for its turn:
 * how often it is served, at most, before it has had its share.
 */
static unsigned attach(unsigned most, uint64_t pace_ms, uint64_t *now_ms,
		       uint32_t *ret_smallest)
{
	*ret_smallest = FULL;
	for (unsigned count = 0; count < most; count++, *now_ms += pace_ms) {
		const char *why;
		uint32_t bytes;

		while ((bytes = take_of(&full_ask, *now_ms, &why)) == 0) {
			if (!strstr(why, "a short time"))
				return count;
			*now_ms += 10;
		}
		if (bytes < *ret_smallest)
			*ret_smallest = bytes;
	}
	return most;
}

static void who_attaches_as_fast_as_it_may_is_served_380_times(void **state)
{
	uint64_t now_ms = START_MS;
	unsigned an_hour = 0;
	uint32_t smallest;
	unsigned count;
	uint64_t end_ms;

	(void)state;
	count = attach(UINT32_MAX, 0, &now_ms, &smallest);
	assert_in_range(count, 380, 390);
	assert_int_equal(smallest, SMALLEST);
	for (end_ms = now_ms + HOUR_MS; now_ms < end_ms; now_ms += 10) {
		const char *why;

		an_hour += take_of(&full_ask, now_ms, &why) > 0;
	}
	assert_in_range(an_hour, SHARE / 3 - 5, SHARE / 3);
	print_message("# %u in a row, and %u in the hour after\n", count,
		      an_hour);
}

static void who_attaches_more_slowly_is_never_refused(void **state)
{
	static const struct {
		unsigned pace_ms;
		uint32_t smallest;
	} cases[] = {
		{ 1320, SMALLEST },  { 4000, FULL / 16 }, { 8000, FULL / 8 },
		{ 15000, FULL / 4 }, { 30000, FULL / 2 }, { 60000, FULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const unsigned a_day =
			(unsigned)(24 * HOUR_MS / cases[i].pace_ms);
		uint64_t now_ms = START_MS;
		uint32_t smallest;

		guest_share_init(&share, START_MS);
		assert_int_equal(attach(a_day, cases[i].pace_ms, &now_ms,
					&smallest),
				 a_day);
		assert_int_equal(smallest, cases[i].smallest);
	}
}

static void rings_grow_again_as_pages_are_forgiven(void **state)
{
	uint64_t now_ms = START_MS + 10 * MINUTE_MS;

	(void)state;
	(void)hoard(LIMIT, START_MS, now_ms);
	assert_true(share.is_short);
	assert_int_equal(take(LIMIT, 0, now_ms + 4 * MINUTE_MS), FULL / 8);
	assert_int_equal(take(LIMIT, 0, now_ms + 16 * MINUTE_MS), FULL / 2);
	assert_int_equal(take(LIMIT, 0, now_ms + 32 * MINUTE_MS), FULL);
	/* It may be short again soon, which is told as the same. */
	assert_true(share.is_short);
	(void)take(LIMIT, 0, now_ms + 50 * MINUTE_MS);
	assert_false(share.is_short);
}

/* ---- who keeps what it has got ---- */

static void half_of_the_pages_is_all_that_a_guest_gets_at_once(void **state)
{
	unsigned taken;

	(void)state;
	taken = hoard(LIMIT, START_MS, START_MS);
	assert_in_range(taken, SHARE * 9 / 10, SHARE);
	taken += hoard(LIMIT, START_MS + SECOND_MS, START_MS + 10 * MINUTE_MS);
	/* All that is forgiven meanwhile it takes as well. */
	assert_in_range(taken, SHARE + SHARE / 6 - SMALLEST / 1024,
			SHARE + SHARE / 6);
}

static void one_guest_leaves_32_attachments_for_half_an_hour(void **state)
{
	unsigned taken;

	(void)state;
	taken = hoard(LIMIT, START_MS, START_MS + 30 * MINUTE_MS);
	assert_true(LIMIT - taken >= 32 * PAGES);
	/* And is not starved: its devices may be lost and come again. */
	assert_true(taken >= LIMIT / 2 + 31 * PAGES);
	taken += hoard(LIMIT, START_MS + 30 * MINUTE_MS,
		       START_MS + 59 * MINUTE_MS);
	assert_true(LIMIT - taken >= PAGES);
}

static void of_linuxs_own_limit_it_leaves_half_at_first(void **state)
{
	unsigned taken;

	(void)state;
	taken = hoard(LINUXS_LIMIT, START_MS, START_MS);
	assert_true(taken >= 3 * PAGES);
	assert_true(LINUXS_LIMIT - taken >= 3 * PAGES);
	taken += hoard(LINUXS_LIMIT, START_MS, START_MS + 30 * MINUTE_MS);
	assert_true(LINUXS_LIMIT - taken >= PAGES);
}

static void what_a_guest_has_is_never_forgiven(void **state)
{
	const uint64_t later_ms = START_MS + 48 * HOUR_MS;

	(void)state;
	(void)take(LIMIT, SHARE - 3, START_MS);
	assert_int_equal(take(LIMIT, SHARE, later_ms), 0);
	/* Of what it lets go of an attachment's is forgiven within a minute. */
	assert_int_equal(take(LIMIT, SHARE - PAGES, later_ms), 0);
	assert_int_equal(take(LIMIT, SHARE - PAGES, later_ms + MINUTE_MS),
			 FULL / 32);
	/* Nor does it get more for having waited. */
	assert_in_range(hoard(LIMIT, later_ms + MINUTE_MS,
			      later_ms + MINUTE_MS),
			1, PAGES - 5);
}

static void a_share_is_whole_again_after_an_hour(void **state)
{
	unsigned taken;

	(void)state;
	taken = hoard(LIMIT, START_MS, START_MS);
	assert_int_equal(hoard(LIMIT, START_MS + HOUR_MS, START_MS + HOUR_MS),
			 taken);
}

static void a_limit_that_is_raised_counts_at_once(void **state)
{
	(void)state;
	(void)hoard(LINUXS_LIMIT, START_MS, START_MS);
	assert_int_equal(take(LINUXS_LIMIT, 0, START_MS), 0);
	assert_int_equal(take(LIMIT, 0, START_MS), FULL);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_ring_is_halved_as_often_as_half_of_the_share_is),
		TEST(who_asks_for_less_gets_that_for_longer),
		TEST(a_ring_that_is_no_part_of_a_share_is_made_one),
		TEST(all_ports_of_a_guest_get_full_rings_at_one_moment),
		TEST(who_attaches_as_fast_as_it_may_is_served_380_times),
		TEST(who_attaches_more_slowly_is_never_refused),
		TEST(rings_grow_again_as_pages_are_forgiven),
		TEST(half_of_the_pages_is_all_that_a_guest_gets_at_once),
		TEST(one_guest_leaves_32_attachments_for_half_an_hour),
		TEST(of_linuxs_own_limit_it_leaves_half_at_first),
		TEST(what_a_guest_has_is_never_forgiven),
		TEST(a_share_is_whole_again_after_an_hour),
		TEST(a_limit_that_is_raised_counts_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
