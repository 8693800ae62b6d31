/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes as text and as numbers. */
#include "frontend/sysfs.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char pattern[] = "/tmp/test_sysfs.XXXXXX";
static char dir[sizeof(pattern)];

static int make_dir(void **state)
{
	char path[64];
	FILE *file;

	(void)state;
	memcpy(dir, pattern, sizeof(pattern));
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/attribute", dir);
	file = fopen(path, "w");
	return file ? fclose(file) : -1;
}

static int remove_dir(void **state)
{
	char path[64];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/attribute", dir);
	(void)unlink(path);
	return rmdir(dir);
}

static void what_is_written_is_read(void **state)
{
	char text[16];

	(void)state;
	assert_int_equal(sysfs_write(dir, "attribute", "12 ab"), 0);
	assert_int_equal(sysfs_read(dir, "attribute", text, sizeof(text)), 5);
	assert_string_equal(text, "12 ab");
}

static void what_does_not_fit_is_left_out(void **state)
{
	char text[4];

	(void)state;
	assert_int_equal(sysfs_write(dir, "attribute", "12345"), 0);
	assert_int_equal(sysfs_read(dir, "attribute", text, sizeof(text)), 3);
	assert_string_equal(text, "123");
}

static void what_is_not_there_is_an_error(void **state)
{
	char text[4];

	(void)state;
	assert_int_equal(sysfs_read(dir, "none", text, sizeof(text)), -ENOENT);
	assert_int_equal(sysfs_write(dir, "none", "1"), -ENOENT);
}

static void a_path_that_is_too_long_is_an_error(void **state)
{
	char name[SYSFS_PATH_BYTES];
	char text[4];

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(sysfs_read(dir, name, text, sizeof(text)),
			 -ENAMETOOLONG);
}

static void attributes_are_read_as_numbers(void **state)
{
	static const struct {
		const char *text;
		int base;
		uint32_t value;
	} rows[] = {
		{ "1\n", 10, 1 },
		{ " 2\n", 10, 2 },
		{ "1.5\n", 10, 1 },
		{ "46f4\n", 16, 0x46f4 },
		{ "4294967295", 10, UINT32_MAX },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t value;

		(void)remove_dir(state);
		assert_int_equal(make_dir(state), 0);
		assert_int_equal(sysfs_write(dir, "attribute", rows[i].text),
				 0);
		assert_true(sysfs_read_number(dir, "attribute", rows[i].base,
					      &value));
		assert_int_equal(value, rows[i].value);
	}
}

static void what_is_no_number_is_refused(void **state)
{
	static const char *const texts[] = {
		"",  "\n", "-1",         "+1",
		"x", "1x", "4294967296", "99999999999999999999",
	};
	uint32_t value = 77;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *end = sysfs_scan_number(texts[i], 10, &value);

		assert_true(!end || *end != '\0');
	}
	assert_false(sysfs_read_number(dir, "none", 10, &value));
}

#define in_dir(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_dir(what_is_written_is_read),
		in_dir(what_does_not_fit_is_left_out),
		in_dir(what_is_not_there_is_an_error),
		in_dir(a_path_that_is_too_long_is_an_error),
		in_dir(attributes_are_read_as_numbers),
		in_dir(what_is_no_number_is_refused),
	};

	return cmocka_run_group_tests_name("sysfs", tests, NULL, NULL);
}
