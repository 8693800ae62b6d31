/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a conversation ends: the peer goes, the device goes, we stop it, or the
 * device does not give its URBs back.
 */
#include "gateway/engine.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_bed.h"
#include "tests/fake/shm_tap.h"

static void submit_in(struct engine_bench *b, uint32_t seqnum, uint32_t length)
{
	struct usbip_header h = engine_bench_submit(seqnum, 0x81, length);

	assert_true(engine_bench_send_header(b, &h));
	engine_bench_turn(b);
}

static void expect_end_answer(struct engine_bench *b, uint32_t seqnum,
			      int status)
{
	struct usbip_header h;
	uint8_t byte;

	assert_true(engine_bench_receive_header(b, &h));
	assert_int_equal(h.command, USBIP_RET_SUBMIT);
	assert_int_equal(h.seqnum, seqnum);
	assert_int_equal(h.ret_submit.status, status);
	for (uint32_t i = 0; i < h.ret_submit.actual_length; i++)
		assert_true(engine_bench_receive(b, &byte, 1));
}

static void lose_peer(struct engine_bench *b)
{
	channel_free(b->peer);
	b->peer = NULL;
}

/* ---------------------------------------------------------------- the peer */

static void a_peer_that_ends_has_its_urbs_cancelled(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_cancelling = true;
	for (uint32_t i = 0; i < 3; i++)
		submit_in(b, i, 16);
	assert_int_equal(channel_end(b->peer), 0);
	assert_int_equal(engine_bench_run(b), ENGINE_PEER_ENDED);
	assert_int_equal(b->device.num_cancels, 3);
	assert_int_equal(b->device.num_held, 0);
	assert_string_equal(engine_end_sentence(b->engine), "peer detached");
	/* The device is the session's to close. */
	assert_int_equal(b->device.num_closes, 0);
}

static void a_peer_that_dies_has_its_urbs_cancelled(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_cancelling = true;
	submit_in(b, 1, 16);
	lose_peer(b);
	assert_int_equal(engine_bench_run(b), ENGINE_PEER_LOST);
	assert_int_equal(b->device.num_cancels, 1);
	assert_int_equal(b->device.num_held, 0);
}

static void a_peer_that_dies_with_answers_unread_is_noticed(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_cancelling = true;
	submit_in(b, 1, 1u << 20);
	submit_in(b, 2, 1u << 20);
	fake_usb_device_finish(&b->device, b->device.held[0], 0, 1u << 20);
	engine_bench_turn(b);
	lose_peer(b);
	assert_int_equal(engine_bench_run(b), ENGINE_PEER_LOST);
	assert_int_equal(b->device.num_held, 0);
}

static void a_loss_with_an_unlink_under_way_cancels_no_second_time(void **state)
{
	struct engine_bench *b = *state;

	submit_in(b, 1, 16);
	assert_true(engine_bench_send_unlink(b, 2, 1));
	engine_bench_turn(b);
	lose_peer(b);
	engine_bench_turn(b);
	assert_int_equal(b->device.num_cancels, 1);

	fake_usb_device_finish(&b->device, b->device.held[0], 0, 16);
	assert_int_equal(engine_bench_run(b), ENGINE_PEER_LOST);
}

static void the_end_waits_for_what_the_device_holds(void **state)
{
	struct engine_bench *b = *state;

	submit_in(b, 1, 16);
	submit_in(b, 2, 16);
	assert_int_equal(channel_end(b->peer), 0);
	engine_bench_turn(b);
	assert_int_equal(b->device.num_cancels, 2);
	assert_int_equal(b->device.num_held, 2);

	/* They may come back done as well as cancelled. */
	fake_usb_device_finish(&b->device, b->device.held[0], 0, 16);
	fake_usb_device_finish(&b->device, b->device.held[0], -ECONNRESET, 0);
	assert_int_equal(engine_bench_run(b), ENGINE_PEER_ENDED);
}

static void a_peer_that_breaks_the_channel_is_told_from_a_lost_one(void **state)
{
	struct engine_bench b;
	struct shm_tap tap;

	(void)state;
	assert_int_equal(shm_tap_open(&tap), 0);
	assert_int_equal(engine_bench_open_on(&b, tap.server, tap.client,
					      ENGINE_BENCH_BUDGET),
			 0);
	b.device.is_cancelling = true;
	submit_in(&b, 1, 16);
	memset(tap.memory, 0xf0, SHM_TAP_CONTROL_BYTES);
	assert_int_equal(engine_bench_run(&b), ENGINE_BAD_CHANNEL);
	assert_int_equal(b.device.num_held, 0);
	engine_bench_close(&b);
	shm_tap_close(&tap);
}

