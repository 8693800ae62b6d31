/* SPDX-License-Identifier: Apache-2.0 */
/* Who serves a channel: gateway/channel_lock.c. */
#include "gateway/channel_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vchan-transport/process_id.h"

static char dir[] = "/tmp/test_channel_lock.XXXXXX";

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

static struct channel_note note_of(pid_t pid, const char *busid)
{
	struct channel_note note = { .pid = pid, .epoch = 0xfe, .uuid = "u5" };

	(void)snprintf(note.busid, sizeof(note.busid), "%s", busid);
	return note;
}

static pid_t start_session(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	assert_true(pid > 0);
	return pid;
}

/* It has ended, and nobody has waited for it. */
static void kill_session(pid_t pid)
{
	siginfo_t end;

	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT), 0);
}

static void what_a_lock_says_is_found_while_it_is_held(void **state)
{
	pid_t pid = start_session();
	struct channel_note note = note_of(pid, "");
	struct channel_note found;
	int second;
	int fd;

	(void)state;
	assert_int_equal(channel_lock_take(dir, 5, 3, &fd), 0);
	assert_int_equal(channel_lock_take(dir, 5, 3, &second), -EBUSY);
	assert_int_equal(channel_lock_note(fd, &note), 0);
	note = note_of(pid, "1-1.2");
	assert_int_equal(channel_lock_note(fd, &note), 0);

	assert_int_equal(channel_lock_find(dir, 5, 3, &found), 1);
	assert_int_equal(found.pid, pid);
	assert_int_equal(found.started_at, process_started_at(pid));
	assert_int_equal(found.epoch, 0xfe);
	assert_string_equal(found.uuid, "u5");
	assert_string_equal(found.busid, "1-1.2");

	kill_session(pid);
	channel_lock_release(fd);
	assert_int_equal(channel_lock_find(dir, 5, 3, &found), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_session_that_unlocks_holds_its_channel_until_it_ends(void **state)
{
	pid_t pid = start_session();
	struct channel_note note = note_of(pid, "1-1.2");
	struct channel_note found;
	int second;
	int fd;

	(void)state;
	assert_int_equal(channel_lock_take(dir, 5, 3, &fd), 0);
	assert_int_equal(channel_lock_note(fd, &note), 0);
	/* For all who have a copy of the descriptor. */
	assert_int_equal(flock(fd, LOCK_UN), 0);
	assert_int_equal(close(fd), 0);

	assert_int_equal(channel_lock_take(dir, 5, 3, &second), -EBUSY);
	channel_lock_remove(dir, 5, 3);
	assert_int_equal(channel_lock_find(dir, 5, 3, &found), 1);
	assert_int_equal(found.pid, pid);
	assert_string_equal(found.busid, "1-1.2");

	kill_session(pid);
	assert_int_equal(channel_lock_find(dir, 5, 3, &found), 0);
	assert_int_equal(channel_lock_take(dir, 5, 3, &fd), 0);
	assert_int_equal(close(fd), 0);
	channel_lock_remove(dir, 5, 3);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void the_lock_that_a_session_gets_cannot_be_written_to(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(channel_lock_take(dir, 5, 3, &fd), 0);

	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(write(fd, "1", 1), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(close(fd), 0);
	channel_lock_remove(dir, 5, 3);
}

static void an_earlier_session_s_words_do_not_stay(void **state)
{
	pid_t pid = start_session();
	struct channel_note note = note_of(pid, "1-1.2");
	struct channel_note found;
	int fd;

	(void)state;
	assert_int_equal(channel_lock_take(dir, 5, 3, &fd), 0);
	assert_int_equal(channel_lock_note(fd, &note), 0);
	assert_int_equal(close(fd), 0);
	kill_session(pid);
	assert_int_equal(waitpid(pid, NULL, 0), pid);

	assert_int_equal(channel_lock_take(dir, 5, 3, &fd), 0);
	assert_int_equal(channel_lock_find(dir, 5, 3, &found), 1);
	assert_int_equal(found.pid, 0);
	assert_string_equal(found.busid, "");
	assert_int_equal(close(fd), 0);
	channel_lock_remove(dir, 5, 3);
}

static void a_process_that_has_ended_is_not_named(void **state)
{
	struct channel_note note;
	struct channel_note found;
	pid_t pid = fork();
	int fd;

	(void)state;
	if (pid == 0)
		_exit(0);
	assert_true(pid > 0);
	assert_int_equal(channel_lock_take(dir, 5, 3, &fd), 0);
	note = note_of(pid, "");
	assert_int_equal(channel_lock_note(fd, &note), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);

	assert_int_equal(channel_lock_find(dir, 5, 3, &found), 1);
	assert_int_equal(found.pid, 0);
	assert_int_equal(close(fd), 0);
	channel_lock_remove(dir, 5, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_lock_says_is_found_while_it_is_held),
		cmocka_unit_test(
			a_session_that_unlocks_holds_its_channel_until_it_ends),
		cmocka_unit_test(
			the_lock_that_a_session_gets_cannot_be_written_to),
		cmocka_unit_test(an_earlier_session_s_words_do_not_stay),
		cmocka_unit_test(a_process_that_has_ended_is_not_named),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
