/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/want_note.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gateway/state_note.h"
#include "vchan-transport/usbip.h"

#define KIND "want"

static char *find_line(char *text, const char *busid)
{
	size_t length = strlen(busid);

	while (*text) {
		size_t n = strcspn(text, "\n");

		if (n == length && strncmp(text, busid, n) == 0)
			return text;
		text += text[n] ? n + 1 : n;
	}
	return NULL;
}

int want_note_add(const char *dir, const char *uuid, const char *busid)
{
	char text[WANT_NOTE_BYTES];
	size_t used;
	int r = state_note_read(dir, KIND, uuid, text, sizeof(text));

	if (r < 0 || find_line(text, busid))
		return r;
	used = strlen(text);
	if (strlen(busid) + 3 > sizeof(text) - used)
		return -EFBIG;
	(void)snprintf(text + used, sizeof(text) - used, "%s%s\n",
		       used > 0 && text[used - 1] != '\n' ? "\n" : "", busid);
	return state_note_write(dir, KIND, uuid, text);
}

int want_note_remove(const char *dir, const char *uuid, const char *busid)
{
	char text[WANT_NOTE_BYTES];
	char *line;
	char *next;
	int r = state_note_read(dir, KIND, uuid, text, sizeof(text));

	if (r < 0)
		return r;
	line = find_line(text, busid);
	if (!line)
		return -ENOENT;
	next = line + strlen(busid);
	next += *next == '\n';
	memmove(line, next, strlen(next) + 1);
	if (text[0] != '\0')
		return state_note_write(dir, KIND, uuid, text);
	return state_note_remove(dir, KIND, uuid);
}

int want_note_each(const char *dir, const char *uuid, want_note_cb *each,
		   void *arg)
{
	char text[WANT_NOTE_BYTES] = "";
	char *rest = text;
	const char *line;
	int r = state_note_read(dir, KIND, uuid, text, sizeof(text));

	if (r < 0)
		return r;
	while ((line = strsep(&rest, "\n")))
		if (line[0] != '\0' && strlen(line) < USBIP_BUSID_BYTES)
			each(arg, line);
	return 0;
}
