/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox, in child processes: what a role may still do, and that anything
 * else is the end. A sanitizer's runtime needs the calls that the second half
 * of the tests is about, so they are left out there.
 */
#include "vchan-transport/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "skip.h"
#include "vchan-transport/log.h"

#define PASSED   0
#define FAILED   1
#define NO_ENTRY 2

#define NEEDED   "a sanitizer needs what is forbidden here"

/* Runs in the child after the sandbox was entered; a connected pair to use. */
typedef int child_fn(const int fds[2]);

static int run_in(enum sandbox_role role, child_fn *fn)
{
	int fds[2];
	int status;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		sandbox_at_entry();
		_exit(sandbox_enter(role) < 0 ? NO_ENTRY : fn(fds));
	}
	(void)close(fds[0]);
	(void)close(fds[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_passes(enum sandbox_role role, child_fn *fn)
{
	int status = run_in(role, fn);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), PASSED);
}

static void assert_is_killed(enum sandbox_role role, child_fn *fn)
{
	int status = run_in(role, fn);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

static int talk(const int fds[2])
{
	struct pollfd p = { .fd = fds[1], .events = POLLIN };
	int size = 0;
	socklen_t len = sizeof(size);
	char byte = 'x';

	if (write(fds[0], &byte, 1) != 1 || poll(&p, 1, 1000) != 1 ||
	    recv(fds[1], &byte, 1, 0) != 1 ||
	    send(fds[1], &byte, 1, MSG_NOSIGNAL) != 1 ||
	    read(fds[0], &byte, 1) != 1)
		return FAILED;
	if (getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &size, &len) < 0 ||
	    fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 ||
	    shutdown(fds[0], SHUT_WR) < 0 || close(fds[0]) < 0)
		return FAILED;
	return PASSED;
}

static int use_memory(const int fds[2])
{
	char *big = malloc(64 << 20);
	void *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)fds;
	if (!big || map == MAP_FAILED)
		return FAILED;
	memset(big, 1, 64 << 20);
	free(big);
	return munmap(map, 1 << 20) < 0 ? FAILED : PASSED;
}

static int log_a_line(const int fds[2])
{
	struct stat st;

	(void)fds;
	if (fstat(STDERR_FILENO, &st) < 0)
		return FAILED;
	return write(STDERR_FILENO, "", 0) < 0 ? FAILED : PASSED;
}

static void each_role_may_talk_use_memory_and_log(void **state)
{
	(void)state;
	for (int role = SANDBOX_HANDSHAKE; role <= SANDBOX_LINK; role++) {
		assert_passes((enum sandbox_role)role, talk);
		assert_passes((enum sandbox_role)role, use_memory);
		assert_passes((enum sandbox_role)role, log_a_line);
	}
}

static int log_to_the_system(const int fds[2])
{
	(void)fds;
	log_info("from within");
	return PASSED;
}

/* Whether or not a daemon listens there, or the time zone is known. */
static void the_system_s_log_can_be_written_within(void **state)
{
	(void)state;
	log_to_syslog();
	assert_passes(SANDBOX_SESSION, log_to_the_system);
	assert_passes(SANDBOX_LINK, log_to_the_system);
}

static int use_image(const int fds[2])
{
	char byte = 'x';

	/* Allowed, and an error of the socket's: it is no file. */
	if (pwrite(fds[0], &byte, 1, 0) != -1 || errno != ESPIPE ||
	    pread(fds[0], &byte, 1, 0) != -1 || errno != ESPIPE)
		return FAILED;
	return fdatasync(fds[0]) == -1 && errno == EINVAL ? PASSED : FAILED;
}

static int submit_urb(const int fds[2])
{
	struct usbdevfs_urb urb = { 0 };

	/* Allowed, and an error of the socket's: it is no device. */
	return ioctl(fds[0], USBDEVFS_SUBMITURB, &urb) == -1 &&
			       errno != ENOSYS && errno != EPERM
		       ? PASSED
		       : FAILED;
}

static void a_session_may_use_an_image_and_usbfs(void **state)
{
	(void)state;
	assert_passes(SANDBOX_HANDSHAKE, use_image);
	assert_passes(SANDBOX_HANDSHAKE, submit_urb);
	assert_passes(SANDBOX_SESSION, use_image);
	assert_passes(SANDBOX_SESSION, submit_urb);
}

static int narrow_and_talk(const int fds[2])
{
	return sandbox_narrow() < 0 ? NO_ENTRY : talk(fds);
}

static int narrow_and_use_image(const int fds[2])
{
	return sandbox_narrow() < 0 ? NO_ENTRY : use_image(fds);
}

static void from_the_handshake_a_session_goes_on(void **state)
{
	(void)state;
	assert_passes(SANDBOX_HANDSHAKE, narrow_and_talk);
	assert_passes(SANDBOX_HANDSHAKE, narrow_and_use_image);
}

static int open_file(const int fds[2])
{
	(void)fds;
	return open("/dev/null", O_RDONLY | O_CLOEXEC) < 0 ? FAILED : PASSED;
}

static int open_socket(const int fds[2])
{
	(void)fds;
	return socket(AF_INET, SOCK_STREAM, 0) < 0 ? FAILED : PASSED;
}

static int start_process(const int fds[2])
{
	(void)fds;
	return fork() < 0 ? FAILED : PASSED;
}

static int run_program(const int fds[2])
{
	(void)fds;
	return execl("/bin/true", "true", (char *)NULL) < 0 ? FAILED : PASSED;
}

