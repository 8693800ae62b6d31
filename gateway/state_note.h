/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state_note.h - what is noted of a guest in state_dir: a file KIND-UUID, so that
 * it outlives the domain, the manager and this machine's run (want_note.h,
 * hold_note.h). Of what is no UUID nothing is noted: -EINVAL.
 */
#ifndef STATE_NOTE_H
#define STATE_NOTE_H

#include <stdbool.h>
#include <stddef.h>

#define STATE_NOTE_UUID_BYTES 37

bool state_note_is_uuid(const char *text);
/*
 * All of it, NUL-terminated; nothing without a file. 0, -EFBIG if there is no
 * room for it, or -errno.
 */
int state_note_read(const char *dir, const char *kind, const char *uuid,
		    char *text, size_t cap);
/* In place of an older one, whole or not at all: 0 or -errno. */
int state_note_write(const char *dir, const char *kind, const char *uuid,
		     const char *text);
/* 0 or -errno. */
int state_note_remove(const char *dir, const char *kind, const char *uuid);

#endif
