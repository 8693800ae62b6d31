/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/vchan_ends.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vchan-transport/channel_vchan.h"

uint64_t vchan_soon(void)
{
	return clock_ms() + VCHAN_LIMIT_MS;
}

void vchan_as_domain(unsigned domid)
{
	char number[12];
	char path[256];

	(void)snprintf(number, sizeof(number), "%u", domid);
	(void)snprintf(path, sizeof(path), "%s/dom%u", getenv("FAKE_XEN_DIR"),
		       domid);
	assert_int_equal(setenv("FAKE_XEN_DOMID", number, 1), 0);
	assert_int_equal(setenv("XENSTORED_PATH", path, 1), 0);
}

void vchan_next_paths(char server[static 64], char client[static 64])
{
	static unsigned last;

	last = (last + 1) % 64;
	(void)snprintf(server, 64, "data/xusbip/%u/%u", VCHAN_GUEST, last);
	(void)snprintf(client, 64, "/local/domain/%u/data/xusbip/%u/%u",
		       VCHAN_GATEWAY, VCHAN_GUEST, last);
}

int vchan_serve(size_t ring_bytes, const char *path, struct channel **ret)
{
	char why[CHANNEL_WHY_BYTES] = "";
	int r;

	vchan_as_domain(VCHAN_GATEWAY);
	r = channel_vchan_serve(VCHAN_GUEST, path, ring_bytes, vchan_soon(),
				ret, why);
	if (r < 0)
		print_message("serve: %s\n", why);
	return r;
}

int vchan_join(const char *path, int life_fd, struct channel **ret)
{
	char why[CHANNEL_WHY_BYTES] = "";
	int r;

	vchan_as_domain(VCHAN_GUEST);
	r = channel_vchan_join(VCHAN_GATEWAY, path, life_fd, ret, why);
	if (r < 0)
		print_message("join: %s\n", why);
	return r;
}

/* Takes the events that opening made. */
static void calm(struct channel *c)
{
	struct channel_fd fds[CHANNEL_MAX_FDS];
	struct pollfd polled;

	(void)channel_fds(c, CHANNEL_READ, fds);
	polled = (struct pollfd){ fds[0].fd, POLLIN, 0 };
	while (poll(&polled, 1, 0) > 0)
		(void)channel_wake(c, fds[0].fd);
}

int vchan_open_ends(size_t ring_bytes, struct vchan_ends *ret_ends)
{
	char server[64];
	char client[64];
	int life[2];
	int r;

	vchan_next_paths(server, client);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, life) < 0)
		return -errno;
	r = vchan_serve(ring_bytes, server, &ret_ends->server);
	if (r == 0)
		r = vchan_join(client, life[0], &ret_ends->client);
	if (r < 0)
		return r;
	ret_ends->warden = life[1];
	calm(ret_ends->server);
	calm(ret_ends->client);
	return 0;
}

void vchan_close_warden(struct vchan_ends *e)
{
	if (e->warden >= 0)
		(void)close(e->warden);
	e->warden = -1;
}

void vchan_close_ends(struct vchan_ends *e)
{
	channel_free(e->server);
	channel_free(e->client);
	vchan_close_warden(e);
	*e = (struct vchan_ends){ .warden = -1 };
}

int vchan_setup(void **state)
{
	struct vchan_ends *e = calloc(1, sizeof(*e));

	if (!e)
		return -1;
	e->warden = -1;
	*state = e;
	return 0;
}

int vchan_teardown(void **state)
{
	struct vchan_ends *e = *state;

	vchan_close_ends(e);
	free(e);
	return 0;
}

struct vchan_interface *vchan_page(struct channel *c)
{
	return ((struct channel_vchan *)c)->vchan->ring;
}

ssize_t vchan_await(struct channel *c)
{
	struct iovec pieces[2];
	ssize_t n;

	while ((n = channel_peek(c, pieces)) == 0) {
		int r = channel_wait(c, CHANNEL_READ, vchan_soon());

		if (r < 0)
			return r;
	}
	return n;
}

pid_t vchan_start_client(const char *path, void (*then)(struct channel *c))
{
	pid_t pid = fork();
	struct channel *c;
	uint8_t bytes[3000] = { 0 };

	if (pid != 0)
		return pid;
	if (vchan_join(path, -1, &c) < 0 ||
	    channel_write_all(c, bytes, sizeof(bytes), vchan_soon()) < 0)
		_exit(1);
	then(c);
	_exit(0);
}
