/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_note.h - whose device is whose, for this manager and the next one: a
 * file DIR/BUSID.session for each device that a session has. Only managers can
 * write to it: a session has the claim's file open, and might say there that
 * it is somebody else. Nobody else gets the device while that process lives
 * (claim.h).
 */
#ifndef SESSION_NOTE_H
#define SESSION_NOTE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "gateway/ipc.h"
#include "gateway/policy.h"
#include "vchan-transport/tls.h"

struct session_note {
	/* These are the first in every version. */
	uint32_t version; /* filled in */
	pid_t pid;
	uint64_t started_at; /* filled in: numbers are used again */
	/* And these may change. */
	char name[IPC_NAME_BYTES];
	struct policy_peer policy;
	struct tls_certificate_id certificate; /* no serial: it showed none */
};

/* Takes an earlier one's place. 0, or -errno and there is none. */
int session_note_write(const char *dir, const char *busid,
		       struct session_note *note);
/* Once nobody has the device any more. */
void session_note_remove(const char *dir, const char *busid);

/*
 * Is the process alive that has the device? True as well where nobody can tell.
 */
bool session_note_is_alive(const char *dir, const char *busid);

/* For each session that is alive, with a pidfd that is closed afterwards. */
typedef void session_note_cb(void *arg, const char *busid,
			     const struct session_note *note, int pidfd);
void session_note_each(const char *dir, session_note_cb *each, void *arg);

#endif
