/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/shm_tap.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vchan-transport/fdpass.h"

#define LIMIT_MS    5000
#define OFFER_FDS   3
#define OFFER_BYTES 64

static int map_memory(struct shm_tap *t, int fd)
{
	void *memory = mmap(NULL, SHM_TAP_BYTES, PROT_READ | PROT_WRITE,
			    MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	t->memory = memory;
	return 0;
}

/* Passes the offer on and looks at it. */
static int tap(struct shm_tap *t, int client)
{
	uint8_t offer[OFFER_BYTES];
	int fds[OFFER_FDS];
	ssize_t n =
		fdpass_recv(t->socks[0], offer, sizeof(offer), fds, OFFER_FDS);
	int r;

	if (n <= 0)
		return -ECONNRESET;
	r = fdpass_send(t->socks[1], offer, (size_t)n, fds, OFFER_FDS);
	if (r == 0)
		r = channel_shm_join(client, clock_ms() + LIMIT_MS, &t->client);
	if (r == 0)
		r = map_memory(t, fds[0]);
	for (size_t i = 0; i < OFFER_FDS; i++)
		(void)close(fds[i]);
	return r;
}

int shm_tap_open(struct shm_tap *t)
{
	int servers[2];
	int clients[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, servers) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, clients) < 0)
		return -errno;
	t->socks[0] = servers[1];
	t->socks[1] = clients[1];
	r = channel_shm_serve(servers[0], CHANNEL_MIN_RING_BYTES, &t->server);
	return r < 0 ? r : tap(t, clients[0]);
}

void shm_tap_close(struct shm_tap *t)
{
	(void)munmap(t->memory, SHM_TAP_BYTES);
	(void)close(t->socks[0]);
	(void)close(t->socks[1]);
}
