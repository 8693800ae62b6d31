/* SPDX-License-Identifier: Apache-2.0 */
/* One device that is to stay attached: see standing_private.h. */
#include "frontend/standing_private.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "frontend/sysfs.h"
#include "frontend/vhci.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"

#define RETRY_FIRST_MS 1000u
#define RETRY_LAST_MS  60000u
#define STEADY_MS      60000u /* attached so long, it begins anew */
#define LOOK_EVERY_MS  15000u
#define START_EVERY_MS 1000u

static void publish(struct standing_one *one)
{
	const char *state = standing_state_name(one->state);
	struct standing_note note = { .is_section = one->wish.is_section,
				      .port = one->port,
				      .since_ms = one->since_ms,
				      .next_ms = one->next_ms };
	int r;

	(void)snprintf(note.name, sizeof(note.name), "%s", one->wish.name);
	for (size_t i = 0; state[i] && i + 1 < sizeof(note.state); i++)
		note.state[i] = (char)tolower((unsigned char)state[i]);
	(void)address_format(&one->wish.gateway, note.gateway,
			     sizeof(note.gateway));
	wish_name_device(&one->wish, note.device);
	(void)snprintf(note.why, sizeof(note.why), "%s", one->why);
	r = standing_note_write(&note);
	one->is_noted = r == 0;
	if (r < 0)
		log_debug("%s: its state cannot be told: %s", one->wish.name,
			  strerror(-r));
}

static void unpublish(struct standing_one *one)
{
	if (one->is_noted)
		standing_note_remove(one->wish.name);
	one->is_noted = false;
}

/* ---- time ---- */

/* Not sooner than it may be begun again. */
static void set_time(struct standing_one *one, uint64_t after_ms)
{
	uint64_t now_ms = loop_now_ms(one->all->loop);
	uint64_t at_ms = now_ms + after_ms;

	if (one->started_ms && at_ms < one->started_ms + START_EVERY_MS)
		at_ms = one->started_ms + START_EVERY_MS;
	one->next_ms = at_ms;
	loop_timer_again(one->timer, at_ms - now_ms);
}

/* A quarter more or less, so that not all come at the same moment. */
static void set_retry(struct standing_one *one)
{
	unsigned delay_ms = one->delay_ms * 2;

	if (delay_ms < RETRY_FIRST_MS)
		delay_ms = RETRY_FIRST_MS;
	if (delay_ms > RETRY_LAST_MS)
		delay_ms = RETRY_LAST_MS;
	one->delay_ms = delay_ms;
	set_time(one, delay_ms - delay_ms / 4 +
			      handshake_new_epoch() % (delay_ms / 2));
}

static bool may_be_attached(const struct standing_one *one)
{
	return !one->all->may ||
	       one->all->may(one->all->arg, &one->wish.gateway);
}

static void on_time(void *arg)
{
	struct standing_one *one = arg;

	one->next_ms = 0;
	if (one->state != STANDING_WAITING && one->state != STANDING_HELD)
		return;
	if (one->state == STANDING_WAITING &&
	    standing_note_take_detached(one->wish.name)) {
		standing_one_feed(one, STANDING_ON_BY_HAND);
		return;
	}
	if (standing_has_room(one->all) && may_be_attached(one))
		standing_one_feed(one, STANDING_ON_DUE);
	else
		set_time(one, START_EVERY_MS);
}

void standing_one_on_news(struct standing_one *one)
{
	if (one->state == STANDING_TRYING && !may_be_attached(one))
		job_cancel(&one->job);
	else if (one->state == STANDING_WAITING &&
		 one->wish.gateway.kind == ADDRESS_XEN)
		set_time(one, 0);
}

/* ---- actions ---- */

static void start_job(struct standing_one *one, const char *verb)
{
	char gateway[ADDRESS_TEXT_CAP];
	char kind[16];
	const char *words[] = { one->wish.name,
				gateway,
				one->wish.pin,
				one->wish.busid,
				kind,
				one->all->tls_dir,
				NULL };
	int r;

	(void)address_format(&one->wish.gateway, gateway, sizeof(gateway));
	(void)snprintf(kind, sizeof(kind), "%04x:%04x", one->wish.vendor,
		       one->wish.product);
	one->started_ms = loop_now_ms(one->all->loop);
	r = job_start(&one->job, verb, words, one->all->is_debug);
	if (r == 0)
		return;
	log_error("%s: cannot start a job: %s", one->wish.name, strerror(-r));
	standing_one_feed(one, STANDING_ON_FAILED);
}

static void wait_from_now(struct standing_one *one)
{
	job_forget(&one->job);
	(void)standing_note_take_detached(one->wish.name);
	one->delay_ms = 0;
	set_time(one, 0);
}

static void keep(struct standing_one *one)
{
	log_info("%s: attached at port %02u", one->wish.name, one->port);
	(void)standing_note_take_detached(one->wish.name);
	one->why[0] = '\0';
	standing_check_soon(one->all);
}

static void hold(struct standing_one *one)
{
	(void)snprintf(one->why, sizeof(one->why), "somebody has detached it");
	set_time(one, LOOK_EVERY_MS);
}

static void forget(struct standing_one *one)
{
	job_forget(&one->job);
	loop_timer_stop(one->timer);
	unpublish(one);
	*one = (struct standing_one){ .state = STANDING_ABSENT };
}

