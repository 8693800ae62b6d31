/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session processes as their manager sees them: what they are started with,
 * what they may ask, what their owner is told.
 */
#include "sessions_bed.h"

#include <sys/wait.h>

/* A session of a guest does what its name says, and has ended. */
static void play(struct bed *bed, const char *script)
{
	open_bed(bed);
	(void)start(bed, ADDRESS_XEN, script, &events);
	loop_run(bed->loop);
	close_bed(bed);
	assert_int_equal(bed->num_ended, 1);
}

static void a_session_is_told_its_domain_and_its_path(void **state)
{
	struct bed bed;

	(void)state;
	play(&bed, "arguments");
	assert_int_equal(bed.status, EXIT_OK);
}

static void
a_session_grants_once_and_only_where_there_is_something(void **state)
{
	struct bed bed;

	(void)state;
	play(&bed, "grant 0");
	assert_int_equal(bed.num_granted, 1);
	assert_int_equal(bed.status, EXIT_OK);
	assert_string_equal(bed.why, "it has ended");

	play(&bed, "grant grant wait");
	assert_int_equal(bed.num_granted, 1);
	assert_int_equal(bed.status, EXIT_FAILED);
	assert_string_equal(bed.why, "the gateway's session was killed");

	open_bed(&bed);
	(void)start(&bed, ADDRESS_TCP, "grant wait", &events);
	loop_run(bed.loop);
	close_bed(&bed);
	assert_int_equal(bed.num_granted, 0);
	assert_int_equal(bed.status, EXIT_FAILED);
}

static void who_is_refused_hears_nothing_of_others(void **state)
{
	struct bed bed;

	(void)state;
	play(&bed, "open:none");
	assert_int_equal(bed.status, EXIT_NO_DEVICE);
	assert_string_equal(bed.why, "there is no such device");
	/* It is there, and another guest's. */
	play(&bed, "open:zero1");
	assert_int_equal(bed.status, EXIT_NO_DEVICE);
	assert_string_equal(bed.why, "there is no such device");
	assert_string_equal(bed.took, "");
}

static void a_device_that_was_taken_is_known_and_busy_for_others(void **state)
{
	struct bed bed;
	pid_t first;

	(void)state;
	play(&bed, "open:zero0");
	assert_int_equal(bed.status, EXIT_OK);
	assert_string_equal(bed.took, "zero0");

	open_bed(&bed);
	first = start(&bed, ADDRESS_XEN, "open:zero0 grant wait", NULL);
	/* It asks before the second one is even started. */
	while (sessions_count_devices(bed.sessions) == 0)
		turn(&bed);
	assert_string_equal(sessions_busid(bed.sessions, first), "zero0");
	(void)start(&bed, ADDRESS_XEN, "open:zero0", &events);
	while (bed.num_ended == 0)
		turn(&bed);
	assert_int_equal(bed.status, EXIT_BUSY);
	assert_string_equal(bed.why, "the device is in use");
	sessions_signal_all(bed.sessions, SIGKILL);
	loop_run(bed.loop);
	close_bed(&bed);
}

static void every_end_has_a_status_and_words(void **state)
{
	static const struct {
		const char *script;
		enum exit_status status;
		const char *why;
	} ends[] = {
		{ "5", EXIT_CANNOT_REACH, "you were gone" },
		{ "10", EXIT_PROTOCOL, "breaks the protocol" },
		{ "11", EXIT_TIMEOUT, "did not answer in time" },
		{ "12", EXIT_NOT_TRUSTED, "not accepted" },
		{ "14", EXIT_FAILED, "could not grant" },
		{ "255", EXIT_FAILED, "could not grant" },
		{ "signal:9", EXIT_FAILED, "killed" },
		{ "signal:14", EXIT_TIMEOUT, "did not answer in time" },
		{ "open:zero0 3", EXIT_NO_DEVICE, "the device is gone" },
	};
	struct bed bed;

	(void)state;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		play(&bed, ends[i].script);
		assert_int_equal(bed.status, ends[i].status);
		assert_non_null(strstr(bed.why, ends[i].why));
	}
}

static void one_that_nobody_owns_ends_in_silence(void **state)
{
	struct bed bed;
	pid_t pid;

	(void)state;
	open_bed(&bed);
	pid = start(&bed, ADDRESS_XEN, "grant 0", &events);
	sessions_disown(bed.sessions, pid);
	loop_run(bed.loop);
	close_bed(&bed);
	assert_int_equal(bed.num_granted + bed.num_ended, 0);
}

static void limits_count_a_peers_sessions_and_everybodys(void **state)
{
	static const char key[] = "domain 32751";
	struct bed bed;

	(void)state;
	open_bed(&bed);
	(void)start(&bed, ADDRESS_XEN, "wait", NULL);
	assert_null(sessions_reached_limit(bed.sessions, key));
	(void)start(&bed, ADDRESS_XEN, "wait", NULL);
	assert_string_equal(sessions_reached_limit(bed.sessions, key),
			    "max_sessions_per_peer");
	assert_null(sessions_reached_limit(bed.sessions, "another"));
	(void)start(&bed, ADDRESS_XEN, "wait", NULL);
	assert_string_equal(sessions_reached_limit(bed.sessions, "another"),
			    "max_sessions");
	assert_int_equal(sessions_count(bed.sessions), 3);
	sessions_signal_all(bed.sessions, SIGKILL);
	loop_run(bed.loop);
	assert_null(sessions_reached_limit(bed.sessions, key));
	close_bed(&bed);
}

