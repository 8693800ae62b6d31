/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/link_bench.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MS   5000
#define STEP_MS    5
#define ASLEEP_MS  100
#define SEEN_TIMES 3

static uint64_t soon(void)
{
	return clock_ms() + LIMIT_MS;
}

/* ----------------------------------------------------------------- streams */

void link_bytes_clear(struct link_bytes *s)
{
	s->used = 0;
	s->sent = 0;
	s->got = 0;
}

static uint8_t *put(struct link_bytes *s, size_t n)
{
	uint8_t *at = s->bytes + s->used;

	if (n > sizeof(s->bytes) - s->used)
		abort();
	s->used += n;
	return at;
}

void link_put_header(struct link_bytes *s, const struct usbip_header *h)
{
	usbip_header_encode(put(s, USBIP_HEADER_BYTES), h);
}

void link_put_data(struct link_bytes *s, size_t n)
{
	uint8_t *at = put(s, n);

	for (size_t i = 0; i < n; i++)
		at[i] = (uint8_t)(i * 29 + (i >> 8) * 3 + s->used);
}

void link_put_bytes(struct link_bytes *s, const uint8_t *bytes, size_t n)
{
	memcpy(put(s, n), bytes, n);
}

void link_put_packets(struct link_bytes *s,
		      const struct usbip_iso_packet *packets, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		usbip_iso_encode(put(s, USBIP_ISO_BYTES), &packets[i]);
}

static struct usbip_header submit_header(uint32_t seqnum, uint8_t endpoint,
					 uint32_t length)
{
	return (struct usbip_header){ .command = USBIP_CMD_SUBMIT,
				      .seqnum = seqnum,
				      .devid = LINK_BENCH_DEVID,
				      .direction = endpoint >> 7,
				      .endpoint = endpoint & 0x0f,
				      .submit = { .length = length } };
}

void link_submit_in(struct link_bytes *s, uint32_t seqnum, uint32_t length)
{
	struct usbip_header h = submit_header(seqnum, 0x81, length);

	link_put_header(s, &h);
}

void link_submit_out(struct link_bytes *s, uint32_t seqnum, uint32_t length)
{
	struct usbip_header h = submit_header(seqnum, 0x02, length);

	link_put_header(s, &h);
	link_put_data(s, length);
}

void link_submit_iso(struct link_bytes *s, uint32_t seqnum, uint8_t endpoint,
		     uint32_t length, const struct usbip_iso_packet *packets,
		     uint32_t n)
{
	struct usbip_header h = submit_header(seqnum, endpoint, length);

	h.submit.num_packets = n;
	link_put_header(s, &h);
	if (h.direction == USBIP_DIR_OUT)
		link_put_data(s, length);
	link_put_packets(s, packets, n);
}

void link_unlink(struct link_bytes *s, uint32_t seqnum, uint32_t target)
{
	struct usbip_header h = { .command = USBIP_CMD_UNLINK,
				  .seqnum = seqnum,
				  .devid = LINK_BENCH_DEVID,
				  .unlink_seqnum = target };

	link_put_header(s, &h);
}

void link_ret_submit_out(struct link_bytes *s, uint32_t seqnum, int status,
			 uint32_t actual_length)
{
	struct usbip_header h = {
		.command = USBIP_RET_SUBMIT,
		.seqnum = seqnum,
		.ret_submit = { .status = status,
				.actual_length = actual_length },
	};

	link_put_header(s, &h);
}

void link_ret_submit_in(struct link_bytes *s, uint32_t seqnum, int status,
			uint32_t actual_length)
{
	link_ret_submit_out(s, seqnum, status, actual_length);
	link_put_data(s, actual_length);
}

void link_ret_iso(struct link_bytes *s, uint32_t seqnum, bool is_in,
		  const struct usbip_iso_packet *packets, uint32_t n)
{
	struct usbip_header h = { .command = USBIP_RET_SUBMIT,
				  .seqnum = seqnum,
				  .ret_submit = { .num_packets = n } };

	for (uint32_t i = 0; i < n; i++)
		h.ret_submit.actual_length += packets[i].actual_length;
	link_put_header(s, &h);
	if (is_in)
		link_put_data(s, h.ret_submit.actual_length);
	link_put_packets(s, packets, n);
}

