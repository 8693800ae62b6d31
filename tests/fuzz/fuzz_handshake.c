/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of two domains: whatever the value of a node, what is taken for a
 * word is written again as the very same bytes, and what is none is all zero.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vchan-transport/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_word(const char *text)
{
	struct handshake_word word;
	char again[HANDSHAKE_WORD_BYTES];

	if (!handshake_parse(text, &word)) {
		assert(word.verb == HANDSHAKE_NONE && word.epoch == 0);
		return;
	}
	assert(word.verb != HANDSHAKE_NONE && word.epoch != 0);
	assert(memchr(word.busid, '\0', sizeof(word.busid)));
	assert(memchr(word.why, '\0', sizeof(word.why)));
	handshake_format(again, &word);
	assert(strcmp(text, again) == 0);
}

static void try_number(const char *text)
{
	uint32_t number;

	if (handshake_parse_number(text, HANDSHAKE_CHANNELS - 1, &number))
		assert(number < HANDSHAKE_CHANNELS && strlen(text) <= 2);
}

/* As store_read gives it: no NUL inside, one at the end. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[HANDSHAKE_WORD_BYTES];

	if (size >= sizeof(text))
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	try_word(text);
	try_number(text);
	return 0;
}
