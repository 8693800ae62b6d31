/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: bytes from vhci gather in a private buffer, headers are judged
 * there, and what is judged (`approved`) is written on as it is, many commands
 * in one piece.  Long data behind a judged header decides nothing, so it is
 * received straight into the channel's memory where the channel has some.
 *
 * vhci_hcd sends its URBs and then its unlinks, again and again; a URB that is
 * submitted and taken back between the two is unlinked before it is submitted.
 * Such an unlink is held back until its URB has passed: a gateway could but
 * answer that it knows no such URB, and vhci_hcd would end the connection at the
 * answer to it that comes later.
 *
 * Taking bytes out of an AF_UNIX socket wakes whoever sleeps at its other end,
 * and that is vhci_hcd's receiving thread, which has nothing to do then. So
 * short commands are only looked at, and taken with one that comes later.
 */
#include "frontend/link_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/*
 * So much is asked for where a header is awaited: a few commands with little
 * data, but only the beginning of long data.
 */
#define FIRST_BYTES 4096
/* From here on data is worth a system call of its own. */
#define IN_PLACE_BYTES 8192
/* So much that was looked at waits at most, or FIRST_BYTES more. */
#define SEEN_BYTES 2048

static size_t unjudged(const struct command_pump *p)
{
	return p->used - p->approved;
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
	link_refuse(l, LINK_BAD_COMMAND, verdict);
	return false;
}

/* ---- unlinks that are ahead ---- */

/* All have their numbers from one counter, submits leave in its order. */
static bool is_early(const struct command_pump *p)
{
	const struct usbip_header *h = &p->header;

	return h->command == USBIP_CMD_UNLINK &&
	       (int32_t)(h->unlink_seqnum - p->newest) > 0 &&
	       (int32_t)(h->seqnum - h->unlink_seqnum) > 0 &&
	       p->num_early < LINK_MAX_EARLY;
}

/* Takes the header that stands at `approved` out of the bytes. */
static void hold_back(struct command_pump *p)
{
	struct early_unlink *early = &p->early[p->num_early++];
	uint8_t *at = p->bytes + p->approved;

	early->target = p->header.unlink_seqnum;
	memcpy(early->bytes, at, USBIP_HEADER_BYTES);
	p->used -= USBIP_HEADER_BYTES;
	memmove(at, at + USBIP_HEADER_BYTES, p->used - p->approved);
}

/* Puts what waited for this CMD_SUBMIT behind it, to be judged next. */
static void let_follow(struct command_pump *p)
{
	uint8_t *at = p->bytes + p->approved;
	size_t i = 0;

	p->newest = p->header.seqnum;
	while (i < p->num_early && p->early[i].target != p->newest)
		i++;
	if (i == p->num_early)
		return;
	assert(p->used + USBIP_HEADER_BYTES <= sizeof(p->bytes));
	memmove(at + USBIP_HEADER_BYTES, at, p->used - p->approved);
	memcpy(at, p->early[i].bytes, USBIP_HEADER_BYTES);
	p->used += USBIP_HEADER_BYTES;
	p->early[i] = p->early[--p->num_early];
}

static void end_command(struct command_pump *p)
{
	p->stage = PUMP_HEADER;
	if (p->header.command == USBIP_CMD_SUBMIT)
		let_follow(p);
}

/* ---- one command after the other ---- */

