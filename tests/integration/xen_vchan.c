/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a vchan, made with the plain libxenvchan and told what to do by
 * lines on its standard input:
 *
 *     send TEXT    puts TEXT into the ring
 *     import BUSID puts what USB/IP asks for a device into the ring
 *     state        says "state IS_OPEN EVENTS", the events counted so far
 *     scribble N   writes noise of this seed over what both sides share
 *     storm        raises the event without end, until there is a line again
 *     sandbox      enters the sandbox that a session runs in
 *     close        closes its end, and stays
 *
 * It says "ready" or "failed ERRNO" first, "got TEXT" for what arrives and
 * "is_open N" whenever that changes; it ends with its input.
 *
 * usage: xen_vchan server|client DOMID PATH [RING_BYTES]
 */
#include <errno.h>
#include <libxenvchan.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xenevtchn.h>

#include "vchan-transport/sandbox.h"

#define MAX_TEXT     4096
#define STORM_EVENTS 1000 /* between two looks at the input */

struct end {
	struct libxenvchan *vchan; /* NULL: closed */
	unsigned events;
	int is_open;
};

static int usage(void)
{
	(void)fprintf(stderr, "usage: xen_vchan server|client DOMID PATH "
			      "[RING_BYTES]\n");
	return 2;
}

static void report_state(struct end *end)
{
	int is_open = libxenvchan_is_open(end->vchan);

	if (is_open != end->is_open)
		printf("is_open %d\n", is_open);
	end->is_open = is_open;
}

static void receive(struct end *end)
{
	char text[MAX_TEXT];

	for (;;) {
		int n = libxenvchan_data_ready(end->vchan);

		if (n <= 0)
			return;
		if (n > MAX_TEXT)
			n = MAX_TEXT;
		n = libxenvchan_read(end->vchan, text, (size_t)n);
		if (n <= 0)
			return;
		printf("got %.*s\n", n, text);
	}
}

static void on_event(struct end *end)
{
	end->events++;
	(void)libxenvchan_wait(end->vchan);
	receive(end);
	report_state(end);
}

/* Numerical Recipes' generator: the same noise for the same seed. */
static void fill_with_noise(void *to, size_t bytes, unsigned *seed)
{
	for (size_t i = 0; i < bytes; i++) {
		*seed = *seed * 1664525u + 1013904223u;
		((unsigned char *)to)[i] = (unsigned char)(*seed >> 24);
	}
}

/*
 * Indices of both rings, and the bytes of ours: the other is mapped to be read.
 * The flags that say who lives stay as they are.
 */
static void scribble(const struct libxenvchan *vchan, unsigned seed)
{
	fill_with_noise(vchan->write.buffer, 1ul << vchan->write.order, &seed);
	fill_with_noise(vchan->write.shr, sizeof(*vchan->write.shr), &seed);
	fill_with_noise(vchan->read.shr, sizeof(*vchan->read.shr), &seed);
	vchan->ring->cli_notify = VCHAN_NOTIFY_READ | VCHAN_NOTIFY_WRITE;
	(void)xenevtchn_notify(vchan->event, vchan->event_port);
}

static void import(struct libxenvchan *vchan, const char *busid)
{
	struct {
		unsigned char head[8];
		char busid[32];
	} request = { .head = { 0x01, 0x11, 0x80, 0x03 } };

	(void)snprintf(request.busid, sizeof(request.busid), "%s", busid);
	printf("sent %d\n", libxenvchan_send(vchan, &request, sizeof(request)));
}

static void storm(struct libxenvchan *vchan)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	unsigned long count = 0;

	printf("storms\n");
	while (poll(&input, 1, 0) == 0) {
		for (int i = 0; i < STORM_EVENTS; i++)
			(void)xenevtchn_notify(vchan->event, vchan->event_port);
		count += STORM_EVENTS;
	}
	printf("stormed %lu\n", count);
}

static void on_command(struct end *end, char *line)
{
	char *text = line;
	const char *verb = strsep(&text, " ");

	if (!end->vchan) {
		printf("closed\n");
	} else if (strcmp(verb, "close") == 0) {
		libxenvchan_close(end->vchan);
		end->vchan = NULL;
		printf("closed\n");
	} else if (strcmp(verb, "state") == 0) {
		printf("state %d %u\n", libxenvchan_is_open(end->vchan),
		       end->events);
	} else if (strcmp(verb, "send") == 0 && text) {
		int n = libxenvchan_send(end->vchan, text, strlen(text));

		printf("sent %d\n", n);
	} else if (strcmp(verb, "scribble") == 0 && text) {
		scribble(end->vchan, (unsigned)strtoul(text, NULL, 10));
		printf("scribbled\n");
	} else if (strcmp(verb, "import") == 0 && text) {
		import(end->vchan, text);
	} else if (strcmp(verb, "storm") == 0) {
		storm(end->vchan);
	} else if (strcmp(verb, "sandbox") == 0) {
		printf("sandbox %d\n", sandbox_enter(SANDBOX_SESSION));
	} else {
		printf("unknown %s\n", verb);
	}
}

/* False at the end of the input. A write of the test's is a line or more. */
static bool on_input(struct end *end)
{
	char lines[MAX_TEXT];
	ssize_t n = read(STDIN_FILENO, lines, sizeof(lines) - 1);
	char *at = lines;
	char *line;

	if (n <= 0)
		return false;
	lines[n] = '\0';
	while ((line = strsep(&at, "\n")) && at)
		on_command(end, line);
	return true;
}

static void run(struct end *end)
{
	for (;;) {
		struct pollfd fds[] = {
			{ .fd = STDIN_FILENO, .events = POLLIN },
			{ .fd = -1, .events = POLLIN },
		};

		if (end->vchan)
			fds[1].fd = libxenvchan_fd_for_select(end->vchan);
		if (poll(fds, 2, -1) < 0)
			return;
		if (fds[1].revents)
			on_event(end);
		if (fds[0].revents && !on_input(end))
			return;
	}
}

int main(int argc, char **argv)
{
	struct end end = { .is_open = -1 };
	size_t ring_bytes = 1024;
	int domid;

	if (argc < 4)
		return usage();
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	domid = (int)strtol(argv[2], NULL, 10);
	if (argc > 4)
		ring_bytes = strtoul(argv[4], NULL, 10);
	if (strcmp(argv[1], "server") == 0)
		end.vchan = libxenvchan_server_init(NULL, domid, argv[3],
						    ring_bytes, ring_bytes);
	else
		end.vchan = libxenvchan_client_init(NULL, domid, argv[3]);
	if (!end.vchan) {
		printf("failed %d\n", errno);
		return 1;
	}
	printf("ready\n");
	report_state(&end);
	run(&end);
	if (end.vchan)
		libxenvchan_close(end.vchan);
	return 0;
}
