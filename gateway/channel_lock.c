/* SPDX-License-Identifier: Apache-2.0 */
/* See channel_lock.h. */
#include "gateway/channel_lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vchan-transport/handshake.h"
#include "vchan-transport/process_id.h"

#define PATH_BYTES 160
#define NOTE_BYTES 256

static void lock_path(char path[static PATH_BYTES], const char *dir,
		      unsigned domid, unsigned channel)
{
	(void)snprintf(path, PATH_BYTES, "%s/xen-%u-%u.channel", dir, domid,
		       channel);
}

static void read_note(int fd, struct channel_note *ret_note)
{
	char text[NOTE_BYTES];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	char *saved = NULL;
	const char *word;
	char *end;

	*ret_note = (struct channel_note){ .pid = 0 };
	text[n > 0 ? n : 0] = '\0';
	ret_note->pid = (pid_t)strtol(text, &end, 10);
	ret_note->started_at = strtoull(end, &end, 10);
	ret_note->epoch = strtoull(end, &end, 16);
	word = strtok_r(end, " \n", &saved);
	if (word)
		(void)snprintf(ret_note->uuid, sizeof(ret_note->uuid), "%s",
			       word);
	word = word ? strtok_r(NULL, " \n", &saved) : NULL;
	if (word)
		(void)snprintf(ret_note->busid, sizeof(ret_note->busid), "%s",
			       word);
	if (process_is_over(ret_note->pid, ret_note->started_at))
		ret_note->pid = 0;
}

/*
 * Opens and locks: the descriptor, -EBUSY if it is held, or -errno. A session
 * that lives holds it, whatever it did to its copy of the descriptor.
 */
static int lock_file(const char *path, int flags)
{
	int fd = open(path, flags | O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct channel_note note;
	int r = -EBUSY;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		read_note(fd, &note);
		if (note.pid == 0)
			return fd;
	} else if (errno != EWOULDBLOCK) {
		r = -errno;
	}
	(void)close(fd);
	return r;
}

/* Its file, for this manager alone: `lock_fd` is the session's, too. */
static int open_to_write(int lock_fd, int flags)
{
	char path[32];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", lock_fd);
	fd = open(path, flags | O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int channel_lock_take(const char *dir, unsigned domid, unsigned channel,
		      int *ret_fd)
{
	char path[PATH_BYTES];
	int note_fd;
	int fd;

	lock_path(path, dir, domid, channel);
	fd = lock_file(path, O_CREAT);
	if (fd < 0)
		return fd;
	/* What it says is of one who has ended. */
	note_fd = open_to_write(fd, O_TRUNC);
	if (note_fd < 0) {
		(void)close(fd);
		return note_fd;
	}
	(void)close(note_fd);
	*ret_fd = fd;
	return 0;
}

void channel_lock_release(int fd)
{
	(void)flock(fd, LOCK_UN);
}

int channel_lock_note(int fd, struct channel_note *note)
{
	char text[NOTE_BYTES];
	int note_fd;
	ssize_t n;
	int len;

	note->started_at = process_started_at(note->pid);
	len = snprintf(text, sizeof(text),
		       "%d %" PRIu64 " %016" PRIx64 " %s %s\n", (int)note->pid,
		       note->started_at, note->epoch, note->uuid, note->busid);
	note_fd = open_to_write(fd, 0);
	if (note_fd < 0)
		return note_fd;
	n = write(note_fd, text, (size_t)len);
	(void)close(note_fd);
	return n == len ? 0 : -EIO;
}

int channel_lock_find(const char *dir, unsigned domid, unsigned channel,
		      struct channel_note *ret_note)
{
	char path[PATH_BYTES];
	int fd;

	lock_path(path, dir, domid, channel);
	fd = lock_file(path, 0);
	if (fd >= 0) {
		(void)unlink(path);
		(void)close(fd);
		return 0;
	}
	if (fd == -ENOENT)
		return 0;
	*ret_note = (struct channel_note){ .pid = 0 };
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0) {
		read_note(fd, ret_note);
		(void)close(fd);
	}
	return 1;
}

void channel_lock_remove(const char *dir, unsigned domid, unsigned channel)
{
	struct channel_note note;

	(void)channel_lock_find(dir, domid, channel, &note);
}

/* "xen-5-3.channel" */
static bool parse_name(const char *name, unsigned *ret_domid,
		       unsigned *ret_channel)
{
	static const char prefix[] = "xen-";
	char *end;

	if (strncmp(name, prefix, strlen(prefix)) != 0)
		return false;
	*ret_domid = (unsigned)strtoul(name + strlen(prefix), &end, 10);
	if (*end != '-')
		return false;
	*ret_channel = (unsigned)strtoul(end + 1, &end, 10);
	return strcmp(end, ".channel") == 0 &&
	       *ret_domid <= HANDSHAKE_MAX_DOMID &&
	       *ret_channel < HANDSHAKE_CHANNELS;
}

void channel_lock_each(const char *dir, channel_lock_cb *each, void *arg)
{
	DIR *d = opendir(dir);
	const struct dirent *e;
	unsigned domid;
	unsigned channel;

	if (!d)
		return;
	while ((e = readdir(d)))
		if (parse_name(e->d_name, &domid, &channel))
			each(arg, domid, channel);
	(void)closedir(d);
}
