/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sessions.h - the manager's session processes: starts them, answers what they
 * ask (ipc.h), hears of their end. What a peer is, and whether it may have a
 * session at all, is for the caller; who a TLS peer is, its session tells.
 */
#ifndef SESSIONS_H
#define SESSIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "gateway/config.h"
#include "gateway/policy.h"
#include "gateway/registry.h"
#include "vchan-transport/address.h"
#include "vchan-transport/exit_status.h"
#include "vchan-transport/tls.h"

struct loop;
struct remotes;
struct sessions;

/* Who a session is for, and what it begins with. */
struct sessions_peer {
	enum address_kind kind;
	/* For logs: "uid 0 pid 12", "domain 5 (u1)"; TLS: its address. */
	char name[IPC_NAME_BYTES];
	char key[96];              /* whose sessions count together */
	struct policy_peer policy; /* what rules look at */
	/* ADDRESS_XEN: */
	unsigned domid;
	unsigned channel;
	uint32_t ring_bytes;
};

/*
 * What happens to a session; called from the loop, never from within
 * sessions_start. After `ended` the pid is forgotten. `why` is for the peer.
 */
struct sessions_events {
	void (*granted)(void *owner, pid_t pid);
	void (*took)(void *owner, pid_t pid, const char *busid);
	void (*ended)(void *owner, pid_t pid, enum exit_status status,
		      const char *why);
};

int sessions_new(struct loop *loop, const struct config *config,
		 struct registry *registry, bool is_debug,
		 struct sessions **ret_sessions);
/* Whose devices they are told of, too: borrowed, to the end. */
void sessions_set_remotes(struct sessions *sessions, struct remotes *remotes);
/* Forgets them; they live on. NULL is fine. */
void sessions_free(struct sessions *sessions);
void sessions_set_config(struct sessions *sessions,
			 const struct config *config);

/* The word of the configuration whose limit the peer has reached, or NULL. */
const char *sessions_reached_limit(const struct sessions *sessions,
				   const char *key);

/*
 * Starts one, with the connection `fd` for its peer, which stays the caller's
 * (ADDRESS_XEN: the lock of its channel). 0 and its pid, or -errno. `events`
 * and `owner` stay borrowed until `ended`, or sessions_disown; NULL: nobody's.
 */
int sessions_start(struct sessions *sessions, int fd,
		   const struct sessions_peer *peer,
		   const struct sessions_events *events, void *owner,
		   pid_t *ret_pid);
void sessions_disown(struct sessions *sessions, pid_t pid);

/* Is it one of ours, that is, will its end be told? */
bool sessions_has(const struct sessions *sessions, pid_t pid);
/* The bus id of the device that it has, or "". */
const char *sessions_busid(const struct sessions *sessions, pid_t pid);

unsigned sessions_count(const struct sessions *sessions);
/* How many of them have a device. */
unsigned sessions_count_devices(const struct sessions *sessions);
void sessions_signal_all(const struct sessions *sessions, int signo);
/* Those that have a device and that an earlier manager has left. */
void sessions_signal_orphans(const struct sessions *sessions, int signo);

/* Owned from the call on, NULL too: none is revoked. */
void sessions_set_revocations(struct sessions *sessions,
			      struct tls_revocations *revocations);

/*
 * Ends, within a second, those whose certificate is revoked, or whose peer
 * would not get the device that it has by what the registry says now; those,
 * too, that an earlier manager has left.
 */
void sessions_judge(struct sessions *sessions);

/* To be called at SIGCHLD. */
void sessions_reap(struct sessions *sessions);

#endif
