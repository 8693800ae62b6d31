/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/handshake.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define DIGITS       "0123456789"
#define EPOCH_DIGITS 16

/* What follows the verb. */
enum arguments {
	NOTHING,
	RING_BYTES,
	PORT,
	BUSID,
	STATUS_AND_WHY,
};

static const struct {
	const char *name;
	enum arguments arguments;
} verbs[] = {
	[HANDSHAKE_NONE] = { "none", NOTHING },
	[HANDSHAKE_ASK] = { "ask", RING_BYTES },
	[HANDSHAKE_UP] = { "up", NOTHING },
	[HANDSHAKE_OPEN] = { "open", NOTHING },
	[HANDSHAKE_CLOSED] = { "closed", STATUS_AND_WHY },
	[HANDSHAKE_HOLD] = { "hold", NOTHING },
	[HANDSHAKE_DONE] = { "done", NOTHING },
	[HANDSHAKE_RESUME] = { "resume", NOTHING },
	[HANDSHAKE_RESUMED] = { "resumed", NOTHING },
	[HANDSHAKE_ATTACH] = { "attach", BUSID },
	[HANDSHAKE_ATTACHED] = { "attached", PORT },
	[HANDSHAKE_FAILED] = { "failed", STATUS_AND_WHY },
};

#define NUM_VERBS  (sizeof(verbs) / sizeof(verbs[0]))
#define MAX_STATUS 255u

static bool is_printable(char c)
{
	return c >= ' ' && c <= '~';
}

/* A decimal number of `length` bytes, written in the only way there is. */
static bool parse_digits(const char *text, size_t length, uint32_t max,
			 uint32_t *ret_number)
{
	uint64_t number = 0;

	if (length == 0 || length > 10 || (text[0] == '0' && length > 1))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		number = number * 10 + (uint64_t)(text[i] - '0');
	}
	if (number > max)
		return false;
	*ret_number = (uint32_t)number;
	return true;
}

bool handshake_parse_number(const char *text, uint32_t max,
			    uint32_t *ret_number)
{
	return parse_digits(text, strnlen(text, 11), max, ret_number);
}

static bool parse_epoch(const char *text, uint64_t *ret_epoch)
{
	uint64_t epoch = 0;

	for (size_t i = 0; i < EPOCH_DIGITS; i++) {
		unsigned digit;

		if (text[i] >= '0' && text[i] <= '9')
			digit = (unsigned)(text[i] - '0');
		else if (text[i] >= 'a' && text[i] <= 'f')
			digit = (unsigned)(text[i] - 'a') + 10;
		else
			return false;
		epoch = epoch << 4 | digit;
	}
	*ret_epoch = epoch;
	return epoch != 0;
}

/* The verb at the start of the text, which ends there or with a blank. */
static enum handshake_verb parse_verb(const char *text, size_t *ret_length)
{
	size_t length = strcspn(text, " ");

	for (size_t i = HANDSHAKE_NONE + 1; i < NUM_VERBS; i++) {
		if (strlen(verbs[i].name) == length &&
		    memcmp(verbs[i].name, text, length) == 0) {
			*ret_length = length;
			return (enum handshake_verb)i;
		}
	}
	return HANDSHAKE_NONE;
}

static bool parse_busid(const char *text, struct handshake_word *word)
{
	size_t length = strlen(text);

	if (length == 0 || length >= sizeof(word->busid))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (!is_printable(text[i]) || text[i] == ' ')
			return false;
	}
	memcpy(word->busid, text, length);
	return true;
}

static bool parse_status_and_why(const char *text, struct handshake_word *word)
{
	size_t digits = strspn(text, DIGITS);
	const char *why = text + digits + 1;
	uint32_t status;
	size_t length;

	if (text[digits] != ' ' ||
	    !parse_digits(text, digits, MAX_STATUS, &status))
		return false;
	length = strlen(why);
	if (length >= sizeof(word->why))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (!is_printable(why[i]))
			return false;
	}
	word->status = status;
	memcpy(word->why, why, length);
	return true;
}

