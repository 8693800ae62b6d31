/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_bench.h - an engine between a fake device and a channel, whose other
 * end a test holds as the peer: it sends commands, lets the loop turn, plays the
 * device, and reads answers. One thread; nothing happens but when the loop
 * turns.
 */
#ifndef ENGINE_BENCH_H
#define ENGINE_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/engine.h"
#include "tests/fake/fake_usb_device.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/usbip.h"

#define ENGINE_BENCH_DEVID    0x00020003
#define ENGINE_BENCH_BUDGET   (4u << 20)
#define ENGINE_BENCH_LIMIT_MS 5000

struct engine_bench {
	struct loop *loop;
	struct loop_timer *turn;
	struct fake_usb_device device;
	struct channel *channel; /* the engine's end */
	struct channel *peer;    /* NULL once it is gone */
	struct engine *engine;
	bool is_late; /* the limit passed before the loop was stopped */
};

/* Over shm, or over a socket pair; 0 or -1. */
int engine_bench_open(struct engine_bench *b, bool is_shm, size_t budget_bytes);
/* Over two ends that the test has made; they become the bench's. */
int engine_bench_open_on(struct engine_bench *b, struct channel *channel,
			 struct channel *peer, size_t budget_bytes);
/* Gives back what the device holds first. */
void engine_bench_close(struct engine_bench *b);

/* Lets the loop do all that it can do now. */
void engine_bench_turn(struct engine_bench *b);

/* The loop has nothing to do, and uses next to no CPU doing it? */
bool engine_bench_is_asleep(struct engine_bench *b);

/* Until the engine has stopped its loop; how it ended. */
enum engine_end engine_bench_run(struct engine_bench *b);

/* A CMD_SUBMIT for an endpoint's address; 0x80 and 0x00 are control. */
struct usbip_header engine_bench_submit(uint32_t seqnum, uint8_t endpoint,
					uint32_t length);

/* The peer's side. Sending and receiving let the loop turn; false at a limit. */
bool engine_bench_send(struct engine_bench *b, const void *bytes, size_t n);
bool engine_bench_send_header(struct engine_bench *b,
			      const struct usbip_header *h);
bool engine_bench_send_unlink(struct engine_bench *b, uint32_t seqnum,
			      uint32_t target);
bool engine_bench_receive(struct engine_bench *b, void *to, size_t n);
bool engine_bench_receive_header(struct engine_bench *b,
				 struct usbip_header *ret_header);
/* Nothing more to receive, now that the loop has turned? */
bool engine_bench_is_silent(struct engine_bench *b);

#endif
