/* SPDX-License-Identifier: Apache-2.0 */
/* How often a peer may call: bursts, refilling, and room for others. */
#include "gateway/call_rate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define START_MS 5000000u

/* How many of `tries` calls at one moment are let through. */
static unsigned call(struct call_rate *rate, const char *key,
		     unsigned per_second, uint64_t now_ms, unsigned tries)
{
	unsigned num = 0;

	while (tries-- > 0)
		num += call_rate_take(rate, key, per_second, now_ms);
	return num;
}

static void as_many_as_in_a_second_may_come_at_once_and_no_more(void **state)
{
	struct call_rate rate = { 0 };

	(void)state;
	assert_int_equal(call(&rate, "a", 20, START_MS, 1000), 20);
	assert_int_equal(call(&rate, "a", 20, START_MS + 49, 1000), 0);
	assert_int_equal(call(&rate, "b", 1, START_MS, 2), 1);
}

static void calls_come_back_as_time_passes_up_to_a_second_s(void **state)
{
	struct call_rate rate = { 0 };

	(void)state;
	assert_int_equal(call(&rate, "a", 20, START_MS, 20), 20);
	assert_int_equal(call(&rate, "a", 20, START_MS + 50, 10), 1);
	assert_int_equal(call(&rate, "a", 20, START_MS + 550, 100), 10);
	assert_int_equal(call(&rate, "a", 20, START_MS + 100000, 100), 20);
}

static void refused_calls_do_not_put_the_next_one_off(void **state)
{
	struct call_rate rate = { 0 };
	unsigned num = 0;

	(void)state;
	for (unsigned ms = 0; ms < 10000; ms++)
		num += call_rate_take(&rate, "a", 7, START_MS + ms);
	assert_in_range(num, 7 + 69, 7 + 70);
}

static void each_peer_has_its_own(void **state)
{
	struct call_rate rate = { 0 };

	(void)state;
	assert_int_equal(call(&rate, "192.0.2.1", 5, START_MS, 9), 5);
	assert_int_equal(call(&rate, "192.0.2.2", 5, START_MS, 9), 5);
	assert_int_equal(call(&rate, "192.0.2.1", 5, START_MS, 9), 0);
}

static void who_has_not_called_for_longest_makes_room(void **state)
{
	struct call_rate rate = { 0 };
	char key[16];

	(void)state;
	for (unsigned i = 0; i < CALL_RATE_PEERS; i++) {
		(void)snprintf(key, sizeof(key), "peer %u", i);
		assert_int_equal(call(&rate, key, 1, START_MS + i, 2), 1);
	}
	assert_false(call_rate_take(&rate, "peer 0", 1, START_MS + 256));
	assert_true(call_rate_take(&rate, "another", 1, START_MS + 257));

	assert_false(call_rate_take(&rate, "peer 0", 1, START_MS + 258));
	assert_true(call_rate_take(&rate, "peer 1", 1, START_MS + 259));
}

static void a_new_limit_holds_at_once(void **state)
{
	struct call_rate rate = { 0 };

	(void)state;
	assert_true(call_rate_take(&rate, "a", 100000, START_MS));
	assert_int_equal(call(&rate, "a", 2, START_MS, 9), 2);
	assert_int_equal(call(&rate, "a", 100000, START_MS + 1000, 200000),
			 100000);
}

static void a_long_key_is_itself_each_time(void **state)
{
	struct call_rate rate = { 0 };
	char key[CALL_RATE_KEY_BYTES];

	(void)state;
	memset(key, 'x', sizeof(key) - 1);
	key[sizeof(key) - 1] = '\0';
	assert_int_equal(call(&rate, key, 3, START_MS, 9), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			as_many_as_in_a_second_may_come_at_once_and_no_more),
		cmocka_unit_test(
			calls_come_back_as_time_passes_up_to_a_second_s),
		cmocka_unit_test(refused_calls_do_not_put_the_next_one_off),
		cmocka_unit_test(each_peer_has_its_own),
		cmocka_unit_test(who_has_not_called_for_longest_makes_room),
		cmocka_unit_test(a_new_limit_holds_at_once),
		cmocka_unit_test(a_long_key_is_itself_each_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
