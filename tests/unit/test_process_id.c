/* SPDX-License-Identifier: Apache-2.0 */
/* Which process is which. */
#include "vchan-transport/process_id.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_process_is_known_by_its_start_whatever_its_name),
		cmocka_unit_test(a_process_that_has_ended_was_never_started),
	};

	return cmocka_run_group_tests_name("process_id", tests, NULL, NULL);
}
