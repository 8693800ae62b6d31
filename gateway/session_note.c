/* SPDX-License-Identifier: Apache-2.0 */
/* See session_note.h. */
#include "gateway/session_note.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
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

int session_note_write(const char *dir, const char *busid,
		       struct session_note *note)
{
	char path[PATH_BYTES];
	int r = 0;
	int fd;

	note->version = VERSION;
	note->started_at = process_started_at(note->pid);
	note_path(path, dir, busid);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		  0600);
	if (fd < 0)
		return -errno;
	if (write(fd, note, sizeof(*note)) != sizeof(*note))
		r = -EIO;
	(void)close(fd);
	return r;
}

void session_note_remove(const char *dir, const char *busid)
{
	char path[PATH_BYTES];

	note_path(path, dir, busid);
	(void)unlink(path);
}

/* A pidfd of its session; -1: it is of none that is alive. */
static int find_session(const char *dir, const char *busid,
			struct session_note *ret_note)
{
	char path[PATH_BYTES];
	bool is_whole;
	int fd;

	note_path(path, dir, busid);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -1;
	is_whole = read(fd, ret_note, sizeof(*ret_note)) == sizeof(*ret_note) &&
		   ret_note->version == VERSION;
	(void)close(fd);
	fd = is_whole ? pidfd_open(ret_note->pid, 0) : -1;
	/* Whose number it was when it was opened shows afterwards only. */
	if (fd >= 0 &&
	    process_started_at(ret_note->pid) == ret_note->started_at)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	return -1;
}

void session_note_each(const char *dir, session_note_cb *each, void *arg)
{
	DIR *d = opendir(dir);
	const struct dirent *e;
	struct session_note note;

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
