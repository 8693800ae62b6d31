/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unlinks, and every order in which they can meet the rest: the sequences of
 * commands, completions and turns of the loop up to a depth, each played against
 * the real engine, with what its peer gets judged against the rules of
 * docs/protocol.md.
 */
#include "gateway/engine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_bed.h"

#define MAX_DEPTH     9
#define MAX_URBS      2
#define UNLINK_OFFSET 1000000

static void send_submit(struct engine_bench *b, uint32_t seqnum)
{
	struct usbip_header h = engine_bench_submit(seqnum, 0x81, 16);

	assert_true(engine_bench_send_header(b, &h));
}

static void expect_ret_submit(struct engine_bench *b, uint32_t seqnum,
			      int status, uint32_t actual_length)
{
	struct usbip_header h;
	uint8_t data[16];

	assert_true(engine_bench_receive_header(b, &h));
	assert_int_equal(h.command, USBIP_RET_SUBMIT);
	assert_int_equal(h.seqnum, seqnum);
	assert_int_equal(h.ret_submit.status, status);
	assert_int_equal(h.ret_submit.actual_length, actual_length);
	assert_true(engine_bench_receive(b, data, actual_length));
}

static void expect_ret_unlink(struct engine_bench *b, uint32_t seqnum,
			      int status)
{
	struct usbip_header h;

	assert_true(engine_bench_receive_header(b, &h));
	assert_int_equal(h.command, USBIP_RET_UNLINK);
	assert_int_equal(h.seqnum, seqnum);
	assert_int_equal(h.devid, 0);
	assert_int_equal(h.unlink_status, status);
}

/* ---------------------------------------------------------------- one by one */

static void unlink_of_unknown_seqnum_answers_zero(void **state)
{
	struct engine_bench *b = *state;

	assert_true(engine_bench_send_unlink(b, 7, 5));
	expect_ret_unlink(b, 7, 0);
	/* Nor does an unlink that names itself find anything. */
	assert_true(engine_bench_send_unlink(b, 8, 8));
	expect_ret_unlink(b, 8, 0);
	assert_true(engine_bench_is_silent(b));
}

static void unlink_of_an_unlink_answers_zero_and_both_are_answered(void **state)
{
	struct engine_bench *b = *state;

	send_submit(b, 5);
	assert_true(engine_bench_send_unlink(b, 6, 5));
	assert_true(engine_bench_send_unlink(b, 7, 6));
	expect_ret_unlink(b, 7, 0);
	assert_int_equal(b->device.num_cancels, 1);
	fake_usb_device_finish(&b->device, b->device.held[0], -ECONNRESET, 0);
	expect_ret_unlink(b, 6, -ECONNRESET);
	assert_true(engine_bench_is_silent(b));
}

static void an_unlinked_urb_is_answered_by_its_unlink_alone(void **state)
{
	struct engine_bench *b = *state;

	send_submit(b, 5);
	assert_true(engine_bench_send_unlink(b, 6, 5));
	assert_true(engine_bench_is_silent(b));
	assert_string_equal(b->device.journal, "submit 81, cancel 81, ");
	fake_usb_device_finish(&b->device, b->device.held[0], -ECONNRESET, 0);
	expect_ret_unlink(b, 6, -ECONNRESET);
	assert_true(engine_bench_is_silent(b));
}

static void
an_urb_that_ends_while_it_is_cancelled_is_answered_first(void **state)
{
	static const int statuses[] = { 0, -EPIPE, -ESHUTDOWN };
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < 3; i++) {
		send_submit(b, i);
		assert_true(engine_bench_send_unlink(b, 100 + i, i));
		engine_bench_turn(b);
		fake_usb_device_finish(&b->device, b->device.held[0],
				       statuses[i], 9);
		expect_ret_submit(b, i, statuses[i], 9);
		expect_ret_unlink(b, 100 + i, 0);
		assert_true(engine_bench_is_silent(b));
	}
}