void link_ret_unlink(struct link_bytes *s, uint32_t seqnum, int status)
{
	struct usbip_header h = { .command = USBIP_RET_UNLINK,
				  .seqnum = seqnum,
				  .unlink_status = status };

	link_put_header(s, &h);
}

/* ----------------------------------------------------------------- process */

int link_bench_prepare(struct link_bench *b, bool is_shm)
{
	int fds[2];
	int r;

	b->pid = 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	b->vhci = fds[0];
	b->links_vhci = fds[1];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	if (is_shm) {
		r = channel_shm_serve(fds[0], CHANNEL_MIN_RING_BYTES,
				      &b->gateway);
		return r < 0 ? r
			     : channel_shm_join(fds[1], soon(),
						&b->links_channel);
	}
	r = channel_socket_new(fds[0], &b->gateway);
	return r < 0 ? r : channel_socket_new(fds[1], &b->links_channel);
}

int link_bench_start(struct link_bench *b)
{
	const struct link_options options = { .channel = b->links_channel,
					      .vhci_fd = b->links_vhci,
					      .device = LINK_BENCH_DEVICE,
					      .who = "test" };

	b->pid = fork();
	if (b->pid < 0)
		return -errno;
	if (b->pid == 0) {
		channel_free(b->gateway);
		(void)close(b->vhci);
		_exit((int)link_run(&options));
	}
	channel_free(b->links_channel);
	b->links_channel = NULL;
	(void)close(b->links_vhci);
	b->links_vhci = -1;
	return 0;
}

void link_bench_close(struct link_bench *b)
{
	if (b->pid > 0) {
		(void)kill(b->pid, SIGKILL);
		(void)waitpid(b->pid, NULL, 0);
	}
	(void)close(b->vhci);
	if (b->links_vhci >= 0)
		(void)close(b->links_vhci);
	channel_free(b->gateway);
	channel_free(b->links_channel);
}

