/* SPDX-License-Identifier: Apache-2.0 */
/* Records of attachments: their form, their identity, and their end. */
#include "frontend/record.h"

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

#include "frontend/sysfs.h"

static const char pattern[] = "/tmp/test_record.XXXXXX";
static char root[sizeof(pattern)];
static char dir[64];
static char vhci[64];

static const struct record sample = { "10.0.0.1", "3240", "1-1.2" };

static int make_root(void **state)
{
	(void)state;
	memcpy(root, pattern, sizeof(pattern));
	if (!mkdtemp(root))
		return -1;
	(void)snprintf(dir, sizeof(dir), "%s/vhci_hcd", root);
	(void)snprintf(vhci, sizeof(vhci), "%s/vhci", root);
	return mkdir(vhci, 0700);
}

static int remove_root(void **state)
{
	char command[96];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf %s", root);
	/* The folder is ours and has no name but mkdtemp's. */
	return system(command); /* NOLINT(cert-env33-c) */
}

static void put_status(const char *port_lines)
{
	char path[96];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/status", vhci);
	file = fopen(path, "w");
	assert_non_null(file);
	(void)fprintf(file, "hub port sta spd dev sockfd local_busid\n%s",
		      port_lines);
	assert_int_equal(fclose(file), 0);
}

static bool has_record(uint32_t port)
{
	struct record record;

	return record_read(dir, port, &record) == 0;
}

