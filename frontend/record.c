/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/record.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontend/sysfs.h"
#include "frontend/vhci.h"

#define LINE_BYTES (ADDRESS_TEXT_CAP + 8 + USBIP_BUSID_BYTES + 4)

/* Stock `usbip detach` removes the folder; it may go at any moment. */
#define WRITE_ATTEMPTS 8

static void path_of(char path[SYSFS_PATH_BYTES], const char *dir, uint32_t port)
{
	(void)snprintf(path, SYSFS_PATH_BYTES, "%s/port%u", dir, port);
}

void record_set(struct record *ret_record, const struct address *gateway,
		const char *busid)
{
	const char *kind = address_kind_name(gateway->kind);
	struct record *r = ret_record;
	unsigned port = gateway->port ? gateway->port : ADDRESS_PORT_USBIP;

	if (gateway->kind == ADDRESS_TCP)
		(void)snprintf(r->host, sizeof(r->host), "%s", gateway->host);
	else if (gateway->kind == ADDRESS_VSOCK)
		(void)snprintf(r->host, sizeof(r->host), "%s:%u", kind,
			       gateway->cid);
	else
		(void)snprintf(r->host, sizeof(r->host), "%s:%s", kind,
			       gateway->host);
	(void)snprintf(r->service, sizeof(r->service), "%u", port);
	(void)snprintf(r->busid, sizeof(r->busid), "%s", busid);
	for (char *at = r->host; *at; at++) {
		if (!isgraph((unsigned char)*at))
			*at = '_';
	}
}

static int open_for_writing(const char *dir, const char *path)
{
	int fd;

	for (unsigned i = 0; i < WRITE_ATTEMPTS; i++) {
		if (mkdir(dir, 0700) < 0 && errno != EEXIST)
			return -errno;
		fd = open(path,
			  O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
			  0700);
		if (fd >= 0)
			return fd;
		if (errno != ENOENT)
			return -errno;
	}
	return -ENOENT;
}

static int write_line(int fd, const char *line)
{
	size_t length = strlen(line);
	ssize_t n = write(fd, line, length);

	if (n < 0)
		return -errno;
	return (size_t)n == length ? 0 : -ENOSPC;
}

static struct record_id id_of(const struct stat *st)
{
	return (struct record_id){ .device = st->st_dev,
				   .inode = st->st_ino,
				   .written = st->st_mtim };
}

int record_write(const char *dir, uint32_t port, const struct record *record,
		 struct record_id *ret_id)
{
	char path[SYSFS_PATH_BYTES];
	char line[LINE_BYTES];
	struct stat st;
	int fd;
	int r;

	path_of(path, dir, port);
	(void)snprintf(line, sizeof(line), "%s %s %s\n", record->host,
		       record->service, record->busid);
	fd = open_for_writing(dir, path);
	if (fd < 0)
		return fd;
	r = write_line(fd, line);
	if (r == 0 && fstat(fd, &st) < 0)
		r = -errno;
	(void)close(fd);
	if (r == 0)
		*ret_id = id_of(&st);
	return r;
}

static bool take_word(char **at, char *word, size_t cap, char end)
{
	char *stop = strchr(*at, end);
	size_t length;

	if (!stop)
		return false;
	length = (size_t)(stop - *at);
	if (length == 0 || length >= cap)
		return false;
	memcpy(word, *at, length);
	word[length] = '\0';
	*at = stop + 1;
	return true;
}

int record_read(const char *dir, uint32_t port, struct record *ret_record)
{
	struct record record;
	char name[24];
	char line[LINE_BYTES];
	char *at = line;
	ssize_t n;

	(void)snprintf(name, sizeof(name), "port%u", port);
	n = sysfs_read(dir, name, line, sizeof(line));
	if (n < 0)
		return (int)n;
	if (!take_word(&at, record.host, sizeof(record.host), ' ') ||
	    !take_word(&at, record.service, sizeof(record.service), ' ') ||
	    !take_word(&at, record.busid, sizeof(record.busid), '\n'))
		return -EBADMSG;
	*ret_record = record;
	return 0;
}

int record_identify(const char *dir, uint32_t port, struct record_id *ret_id)
{
	char path[SYSFS_PATH_BYTES];
	struct stat st;

	path_of(path, dir, port);
	if (lstat(path, &st) < 0)
		return -errno;
	*ret_id = id_of(&st);
	return 0;
}

bool record_is(const char *dir, uint32_t port, const struct record_id *id)
{
	char path[SYSFS_PATH_BYTES];
	struct stat st;

	path_of(path, dir, port);
	return lstat(path, &st) == 0 && st.st_dev == id->device &&
	       st.st_ino == id->inode &&
	       st.st_mtim.tv_sec == id->written.tv_sec &&
	       st.st_mtim.tv_nsec == id->written.tv_nsec;
}

void record_remove(const char *dir, uint32_t port)
{
	char path[SYSFS_PATH_BYTES];

	path_of(path, dir, port);
	(void)unlink(path);
	(void)rmdir(dir); /* stays while there are others */
}

static bool is_old(const char *dir, uint32_t port, unsigned min_age_ms)
{
	char path[SYSFS_PATH_BYTES];
	struct timespec now;
	struct stat st;
	int64_t age_ms;

	path_of(path, dir, port);
	if (lstat(path, &st) < 0)
		return false;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	age_ms = ((int64_t)now.tv_sec - st.st_mtim.tv_sec) * 1000 +
		 ((int64_t)now.tv_nsec - st.st_mtim.tv_nsec) / 1000000;
	return age_ms >= (int64_t)min_age_ms;
}

int record_sweep(const char *dir, const char *vhci_dir, unsigned min_age_ms)
{
	struct vhci_ports ports;
	struct dirent *entry;
	int removed = 0;
	DIR *folder;
	int r = vhci_read(vhci_dir, &ports);

	if (r < 0)
		return r;
	folder = opendir(dir);
	if (!folder) {
		vhci_done(&ports);
		return errno == ENOENT ? 0 : -errno;
	}
	while ((entry = readdir(folder))) {
		const struct vhci_port *port;
		const char *end;
		uint32_t number;

		if (strncmp(entry->d_name, "port", 4) != 0)
			continue;
		end = sysfs_scan_number(entry->d_name + 4, 10, &number);
		if (!end || *end != '\0')
			continue;
		port = vhci_find(&ports, number);
		if (port && port->state == VHCI_FREE &&
		    is_old(dir, number, min_age_ms)) {
			record_remove(dir, number);
			removed++;
		}
	}
	(void)closedir(folder);
	vhci_done(&ports);
	return removed;
}
