/* SPDX-License-Identifier: Apache-2.0 */
/* See admin.h. */
#include "gateway/admin.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "gateway/hold_note.h"
#include "gateway/wants.h"
#include "gateway/xen.h"
#include "vchan-transport/admin.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

#define MAX_ASKERS    64
#define BACKLOG       256 /* who comes when there is no place */
#define ASK_LIMIT_MS  5000u
#define ANSWERED_MS   1000u /* for the asker to hang up */
#define NAMED_DOMAINS 8

enum asker_state {
	ASKER_FREE,
	ASKER_ASKING,   /* is to send its request */
	ASKER_WAITING,  /* for a guest */
	ASKER_ANSWERED, /* is to hang up */
};

/* One connection. Owned by the admin; its place is used again. */
struct asker {
	struct admin *admin;
	enum asker_state state;
	int sock;
	struct loop_watch *watch;
	struct loop_timer *limit;
	struct admin_request request;
	struct xen_guest guest;
};

struct admin {
	struct loop *loop;
	struct xen *xen;
	struct wants *wants;
	char state_dir[80]; /* its own: configurations go */
	int sock;
	struct loop_watch *watch;
	struct sockaddr_un at;
	struct asker askers[MAX_ASKERS];
};

static void hang_up(struct asker *a)
{
	struct admin *admin = a->admin;

	loop_watch_stop(a->watch);
	loop_timer_stop(a->limit);
	(void)close(a->sock);
	*a = (struct asker){ .admin = admin };
	/* Whoever waits for this place. */
	(void)loop_watch_set(admin->watch, POLLIN);
}

static void answer(struct asker *a, enum exit_status status, const char *fmt,
		   ...) __attribute__((format(printf, 3, 4)));

/* May be called from within a request, so the asker stays until it hangs up. */
static void answer(struct asker *a, enum exit_status status, const char *fmt,
		   ...)
{
	struct admin_answer answer = { .status = status };
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(answer.text, sizeof(answer.text), fmt, args);
	va_end(args);
	a->state = ASKER_ANSWERED;
	(void)send(a->sock, &answer, sizeof(answer),
		   MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)shutdown(a->sock, SHUT_WR);
	loop_timer_again(a->limit, ANSWERED_MS);
}

static void on_done(void *arg, enum exit_status status, const char *text)
{
	struct asker *a = arg;
	bool names_it = a->request.verb == ADMIN_ATTACH;

	if (a->state == ASKER_WAITING)
		answer(a, status, "%s%s%s", names_it ? "" : a->guest.name,
		       names_it ? "" : ": ", text);
}

static void forget(struct asker *a)
{
	if (a->state != ASKER_WAITING)
		return;
	xen_forget_asker(a->admin->xen, a);
	wants_forget_asker(a->admin->wants, a);
}

/* ---- requests ---- */

static void answer_unknown(struct asker *a)
{
	const struct xen *xen = a->admin->xen;
	char list[ADMIN_TEXT_BYTES] = "";
	struct xen_guest guest;
	size_t used = 0;
	size_t i;

	for (i = 0; i < NAMED_DOMAINS && xen_guest_at(xen, i, &guest) == 0; i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used,
					 "%s%.40s (%u)", i ? ", " : "",
					 guest.name, guest.domid);
	if (i == 0)
		(void)snprintf(list, sizeof(list), "no domain is");
	else if (xen_guest_at(xen, i, &guest) == 0)
		(void)snprintf(list + used, sizeof(list) - used,
			       " and others are");
	else
		(void)snprintf(list + used, sizeof(list) - used, "%s",
			       i == 1 ? " is" : " are");
	answer(a, EXIT_NO_DOMAIN, "no domain %s is served by this gateway; %s",
	       a->request.domain, list);
}

static void attach(struct asker *a)
{
	const struct admin_request *q = &a->request;

	if (a->guest.is_held) {
		answer(a, EXIT_BUSY, "%s is quiesced; first: xusbip resume %s",
		       a->guest.name, q->domain);
		return;
	}
	wants_add(a->admin->wants, &a->guest, q->busid, q->persists != 0,
		  on_done, a);
}

