/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/sysfs.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_attribute(const char *dir, const char *name, int flags)
{
	char path[SYSFS_PATH_BYTES];
	int length = snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd;

	if (length < 0 || (size_t)length >= sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

ssize_t sysfs_read(const char *dir, const char *name, char *text, size_t cap)
{
	int fd = open_attribute(dir, name, O_RDONLY);
	size_t used = 0;
	ssize_t n = 1;

	if (fd < 0)
		return fd;
	while (used < cap - 1 && n > 0) {
		n = read(fd, text + used, cap - 1 - used);
		if (n > 0)
			used += (size_t)n;
	}
	if (n < 0)
		n = -errno;
	(void)close(fd);
	if (n < 0)
		return n;
	text[used] = '\0';
	return (ssize_t)used;
}

int sysfs_write(const char *dir, const char *name, const char *text)
{
	int fd = open_attribute(dir, name, O_WRONLY);
	size_t length = strlen(text);
	ssize_t n;
	int r = 0;

	if (fd < 0)
		return fd;
	n = write(fd, text, length);
	if (n < 0)
		r = -errno;
	else if ((size_t)n != length)
		r = -EIO;
	(void)close(fd);
	return r;
}

const char *sysfs_scan_number(const char *text, int base, uint32_t *ret_value)
{
	unsigned long long value;
	char *end;

	while (*text == ' ' || *text == '\t')
		text++;
	if (!isxdigit((unsigned char)*text))
		return NULL;
	errno = 0;
	value = strtoull(text, &end, base);
	if (end == text || errno != 0 || value > UINT32_MAX)
		return NULL;
	*ret_value = (uint32_t)value;
	return end;
}

bool sysfs_read_number(const char *dir, const char *name, int base,
		       uint32_t *ret_value)
{
	char text[64];
	const char *end;
	uint32_t value;

	if (sysfs_read(dir, name, text, sizeof(text)) <= 0)
		return false;
	end = sysfs_scan_number(text, base, &value);
	if (!end || (*end != '\0' && *end != '\n' && *end != '.'))
		return false;
	*ret_value = value;
	return true;
}
