/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file as libconfuse is given it. */
#include "vchan-transport/config_file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static char path[] = "/tmp/test_config_file.XXXXXX";

static int make_file(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

static void put(const char *bytes, size_t num_bytes)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, num_bytes, file), num_bytes);
	assert_int_equal(fclose(file), 0);
}

static const struct {
	const char *text;
	const char *read;
} files[] = {
	{ "", "\nend" },
	{ "a = 1", "a = 1\nend" },
	{ "# one\na = 1 # two\n#\n", "     \na = 1      \n \n\nend" },
	{ "a = \"x # y\" # z\n", "a = \"x # y\"    \n\nend" },
	{ "a = 'x # y' # z\n", "a = 'x # y'    \n\nend" },
	{ "a = \"\\\" # y\" # z\n", "a = \"\\\" # y\"    \n\nend" },
	{ "a = '\\' # y' # z\n", "a = '\\' # y'    \n\nend" },
	{ "a = x#y\n", "a = x  \n\nend" },
	/* What may hide a quote: all behind it stays. */
	{ "# 1\n// ' # 2\n# 3", "   \n// ' # 2\n# 3\nend" },
	{ "# 1\n/* ' # 2\n */ # 3", "   \n/* ' # 2\n */ # 3\nend" },
	{ "a = \"${x\"y}\" # 1", "a = \"${x\"y}\" # 1\nend" },
	{ "a = ${x\"y} # 1", "a = ${x\"y} # 1\nend" },
	{ "a = \"b # 1\n", "a = \"b # 1\n\nend" },
};

static void comments_are_blank_and_lines_stay_where_they_are(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char *text;
		FILE *stream;
		char read[128] = "";

		put(files[i].text, strlen(files[i].text));
		assert_int_equal(config_file_read(path, "end", &text, &stream),
				 0);
		assert_int_equal(fread(read, 1, sizeof(read) - 1, stream),
				 strlen(files[i].read));
		assert_string_equal(read, files[i].read);
		(void)fclose(stream);
		free(text);
	}
}

static void a_file_at_the_limit_is_refused(void **state)
{
	char *bytes = calloc(1, CONFIG_FILE_MAX_BYTES);
	char *text = NULL;
	FILE *stream = NULL;

	(void)state;
	assert_non_null(bytes);
	put(bytes, CONFIG_FILE_MAX_BYTES - 1);
	assert_int_equal(config_file_read(path, "end", &text, &stream), 0);
	(void)fclose(stream);
	free(text);
	put(bytes, CONFIG_FILE_MAX_BYTES);
	assert_int_equal(config_file_read(path, "end", &text, &stream), -EFBIG);
	free(bytes);
}

static void what_is_not_a_file_is_told_from_what_is_not_there(void **state)
{
	char *text = NULL;
	FILE *stream = NULL;

	(void)state;
	assert_int_equal(config_file_read("/tmp", "end", &text, &stream),
			 -ENOTSUP);
	assert_int_equal(config_file_read("/no/such", "end", &text, &stream),
			 -ENOENT);
	assert_null(text);
	assert_null(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			comments_are_blank_and_lines_stay_where_they_are),
		cmocka_unit_test(a_file_at_the_limit_is_refused),
		cmocka_unit_test(
			what_is_not_a_file_is_told_from_what_is_not_there),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
