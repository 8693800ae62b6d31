/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every sequence of what can meet one URB, or two: commands whole and in halves,
 * unlinks, also of what is unlinked already or not there, a device that gives
 * back or is unplugged, a channel that has no room or no peer, a gateway that
 * stops. At the end of each nothing is lent and every slot is free.
 */
#include "urb_world.h"

/* A new engine is much memory, which sanitizers make slow: so much less is played. */
#ifdef __SANITIZE_ADDRESS__
#define LESS 2
#else
#define LESS 0
#endif

/* ---- what must be true ---- */

/* Each that is not wanted any more is asked back, and once. */
static void judge_cancels(void)
{
	unsigned num_asked = world.num_asked_back;

	for (unsigned i = 0; i < world.num_urbs; i++)
		num_asked += is_asked_back(&world.fates[i]);
	expect(world.device.num_cancels == num_asked,
	       "the device was not asked for it, or twice");
}

static void judge(void)
{
	const struct engine *e = world.engine;

	expect(e->num_lent >= world.device.num_held, "less is lent than held");
	expect(e->end == ENGINE_RUNNING || world.may_end & 1u << e->end,
	       "it has ended for no reason");
	expect(!is_stopped || e->is_lost, "it has stopped, and has not ended");
	expect(!is_stopped || e->num_lent == 0 || e->end == ENGINE_STUCK,
	       "it has stopped, and something is lent");
	if (!world.device.is_instant && !world.device.is_cancelling)
		judge_cancels();
}

static void judge_rest(void)
{
	struct engine *e = world.engine;

	expect(e->num_lent == 0 && e->num_lent_controls == 0 &&
		       world.device.num_held == 0,
	       "something is lent at the end");
	expect(!e->first_answer && !e->first_waiting && !e->receiver,
	       "something waits at the end");
	for (uint32_t i = 0; i < USED_SLOTS; i++)
		expect(slot_at(e->pool, i)->state == URB_FREE,
		       "a slot is not free at the end");
}

static void judge_settled(void)
{
	bool has_peer = world.channel.end == 0 && !world.has_limit_passed;
	bool is_alive = world.engine->end == ENGINE_RUNNING;

	for (unsigned i = 0; i < world.num_urbs && has_peer; i++) {
		const struct fate *f = &world.fates[i];

		if (is_alive)
			expect(f->num_out == 0 && !f->unlinks[0].is_out &&
				       !f->unlinks[1].is_out,
			       "something was not answered");
		else if (world.engine->end != ENGINE_VIOLATION)
			expect(f->num_out == 0 || !f->is_answerable,
			       "what was ready has not gone out");
	}
}

/* Everything comes to its end. */
static void judge_end(void)
{
	if (world.is_half && world.channel.end == 0)
		happen(REST);
	set_room(false);
	if (!is_stopped)
		turn();
	for (unsigned i = 0; i < world.num_urbs; i++) {
		while (find_held(&world.fates[i]))
			finish(&world.fates[i], -ECONNRESET);
		turn();
	}
	judge();
	judge_rest();
	judge_settled();
	if (world.engine->end == ENGINE_RUNNING)
		return;
	expect(is_stopped, "it has ended, and does not stop");
	engine_free(world.engine);
	fake_loop_sweep();
	world.engine = NULL;
	expect(world.device.memory_bytes == 0, "memory stays");
}

/* ---- playing ---- */

static uint32_t hash_bytes(const uint8_t *bytes, size_t n)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ bytes[i]) * 16777619u;
	return hash;
}

/* The numbers of a queue: an URB's and its state, or the unlink's. */
static size_t note_queue(const struct slot *first, char *key, size_t cap)
{
	size_t used = (size_t)snprintf(key, cap, "/");

	for (const struct slot *s = first; s; s = s->next)
		used += (size_t)snprintf(key + used, cap - used, "%u%c",
					 s->reply == URB_DO_RET_SUBMIT ||
							 s->reply == URB_DO_NONE
						 ? s->seqnum
						 : s->unlink_seqnum,
					 'a' + (char)s->reply);
	return used;
}

static void note_key(char key[static SEQUENCES_KEY_BYTES])
{
	struct engine *e = world.engine;
	const size_t cap = SEQUENCES_KEY_BYTES;
	const uint8_t *unread;
	size_t num_unread = quiet_channel_unread(&world.channel, &unread);
	size_t used;

	used = (size_t)snprintf(
		key, cap, "%d%d%d%d%d%d%d %x %zu %zx %zu %d %x %zu", e->end,
		e->is_lost, e->is_blocked, e->receiving, is_stopped,
		world.is_half, world.has_limit_passed, world.may_end,
		e->receive_left, world.channel.room, world.channel.out_used,
		world.channel.end, hash_bytes(unread, num_unread), num_unread);
	for (unsigned i = 0; i < world.num_urbs; i++) {
		const struct fate *f = &world.fates[i];
		uint32_t index;
		bool is_known = seq_map_get(e->seqnums, seqnum_of(f), &index);

		used += (size_t)snprintf(
			key + used, cap - used, " %d%d%d%d%d%d%d%d%d",
			is_known ? (int)slot_at(e->pool, index)->state : 0,
			(int)f->num_out, f->has_ended, f->is_answerable,
			f->is_unlinked, f->unlinks[0].is_out,
			f->unlinks[0].is_live, f->unlinks[1].is_out,
			f->unlinks[1].is_live);
	}
	used += note_queue(e->first_answer, key + used, cap - used);
	used += note_queue(e->first_waiting, key + used, cap - used);
	used += (size_t)snprintf(key + used, cap - used, " %d%d%d",
				 world.is_turned, world.device.base.is_gone,
				 has_limit());
	assert_true(used < cap);
}

