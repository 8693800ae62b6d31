/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/process_id.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

/* Fields of /proc/PID/stat, see proc(5). */
#define FIELD_NAME  2
#define FIELD_START 22

uint64_t process_started_at(pid_t pid)
{
	char path[48];
	char text[512];
	char *at;
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	(void)close(fd);
	text[n > 0 ? n : 0] = '\0';
	/* The name may hold anything but ends with the last one. */
	at = strrchr(text, ')');
	for (int field = FIELD_NAME; at && field < FIELD_START; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : 0;
}

/* Whose start is it? Only of one that lives afterwards was it read surely. */
static int check(int pidfd, pid_t pid, uint64_t started_at)
{
	struct pollfd end = { .fd = pidfd, .events = POLLIN };
	uint64_t found = process_started_at(pid);
	int n = poll(&end, 1, 0);

	if (n < 0)
		return -errno;
	if (n > 0)
		return -ESRCH;
	if (found == 0 || started_at == 0)
		return -EIO;
	return found == started_at ? 0 : -ESRCH;
}

int process_open(pid_t pid, uint64_t started_at, int *ret_pidfd)
{
	int pidfd = pidfd_open(pid, 0);
	int r;

	/* It is no number, or another process's thread has it by now. */
	if (pidfd < 0 && (errno == EINVAL || errno == ENOENT))
		return -ESRCH;
	if (pidfd < 0)
		return -errno;
	r = check(pidfd, pid, started_at);
	if (r < 0)
		(void)close(pidfd);
	else
		*ret_pidfd = pidfd;
	return r;
}

bool process_is_over(pid_t pid, uint64_t started_at)
{
	int pidfd = -1;
	int r = process_open(pid, started_at, &pidfd);

	if (r == 0)
		(void)close(pidfd);
	return r == -ESRCH;
}
