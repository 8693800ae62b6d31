/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two pumps over one table of URBs in flight.
 *
 * Commands: bytes from vhci gather in a private buffer, headers are judged
 * there, and what is judged (`approved`) is written on as it is, many commands
 * in one piece.
 *
 * Replies: a header is copied out of the channel before it is judged, and the
 * judged copy is what vhci gets, with the data straight from the channel's
 * memory behind it: the peer may change that data under us, but no byte of
 * it decides anything.
 */
#include "frontend/link.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vchan-transport/channel_watch.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/sandbox.h"
#include "vchan-transport/urb_check.h"

#define COMMAND_BYTES    (256u << 10)
#define REPLIES_PER_TURN 64
#define FINISH_LIMIT_MS  1000
#define WATCHDOG_S       30
#define MAX_PACKET_BYTES ((size_t)USBIP_MAX_ISO_PACKETS * USBIP_ISO_BYTES)
_Static_assert(MAX_PACKET_BYTES <= CHANNEL_PEEK_BYTES, "gathered in one piece");

enum link_end {
	LINK_RUNNING,
	LINK_DETACHED,      /* vhci closed its end */
	LINK_STOPPED,       /* SIGTERM */
	LINK_GATEWAY_ENDED, /* in order: unplugged, or the gateway stops */
	LINK_GATEWAY_LOST,
	LINK_BAD_REPLY,   /* the gateway broke the protocol */
	LINK_BAD_COMMAND, /* this side did */
	LINK_VHCI_FAILED,
};

/* Where the next byte of a direction belongs. */
enum pump_stage {
	PUMP_HEADER,
	PUMP_DATA,
	PUMP_PACKETS,
};

/* vhci -> gateway */
struct command_pump {
	enum pump_stage stage;
	struct usbip_header header; /* of the current command */
	size_t data_left;
	size_t written;  /* up to here the channel has it */
	size_t approved; /* up to here it may go */
	size_t used;     /* up to here vhci has sent */
	bool may_read;   /* vhci may have more */
	bool is_blocked; /* the channel has no room */
	uint8_t bytes[COMMAND_BYTES];
};

/* gateway -> vhci */
struct reply_pump {
	enum pump_stage stage;
	struct usbip_header header;
	const struct urb_entry *entry; /* while packets are to come */
	uint32_t num_packets;
	size_t data_left;
	size_t judged_start; /* private bytes that vhci still has to get */
	size_t judged_end;
	bool is_blocked; /* vhci has no room */
	bool has_unread; /* the budget of a turn ended before the bytes did */
	uint8_t judged[MAX_PACKET_BYTES];
};

struct link {
	const struct link_options *options;
	struct channel *channel;
	struct loop *loop;
	struct loop_watch *vhci_watch;
	short vhci_events;
	struct channel_watch watch;
	struct loop_source source;
	struct urb_table *table;
	struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS];
	struct command_pump commands;
	struct reply_pump replies;
	enum link_end end;
	enum urb_verdict verdict;
};

static void end_link(struct link *l, enum link_end why)
{
	if (l->end == LINK_RUNNING)
		l->end = why;
	loop_stop(l->loop);
}

static void refuse(struct link *l, enum link_end why, enum urb_verdict verdict)
{
	if (l->end == LINK_RUNNING)
		l->verdict = verdict;
	end_link(l, why);
}

static bool is_running(const struct link *l)
{
	return l->end == LINK_RUNNING;
}

/* --------------------------------------------------------------- commands */

static size_t unjudged(const struct command_pump *p)
{
	return p->used - p->approved;
}

static void decode_packets(struct link *l, const uint8_t *bytes, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		usbip_iso_decode(&l->packets[i],
				 bytes + (size_t)i * USBIP_ISO_BYTES);
}

static bool has_packets(const struct usbip_header *command)
{
	return command->command == USBIP_CMD_SUBMIT &&
	       urb_is_iso(command->submit.num_packets);
}

