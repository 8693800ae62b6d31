/* SPDX-License-Identifier: Apache-2.0 */
/* The words of two domains: what is one, what is none, and where they are. */
#include "vchan-transport/handshake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define E     "0123456789abcdef "
#define EPOCH 0x0123456789abcdef

static void each_verb_is_read_with_its_arguments(void **state)
{
	static const struct {
		const char *text;
		struct handshake_word word;
	} words[] = {
		{ E "ask 0", { .verb = HANDSHAKE_ASK } },
		{ E "ask 4294967295",
		  { .verb = HANDSHAKE_ASK, .ring_bytes = UINT32_MAX } },
		{ E "up", { .verb = HANDSHAKE_UP } },
		{ E "open", { .verb = HANDSHAKE_OPEN } },
		{ E "closed 4 not for you, go: away",
		  { .verb = HANDSHAKE_CLOSED,
		    .status = 4,
		    .why = "not for you, go: away" } },
		{ E "closed 0 ", { .verb = HANDSHAKE_CLOSED } },
		{ E "closed 255   two blanks",
		  { .verb = HANDSHAKE_CLOSED,
		    .status = 255,
		    .why = "  two blanks" } },
		{ E "hold", { .verb = HANDSHAKE_HOLD } },
		{ E "done", { .verb = HANDSHAKE_DONE } },
		{ E "resume", { .verb = HANDSHAKE_RESUME } },
		{ E "resumed", { .verb = HANDSHAKE_RESUMED } },
		{ E "attach 1-1.2",
		  { .verb = HANDSHAKE_ATTACH, .busid = "1-1.2" } },
		{ E "attach 0123456789012345678901234567890",
		  { .verb = HANDSHAKE_ATTACH,
		    .busid = "0123456789012345678901234567890" } },
		{ E "attached 7", { .verb = HANDSHAKE_ATTACHED, .port = 7 } },
		{ E "failed 6 no vhci",
		  { .verb = HANDSHAKE_FAILED, .status = 6, .why = "no vhci" } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct handshake_word expected = words[i].word;
		struct handshake_word word;
		char text[HANDSHAKE_WORD_BYTES];

		expected.epoch = EPOCH;

		assert_true(handshake_parse(words[i].text, &word));
		assert_memory_equal(&word, &expected, sizeof(word));
		handshake_format(text, &word);
		assert_string_equal(text, words[i].text);
	}
}

static const char *const no_words[] = {
	"",
	" ",
	"0",
	"0123456789abcdef",
	E,
	"0123456789abcde up",
	"0123456789abcdef0 up",
	"0123456789ABCDEF up",
	"0x23456789abcdef up",
	"0000000000000000 up",
	" 0123456789abcdef up",
	"0123456789abcdef\tup",
	"0123456789abcdef  up",
	E "up ",
	E "up 1",
	E "up\n",
	E "u",
	E "upp",
	E "UP",
	E "none",
	E "ask",
	E "ask ",
	E "ask 01",
	E "ask +1",
	E "ask -1",
	E "ask 1 ",
	E "ask 1x",
	E "ask 0x10",
	E "ask 4294967296",
	E "ask 99999999999999999999",
	E "open 1",
	E "closed",
	E "closed ",
	E "closed 1",
	E "closed x y",
	E "closed 01 why",
	E "closed 256 why",
	E "closed -1 why",
	E "closed 1 wh\ny",
	E "closed 1 wh\x7f"
	  "y",
	E "closed 1 wh\xc3\xa4"
	  "y",
	E "attach",
	E "attach ",
	E "attach 1-1 ",
	E "attach 1 1",
	E "attach 1-\x01",
	E "attach 01234567890123456789012345678901",
	E "attached",
	E "attached 07",
	E "attached 4294967296",
	E "failed 1",
};

static void what_is_not_a_word_to_its_last_byte_is_none(void **state)
{
	const struct handshake_word none = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(no_words) / sizeof(no_words[0]); i++) {
		struct handshake_word word = { .verb = HANDSHAKE_UP,
					       .epoch = 1 };

		if (handshake_parse(no_words[i], &word))
			fail_msg("taken for a word: \"%s\"", no_words[i]);
		assert_memory_equal(&word, &none, sizeof(word));
	}
}

