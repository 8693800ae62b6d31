/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - one conversation with one peer, in a process of its own: USB/IP
 * operations first, then at most one device until either side ends.
 */
#ifndef SESSION_H
#define SESSION_H

#include <stddef.h>

#include "vchan-transport/address.h"
#include "vchan-transport/exit_status.h"

struct session_options {
	enum address_kind kind; /* of the listener that accepted */
	int peer_fd;            /* accepted connection, or ADDRESS_XEN: the
				   channel's lock, held to the end; owned */
	int manager_fd;         /* ipc.h; owned */
	size_t ring_bytes;      /* shm, vchan */
	size_t budget_bytes;    /* URB data in flight */
	const char *peer;       /* for the log, escaped */
	unsigned domid;         /* ADDRESS_XEN: the peer */
	const char *path;       /* ADDRESS_XEN: of its channel, in our data */
	const char *tls_dir;    /* ADDRESS_TLS: what we prove ourselves with */
};

/* Runs it to its end.  The exit status of the process. */
enum exit_status session_run(const struct session_options *options);

#endif
