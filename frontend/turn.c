/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/turn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "vchan-transport/channel.h"
#include "vchan-transport/xen_guest.h"

/* Many may wait on a slow processor: it is not often that they look. */
#define CHECK_MS 200

static int open_place(int dir_fd, unsigned place)
{
	char name[24];
	int fd;

	(void)snprintf(name, sizeof(name), "turn-%u.lock", place);
	fd = openat(dir_fd, name,
		    O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
		    0600);
	return fd < 0 ? -errno : fd;
}

/* The lock that was free, -EWOULDBLOCK, or -errno. */
static int try_places(int fds[TURN_PLACES])
{
	int r = -EWOULDBLOCK;

	for (unsigned i = 0; i < TURN_PLACES && r == -EWOULDBLOCK; i++) {
		r = fds[i];
		if (r >= 0 && flock(fds[i], LOCK_EX | LOCK_NB) < 0)
			r = -errno;
	}
	return r;
}

int turn_take(uint64_t deadline_ms)
{
	int fds[TURN_PLACES];
	int dir_fd = xen_guest_open_dir();
	int r;

	if (dir_fd < 0)
		return dir_fd;
	for (unsigned i = 0; i < TURN_PLACES; i++)
		fds[i] = open_place(dir_fd, i);
	(void)close(dir_fd);
	while ((r = try_places(fds)) == -EWOULDBLOCK) {
		if (clock_ms() >= deadline_ms) {
			r = -ETIMEDOUT;
			break;
		}
		(void)poll(NULL, 0, CHECK_MS);
	}
	for (unsigned i = 0; i < TURN_PLACES; i++)
		if (fds[i] >= 0 && fds[i] != r)
			(void)close(fds[i]);
	return r;
}
