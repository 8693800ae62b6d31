/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/engine_bench.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vchan-transport/loop.h"

/* Events that one turn finds lead to work in the next. */
#define TURNS     3
#define ASLEEP_MS 100

static uint64_t soon(void)
{
	return clock_ms() + ENGINE_BENCH_LIMIT_MS;
}

static void on_turn(void *arg)
{
	const struct engine_bench *b = arg;

	loop_stop(b->loop);
}

static int open_channels(bool is_shm, struct channel **ret_channel,
			 struct channel **ret_peer)
{
	int fds[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	if (is_shm) {
		r = channel_shm_serve(fds[0], CHANNEL_MIN_RING_BYTES,
				      ret_channel);
		return r < 0 ? r : channel_shm_join(fds[1], soon(), ret_peer);
	}
	r = channel_socket_new(fds[0], ret_channel);
	return r < 0 ? r : channel_socket_new(fds[1], ret_peer);
}

int engine_bench_open(struct engine_bench *b, bool is_shm, size_t budget_bytes)
{
	struct channel *channel = NULL;
	struct channel *peer = NULL;
	int r = open_channels(is_shm, &channel, &peer);

	return r < 0 ? r : engine_bench_open_on(b, channel, peer, budget_bytes);
}

int engine_bench_open_on(struct engine_bench *b, struct channel *channel,
			 struct channel *peer, size_t budget_bytes)
{
	struct engine_options options = { .devid = ENGINE_BENCH_DEVID,
					  .budget_bytes = budget_bytes,
					  .who = "test" };

	memset(b, 0, sizeof(*b));
	fake_usb_device_init(&b->device);
	b->channel = channel;
	b->peer = peer;
	if (loop_new(&b->loop) < 0 ||
	    loop_timer_start(b->loop, 0, 0, on_turn, b, &b->turn) < 0)
		return -1;
	options.loop = b->loop;
	options.channel = b->channel;
	options.device = &b->device.base;
	return engine_new(&options, &b->engine) < 0 ? -1 : 0;
}

void engine_bench_close(struct engine_bench *b)
{
	while (b->device.num_held > 0)
		fake_usb_device_finish(&b->device, b->device.held[0],
				       -ECONNRESET, 0);
	engine_free(b->engine);
	loop_free(b->loop);
	channel_free(b->channel);
	channel_free(b->peer);
}

void engine_bench_turn(struct engine_bench *b)
{
	for (int i = 0; i < TURNS; i++) {
		loop_timer_again(b->turn, 0);
		loop_run(b->loop);
	}
}

static uint64_t cpu_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

bool engine_bench_is_asleep(struct engine_bench *b)
{
	uint64_t before;

	engine_bench_turn(b);
	before = cpu_ms();
	loop_timer_again(b->turn, ASLEEP_MS);
	loop_run(b->loop);
	return cpu_ms() - before < ASLEEP_MS / 4;
}

static void on_limit(void *arg)
{
	struct engine_bench *b = arg;

	b->is_late = true;
	loop_stop(b->loop);
}

enum engine_end engine_bench_run(struct engine_bench *b)
{
	struct loop_timer *limit;

	if (loop_timer_start(b->loop, ENGINE_BENCH_LIMIT_MS, 0, on_limit, b,
			     &limit) < 0)
		return ENGINE_RUNNING;
	loop_run(b->loop);
	loop_timer_stop(limit);
	return b->is_late ? ENGINE_RUNNING : engine_end(b->engine);
}

struct usbip_header engine_bench_submit(uint32_t seqnum, uint8_t endpoint,
					uint32_t length)
{
	struct usbip_header h = { .command = USBIP_CMD_SUBMIT,
				  .seqnum = seqnum,
				  .devid = ENGINE_BENCH_DEVID,
				  .direction = endpoint >> 7,
				  .endpoint = endpoint & 0x0f,
				  .submit = { .length = length } };

	if (h.endpoint != 0)
		return h;
	/* A vendor request that moves that much. */
	h.submit.setup[0] = (uint8_t)(0x40 | (endpoint & 0x80));
	h.submit.setup[6] = (uint8_t)length;
	h.submit.setup[7] = (uint8_t)(length >> 8);
	return h;
}

bool engine_bench_send(struct engine_bench *b, const void *bytes, size_t n)
{
	uint64_t limit = soon();
	union { /* an iovec's base is not const */
		const void *in;
		uint8_t *out;
	} at = { .in = bytes };

	while (n > 0) {
		struct iovec v = { at.out, n };
		ssize_t sent = channel_writev(b->peer, &v, 1);

		if (sent < 0 || clock_ms() > limit)
			return false;
		at.out += sent;
		n -= (size_t)sent;
		channel_flush(b->peer);
		if (n > 0)
			engine_bench_turn(b);
	}
	return true;
}

bool engine_bench_send_header(struct engine_bench *b,
			      const struct usbip_header *h)
{
	uint8_t bytes[USBIP_HEADER_BYTES];

	usbip_header_encode(bytes, h);
	return engine_bench_send(b, bytes, sizeof(bytes));
}

bool engine_bench_send_unlink(struct engine_bench *b, uint32_t seqnum,
			      uint32_t target)
{
	struct usbip_header h = { .command = USBIP_CMD_UNLINK,
				  .seqnum = seqnum,
				  .devid = ENGINE_BENCH_DEVID,
				  .unlink_seqnum = target };

	return engine_bench_send_header(b, &h);
}

/* Nobody polls for the peer: it looks each time, as if it had been woken. */
static ssize_t read_now(struct channel *c, void *to, size_t n)
{
	struct channel_fd fds[CHANNEL_MAX_FDS];
	size_t num_fds = channel_fds(c, CHANNEL_READ, fds);

	for (size_t i = 0; i < num_fds; i++)
		(void)channel_wake(c, fds[i].fd);
	return channel_read(c, to, n);
}

bool engine_bench_receive(struct engine_bench *b, void *to, size_t n)
{
	uint64_t limit = soon();
	uint8_t *at = to;

	while (n > 0) {
		ssize_t got = read_now(b->peer, at, n);

		if (got < 0 || clock_ms() > limit)
			return false;
		at += got;
		n -= (size_t)got;
		channel_flush(b->peer);
		if (n > 0)
			engine_bench_turn(b);
	}
	return true;
}

bool engine_bench_receive_header(struct engine_bench *b,
				 struct usbip_header *ret_header)
{
	uint8_t bytes[USBIP_HEADER_BYTES];

	if (!engine_bench_receive(b, bytes, sizeof(bytes)))
		return false;
	usbip_header_decode(ret_header, bytes);
	return true;
}

bool engine_bench_is_silent(struct engine_bench *b)
{
	uint8_t byte;

	engine_bench_turn(b);
	return read_now(b->peer, &byte, 1) == 0;
}
