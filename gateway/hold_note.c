/* SPDX-License-Identifier: Apache-2.0 */
/* See hold_note.h. */
#include "gateway/hold_note.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KIND         "hold"
#define EPOCH_DIGITS 16
/* Its digits, a newline and the NUL. */
#define TEXT_BYTES (EPOCH_DIGITS + 2)

static bool is_older(const struct stat *a, const struct stat *b)
{
	if (a->st_mtim.tv_sec != b->st_mtim.tv_sec)
		return a->st_mtim.tv_sec < b->st_mtim.tv_sec;
	return a->st_mtim.tv_nsec < b->st_mtim.tv_nsec;
}

/* Of the notes of others: how many, and which is the oldest. */
static unsigned count_others(DIR *dir, const char *uuid,
			     char ret_oldest[static STATE_NOTE_UUID_BYTES])
{
	struct stat oldest = { 0 };
	struct dirent *entry;
	unsigned count = 0;

	while ((entry = readdir(dir))) {
		const char *other = entry->d_name + strlen(KIND "-");
		struct stat st;

		if (strncmp(entry->d_name, KIND "-", strlen(KIND "-")) != 0 ||
		    !state_note_is_uuid(other) || strcmp(other, uuid) == 0 ||
		    fstatat(dirfd(dir), entry->d_name, &st,
			    AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (count++ > 0 && !is_older(&st, &oldest))
			continue;
		oldest = st;
		memcpy(ret_oldest, other, STATE_NOTE_UUID_BYTES);
	}
	return count;
}

static void make_room(const char *path, const char *uuid,
		      char ret_gone[static STATE_NOTE_UUID_BYTES])
{
	char oldest[STATE_NOTE_UUID_BYTES] = "";
	DIR *dir = opendir(path);

	if (!dir)
		return;
	if (count_others(dir, uuid, oldest) >= HOLD_NOTE_MAX &&
	    hold_note_remove(path, oldest) == 0)
		memcpy(ret_gone, oldest, sizeof(oldest));
	(void)closedir(dir);
}

int hold_note_write(const char *dir, const char *uuid, uint64_t epoch,
		    char ret_gone[static STATE_NOTE_UUID_BYTES])
{
	char text[TEXT_BYTES];

	ret_gone[0] = '\0';
	make_room(dir, uuid, ret_gone);
	(void)snprintf(text, sizeof(text), "%016" PRIx64 "\n", epoch);
	return state_note_write(dir, KIND, uuid, text);
}

uint64_t hold_note_read(const char *dir, const char *uuid)
{
	char text[TEXT_BYTES];

	if (state_note_read(dir, KIND, uuid, text, sizeof(text)) < 0 ||
	    strlen(text) != EPOCH_DIGITS + 1 ||
	    strspn(text, "0123456789abcdef") != EPOCH_DIGITS)
		return 0;
	return strtoull(text, NULL, 16);
}

int hold_note_remove(const char *dir, const char *uuid)
{
	int r = state_note_remove(dir, KIND, uuid);

	return r == -ENOENT ? 0 : r;
}
