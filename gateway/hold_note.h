/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hold_note.h - which guests are held: a file DIR/hold-UUID each, with the epoch
 * of the hold, so that it outlives the domain, the manager and this machine's
 * run (state_note.h).
 *
 * Some guests never come back, and nobody says so. So there are HOLD_NOTE_MAX
 * at most, and the one that was written longest ago goes for one more.
 */
#ifndef HOLD_NOTE_H
#define HOLD_NOTE_H

#include <stdint.h>

#include "gateway/state_note.h"

#define HOLD_NOTE_MAX 1024

/* 0 or -errno; which one has gone for it, or "". */
int hold_note_write(const char *dir, const char *uuid, uint64_t epoch,
		    char ret_gone[static STATE_NOTE_UUID_BYTES]);
/* The epoch, or 0 if it is not held. */
uint64_t hold_note_read(const char *dir, const char *uuid);
/* 0, also if it was not held, or -errno. */
int hold_note_remove(const char *dir, const char *uuid);

#endif
