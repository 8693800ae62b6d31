/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_channels.h - the channels of one guest: made when there is something to
 * serve or to clean up, freed when idle.  Part of a guest, which alone calls it
 * and never from within a channel's callback.
 */
#ifndef GUEST_CHANNELS_H
#define GUEST_CHANNELS_H

#include <stdbool.h>

#include "gateway/xen_channel.h"
#include "vchan-transport/handshake.h"

struct guest_channels {
	struct xen_channel_host host; /* filled in by the guest */
	struct xen_channel *list[HANDSHAKE_CHANNELS];
};

/* Those that a manager before has left, in its folder or by locks. */
void guest_channels_take_up(struct guest_channels *channels);
/* Those that the guest's folder has, and those that are there. */
void guest_channels_review(struct guest_channels *channels);
void guest_channels_poll(struct guest_channels *channels);
void guest_channels_die(struct guest_channels *channels);
/* Their sessions live on. */
void guest_channels_free(struct guest_channels *channels);

bool guest_channels_are_quiet(const struct guest_channels *channels);
/* Sessions that are there, those that do not end included. */
unsigned guest_channels_count(const struct guest_channels *channels);
/* Granted for them. */
uint64_t guest_channels_pages(const struct guest_channels *channels);

/* Those whose session has a device that `is_meant`, NULL: all; how many. */
typedef bool guest_channels_cb(void *arg, const char *busid);
unsigned guest_channels_revoke(struct guest_channels *channels,
			       guest_channels_cb *is_meant, void *arg,
			       enum exit_status status, const char *why);

#endif
