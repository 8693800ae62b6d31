/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_bed.h - what the tests of the engine have in common: a bench that is
 * new for each, over either channel, and what a peer expects of an answer.
 */
#ifndef ENGINE_BED_H
#define ENGINE_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/fake/engine_bench.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define REPLY_BYTES   65536

/* For setup: which channel the bench has; NULL is shared memory. */
static bool over_shm __attribute__((unused)) = true;
static bool over_socket __attribute__((unused)) = false;

static inline int setup(void **state)
{
	struct engine_bench *b = malloc(sizeof(*b));
	const bool *is_shm = *state;

	*state = b;
	return b ? engine_bench_open(b, !is_shm || *is_shm, ENGINE_BENCH_BUDGET)
		 : -1;
}

static inline int teardown(void **state)
{
	engine_bench_close(*state);
	free(*state);
	return 0;
}

/* Sends one command, its data and its packets, and lets them arrive. */
static inline void submit(struct engine_bench *b, const struct usbip_header *h,
			  const void *data, size_t data_bytes)
{
	assert_true(engine_bench_send_header(b, h));
	assert_true(engine_bench_send(b, data, data_bytes));
	engine_bench_turn(b);
}

/* The one URB that the device holds. */
static inline struct urb *held(struct engine_bench *b)
{
	assert_int_equal(b->device.num_held, 1);
	return b->device.held[0];
}

static inline struct usbip_ret_submit expect_ret(struct engine_bench *b,
						 uint32_t seqnum)
{
	struct usbip_header h;

	assert_true(engine_bench_receive_header(b, &h));
	assert_int_equal(h.command, USBIP_RET_SUBMIT);
	assert_int_equal(h.seqnum, seqnum);
	assert_int_equal(h.devid, 0);
	assert_int_equal(h.direction, 0);
	assert_int_equal(h.endpoint, 0);
	return h.ret_submit;
}

static inline void expect_answer(struct engine_bench *b, uint32_t seqnum,
				 int status, size_t actual_length)
{
	struct usbip_ret_submit r = expect_ret(b, seqnum);

	assert_int_equal(r.status, status);
	assert_int_equal(r.actual_length, actual_length);
}

/* The data of a reply: what the device wrote, and nothing of the poison. */
static inline void expect_data(struct engine_bench *b, size_t n)
{
	static uint8_t bytes[REPLY_BYTES];

	assert_true(n <= sizeof(bytes));
	assert_true(engine_bench_receive(b, bytes, n));
	for (size_t i = 0; i < n; i++)
		assert_int_equal(bytes[i], fake_usb_byte(i));
}

#endif
