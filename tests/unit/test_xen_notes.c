/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent of a Xen guest keeps in files: frontend/xen_notes.c. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/xen_notes.h"

static char dir[64];

static int make_dir(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/xusbip-notes.XXXXXX");
	assert_non_null(mkdtemp(dir));
	/* The folder itself is made when it is needed. */
	assert_int_equal(rmdir(dir), 0);
	return setenv("XUSBIP_XEN_DIR", dir, 1);
}

static int remove_dir(void **state)
{
	char command[96];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command); /* NOLINT(cert-env33-c) */
}

static struct xen_note note_of(const char *busid, uint16_t product)
{
	struct xen_note note = { .vendor = 0x1234, .product = product };

	(void)snprintf(note.busid, sizeof(note.busid), "%s", busid);
	return note;
}

static void what_was_let_go_of_is_kept_for_each_gateway(void **state)
{
	struct xen_note notes[XEN_NOTES_MAX];
	struct xen_note first = note_of("1-1", 1);
	struct xen_note second = note_of("1-2", 0xbadd);

	(void)state;
	assert_int_equal(xen_notes_held(0, notes), 0);
	assert_int_equal(xen_notes_hold(0, &first), 0);
	assert_int_equal(xen_notes_hold(0, &second), 0);
	assert_int_equal(xen_notes_hold(0, &first), 0);
	assert_int_equal(xen_notes_hold(7, &first), 0);

	assert_int_equal(xen_notes_held(0, notes), 2);
	assert_string_equal(notes[1].busid, "1-2");
	assert_int_equal(notes[1].vendor, 0x1234);
	assert_int_equal(notes[1].product, 0xbadd);
	assert_int_equal(xen_notes_drop(0, "1-1"), 0);
	assert_int_equal(xen_notes_drop(0, "1-1"), 0);
	assert_int_equal(xen_notes_held(0, notes), 1);
	assert_int_equal(xen_notes_drop(0, "1-2"), 0);
	assert_int_equal(xen_notes_held(0, notes), 0);
	assert_int_equal(xen_notes_held(7, notes), 1);
}

static void a_gateway_s_devices_beyond_the_limit_are_refused(void **state)
{
	struct xen_note notes[XEN_NOTES_MAX];
	struct xen_note note;
	char busid[8];

	(void)state;
	for (unsigned i = 0; i < XEN_NOTES_MAX; i++) {
		(void)snprintf(busid, sizeof(busid), "1-%u", i);
		note = note_of(busid, 1);
		assert_int_equal(xen_notes_hold(0, &note), 0);
	}
	note = note_of("2-1", 1);
	assert_true(xen_notes_hold(0, &note) < 0);
	assert_int_equal(xen_notes_held(0, notes), XEN_NOTES_MAX);
}

static void lines_that_are_no_notes_are_left_out(void **state)
{
	static const char text[] = "1-1\n 1-1 1234:5678\n1-2 1234\n"
				   "1-3 12345:1\n1-4 1234:567x\n\n"
				   "1-5 1234:5678 \n1-6 1234:5678\n";
	struct xen_note notes[XEN_NOTES_MAX];
	struct xen_note note = note_of("1-1", 1);
	char path[80];
	FILE *file;

	(void)state;
	assert_int_equal(xen_notes_hold(0, &note), 0);
	(void)snprintf(path, sizeof(path), "%s/held-0", dir);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);

	assert_int_equal(xen_notes_held(0, notes), 1);
	assert_string_equal(notes[0].busid, "1-6");
}

/* A process that notes that it is a link, and lives. */
static pid_t start_link(const char *gateway, const char *busid)
{
	struct xen_note note = note_of(busid, 1);
	char byte = 0;
	int ready[2];
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		byte = xen_notes_add_link(gateway, &note) == 0;
		(void)!write(ready[1], &byte, 1);
		(void)pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(byte, 1);
	(void)close(ready[0]);
	(void)close(ready[1]);
	return pid;
}

static void a_link_is_known_by_its_gateway_while_it_lives(void **state)
{
	struct xen_note notes[XEN_NOTES_MAX];
	pid_t first = start_link("xen:1", "1-1");
	pid_t other = start_link("xen:10", "1-2");
	int status;

	(void)state;
	assert_int_equal(xen_notes_links("xen:1", notes), 1);
	assert_int_equal(notes[0].pid, first);
	assert_string_equal(notes[0].busid, "1-1");

	xen_notes_end_link(&notes[0]);

	assert_int_equal(waitpid(first, &status, 0), first);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	assert_int_equal(xen_notes_links("xen:1", notes), 0);
	assert_int_equal(xen_notes_links("xen:10", notes), 1);
	(void)kill(other, SIGKILL);
	(void)waitpid(other, &status, 0);
}

static void a_process_that_is_no_link_any_more_is_not_told_to_end(void **state)
{
	struct xen_note notes[XEN_NOTES_MAX];
	struct xen_note self = note_of("1-1", 1);
	pid_t gone = start_link("xen:0", "1-1");
	int status;

	(void)state;
	assert_int_equal(xen_notes_links("xen:0", notes), 1);
	(void)kill(gone, SIGKILL);
	(void)waitpid(gone, &status, 0);

	xen_notes_end_link(&notes[0]);
	self.pid = getpid(); /* as if the number had been given again */
	xen_notes_end_link(&self);
	assert_int_equal(xen_notes_links("xen:0", notes), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			what_was_let_go_of_is_kept_for_each_gateway, make_dir,
			remove_dir),
		cmocka_unit_test_setup_teardown(
			a_gateway_s_devices_beyond_the_limit_are_refused,
			make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(
			lines_that_are_no_notes_are_left_out, make_dir,
			remove_dir),
		cmocka_unit_test_setup_teardown(
			a_link_is_known_by_its_gateway_while_it_lives, make_dir,
			remove_dir),
		cmocka_unit_test_setup_teardown(
			a_process_that_is_no_link_any_more_is_not_told_to_end,
			make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
