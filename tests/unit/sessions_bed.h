/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sessions_bed.h - a manager's sessions over a directory of its own. The program
 * that includes it, once, is also the session: its peer's name says what it does.
 */
#ifndef SESSIONS_BED_H
#define SESSIONS_BED_H

#include "gateway/sessions.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/ipc.h"
#include "gateway/manager.h"
#include "gateway/session_note.h"
#include "vchan-transport/loop.h"

#define LIMIT_MS 10000

/* ---- the session ---- */

static int number(const char *text)
{
	return (int)strtol(text, NULL, 10);
}

/* Its claim. */
static int lock_fd = -1;

static int ask_for(int manager_fd, const char *busid)
{
	struct ipc_answer answer;
	int device_fd;

	if (ipc_ask(manager_fd, IPC_OPEN, busid) < 0 ||
	    ipc_receive_answer(manager_fd, &answer, &device_fd, &lock_fd,
			       LIMIT_MS) < 0)
		return EXIT_USAGE;
	if (answer.type == IPC_OPENED)
		return EXIT_OK;
	return answer.status == USBIP_ST_DEV_BUSY ? EXIT_BUSY : EXIT_NO_DEVICE;
}

/* EXIT_NOT_ALLOWED: it is refused. */
static int ask_for_list(int manager_fd)
{
	struct ipc_answer answer;
	int no_fd;

	if (ipc_ask(manager_fd, IPC_LIST, NULL) < 0)
		return EXIT_USAGE;
	do {
		if (ipc_receive_answer(manager_fd, &answer, &no_fd, &no_fd,
				       LIMIT_MS) < 0)
			return EXIT_USAGE;
	} while (answer.type == IPC_DEVICE);
	return answer.type == IPC_REFUSED ? EXIT_NOT_ALLOWED : EXIT_OK;
}

static int prove(int manager_fd, const char *name)
{
	struct tls_peer peer = { .certificate = { .issuer = "0a",
						  .serial = "0A" } };

	(void)snprintf(peer.name, sizeof(peer.name), "%s", name);
	(void)snprintf(peer.pin, sizeof(peer.pin), "sha256:%064d", 7);
	return ipc_tell_peer(manager_fd, &peer) < 0 ? EXIT_USAGE : EXIT_OK;
}

static bool has_arguments(char **argv)
{
	static const struct {
		enum session_argv which;
		const char *text;
	} expected[] = {
		{ SESSION_ARGV_KIND, "0" },
		{ SESSION_ARGV_RING_BYTES, "4096" },
		{ SESSION_ARGV_BUDGET_BYTES, "8388608" },
		{ SESSION_ARGV_IS_DEBUG, "0" },
		{ SESSION_ARGV_DOMID, "32751" },
		{ SESSION_ARGV_PATH, "data/xusbip/32751/63" },
		{ SESSION_ARGV_TLS_DIR, "/tls" },
	};

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		if (strcmp(argv[expected[i].which], expected[i].text) != 0)
			return false;
	}
	/* The peer's descriptor, and nothing else but the manager's. */
	return fcntl(number(argv[SESSION_ARGV_PEER_FD]), F_GETFD) >= 0;
}

static int play_session(char **argv)
{
	int manager_fd = number(argv[SESSION_ARGV_MANAGER_FD]);
	char *rest = NULL;
	char *word = strtok_r(argv[SESSION_ARGV_PEER], " ", &rest);
	int status = EXIT_USAGE;

	for (; word; word = strtok_r(NULL, " ", &rest)) {
		if (strcmp(word, "grant") == 0)
			status = ipc_ask(manager_fd, IPC_GRANTED, NULL);
		else if (strcmp(word, "arguments") == 0)
			status = has_arguments(argv) ? EXIT_OK : EXIT_FAILED;
		else if (strcmp(word, "wait") == 0)
			(void)pause();
		else if (strncmp(word, "prove:", 6) == 0)
			status = prove(manager_fd, word + 6);
		else if (strcmp(word, "list") == 0)
			status = ask_for_list(manager_fd);
		else if (strcmp(word, "stay") == 0)
			(void)signal(SIGTERM, SIG_IGN);
		else if (strncmp(word, "open:", 5) == 0)
			status = ask_for(manager_fd, word + 5);
		else if (strcmp(word, "unlock") == 0)
			status = flock(lock_fd, LOCK_UN);
		else if (strcmp(word, "close") == 0)
			status = close(lock_fd);
		else if (strncmp(word, "signal:", 7) == 0)
			(void)raise(number(word + 7));
		else
			status = number(word);
	}
	return status;
}

/* ---- the manager ---- */

