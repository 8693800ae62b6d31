/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a vchan channel, in the sandbox of its role. The server sends back
 * whatever comes. The client asks COUNT times for its bytes back, says how long
 * that took, and ends; with a COUNT of 0 it waits for the other's end. Both say
 * "ready" first and "ended: WORDS" last.
 *
 * usage: vchan_end serve DOMID PATH RING_BYTES
 *        vchan_end join DOMID PATH COUNT
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vchan-transport/channel.h"
#include "vchan-transport/sandbox.h"

#define LIMIT_MS  60000
#define MAX_BYTES 8192u

static uint64_t soon(void)
{
	return clock_ms() + LIMIT_MS;
}

static ssize_t await(struct channel *c)
{
	struct iovec pieces[2];
	ssize_t n;

	while ((n = channel_peek(c, pieces)) == 0) {
		int r = channel_wait(c, CHANNEL_READ, soon());

		if (r < 0)
			return r;
	}
	return n;
}

/* Sends back what comes; how the stream ended. */
static int echo(struct channel *c)
{
	static uint8_t bytes[MAX_BYTES];
	ssize_t n;
	int r;

	while ((n = await(c)) > 0) {
		n = channel_read(c, bytes, sizeof(bytes));
		if (n <= 0)
			break;
		r = channel_write_all(c, bytes, (size_t)n, soon());
		if (r < 0)
			return r;
	}
	return (int)n;
}

/*
 * Lengths that come to lie everywhere in a ring; two of the smallest rings hold
 * the longest, so nobody has to read while it writes.
 */
static size_t message_bytes(unsigned long number)
{
	static const size_t lengths[] = { 48, 48, 1,    48,   4096, 561,
					  48, 48, 4095, 8192, 48,   4097 };

	return lengths[number % (sizeof(lengths) / sizeof(lengths[0]))];
}

/* 0, -EBADMSG if other bytes come back, or how the stream ended. */
static int ask(struct channel *c, unsigned long count)
{
	static uint8_t sent[MAX_BYTES + 256];
	static uint8_t got[MAX_BYTES];

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + (i >> 8));
	for (unsigned long i = 0; i < count; i++) {
		const uint8_t *message = sent + i % 256;
		const size_t bytes = message_bytes(i);
		int r = channel_write_all(c, message, bytes, soon());

		if (r == 0)
			r = channel_read_all(c, got, bytes, soon());
		if (r < 0)
			return r;
		if (memcmp(got, message, bytes) != 0)
			return -EBADMSG;
	}
	return 0;
}

static int talk(struct channel *c, unsigned long count)
{
	const uint64_t start = clock_ms();
	int r;

	if (count == 0)
		return (int)await(c);
	r = ask(c, count);
	if (r < 0)
		return r;
	(void)printf("%lu messages in %lu ms\n", count,
		     (unsigned long)(clock_ms() - start));
	r = channel_end(c);
	return r < 0 ? r : (int)await(c);
}

static int open_end(char **argv, struct channel **ret_channel)
{
	char why[CHANNEL_WHY_BYTES];
	unsigned domid = (unsigned)strtoul(argv[2], NULL, 10);
	int r;

	if (strcmp(argv[1], "serve") == 0)
		r = channel_vchan_serve(domid, argv[3],
					strtoul(argv[4], NULL, 10), soon(),
					ret_channel, why);
	else
		r = channel_vchan_join(domid, argv[3], -1, ret_channel, why);
	if (r < 0)
		(void)printf("no channel: %s\n", why);
	return r;
}

int main(int argc, char **argv)
{
	bool is_server = argc == 5 && strcmp(argv[1], "serve") == 0;
	struct channel *c;
	int r;

	if (!is_server && (argc != 5 || strcmp(argv[1], "join") != 0)) {
		(void)fprintf(stderr, "usage: vchan_end serve|join DOMID PATH "
				      "RING_BYTES|COUNT\n");
		return 2;
	}
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	sandbox_at_entry();
	if (open_end(argv, &c) < 0)
		return 1;
	(void)puts("ready");
	r = sandbox_enter(is_server ? SANDBOX_SESSION : SANDBOX_LINK);
	if (r == 0)
		r = is_server ? echo(c) : talk(c, strtoul(argv[4], NULL, 10));
	if (r == -EPIPE)
		(void)channel_end(c);
	channel_free(c);
	(void)printf("ended: %s\n", r == -EPIPE ? "in order" : strerror(-r));
	return r == -EPIPE ? 0 : 1;
}