/* ------------------------------------------------------------------ waiting */

static void check_that_it_sleeps(bool is_shm)
{
	struct engine_bench b;
	struct usbip_header h = engine_bench_submit(1, 0x81, 1u << 20);

	assert_int_equal(engine_bench_open(&b, is_shm, ENGINE_BENCH_BUDGET), 0);
	assert_true(engine_bench_is_asleep(&b));

	/* With half a header, and with an URB in flight. */
	assert_true(engine_bench_send(&b, "12345", 5));
	assert_true(engine_bench_is_asleep(&b));
	engine_bench_close(&b);
	assert_int_equal(engine_bench_open(&b, is_shm, ENGINE_BENCH_BUDGET), 0);
	assert_true(engine_bench_send_header(&b, &h));
	assert_true(engine_bench_is_asleep(&b));

	/* With an answer that its peer does not read, and commands behind. */
	fake_usb_device_finish(&b.device, b.device.held[0], 0, 1u << 20);
	h.seqnum++;
	assert_true(engine_bench_send_header(&b, &h));
	assert_true(engine_bench_is_asleep(&b));
	engine_bench_close(&b);
}

static void an_engine_that_waits_over_shm_sleeps(void **state)
{
	(void)state;
	check_that_it_sleeps(true);
}

static void an_engine_that_waits_over_a_socket_sleeps(void **state)
{
	(void)state;
	check_that_it_sleeps(false);
}

/* How many of the peer's descriptors are ready, now. */
static int poll_peer(struct engine_bench *b)
{
	struct channel_fd fds[CHANNEL_MAX_FDS];
	struct pollfd polled[CHANNEL_MAX_FDS];
	size_t n = channel_fds(b->peer, CHANNEL_READ | CHANNEL_WRITE, fds);

	for (size_t i = 0; i < n; i++)
		polled[i] = (struct pollfd){ fds[i].fd, fds[i].events, 0 };
	return poll(polled, n, 0);
}

static void a_peer_that_sleeps_is_woken_by_an_answer(void **state)
{
	struct engine_bench *b = *state;
	struct iovec pieces[2];

	submit_in(b, 1, 16);
	assert_int_equal(channel_peek(b->peer, pieces), 0);
	assert_false(channel_arm(b->peer, CHANNEL_READ));
	assert_int_equal(poll_peer(b), 0);

	fake_usb_device_finish(&b->device, b->device.held[0], 0, 16);
	engine_bench_turn(b);
	assert_int_equal(poll_peer(b), 1);
	expect_end_answer(b, 1, 0);
}

static void
a_peer_that_waits_for_room_is_woken_when_its_data_is_read(void **state)
{
	static uint8_t data[1u << 20];
	struct engine_bench *b = *state;
	struct usbip_header h = engine_bench_submit(1, 0x02, sizeof(data));
	struct iovec v = { data, sizeof(data) };
	uint8_t bytes[USBIP_HEADER_BYTES];

	usbip_header_encode(bytes, &h);
	assert_int_equal(channel_writev(b->peer,
					&(struct iovec){ bytes, sizeof(bytes) },
					1),
			 sizeof(bytes));
	while (channel_writev(b->peer, &v, 1) > 0)
		;
	assert_false(channel_arm(b->peer, CHANNEL_WRITE));
	assert_int_equal(poll_peer(b), 0);
	engine_bench_turn(b);
	assert_int_equal(poll_peer(b), 1);
}

/* -------------------------------------------------------------- the device */

static void an_unplugged_device_answers_what_it_held_and_ends(void **state)
{
	struct engine_bench *b = *state;

	for (uint32_t i = 0; i < 3; i++)
		submit_in(b, i, 16);
	fake_usb_device_unplug(&b->device);
	assert_int_equal(engine_bench_run(b), ENGINE_DEVICE_GONE);
	for (uint32_t i = 0; i < 3; i++)
		expect_end_answer(b, i, -ESHUTDOWN);
	assert_int_equal(b->device.num_cancels, 0);
	assert_string_equal(engine_end_sentence(b->engine),
			    "device was unplugged");
}