int link_bench_wait(struct link_bench *b)
{
	uint64_t limit = soon();
	int status;

	while (waitpid(b->pid, &status, WNOHANG) == 0) {
		if (clock_ms() > limit)
			return -1;
		(void)poll(NULL, 0, 1);
	}
	b->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The letter of proc(5): 'S' while it sleeps. */
static char process_state(pid_t pid)
{
	char path[32];
	char text[256] = "";
	FILE *file;
	const char *end;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return '\0';
	(void)!fread(text, 1, sizeof(text) - 1, file);
	(void)fclose(file);
	end = strrchr(text, ')');
	return end && end[1] == ' ' ? end[2] : '\0';
}

/* Until it has done what there was to do. */
static bool await_sleep(const struct link_bench *b)
{
	uint64_t limit = soon();
	int seen = 0;

	while (seen < SEEN_TIMES) {
		seen = process_state(b->pid) == 'S' ? seen + 1 : 0;
		if (seen == 0 && clock_ms() > limit)
			return false;
	}
	return true;
}

bool link_bench_is_asleep(struct link_bench *b)
{
	struct timespec before;
	struct timespec after;
	clockid_t clock;

	if (!await_sleep(b) || clock_getcpuclockid(b->pid, &clock) != 0)
		return false;
	(void)clock_gettime(clock, &before);
	(void)poll(NULL, 0, ASLEEP_MS);
	(void)clock_gettime(clock, &after);
	return (after.tv_sec - before.tv_sec) * 1000 +
		       (after.tv_nsec - before.tv_nsec) / 1000000 <
	       ASLEEP_MS / 4;
}

bool link_bench_freeze(struct link_bench *b)
{
	int status;

	return await_sleep(b) && kill(b->pid, SIGSTOP) == 0 &&
	       waitpid(b->pid, &status, WUNTRACED) == b->pid &&
	       WIFSTOPPED(status);
}

void link_bench_thaw(struct link_bench *b)
{
	(void)kill(b->pid, SIGCONT);
}

/* ----------------------------------------------------------------- passing */

static bool compare(struct link_bytes *s, const uint8_t *bytes, size_t n)
{
	if (n > s->used - s->got || memcmp(bytes, s->bytes + s->got, n) != 0)
		return false;
	s->got += n;
	return true;
}

/* As much as goes now, but not beyond `until`; how much, or -errno. */
static ssize_t send_some(struct link_bench *b, struct link_bytes *s,
			 bool is_reply, size_t until)
{
	struct iovec v = { s->bytes + s->sent, until - s->sent };
	ssize_t n;

	if (v.iov_len == 0)
		return 0;
	if (is_reply) {
		n = channel_writev(b->gateway, &v, 1);
		channel_flush(b->gateway);
	} else {
		n = send(b->vhci, v.iov_base, v.iov_len,
			 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			n = errno == EAGAIN ? 0 : -errno;
	}
	if (n > 0)
		s->sent += (size_t)n;
	return n;
}

/* What came out, compared; how much, or -errno. */
static ssize_t get_some(struct link_bench *b, struct link_bytes *s,
			bool is_reply)
{
	static uint8_t bytes[65536];
	ssize_t n;

	if (is_reply) {
		n = recv(b->vhci, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0)
			return -EPIPE;
	} else {
		n = channel_read(b->gateway, bytes, sizeof(bytes));
		channel_flush(b->gateway);
	}
	if (n > 0 && !compare(s, bytes, (size_t)n))
		return -EBADMSG;
	return n;
}

/* A moment at most, or until one of the ends is ready. */
static void wait_some(struct link_bench *b)
{
	struct pollfd polled[1 + CHANNEL_MAX_FDS];
	struct channel_fd fds[CHANNEL_MAX_FDS];
	size_t n;

	if (channel_arm(b->gateway, CHANNEL_READ))
		return;
	n = channel_fds(b->gateway, CHANNEL_READ, fds);
	polled[0] = (struct pollfd){ b->vhci, POLLIN, 0 };
	for (size_t i = 0; i < n; i++)
		polled[1 + i] = (struct pollfd){ fds[i].fd, fds[i].events, 0 };
	(void)poll(polled, 1 + n, STEP_MS);
	for (size_t i = 0; i < n; i++)
		(void)channel_wake(b->gateway, fds[i].fd);
}

/* Sends up to `until` and reads all that comes of it, at least `at_least`. */
static bool pass(struct link_bench *b, struct link_bytes *s, bool is_reply,
		 size_t until, size_t at_least)
{
	uint64_t limit = soon();

	while (s->sent < until || s->got < at_least) {
		ssize_t sent = send_some(b, s, is_reply, until);
		ssize_t got = get_some(b, s, is_reply);

		if (sent < 0 || clock_ms() > limit)
			return false;
		/* The link may end as soon as it has what it was sent. */
		if (got < 0)
			return s->sent >= until && s->got >= at_least;
		if (sent == 0 && got == 0)
			wait_some(b);
	}
	return true;
}

/* Sends until nothing is taken any more, although the link sleeps. */
static bool fill(struct link_bench *b, struct link_bytes *s, bool is_reply)
{
	uint64_t limit = soon();
	ssize_t n;

	do {
		do
			n = send_some(b, s, is_reply, s->used);
		while (n > 0);
		if (n < 0 || clock_ms() > limit || !await_sleep(b))
			return false;
		n = send_some(b, s, is_reply, s->used);
	} while (n > 0);
	return n == 0;
}

static void rewind_bytes(struct link_bytes *s)
{
	s->sent = 0;
	s->got = 0;
}

bool link_bench_pass_commands(struct link_bench *b, struct link_bytes *s)
{
	rewind_bytes(s);
	return pass(b, s, false, s->used, s->used);
}

bool link_bench_pass_replies(struct link_bench *b, struct link_bytes *s)
{
	rewind_bytes(s);
	return pass(b, s, true, s->used, s->used);
}

static bool pass_cut(struct link_bench *b, struct link_bytes *s, bool is_reply,
		     size_t cut)
{
	rewind_bytes(s);
	return pass(b, s, is_reply, cut < s->used ? cut : s->used, 0) &&
	       await_sleep(b) && pass(b, s, is_reply, s->used, s->used);
}

bool link_bench_pass_commands_cut(struct link_bench *b, struct link_bytes *s,
				  size_t cut)
{
	return pass_cut(b, s, false, cut);
}

bool link_bench_pass_replies_cut(struct link_bench *b, struct link_bytes *s,
				 size_t cut)
{
	return pass_cut(b, s, true, cut);
}

bool link_bench_queue_commands(struct link_bench *b, struct link_bytes *s)
{
	ssize_t n;

	const int bytes = 1 << 20;

	(void)setsockopt(b->vhci, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	rewind_bytes(s);
	do
		n = send_some(b, s, false, s->used);
	while (n > 0);
	return n == 0;
}

bool link_bench_stall_commands(struct link_bench *b, struct link_bytes *s)
{
	return fill(b, s, false) && pass(b, s, false, s->used, s->used);
}

bool link_bench_fill_commands(struct link_bench *b, struct link_bytes *s)
{
	rewind_bytes(s);
	return fill(b, s, false);
}

bool link_bench_fill_replies(struct link_bench *b, struct link_bytes *s)
{
	rewind_bytes(s);
	return fill(b, s, true);
}

bool link_bench_stall_replies(struct link_bench *b, struct link_bytes *s)
{
	return link_bench_fill_replies(b, s) &&
	       pass(b, s, true, s->used, s->used);
}

/* Without a look at what comes of it. */
static bool send_all(struct link_bench *b, struct link_bytes *s, bool is_reply)
{
	uint64_t limit = soon();

	rewind_bytes(s);
	while (s->sent < s->used) {
		ssize_t n = send_some(b, s, is_reply, s->used);

		if (n < 0 || clock_ms() > limit)
			return false;
		if (n == 0)
			wait_some(b);
	}
	return true;
}

bool link_bench_send_all(struct link_bench *b, struct link_bytes *s)
{
	return send_all(b, s, false);
}

bool link_bench_reply_all(struct link_bench *b, struct link_bytes *s)
{
	return send_all(b, s, true);
}

bool link_bench_expect_commands(struct link_bench *b, struct link_bytes *s)
{
	return pass(b, s, false, s->used, s->used);
}

/* The gateway may be gone by now, so it is not waited for. */
bool link_bench_expect_replies(struct link_bench *b, struct link_bytes *s)
{
	uint64_t limit = soon();

	while (s->got < s->used) {
		struct pollfd polled = { b->vhci, POLLIN, 0 };

		if (get_some(b, s, true) < 0 || clock_ms() > limit)
			return false;
		if (s->got < s->used)
			(void)poll(&polled, 1, STEP_MS);
	}
	return true;
}

bool link_bench_is_silent(struct link_bench *b)
{
	struct link_bytes *nothing = calloc(1, sizeof(*nothing));
	bool is_silent;

	is_silent = nothing && await_sleep(b) &&
		    get_some(b, nothing, true) == 0 &&
		    get_some(b, nothing, false) == 0;
	free(nothing);
	return is_silent;
}

void link_bench_lose_gateway(struct link_bench *b)
{
	channel_free(b->gateway);
	b->gateway = NULL;
}

int link_bench_gateway_end(struct link_bench *b)
{
	uint8_t byte;

	return channel_read_all(b->gateway, &byte, 1, soon());
}

bool link_bench_vhci_ended(struct link_bench *b)
{
	struct pollfd polled = { b->vhci, POLLIN, 0 };
	uint8_t byte;

	return poll(&polled, 1, LIMIT_MS) == 1 &&
	       recv(b->vhci, &byte, 1, MSG_DONTWAIT) == 0;
}