/* As if it had been written that long ago. */
static void age(uint32_t port, int seconds)
{
	struct timespec times[2];
	char path[96];

	(void)clock_gettime(CLOCK_REALTIME, &times[0]);
	times[0].tv_sec -= seconds;
	times[1] = times[0];
	(void)snprintf(path, sizeof(path), "%s/port%u", dir, port);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void the_record_of_tcp_is_the_stock_one(void **state)
{
	const struct address tcp = { ADDRESS_TCP, "10.0.0.1", 3240, 0 };
	struct record record;

	(void)state;
	record_set(&record, &tcp, "1-1.2");

	assert_string_equal(record.host, "10.0.0.1");
	assert_string_equal(record.service, "3240");
	assert_string_equal(record.busid, "1-1.2");
}

static void other_addresses_keep_their_kind(void **state)
{
	static const struct {
		struct address address;
		const char *host;
		const char *service;
	} rows[] = {
		{ { ADDRESS_XEN, "dom0", 0, 0 }, "xen:dom0", "3240" },
		{ { ADDRESS_TLS, "lab", 3241, 0 }, "tls:lab", "3241" },
		{ { ADDRESS_UNIX, "/a b\t", 0, 0 }, "unix:/a_b_", "3240" },
		{ { ADDRESS_VSOCK, "", 7, 2 }, "vsock:2", "7" },
		{ { ADDRESS_TCP, "::1", 9, 0 }, "::1", "9" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct record record;

		record_set(&record, &rows[i].address, "2-1");
		assert_string_equal(record.host, rows[i].host);
		assert_string_equal(record.service, rows[i].service);
	}
}

static void a_record_is_one_line_in_a_private_folder(void **state)
{
	struct record_id id;
	char text[64];
	struct stat st;

	(void)state;
	assert_int_equal(record_write(dir, 3, &sample, &id), 0);

	assert_true(sysfs_read(dir, "port3", text, sizeof(text)) > 0);
	assert_string_equal(text, "10.0.0.1 3240 1-1.2\n");
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void what_was_written_is_read(void **state)
{
	struct record record;
	struct record_id id;

	(void)state;
	assert_int_equal(record_write(dir, 0, &sample, &id), 0);
	assert_int_equal(record_read(dir, 0, &record), 0);

	assert_string_equal(record.host, sample.host);
	assert_string_equal(record.service, sample.service);
	assert_string_equal(record.busid, sample.busid);
	assert_int_equal(record_read(dir, 1, &record), -ENOENT);
}

static void what_is_no_record_is_refused(void **state)
{
	static const char *const lines[] = {
		"",
		"host\n",
		"host port\n",
		"host 3240 1-1", /* cut */
		" 3240 1-1\n",
		"host 3240 \n",
		"host longer-than-a-port 1-1\n",
		"host 3240 a-bus-id-that-is-longer-than-any-can-be\n",
	};
	struct record_id id;
	char path[96];

	(void)state;
	assert_int_equal(record_write(dir, 0, &sample, &id), 0);
	(void)snprintf(path, sizeof(path), "%s/port0", dir);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct record record;
		FILE *file = fopen(path, "w");

		assert_non_null(file);
		assert_true(fputs(lines[i], file) >= 0);
		assert_int_equal(fclose(file), 0);
		assert_int_equal(record_read(dir, 0, &record), -EBADMSG);
	}
}

static void a_record_written_anew_is_another_one(void **state)
{
	struct record_id first;
	struct record_id second;

	(void)state;
	assert_int_equal(record_write(dir, 0, &sample, &first), 0);
	assert_true(record_is(dir, 0, &first));
	age(0, 1); /* clocks of file systems are coarse */
	assert_int_equal(record_write(dir, 0, &sample, &second), 0);

	assert_false(record_is(dir, 0, &first));
	assert_true(record_is(dir, 0, &second));
	record_remove(dir, 0);
	assert_false(record_is(dir, 0, &second));
}

static void the_last_record_takes_the_folder_with_it(void **state)
{
	struct record_id id;

	(void)state;
	assert_int_equal(record_write(dir, 0, &sample, &id), 0);
	assert_int_equal(record_write(dir, 1, &sample, &id), 0);

	record_remove(dir, 0);
	assert_int_equal(access(dir, F_OK), 0);
	record_remove(dir, 1);
	assert_int_equal(access(dir, F_OK), -1);
	record_remove(dir, 1);
}

static void a_link_in_place_of_a_record_is_not_followed(void **state)
{
	struct record_id id;
	char path[96];
	char victim[96];

	(void)state;
	assert_int_equal(mkdir(dir, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/port0", dir);
	(void)snprintf(victim, sizeof(victim), "%s/victim", root);
	assert_int_equal(symlink(victim, path), 0);

	assert_int_equal(record_write(dir, 0, &sample, &id), -ELOOP);
	assert_int_equal(access(victim, F_OK), -1);
}

static void a_sweep_takes_old_records_of_free_ports_only(void **state)
{
	struct record_id id;

	(void)state;
	put_status("hs  0000 004 000 00000000 000000 0-0\n"
		   "hs  0001 006 003 00010002 000003 3-2\n"
		   "hs  0002 004 000 00000000 000000 0-0\n");
	for (uint32_t port = 0; port < 4; port++)
		assert_int_equal(record_write(dir, port, &sample, &id), 0);
	age(0, 10); /* free and old */
	age(1, 10); /* in use */
	age(3, 10); /* no port of this driver */

	assert_int_equal(record_sweep(dir, vhci, 5000), 1);

	assert_false(has_record(0));
	assert_true(has_record(1));
	assert_true(has_record(2)); /* free, but young */
	assert_true(has_record(3));
}

static void a_sweep_without_records_or_driver_does_nothing(void **state)
{
	(void)state;
	assert_int_equal(record_sweep(dir, vhci, 0), -ENOENT);
	put_status("hs  0000 004 000 00000000 000000 0-0\n");
	assert_int_equal(record_sweep(dir, vhci, 0), 0);
}

#define in_root(test) \
	cmocka_unit_test_setup_teardown(test, make_root, remove_root)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_record_of_tcp_is_the_stock_one),
		cmocka_unit_test(other_addresses_keep_their_kind),
		in_root(a_record_is_one_line_in_a_private_folder),
		in_root(what_was_written_is_read),
		in_root(what_is_no_record_is_refused),
		in_root(a_record_written_anew_is_another_one),
		in_root(the_last_record_takes_the_folder_with_it),
		in_root(a_link_in_place_of_a_record_is_not_followed),
		in_root(a_sweep_takes_old_records_of_free_ports_only),
		in_root(a_sweep_without_records_or_driver_does_nothing),
	};

	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
