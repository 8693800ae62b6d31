/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/want_note.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vchan-transport/state_file.h"
#include "vchan-transport/usbip.h"

#define DIR_MODE   0755 /* others keep something there too */
#define NOTE_MODE  0600
#define NAME_BYTES 48

/* The file's name; false: such a guest cannot be known again. */
static bool name_note(char name[static NAME_BYTES], const char *uuid)
{
	(void)snprintf(name, NAME_BYTES, "want-%s", uuid);
	return strlen(uuid) == 36 &&
	       strspn(uuid, "0123456789abcdefABCDEF-") == 36;
}

/* Without a file: nothing. */
static int read_note(const char *dir, const char *name,
		     char text[static WANT_NOTE_BYTES])
{
	char path[STATE_PATH_BYTES];
	int r = 0;
	ssize_t n;
	int fd;

	text[0] = '\0';
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	n = read(fd, text, WANT_NOTE_BYTES);
	if (n < 0)
		r = -errno;
	else if (n == WANT_NOTE_BYTES)
		r = -EFBIG;
	else
		text[n] = '\0';
	(void)close(fd);
	return r;
}

static char *find_line(char *text, const char *busid)
{
	size_t length = strlen(busid);

	while (*text) {
		size_t n = strcspn(text, "\n");

		if (n == length && strncmp(text, busid, n) == 0)
			return text;
		text += text[n] ? n + 1 : n;
	}
	return NULL;
}

int want_note_add(const char *dir, const char *uuid, const char *busid)
{
	char name[NAME_BYTES];
	char text[WANT_NOTE_BYTES];
	size_t used;
	int r = name_note(name, uuid) ? read_note(dir, name, text) : -EINVAL;

	if (r < 0 || find_line(text, busid))
		return r;
	used = strlen(text);
	if (strlen(busid) + 3 > sizeof(text) - used)
		return -EFBIG;
	(void)snprintf(text + used, sizeof(text) - used, "%s%s\n",
		       used > 0 && text[used - 1] != '\n' ? "\n" : "", busid);
	r = state_make_folder(dir, DIR_MODE);
	return r < 0 ? r : state_write(dir, name, text, NOTE_MODE);
}

int want_note_remove(const char *dir, const char *uuid, const char *busid)
{
	char path[STATE_PATH_BYTES];
	char name[NAME_BYTES];
	char text[WANT_NOTE_BYTES];
	char *line;
	char *next;
	int r = name_note(name, uuid) ? read_note(dir, name, text) : -ENOENT;

	if (r < 0)
		return r;
	line = find_line(text, busid);
	if (!line)
		return -ENOENT;
	next = line + strlen(busid);
	next += *next == '\n';
	memmove(line, next, strlen(next) + 1);
	if (text[0] != '\0')
		return state_write(dir, name, text, NOTE_MODE);
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return unlink(path) < 0 ? -errno : 0;
}

int want_note_each(const char *dir, const char *uuid, want_note_cb *each,
		   void *arg)
{
	char name[NAME_BYTES];
	char text[WANT_NOTE_BYTES] = "";
	char *rest = text;
	const char *line;
	int r = name_note(name, uuid) ? read_note(dir, name, text) : 0;

	if (r < 0)
		return r;
	while ((line = strsep(&rest, "\n")))
		if (line[0] != '\0' && strlen(line) < USBIP_BUSID_BYTES)
			each(arg, line);
	return 0;
}
