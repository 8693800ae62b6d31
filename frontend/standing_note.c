/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/standing_note.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "frontend/sysfs.h"
#include "vchan-transport/log.h"
#include "vchan-transport/state_file.h"

#define TEXT_BYTES 1024
#define DETACHED   ".detached"
#define LOCK       ".lock"

static const char *folder(void)
{
	const char *dir = getenv("XUSBIP_STANDING_DIR");

	return dir ? dir : STANDING_NOTE_DIR;
}

int standing_note_write(const struct standing_note *note)
{
	char text[TEXT_BYTES];
	char why[STANDING_NOTE_WHY_BYTES];
	int r = state_make_folder(folder(), 0755);

	if (r < 0)
		return r;
	(void)log_escape(why, sizeof(why), note->why, strlen(note->why));
	(void)snprintf(text, sizeof(text),
		       "%s\n%d %u %" PRIu64 " %" PRIu64 "\n%s\n%s\n%s\n",
		       note->state, note->is_section, note->port,
		       note->since_ms, note->next_ms, note->gateway,
		       note->device, why);
	return state_write(folder(), note->name, text, 0644);
}

void standing_note_remove(const char *name)
{
	char path[STATE_PATH_BYTES];

	(void)snprintf(path, sizeof(path), "%s/%.*s", folder(),
		       WISH_NAME_BYTES - 1, name);
	(void)unlink(path);
}

/* The next line without its end, or NULL. */
static char *next_line(char **at)
{
	char *line = *at;
	char *end = strchr(line, '\n');

	if (!end)
		return NULL;
	*end = '\0';
	*at = end + 1;
	return line;
}

static bool take_line(char **at, char *to, size_t cap)
{
	const char *line = next_line(at);

	if (!line || strlen(line) >= cap)
		return false;
	memcpy(to, line, strlen(line) + 1);
	return true;
}

static bool scan_numbers(const char *at, struct standing_note *note)
{
	uint64_t values[4];

	for (size_t i = 0; i < 4; i++) {
		char *end;

		errno = 0;
		values[i] = strtoull(at, &end, 10);
		if (end == at || errno != 0)
			return false;
		at = end;
	}
	note->is_section = values[0] != 0;
	note->port = (uint32_t)values[1];
	note->since_ms = values[2];
	note->next_ms = values[3];
	return *at == '\0';
}

static bool read_note(const char *name, struct standing_note *ret_note)
{
	struct standing_note note = { 0 };
	char text[TEXT_BYTES];
	char *at = text;
	const char *numbers;

	if (!wish_is_name(name) ||
	    sysfs_read(folder(), name, text, sizeof(text)) < 0)
		return false;
	(void)snprintf(note.name, sizeof(note.name), "%s", name);
	if (!take_line(&at, note.state, sizeof(note.state)))
		return false;
	numbers = next_line(&at);
	if (!numbers || !scan_numbers(numbers, &note) ||
	    !take_line(&at, note.gateway, sizeof(note.gateway)) ||
	    !take_line(&at, note.device, sizeof(note.device)) ||
	    !take_line(&at, note.why, sizeof(note.why)))
		return false;
	*ret_note = note;
	return true;
}

static int compare(const void *a, const void *b)
{
	const struct standing_note *first = a;
	const struct standing_note *second = b;

	return strcmp(first->name, second->name);
}

size_t standing_note_list(struct standing_note ret_notes[static WISH_MAX])
{
	DIR *dir = opendir(folder());
	const struct dirent *entry;
	size_t count = 0;

	if (!dir)
		return 0;
	while (count < WISH_MAX && (entry = readdir(dir)))
		if (read_note(entry->d_name, &ret_notes[count]))
			count++;
	(void)closedir(dir);
	qsort(ret_notes, count, sizeof(*ret_notes), compare);
	return count;
}

bool standing_note_is_attached(const struct standing_note *note)
{
	return strcmp(note->state, "attached") == 0;
}

bool standing_note_find(uint32_t port, struct standing_note *ret_note)
{
	struct standing_note notes[WISH_MAX];
	size_t count = standing_note_list(notes);

	for (size_t i = 0; i < count; i++) {
		if (!standing_note_is_attached(&notes[i]) ||
		    notes[i].port != port)
			continue;
		*ret_note = notes[i];
		return true;
	}
	return false;
}

/* ---- detached by somebody ---- */

void standing_note_detached(const char *name)
{
	char file[WISH_NAME_BYTES + sizeof(DETACHED)];
	int r = wish_remove(name);

	if (r != -ENOENT) {
		if (r < 0)
			log_warn("%s: it would be attached again: %s", name,
				 strerror(-r));
		return;
	}
	(void)snprintf(file, sizeof(file), "%s" DETACHED, name);
	r = state_write(folder(), file, "", 0644);
	if (r < 0 && r != -ENOENT) /* where no agent has been */
		log_warn("%s: it will be attached again: %s", name,
			 strerror(-r));
}

bool standing_note_take_detached(const char *name)
{
	char path[STATE_PATH_BYTES];

	(void)snprintf(path, sizeof(path), "%s/%s" DETACHED, folder(), name);
	return unlink(path) == 0;
}

/* ---- the agent ---- */

static int open_lock(int flags)
{
	char path[STATE_PATH_BYTES];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/" LOCK, folder());
	/* For root only: who can read it could hold it. */
	fd = open(path, flags | O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

/* Of an agent that was killed: they are not true any more. */
static void remove_all(void)
{
	struct standing_note notes[WISH_MAX];
	size_t count = standing_note_list(notes);

	for (size_t i = 0; i < count; i++)
		standing_note_remove(notes[i].name);
}

int standing_note_lock(void)
{
	int r = state_make_folder(folder(), 0755);
	int fd;

	if (r < 0)
		return r;
	fd = open_lock(O_CREAT);
	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	remove_all();
	return fd;
}

bool standing_note_has_agent(void)
{
	int fd = open_lock(0);
	bool has_agent;

	if (fd < 0)
		return false;
	has_agent = flock(fd, LOCK_SH | LOCK_NB) < 0;
	(void)close(fd);
	return has_agent;
}
