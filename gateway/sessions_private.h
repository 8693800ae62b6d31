/* SPDX-License-Identifier: Apache-2.0 */
/* What sessions.c and sessions_trust.c share; nobody else includes it. */
#ifndef SESSIONS_PRIVATE_H
#define SESSIONS_PRIVATE_H

#include "gateway/sessions.h"
#include "vchan-transport/tls.h"

struct loop_timer;
struct loop_watch;
struct remotes;
struct remotes_question;

/* Owned by the list, from fork to waitpid. */
struct session {
	struct session *next;
	struct sessions *sessions;
	pid_t pid;
	int sock; /* -1: it has nothing more to ask */
	struct loop_watch *watch;
	struct sessions_peer peer;
	const struct sessions_events *events; /* NULL: nobody's */
	void *owner;
	bool has_granted;
	bool is_proved;  /* TLS: its peer is who it says */
	bool is_crowded; /* TLS: that one has too many already */
	struct tls_certificate_id certificate; /* TLS: its certificate */
	char busid[USBIP_BUSID_BYTES]; /* of the device it has, or empty */
	char refusal[128];             /* of what it asked for last, or empty */
	const char *taken_back;        /* for its peer: why it has to end */
	struct loop_timer *kill_timer; /* if it does not */
	struct remotes_question *question; /* NULL: nothing is waited for */
	size_t num_listed;
	int error; /* of the answers that it could not be sent */
};

struct sessions {
	struct loop *loop;
	const struct config *config;
	struct registry *registry;
	struct remotes *remotes;
	struct tls_revocations *revocations; /* owned; NULL: none */
	bool is_debug;
	struct session *first;
	unsigned count;
};

/* Have so many sessions as one peer may have the same key? */
bool sessions_is_crowded(const struct sessions *sessions, const char *key);

/* Notes that it is given this device. 0, or -errno, which is logged. */
int session_note_peer(const struct session *s, const char *busid);

/* IPC_PEER: 0, or -EPROTO and why the session is to be killed. */
int session_on_peer(struct session *s, const struct tls_peer *peer,
		    const char **ret_why);
/* What it asks for is refused: its peer has too many sessions. */
int session_answer_crowded(const struct session *s);

#endif
