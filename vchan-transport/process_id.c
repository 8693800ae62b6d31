/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/process_id.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
