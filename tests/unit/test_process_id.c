/* SPDX-License-Identifier: Apache-2.0 */
/* Which process is which. */
#include "vchan-transport/process_id.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void a_process_is_known_by_its_start_whatever_its_name(void **state)
{
	static const char name[] = "a) S 1 (strange";
	char old_name[16];
	uint64_t started_at = process_started_at(getpid());

	(void)state;
	assert_true(started_at > 0);
	assert_true(process_started_at(1) < started_at);
	(void)prctl(PR_GET_NAME, old_name, 0, 0, 0);
	(void)prctl(PR_SET_NAME, name, 0, 0, 0);

	assert_int_equal(process_started_at(getpid()), started_at);
	(void)prctl(PR_SET_NAME, old_name, 0, 0, 0);
}

static void a_process_that_has_ended_was_never_started(void **state)
{
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(0);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);

	assert_int_equal(process_started_at(pid), 0);
}

static void a_process_is_opened_until_it_has_ended(void **state)
{
	pid_t pid = fork();
	uint64_t started_at;
	siginfo_t end;
	int pidfd;

	(void)state;
	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	assert_true(pid > 0);
	started_at = process_started_at(pid);
	assert_int_equal(process_open(pid, started_at, &pidfd), 0);
	assert_int_equal(close(pidfd), 0);
	assert_false(process_is_over(pid, started_at));
	/* Another one had its number. */
	assert_int_equal(process_open(pid, started_at - 1, &pidfd), -ESRCH);
	assert_true(process_is_over(pid, started_at - 1));

	/* It has ended, and nobody has waited for it. */
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT), 0);
	assert_int_equal(process_started_at(pid), started_at);
	assert_int_equal(process_open(pid, started_at, &pidfd), -ESRCH);
	assert_true(process_is_over(pid, started_at));

	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(process_open(pid, started_at, &pidfd), -ESRCH);
	assert_true(process_is_over(pid, started_at));
	assert_true(process_is_over(0, 0));
}

static void *look_at_own_number(void *arg)
{
	bool *ret_is_over = arg;

	*ret_is_over = process_is_over(gettid(), process_started_at(gettid()));
	return NULL;
}

static void a_number_that_a_thread_has_is_no_process(void **state)
{
	bool is_over = false;
	pthread_t thread;

	(void)state;
	assert_int_equal(
		pthread_create(&thread, NULL, look_at_own_number, &is_over), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(is_over);
}

static void who_cannot_look_does_not_say_that_a_process_has_ended(void **state)
{
	struct rlimit before;
	struct rlimit none;
	bool is_over;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	is_over = process_is_over(getpid(), 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);

	assert_false(is_over);
	assert_true(process_is_over(getpid(), 1));
	/* Nor who could not when it was noted. */
	assert_false(process_is_over(getpid(), 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_process_is_known_by_its_start_whatever_its_name),
		cmocka_unit_test(a_process_that_has_ended_was_never_started),
		cmocka_unit_test(a_process_is_opened_until_it_has_ended),
		cmocka_unit_test(a_number_that_a_thread_has_is_no_process),
		cmocka_unit_test(
			who_cannot_look_does_not_say_that_a_process_has_ended),
	};

	return cmocka_run_group_tests_name("process_id", tests, NULL, NULL);
}