static int map_executable(const int fds[2])
{
	(void)fds;
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
		       ? FAILED
		       : PASSED;
}

static int kill_parent(const int fds[2])
{
	(void)fds;
	return kill(getppid(), 0) < 0 ? FAILED : PASSED;
}

static int type_for_terminal(const int fds[2])
{
	char c = 'x';

	return ioctl(fds[0], TIOCSTI, &c) < 0 ? FAILED : PASSED;
}

static void what_no_role_needs_kills_it(void **state)
{
	static child_fn *const forbidden[] = {
		open_socket,    start_process, run_program,
		map_executable, kill_parent,   type_for_terminal,
	};

	(void)state;
	skip_unless(!SANDBOX_IS_SANITIZED, NEEDED);
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
		assert_is_killed(SANDBOX_HANDSHAKE, forbidden[i]);
		assert_is_killed(SANDBOX_SESSION, forbidden[i]);
		assert_is_killed(SANDBOX_LINK, forbidden[i]);
	}
}

static int may_not_open(const int fds[2])
{
	char path[8];

	(void)fds;
	return open("/dev/null", O_RDONLY | O_CLOEXEC) == -1 &&
			       errno == EACCES &&
			       readlink("/proc/self/fd/0", path,
					sizeof(path)) == -1 &&
			       errno == EACCES
		       ? PASSED
		       : FAILED;
}

static int narrow_and_open(const int fds[2])
{
	return sandbox_narrow() < 0 ? NO_ENTRY : open_file(fds);
}

static int narrow_and_make_timer(const int fds[2])
{
	(void)fds;
	if (sandbox_narrow() < 0)
		return NO_ENTRY;
	return timerfd_create(CLOCK_MONOTONIC, 0) < 0 ? FAILED : PASSED;
}

/* libusb tries to in vain before there is a device; nobody does later. */
static void files_stay_closed_in_a_handshake_and_kill_later(void **state)
{
	(void)state;
	skip_unless(!SANDBOX_IS_SANITIZED, NEEDED);
	assert_passes(SANDBOX_HANDSHAKE, may_not_open);
	assert_is_killed(SANDBOX_HANDSHAKE, narrow_and_open);
	assert_is_killed(SANDBOX_HANDSHAKE, narrow_and_make_timer);
	assert_is_killed(SANDBOX_SESSION, open_file);
	assert_is_killed(SANDBOX_LINK, open_file);
}

static void a_link_that_touches_a_device_or_file_is_killed(void **state)
{
	(void)state;
	skip_unless(!SANDBOX_IS_SANITIZED, NEEDED);
	assert_is_killed(SANDBOX_LINK, submit_urb);
	assert_is_killed(SANDBOX_LINK, use_image);
}

static int wait_for_end(const int fds[2])
{
	char byte;

	if (write(fds[1], "x", 1) != 1)
		return FAILED;
	return read(fds[1], &byte, 1) < 0 ? FAILED : PASSED;
}

/* Copies the line of /proc/PID/status that starts with the name. */
static void read_status(pid_t pid, const char *name, char *to, size_t cap)
{
	char path[64];
	char line[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	assert_non_null(f);
	to[0] = '\0';
	while (fgets(line, sizeof(line), f)) {
		size_t len = strlen(name);

		if (strncmp(line, name, len) == 0)
			(void)snprintf(to, cap, "%s", line + len);
	}
	(void)fclose(f);
}

static void inside_no_capability_is_left(void **state)
{
	char text[256];
	char byte;
	int fds[2];
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)close(fds[0]);
		sandbox_at_entry();
		_exit(sandbox_enter(SANDBOX_LINK) < 0 ? NO_ENTRY
						      : wait_for_end(fds));
	}
	(void)close(fds[1]);
	assert_int_equal(read(fds[0], &byte, 1), 1);

	read_status(pid, "CapPrm:\t", text, sizeof(text));
	assert_string_equal(text, "0000000000000000\n");
	read_status(pid, "CapEff:\t", text, sizeof(text));
	assert_string_equal(text, "0000000000000000\n");
	read_status(pid, "NoNewPrivs:\t", text, sizeof(text));
	assert_string_equal(text, "1\n");
	read_status(pid, "Seccomp:\t", text, sizeof(text));
	assert_string_equal(text, "2\n");

	(void)close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), PASSED);
}

static void
at_entry_files_are_private_and_a_closed_peer_is_no_signal(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		int fds[2];

		sandbox_at_entry();
		if (umask(0) != 077 ||
		    prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
			_exit(FAILED);
		if (pipe(fds) < 0)
			_exit(FAILED);
		(void)close(fds[0]);
		_exit(write(fds[1], "x", 1) == -1 && errno == EPIPE ? PASSED
								    : FAILED);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), PASSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_role_may_talk_use_memory_and_log),
		cmocka_unit_test(the_system_s_log_can_be_written_within),
		cmocka_unit_test(a_session_may_use_an_image_and_usbfs),
		cmocka_unit_test(from_the_handshake_a_session_goes_on),
		cmocka_unit_test(what_no_role_needs_kills_it),
		cmocka_unit_test(
			files_stay_closed_in_a_handshake_and_kill_later),
		cmocka_unit_test(
			a_link_that_touches_a_device_or_file_is_killed),
		cmocka_unit_test(inside_no_capability_is_left),
		cmocka_unit_test(
			at_entry_files_are_private_and_a_closed_peer_is_no_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
