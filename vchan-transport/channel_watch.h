/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_watch.h - a channel's descriptors in a loop: whoever owns both gives
 * what it wants to hear of, and has its source asked again after each wake-up.
 */
#ifndef CHANNEL_WATCH_H
#define CHANNEL_WATCH_H

#include "vchan-transport/channel.h"
#include "vchan-transport/loop.h"

struct channel_watch_fd {
	struct channel_watch *owner;
	struct loop_watch *watch; /* NULL: not watched */
	int fd;
	short events;
	enum channel_fd_kind kind;
};

/* Embedded in its owner; zero-initialised. */
struct channel_watch {
	struct channel *channel; /* borrowed */
	struct channel_watch_fd fds[CHANNEL_MAX_FDS];
	size_t num_fds;
	unsigned want;
};

int channel_watch_start(struct channel_watch *w, struct loop *loop,
			struct channel *channel);

/* Sets what is wanted and arms: true if there is news already. */
bool channel_watch_arm(struct channel_watch *w, unsigned want);

/* Before the channel is freed; again is fine. */
void channel_watch_stop(struct channel_watch *w);

#endif
