/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sysfs.h - attributes of the kernel as text: one small file each, read or
 * written in one call.
 */
#ifndef SYSFS_H
#define SYSFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The longest path of an attribute, its NUL included. */
#define SYSFS_PATH_BYTES 512

/*
 * Reads dir/name into text, NUL-terminated, what does not fit left out.
 * Returns the length, or -errno.
 */
ssize_t sysfs_read(const char *dir, const char *name, char *text, size_t cap);

/* Writes the text to dir/name in one write: 0 or -errno. */
int sysfs_write(const char *dir, const char *name, const char *text);

/*
 * The attribute as a number in `base` (decimal may have a fraction, which is
 * dropped). False if it is not there or holds anything else.
 */
bool sysfs_read_number(const char *dir, const char *name, int base,
		       uint32_t *ret_value);

/*
 * A number at the start of the text: where it ends, or NULL if there is none
 * or if it is more than 32 bits.
 */
const char *sysfs_scan_number(const char *text, int base, uint32_t *ret_value);

#endif
