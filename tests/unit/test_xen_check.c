/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/xen_check.h"

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

#define LIMIT "sys/module/xen_gntalloc/parameters/limit"

/* A machine's dev and sys, in a folder of its own, which we are in. */
static const char *const folders[] = {
	"dev",
	"dev/xen",
	"sys",
	"sys/module",
	"sys/module/xen_gntalloc",
	"sys/module/xen_gntalloc/parameters",
};
static const char *const files[] = { "dev/xen/gntalloc", "dev/xen/evtchn",
				     LIMIT };
#define NUM_FOLDERS (sizeof(folders) / sizeof(folders[0]))
#define NUM_FILES   (sizeof(files) / sizeof(files[0]))

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void set_limit(const char *text)
{
	write_file(LIMIT, text);
}

static int setup(void **state)
{
	static char root[64];

	(void)snprintf(root, sizeof(root), "/tmp/xusbip-xen-check.XXXXXX");
	if (!mkdtemp(root) || chdir(root) < 0)
		return -1;
	*state = root;
	for (size_t i = 0; i < NUM_FOLDERS; i++)
		assert_int_equal(mkdir(folders[i], 0700), 0);
	for (size_t i = 0; i < NUM_FILES; i++)
		write_file(files[i], "16512\n");
	return 0;
}

static int teardown(void **state)
{
	for (size_t i = 0; i < NUM_FILES; i++)
		(void)unlink(files[i]);
	for (size_t i = NUM_FOLDERS; i-- > 0;)
		(void)rmdir(folders[i]);
	return chdir("/") < 0 ? -1 : rmdir(*state);
}

static void what_the_installation_sets_is_enough_for_any_rings(void **state)
{
	char why[XEN_CHECK_WHY_BYTES];

	for (size_t bytes = 4096; bytes <= (1u << 20); bytes *= 2)
		assert_int_equal(xen_check(*state, bytes, why), 0);
}

static void a_limit_that_is_too_low_is_told_with_its_cure(void **state)
{
	char why[XEN_CHECK_WHY_BYTES];

	set_limit("1024\n");
	assert_int_equal(xen_check(*state, 262144, why), -ENOSPC);
	assert_string_equal(why,
			    "xen_gntalloc grants 1024 pages, enough for 7 "
			    "attachments, of which one guest gets half: "
			    "write 16512 to "
			    "/sys/module/xen_gntalloc/parameters/limit, and "
			    "\"options xen_gntalloc limit=16512\" to "
			    "/etc/modprobe.d/xusbip.conf");
	set_limit("4127\n");
	assert_int_equal(xen_check(*state, 262144, why), -ENOSPC);
	set_limit("4128\n");
	assert_int_equal(xen_check(*state, 262144, why), 0);
}

static void a_limit_that_cannot_be_read_is_no_reason_to_warn(void **state)
{
	char why[XEN_CHECK_WHY_BYTES];

	set_limit("1024\n");
	assert_int_equal(xen_check_limit(*state), 1024);
	set_limit("many\n");
	assert_int_equal(xen_check(*state, 262144, why), 0);
	assert_int_equal(xen_check_limit(*state), 16512);
	assert_int_equal(unlink(LIMIT), 0);
	assert_int_equal(xen_check(*state, 262144, why), 0);
	assert_int_equal(xen_check_limit(*state), 16512);
}

static void a_missing_device_is_told_with_its_module(void **state)
{
	char why[XEN_CHECK_WHY_BYTES];

	assert_int_equal(unlink("dev/xen/evtchn"), 0);
	assert_int_equal(xen_check(*state, 4096, why), -ENODEV);
	assert_non_null(strstr(why, "modprobe xen_evtchn"));
	assert_int_equal(unlink("dev/xen/gntalloc"), 0);
	assert_int_equal(xen_check(*state, 4096, why), -ENODEV);
	assert_non_null(strstr(why, "modprobe xen_gntalloc"));
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_the_installation_sets_is_enough_for_any_rings),
		TEST(a_limit_that_is_too_low_is_told_with_its_cure),
		TEST(a_limit_that_cannot_be_read_is_no_reason_to_warn),
		TEST(a_missing_device_is_told_with_its_module),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
