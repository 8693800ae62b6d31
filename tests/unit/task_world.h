/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task_world.h - an agent's tasks for one gateway (frontend/xen_gateway.h) and
 * all that they can meet: a want comes, goes and comes anew, the gateway or the
 * guest itself holds and lets go on, jobs end well and badly, what was attached
 * is lost, reads fail, the agent is started anew. There is one device; jobs,
 * records, notes and the clock are the test's. Included by a test, once.
 */
#ifndef TASK_WORLD_H
#define TASK_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "frontend/xen_gateway_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "frontend/vhci.h"
#include "memory_store.h"
#include "sequences_played.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"

#define OURS   "/local/domain/5/data/xusbip/0"
#define THEIRS "/local/domain/0/data/xusbip/5"
#define BUSID  "1-1"
/* Behind it everything is due. */
#define LONG_MS 40000
#define ENOUGH  40

enum event {
	WANT,
	UNWANT,
	HOLD,
	RESUME,
	SILENCE, /* no word whether to hold */
	HOLD_HERE,
	RESUME_HERE,
	DEVICES,
	TIME,
	LOST,
	WANT_OK,
	WANT_LOST, /* it is, as soon as it is there */
	WANT_FAILED,
	TAKEN_OK,
	TAKEN_FAILED,
	HOLD_OK,
	READ_FAILS,
	RESTART,
	NUM_EVENTS,
};

static const char *const event_names[] = {
	[WANT] = "WANT",
	[UNWANT] = "UNWANT",
	[HOLD] = "HOLD",
	[RESUME] = "RESUME",
	[SILENCE] = "SILENCE",
	[HOLD_HERE] = "HOLD_HERE",
	[RESUME_HERE] = "RESUME_HERE",
	[DEVICES] = "DEVICES",
	[TIME] = "TIME",
	[LOST] = "LOST",
	[WANT_OK] = "WANT_OK",
	[WANT_LOST] = "WANT_LOST",
	[WANT_FAILED] = "WANT_FAILED",
	[TAKEN_OK] = "TAKEN_OK",
	[TAKEN_FAILED] = "TAKEN_FAILED",
	[HOLD_OK] = "HOLD_OK",
	[READ_FAILS] = "READ_FAILS",
	[RESTART] = "RESTART",
};

static struct world {
	struct xen_gateway *gateway;
	uint64_t now_ms;
	pid_t last_pid;
	uint64_t last_epoch;
	unsigned num_devices;
	bool is_attached; /* the one device there is */
	bool is_restored; /* it was taken back */
	bool is_noted;    /* as let go of */
	/* It was to be let go of by a job that was killed with its agent. */
	bool may_stay;
	bool is_held_here;
	bool has_timed;
	bool is_blind;     /* the last read has failed */
	bool is_cancelled; /* the job of the want, as it is told */
	bool is_detaching; /* the job of the want */
	uint64_t started_ms;
	enum exit_status status; /* of the job that ends */
} world;

static struct task *want(void)
{
	return &world.gateway->wants[0];
}

static struct task *taken(void)
{
	return &world.gateway->taken[0];
}

/* ---- what it stands on ---- */

uint64_t clock_ms(void)
{
	return world.now_ms;
}

bool import_is_busid(const char *busid)
{
	return busid[0] != '\0';
}

int job_start(struct job *job, const char *verb, const char *const *words,
	      bool is_debug)
{
	const struct xen_gateway *g = world.gateway;
	bool is_hold = strcmp(verb, "hold") == 0;

	(void)words;
	(void)is_debug;
	expect(job->pid == 0, "a second job of one task");
	expect(is_hold || g->hold == HOLD_FREE || g->hold == HOLD_UNKNOWN,
	       "a job in a hold");
	expect(!is_hold || (want()->job.pid == 0 && taken()->job.pid == 0),
	       "a hold beside jobs");
	if (strcmp(verb, "attach") == 0) {
		expect(world.started_ms == 0 ||
			       world.now_ms - world.started_ms >= 1000,
		       "the same is begun too soon");
		expect(world.is_blind || memory_has(THEIRS "/want/0"),
		       "what is not wanted is begun");
		world.started_ms = world.now_ms;
	}
	if (job == &want()->job)
		world.is_cancelled = false;
	if (job == &want()->job)
		world.is_detaching = strcmp(verb, "detach") == 0;
	job->pid = ++world.last_pid;
	return 0;
}