static void detach(struct asker *a)
{
	const struct admin_request *q = &a->request;
	int r = wants_remove(a->admin->wants, &a->guest, q->busid);
	unsigned ended = xen_revoke(a->admin->xen, a->guest.domid, q->busid);

	if (r < 0)
		answer(a, EXIT_FAILED,
		       "%s does not have %s now, but it will again: its "
		       "want-%s in state_dir cannot be changed: %s",
		       a->guest.name, q->busid, a->guest.uuid, strerror(-r));
	else if (r > 0 || ended > 0)
		answer(a, EXIT_OK, "detached %s from %s", q->busid,
		       a->guest.name);
	else
		answer(a, EXIT_NO_DEVICE, "%s has no device %s of this gateway",
		       a->guest.name, q->busid);
}

/* Holding and resuming are answered later, or there is no such guest. */
static void hear(struct asker *a, int r)
{
	if (r < 0)
		answer(a, r == -ENOENT ? EXIT_NO_DOMAIN : EXIT_FAILED,
		       "cannot tell %s: %s", a->guest.name, strerror(-r));
}

/* Of a domain that went elsewhere, and is not to be held if it comes back. */
static bool forgets_hold(struct asker *a)
{
	const struct admin_request *q = &a->request;
	const char *dir = a->admin->state_dir;
	int r;

	if (q->verb != ADMIN_RESUME || hold_note_read(dir, q->domain) == 0)
		return false;
	r = hold_note_remove(dir, q->domain);
	if (r < 0)
		answer(a, EXIT_FAILED,
		       "%s is not here, and is held when it comes back: "
		       "hold-%s in state_dir cannot be removed: %s",
		       q->domain, q->domain, strerror(-r));
	else
		answer(a, EXIT_OK, "%s is not here, and is not held any more",
		       q->domain);
	return true;
}

static void carry_out(struct asker *a)
{
	const struct admin_request *q = &a->request;
	struct xen *xen = a->admin->xen;

	if (xen_find_guest(xen, q->domain, &a->guest) < 0) {
		if (!forgets_hold(a))
			answer_unknown(a);
		return;
	}
	switch ((enum admin_verb)q->verb) {
	case ADMIN_ATTACH:
		attach(a);
		break;
	case ADMIN_DETACH:
		detach(a);
		break;
	case ADMIN_QUIESCE:
		hear(a, xen_hold(xen, q->domain, on_done, a));
		break;
	case ADMIN_RESUME:
		hear(a, xen_resume(xen, q->domain, on_done, a));
		break;
	}
}

/* Below root's own program too there may be a fault. */
static bool is_right(const struct admin_request *q)
{
	bool has_busid = q->verb == ADMIN_ATTACH || q->verb == ADMIN_DETACH;

	if (q->version != ADMIN_VERSION || q->verb > ADMIN_RESUME)
		return false;
	if (!memchr(q->domain, '\0', sizeof(q->domain)) ||
	    !memchr(q->busid, '\0', sizeof(q->busid)))
		return false;
	if (!has_busid)
		return true;
	for (const char *at = q->busid; *at; at++)
		if (*at <= ' ' || *at > '~' || *at == '/')
			return false;
	return q->busid[0] != '\0';
}

/* ---- connections ---- */

static void on_limit(void *arg)
{
	struct asker *a = arg;

	if (a->state != ASKER_WAITING) {
		hang_up(a);
		return;
	}
	forget(a);
	answer(a, EXIT_TIMEOUT,
	       "%s did not answer within %u s; is xusbip-frontend running in "
	       "it?%s",
	       a->guest.name, ADMIN_LIMIT_MS / 1000,
	       a->request.persists ? " It will be told when it is" : "");
}