static void a_device_that_goes_while_idle_ends_too(void **state)
{
	struct engine_bench *b = *state;

	fake_usb_device_unplug(&b->device);
	assert_int_equal(engine_bench_run(b), ENGINE_DEVICE_GONE);
	assert_true(engine_bench_is_silent(b));
}

static void
a_device_that_goes_while_nobody_reads_ends_within_a_limit(void **state)
{
	struct engine_bench *b = *state;

	submit_in(b, 1, 1u << 20);
	fake_usb_device_finish(&b->device, b->device.held[0], 0, 1u << 20);
	engine_bench_turn(b);
	fake_usb_device_unplug(&b->device);
	assert_int_equal(engine_bench_run(b), ENGINE_DEVICE_GONE);
}

static void a_device_that_keeps_its_urbs_is_stuck_within_a_limit(void **state)
{
	struct engine_bench *b = *state;

	submit_in(b, 1, 16);
	lose_peer(b);
	assert_int_equal(engine_bench_run(b), ENGINE_STUCK);
	assert_int_equal(b->device.num_held, 1);
	assert_string_equal(engine_end_sentence(b->engine),
			    "device did not give its transfers back");
}

/* --------------------------------------------------------------- ourselves */

static void stopping_answers_what_is_done_and_cancels_the_rest(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_cancelling = true;
	submit_in(b, 1, 16);
	submit_in(b, 2, 16);
	fake_usb_device_finish(&b->device, b->device.held[0], 0, 16);
	engine_stop(b->engine);
	engine_stop(b->engine);
	assert_int_equal(engine_bench_run(b), ENGINE_STOPPED);
	expect_end_answer(b, 1, 0);
	assert_int_equal(b->device.num_cancels, 1);
	assert_true(engine_bench_is_silent(b));
}

static void the_first_reason_to_end_is_the_one_that_is_told(void **state)
{
	struct engine_bench *b = *state;

	b->device.is_cancelling = true;
	submit_in(b, 1, 16);
	fake_usb_device_unplug(&b->device);
	engine_stop(b->engine);
	lose_peer(b);
	assert_int_equal(engine_bench_run(b), ENGINE_DEVICE_GONE);
}

static void what_was_sent_before_the_engine_began_is_read(void **state)
{
	struct engine_bench *b = *state;
	struct engine_bench other;
	struct usbip_header h = engine_bench_submit(1, 0x81, 16);
	uint8_t bytes[USBIP_HEADER_BYTES];
	struct iovec v = { bytes, sizeof(bytes) };

	/* As URBs come right behind an import, before anybody arms. */
	usbip_header_encode(bytes, &h);
	assert_int_equal(engine_bench_open(&other, false, 1000), 0);
	assert_int_equal(channel_writev(other.peer, &v, 1), sizeof(bytes));
	engine_bench_turn(&other);
	assert_int_equal(other.device.num_held, 1);
	engine_bench_close(&other);
	assert_int_equal(engine_end(b->engine), ENGINE_RUNNING);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_peer_that_ends_has_its_urbs_cancelled),
		TEST(a_peer_that_dies_has_its_urbs_cancelled),
		TEST(a_peer_that_dies_with_answers_unread_is_noticed),
		TEST(a_loss_with_an_unlink_under_way_cancels_no_second_time),
		TEST(the_end_waits_for_what_the_device_holds),
		cmocka_unit_test(
			a_peer_that_breaks_the_channel_is_told_from_a_lost_one),
		TEST(a_peer_that_sleeps_is_woken_by_an_answer),
		TEST(a_peer_that_waits_for_room_is_woken_when_its_data_is_read),
		cmocka_unit_test(an_engine_that_waits_over_shm_sleeps),
		cmocka_unit_test(an_engine_that_waits_over_a_socket_sleeps),
		TEST(an_unplugged_device_answers_what_it_held_and_ends),
		TEST(a_device_that_goes_while_idle_ends_too),
		TEST(a_device_that_goes_while_nobody_reads_ends_within_a_limit),
		TEST(a_device_that_keeps_its_urbs_is_stuck_within_a_limit),
		TEST(stopping_answers_what_is_done_and_cancels_the_rest),
		TEST(the_first_reason_to_end_is_the_one_that_is_told),
		TEST(what_was_sent_before_the_engine_began_is_read),
	};

	return cmocka_run_group_tests_name("engine_end", tests, NULL, NULL);
}
