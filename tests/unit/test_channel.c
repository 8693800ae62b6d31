/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What channel.h promises of every kind, asked of those of one machine. Vchan
 * is asked in tests/integration/channel_vchan.c.
 */
#include "vchan-transport/channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fake/channel_promises.h"
#include "tests/fake/tcp_pair.h"

#define LIMIT_MS 5000

static int open_shm(struct channel **ret_a, struct channel **ret_b)
{
	int fds[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	r = channel_shm_serve(fds[0], CHANNEL_MIN_RING_BYTES, ret_a);
	if (r < 0) {
		(void)close(fds[1]);
		return r;
	}
	return channel_shm_join(fds[1], clock_ms() + LIMIT_MS, ret_b);
}

static int open_sockets(const int fds[2], struct channel **ret_a,
			struct channel **ret_b)
{
	int r = channel_socket_new(fds[0], ret_a);

	return r < 0 ? r : channel_socket_new(fds[1], ret_b);
}

static int open_local(struct channel **ret_a, struct channel **ret_b)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	return open_sockets(fds, ret_a, ret_b);
}

static int open_tcp(struct channel **ret_a, struct channel **ret_b)
{
	int fds[2];

	if (tcp_pair(fds) < 0)
		return -errno;
	return open_sockets(fds, ret_a, ret_b);
}

int main(void)
{
	/*
	 * A kernel that closes a dead process's socket says what close(2) says;
	 * and what it does when many end, is enough once.
	 */
	static const struct channel_kind kinds[] = {
		{ "shm", open_shm, -ECONNRESET, 20, true },
		{ "unix socket", open_local, -EPIPE, 4, false },
		{ "tcp", open_tcp, -EPIPE, 4, false },
	};

	return channel_promises_run(kinds, sizeof(kinds) / sizeof(kinds[0]));
}
