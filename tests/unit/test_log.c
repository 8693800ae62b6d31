/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines as they come out of a pipe that stands in for stderr. */
#include "vchan-transport/log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* The test's own stderr, and the pipe that is put in its place. */
struct capture {
	int saved_stderr;
	int pipe_read;
	char text[8192];
};

static int redirect_stderr(void **state)
{
	static struct capture capture;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	capture.saved_stderr = dup(STDERR_FILENO);
	capture.pipe_read = fds[0];
	(void)dup2(fds[1], STDERR_FILENO);
	(void)close(fds[1]);
	(void)unsetenv("JOURNAL_STREAM");
	*state = &capture;
	return 0;
}

static int restore_stderr(void **state)
{
	struct capture *capture = *state;

	(void)dup2(capture->saved_stderr, STDERR_FILENO);
	(void)close(capture->saved_stderr);
	(void)close(capture->pipe_read);
	return 0;
}

/* What was written since the last call; empty if nothing was. */
static const char *written(struct capture *capture)
{
	ssize_t len = read(capture->pipe_read, capture->text,
			   sizeof(capture->text) - 1);

	capture->text[len < 0 ? 0 : len] = '\0';
	return capture->text;
}

static void a_line_has_prefix_level_and_message(void **state)
{
	log_init("session 3", LOG_LEVEL_DEBUG);

	log_error("no device %d", 7);
	assert_string_equal(written(*state), "session 3: error: no device 7\n");
	log_warn("slow");
	assert_string_equal(written(*state), "session 3: warning: slow\n");
	log_info("here");
	assert_string_equal(written(*state), "session 3: here\n");
	log_debug("INIT + GO -> RUN");
	assert_string_equal(written(*state),
			    "session 3: debug: INIT + GO -> RUN\n");
}

static void an_empty_prefix_leaves_no_colon(void **state)
{
	log_init("", LOG_LEVEL_INFO);

	log_info("here");

	assert_string_equal(written(*state), "here\n");
}

static void lines_above_the_level_are_dropped(void **state)
{
	log_init("p", LOG_LEVEL_WARN);

	log_debug("no");
	log_info("no");
	assert_string_equal(written(*state), "");
	log_warn("yes");
	assert_string_equal(written(*state), "p: warning: yes\n");
}

static void the_journal_gets_a_priority_instead_of_a_word(void **state)
{
	char stream[64];
	struct stat st;

	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	(void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev,
		       (uintmax_t)st.st_ino);
	(void)setenv("JOURNAL_STREAM", stream, 1);
	log_init("p", LOG_LEVEL_DEBUG);
	(void)unsetenv("JOURNAL_STREAM");

	log_error("a");
	log_warn("b");
	log_info("c");
	log_debug("d");

	assert_string_equal(written(*state),
			    "<3>p: a\n<4>p: b\n<6>p: c\n<7>p: d\n");
}

static void a_journal_that_is_not_our_stderr_does_not_count(void **state)
{
	(void)setenv("JOURNAL_STREAM", "1:1", 1);
	log_init("p", LOG_LEVEL_INFO);
	(void)unsetenv("JOURNAL_STREAM");

	log_info("c");

	assert_string_equal(written(*state), "p: c\n");
}

static void bytes_of_a_peer_are_never_written_raw(void **state)
{
	log_init("p", LOG_LEVEL_INFO);

	log_info("name '%s'", "\x1b[2J\n<0>x\r\t\x7f\xc3\xa4\x9b");

	assert_string_equal(written(*state),
			    "p: name '\\x1b[2J\\x0a<0>x\\x0d\\x09"
			    "\\x7f\\xc3\\xa4\\x9b'\n");
}

static void a_long_line_is_cut_and_still_ends(void **state)
{
	char longest[3000];
	const char *line;

	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	log_init("p", LOG_LEVEL_INFO);

	log_info("%s", longest);
	line = written(*state);
	assert_true(strlen(line) <= LOG_LINE_MAX_BYTES);
	assert_true(strlen(line) >= LOG_LINE_MAX_BYTES - 8);
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);

	memset(longest, '\x01', sizeof(longest) - 1);
	log_info("%s", longest);
	line = written(*state);
	assert_true(strlen(line) <= LOG_LINE_MAX_BYTES);
	assert_string_equal(line + strlen(line) - 5, "\\x01\n");
}

static void errno_survives_a_log_line(void **state)
{
	log_init("p", LOG_LEVEL_INFO);
	(void)close(STDERR_FILENO);
	errno = ENOENT;

	log_info("to nobody");

	assert_int_equal(errno, ENOENT);
	(void)state;
}

static void escape_stops_before_what_does_not_fit(void **state)
{
	char dst[6];

	(void)state;
	assert_int_equal(log_escape(dst, sizeof(dst), "a\n", 2), 5);
	assert_string_equal(dst, "a\\x0a");
	assert_int_equal(log_escape(dst, sizeof(dst), "ab\n", 3), 2);
	assert_string_equal(dst, "ab");
	assert_int_equal(log_escape(dst, 1, "ab", 2), 0);
	assert_string_equal(dst, "");
	assert_int_equal(log_escape(dst, sizeof(dst), "\0b", 2), 5);
	assert_string_equal(dst, "\\x00b");
}

static void escaping_twice_changes_nothing(void **state)
{
	char once[64];
	char twice[64];
	size_t len = log_escape(once, sizeof(once), "\\x\x1b", 3);

	(void)state;
	(void)log_escape(twice, sizeof(twice), once, len);

	assert_string_equal(once, twice);
}

#define captured(test) \
	cmocka_unit_test_setup_teardown(test, redirect_stderr, restore_stderr)

int main(void)
{
	const struct CMUnitTest tests[] = {
		captured(a_line_has_prefix_level_and_message),
		captured(an_empty_prefix_leaves_no_colon),
		captured(lines_above_the_level_are_dropped),
		captured(the_journal_gets_a_priority_instead_of_a_word),
		captured(a_journal_that_is_not_our_stderr_does_not_count),
		captured(bytes_of_a_peer_are_never_written_raw),
		captured(a_long_line_is_cut_and_still_ends),
		captured(errno_survives_a_log_line),
		cmocka_unit_test(escape_stops_before_what_does_not_fit),
		cmocka_unit_test(escaping_twice_changes_nothing),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
