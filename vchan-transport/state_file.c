/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ABOVE_MODE 0755

static int make(const char *dir, mode_t mode)
{
	if (mkdir(dir, mode) < 0)
		return errno == EEXIST ? 0 : -errno;
	return chmod(dir, mode) < 0 ? -errno : 0;
}

int state_make_folder(const char *dir, mode_t mode)
{
	char above[STATE_PATH_BYTES];
	char *last;
	int r = make(dir, mode);

	(void)snprintf(above, sizeof(above), "%s", dir);
	last = strrchr(above, '/');
	if (r != -ENOENT || !last || last == above)
		return r;
	*last = '\0';
	r = make(above, ABOVE_MODE);
	return r < 0 ? r : make(dir, mode);
}

static int write_whole(const char *path, const char *text, mode_t mode)
{
	size_t length = strlen(text);
	int fd = open(path,
		      O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		      mode);
	int r = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, text, length);
	if (n < 0 || fchmod(fd, mode) < 0)
		r = -errno;
	else if ((size_t)n != length)
		r = -ENOSPC;
	(void)close(fd);
	return r;
}

int state_write(const char *dir, const char *name, const char *text,
		mode_t mode)
{
	char path[STATE_PATH_BYTES];
	char made[STATE_PATH_BYTES + 1];
	int r;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)snprintf(made, sizeof(made), "%s~", path);
	r = write_whole(made, text, mode);
	if (r == 0 && rename(made, path) < 0)
		r = -errno;
	if (r < 0)
		(void)unlink(made);
	return r;
}
