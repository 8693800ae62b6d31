/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_lock.h - which session serves a channel of a guest, so that the next
 * manager knows: flock(2) on DIR/xen-DOMAIN-CHANNEL.channel, which the session
 * inherits, and which says who that is and what it serves.  The session cannot
 * write to it: whom it names is ended by signals.  It could unlock it, so it is
 * held as well while the process lives that it names.
 */
#ifndef CHANNEL_LOCK_H
#define CHANNEL_LOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vchan-transport/usbip.h"

struct channel_note {
	pid_t pid;           /* 0: nobody knows */
	uint64_t started_at; /* as the kernel has it: numbers are used again */
	uint64_t epoch;
	char uuid[40];                 /* of the guest */
	char busid[USBIP_BUSID_BYTES]; /* of the device it has, or empty */
};

/* 0 with the lock, a descriptor to read by, the caller's; -EBUSY; -errno. */
int channel_lock_take(const char *dir, unsigned domid, unsigned channel,
		      int *ret_fd);
/*
 * Its session has ended.  Closing does not do: another session that is being
 * started has a copy of the descriptor until its exec.
 */
void channel_lock_release(int fd);
/* Says who has it from now on; `started_at` is filled in. */
int channel_lock_note(int fd, struct channel_note *note);

/*
 * Is it held? 1 with what is known of the session, whose pid is 0 unless it is
 * alive and that very process; 0 if nobody holds it, and the file is gone then.
 */
int channel_lock_find(const char *dir, unsigned domid, unsigned channel,
		      struct channel_note *ret_note);
/* Once nobody holds it any more. */
void channel_lock_remove(const char *dir, unsigned domid, unsigned channel);

/* For each lock file there is. */
typedef void channel_lock_cb(void *arg, unsigned domid, unsigned channel);
void channel_lock_each(const char *dir, channel_lock_cb *each, void *arg);

#endif
