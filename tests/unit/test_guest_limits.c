/* SPDX-License-Identifier: Apache-2.0 */
/* What one guest may have and make the gateway do, however it asks. */
#include "guest_bed.h"

/* With the rings of the bed's configuration. */
#define CHANNEL_PAGES 33ull

/* --------------------------------------------------------------- limits */

static void test_ten_thousand_writes_a_second_are_twenty_looks(void **state)
{
	struct guest *g;

	(void)state;
	g = reach(GUEST_SERVING);
	fake_loop_run(1000);
	memory_num_lists = 0;
	for (int i = 0; i < 10000; i++) {
		guest_mark(g);
		if (i % 10 == 9)
			fake_loop_run(1);
	}
	assert_in_range(memory_num_lists, 19, 21);
	/* And the last of them is not forgotten. */
	memory_num_lists = 0;
	guest_mark(g);
	fake_loop_run(GUEST_LOOK_MS);
	assert_in_range(memory_num_lists, 1, 2);
	finish(g);
}

static void ask(struct guest *g, unsigned channel, unsigned epoch)
{
	char name[12];
	char word[40];

	(void)snprintf(name, sizeof(name), "%u", channel);
	(void)snprintf(word, sizeof(word), "%016x ask 0", epoch);
	say(g, name, word);
}

static void test_a_guest_has_at_most_as_many_channels_as_it_may(void **state)
{
	struct guest *g;

	(void)state;
	g = new_guest();
	for (unsigned i = 0; i < 40; i++)
		ask(g, i, i + 1);
	assert_int_equal(num_started, 40);
	ask(g, 40, 41);
	assert_int_equal(num_started, 40);
	assert_true(our_word_has(OURS "/40", "closed 7"));
	/* One that ends makes room for one. */
	end_session(0);
	ask(g, 40, 42);
	assert_int_equal(num_started, 41);
	finish(g);
}

static void test_after_a_burst_there_is_a_channel_a_second(void **state)
{
	struct guest *g;
	unsigned epoch = 0;

	(void)state;
	g = new_guest();
	/* Faster than looks are is not possible, so time goes on meanwhile. */
	while (!our_word_has(OURS "/1", "closed 7") && epoch < 1000) {
		ask(g, 1, ++epoch);
		if (session_of(1))
			end_session(1);
	}
	assert_in_range(num_started, GUEST_BURST, GUEST_BURST + 8);
	num_started = 0;
	for (int i = 0; i < 200; i++) {
		ask(g, 1, ++epoch);
		if (session_of(1))
			end_session(1);
	}
	/* 200 looks of 50 ms are 10 s. */
	assert_in_range(num_started, 9, 11);
	finish(g);
}

/*
 * Rings as they are given where the half that one guest gets has three of the
 * largest: 33 pages of 99 each while 49 are left, 17 while 24 are, 9, and 5.
 */
static const uint32_t rings[] = { 65536, 65536, 32768, 16384, 8192 };
#define NUM_RINGS   (sizeof(rings) / sizeof(rings[0]))
#define THREE_LIMIT (CHANNEL_PAGES * 3 * 2)

static void test_pages_count_after_they_were_let_go_of_too(void **state)
{
	unsigned epoch = 0;
	struct guest *g;

	(void)state;
	granted_limit = THREE_LIMIT;
	g = new_guest();
	for (unsigned i = 0; i < 20; i++) {
		ask(g, 1, ++epoch);
		if (!session_of(1))
			continue;
		assert_in_range(num_started, 1, NUM_RINGS);
		assert_int_equal(the_session_of(1)->peer.ring_bytes,
				 rings[num_started - 1]);
		end_session(1);
	}
	assert_int_equal(num_started, NUM_RINGS);
	assert_true(our_word_has(OURS "/1", "closed 7"));
	fake_loop_run(GUEST_FORGIVE_MS / 2);
	ask(g, 1, ++epoch);
	assert_int_equal(the_session_of(1)->peer.ring_bytes, 65536);
	finish(g);
}

