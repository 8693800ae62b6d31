/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of endpoint 0: requests that the host's stack carries out among
 * those that the device has in its queue.
 */
#include "gateway/engine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fake/engine_bench.h"

/* Goes to the device; the other two are carried out by the host. */
static const uint8_t get_status[8] = { 0x80, 0, 0, 0, 0, 0, 2 };
static const uint8_t clear_halt[8] = { 0x02, 1, 0, 0, 0x81 };
static const uint8_t set_setting[8] = { 0x01, 11, 0, 0, 1 };

static int setup(void **state)
{
	struct engine_bench *b = malloc(sizeof(*b));

	*state = b;
	return b ? engine_bench_open(b, true, ENGINE_BENCH_BUDGET) : -1;
}

static int teardown(void **state)
{
	engine_bench_close(*state);
	free(*state);
	return 0;
}

static void submit(struct engine_bench *b, uint32_t seqnum,
		   const uint8_t setup_bytes[8])
{
	bool is_in = (setup_bytes[0] & 0x80) != 0;
	struct usbip_header h =
		engine_bench_submit(seqnum, is_in ? 0x80 : 0, setup_bytes[6]);

	memcpy(h.submit.setup, setup_bytes, 8);
	assert_true(engine_bench_send_header(b, &h));
	engine_bench_turn(b);
}

/* The device ends the request that it got first. */
static void finish(struct engine_bench *b, int status)
{
	struct urb *urb = fake_usb_device_find(&b->device, 0x80);

	assert_non_null(urb);
	fake_usb_device_finish(&b->device, urb, status, 0);
}

static void expect(struct engine_bench *b, uint32_t command, uint32_t seqnum,
		   int status)
{
	struct usbip_header h;

	assert_true(engine_bench_receive_header(b, &h));
	assert_int_equal(h.command, command);
	assert_int_equal(h.seqnum, seqnum);
	assert_int_equal(command == USBIP_RET_UNLINK ? h.unlink_status
						     : h.ret_submit.status,
			 status);
}

static void a_special_request_waits_for_those_before_it(void **state)
{
	struct engine_bench *b = *state;

	submit(b, 1, get_status);
	submit(b, 2, get_status);
	submit(b, 3, clear_halt);
	assert_string_equal(b->device.journal, "submit 80, submit 80, ");

	finish(b, 0);
	expect(b, USBIP_RET_SUBMIT, 1, 0);
	assert_true(engine_bench_is_silent(b));
	assert_string_equal(b->device.journal, "submit 80, submit 80, ");

	finish(b, -EPIPE);
	expect(b, USBIP_RET_SUBMIT, 2, -EPIPE);
	expect(b, USBIP_RET_SUBMIT, 3, 0);
	assert_string_equal(b->device.journal,
			    "submit 80, submit 80, clear_halt 81, ");
}

static void what_follows_a_special_request_that_waits_waits_too(void **state)
{
	struct engine_bench *b = *state;

	submit(b, 1, get_status);
	submit(b, 2, clear_halt);
	submit(b, 3, set_setting);
	submit(b, 4, get_status);
	submit(b, 5, get_status);
	submit(b, 6, clear_halt);
	assert_string_equal(b->device.journal, "submit 80, ");

	finish(b, 0);
	for (uint32_t seqnum = 1; seqnum <= 3; seqnum++)
		expect(b, USBIP_RET_SUBMIT, seqnum, 0);
	assert_true(engine_bench_is_silent(b));
	assert_string_equal(b->device.journal,
			    "submit 80, clear_halt 81, set_interface 1 0, "
			    "submit 80, submit 80, ");

	finish(b, 0);
	finish(b, 0);
	for (uint32_t seqnum = 4; seqnum <= 6; seqnum++)
		expect(b, USBIP_RET_SUBMIT, seqnum, 0);
}

static void other_endpoints_do_not_wait(void **state)
{
	struct usbip_header h = engine_bench_submit(3, 0x81, 0);
	struct engine_bench *b = *state;

	submit(b, 1, get_status);
	submit(b, 2, clear_halt);
	assert_true(engine_bench_send_header(b, &h));
	engine_bench_turn(b);

	assert_string_equal(b->device.journal, "submit 80, submit 81, ");
	finish(b, 0);
	expect(b, USBIP_RET_SUBMIT, 1, 0);
	expect(b, USBIP_RET_SUBMIT, 2, 0);
}

static void what_waits_is_unlinked_without_the_device(void **state)
{
	struct engine_bench *b = *state;

	submit(b, 1, get_status);
	submit(b, 2, clear_halt);
	submit(b, 3, get_status);
	submit(b, 4, clear_halt);

	/* The last one that waits, then the first. */
	assert_true(engine_bench_send_unlink(b, 14, 4));
	expect(b, USBIP_RET_UNLINK, 14, -ECONNRESET);
	assert_true(engine_bench_send_unlink(b, 12, 2));
	expect(b, USBIP_RET_UNLINK, 12, -ECONNRESET);
	assert_string_equal(b->device.journal, "submit 80, submit 80, ");

	submit(b, 5, clear_halt);
	finish(b, 0);
	finish(b, 0);
	expect(b, USBIP_RET_SUBMIT, 1, 0);
	expect(b, USBIP_RET_SUBMIT, 3, 0);
	expect(b, USBIP_RET_SUBMIT, 5, 0);
	assert_int_equal(b->device.num_cancels, 0);
}

static void many_that_wait_leave_in_their_order(void **state)
{
	struct engine_bench *b = *state;
	const uint32_t num = 1000;

	b->device.keeps_journal = false;
	submit(b, 0, get_status);
	for (uint32_t i = 1; i < num; i++)
		submit(b, i, clear_halt);
	assert_true(engine_bench_is_silent(b));

	finish(b, 0);
	for (uint32_t i = 0; i < num; i++)
		expect(b, USBIP_RET_SUBMIT, i, 0);
}

static void the_end_of_the_peer_takes_what_waits_along(void **state)
{
	struct engine_bench *b = *state;

	submit(b, 1, get_status);
	submit(b, 2, clear_halt);
	submit(b, 3, set_setting);
	b->device.is_cancelling = true;
	channel_free(b->peer);
	b->peer = NULL;

	assert_int_equal(engine_bench_run(b), ENGINE_PEER_LOST);
	assert_string_equal(b->device.journal, "submit 80, cancel 80, ");
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(a_special_request_waits_for_those_before_it),
		EACH(what_follows_a_special_request_that_waits_waits_too),
		EACH(other_endpoints_do_not_wait),
		EACH(what_waits_is_unlinked_without_the_device),
		EACH(many_that_wait_leave_in_their_order),
		EACH(the_end_of_the_peer_takes_what_waits_along),
	};

	return cmocka_run_group_tests_name("engine_control", tests, NULL, NULL);
}