static void a_device_that_cancels_at_once_is_fine(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_cancelling = true;
	send_submit(b, 5);
	assert_true(engine_bench_send_unlink(b, 6, 5));
	expect_ret_unlink(b, 6, -ECONNRESET);
	assert_true(engine_bench_is_silent(b));
}

static void
an_unlink_right_behind_what_is_done_at_once_is_too_late(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_instant = true;
	send_submit(b, 5);
	assert_true(engine_bench_send_unlink(b, 6, 5));
	expect_ret_submit(b, 5, 0, 16);
	expect_ret_unlink(b, 6, 0);
	assert_true(engine_bench_is_silent(b));
}

static void a_second_unlink_of_what_is_cancelled_is_a_violation(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_cancelling = false;
	send_submit(b, 5);
	assert_true(engine_bench_send_unlink(b, 6, 5));
	assert_true(engine_bench_send_unlink(b, 7, 5));
	engine_bench_turn(b);
	assert_int_equal(b->device.num_held, 1);
	fake_usb_device_finish(&b->device, b->device.held[0], -ECONNRESET, 0);
	assert_int_equal(engine_bench_run(b), ENGINE_VIOLATION);
	assert_true(engine_bench_is_silent(b));
}

static void an_unlink_cancels_the_one_that_it_names(void **state)
{
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < 4; i++)
		send_submit(b, i);
	engine_bench_turn(b);
	b->device.is_cancelling = true;
	assert_true(engine_bench_send_unlink(b, 10, 2));
	expect_ret_unlink(b, 10, -ECONNRESET);
	assert_int_equal(b->device.num_held, 3);
	for (uint32_t i = 0; i < 4; i++) {
		if (i == 2)
			continue;
		fake_usb_device_finish(&b->device, b->device.held[0], 0, 4);
		expect_ret_submit(b, i, 0, 4);
	}
}

static void a_seqnum_may_be_used_again_once_it_was_answered(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_cancelling = true;
	for (int i = 0; i < 3; i++) {
		send_submit(b, 5);
		engine_bench_turn(b);
		fake_usb_device_finish(&b->device, b->device.held[0], 0, 3);
		expect_ret_submit(b, 5, 0, 3);
		send_submit(b, 5);
		assert_true(engine_bench_send_unlink(b, 6, 5));
		expect_ret_unlink(b, 6, -ECONNRESET);
	}
}

/* ------------------------------------------------------------- every sequence */

enum event {
	SUBMIT_FIRST,
	UNLINK_FIRST = SUBMIT_FIRST + MAX_URBS,
	ENDED_FIRST = UNLINK_FIRST + MAX_URBS,
	CANCELLED_FIRST = ENDED_FIRST + MAX_URBS,
	TURN = CANCELLED_FIRST + MAX_URBS,
	LOST,
	NUM_EVENTS
};

/* One URB as peer and device know it. */
struct fate {
	uint32_t seqnum;
	bool is_submitted;
	bool is_unlinked;
	bool has_ended; /* the device did it, or failed */
	unsigned num_ret_submit;
	unsigned num_ret_unlink;
	int unlink_status;
};

struct play {
	struct engine_bench *b;
	uint32_t next_seqnum;
	unsigned num_urbs;
	unsigned depth;
	bool ends_in_order; /* how a loss looks: an end, or a dead peer */
	unsigned num_sequences;
	struct fate fates[MAX_URBS];
	bool is_lost;
};

static struct urb *find_held(struct play *p, const struct fate *f)
{
	/* Each URB of a sequence has its own endpoint. */
	return fake_usb_device_find(&p->b->device,
				    f == &p->fates[0] ? 0x81 : 0x83);
}

static struct fate *fate_of(struct play *p, uint32_t seqnum)
{
	for (unsigned i = 0; i < p->num_urbs; i++) {
		if (p->fates[i].seqnum == seqnum)
			return &p->fates[i];
	}
	fail_msg("an answer to nothing");
	return &p->fates[0];
}

