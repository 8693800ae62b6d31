/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_bed.h - a guest (gateway/guest.h) over a store in memory, a clock that
 * the test moves, and sessions that are only counted.  Included by a test, once.
 */
#ifndef GUEST_BED_H
#define GUEST_BED_H

#include "gateway/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_loop.h"
#include "gateway/guest_share.h"
#include "gateway/hold_note.h"
#include "gateway/xen_check.h"
#include "memory_store.h"

#define OURS         "/local/domain/0/data/xusbip/5"
#define THEIRS       "/local/domain/5/data/xusbip/0"
#define UUID1        "11111111-2222-3333-4444-555555555555"
#define UUID2        "11111111-2222-3333-4444-666666666666"
#define E1           "00000000000000a1"

#define MAX_SESSIONS 64

/* ---------------------------------------------------------------- sessions */

/* Processes that do nothing: their numbers are out of the kernel's range. */
static struct fake_session {
	pid_t pid; /* 0: not there */
	const struct sessions_events *events;
	void *owner;
	struct sessions_peer peer;
} fake_sessions[MAX_SESSIONS];
static unsigned num_started;
/* A copy of the last lock, as another session has it before its exec. */
static int lock_copy = -1;

int sessions_start(struct sessions *sessions, int fd,
		   const struct sessions_peer *peer,
		   const struct sessions_events *events, void *owner,
		   pid_t *ret_pid)
{
	(void)sessions;
	(void)close(lock_copy);
	lock_copy = dup(fd);
	for (size_t i = 0; i < MAX_SESSIONS; i++) {
		struct fake_session *s = &fake_sessions[i];

		if (s->pid != 0)
			continue;
		num_started++;
		*s = (struct fake_session){ .pid = 0x40000000 + (pid_t)i,
					    .events = events,
					    .owner = owner,
					    .peer = *peer };
		*ret_pid = s->pid;
		return 0;
	}
	return -EAGAIN;
}

void sessions_disown(struct sessions *sessions, pid_t pid)
{
	(void)sessions;
	for (size_t i = 0; i < MAX_SESSIONS; i++)
		if (fake_sessions[i].pid == pid)
			fake_sessions[i].pid = 0;
}

const char *sessions_reached_limit(const struct sessions *sessions,
				   const char *key)
{
	(void)sessions;
	(void)key;
	return NULL;
}

/* What the kernel grants in all. */
static uint64_t granted_limit;

uint64_t xen_check_limit(const char *root)
{
	assert_string_equal(root, "");
	return granted_limit;
}

/* The one device that the rules give it. */
static const char *given_busid = "";

bool registry_is_given(struct registry *registry, const char *busid,
		       const struct policy_peer *peer)
{
	(void)registry;
	assert_int_equal(peer->kind, POLICY_PEER_DOMAIN);
	return strcmp(busid, given_busid) == 0;
}

static struct fake_session *session_of(unsigned channel)
{
	for (size_t i = 0; i < MAX_SESSIONS; i++)
		if (fake_sessions[i].pid != 0 &&
		    fake_sessions[i].peer.channel == channel)
			return &fake_sessions[i];
	return NULL;
}

static struct fake_session *the_session_of(unsigned channel)
{
	struct fake_session *s = session_of(channel);

	assert_non_null(s);
	return s ? s : &fake_sessions[0];
}

static void end_session(unsigned channel)
{
	struct fake_session s = *the_session_of(channel);

	the_session_of(channel)->pid = 0;
	s.events->ended(s.owner, s.pid, EXIT_OK, "it has ended");
}

static void grant(unsigned channel)
{
	const struct fake_session *s = the_session_of(channel);

	s->events->granted(s->owner, s->pid);
}

/* ------------------------------------------------------------------ a guest */

static struct config config;
static struct guest_env env;
static unsigned num_left;

static struct {
	unsigned count;
	enum exit_status status;
} told;

static void on_left(void *arg)
{
	(void)arg;
	num_left++;
}

static inline void on_done(void *arg, enum exit_status status, const char *text)
{
	(void)arg;
	assert_true(text[0] != '\0');
	told.count++;
	told.status = status;
}

