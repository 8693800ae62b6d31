/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standing_note.h - what the agent tells others of the devices that are to stay
 * attached, and what it is told: small files in a folder that everybody may
 * read and root writes.
 *
 *	NAME		the state of that one, a line for each member below
 *	NAME.detached	somebody has detached it: it is not to be attached again
 *	.lock		held while an agent runs
 */
#ifndef STANDING_NOTE_H
#define STANDING_NOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frontend/wish.h"

/* Unless the environment's XUSBIP_STANDING_DIR says. */
#define STANDING_NOTE_DIR       "/run/xusbip/frontend"

#define STANDING_NOTE_WHY_BYTES 256

struct standing_note {
	char name[WISH_NAME_BYTES];
	char state[16]; /* of standing_fsm.def, in small letters */
	bool is_section;
	uint32_t port;     /* of one that is attached */
	uint64_t since_ms; /* in that state; this and the next of clock_ms() */
	uint64_t next_ms;  /* the next try; 0: none is planned */
	char gateway[ADDRESS_TEXT_CAP];
	char device[WISH_DEVICE_BYTES];
	char why[STANDING_NOTE_WHY_BYTES]; /* the last failure; empty: none */
};

/* 0 or -errno. */
int standing_note_write(const struct standing_note *note);
void standing_note_remove(const char *name);

/* All there are, by name; how many. */
size_t standing_note_list(struct standing_note ret_notes[static WISH_MAX]);

/* Is that one attached? Not: waiting, or being tried. */
bool standing_note_is_attached(const struct standing_note *note);
/* Whose is that port? */
bool standing_note_find(uint32_t port, struct standing_note *ret_note);

/*
 * Somebody has detached it: the wish of a file ends with that, of a section
 * the agent is told.
 */
void standing_note_detached(const char *name);
/* Was it, since the last time that this was asked? */
bool standing_note_take_detached(const char *name);

/*
 * Becomes the agent, or not: the lock's descriptor, -EWOULDBLOCK, -errno. What
 * one before it has told is removed.
 */
int standing_note_lock(void);
/* Does an agent run? For root. */
bool standing_note_has_agent(void);

#endif