/* One that nothing has ended goes on as if it were new. */
static void begin(const uint8_t *events, size_t length)
{
	const struct engine_options options = { .channel = &world.channel.base,
						.device = &world.device.base,
						.devid = DEVID,
						.budget_bytes = 1 << 20,
						.who = "test" };

	is_stopped = false;
	quiet_channel_init(&world.channel);
	if (!world.engine) {
		bool is_instant = world.device.is_instant;
		bool is_cancelling = world.device.is_cancelling;

		fake_usb_device_init(&world.device);
		world.device.keeps_journal = false;
		world.device.is_instant = is_instant;
		world.device.is_cancelling = is_cancelling;
		assert_int_equal(engine_new(&options, &world.engine), 0);
	}
	world.device.num_submits = 0;
	world.device.num_cancels = 0;
	for (unsigned i = 0; i < MAX_URBS; i++)
		world.fates[i] = (struct fate){ .kind = world.fates[i].kind };
	world.num_unread = 0;
	world.is_half = false;
	world.is_turned = true;
	world.is_full = false;
	world.has_limit_passed = false;
	world.num_asked_back = 0;
	world.may_end = 0;
	played.events = events;
	played.length = length;
}

static uint32_t play(const uint8_t *events, size_t length,
		     char ret_key[static SEQUENCES_KEY_BYTES])
{
	uint32_t possible = 0;

	begin(events, length);
	for (played.at = 0; played.at < length; played.at++) {
		happen((enum event)events[played.at]);
		judge();
	}
	for (int event = 0; event < NUM_EVENTS; event++)
		if ((world.alphabet & 1u << event) &&
		    can_happen((enum event)event))
			possible |= 1u << event;
	note_key(ret_key);
	judge_end();
	return possible;
}

static const struct sequences_game game = { NUM_EVENTS, event_names, play,
					    fail_game };

/* All to this length, and on until nothing is new: so many, and so much. */
static void play_game(size_t length, unsigned num_all, size_t num_situations)
{
	struct sequences_result first;
	struct sequences_result all;

	length -= LESS;
	sequences_play_first(&game, LESS ? length : SEQUENCES_MAX_LENGTH,
			     &first);
	sequences_play_all(&game, length, &all);
	if (LESS)
		return;
	assert_int_equal(all.num_played, num_all);
	assert_int_equal(first.num_situations, num_situations);
	assert_false(first.is_cut);
}

static int setup(void **state)
{
	(void)state;
	memset(&world, 0, sizeof(world));
	world.alphabet = ~0u;
	log_init("test", LOG_LEVEL_ERROR);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	engine_free(world.engine);
	fake_loop_sweep();
	return 0;
}

/* What a slot can meet, and nothing of what leads to the end in other ways. */
#define FEW_EVENTS                                              \
	(1u << SUBMIT | 1u << (SUBMIT + 1) | 1u << UNLINK |     \
	 1u << (UNLINK + 1) | 1u << ENDED | 1u << (ENDED + 1) | \
	 1u << CANCELLED | 1u << (CANCELLED + 1) | 1u << TURN | \
	 1u << PEER_LOST)

static void one_urb_is_answered_right_until_nothing_is_new(void **state)
{
	(void)state;
	world.num_urbs = 1;
	play_game(6, 50057, 15387);
}

static void every_order_to_length_ten_is_answered_right(void **state)
{
	(void)state;
	world.num_urbs = 1;
	world.alphabet = FEW_EVENTS;
	play_game(10, 7618, 117);
}

static void one_urb_of_a_device_that_is_done_at_once_is_answered_right(void **s)
{
	(void)s;
	world.num_urbs = 1;
	world.device.is_instant = true;
	play_game(4, 2576, 7577);
}

static void one_urb_of_a_device_that_cancels_at_once_is_answered_right(void **s)
{
	(void)s;
	world.num_urbs = 1;
	world.device.is_cancelling = true;
	play_game(4, 2583, 11011);
}

static void every_sequence_of_two_urbs_is_answered_right(void **state)
{
	(void)state;
	world.num_urbs = 2;
	world.alphabet = FEW_EVENTS;
	world.fates[1].kind = BULK_IN;
	play_game(7, 28117, 6149);
}

static void control_requests_that_wait_for_each_other_are_too(void **state)
{
	(void)state;
	world.num_urbs = 2;
	world.alphabet = FEW_EVENTS;
	world.fates[0].kind = CONTROL;
	world.fates[1].kind = APPLIED;
	play_game(8, 73119, 1326);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_urb_is_answered_right_until_nothing_is_new),
		TEST(every_order_to_length_ten_is_answered_right),
		TEST(one_urb_of_a_device_that_is_done_at_once_is_answered_right),
		TEST(one_urb_of_a_device_that_cancels_at_once_is_answered_right),
		TEST(every_sequence_of_two_urbs_is_answered_right),
		TEST(control_requests_that_wait_for_each_other_are_too),
	};

	return cmocka_run_group_tests_name("engine_sequences", tests, NULL,
					   NULL);
}
