/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay.h - bytes between two channels, as they come, both ways. Nothing is
 * kept: where one end takes no more, the other one is not read from.
 */
#ifndef RELAY_H
#define RELAY_H

struct channel;
struct loop;

/* Which of the ends is over, and how that one's stream has ended (channel.h). */
struct relay_end {
	unsigned end; /* 0 or 1; of both, the first that was seen */
	int error;    /* -EPIPE: in order */
};

/* Runs the loop until either end is over, its last bytes passed on. */
int relay_run(struct loop *loop, struct channel *const ends[static 2],
	      struct relay_end *ret_end);

#endif