/* Notes the current command as in flight. */
static bool note_command(struct link *l, const struct usbip_iso_packet *packets)
{
	struct command_pump *p = &l->commands;
	enum urb_verdict verdict =
		urb_table_note(l->table, &p->header, packets);

	if (verdict == URB_OK)
		return true;
	refuse(l, LINK_BAD_COMMAND, verdict);
	return false;
}

static bool judge_header(struct link *l)
{
	struct command_pump *p = &l->commands;
	enum urb_verdict verdict;

	if (unjudged(p) < USBIP_HEADER_BYTES)
		return false;
	usbip_header_decode(&p->header, p->bytes + p->approved);
	verdict = urb_check_command(&p->header, l->options->devid);
	if (verdict != URB_OK) {
		refuse(l, LINK_BAD_COMMAND, verdict);
		return false;
	}
	p->approved += USBIP_HEADER_BYTES;
	p->data_left = urb_command_payload(&p->header);
	p->stage = PUMP_DATA;
	/* Before any of it leaves: the answer must find it. */
	return has_packets(&p->header) || note_command(l, NULL);
}

static bool judge_data(struct link *l)
{
	struct command_pump *p = &l->commands;
	size_t n = unjudged(p) < p->data_left ? unjudged(p) : p->data_left;

	p->approved += n;
	p->data_left -= n;
	if (p->data_left > 0)
		return false;
	p->stage = has_packets(&p->header) ? PUMP_PACKETS : PUMP_HEADER;
	return true;
}

static bool judge_packets(struct link *l)
{
	struct command_pump *p = &l->commands;
	uint32_t n = p->header.submit.num_packets;
	size_t bytes = (size_t)n * USBIP_ISO_BYTES;
	enum urb_verdict verdict;

	if (unjudged(p) < bytes)
		return false;
	decode_packets(l, p->bytes + p->approved, n);
	verdict = urb_check_packets(l->packets, n, p->header.submit.length);
	if (verdict != URB_OK) {
		refuse(l, LINK_BAD_COMMAND, verdict);
		return false;
	}
	if (!note_command(l, l->packets))
		return false;
	p->approved += bytes;
	p->stage = PUMP_HEADER;
	return true;
}

static void judge_commands(struct link *l)
{
	bool has_more = true;

	while (has_more) {
		switch (l->commands.stage) {
		case PUMP_HEADER:
			has_more = judge_header(l);
			break;
		case PUMP_DATA:
			has_more = judge_data(l);
			break;
		case PUMP_PACKETS:
			has_more = judge_packets(l);
			break;
		}
	}
}

static void write_commands(struct link *l)
{
	struct command_pump *p = &l->commands;
	struct iovec v = { .iov_base = p->bytes + p->written,
			   .iov_len = p->approved - p->written };
	ssize_t n;

	if (v.iov_len == 0)
		return;
	n = channel_writev(l->channel, &v, 1);
	if (n < 0) {
		/* What it said before it went is still to be read. */
		p->may_read = false;
		p->written = p->approved;
		return;
	}
	p->written += (size_t)n;
	p->is_blocked = (size_t)n < v.iov_len;
	if (p->written == p->used) {
		p->written = 0;
		p->approved = 0;
		p->used = 0;
	}
}

/* Moves what is not written yet to the front, so that reading can go on. */
static void make_room(struct command_pump *p)
{
	if (p->written == 0 || COMMAND_BYTES - p->used > COMMAND_BYTES / 4)
		return;
	memmove(p->bytes, p->bytes + p->written, p->used - p->written);
	p->approved -= p->written;
	p->used -= p->written;
	p->written = 0;
}

static bool can_read_commands(const struct link *l)
{
	const struct command_pump *p = &l->commands;

	return p->may_read && !p->is_blocked && p->used < COMMAND_BYTES;
}

static void read_commands(struct link *l)
{
	struct command_pump *p = &l->commands;
	size_t room;
	ssize_t n;

	make_room(p);
	room = COMMAND_BYTES - p->used;
	n = recv(l->options->vhci_fd, p->bytes + p->used, room, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		p->may_read = false;
		return;
	}
	if (n <= 0) {
		end_link(l, n == 0 ? LINK_DETACHED : LINK_VHCI_FAILED);
		return;
	}
	p->may_read = (size_t)n == room;
	p->used += (size_t)n;
	judge_commands(l);
	write_commands(l);
}