static char dir[] = "/tmp/test_sessions.XXXXXX";

struct bed {
	struct loop *loop;
	struct config *config;
	struct registry *registry;
	struct sessions *sessions;
	/* What its owner was told. */
	unsigned num_granted;
	unsigned num_ended;
	pid_t pid;
	char took[USBIP_BUSID_BYTES];
	enum exit_status status;
	char why[128];
};

static void on_granted(void *owner, pid_t pid)
{
	struct bed *bed = owner;

	assert_int_equal(pid, bed->pid);
	bed->num_granted++;
}

static void on_took(void *owner, pid_t pid, const char *busid)
{
	struct bed *bed = owner;

	assert_int_equal(pid, bed->pid);
	assert_string_equal(sessions_busid(bed->sessions, pid), busid);
	(void)snprintf(bed->took, sizeof(bed->took), "%s", busid);
}

static void on_ended(void *owner, pid_t pid, enum exit_status status,
		     const char *why)
{
	struct bed *bed = owner;

	assert_int_equal(pid, bed->pid);
	assert_false(sessions_has(bed->sessions, pid));
	bed->num_ended++;
	bed->status = status;
	(void)snprintf(bed->why, sizeof(bed->why), "%s", why);
}

static const struct sessions_events events = { .granted = on_granted,
					       .took = on_took,
					       .ended = on_ended };

static void on_child(void *arg, int signo)
{
	struct bed *bed = arg;

	(void)signo;
	sessions_reap(bed->sessions);
	if (sessions_count(bed->sessions) == 0)
		loop_stop(bed->loop);
}

static void on_limit(void *arg)
{
	(void)arg;
	fail_msg("a session did not end within %d ms", LIMIT_MS);
}

static void open_bed(struct bed *bed)
{
	struct loop_timer *timer;

	*bed = (struct bed){ .config = calloc(1, sizeof(*bed->config)) };
	assert_non_null(bed->config);
	(void)snprintf(bed->config->runtime_dir,
		       sizeof(bed->config->runtime_dir), "%s", dir);
	bed->config->budget_bytes = 8 << 20;
	(void)snprintf(bed->config->tls_dir, sizeof(bed->config->tls_dir),
		       "/tls");
	bed->config->max_sessions = 3;
	bed->config->max_sessions_per_peer = 2;
	bed->config->num_virtuals = 2;
	for (size_t i = 0; i < 2; i++) {
		struct config_virtual *v = &bed->config->virtuals[i];

		v->kind = IPC_KIND_ZERO;
		(void)snprintf(v->busid, sizeof(v->busid), "zero%zu", i);
		v->to.domains.num = 1;
		(void)snprintf(v->to.domains.names[0], POLICY_NAME_BYTES,
			       "u%zu", i);
	}
	assert_int_equal(loop_new(&bed->loop), 0);
	assert_int_equal(loop_on_signal(bed->loop, SIGCHLD, on_child, bed), 0);
	assert_int_equal(loop_timer_start(bed->loop, LIMIT_MS, 0, on_limit, bed,
					  &timer),
			 0);
	assert_int_equal(registry_new(bed->loop, bed->config, &bed->registry),
			 0);
	assert_int_equal(sessions_new(bed->loop, bed->config, bed->registry,
				      false, &bed->sessions),
			 0);
}

static void close_bed(struct bed *bed)
{
	sessions_free(bed->sessions);
	registry_free(bed->registry);
	loop_free(bed->loop);
	config_free(bed->config);
}

static pid_t start(struct bed *bed, enum address_kind kind, const char *script,
		   const struct sessions_events *told)
{
	struct sessions_peer peer = {
		.kind = kind,
		.key = "domain 32751",
		.policy = { .kind = POLICY_PEER_DOMAIN, .name = "u0" },
		.domid = 32751,
		.channel = 63,
		.ring_bytes = 4096,
	};

	(void)snprintf(peer.name, sizeof(peer.name), "%s", script);
	assert_int_equal(sessions_start(bed->sessions, STDERR_FILENO, &peer,
					told, bed, &bed->pid),
			 0);
	assert_true(sessions_has(bed->sessions, bed->pid));
	return bed->pid;
}

static void stop_turning(void *arg)
{
	loop_stop(arg);
}

/* Lets the manager work for a moment. */
static void turn(struct bed *bed)
{
	struct loop_timer *timer;

	assert_int_equal(loop_timer_start(bed->loop, 5, 0, stop_turning,
					  bed->loop, &timer),
			 0);
	loop_run(bed->loop);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char path[64];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/zero0.lock", dir);
	(void)unlink(path);
	session_note_remove(dir, "zero0");
	return rmdir(dir);
}

#endif
