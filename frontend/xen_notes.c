/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/xen_notes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontend/sysfs.h"
#include "vchan-transport/address.h"
#include "vchan-transport/import.h"
#include "vchan-transport/xen_guest.h"

#define PATH_BYTES  512
#define LINE_BYTES  (ADDRESS_TEXT_CAP + USBIP_BUSID_BYTES + 16)
#define LINK_PREFIX "link-"

static const char *folder(void)
{
	const char *dir = getenv("XUSBIP_XEN_DIR");

	return dir ? dir : XEN_GUEST_LOCK_DIR;
}

static int make_folder(void)
{
	char path[PATH_BYTES];
	char *last;

	(void)snprintf(path, sizeof(path), "%s", folder());
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return 0;
	last = strrchr(path, '/');
	if (errno != ENOENT || !last)
		return -errno;
	*last = '\0';
	(void)mkdir(path, 0755);
	return mkdir(folder(), 0700) == 0 || errno == EEXIST ? 0 : -errno;
}

/* "BUSID VVVV:PPPP", and a newline perhaps. */
static bool parse(const char *text, struct xen_note *ret_note)
{
	struct xen_note note = { 0 };
	const char *blank = strchr(text, ' ');
	const char *end;
	uint32_t vendor;
	uint32_t product;

	if (!blank || (size_t)(blank - text) >= sizeof(note.busid))
		return false;
	memcpy(note.busid, text, (size_t)(blank - text));
	end = sysfs_scan_number(blank + 1, 16, &vendor);
	if (!end || *end != ':' || vendor > UINT16_MAX)
		return false;
	end = sysfs_scan_number(end + 1, 16, &product);
	if (!end || (*end != '\n' && *end != '\0') || product > UINT16_MAX)
		return false;
	note.vendor = (uint16_t)vendor;
	note.product = (uint16_t)product;
	if (!import_is_busid(note.busid))
		return false;
	*ret_note = note;
	return true;
}

/* ---- what was let go of ---- */

static void held_path(char path[PATH_BYTES], unsigned gateway)
{
	(void)snprintf(path, PATH_BYTES, "%s/held-%u", folder(), gateway);
}

static int write_held(unsigned gateway, const struct xen_note *notes,
		      size_t count)
{
	char path[PATH_BYTES];
	char temporary[PATH_BYTES + 4];
	FILE *file;
	int r = make_folder();

	if (r < 0)
		return r;
	held_path(path, gateway);
	if (count == 0)
		return unlink(path) == 0 || errno == ENOENT ? 0 : -errno;
	(void)snprintf(temporary, sizeof(temporary), "%s.new", path);
	file = fopen(temporary, "we");
	if (!file)
		return -errno;
	for (size_t i = 0; i < count; i++)
		if (fprintf(file, "%s %04x:%04x\n", notes[i].busid,
			    notes[i].vendor, notes[i].product) < 0)
			r = -EIO;
	if (fclose(file) != 0)
		r = -errno;
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0)
		(void)unlink(temporary);
	return r;
}

size_t xen_notes_held(unsigned gateway,
		      struct xen_note ret_notes[static XEN_NOTES_MAX])
{
	char path[PATH_BYTES];
	char line[LINE_BYTES];
	size_t count = 0;
	FILE *file;

	held_path(path, gateway);
	file = fopen(path, "re");
	if (!file)
		return 0;
	while (count < XEN_NOTES_MAX && fgets(line, sizeof(line), file))
		if (parse(line, &ret_notes[count]))
			count++;
	(void)fclose(file);
	return count;
}

int xen_notes_hold(unsigned gateway, const struct xen_note *note)
{
	struct xen_note notes[XEN_NOTES_MAX];
	size_t count = xen_notes_held(gateway, notes);

	for (size_t i = 0; i < count; i++)
		if (strcmp(notes[i].busid, note->busid) == 0)
			return 0;
	if (count == XEN_NOTES_MAX)
		return -ENOSPC;
	notes[count++] = *note;
	return write_held(gateway, notes, count);
}

int xen_notes_drop(unsigned gateway, const char *busid)
{
	struct xen_note notes[XEN_NOTES_MAX];
	size_t count = xen_notes_held(gateway, notes);
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
		if (strcmp(notes[i].busid, busid) != 0)
			notes[kept++] = notes[i];
	return kept == count ? 0 : write_held(gateway, notes, kept);
}

/* ---- links ---- */

/* The locked file, or -errno; who tidies up may remove it in between. */
static int make_link_note(const char *path)
{
	struct stat st;

	for (int i = 0; i < 3; i++) {
		int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
			      0600);

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX) == 0 && fstat(fd, &st) == 0 &&
		    st.st_nlink > 0)
			return fd;
		(void)close(fd);
	}
	return -EBUSY;
}

int xen_notes_add_link(const char *gateway, const struct xen_note *note)
{
	char path[PATH_BYTES];
	int r = make_folder();
	int fd;

	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/" LINK_PREFIX "%d", folder(),
		       (int)getpid());
	fd = make_link_note(path);
	if (fd < 0)
		return fd;
	if (ftruncate(fd, 0) < 0 ||
	    dprintf(fd, "%s %s %04x:%04x\n", gateway, note->busid, note->vendor,
		    note->product) < 0) {
		r = -errno;
		(void)close(fd);
	}
	return r;
}

static bool is_locked(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	bool is_locked;

	if (fd < 0)
		return false;
	is_locked = flock(fd, LOCK_SH | LOCK_NB) < 0;
	(void)close(fd);
	return is_locked;
}

static bool read_link_note(int dir_fd, const char *name, const char *gateway,
			   struct xen_note *ret_note)
{
	size_t length = strlen(gateway);
	char line[LINE_BYTES];
	uint32_t pid;
	ssize_t n;
	int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return false;
	n = read(fd, line, sizeof(line) - 1);
	(void)close(fd);
	if (n <= 0)
		return false;
	line[n] = '\0';
	if (strncmp(line, gateway, length) != 0 || line[length] != ' ' ||
	    !parse(line + length + 1, ret_note) ||
	    !sysfs_scan_number(name + strlen(LINK_PREFIX), 10, &pid))
		return false;
	ret_note->pid = (pid_t)pid;
	return true;
}

size_t xen_notes_links(const char *gateway,
		       struct xen_note ret_notes[static XEN_NOTES_MAX])
{
	DIR *dir = opendir(folder());
	struct dirent *entry;
	size_t count = 0;

	if (!dir)
		return 0;
	while (count < XEN_NOTES_MAX && (entry = readdir(dir))) {
		const char *name = entry->d_name;

		if (strncmp(name, LINK_PREFIX, strlen(LINK_PREFIX)) != 0)
			continue;
		if (!is_locked(dirfd(dir), name))
			(void)unlinkat(dirfd(dir), name, 0);
		else if (read_link_note(dirfd(dir), name, gateway,
					&ret_notes[count]))
			count++;
	}
	(void)closedir(dir);
	return count;
}

/* The lock says that the process is still the one that was noted. */
void xen_notes_end_link(const struct xen_note *note)
{
	char path[PATH_BYTES];
	int pidfd = pidfd_open(note->pid, 0);

	if (pidfd < 0)
		return;
	(void)snprintf(path, sizeof(path), "%s/" LINK_PREFIX "%d", folder(),
		       (int)note->pid);
	if (is_locked(AT_FDCWD, path))
		(void)pidfd_send_signal(pidfd, SIGTERM, NULL, 0);
	(void)close(pidfd);
}