enum exit_status job_end(struct job *job, int status,
			 char ret_text[static JOB_TEXT_BYTES])
{
	(void)status;
	*job = (struct job){ 0 };
	(void)snprintf(ret_text, JOB_TEXT_BYTES, "%s",
		       world.status == EXIT_OK ? "3" : "it has failed");
	return world.status;
}

void job_cancel(const struct job *job)
{
	expect(job->pid != 0, "a job that is not there is cancelled");
	world.is_cancelled |= job == &want()->job;
}

void job_forget(struct job *job)
{
	*job = (struct job){ 0 };
}

int record_read(const char *dir, uint32_t port, struct record *ret_record)
{
	(void)dir;
	(void)port;
	*ret_record = (struct record){ .host = "xen:0", .busid = BUSID };
	return world.is_attached ? 0 : -ENOENT;
}

int record_identify(const char *dir, uint32_t port, struct record_id *ret_id)
{
	(void)dir;
	(void)port;
	(void)ret_id;
	return world.is_attached ? 0 : -ENOENT;
}

bool record_is(const char *dir, uint32_t port, const struct record_id *id)
{
	(void)dir;
	(void)port;
	(void)id;
	return world.is_attached;
}

int vhci_is_free(const char *dir, uint32_t number)
{
	(void)dir;
	(void)number;
	return !world.is_attached;
}

size_t xen_notes_held(unsigned gateway,
		      struct xen_note ret_notes[static XEN_NOTES_MAX])
{
	(void)gateway;
	ret_notes[0] = (struct xen_note){ .busid = BUSID };
	return world.is_noted;
}

int xen_notes_drop(unsigned gateway, const char *busid)
{
	(void)gateway;
	expect(strcmp(busid, BUSID) == 0, "a note of nothing is dropped");
	world.is_noted = false;
	return 0;
}

/* ---- what can happen ---- */

static void say(const char *node, const char *words)
{
	char text[HANDSHAKE_WORD_BYTES];

	(void)snprintf(text, sizeof(text), "%016" PRIx64 " %s",
		       ++world.last_epoch, words);
	memory_set(node, text);
}

/* As the agent does after each event. */
static void settle(bool is_changed)
{
	struct xen_gateway *g = world.gateway;
	int r = 0;

	if (!is_changed)
		(void)xen_gateway_step(g);
	for (unsigned i = 0; is_changed || xen_gateway_needs_look(g); i++) {
		r = xen_gateway_look(g);
		world.is_blind = r < 0;
		if (r < 0)
			break;
		(void)xen_gateway_step(g);
		is_changed = false;
		expect(i < ENOUGH, "it looks again and again");
	}
	(void)xen_gateway_step(g);
}

static void end_job(const struct job *job, bool is_good)
{
	world.status = is_good ? EXIT_OK : EXIT_NO_DEVICE;
	expect(xen_gateway_on_child(world.gateway, job->pid, 0),
	       "a job that nobody knows");
}

static void end_want(bool is_good)
{
	world.is_attached = is_good && !world.is_detaching;
	if (is_good)
		world.is_restored = false;
	end_job(&want()->job, is_good);
}

static void end_lost_want(void)
{
	world.status = EXIT_OK;
	expect(xen_gateway_on_child(world.gateway, want()->job.pid, 0),
	       "a job that nobody knows");
}

static void end_taken(bool is_good)
{
	world.is_attached |= is_good;
	world.is_restored |= is_good;
	end_job(&taken()->job, is_good);
}

