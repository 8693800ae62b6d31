/* SPDX-License-Identifier: Apache-2.0 */
/* What is to stay attached: its name, its file, and the file read again. */
#include "frontend/wish.h"

#include <errno.h>
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

#include "frontend/agent_config.h"
#include "frontend/wish_list.h"

#define DIR_BYTES 64

#define SECTION(name) \
	"attach \"" name "\" { gateway = \"tcp:a\" busid = \"1-1\" }\n"

static char dir[DIR_BYTES];

static int make_dir(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/test_wish.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	return setenv("XUSBIP_WISH_DIR", dir, 1);
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

static struct wish wish_of(const char *gateway, const char *busid)
{
	struct wish wish = { 0 };
	const char *why;

	assert_int_equal(address_parse(gateway, &wish.gateway, &why), 0);
	(void)snprintf(wish.busid, sizeof(wish.busid), "%s", busid);
	wish_set_name(&wish);
	return wish;
}

static void a_name_is_made_of_the_device_and_is_the_same_each_time(void **state)
{
	struct wish a = wish_of("tls:lab", "1-1.2");
	struct wish b = wish_of("tls:lab", "1-1.2");
	struct wish other = wish_of("tls:den", "1-1.2");
	struct wish longest =
		wish_of("tcp:lab", "abcdefghij0123456789abcdefghijk");

	(void)state;
	assert_string_equal(a.name, b.name);
	assert_string_not_equal(a.name, other.name);
	assert_non_null(strstr(a.name, "1-1-2"));
	assert_true(wish_is_name(a.name));
	assert_true(wish_is_name(longest.name));
}

static void names_are_words(void **state)
{
	(void)state;
	assert_true(wish_is_name("stick"));
	assert_true(wish_is_name("a-b_9"));
	assert_false(wish_is_name(""));
	assert_false(wish_is_name("-a"));
	assert_false(wish_is_name(".lock"));
	assert_false(wish_is_name("a/b"));
	assert_false(wish_is_name("a b"));
	assert_true(wish_is_name("0123456789012345678901234567890"));
	assert_false(wish_is_name("01234567890123456789012345678901"));
}

static void a_file_is_read_as_it_was_written(void **state)
{
	static const char *const busids[] = { "1-1.2", "1-1@lab", "a\"b",
					      "a\\b",  "${HOME}", "#x" };
	struct wish read[WISH_MAX];
	struct stat st;
	char path[DIR_BYTES + WISH_NAME_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(busids) / sizeof(*busids); i++) {
		struct wish wish = wish_of("tls:[fe80::1]:77", busids[i]);

		(void)snprintf(wish.pin, sizeof(wish.pin), "sha256:%064d", 7);
		wish.vendor = 0x0781;
		wish.product = (uint16_t)i;
		assert_int_equal(wish_write(&wish), 0);
		(void)snprintf(path, sizeof(path), "%s/%s", dir, wish.name);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);

		assert_int_equal(wish_list(read), 1);
		assert_true(wish_is_same(&wish, &read[0]));

		assert_int_equal(wish_remove(wish.name), 0);
		assert_int_equal(wish_remove(wish.name), -ENOENT);
	}
}

static void a_file_that_is_no_wish_is_left_out(void **state)
{
	static const char *const texts[] = {
		"",
		"rubbish",
		SECTION("y"),
		"attach \"x\" { gateway = \"tcp:a\" }",
		SECTION("x") SECTION("z"),
	};
	struct wish wish = wish_of("tcp:a", "1-1");
	struct wish read[WISH_MAX];
	char path[DIR_BYTES + WISH_NAME_BYTES];

	(void)state;
	assert_int_equal(wish_write(&wish), 0);
	(void)snprintf(path, sizeof(path), "%s/x", dir);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		FILE *file = fopen(path, "we");

		assert_non_null(file);
		assert_true(fputs(texts[i], file) >= 0);
		assert_int_equal(fclose(file), 0);

		assert_int_equal(wish_list(read), 1);
		assert_true(wish_is_same(&wish, &read[0]));
	}
	(void)unlink(path);
	(void)wish_remove(wish.name);
}

static void a_device_is_named_by_what_is_known_of_it(void **state)
{
	struct wish wish = wish_of("tcp:a", "1-1.2");
	char text[WISH_DEVICE_BYTES];

	(void)state;
	wish_name_device(&wish, text);
	assert_string_equal(text, "1-1.2");
	wish.vendor = 0x781;
	wish_name_device(&wish, text);
	assert_string_equal(text, "1-1.2 0781:0000");
	wish.busid[0] = '\0';
	wish_name_device(&wish, text);
	assert_string_equal(text, "0781:0000");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_name_is_made_of_the_device_and_is_the_same_each_time),
		cmocka_unit_test(names_are_words),
		cmocka_unit_test(a_file_is_read_as_it_was_written),
		cmocka_unit_test(a_file_that_is_no_wish_is_left_out),
		cmocka_unit_test(a_device_is_named_by_what_is_known_of_it),
	};

	return cmocka_run_group_tests_name("wish", tests, make_dir, remove_dir);
}
