/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sequences.h - every sequence of the events that can meet a state machine, each
 * played from the beginning on the real code. Sequences get longer by each event
 * that can come next; those that reach the same situation have the same future,
 * so it is enough to go on with the first of them. What makes a situation the
 * game says, in a text; whether it says enough is found by playing all to a
 * length: none may then reach a situation that the others did not.
 */
#ifndef SEQUENCES_H
#define SEQUENCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEQUENCES_MAX_LENGTH 24
#define SEQUENCES_MAX_EVENTS 32
#define SEQUENCES_KEY_BYTES  160

struct sequences_game {
	unsigned num_events;
	const char *const *event_names;
	/*
	 * Plays the events in a new world, judges the last of them, notes the
	 * situation, and brings the world to its end, which is judged too.
	 * Which events could have come next, each a bit. Those before the last
	 * are judged where they are the last: each beginning is played as well.
	 */
	uint32_t (*play)(const uint8_t *events, size_t length,
			 char ret_key[static SEQUENCES_KEY_BYTES]);
	/* The game is lost: does not return. */
	void (*fail)(const char *why);
};

struct sequences_result {
	unsigned num_played;
	size_t length; /* of the longest one */
	size_t num_situations;
	bool is_cut; /* something new may come behind the longest that may be */
};

/* Breadth-first, until nothing is new; none longer than the longest. */
void sequences_play_first(const struct sequences_game *game, size_t longest,
			  struct sequences_result *ret_result);

/* All to this length, no longer than those; these come before. */
void sequences_play_all(const struct sequences_game *game, size_t length,
			struct sequences_result *ret_result);

/* The one that is played, to where it is played: "A B C". */
void sequences_tell(const struct sequences_game *game, const uint8_t *events,
		    size_t length, char *text, size_t cap);

#endif
