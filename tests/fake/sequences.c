/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/sequences.h"

#include <stdio.h>
#include <string.h>

#define MAX_SITUATIONS 60000
#define MAX_PLACES     (2 * MAX_SITUATIONS)

/* A sequence, and what it has reached. */
struct situation {
	uint8_t events[SEQUENCES_MAX_LENGTH];
	size_t length;
	uint32_t possible; /* the events that can come next */
	char key[SEQUENCES_KEY_BYTES];
};

static struct situation situations[MAX_SITUATIONS];
static size_t num_situations;
/* Where each is to be found by its key: its number and 1, or 0. */
static uint32_t places[MAX_PLACES];

void sequences_tell(const struct sequences_game *game, const uint8_t *events,
		    size_t length, char *text, size_t cap)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < length && used < cap; i++)
		used += (size_t)snprintf(text + used, cap - used, "%s%s",
					 i > 0 ? " " : "",
					 game->event_names[events[i]]);
}

/* The place of the situation with this key, or the empty one that it gets. */
static uint32_t *find_place(const char *key)
{
	uint32_t hash = 2166136261u;
	uint32_t at;

	for (const char *c = key; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 16777619u;
	for (at = hash % MAX_PLACES; places[at] != 0;
	     at = (at + 1) % MAX_PLACES)
		if (strcmp(situations[places[at] - 1].key, key) == 0)
			break;
	return &places[at];
}

static uint32_t play(const struct sequences_game *game, struct situation *s,
		     struct sequences_result *result)
{
	memset(s->key, 0, sizeof(s->key));
	s->possible = game->play(s->events, s->length, s->key);
	result->num_played++;
	if (result->length < s->length)
		result->length = s->length;
	return s->possible;
}

/* ---- breadth-first ---- */

static void play_first(const struct sequences_game *game, struct situation *s,
		       struct sequences_result *result)
{
	uint32_t *place;

	(void)play(game, s, result);
	place = find_place(s->key);
	if (*place != 0)
		return;
	if (num_situations == MAX_SITUATIONS)
		game->fail("too many situations");
	situations[num_situations++] = *s;
	*place = (uint32_t)num_situations;
}

void sequences_play_first(const struct sequences_game *game, size_t longest,
			  struct sequences_result *ret_result)
{
	struct situation first = { .length = 0 };

	memset(ret_result, 0, sizeof(*ret_result));
	memset(places, 0, sizeof(places));
	num_situations = 0;
	play_first(game, &first, ret_result);
	for (size_t i = 0; i < num_situations; i++) {
		struct situation next = situations[i];
		uint32_t possible = next.possible;

		if (next.length == longest) {
			ret_result->is_cut = true;
			break;
		}
		next.length++;
		for (unsigned event = 0; event < game->num_events; event++) {
			next.events[next.length - 1] = (uint8_t)event;
			if (possible & 1u << event)
				play_first(game, &next, ret_result);
		}
	}
	ret_result->num_situations = num_situations;
}

/* ---- all ---- */

/* As an odometer counts: no recursion. */
void sequences_play_all(const struct sequences_game *game, size_t length,
			struct sequences_result *ret_result)
{
	uint32_t left[SEQUENCES_MAX_LENGTH + 1];
	struct situation s = { .length = 0 };

	memset(ret_result, 0, sizeof(*ret_result));
	ret_result->num_situations = num_situations;
	left[0] = play(game, &s, ret_result);
	for (;;) {
		while (s.length > 0 &&
		       (left[s.length] == 0 || s.length == length))
			s.length--;
		if (left[s.length] == 0)
			return;
		s.events[s.length] = (uint8_t)__builtin_ctz(left[s.length]);
		left[s.length] &= left[s.length] - 1;
		s.length++;
		left[s.length] = play(game, &s, ret_result);
		if (*find_place(s.key) == 0)
			game->fail("a situation that was not to be");
	}
}
