/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/standing.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "frontend/standing_private.h"
#include "frontend/wish_list.h"
#include "vchan-transport/log.h"
#include "vchan-transport/state_file.h"

#define MAX_JOBS       8

#define CHECK_EVERY_MS 2000u
/* After a device has left; vhci_hcd frees its port a little later. */
#define QUICK_EVERY_MS 100u
#define QUICK_CHECKS   30u

/* ---- all of them ---- */

bool standing_has_port(const struct standing *s, uint32_t port)
{
	for (size_t i = 0; i < WISH_MAX; i++)
		if (s->ones[i].state == STANDING_ATTACHED &&
		    s->ones[i].port == port)
			return true;
	return false;
}

bool standing_has_room(const struct standing *s)
{
	unsigned count = 0;

	for (size_t i = 0; i < WISH_MAX; i++)
		count += s->ones[i].job.pid != 0;
	return count < MAX_JOBS;
}

static void on_check(void *arg)
{
	struct standing *s = arg;
	bool is_any_attached = false;

	for (size_t i = 0; i < WISH_MAX; i++) {
		standing_one_check(&s->ones[i]);
		is_any_attached |= s->ones[i].state == STANDING_ATTACHED;
	}
	if (s->checks_left > 0)
		s->checks_left--;
	if (is_any_attached)
		loop_timer_again(s->check_timer, s->checks_left > 0
							 ? QUICK_EVERY_MS
							 : CHECK_EVERY_MS);
}

void standing_check_soon(struct standing *s)
{
	loop_timer_again(s->check_timer, QUICK_EVERY_MS);
}

void standing_on_removal(struct standing *s)
{
	if (!s)
		return;
	s->checks_left = QUICK_CHECKS;
	on_check(s);
}

void standing_on_news(struct standing *s)
{
	for (size_t i = 0; s && i < WISH_MAX; i++)
		standing_one_on_news(&s->ones[i]);
}

bool standing_on_child(struct standing *s, pid_t pid, int status)
{
	for (size_t i = 0; s && i < WISH_MAX; i++) {
		if (s->ones[i].job.pid != pid)
			continue;
		standing_one_on_job_end(&s->ones[i], status);
		return true;
	}
	return false;
}

/* ---- what is wanted ---- */

/* The one that lives by that name, or a free place; NULL: there is none. */
static struct standing_one *find(struct standing *s, const char *name)
{
	struct standing_one *found = NULL;

	for (size_t i = 0; i < WISH_MAX; i++) {
		struct standing_one *one = &s->ones[i];

		if (one->state == STANDING_ABSENT)
			found = found ? found : one;
		else if (one->state != STANDING_ENDING && name &&
			 strcmp(one->wish.name, name) == 0)
			return one;
	}
	return found;
}

static void want(struct standing *s, const struct wish *wish, bool is_reload)
{
	struct standing_one *one = find(s, wish->name);

	if (!one) {
		log_error("%s: not kept attached: there are %d already",
			  wish->name, WISH_MAX);
	} else if (one->state == STANDING_ABSENT) {
		standing_one_init(one, s, wish);
	} else if (is_reload) {
		standing_one_feed(one, STANDING_ON_WANTED);
	}
}

static bool is_among(const struct wish *wish, const struct wish *wishes,
		     size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (wish_is_same(wish, &wishes[i]))
			return true;
	return false;
}

static void read_all(struct standing *s, bool is_reload)
{
	struct wish files[WISH_MAX];
	size_t num_files = wish_list(files);

	/* First, so that there is room, and for one that has changed. */
	for (size_t i = 0; i < WISH_MAX; i++) {
		struct standing_one *one = &s->ones[i];

		if (one->state == STANDING_ABSENT ||
		    one->state == STANDING_ENDING ||
		    is_among(&one->wish, s->sections, s->num_sections) ||
		    is_among(&one->wish, files, num_files))
			continue;
		log_info("%s: is not kept attached any more", one->wish.name);
		standing_one_feed(one, STANDING_ON_UNWANTED);
	}
	for (size_t i = 0; i < s->num_sections; i++)
		want(s, &s->sections[i], is_reload);
	for (size_t i = 0; i < num_files; i++)
		want(s, &files[i], is_reload);
}

void standing_configure(struct standing *s, const struct agent_config *config)
{
	if (!s)
		return;
	(void)snprintf(s->tls_dir, sizeof(s->tls_dir), "%s", config->tls_dir);
	s->num_sections = config->num_wishes;
	memcpy(s->sections, config->wishes, sizeof(s->sections));
	read_all(s, true);
}

static void on_files(void *arg, short revents)
{
	struct standing *s = arg;
	char events[4096];

	(void)revents;
	while (read(s->files_fd, events, sizeof(events)) > 0)
		;
	read_all(s, false);
}

/* ---- beginning and end ---- */

static int watch_files(struct standing *s)
{
	int r = state_make_folder(wish_dir(), 0700);

	if (r < 0)
		return r;
	s->files_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (s->files_fd < 0 ||
	    inotify_add_watch(s->files_fd, wish_dir(),
			      IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
				      IN_CLOSE_WRITE) < 0)
		return -errno;
	return loop_watch_fd(s->loop, s->files_fd, POLLIN, on_files, s,
			     &s->files_watch);
}

int standing_new(struct loop *loop, bool is_debug, standing_may_cb *may,
		 void *arg, struct standing **ret_standing)
{
	struct standing *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct standing){ .loop = loop,
				.is_debug = is_debug,
				.may = may,
				.arg = arg,
				.files_fd = -1 };
	s->lock_fd = standing_note_lock();
	r = s->lock_fd < 0 ? s->lock_fd : 0;
	if (r == 0)
		r = loop_timer_start(loop, UINT32_MAX, 0, on_check, s,
				     &s->check_timer);
	if (r < 0) {
		standing_free(s);
		return r;
	}
	r = watch_files(s);
	if (r < 0)
		log_warn("does not hear of what is attached with --persist: %s",
			 strerror(-r));
	*ret_standing = s;
	return 0;
}

void standing_free(struct standing *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < WISH_MAX; i++)
		standing_one_done(&s->ones[i]);
	loop_watch_stop(s->files_watch);
	loop_timer_stop(s->check_timer);
	if (s->files_fd >= 0)
		(void)close(s->files_fd);
	if (s->lock_fd >= 0)
		(void)close(s->lock_fd);
	free(s);
}