static void act_on(struct standing_one *one, enum standing_act act)
{
	switch (act) {
	case STANDING_DO_NONE:
		break;
	case STANDING_DO_WAIT:
		wait_from_now(one);
		break;
	case STANDING_DO_RETRY:
		set_retry(one);
		break;
	case STANDING_DO_TRY:
		start_job(one, "keep");
		break;
	case STANDING_DO_KEEP:
		keep(one);
		break;
	case STANDING_DO_HOLD:
		hold(one);
		break;
	case STANDING_DO_LOOK:
		start_job(one, "look");
		break;
	case STANDING_DO_CANCEL:
		job_cancel(&one->job);
		unpublish(one);
		break;
	case STANDING_DO_FORGET:
		forget(one);
		break;
	case STANDING_DO_BUG:
		log_error("%s: cannot happen in state %s", one->wish.name,
			  standing_state_name(one->state));
		break;
	}
}

/* To others, one that is tried again and again waits all the time. */
static bool is_same_to_others(enum standing_state a, enum standing_state b)
{
	bool is_waiting = a == STANDING_WAITING || a == STANDING_TRYING;
	bool is_held = a == STANDING_HELD || a == STANDING_LOOKING;

	return a == b ||
	       (is_waiting &&
		(b == STANDING_WAITING || b == STANDING_TRYING)) ||
	       (is_held && (b == STANDING_HELD || b == STANDING_LOOKING));
}

void standing_one_feed(struct standing_one *one, enum standing_stim stim)
{
	struct standing_step step = standing_fsm_step(one->state, stim);

	log_debug("%s: %s + %s -> %s", one->wish.name,
		  standing_state_name(one->state), standing_stim_name(stim),
		  standing_state_name(step.next));
	if (!is_same_to_others(one->state, step.next))
		one->since_ms = loop_now_ms(one->all->loop);
	one->state = step.next; /* before acting: actions may feed again */
	act_on(one, step.act);
	if (one->state != STANDING_ABSENT && one->state != STANDING_ENDING)
		publish(one);
}

/* ---- what jobs say ---- */

/* Of a job that has attached it; false if it is gone again, or another's. */
static bool take_port(struct standing_one *one, const char *text,
		      char why[static JOB_TEXT_BYTES])
{
	uint32_t port;
	const char *end = sysfs_scan_number(text, 10, &port);

	if (!end || !sysfs_scan_number(end, 10, &one->devid) ||
	    record_identify(RECORD_DIR, port, &one->record) < 0) {
		(void)snprintf(why, JOB_TEXT_BYTES, "it was lost at once");
		return false;
	}
	if (standing_has_port(one->all, port)) {
		(void)snprintf(why, JOB_TEXT_BYTES,
			       "port %02u has it already, for another wish",
			       port);
		return false;
	}
	one->port = port;
	return true;
}

/* Once for each reason: it may be tried for days. */
static void tell_failure(struct standing_one *one, const char *why)
{
	if (strncmp(one->why, why, sizeof(one->why) - 1) == 0)
		return;
	(void)snprintf(one->why, sizeof(one->why), "%.*s",
		       (int)sizeof(one->why) - 1, why);
	log_warn("%s: not attached: %s; goes on trying", one->wish.name, why);
}

static enum standing_stim on_tried(struct standing_one *one,
				   enum exit_status status, const char *text)
{
	char why[JOB_TEXT_BYTES];

	(void)snprintf(why, sizeof(why), "%s", text);
	if (status == EXIT_OK && take_port(one, text, why))
		return STANDING_ON_DONE;
	tell_failure(one, why);
	return status == EXIT_NO_DEVICE ? STANDING_ON_MISSING
					: STANDING_ON_FAILED;
}

/* Another number: it was unplugged meanwhile. */
static enum standing_stim on_looked(const struct standing_one *one,
				    enum exit_status status, const char *text)
{
	uint32_t devid;

	if (status == EXIT_NO_DEVICE)
		return STANDING_ON_MISSING;
	if (status != EXIT_OK || !sysfs_scan_number(text, 10, &devid))
		return STANDING_ON_FAILED;
	return devid == one->devid ? STANDING_ON_DONE : STANDING_ON_MISSING;
}

void standing_one_on_job_end(struct standing_one *one, int wstatus)
{
	char text[JOB_TEXT_BYTES];
	enum exit_status status = job_end(&one->job, wstatus, text);
	enum standing_stim stim = STANDING_ON_DONE;

	if (one->state == STANDING_TRYING)
		stim = on_tried(one, status, text);
	else if (one->state == STANDING_LOOKING)
		stim = on_looked(one, status, text);
	standing_one_feed(one, stim);
}

void standing_one_check(struct standing_one *one)
{
	uint64_t attached_ms;

	if (one->state != STANDING_ATTACHED)
		return;
	if (standing_note_take_detached(one->wish.name)) {
		log_info("%s: somebody has detached it", one->wish.name);
		standing_one_feed(one, STANDING_ON_BY_HAND);
		return;
	}
	if (record_is(RECORD_DIR, one->port, &one->record) &&
	    vhci_is_free(VHCI_DIR, one->port) == 0)
		return;
	log_info("%s: lost, will be attached again", one->wish.name);
	attached_ms = loop_now_ms(one->all->loop) - one->since_ms;
	if (attached_ms >= STEADY_MS)
		one->delay_ms = 0;
	standing_one_feed(one, STANDING_ON_LOST);
}

/* ---- beginning and end ---- */

void standing_one_init(struct standing_one *one, struct standing *all,
		       const struct wish *wish)
{
	*one = (struct standing_one){ .all = all,
				      .wish = *wish,
				      .state = STANDING_ABSENT };
	if (loop_timer_start(all->loop, UINT32_MAX, 0, on_time, one,
			     &one->timer) < 0) {
		log_error("%s: no timer to keep it attached with", wish->name);
		return;
	}
	standing_one_feed(one, STANDING_ON_WANTED);
}

void standing_one_done(struct standing_one *one)
{
	if (one->state != STANDING_ABSENT)
		forget(one);
}
