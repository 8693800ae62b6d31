/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fdpass.h - one message with descriptors over an AF_UNIX socket
 * (SCM_RIGHTS), used by the shm channel's rendezvous and between a manager and
 * its sessions.
 */
#ifndef FDPASS_H
#define FDPASS_H

#include <stddef.h>
#include <sys/types.h>

#define FDPASS_MAX 4

/* Sends the message whole: 0 or -errno.  The descriptors stay the caller's. */
int fdpass_send(int sock, const void *bytes, size_t num_bytes, const int *fds,
		size_t num_fds);

/*
 * Receives one message of at most `cap` bytes: its length, 0 at the end, or
 * -errno.  Descriptors come close-on-exec and are the caller's; slots that got
 * none are -1.  A message that was cut, or that carried more descriptors than
 * `max_fds`, is -EBADMSG and leaves none open.
 */
ssize_t fdpass_recv(int sock, void *bytes, size_t cap, int *ret_fds,
		    size_t max_fds);

#endif
