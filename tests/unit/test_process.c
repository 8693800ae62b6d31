/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between processes, and leaving a terminal. */
#include "vchan-transport/process.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vchan-transport/channel.h"

#define LIMIT_MS 5000u

struct message {
	uint32_t number;
	char text[60];
};

static int open_pipe(void **state)
{
	static int ends[2];

	*state = ends;
	return pipe2(ends, O_CLOEXEC);
}

static int close_pipe(void **state)
{
	int *ends = *state;

	(void)close(ends[0]);
	if (ends[1] >= 0)
		(void)close(ends[1]);
	return 0;
}

static void a_message_arrives_whole(void **state)
{
	const struct message sent = { 7, "seven" };
	struct message received;
	int *ends = *state;

	assert_int_equal(process_send(ends[1], &sent, sizeof(sent)), 0);
	assert_int_equal(process_receive(ends[0], &received, sizeof(received),
					 clock_ms() + LIMIT_MS),
			 1);
	assert_memory_equal(&sent, &received, sizeof(sent));
}

static void silence_has_a_limit(void **state)
{
	struct message received;
	int *ends = *state;

	assert_int_equal(process_receive(ends[0], &received, sizeof(received),
					 clock_ms() + 20),
			 -ETIMEDOUT);
	assert_int_equal(process_receive(ends[0], &received, sizeof(received),
					 0),
			 -ETIMEDOUT);
	assert_false(process_has_ended(ends[0], 0));
}

static void an_end_is_told_at_once(void **state)
{
	struct message received;
	int *ends = *state;

	(void)close(ends[1]);
	ends[1] = -1;

	assert_true(process_has_ended(ends[0], UINT64_MAX));
	assert_int_equal(process_receive(ends[0], &received, sizeof(received),
					 UINT64_MAX),
			 0);
}

static void a_message_of_another_size_is_refused(void **state)
{
	struct message received;
	int *ends = *state;

	assert_int_equal(process_send(ends[1], "x", 1), 0);
	assert_int_equal(process_receive(ends[0], &received, sizeof(received),
					 clock_ms() + LIMIT_MS),
			 -EBADMSG);
}

/* What the child of the next test finds; a bit for each mistake. */
static int detach_and_look(int kept, int dropped)
{
	char name[16] = "";
	char folder[8] = "";
	int mistakes = 0;

	process_detach("a-test-process", &kept, 1);
	if (fcntl(kept, F_GETFD) < 0)
		mistakes |= 1;
	if (fcntl(dropped, F_GETFD) >= 0)
		mistakes |= 2;
	if (getsid(0) != getpid())
		mistakes |= 4;
	(void)prctl(PR_GET_NAME, name, 0, 0, 0);
	if (strcmp(name, "a-test-process") != 0)
		mistakes |= 8;
	if (!getcwd(folder, sizeof(folder)) || strcmp(folder, "/") != 0)
		mistakes |= 16;
	if (read(STDIN_FILENO, name, 1) != 0 || write(1, "lost", 4) != 4)
		mistakes |= 32;
	return mistakes;
}

static void a_detached_process_keeps_what_it_names_only(void **state)
{
	int *ends = *state;
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(detach_and_look(ends[1], ends[0]));
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define with_pipe(test) \
	cmocka_unit_test_setup_teardown(test, open_pipe, close_pipe)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_pipe(a_message_arrives_whole),
		with_pipe(silence_has_a_limit),
		with_pipe(an_end_is_told_at_once),
		with_pipe(a_message_of_another_size_is_refused),
		with_pipe(a_detached_process_keeps_what_it_names_only),
	};

	return cmocka_run_group_tests_name("process", tests, NULL, NULL);
}
