/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sequences_played.h - the sequence that a unit test's game (sequences.h) plays
 * now, and how the game is lost: included by the test's world, which defines
 * `game`.
 */
#ifndef SEQUENCES_PLAYED_H
#define SEQUENCES_PLAYED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/fake/sequences.h"

static struct {
	const uint8_t *events;
	size_t length;
	size_t at; /* how many of them have been played */
} played;

static const struct sequences_game game;

static void fail_game(const char *what)
{
	char text[512];
	size_t to = played.at < played.length ? played.at + 1 : played.length;

	sequences_tell(&game, played.events, to, text, sizeof(text));
	fail_msg("%s, after %s", what, text);
}

static void expect(bool is_true, const char *what)
{
	if (!is_true)
		fail_game(what);
}

#endif