/* A session of a TLS peer does what its name says, and has ended. */
static void play_tls(struct bed *bed, const char *script)
{
	open_bed(bed);
	(void)start(bed, ADDRESS_TLS, script, &events);
	loop_run(bed->loop);
	close_bed(bed);
	assert_int_equal(bed->num_ended, 1);
}

static void over_tls_who_it_is_comes_first_and_once(void **state)
{
	static const char *const wrong[] = {
		"list wait",
		"open:zero0 wait",
		"prove:anna prove:anna wait",
		"prove:a/b wait",
	};
	struct bed bed;

	(void)state;
	play_tls(&bed, "prove:anna list");
	assert_int_equal(bed.status, EXIT_OK);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		play_tls(&bed, wrong[i]);
		assert_int_equal(bed.status, EXIT_FAILED);
		assert_string_equal(bed.took, "");
	}
	play(&bed, "prove:anna wait");
	assert_int_equal(bed.status, EXIT_FAILED);
}

static void
who_has_proved_itself_counts_by_its_name_and_not_its_address(void **state)
{
	static const char key[] = "domain 32751";
	struct bed bed;

	(void)state;
	open_bed(&bed);
	(void)start(&bed, ADDRESS_TLS, "prove:anna wait", NULL);
	(void)start(&bed, ADDRESS_TLS, "prove:anna wait", NULL);
	assert_string_equal(sessions_reached_limit(bed.sessions, key),
			    "max_sessions_per_peer");
	while (!sessions_reached_limit(bed.sessions, "tls anna"))
		turn(&bed);
	assert_null(sessions_reached_limit(bed.sessions, key));
	(void)start(&bed, ADDRESS_TLS, "prove:anna list", &events);
	while (bed.num_ended == 0)
		turn(&bed);
	assert_int_equal(bed.status, EXIT_NOT_ALLOWED);
	sessions_signal_all(bed.sessions, SIGKILL);
	loop_run(bed.loop);
	close_bed(&bed);
}

/* Its owner is told that the device of a session is no longer given. */
static void take_from(const char *script)
{
	struct bed bed;

	open_bed(&bed);
	(void)start(&bed, ADDRESS_XEN, script, &events);
	while (sessions_count_devices(bed.sessions) == 0)
		turn(&bed);
	sessions_judge(bed.sessions);
	turn(&bed);
	assert_int_equal(bed.num_ended, 0);

	(void)snprintf(bed.config->virtuals[0].to.domains.names[0],
		       POLICY_NAME_BYTES, "u1");
	sessions_judge(bed.sessions);
	sessions_judge(bed.sessions);
	loop_run(bed.loop);
	assert_int_equal(bed.num_ended, 1);
	assert_int_equal(bed.status, EXIT_NOT_ALLOWED);
	assert_string_equal(bed.why, "the device is not given to you any more");
	close_bed(&bed);
}

static void a_device_that_is_no_longer_given_is_taken_back(void **state)
{
	(void)state;
	take_from("open:zero0 wait");
	take_from("stay open:zero0 wait");
}

/* A process that is noted as the session that has zero1. */
static pid_t start_orphan(void)
{
	struct session_note note = { .pid = fork() };

	if (note.pid == 0) {
		(void)sleep(LIMIT_MS / 1000);
		_exit(0);
	}
	assert_true(note.pid > 0);
	assert_int_equal(session_note_write(dir, "zero1", &note), 0);
	return note.pid;
}

static void only_those_of_an_earlier_manager_are_signalled_apart(void **state)
{
	struct bed bed;
	pid_t orphan;
	int status;

	(void)state;
	open_bed(&bed);
	(void)start(&bed, ADDRESS_XEN, "open:zero0 wait", &events);
	while (sessions_count_devices(bed.sessions) == 0)
		turn(&bed);
	orphan = start_orphan();
	sessions_signal_orphans(bed.sessions, SIGALRM);
	assert_int_equal(waitpid(orphan, &status, 0), orphan);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGALRM);

	/* Its end tells which signal came first. */
	sessions_signal_all(bed.sessions, SIGKILL);
	loop_run(bed.loop);
	assert_int_equal(bed.status, EXIT_FAILED);
	close_bed(&bed);
	session_note_remove(dir, "zero1");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_is_told_its_domain_and_its_path),
		cmocka_unit_test(
			a_session_grants_once_and_only_where_there_is_something),
		cmocka_unit_test(who_is_refused_hears_nothing_of_others),
		cmocka_unit_test(
			a_device_that_was_taken_is_known_and_busy_for_others),
		cmocka_unit_test(every_end_has_a_status_and_words),
		cmocka_unit_test(one_that_nobody_owns_ends_in_silence),
		cmocka_unit_test(limits_count_a_peers_sessions_and_everybodys),
		cmocka_unit_test(over_tls_who_it_is_comes_first_and_once),
		cmocka_unit_test(
			who_has_proved_itself_counts_by_its_name_and_not_its_address),
		cmocka_unit_test(
			a_device_that_is_no_longer_given_is_taken_back),
		cmocka_unit_test(
			only_those_of_an_earlier_manager_are_signalled_apart),
	};

	if (argc == SESSION_ARGV_COUNT &&
	    strcmp(argv[SESSION_ARGV_MODE], SESSION_ARGV_MARK) == 0)
		return play_session(argv);
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