/* ---------------------------------------------------------------- replies */

/* Copies `bytes` from the front of what the channel holds. */
static void copy_front(const struct iovec pieces[2], uint8_t *to, size_t bytes)
{
	size_t first = pieces[0].iov_len < bytes ? pieces[0].iov_len : bytes;

	memcpy(to, pieces[0].iov_base, first);
	memcpy(to + first, pieces[1].iov_base, bytes - first);
}

static void drop_front(struct iovec pieces[2], size_t bytes)
{
	for (int i = 0; i < 2; i++) {
		size_t n = pieces[i].iov_len < bytes ? pieces[i].iov_len
						     : bytes;

		pieces[i].iov_base = (uint8_t *)pieces[i].iov_base + n;
		pieces[i].iov_len -= n;
		bytes -= n;
	}
}

static size_t held(const struct iovec pieces[2])
{
	return pieces[0].iov_len + pieces[1].iov_len;
}

static bool judge_reply(struct link *l, struct iovec pieces[2])
{
	struct reply_pump *p = &l->replies;
	uint8_t bytes[USBIP_HEADER_BYTES];
	enum urb_verdict verdict;

	copy_front(pieces, bytes, sizeof(bytes));
	drop_front(pieces, sizeof(bytes));
	channel_consume(l->channel, sizeof(bytes));
	usbip_header_decode(&p->header, bytes);
	verdict = urb_table_check_reply(l->table, &p->header, &p->entry);
	if (verdict != URB_OK) {
		refuse(l, LINK_BAD_REPLY, verdict);
		return false;
	}
	usbip_header_encode(p->judged, &p->header);
	p->judged_start = 0;
	p->judged_end = USBIP_HEADER_BYTES;
	p->data_left = urb_reply_payload(&p->header, p->entry);
	p->num_packets = p->entry->packets ? p->entry->num_packets : 0;
	p->stage = PUMP_DATA;
	if (p->num_packets == 0)
		urb_table_settle(l->table, &p->header);
	return true;
}

static bool judge_reply_packets(struct link *l, struct iovec pieces[2])
{
	struct reply_pump *p = &l->replies;
	size_t bytes = (size_t)p->num_packets * USBIP_ISO_BYTES;
	enum urb_verdict verdict;

	copy_front(pieces, p->judged, bytes);
	drop_front(pieces, bytes);
	channel_consume(l->channel, bytes);
	decode_packets(l, p->judged, p->num_packets);
	verdict = urb_check_reply_packets(p->entry, &p->header, l->packets);
	if (verdict != URB_OK) {
		refuse(l, LINK_BAD_REPLY, verdict);
		return false;
	}
	p->judged_start = 0;
	p->judged_end = bytes;
	urb_table_settle(l->table, &p->header);
	p->stage = PUMP_HEADER;
	return true;
}

/* Sends judged bytes and the data behind them; false: vhci takes no more. */
static bool send_reply(struct link *l, struct iovec pieces[2])
{
	struct reply_pump *p = &l->replies;
	size_t judged = p->judged_end - p->judged_start;
	size_t data = held(pieces);
	struct iovec v[3] = { { p->judged + p->judged_start, judged } };
	struct msghdr msg = { .msg_iov = v, .msg_iovlen = 3 };
	ssize_t n;

	if (p->stage != PUMP_DATA)
		data = 0;
	else if (data > p->data_left)
		data = p->data_left;
	if (judged + data == 0)
		return true;
	v[1] = pieces[0];
	if (v[1].iov_len > data)
		v[1].iov_len = data;
	v[2] = pieces[1];
	v[2].iov_len = data - v[1].iov_len;
	n = sendmsg(l->options->vhci_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == EINTR)
		n = 0;
	if (n < 0 && errno != EAGAIN) {
		end_link(l, LINK_DETACHED);
		return false;
	}
	if (n < 0)
		n = 0;
	p->is_blocked = (size_t)n < judged + data;
	if ((size_t)n < judged) {
		p->judged_start += (size_t)n;
		return false;
	}
	p->judged_start = p->judged_end;
	n -= (ssize_t)judged;
	drop_front(pieces, (size_t)n);
	channel_consume(l->channel, (size_t)n);
	p->data_left -= (size_t)n;
	return !p->is_blocked;
}