static bool parse_arguments(const char *text, struct handshake_word *word)
{
	switch (verbs[word->verb].arguments) {
	case NOTHING:
		return false;
	case RING_BYTES:
		return handshake_parse_number(text, UINT32_MAX,
					      &word->ring_bytes);
	case PORT:
		return handshake_parse_number(text, UINT32_MAX, &word->port);
	case BUSID:
		return parse_busid(text, word);
	case STATUS_AND_WHY:
		return parse_status_and_why(text, word);
	}
	return false;
}

static bool parse(const char *text, struct handshake_word *word)
{
	size_t length = 0;

	/* The first byte that is no digit ends it, the NUL too. */
	if (!parse_epoch(text, &word->epoch))
		return false;
	text += EPOCH_DIGITS;
	if (*text++ != ' ')
		return false;
	word->verb = parse_verb(text, &length);
	if (word->verb == HANDSHAKE_NONE)
		return false;
	if (text[length] == '\0')
		return verbs[word->verb].arguments == NOTHING;
	return parse_arguments(text + length + 1, word);
}

bool handshake_parse(const char *text, struct handshake_word *ret_word)
{
	struct handshake_word word = { 0 };
	bool is_word = parse(text, &word);

	*ret_word = is_word ? word : (struct handshake_word){ 0 };
	return is_word;
}

static void append_why(char *text, size_t used, const char *why)
{
	for (size_t i = 0; i < HANDSHAKE_WHY_BYTES - 1 && why[i] != '\0'; i++)
		text[used++] = is_printable(why[i]) ? why[i] : '?';
	text[used] = '\0';
}

void handshake_format(char text[static HANDSHAKE_WORD_BYTES],
		      const struct handshake_word *word)
{
	int used = snprintf(text, HANDSHAKE_WORD_BYTES, "%016" PRIx64 " %s",
			    word->epoch, verbs[word->verb].name);
	char *at = text + used;
	size_t room = HANDSHAKE_WORD_BYTES - (size_t)used;

	switch (verbs[word->verb].arguments) {
	case NOTHING:
		break;
	case RING_BYTES:
		(void)snprintf(at, room, " %" PRIu32, word->ring_bytes);
		break;
	case PORT:
		(void)snprintf(at, room, " %" PRIu32, word->port);
		break;
	case BUSID:
		(void)snprintf(at, room, " %.*s", USBIP_BUSID_BYTES - 1,
			       word->busid);
		break;
	case STATUS_AND_WHY:
		used = snprintf(at, room, " %u ",
				word->status <= MAX_STATUS ? word->status
							   : MAX_STATUS);
		append_why(at, (size_t)used, word->why);
		break;
	}
}

uint64_t handshake_new_epoch(void)
{
	uint64_t epoch = 0;
	ssize_t n;

	do
		n = getrandom(&epoch, sizeof(epoch), 0);
	while ((n < 0 && errno == EINTR) ||
	       (n == (ssize_t)sizeof(epoch) && epoch == 0));
	return n == (ssize_t)sizeof(epoch) ? epoch : 0;
}

void handshake_pair_path(char path[static HANDSHAKE_PATH_BYTES], unsigned owner,
			 unsigned peer)
{
	(void)snprintf(path, HANDSHAKE_PATH_BYTES,
		       "/local/domain/%u/data/xusbip/%u", owner, peer);
}

void handshake_channel_path(char path[static HANDSHAKE_PATH_BYTES],
			    unsigned owner, unsigned peer, unsigned channel)
{
	(void)snprintf(path, HANDSHAKE_PATH_BYTES,
		       "/local/domain/%u/data/xusbip/%u/%u", owner, peer,
		       channel);
}

void handshake_want_path(char path[static HANDSHAKE_PATH_BYTES], unsigned owner,
			 unsigned peer, unsigned number)
{
	(void)snprintf(path, HANDSHAKE_PATH_BYTES,
		       "/local/domain/%u/data/xusbip/%u/want/%u", owner, peer,
		       number);
}

void handshake_name_path(char path[static HANDSHAKE_PATH_BYTES], unsigned owner,
			 unsigned peer, const char *name)
{
	(void)snprintf(path, HANDSHAKE_PATH_BYTES,
		       "/local/domain/%u/data/xusbip/%u/%s", owner, peer, name);
}