/* As when there was no place for a minute. */
static bool has_given_up(const struct asker *a)
{
	char byte;

	return recv(a->sock, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

static void on_word(void *arg, short revents)
{
	struct asker *a = arg;
	struct admin_request request = { 0 };
	ssize_t n = recv(a->sock, &request, sizeof(request),
			 MSG_DONTWAIT | MSG_TRUNC);

	(void)revents;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || a->state != ASKER_ASKING || has_given_up(a)) {
		forget(a);
		hang_up(a);
		return;
	}
	if ((size_t)n != sizeof(request) || !is_right(&request)) {
		answer(a, EXIT_PROTOCOL,
		       "this gateway is of another version "
		       "than the command");
		return;
	}
	a->request = request;
	a->state = ASKER_WAITING;
	loop_timer_again(a->limit, ADMIN_LIMIT_MS);
	carry_out(a);
}

static bool is_root(int sock)
{
	struct ucred who = { .uid = (uid_t)-1 };
	socklen_t len = sizeof(who);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
	       (who.uid == 0 || who.uid == geteuid());
}

static struct asker *find_place(struct admin *admin)
{
	for (size_t i = 0; i < MAX_ASKERS; i++)
		if (admin->askers[i].state == ASKER_FREE)
			return &admin->askers[i];
	return NULL;
}

static void on_call(void *arg, short revents)
{
	struct admin *admin = arg;
	struct asker *a = find_place(admin);
	int sock;
	int r;

	(void)revents;
	if (!a) {
		(void)loop_watch_set(admin->watch, 0);
		return;
	}
	sock = accept4(admin->sock, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (sock < 0)
		return;
	if (!is_root(sock)) {
		(void)close(sock);
		return;
	}
	*a = (struct asker){ .admin = admin,
			     .state = ASKER_ASKING,
			     .sock = sock };
	r = loop_timer_start(admin->loop, ASK_LIMIT_MS, 0, on_limit, a,
			     &a->limit);
	if (r == 0)
		r = loop_watch_fd(admin->loop, sock, POLLIN, on_word, a,
				  &a->watch);
	if (r < 0)
		hang_up(a);
}

static int listen_at(struct admin *admin)
{
	mode_t mask;
	int r = 0;

	admin->sock = socket(AF_UNIX,
			     SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (admin->sock < 0)
		return -errno;
	/* Of a manager before: the lock of the folder says that it is gone. */
	(void)unlink(admin->at.sun_path);
	mask = umask(0177);
	if (bind(admin->sock, (const struct sockaddr *)&admin->at,
		 sizeof(admin->at)) < 0 ||
	    listen(admin->sock, BACKLOG) < 0)
		r = -errno;
	(void)umask(mask);
	return r;
}

int admin_open(struct loop *loop, const struct config *config, struct xen *xen,
	       struct wants *wants, struct admin **ret_admin)
{
	struct admin *admin = calloc(1, sizeof(*admin));
	int n;
	int r;

	if (!admin)
		return -ENOMEM;
	*admin = (struct admin){ .loop = loop,
				 .xen = xen,
				 .wants = wants,
				 .sock = -1,
				 .at.sun_family = AF_UNIX };
	(void)snprintf(admin->state_dir, sizeof(admin->state_dir), "%s",
		       config->state_dir);
	for (size_t i = 0; i < MAX_ASKERS; i++)
		admin->askers[i].admin = admin;
	n = snprintf(admin->at.sun_path, sizeof(admin->at.sun_path),
		     "%s/" ADMIN_SOCKET_NAME, config->runtime_dir);
	r = (size_t)n < sizeof(admin->at.sun_path) ? listen_at(admin)
						   : -ENAMETOOLONG;
	if (r == 0)
		r = loop_watch_fd(loop, admin->sock, POLLIN, on_call, admin,
				  &admin->watch);
	if (r < 0) {
		if (admin->sock >= 0)
			(void)close(admin->sock);
		free(admin);
		return r;
	}
	*ret_admin = admin;
	return 0;
}

void admin_close(struct admin *admin)
{
	if (!admin)
		return;
	for (size_t i = 0; i < MAX_ASKERS; i++) {
		struct asker *a = &admin->askers[i];

		forget(a);
		if (a->state != ASKER_FREE)
			hang_up(a);
	}
	loop_watch_stop(admin->watch);
	(void)close(admin->sock);
	(void)unlink(admin->at.sun_path);
	free(admin);
}
