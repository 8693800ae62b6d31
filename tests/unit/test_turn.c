/* SPDX-License-Identifier: Apache-2.0 */
/* As many have a turn at once as there are places; the next one waits. */
#include "frontend/turn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vchan-transport/channel.h"

#define LONG_MS  10000u
#define SHORT_MS 50u

static char dir[] = "/tmp/test_turn.XXXXXX";

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	return setenv("XUSBIP_XEN_DIR", dir, 1);
}

static int teardown(void **state)
{
	char path[64];

	(void)state;
	for (unsigned i = 0; i < TURN_PLACES; i++) {
		(void)snprintf(path, sizeof(path), "%s/turn-%u.lock", dir, i);
		(void)unlink(path);
	}
	return rmdir(dir);
}

static void take_all(int turns[TURN_PLACES])
{
	for (unsigned i = 0; i < TURN_PLACES; i++) {
		turns[i] = turn_take(clock_ms());
		assert_true(turns[i] >= 0);
	}
}

static void give_all(const int turns[TURN_PLACES])
{
	for (unsigned i = 0; i < TURN_PLACES; i++)
		(void)close(turns[i]);
}

static void one_more_than_there_are_places_waits_until_its_limit(void **state)
{
	int turns[TURN_PLACES];
	uint64_t began = clock_ms();

	(void)state;
	take_all(turns);
	assert_int_equal(turn_take(began + SHORT_MS), -ETIMEDOUT);
	assert_true(clock_ms() >= began + SHORT_MS);
	give_all(turns);
}

static void a_turn_that_is_given_back_is_the_next_ones(void **state)
{
	int turns[TURN_PLACES];
	int status;
	pid_t pid;

	(void)state;
	take_all(turns);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		/* What is inherited is held, too. */
		give_all(turns);
		_exit(turn_take(clock_ms() + LONG_MS) >= 0 ? 0 : 1);
	}
	(void)close(turns[2]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	turns[2] = turn_take(clock_ms());
	assert_true(turns[2] >= 0);
	give_all(turns);
}

static void without_a_folder_there_is_no_turn(void **state)
{
	(void)state;
	(void)setenv("XUSBIP_XEN_DIR", "/nonexistent/folder", 1);
	assert_int_equal(turn_take(clock_ms() + LONG_MS), -ENOENT);
	(void)setenv("XUSBIP_XEN_DIR", dir, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			one_more_than_there_are_places_waits_until_its_limit),
		cmocka_unit_test(a_turn_that_is_given_back_is_the_next_ones),
		cmocka_unit_test(without_a_folder_there_is_no_turn),
	};

	return cmocka_run_group_tests_name("turn", tests, setup, teardown);
}