static void end_hold(void)
{
	world.is_noted |= world.is_attached;
	world.is_attached = false;
	world.is_restored = false;
	end_job(&world.gateway->hold_job, true);
}

/* It is noticed when it is looked for. */
static void lose(void)
{
	world.is_attached = false;
	world.is_restored = false;
}

static void start_agent(void)
{
	assert_int_equal(xen_gateway_new(NULL, 5, 0, false, &world.gateway), 0);
	xen_gateway_set_held(world.gateway, world.is_held_here);
	world.started_ms = 0;
}

static bool has_job(void)
{
	return want()->job.pid != 0 || taken()->job.pid != 0 ||
	       world.gateway->hold_job.pid != 0;
}

static bool can_happen(enum event event)
{
	const struct xen_gateway *g = world.gateway;
	bool is_attaching = want()->job.pid != 0 && !world.is_detaching;

	switch (event) {
	case WANT:
	case HOLD:
	case RESUME:
	case DEVICES:
	case READ_FAILS:
	case RESTART:
		return true;
	case UNWANT:
		return memory_has(THEIRS "/want/0");
	case SILENCE:
		return memory_has(THEIRS "/hold");
	case HOLD_HERE:
		return !world.is_held_here;
	case RESUME_HERE:
		return world.is_held_here;
	case TIME:
		return !world.has_timed;
	case LOST:
		return world.is_attached;
	case WANT_OK:
		return is_attaching ? !world.is_attached : want()->job.pid != 0;
	case WANT_LOST:
		return is_attaching && !world.is_attached;
	case WANT_FAILED:
		/* To detach fails for what is gone already. */
		return want()->job.pid != 0;
	case TAKEN_OK:
		return taken()->job.pid != 0 && !world.is_attached;
	case TAKEN_FAILED:
		return taken()->job.pid != 0;
	case HOLD_OK:
		return g->hold_job.pid != 0;
	case NUM_EVENTS:
		break;
	}
	return false;
}

/* Is something in xenstore another than before? */
static bool happen_in_store(enum event event)
{
	char text[16];

	switch (event) {
	case WANT:
		say(THEIRS "/want/0", "attach " BUSID);
		return true;
	case UNWANT:
		memory_remove(THEIRS "/want/0");
		return true;
	case HOLD:
	case RESUME:
		say(THEIRS "/hold", event == HOLD ? "hold" : "resume");
		return true;
	case SILENCE:
		memory_remove(THEIRS "/hold");
		return true;
	case READ_FAILS:
		/* The word of the want, or the first read behind it. */
		memory_read_error = -ENOMEM;
		memory_failing_read = 2;
		return true;
	case DEVICES:
		(void)snprintf(text, sizeof(text), "%u", ++world.num_devices);
		memory_set(THEIRS "/devices", text);
		return true;
	default:
		return false;
	}
}

static void happen(enum event event)
{
	bool is_changed = happen_in_store(event);

	world.has_timed = event == TIME;
	switch (event) {
	case HOLD_HERE:
	case RESUME_HERE:
		world.is_held_here = event == HOLD_HERE;
		xen_gateway_set_held(world.gateway, world.is_held_here);
		break;
	case TIME:
		world.now_ms += LONG_MS;
		break;
	case LOST:
		lose();
		break;
	case WANT_LOST:
		end_lost_want();
		break;
	case WANT_OK:
	case WANT_FAILED:
		end_want(event == WANT_OK);
		break;
	case TAKEN_OK:
	case TAKEN_FAILED:
		end_taken(event == TAKEN_OK);
		break;
	case HOLD_OK:
		end_hold();
		break;
	case RESTART:
		world.may_stay |= has_job();
		xen_gateway_free(world.gateway);
		start_agent();
		is_changed = true;
		break;
	default:
		break;
	}
	settle(is_changed);
	memory_failing_read = 0;
}

#endif
