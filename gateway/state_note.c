/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/state_note.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vchan-transport/state_file.h"

#define DIR_MODE   0755 /* others keep something there too */
#define NOTE_MODE  0600
#define NAME_BYTES 48

bool state_note_is_uuid(const char *text)
{
	const size_t length = STATE_NOTE_UUID_BYTES - 1;

	return strlen(text) == length &&
	       strspn(text, "0123456789abcdefABCDEF-") == length;
}

/* 0 or -EINVAL: such a guest cannot be known again. */
static int name_note(char name[static NAME_BYTES], const char *kind,
		     const char *uuid)
{
	(void)snprintf(name, NAME_BYTES, "%s-%s", kind, uuid);
	return state_note_is_uuid(uuid) ? 0 : -EINVAL;
}

static int name_path(char path[static STATE_PATH_BYTES], const char *dir,
		     const char *kind, const char *uuid)
{
	char name[NAME_BYTES];
	int r = name_note(name, kind, uuid);

	(void)snprintf(path, STATE_PATH_BYTES, "%s/%s", dir, name);
	return r;
}

int state_note_read(const char *dir, const char *kind, const char *uuid,
		    char *text, size_t cap)
{
	char path[STATE_PATH_BYTES];
	int r = name_path(path, dir, kind, uuid);
	ssize_t n;
	int fd;

	text[0] = '\0';
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	n = read(fd, text, cap);
	if (n < 0)
		r = -errno;
	else if ((size_t)n == cap)
		r = -EFBIG;
	text[r == 0 ? n : 0] = '\0';
	(void)close(fd);
	return r;
}

int state_note_write(const char *dir, const char *kind, const char *uuid,
		     const char *text)
{
	char name[NAME_BYTES];
	int r = name_note(name, kind, uuid);

	if (r == 0)
		r = state_make_folder(dir, DIR_MODE);
	return r < 0 ? r : state_write(dir, name, text, NOTE_MODE);
}

int state_note_remove(const char *dir, const char *kind, const char *uuid)
{
	char path[STATE_PATH_BYTES];
	int r = name_path(path, dir, kind, uuid);

	if (r < 0)
		return r;
	return unlink(path) < 0 ? -errno : 0;
}
