/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a session's peer has proved to be, and whether it may still have what it
 * has: by its certificate, and by the rules. And those of an earlier manager.
 */
#include "gateway/sessions.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>

#include "gateway/ipc.h"
#include "gateway/remote_name.h"
#include "gateway/remotes.h"
#include "gateway/session_note.h"
#include "gateway/sessions_private.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

/* For a session to put its device back; its peer's end is not waited for. */
#define END_LIMIT_MS 800

/* ---- ending one ---- */

static void on_kill_time(void *arg)
{
	const struct session *s = arg;

	log_warn("session %d (%s): killed: it has not ended within %d ms",
		 (int)s->pid, s->peer.name, END_LIMIT_MS);
	(void)kill(s->pid, SIGKILL);
}

/* `why` for the log, `peer_why` for its peer, where that can be told. */
static void take_back(struct session *s, const char *why, const char *peer_why)
{
	if (s->taken_back)
		return;
	s->taken_back = peer_why;
	log_warn("session %d (%s, %s): is ended: %s", (int)s->pid, s->peer.name,
		 s->busid[0] != '\0' ? s->busid : "no device", why);
	if (loop_timer_start(s->sessions->loop, END_LIMIT_MS, 0, on_kill_time,
			     s, &s->kill_timer) < 0)
		(void)kill(s->pid, SIGKILL);
	else
		(void)kill(s->pid, SIGTERM);
}

static bool is_revoked(const struct session *s)
{
	return s->is_proved && s->sessions->revocations &&
	       tls_is_revoked(s->sessions->revocations, &s->certificate);
}

static void judge_certificate(struct session *s)
{
	if (is_revoked(s))
		take_back(s, "its certificate is revoked",
			  "your certificate is revoked");
}

/* ---- who it is ---- */

/* A name that does not fit whole is none: a part of it may be another's. */
static void name_for_rules(struct policy_peer *policy,
			   const struct tls_peer *peer)
{
	*policy = (struct policy_peer){ .kind = POLICY_PEER_TLS };
	if (strlen(peer->name) < sizeof(policy->name))
		memcpy(policy->name, peer->name, strlen(peer->name));
	memcpy(policy->pin, peer->pin, strlen(peer->pin));
}

int session_on_peer(struct session *s, const struct tls_peer *peer,
		    const char **ret_why)
{
	struct sessions_peer *known = &s->peer;
	char address[sizeof(known->name)];
	char key[sizeof(known->key)];

	*ret_why = "it proved what it was not asked for";
	if (known->kind != ADDRESS_TLS || s->is_proved)
		return -EPROTO;
	s->is_proved = true;
	s->certificate = peer->certificate;
	memcpy(address, known->name, sizeof(address));
	ipc_name_peer(known->name, peer, address);
	name_for_rules(&known->policy, peer);
	(void)snprintf(key, sizeof(key), "tls %s",
		       known->policy.name[0] != '\0' ? known->policy.name
						     : known->policy.pin);
	s->is_crowded = sessions_is_crowded(s->sessions, key);
	memcpy(known->key, key, sizeof(known->key));
	log_info("session %d (%s): certificate %s", (int)s->pid, known->name,
		 s->certificate.serial);
	judge_certificate(s);
	return 0;
}

/* Known since its handshake. */
int session_answer_crowded(const struct session *s)
{
	const struct ipc_answer answer = {
		.type = IPC_REFUSED,
		.status = USBIP_ST_NA,
		.reason = "max_sessions_per_peer is reached",
		.peer_reason = "you have too many connections here already",
	};

	return ipc_answer(s->sock, &answer, -1, -1);
}

/* ---- whether it still holds ---- */

void sessions_set_revocations(struct sessions *sessions,
			      struct tls_revocations *revocations)
{
	tls_revocations_free(sessions->revocations);
	sessions->revocations = revocations;
}

/* What it has; of other gateways' devices only the remotes know. */
static bool is_given(const struct session *s)
{
	const struct sessions *sessions = s->sessions;

	if (s->busid[0] == '\0')
		return true;
	if (remote_name_is_one(s->busid))
		return !sessions->remotes ||
		       remotes_is_given(sessions->remotes, s->busid,
					&s->peer.policy);
	return registry_is_given(sessions->registry, s->busid, &s->peer.policy);
}

int session_note_peer(const struct session *s, const char *busid)
{
	struct session_note note = { .pid = s->pid,
				     .policy = s->peer.policy,
				     .certificate = s->certificate };
	int r;

	memcpy(note.name, s->peer.name, sizeof(note.name));
	r = session_note_write(s->sessions->config->runtime_dir, busid, &note);
	if (r < 0)
		log_error("session %d (%s): %s is not given to it: that cannot "
			  "be noted in %s: %s",
			  (int)s->pid, s->peer.name, busid,
			  s->sessions->config->runtime_dir, strerror(-r));
	return r;
}

/*
 * Of an earlier manager: nobody would see in time that it does not end, and
 * what it has the sweep puts back.
 */
static void judge_orphan(void *arg, const char *busid,
			 const struct session_note *note, int pidfd)
{
	struct sessions *sessions = arg;
	struct session s = { .sessions = sessions,
			     .peer.policy = note->policy,
			     .is_proved = note->certificate.serial[0] != '\0',
			     .certificate = note->certificate };

	(void)snprintf(s.busid, sizeof(s.busid), "%s", busid);
	if (sessions_has(sessions, note->pid) ||
	    (is_given(&s) && !is_revoked(&s)))
		return;
	log_warn("session %d (%s, %s): of an earlier manager: is killed: %s",
		 (int)note->pid, note->name, busid,
		 is_given(&s) ? "its certificate is revoked"
			      : "no rule gives it this device any more");
	(void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
}

void sessions_judge(struct sessions *sessions)
{
	for (struct session *s = sessions->first; s; s = s->next) {
		judge_certificate(s);
		if (!is_given(s))
			take_back(s, "no rule gives it this device any more",
				  "the device is not given to you any more");
	}
	session_note_each(sessions->config->runtime_dir, judge_orphan,
			  sessions);
}

/* ---- ending those of an earlier manager ---- */

struct orphans_signal {
	const struct sessions *sessions;
	int signo;
};

static void signal_orphan(void *arg, const char *busid,
			  const struct session_note *note, int pidfd)
{
	const struct orphans_signal *what = arg;

	(void)busid;
	if (!sessions_has(what->sessions, note->pid))
		(void)pidfd_send_signal(pidfd, what->signo, NULL, 0);
}

void sessions_signal_orphans(const struct sessions *sessions, int signo)
{
	struct orphans_signal what = { .sessions = sessions, .signo = signo };

	session_note_each(sessions->config->runtime_dir, signal_orphan, &what);
}
