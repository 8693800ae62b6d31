/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state_file.h - small files that outlive a process, or tell others about it:
 * each is there whole, or as it was before.
 */
#ifndef STATE_FILE_H
#define STATE_FILE_H

#include <sys/types.h>

#define STATE_PATH_BYTES 512

/* Makes the folder with that mode, and the one above it: 0 or -errno. */
int state_make_folder(const char *dir, mode_t mode);

/* Writes dir/name in place of an older one, whatever the umask: 0 or -errno. */
int state_write(const char *dir, const char *name, const char *text,
		mode_t mode);

#endif
