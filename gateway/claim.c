/* SPDX-License-Identifier: Apache-2.0 */
/* See claim.h. */
#include "gateway/claim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "gateway/ipc.h"
#include "gateway/session_note.h"
#include "vchan-transport/log.h"

#define SUFFIX     ".lock"
#define SETTLED    " settled\n"
#define PATH_BYTES 512
#define SYSFS      "/sys"

/* Opens and locks: the descriptor, -EBUSY if it is locked, or -errno. */
static int lock_file(const char *path, int flags)
{
	struct stat st;

	/* A sweep may remove the file between open and flock: try anew. */
	for (int i = 0; i < 3; i++) {
		int fd = open(path, flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW,
			      0600);
		int r;

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			r = errno == EWOULDBLOCK ? -EBUSY : -errno;
			(void)close(fd);
			return r;
		}
		if (fstat(fd, &st) == 0 && st.st_nlink > 0)
			return fd;
		(void)close(fd);
	}
	return -EBUSY;
}

/*
 * A manager that was killed in the middle of starting a session has left a
 * child that holds the lock until it reaches exec.
 */
static int lock_patiently(const char *path)
{
	const struct timespec pause = { .tv_nsec = 20000000 };
	int fd = lock_file(path, O_CREAT);

	for (int i = 0; fd == -EBUSY && i < 50; i++) {
		(void)nanosleep(&pause, NULL);
		fd = lock_file(path, O_CREAT);
	}
	return fd;
}

static int make_dir(const char *path)
{
	struct stat st;

	if (mkdir(path, 0755) == 0)
		(void)chmod(path, 0755); /* the umask keeps everybody out */
	else if (errno != EEXIST)
		return -errno;
	if (lstat(path, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		return -EPERM;
	return 0;
}

int claim_own_dir(const char *dir, int *ret_fd)
{
	char path[PATH_BYTES];
	int r = make_dir(dir);
	int fd;

	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/manager.pid", dir);
	fd = lock_patiently(path);
	if (fd < 0)
		return fd;
	/* For people; what counts is the lock. */
	if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

/* As lock_file; held, too, as long as the process is alive that was given it. */
static int lock_claim(const char *dir, const char *busid, int flags)
{
	char path[PATH_BYTES];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s" SUFFIX, dir, busid);
	fd = lock_file(path, flags);
	if (fd < 0 || !session_note_is_alive(dir, busid))
		return fd;
	(void)close(fd);
	return -EBUSY;
}

int claim_take(const char *dir, const char *busid, int *ret_fd)
{
	int fd = lock_claim(dir, busid, O_CREAT);

	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

struct note {
	unsigned devnum; /* 0: a virtual device, or another gateway's */
	unsigned configuration;
	bool is_settled; /* the session has put the device back */
};

static struct note read_note(int fd)
{
	struct note note = { 0 };
	char text[64];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	char *end;

	text[n > 0 ? n : 0] = '\0';
	note.devnum = (unsigned)strtoul(text, &end, 10);
	note.configuration = (unsigned)strtoul(end, &end, 10);
	note.is_settled = strcmp(end, SETTLED) == 0;
	return note;
}

/* To be settled a note only grows, so it needs no truncating. */
static int write_note(int fd, const struct note *note)
{
	char text[64];
	int len = snprintf(text, sizeof(text), "%u %u%s", note->devnum,
			   note->configuration,
			   note->is_settled ? SETTLED : "\n");

	return pwrite(fd, text, (size_t)len, 0) == len ? 0 : -EIO;
}

int claim_note(int fd, unsigned devnum, unsigned configuration)
{
	const struct note found = { .devnum = devnum,
				    .configuration = configuration };
	struct note noted = read_note(fd);

	if (noted.devnum == devnum && !noted.is_settled)
		return 0;
	if (ftruncate(fd, 0) < 0)
		return -errno;
	return write_note(fd, &found);
}

void claim_settle(int fd)
{
	struct note note = read_note(fd);

	if (note.devnum == 0)
		return;
	note.is_settled = true;
	/* Without it the device is reset once more, which does no harm. */
	(void)write_note(fd, &note);
}

/* ---- putting back ---- */

static int write_at(int dir_fd, const char *name, const char *text)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		r = -errno;
	(void)close(fd);
	return r;
}

static unsigned read_number_at(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	char text[32];
	ssize_t n;

	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	(void)close(fd);
	return (unsigned)strtoul(text, NULL, 10);
}

static bool has_driver(int dir_fd, const char *interface)
{
	char path[PATH_BYTES];

	(void)snprintf(path, sizeof(path), "%s/driver", interface);
	return faccessat(dir_fd, path, F_OK, 0) == 0;
}

/* Offers each interface ("1-1:1.0") without a driver to the drivers. */
static int probe_interfaces(const char *sysfs, const char *busid, DIR *device)
{
	char probe[PATH_BYTES];
	size_t len = strlen(busid);
	int num_probed = 0;
	const struct dirent *e;

	(void)snprintf(probe, sizeof(probe), "%s/bus/usb/drivers_probe", sysfs);
	while ((e = readdir(device))) {
		if (strncmp(e->d_name, busid, len) != 0 ||
		    e->d_name[len] != ':' ||
		    has_driver(dirfd(device), e->d_name))
			continue;
		/* That no driver wants it is an answer, not a failure. */
		(void)write_at(AT_FDCWD, probe, e->d_name);
		num_probed += has_driver(dirfd(device), e->d_name);
	}
	return num_probed;
}

int claim_put_back(const char *sysfs, const char *busid, unsigned devnum,
		   unsigned configuration)
{
	char path[PATH_BYTES];
	char text[16];
	int num_changed = 0;
	DIR *device;
	int r = 0;

	(void)snprintf(path, sizeof(path), "%s/bus/usb/devices/%s", sysfs,
		       busid);
	device = opendir(path);
	if (!device)
		return errno == ENOENT ? 0 : -errno;
	if (read_number_at(dirfd(device), "devnum") != devnum)
		goto out;
	if (configuration != 0 &&
	    read_number_at(dirfd(device), "bConfigurationValue") !=
		    configuration) {
		(void)snprintf(text, sizeof(text), "%u", configuration);
		r = write_at(dirfd(device), "bConfigurationValue", text);
		if (r < 0)
			goto out;
		num_changed++;
	}
	num_changed += probe_interfaces(sysfs, busid, device);
	r = num_changed;
out:
	(void)closedir(device);
	return r;
}

/* ---- the sweep ---- */

/*
 * A killed session may have left the device in the middle of a command, which
 * its driver would get the rest of.
 */
static void reset_device(const char *busid, const struct note *note)
{
	char path[PATH_BYTES];
	unsigned busnum;
	int dir_fd;
	int fd;

	(void)snprintf(path, sizeof(path), SYSFS "/bus/usb/devices/%s", busid);
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || read_number_at(dir_fd, "devnum") != note->devnum)
		return;
	busnum = read_number_at(dir_fd, "busnum");
	(void)snprintf(path, sizeof(path), "/dev/bus/usb/%03u/%03u", busnum,
		       note->devnum);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, USBDEVFS_RESET) < 0)
		log_warn("device %s: cannot be reset: %s", busid,
			 strerror(errno));
}

