/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"

static bool is_kept(int fd, const int *keep, size_t num_keep)
{
	for (size_t i = 0; i < num_keep; i++) {
		if (keep[i] == fd)
			return true;
	}
	return false;
}

static void close_others(const int *keep, size_t num_keep)
{
	int highest = STDERR_FILENO;

	for (size_t i = 0; i < num_keep; i++) {
		if (keep[i] > highest)
			highest = keep[i];
	}
	for (int fd = STDERR_FILENO + 1; fd < highest; fd++) {
		if (!is_kept(fd, keep, num_keep))
			(void)close(fd);
	}
	(void)close_range((unsigned)highest + 1, ~0U, 0);
}

void process_detach(const char *name, const int *keep, size_t num_keep)
{
	int null;

	(void)prctl(PR_SET_NAME, name, 0, 0, 0);
	(void)setsid();
	if (chdir("/") < 0)
		log_warn("%s stays in its folder: %s", name, strerror(errno));
	close_others(keep, num_keep);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return;
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		(void)dup2(null, fd);
	(void)close(null);
}

int process_send(int fd, const void *message, size_t bytes)
{
	ssize_t n;

	do
		n = write(fd, message, bytes);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == bytes ? 0 : -EIO;
}

/* 0 when there is something to read, the end included. */
static int wait_readable(int fd, uint64_t deadline_ms)
{
	struct pollfd polled = { .fd = fd, .events = POLLIN };

	for (;;) {
		uint64_t now = clock_ms();
		uint64_t left_ms = now < deadline_ms ? deadline_ms - now : 0;
		int r = poll(&polled, 1,
			     left_ms < INT_MAX ? (int)left_ms : INT_MAX);

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r == 0 && left_ms == 0)
			return -ETIMEDOUT;
	}
}

int process_receive(int fd, void *message, size_t bytes, uint64_t deadline_ms)
{
	ssize_t n;
	int r = wait_readable(fd, deadline_ms);

	if (r < 0)
		return r;
	do
		n = read(fd, message, bytes);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return 0;
	return (size_t)n == bytes ? 1 : -EBADMSG;
}

bool process_has_ended(int fd, uint64_t deadline_ms)
{
	char byte;

	return process_receive(fd, &byte, 1, deadline_ms) == 0;
}
