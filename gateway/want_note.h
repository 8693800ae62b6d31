/* SPDX-License-Identifier: Apache-2.0 */
/*
 * want_note.h - which devices a guest is to have always: a file DIR/want-UUID
 * each, one bus id a line, so that it outlives the domain, the manager and this
 * machine's run.
 *
 * One line is added or taken out at a time and nothing else changed: what could
 * not be carried out is still asked for.
 */
#ifndef WANT_NOTE_H
#define WANT_NOTE_H

/* A file that is larger is nobody's of ours: -EFBIG, and it stays. */
#define WANT_NOTE_BYTES 4096

typedef void want_note_cb(void *arg, const char *busid);

/* 0, also if it is there already, or -errno; see state_note.h. */
int want_note_add(const char *dir, const char *uuid, const char *busid);
/* 0, -ENOENT if it is not there, or -errno. */
int want_note_remove(const char *dir, const char *uuid, const char *busid);
/* Calls for each: 0, also without a file, or -errno. */
int want_note_each(const char *dir, const char *uuid, want_note_cb *each,
		   void *arg);

#endif
