/* SPDX-License-Identifier: Apache-2.0 */
/* How devices of other gateways are called. */
#include "gateway/remote_name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void a_name_is_the_bus_id_and_where_it_is(void **state)
{
	char name[USBIP_BUSID_BYTES];

	(void)state;
	assert_true(remote_name_join(name, "1-1.2", "lab"));
	assert_string_equal(name, "1-1.2@lab");
	assert_true(remote_name_join(name, "zero0@a", "b"));
	assert_string_equal(name, "zero0@a@b");
}

static void a_whole_name_has_at_most_31_characters(void **state)
{
	char name[USBIP_BUSID_BYTES] = "untouched";
	char busid[USBIP_BUSID_BYTES] = "";

	(void)state;
	memset(busid, 'x', 28);
	assert_false(remote_name_join(name, busid, "lab"));
	assert_string_equal(name, "untouched");
	busid[27] = '\0';
	assert_true(remote_name_join(name, busid, "lab"));
	assert_int_equal(strlen(name), 31);
}

static void what_could_not_be_a_file_s_name_is_none(void **state)
{
	static const char *const bad[] = { "",   "../x", "x/y", ".x",  "-x",
					   "@x", "x y",  "x\n", "\xff" };
	char name[USBIP_BUSID_BYTES];
	char whole[USBIP_BUSID_BYTES];
	const char *remote;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(remote_name_join(name, bad[i], "lab"));
		(void)snprintf(whole, sizeof(whole), "%s@lab", bad[i]);
		assert_false(remote_name_split(whole, name, &remote));
	}
}

static void a_name_is_split_at_its_last_at(void **state)
{
	static const struct {
		const char *name;
		const char *busid;
		const char *remote;
	} rows[] = {
		{ "1-1.2@lab", "1-1.2", "lab" },
		{ "zero0@a@b", "zero0@a", "b" },
		{ "1-1", NULL, NULL },
		{ "1-1@", NULL, NULL },
		{ "@lab", NULL, NULL },
		{ "@", NULL, NULL },
		{ "", NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char busid[USBIP_BUSID_BYTES];
		const char *remote;
		bool is_one = remote_name_split(rows[i].name, busid, &remote);

		assert_int_equal(is_one, rows[i].busid != NULL);
		if (!is_one)
			continue;
		assert_string_equal(busid, rows[i].busid);
		assert_string_equal(remote, rows[i].remote);
		assert_true(remote_name_is_one(rows[i].name));
	}
	assert_false(remote_name_is_one("1-1.2"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_is_the_bus_id_and_where_it_is),
		cmocka_unit_test(a_whole_name_has_at_most_31_characters),
		cmocka_unit_test(what_could_not_be_a_file_s_name_is_none),
		cmocka_unit_test(a_name_is_split_at_its_last_at),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