/* One step of the replies' pump; false: it needs more bytes, or more room. */
static bool pump_reply(struct link *l, struct iovec pieces[2])
{
	struct reply_pump *p = &l->replies;
	bool is_judged = p->judged_start < p->judged_end;

	if (!is_judged && p->stage == PUMP_HEADER) {
		if (held(pieces) < USBIP_HEADER_BYTES ||
		    !judge_reply(l, pieces))
			return false;
	} else if (!is_judged && p->stage == PUMP_PACKETS) {
		if (held(pieces) < (size_t)p->num_packets * USBIP_ISO_BYTES ||
		    !judge_reply_packets(l, pieces))
			return false;
	}
	if (!send_reply(l, pieces))
		return false;
	if (p->stage == PUMP_DATA && p->data_left > 0)
		return false;
	if (p->stage == PUMP_DATA)
		p->stage = p->num_packets > 0 ? PUMP_PACKETS : PUMP_HEADER;
	return true;
}

static void pump_replies(struct link *l)
{
	struct reply_pump *p = &l->replies;
	struct iovec pieces[2];
	int ended = channel_ended(l->channel);
	ssize_t n = channel_peek(l->channel, pieces);
	bool has_more = true;

	if (n < 0 && !ended)
		ended = (int)n;
	if (n < 0)
		memset(pieces, 0, sizeof(pieces));
	for (int i = 0; i < REPLIES_PER_TURN && has_more && is_running(l); i++)
		has_more = pump_reply(l, pieces);
	p->has_unread = has_more;
	if (!ended || has_more || p->is_blocked || !is_running(l))
		return;
	/* What is left is the beginning of something that will not come. */
	end_link(l,
		 ended == -EPIPE && p->stage == PUMP_HEADER && held(pieces) == 0
			 ? LINK_GATEWAY_ENDED
			 : LINK_GATEWAY_LOST);
}

/* ------------------------------------------------------------------- loop */

static void on_vhci(void *arg, short revents)
{
	struct link *l = arg;

	if (revents & (POLLIN | POLLERR))
		l->commands.may_read = true;
	if (revents & (POLLOUT | POLLERR))
		l->replies.is_blocked = false;
}

static bool watch_vhci(struct link *l)
{
	short events = 0;

	if (!l->commands.is_blocked && l->commands.used < COMMAND_BYTES)
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

	if (!is_running(l))
		return false;
	if (can_read_commands(l) ||
	    (l->replies.has_unread && !l->replies.is_blocked))
		return true;
	if (!watch_vhci(l))
		end_link(l, LINK_VHCI_FAILED);
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
		write_commands(l);
	if (can_read_commands(l))
		read_commands(l);
	if (is_running(l) && !l->replies.is_blocked)
		pump_replies(l);
	channel_flush(l->channel);
}

static void on_terminate(void *arg, int signo)
{
	(void)signo;
	end_link(arg, LINK_STOPPED);
}

static int link_start(struct link *l)
{
	int r = loop_new(&l->loop);

	if (r < 0)
		return r;
	l->vhci_events = POLLIN;
	l->commands.may_read = true;
	l->replies.has_unread = true; /* the import may have brought more */
	r = channel_watch_start(&l->watch, l->loop, l->channel);
	if (r == 0)
		r = loop_watch_fd(l->loop, l->options->vhci_fd, POLLIN, on_vhci,
				  l, &l->vhci_watch);
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
		channel_watch_stop(&l->watch);
		loop_watch_stop(l->vhci_watch);
		loop_free(l->loop);
		urb_table_free(l->table);
	}
	/* First vhci's end, so that the port is free at once. */
	(void)close(options->vhci_fd);
	if (status == EXIT_OK || status == EXIT_NO_DEVICE)
		channel_finish(options->channel, clock_ms() + FINISH_LIMIT_MS);
	channel_free(options->channel);
	free(l);
	return status;
}