static bool judge_header(struct link *l)
{
	struct command_pump *p = &l->commands;
	enum urb_verdict verdict;

	if (unjudged(p) < USBIP_HEADER_BYTES)
		return false;
	usbip_header_decode(&p->header, p->bytes + p->approved);
	verdict =
		urb_check_command(&p->header, usbip_devid(&l->options->device));
	if (verdict != URB_OK) {
		link_refuse(l, LINK_BAD_COMMAND, verdict);
		return false;
	}
	if (is_early(p)) {
		hold_back(p);
		return true;
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
	if (has_packets(&p->header))
		p->stage = PUMP_PACKETS;
	else
		end_command(p);
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
	link_decode_packets(l, p->bytes + p->approved, n);
	verdict = urb_check_packets(l->packets, n, p->header.submit.length);
	if (verdict != URB_OK) {
		link_refuse(l, LINK_BAD_COMMAND, verdict);
		return false;
	}
	if (!note_command(l, l->packets))
		return false;
	p->approved += bytes;
	end_command(p);
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

void link_write_commands(struct link *l)
{
	struct command_pump *p = &l->commands;
	struct iovec v = { .iov_base = p->bytes + p->written,
			   .iov_len = p->approved - p->written };
	ssize_t n;

	if (v.iov_len == 0) {
		/* It was data in place that had no room; there may be some. */
		p->is_blocked = false;
		return;
	}
	n = channel_writev(l->channel, &v, 1);
	if (n == -EPROTO)
		link_end(l, LINK_BAD_CHANNEL);
	if (n < 0) {
		/* What it said before it went is still to be read. */
		p->may_read = false;
		n = (ssize_t)v.iov_len;
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
	if (p->written == 0 || p->used < LINK_COMMAND_BYTES / 4 * 3)
		return;
	memmove(p->bytes, p->bytes + p->written, p->used - p->written);
	p->approved -= p->written;
	p->used -= p->written;
	p->written = 0;
}

bool link_can_read_commands(const struct link *l)
{
	const struct command_pump *p = &l->commands;

	return p->may_read && !p->is_blocked &&
	       p->used - p->written < LINK_COMMAND_BYTES;
}

/* Takes what recv(2) said; false if vhci has no more, for now or for good. */
static bool took(struct link *l, ssize_t n, size_t room)
{
	struct command_pump *p = &l->commands;

	if (n < 0 && errno == EINTR)
		return false;
	if (n < 0 && errno == EAGAIN) {
		p->may_read = false;
		return false;
	}
	if (n <= 0) {
		link_end(l, n == 0 ? LINK_DETACHED : LINK_VHCI_FAILED);
		return false;
	}
	p->may_read = (size_t)n == room || p->is_ending;
	return true;
}

/* Takes what was looked at, and more into `pieces`; as recvmsg(2) of these. */
static ssize_t receive(struct link *l, const struct iovec pieces[2])
{
	struct command_pump *p = &l->commands;
	uint8_t seen[SEEN_BYTES + FIRST_BYTES];
	struct iovec all[3] = { { seen, p->seen }, pieces[0], pieces[1] };
	struct msghdr msg = { .msg_iov = all, .msg_iovlen = 3 };
	ssize_t n = recvmsg(l->options->vhci_fd, &msg, MSG_DONTWAIT);

	if (n <= 0)
		return n;
	if ((size_t)n <= p->seen) {
		p->seen -= (size_t)n;
		errno = EINTR;
		return -1;
	}
	n -= (ssize_t)p->seen;
	p->seen = 0;
	return n;
}

static ssize_t look(struct link *l, void *to, size_t bytes)
{
	struct command_pump *p = &l->commands;
	ssize_t n =
		recv(l->options->vhci_fd, to, bytes, MSG_DONTWAIT | MSG_PEEK);

	if (n > 0)
		p->seen += (size_t)n;
	return n;
}

static void trim(struct iovec pieces[2], size_t bytes)
{
	if (pieces[0].iov_len > bytes)
		pieces[0].iov_len = bytes;
	if (pieces[1].iov_len > bytes - pieces[0].iov_len)
		pieces[1].iov_len = bytes - pieces[0].iov_len;
}

/*
 * Receives long data straight into the channel; false if it cannot be done so,
 * because something else has to leave first or the channel has no memory.
 */
static bool receive_in_place(struct link *l)
{
	struct command_pump *p = &l->commands;
	struct iovec pieces[2] = { 0 };
	size_t room;
	ssize_t n;

	if (p->stage != PUMP_DATA || p->used > 0 ||
	    p->data_left < IN_PLACE_BYTES)
		return false;
	n = channel_reserve(l->channel, pieces);
	if (n < 0)
		return false;
	p->is_blocked = n == 0;
	if (n == 0)
		return true;
	trim(pieces, p->data_left);
	room = pieces[0].iov_len + pieces[1].iov_len;
	n = receive(l, pieces);
	if (!took(l, n, room))
		return true;
	channel_commit(l->channel, (size_t)n);
	p->data_left -= (size_t)n;
	judge_commands(l);
	if (p->used > 0)
		link_write_commands(l);
	return true;
}

void link_start_commands(struct link *l)
{
	struct command_pump *p = &l->commands;
	const int from_the_start = 0;

	p->may_read = true;
	/* Most kernels refuse this to TCP, where taking wakes nobody. */
	p->can_look = setsockopt(l->options->vhci_fd, SOL_SOCKET, SO_PEEK_OFF,
				 &from_the_start, sizeof(from_the_start)) == 0;
}

void link_end_commands(struct link *l)
{
	uint8_t seen[SEEN_BYTES + FIRST_BYTES];

	/* An end with bytes that nobody took would be told as a reset. */
	if (l->commands.seen > 0)
		(void)recv(l->options->vhci_fd, seen, l->commands.seen,
			   MSG_DONTWAIT);
}

void link_read_commands(struct link *l)
{
	struct command_pump *p = &l->commands;
	struct iovec pieces[2] = { 0 };
	size_t room;
	ssize_t n;

	if (receive_in_place(l))
		return;
	make_room(p);
	room = LINK_COMMAND_BYTES - p->used;
	if (p->stage == PUMP_HEADER && room > FIRST_BYTES)
		room = FIRST_BYTES;
	pieces[0] = (struct iovec){ p->bytes + p->used, room };
	if (p->can_look && p->stage == PUMP_HEADER && p->seen < SEEN_BYTES)
		n = look(l, p->bytes + p->used, room);
	else
		n = receive(l, pieces);
	if (!took(l, n, room))
		return;
	p->used += (size_t)n;
	judge_commands(l);
	link_write_commands(l);
}
