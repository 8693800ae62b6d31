/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/link.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/link_private.h"
#include "vchan-transport/log.h"
#include "vchan-transport/sandbox.h"

#define FINISH_LIMIT_MS 1000
#define WATCHDOG_S      30
#define STUCK_S         3

void link_end(struct link *l, enum link_end why)
{
	if (l->end == LINK_RUNNING)
		l->end = why;
	loop_stop(l->loop);
}

void link_refuse(struct link *l, enum link_end why, enum urb_verdict verdict)
{
	if (l->end == LINK_RUNNING)
		l->verdict = verdict;
	link_end(l, why);
}

void link_decode_packets(struct link *l, const uint8_t *bytes, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		usbip_iso_decode(&l->packets[i],
				 bytes + (size_t)i * USBIP_ISO_BYTES);
}

static void on_ending_limit(void *arg)
{
	link_end(arg, LINK_DETACHED);
}

/* vhci is gone: a gateway that does not read what it said holds nobody up. */
static void begin_ending(struct link *l)
{
	struct loop_timer *limit;

	if (l->commands.is_ending)
		return;
	l->commands.is_ending = true;
	if (loop_timer_start(l->loop, FINISH_LIMIT_MS, 0, on_ending_limit, l,
			     &limit) < 0)
		link_end(l, LINK_DETACHED);
}

static void on_vhci(void *arg, short revents)
{
	struct link *l = arg;

	if (revents & (POLLIN | POLLERR))
		l->commands.may_read = true;
	if (revents & (POLLRDHUP | POLLERR))
		begin_ending(l);
	if (revents & (POLLOUT | POLLERR)) {
		/* What it was blocked on was seen already: no news will come. */
		l->replies.has_unread |= l->replies.is_blocked;
		l->replies.is_blocked = false;
	}
}

static bool watch_vhci(struct link *l)
{
	short events = LOOP_EDGE;

	if (!l->commands.is_blocked &&
	    l->commands.used - l->commands.written < LINK_COMMAND_BYTES)
		events |= POLLIN;
	if (l->replies.is_blocked)
		events |= POLLOUT;
	if (events == l->vhci_events)
		return true;
	l->vhci_events = events;
	return loop_watch_set(l->vhci_watch, events) == 0;
}

static bool link_has_work(void *arg)
{
	struct link *l = arg;
	unsigned want = 0;

	if (!link_is_running(l))
		return false;
	if (link_can_read_commands(l) ||
	    (l->replies.has_unread && !l->replies.is_blocked))
		return true;
	if (!watch_vhci(l))
		link_end(l, LINK_VHCI_FAILED);
	if (!l->replies.is_blocked)
		want |= CHANNEL_READ;
	if (l->commands.is_blocked)
		want |= CHANNEL_WRITE;
	if (urb_table_count(l->table) > 0)
		want |= CHANNEL_SPIN;
	return channel_watch_arm(&l->watch, want);
}

static void link_work(void *arg)
{
	struct link *l = arg;

	if (l->commands.is_blocked)
		link_write_commands(l);
	if (link_can_read_commands(l))
		link_read_commands(l);
	if (link_is_running(l) && !l->replies.is_blocked)
		link_pump_replies(l);
	channel_flush(l->channel);
}

static void on_terminate(void *arg, int signo)
{
	(void)signo;
	link_end(arg, LINK_STOPPED);
}

static int link_start(struct link *l)
{
	int r = loop_new(&l->loop);

	if (r < 0)
		return r;
	l->vhci_events = POLLIN | LOOP_EDGE;
	link_start_commands(l);
	l->replies.has_unread = true; /* the import may have brought more */
	r = channel_watch_start(&l->watch, l->loop, l->channel);
	if (r == 0)
		r = loop_watch_fd(l->loop, l->options->vhci_fd, l->vhci_events,
				  on_vhci, l, &l->vhci_watch);
	if (r == 0)
		r = loop_on_signal(l->loop, SIGTERM, on_terminate, l);
	if (r == 0)
		r = loop_set_watchdog(l->loop, WATCHDOG_S);
	l->source = (struct loop_source){ .has_work = link_has_work,
					  .work = link_work,
					  .arg = l };
	if (r == 0)
		loop_add_source(l->loop, &l->source);
	/* Last: the loop has opened what it needs. */
	return r < 0 ? r : sandbox_enter(SANDBOX_LINK);
}

/* Logs how it ended. */
static enum exit_status report(const struct link *l)
{
	const char *who = l->options->who;

	switch (l->end) {
	case LINK_DETACHED:
		log_info("%s: detached", who);
		return EXIT_OK;
	case LINK_STOPPED:
		log_info("%s: detached: this link was told to stop", who);
		return EXIT_OK;
	case LINK_GATEWAY_ENDED:
		log_info(
			"%s: detached: the gateway ended it, the device may have been unplugged",
			who);
		return EXIT_NO_DEVICE;
	case LINK_GATEWAY_LOST:
		log_warn("%s: detached: the gateway is gone", who);
		return EXIT_CANNOT_REACH;
	case LINK_BAD_CHANNEL:
		log_error("%s: detached: the gateway broke the channel", who);
		return EXIT_PROTOCOL;
	case LINK_BAD_REPLY:
		log_error("%s: detached: the gateway sent %s", who,
			  urb_verdict_sentence(l->verdict));
		return EXIT_PROTOCOL;
	case LINK_BAD_COMMAND:
		log_error("%s: detached: this host's side sent %s", who,
			  urb_verdict_sentence(l->verdict));
		return EXIT_PROTOCOL;
	case LINK_VHCI_FAILED:
	case LINK_RUNNING:
		break;
	}
	log_error("%s: detached: the socket to vhci_hcd failed", who);
	return EXIT_FAILED;
}

enum exit_status link_run(const struct link_options *options)
{
	struct link *l = calloc(1, sizeof(*l));
	enum exit_status status = EXIT_FAILED;
	int r = -ENOMEM;

	if (l) {
		l->options = options;
		l->channel = options->channel;
		l->table = urb_table_new();
		if (l->table)
			r = link_start(l);
	}
	if (r == 0) {
		loop_run(l->loop);
		status = report(l);
	} else {
		log_error("%s: cannot start: %s", options->who, strerror(-r));
	}
	if (l) {
		link_end_commands(l);
		channel_watch_stop(&l->watch);
		loop_watch_stop(l->vhci_watch);
		loop_free(l->loop);
		urb_table_free(l->table);
	}
	/* First vhci's end, so that the port is free at once. */
	(void)close(options->vhci_fd);
	/* The loop's watchdog is gone; a peer's bell may hold us up. */
	(void)alarm(STUCK_S);
	if (status == EXIT_OK || status == EXIT_NO_DEVICE)
		channel_finish(options->channel, clock_ms() + FINISH_LIMIT_MS);
	(void)alarm(0);
	channel_free(options->channel);
	free(l);
	return status;
}