static void every_beginning_of_a_word_is_none(void **state)
{
	static const char text[] = E "closed 4 x";

	(void)state;
	for (size_t i = 0; i < sizeof(text) - 2; i++) {
		struct handshake_word word;
		char cut[sizeof(text)];

		memcpy(cut, text, i);
		cut[i] = '\0';
		/* No reason at all is one, too. */
		assert_int_equal(handshake_parse(cut, &word),
				 i == sizeof(E "closed 4 ") - 1);
	}
}

static void a_reason_that_is_too_long_is_no_word_and_is_never_written(void **st)
{
	struct handshake_word word = { .verb = HANDSHAKE_CLOSED,
				       .epoch = EPOCH };
	char text[HANDSHAKE_WORD_BYTES + 64] = E "closed 1 ";
	size_t head = strlen(text);

	(void)st;
	memset(text + head, 'x', HANDSHAKE_WHY_BYTES);
	assert_false(handshake_parse(text, &word));

	text[head + HANDSHAKE_WHY_BYTES - 1] = '\0';
	assert_true(handshake_parse(text, &word));

	memset(word.why, 'y', sizeof(word.why)); /* not even a NUL */
	handshake_format(text, &word);
	assert_int_equal(strlen(text), head + HANDSHAKE_WHY_BYTES - 1);
	assert_true(handshake_parse(text, &word));
}

static void what_cannot_be_printed_is_written_as_a_question_mark(void **state)
{
	struct handshake_word word = { .verb = HANDSHAKE_FAILED,
				       .epoch = EPOCH,
				       .status = 1000,
				       .why = "a\nb\x1b\xff" };
	char text[HANDSHAKE_WORD_BYTES];

	(void)state;
	handshake_format(text, &word);

	assert_string_equal(text, E "failed 255 a?b??");
}

static void epochs_are_not_zero_and_not_twice_the_same(void **state)
{
	uint64_t first = handshake_new_epoch();
	uint64_t second = handshake_new_epoch();

	(void)state;
	assert_true(first != 0);
	assert_true(second != 0);
	assert_true(first != second);
}

static void paths_are_those_of_the_protocol(void **state)
{
	char path[HANDSHAKE_PATH_BYTES];

	(void)state;
	handshake_pair_path(path, 5, 0);
	assert_string_equal(path, "/local/domain/5/data/xusbip/0");
	handshake_channel_path(path, 0, 5, 63);
	assert_string_equal(path, "/local/domain/0/data/xusbip/5/63");
	handshake_want_path(path, 65535, 65535, 63);
	assert_string_equal(path,
			    "/local/domain/65535/data/xusbip/65535/want/63");
	handshake_name_path(path, 0, 5, "devices");
	assert_string_equal(path, "/local/domain/0/data/xusbip/5/devices");
}

static void numbers_are_written_in_one_way_only(void **state)
{
	static const char *const wrong[] = {
		"",   "00", "01", "+1",  "-1",         " 1",
		"1 ", "x",  "64", "1\n", "4294967296", "18446744073709551616"
	};
	uint32_t number;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(handshake_parse_number(wrong[i], 63, &number));
	assert_true(handshake_parse_number("0", 63, &number));
	assert_int_equal(number, 0);
	assert_true(handshake_parse_number("63", 63, &number));
	assert_int_equal(number, 63);
	assert_true(handshake_parse_number("4294967295", UINT32_MAX, &number));
	assert_int_equal(number, UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_verb_is_read_with_its_arguments),
		cmocka_unit_test(what_is_not_a_word_to_its_last_byte_is_none),
		cmocka_unit_test(every_beginning_of_a_word_is_none),
		cmocka_unit_test(
			a_reason_that_is_too_long_is_no_word_and_is_never_written),
		cmocka_unit_test(
			what_cannot_be_printed_is_written_as_a_question_mark),
		cmocka_unit_test(epochs_are_not_zero_and_not_twice_the_same),
		cmocka_unit_test(paths_are_those_of_the_protocol),
		cmocka_unit_test(numbers_are_written_in_one_way_only),
	};

	return cmocka_run_group_tests_name("handshake", tests, NULL, NULL);
}
