/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/channel_watch.h"

static void drop(struct channel_watch_fd *f)
{
	loop_watch_stop(f->watch);
	f->watch = NULL;
}

/* Of loop.h. */
static short events_of(const struct channel_fd *fd)
{
	return (short)(fd->kind == CHANNEL_FD_LEVEL ? fd->events
						    : fd->events | LOOP_EDGE);
}

static void on_ready(void *arg, short revents)
{
	struct channel_watch_fd *f = arg;

	(void)revents;
	/* Being woken is all that a bell is for: the source is asked next. */
	if (f->kind != CHANNEL_FD_BELL &&
	    !channel_wake(f->owner->channel, f->fd))
		drop(f);
}

int channel_watch_start(struct channel_watch *w, struct loop *loop,
			struct channel *channel)
{
	struct channel_fd fds[CHANNEL_MAX_FDS];
	int r;

	w->channel = channel;
	w->want = CHANNEL_READ;
	w->num_fds = channel_fds(channel, w->want, fds);
	for (size_t i = 0; i < w->num_fds; i++) {
		struct channel_watch_fd *f = &w->fds[i];

		f->owner = w;
		f->fd = fds[i].fd;
		f->events = events_of(&fds[i]);
		f->kind = fds[i].kind;
		r = loop_watch_fd(loop, f->fd, f->events, on_ready, f,
				  &f->watch);
		if (r < 0) {
			channel_watch_stop(w);
			return r;
		}
	}
	return 0;
}

bool channel_watch_arm(struct channel_watch *w, unsigned want)
{
	struct channel_fd fds[CHANNEL_MAX_FDS];
	size_t n;

	/* A channel may have to write what its owner has long forgotten. */
	n = channel_fds(w->channel, want, fds);
	for (size_t i = 0; i < n && i < w->num_fds; i++) {
		struct channel_watch_fd *f = &w->fds[i];

		if (!f->watch || f->events == events_of(&fds[i]))
			continue;
		f->events = events_of(&fds[i]);
		if (loop_watch_set(f->watch, f->events) < 0)
			drop(f);
	}
	w->want = want;
	return channel_arm(w->channel, want);
}

void channel_watch_stop(struct channel_watch *w)
{
	for (size_t i = 0; i < w->num_fds; i++)
		drop(&w->fds[i]);
	w->num_fds = 0;
}