/* Judges one answer against what has happened so far. */
static void judge(struct play *p, const struct usbip_header *h)
{
	struct fate *f;

	if (h->command == USBIP_RET_SUBMIT) {
		f = fate_of(p, h->seqnum);
		assert_true(f->is_submitted);
		assert_int_equal(f->num_ret_submit++, 0);
		assert_false(f->num_ret_unlink > 0 && f->unlink_status != 0);
		return;
	}
	assert_int_equal(h->command, USBIP_RET_UNLINK);
	f = fate_of(p, h->seqnum - UNLINK_OFFSET);
	assert_true(f->is_unlinked);
	assert_int_equal(f->num_ret_unlink++, 0);
	f->unlink_status = h->unlink_status;
	if (h->unlink_status == 0) {
		/* Too late: the answer went before. Or there was no URB. */
		assert_true(f->num_ret_submit == 1 || !f->is_submitted);
	} else {
		assert_int_equal(h->unlink_status, -ECONNRESET);
		assert_int_equal(f->num_ret_submit, 0);
		assert_false(f->has_ended);
	}
}

static void read_answers(struct play *p)
{
	struct iovec pieces[2];
	uint8_t data[16];

	engine_bench_turn(p->b);
	while (channel_peek(p->b->peer, pieces) > 0) {
		struct usbip_header h;

		assert_true(engine_bench_receive_header(p->b, &h));
		judge(p, &h);
		if (h.command == USBIP_RET_SUBMIT)
			assert_true(engine_bench_receive(
				p->b, data, h.ret_submit.actual_length));
	}
}

static void finish(struct play *p, struct fate *f, bool is_cancelled)
{
	f->has_ended = !is_cancelled;
	fake_usb_device_finish(&p->b->device, find_held(p, f),
			       is_cancelled ? -ECONNRESET : 0,
			       is_cancelled ? 0 : 16);
}

static void lose(struct play *p)
{
	p->is_lost = true;
	if (p->ends_in_order)
		(void)channel_end(p->b->peer);
	channel_free(p->b->peer);
	p->b->peer = NULL;
	engine_bench_turn(p->b);
}

static bool can_happen(struct play *p, unsigned event)
{
	unsigned i = event < TURN ? event % MAX_URBS : 0;
	struct fate *f = &p->fates[i];

	if (i >= p->num_urbs)
		return false;
	if (event < UNLINK_FIRST)
		/* The second of a kind comes second: the rest is a mirror. */
		return !p->is_lost && !f->is_submitted &&
		       (i == 0 || p->fates[0].is_submitted);
	if (event < ENDED_FIRST)
		return !p->is_lost && f->is_submitted && !f->is_unlinked;
	if (event < TURN)
		return find_held(p, f) != NULL;
	return !p->is_lost;
}

static void happen(struct play *p, unsigned event)
{
	struct fate *f = &p->fates[event % MAX_URBS];

	if (event < UNLINK_FIRST) {
		struct usbip_header h = engine_bench_submit(
			f->seqnum, event % MAX_URBS ? 0x83 : 0x81, 16);

		f->is_submitted = true;
		assert_true(engine_bench_send_header(p->b, &h));
	} else if (event < ENDED_FIRST) {
		f->is_unlinked = true;
		assert_true(engine_bench_send_unlink(
			p->b, f->seqnum + UNLINK_OFFSET, f->seqnum));
	} else if (event < TURN) {
		finish(p, f, event >= CANCELLED_FIRST);
	} else if (event == TURN) {
		read_answers(p);
	} else {
		lose(p);
	}
}

/* Everything comes to its end: then each is settled exactly once. */
static void settle(struct play *p)
{
	for (int i = 0; i < 2 && !p->is_lost; i++) {
		read_answers(p);
		while (p->b->device.num_held > 0)
			fake_usb_device_finish(&p->b->device,
					       p->b->device.held[0],
					       -ECONNRESET, 0);
	}
	for (unsigned i = 0; i < p->num_urbs && !p->is_lost; i++) {
		const struct fate *f = &p->fates[i];

		assert_int_equal(f->num_ret_unlink, f->is_unlinked);
		if (f->is_submitted)
			assert_int_equal(f->num_ret_submit +
						 (f->num_ret_unlink > 0 &&
						  f->unlink_status != 0),
					 1);
	}
	if (!p->is_lost)
		return;
	while (p->b->device.num_held > 0)
		fake_usb_device_finish(&p->b->device, p->b->device.held[0],
				       -ECONNRESET, 0);
	assert_int_equal(engine_bench_run(p->b), p->ends_in_order
							 ? ENGINE_PEER_ENDED
							 : ENGINE_PEER_LOST);
}