static void test_pages_in_use_count_as_long_as_they_are(void **state)
{
	struct guest *g;

	(void)state;
	granted_limit = THREE_LIMIT;
	g = new_guest();
	for (unsigned i = 0; i < NUM_RINGS; i++) {
		ask(g, i, i + 1);
		grant(i);
		assert_int_equal(the_session_of(i)->peer.ring_bytes, rings[i]);
	}
	fake_loop_run(2ull * GUEST_FORGIVE_MS);
	ask(g, 9, 20);
	assert_int_equal(num_started, NUM_RINGS);
	/* The first one's, of which the other four have what is left. */
	end_session(0);
	ask(g, 9, 21);
	assert_int_equal(num_started, NUM_RINGS);
	fake_loop_run(GUEST_FORGIVE_MS / 3);
	ask(g, 9, 22);
	assert_int_equal(the_session_of(9)->peer.ring_bytes, 32768);
	finish(g);
}

static void test_ring_sizes_are_cut_to_what_the_gateway_allows(void **state)
{
	static const struct {
		const char *word;
		uint32_t bytes;
	} cases[] = {
		{ "0000000000000001 ask 0", 65536 },
		{ "0000000000000002 ask 1", 4096 },
		{ "0000000000000003 ask 4095", 4096 },
		{ "0000000000000004 ask 4097", 4096 },
		{ "0000000000000005 ask 16384", 16384 },
		{ "0000000000000006 ask 4294967295", 65536 },
	};
	struct guest *g;

	(void)state;
	g = new_guest();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		say(g, "1", cases[i].word);
		assert_int_equal(the_session_of(1)->peer.ring_bytes,
				 cases[i].bytes);
		end_session(1);
	}
	finish(g);
}

static void test_a_device_that_no_rule_gives_any_more_is_taken(void **state)
{
	const struct fake_session *s;
	struct guest *g;

	(void)state;
	g = reach(GUEST_SERVING);
	s = the_session_of(3);
	s->events->took(s->owner, s->pid, "1-1");
	given_busid = "1-1";
	guest_apply_config(g);
	assert_int_equal(guest_revoke(g, "1-2"), 0);
	end_session(3);
	assert_false(our_word_has(OURS "/3", "closed 4"));

	ask(g, 3, 2);
	s = the_session_of(3);
	s->events->took(s->owner, s->pid, "1-1");
	given_busid = "1-2";
	guest_apply_config(g);
	end_session(3);
	assert_true(our_word_has(OURS "/3", "closed 4"));
	finish(g);
}

static void test_names_that_are_no_channel_are_left_alone(void **state)
{
	static const char *const names[] = { "64", "00",         "-1", "+1",
					     "1 ", "4294967296", "x",  "hold" };
	struct guest *g;

	(void)state;
	g = new_guest();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		say(g, names[i], E1 " ask 0");
	assert_int_equal(num_started, 0);
	finish(g);
}

static void test_the_devices_number_is_said_until_it_is_taken(void **state)
{
	struct guest *g;

	(void)state;
	g = new_guest();
	env.devices_number = 8;
	memory_error = -ENOSPC;
	guest_say_devices(g);
	assert_string_equal(memory_get(OURS "/devices"), "7");
	memory_error = 0;
	guest_mark(g);
	fake_loop_run(GUEST_LOOK_MS);
	assert_string_equal(memory_get(OURS "/devices"), "8");
	finish(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ten_thousand_writes_a_second_are_twenty_looks),
		TEST(test_a_guest_has_at_most_as_many_channels_as_it_may),
		TEST(test_after_a_burst_there_is_a_channel_a_second),
		TEST(test_pages_count_after_they_were_let_go_of_too),
		TEST(test_pages_in_use_count_as_long_as_they_are),
		TEST(test_ring_sizes_are_cut_to_what_the_gateway_allows),
		TEST(test_a_device_that_no_rule_gives_any_more_is_taken),
		TEST(test_names_that_are_no_channel_are_left_alone),
		TEST(test_the_devices_number_is_said_until_it_is_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