static inline int set_up(void **state)
{
	(void)state;
	memset(&env, 0, sizeof(env));
	memset(&config, 0, sizeof(config));
	memset(fake_sessions, 0, sizeof(fake_sessions));
	memset(&told, 0, sizeof(told));
	num_started = 0;
	num_left = 0;
	granted_limit = 16512;
	memory_clear();
	config.max_sessions = 128;
	config.max_sessions_per_peer = 40;
	config.vchan_ring_bytes = 65536;
	config.num_virtuals = 1;
	config.virtuals[0].kind = IPC_KIND_ZERO;
	config.virtuals[0].to.domains.num = 1;
	(void)snprintf(config.virtuals[0].to.domains.names[0],
		       POLICY_NAME_BYTES, "%s", "u1");
	(void)snprintf(env.runtime_dir, sizeof(env.runtime_dir), "%s",
		       "/tmp/test_guest_XXXXXX");
	assert_non_null(mkdtemp(env.runtime_dir));
	memcpy(env.state_dir, env.runtime_dir, sizeof(env.state_dir));
	env.config = &config;
	env.left = on_left;
	env.devices_number = 7;
	assert_int_equal(wants_new(NULL, env.state_dir, 0, &env.wants), 0);
	memory_set("/local/domain/5", "");
	memory_set("/local/domain/5/vm", "/vm/" UUID1);
	memory_set(THEIRS, "");
	memory_set(OURS "/peer", UUID1 " u1");
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	wants_free(env.wants);
	fake_loop_sweep();
	(void)close(lock_copy);
	lock_copy = -1;
	(void)hold_note_remove(env.state_dir, UUID1);
	assert_int_equal(rmdir(env.runtime_dir), 0);
	return 0;
}

static struct guest *new_guest(void)
{
	struct guest *g;

	assert_int_equal(guest_new(&env, 5, &g), 0);
	guest_check(g);
	fake_loop_run(0);
	return g;
}

static inline void say(struct guest *g, const char *name, const char *word)
{
	char path[HANDSHAKE_PATH_BYTES];

	(void)snprintf(path, sizeof(path), THEIRS "/%s", name);
	if (word)
		memory_set(path, word);
	else
		memory_remove(path);
	guest_mark(g);
	fake_loop_run(GUEST_LOOK_MS);
}

/* The agent's answer to what the gateway says now. */
static inline void answer(struct guest *g, const char *verb)
{
	const char *ours = memory_get(OURS "/hold");
	char text[HANDSHAKE_WORD_BYTES];

	assert_non_null(ours);
	(void)snprintf(text, sizeof(text), "%.16s %s", ours, verb);
	say(g, "hold", text);
}

static inline bool our_word_has(const char *node, const char *verb)
{
	const char *value = memory_get(node);

	return value && strlen(value) >= 17 &&
	       strncmp(value + 17, verb, strlen(verb)) == 0;
}

static inline void finish(struct guest *g)
{
	for (unsigned i = 0; i < HANDSHAKE_CHANNELS; i++)
		if (session_of(i))
			end_session(i);
	guest_free(g);
}

/* A guest in this state; from SERVING on with a channel that is open. */
static inline struct guest *reach(enum guest_state state)
{
	struct guest *g;

	if (state == GUEST_ABSENT)
		memory_remove(OURS);
	g = new_guest();
	if (state == GUEST_ABSENT)
		return g;
	say(g, "3", E1 " ask 0");
	grant(3);
	if (state == GUEST_SERVING)
		return g;
	if (state == GUEST_LEAVING) {
		memory_remove(OURS);
		guest_check(g);
		return g;
	}
	assert_int_equal(guest_hold(g, on_done, NULL), 0);
	fake_loop_run(GUEST_LOOK_MS);
	if (state != GUEST_HOLDING)
		answer(g, "done");
	if (state == GUEST_HELD) {
		end_session(3);
		fake_loop_run(GUEST_LOOK_MS);
	}
	memset(&told, 0, sizeof(told));
	return g;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