/* A conversation that was lost is followed by a new one. */
static void begin(struct play *p)
{
	if (p->is_lost) {
		engine_bench_close(p->b);
		assert_int_equal(
			engine_bench_open(p->b, true, ENGINE_BENCH_BUDGET), 0);
		p->b->device.keeps_journal = false;
	}
	p->is_lost = false;
	memset(p->fates, 0, sizeof(p->fates));
	for (unsigned i = 0; i < p->num_urbs; i++)
		p->fates[i].seqnum = p->next_seqnum++;
}

/* Plays a sequence and settles it; which events could have come next? */
static uint32_t play_sequence(struct play *p, const uint8_t *events, unsigned n)
{
	uint32_t possible = 0;

	begin(p);
	for (unsigned i = 0; i < n; i++)
		happen(p, events[i]);
	for (unsigned event = 0; event < NUM_EVENTS; event++) {
		if (can_happen(p, event))
			possible |= 1u << event;
	}
	/* A turn that nothing came before changes nothing. */
	if (n == 0 || events[n - 1] == TURN)
		possible &= ~(1u << TURN);
	settle(p);
	p->num_sequences++;
	return possible;
}

/* All sequences up to the depth, as an odometer counts: no recursion. */
static void play_all(struct play *p)
{
	uint8_t events[MAX_DEPTH] = { 0 };
	uint32_t left[MAX_DEPTH + 1];
	unsigned n = 0;

	left[0] = play_sequence(p, events, 0);
	for (;;) {
		while (n > 0 && (left[n] == 0 || n == p->depth))
			n--;
		if (left[n] == 0)
			return;
		events[n] = (uint8_t)__builtin_ctz(left[n]);
		left[n] &= left[n] - 1;
		n++;
		left[n] = play_sequence(p, events, n);
	}
}

static void check_all(struct engine_bench *b, unsigned num_urbs, unsigned depth,
		      bool ends_in_order)
{
	struct play p = { .b = b,
			  .num_urbs = num_urbs,
			  .depth = depth,
			  .ends_in_order = ends_in_order,
			  .next_seqnum = 1 };

	b->device.keeps_journal = false;
	play_all(&p);
	print_message("# %u sequences\n", p.num_sequences);
	assert_true(p.num_sequences > 50);
}

static void every_order_for_one_urb_is_answered_right(void **state)
{
	check_all(*state, 1, MAX_DEPTH, false);
}

static void
every_order_for_one_urb_of_a_peer_that_ends_is_answered_right(void **state)
{
	check_all(*state, 1, MAX_DEPTH, true);
}

static void every_order_for_two_urbs_is_answered_right(void **state)
{
	check_all(*state, 2, 7, false);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(unlink_of_unknown_seqnum_answers_zero),
		TEST(unlink_of_an_unlink_answers_zero_and_both_are_answered),
		TEST(an_unlinked_urb_is_answered_by_its_unlink_alone),
		TEST(an_urb_that_ends_while_it_is_cancelled_is_answered_first),
		TEST(a_device_that_cancels_at_once_is_fine),
		TEST(an_unlink_right_behind_what_is_done_at_once_is_too_late),
		TEST(a_second_unlink_of_what_is_cancelled_is_a_violation),
		TEST(an_unlink_cancels_the_one_that_it_names),
		TEST(a_seqnum_may_be_used_again_once_it_was_answered),
		TEST(every_order_for_one_urb_is_answered_right),
		TEST(every_order_for_one_urb_of_a_peer_that_ends_is_answered_right),
		TEST(every_order_for_two_urbs_is_answered_right),
	};

	return cmocka_run_group_tests_name("engine_unlink", tests, NULL, NULL);
}
