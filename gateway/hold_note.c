/* SPDX-License-Identifier: Apache-2.0 */
/* See hold_note.h. */
#include "gateway/hold_note.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PATH_BYTES 160

static void note_path(char path[static PATH_BYTES], const char *dir,
		      const char *uuid)
{
	(void)snprintf(path, PATH_BYTES, "%s/hold-%s", dir, uuid);
}

int hold_note_write(const char *dir, const char *uuid, uint64_t epoch)
{
	char path[PATH_BYTES];
	char text[24];
	int len = snprintf(text, sizeof(text), "%016" PRIx64 "\n", epoch);
	int r = 0;
	int fd;

	note_path(path, dir, uuid);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	/* What is there already is as long. */
	if (pwrite(fd, text, (size_t)len, 0) != len)
		r = -EIO;
	(void)close(fd);
	return r;
}

uint64_t hold_note_read(const char *dir, const char *uuid)
{
	char path[PATH_BYTES];
	char text[24];
	ssize_t n;
	int fd;

	note_path(path, dir, uuid);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	(void)close(fd);
	text[n > 0 ? n : 0] = '\0';
	return strtoull(text, NULL, 16);
}

void hold_note_remove(const char *dir, const char *uuid)
{
	char path[PATH_BYTES];

	note_path(path, dir, uuid);
	(void)unlink(path);
}
