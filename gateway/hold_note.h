/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hold_note.h - which guests are held: a file DIR/hold-UUID each, with the epoch
 * of the hold, so that it outlives the domain and the manager.
 */
#ifndef HOLD_NOTE_H
#define HOLD_NOTE_H

#include <stdint.h>

/* 0 or -errno. */
int hold_note_write(const char *dir, const char *uuid, uint64_t epoch);
/* The epoch, or 0 if it is not held. */
uint64_t hold_note_read(const char *dir, const char *uuid);
void hold_note_remove(const char *dir, const char *uuid);

#endif
