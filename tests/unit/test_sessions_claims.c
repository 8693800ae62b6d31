/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose a device is: its session's as long as that lives, whatever it does with
 * what it was given, and whichever manager looks.
 */
#include "sessions_bed.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "gateway/claim.h"

static bool is_unlocked(const char *busid)
{
	char path[64];
	bool is_free;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s.lock", dir, busid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	is_free = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
	(void)close(fd);
	return is_free;
}

static enum exit_status ask(struct bed *bed, const char *script)
{
	bed->num_ended = 0;
	(void)start(bed, ADDRESS_XEN, script, &events);
	while (bed->num_ended == 0)
		turn(bed);
	return bed->status;
}

/* The one before has died: this one knows what the directory tells. */
static void start_next_manager(struct bed *bed)
{
	sessions_free(bed->sessions);
	assert_int_equal(sessions_new(bed->loop, bed->config, bed->registry,
				      false, &bed->sessions),
			 0);
}

static void assert_is_in_use(struct bed *bed)
{
	assert_int_equal(ask(bed, "open:zero0"), EXIT_BUSY);
	assert_string_equal(bed->why, "the device is in use");
	assert_int_equal(claim_sweep(dir), 1);
	assert_true(session_note_is_alive(dir, "zero0"));
}

static void keep_from_others(const char *script)
{
	struct bed bed;
	pid_t owner;
	siginfo_t end;

	open_bed(&bed);
	owner = start(&bed, ADDRESS_XEN, script, NULL);
	while (sessions_count_devices(bed.sessions) == 0 ||
	       !is_unlocked("zero0"))
		turn(&bed);
	assert_is_in_use(&bed);

	start_next_manager(&bed);
	assert_is_in_use(&bed);

	sessions_signal_orphans(bed.sessions, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)owner, &end, WEXITED | WNOWAIT),
			 0);
	assert_int_equal(ask(&bed, "open:zero0"), EXIT_OK);
	assert_int_equal(claim_sweep(dir), 0);
	assert_false(session_note_is_alive(dir, "zero0"));
	close_bed(&bed);
}

static void a_session_that_lets_its_claim_go_keeps_its_device(void **state)
{
	(void)state;
	keep_from_others("open:zero0 unlock wait");
	keep_from_others("open:zero0 close wait");
	keep_from_others("open:zero0 unlock close wait");
}

static void
a_device_is_its_sessions_too_where_another_version_noted_it(void **state)
{
	const uint32_t version = 4711;
	struct session_note note = { .pid = getpid() };
	char path[64];
	int second;
	int fd;

	(void)state;
	assert_int_equal(session_note_write(dir, "zero0", &note), 0);
	(void)snprintf(path, sizeof(path), "%s/zero0.session", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, &version, sizeof(version)), sizeof(version));
	assert_int_equal(close(fd), 0);
	assert_int_equal(claim_take(dir, "zero0", &second), -EBUSY);

	/* Its number had another process. */
	note.started_at--;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, &note, sizeof(note)), sizeof(note));
	assert_int_equal(close(fd), 0);
	assert_int_equal(claim_take(dir, "zero0", &second), 0);

	/* And half a note is of one who was given nothing. */
	assert_int_equal(session_note_write(dir, "zero0", &note), 0);
	assert_int_equal(truncate(path, 12), 0);
	assert_int_equal(close(second), 0);
	assert_int_equal(claim_take(dir, "zero0", &second), 0);
	assert_int_equal(close(second), 0);
	assert_int_equal(claim_sweep(dir), 0);
}

static void a_device_is_not_given_where_it_cannot_be_noted(void **state)
{
	const struct rlimit none = { 0, RLIM_INFINITY };
	struct rlimit before;
	struct bed bed;

	(void)state;
	open_bed(&bed);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	(void)ask(&bed, "open:zero0");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	(void)signal(SIGXFSZ, SIG_DFL);
	assert_int_equal(bed.status, EXIT_NO_DEVICE);
	assert_non_null(strstr(bed.why, "cannot note whose it is"));
	assert_string_equal(bed.took, "");
	assert_int_equal(claim_sweep(dir), 0);

	assert_int_equal(ask(&bed, "open:zero0"), EXIT_OK);
	assert_string_equal(bed.took, "zero0");
	close_bed(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_session_that_lets_its_claim_go_keeps_its_device),
		cmocka_unit_test(
			a_device_is_its_sessions_too_where_another_version_noted_it),
		cmocka_unit_test(
			a_device_is_not_given_where_it_cannot_be_noted),
	};

	if (argc == SESSION_ARGV_COUNT &&
	    strcmp(argv[SESSION_ARGV_MODE], SESSION_ARGV_MARK) == 0)
		return play_session(argv);
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