/* In the child: holds the claim and nothing else of the manager's. */
static void __attribute__((noreturn))
put_back_and_exit(int claim_fd, const char *path, const char *busid)
{
	struct note note = { 0 };
	int r;

	if (claim_fd > 3)
		(void)close_range(3, (unsigned)claim_fd - 1, 0);
	(void)close_range((unsigned)claim_fd + 1, ~0u, 0);
	note = read_note(claim_fd);
	if (!note.is_settled)
		reset_device(busid, &note);
	r = claim_put_back(SYSFS, busid, note.devnum, note.configuration);
	if (r < 0)
		log_error("device %s: cannot be put back as it was found: %s; "
			  "unplug it and plug it in again",
			  busid, strerror(-r));
	else if (r > 0)
		log_info("device %s: put back as it was found", busid);
	(void)unlink(path);
	_exit(0);
}

/* 1 if the claim is held, by a session or from now on by a child. */
static unsigned sweep_one(const char *dir, const char *busid)
{
	int fd = lock_claim(dir, busid, 0);
	char path[PATH_BYTES];
	pid_t pid;

	if (fd < 0)
		return fd == -EBUSY;
	(void)snprintf(path, sizeof(path), "%s/%s" SUFFIX, dir, busid);
	session_note_remove(dir, busid);
	if (read_note(fd).devnum == 0) {
		(void)unlink(path);
		(void)close(fd);
		return 0;
	}
	pid = ipc_fork();
	if (pid == 0)
		put_back_and_exit(fd, path, busid);
	if (pid < 0)
		log_error("device %s: cannot be put back yet: fork: %s; it is "
			  "tried again",
			  busid, strerror(errno));
	(void)close(fd);
	return 1;
}

unsigned claim_sweep(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned num_held = 0;
	const struct dirent *e;

	if (!d)
		return 0;
	while ((e = readdir(d))) {
		size_t len = strlen(e->d_name);
		char busid[USBIP_BUSID_BYTES];

		if (len <= strlen(SUFFIX) ||
		    strcmp(e->d_name + len - strlen(SUFFIX), SUFFIX) != 0)
			continue;
		len -= strlen(SUFFIX);
		if (len >= sizeof(busid))
			continue;
		memcpy(busid, e->d_name, len);
		busid[len] = '\0';
		num_held += sweep_one(dir, busid);
	}
	(void)closedir(d);
	return num_held;
}
