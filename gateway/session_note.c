/* SPDX-License-Identifier: Apache-2.0 */
/* See session_note.h. */
#include "gateway/session_note.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vchan-transport/process_id.h"

#define SUFFIX     ".session"
#define PATH_BYTES 192
/* To be raised when the struct, or one in it, becomes another. */
#define VERSION 1

static void note_path(char path[static PATH_BYTES], const char *dir,
		      const char *busid)
{
	(void)snprintf(path, PATH_BYTES, "%s/%s" SUFFIX, dir, busid);
}

static int write_note(const char *path, const struct session_note *note)
{
	int fd = open(path,
		      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		      0600);
	ssize_t n;
	int r = 0;

	if (fd < 0)
		return -errno;
	n = write(fd, note, sizeof(*note));
	if (n != sizeof(*note))
		r = n < 0 ? -errno : -EIO;
	(void)close(fd);
	return r;
}

int session_note_write(const char *dir, const char *busid,
		       struct session_note *note)
{
	char path[PATH_BYTES];
	int r;

	note->version = VERSION;
	note->started_at = process_started_at(note->pid);
	note_path(path, dir, busid);
	r = write_note(path, note);
	if (r < 0)
		(void)unlink(path);
	return r;
}

void session_note_remove(const char *dir, const char *busid)
{
	char path[PATH_BYTES];

	note_path(path, dir, busid);
	(void)unlink(path);
}

/* How many bytes of it there are, or -errno. */
static ssize_t read_note(const char *dir, const char *busid,
			 struct session_note *ret_note)
{
	char path[PATH_BYTES];
	ssize_t n;
	int fd;

	note_path(path, dir, busid);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	n = read(fd, ret_note, sizeof(*ret_note));
	if (n < 0)
		n = -errno;
	(void)close(fd);
	return n;
}

bool session_note_is_alive(const char *dir, const char *busid)
{
	struct session_note note = { 0 };
	ssize_t n = read_note(dir, busid, &note);

	if (n < 0)
		return n != -ENOENT;
	/* Who has been noted by half has been given nothing. */
	return n >= (ssize_t)offsetof(struct session_note, name) &&
	       !process_is_over(note.pid, note.started_at);
}

/* A pidfd of its session; -errno: it is of none that is alive. */
static int find_session(const char *dir, const char *busid,
			struct session_note *ret_note)
{
	int pidfd = -1;
	int r;

	if (read_note(dir, busid, ret_note) != sizeof(*ret_note) ||
	    ret_note->version != VERSION)
		return -ENOENT;
	r = process_open(ret_note->pid, ret_note->started_at, &pidfd);
	return r < 0 ? r : pidfd;
}

void session_note_each(const char *dir, session_note_cb *each, void *arg)
{
	DIR *d = opendir(dir);
	const struct dirent *e;
	struct session_note note = { 0 };

	while (d && (e = readdir(d))) {
		size_t len = strlen(e->d_name);
		char busid[USBIP_BUSID_BYTES];
		int pidfd;

		if (len <= strlen(SUFFIX) ||
		    len - strlen(SUFFIX) >= sizeof(busid) ||
		    strcmp(e->d_name + len - strlen(SUFFIX), SUFFIX) != 0)
			continue;
		len -= strlen(SUFFIX);
		memcpy(busid, e->d_name, len);
		busid[len] = '\0';
		pidfd = find_session(dir, busid, &note);
		if (pidfd < 0)
			continue;
		each(arg, busid, &note, pidfd);
		(void)close(pidfd);
	}
	if (d)
		(void)closedir(d);
}
