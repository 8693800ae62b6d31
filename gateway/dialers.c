/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See dialers.h. The socket tells of a dialer's end; that its process is reaped
 * is the manager's SIGCHLD's, which asks for no pid. So a pid may be another
 * process's by the time a dialer is stopped, and its pidfd is used.
 */
#include "gateway/dialers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/ipc.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

/* Owned by the list, from fork until its socket ends or it is stopped. */
struct dialer {
	struct dialer *next;
	struct dialers *dialers;
	int pid_fd;
	int sock;
	struct loop_watch *watch;
	dialers_cb *on_packet;
	void *arg;
};

struct dialers {
	struct loop *loop;
	bool is_debug;
	struct dialer *first;
	unsigned count;
	struct dial_packet packet; /* the last one */
};

static void release(struct dialer *d)
{
	loop_watch_stop(d->watch);
	if (d->pid_fd >= 0)
		(void)close(d->pid_fd);
	(void)close(d->sock);
	free(d);
}

static void forget(struct dialer *d)
{
	struct dialer **at = &d->dialers->first;

	while (*at && *at != d)
		at = &(*at)->next;
	if (*at) {
		*at = d->next;
		d->dialers->count--;
	}
	release(d);
}

void dialers_stop(struct dialer *d)
{
	if (!d)
		return;
	(void)pidfd_send_signal(d->pid_fd, SIGKILL, NULL, 0);
	forget(d);
}

static void end(struct dialer *d)
{
	dialers_cb *on_packet = d->on_packet;
	void *arg = d->arg;

	forget(d);
	on_packet(arg, NULL);
}

static void on_ready(void *arg, short revents)
{
	struct dialer *d = arg;
	int r = dial_receive(d->sock, &d->dialers->packet);

	(void)revents;
	if (r == -EAGAIN)
		return;
	if (r == -EBADMSG) {
		log_error("a dialer is killed: it sent a malformed report");
		(void)pidfd_send_signal(d->pid_fd, SIGKILL, NULL, 0);
	}
	if (r <= 0)
		end(d);
	else
		d->on_packet(d->arg, &d->dialers->packet);
}

static void write_pin(const struct config_remote *remote, char *to)
{
	size_t at = strlen(TLS_PIN_TEXT);

	*to = '\0';
	if (!remote->has_pin)
		return;
	memcpy(to, TLS_PIN_TEXT, at);
	for (size_t i = 0; i < TLS_PIN_BYTES; i++)
		(void)snprintf(to + at + (size_t)2 * i, 3, "%02x",
			       remote->pin[i]);
}

static void __attribute__((noreturn))
exec_dialer(const struct dialers_call *call, bool is_debug, int sock)
{
	const struct config_remote *remote = call->remote;
	char program[] = "xusbip-gateway";
	char mark[] = DIAL_ARGV_MARK;
	char numbers[DIAL_ARGV_COUNT][24];
	char name[CONFIG_REMOTE_NAME_BYTES];
	char address[ADDRESS_TEXT_CAP] = "";
	char tls_dir[TLS_DIR_BYTES];
	char pin[TLS_PIN_TEXT_BYTES];
	char busid[USBIP_BUSID_BYTES];
	char *argv[DIAL_ARGV_COUNT + 1] = {
		[0] = program,
		[DIAL_ARGV_MODE] = mark,
		[DIAL_ARGV_NAME] = name,
		[DIAL_ARGV_ADDRESS] = address,
		[DIAL_ARGV_TLS_DIR] = tls_dir,
		[DIAL_ARGV_PIN] = pin,
		[DIAL_ARGV_BUSID] = busid,
	};
	const unsigned values[DIAL_ARGV_COUNT] = {
		[DIAL_ARGV_MANAGER_FD] = (unsigned)sock,
		[DIAL_ARGV_IS_DEBUG] = is_debug,
		[DIAL_ARGV_LIMIT_MS] = call->limit_ms,
		[DIAL_ARGV_HOPS] = call->hops,
	};

	for (size_t i = 0; i < DIAL_ARGV_COUNT; i++) {
		if (argv[i])
			continue;
		(void)snprintf(numbers[i], sizeof(numbers[i]), "%u", values[i]);
		argv[i] = numbers[i];
	}
	(void)snprintf(name, sizeof(name), "%s", remote->name);
	(void)address_format(&remote->address, address, sizeof(address));
	(void)snprintf(tls_dir, sizeof(tls_dir), "%s", remote->tls_dir);
	write_pin(remote, pin);
	(void)snprintf(busid, sizeof(busid), "%s", call->busid);
	ipc_exec(argv, &sock, 1);
}

static int start(struct dialer *d, const struct dialers_call *call)
{
	int fds[2];
	pid_t pid;
	int r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	d->sock = fds[0];
	r = loop_watch_fd(d->dialers->loop, d->sock, POLLIN, on_ready, d,
			  &d->watch);
	if (r < 0)
		goto out;
	pid = ipc_fork();
	if (pid == 0)
		exec_dialer(call, d->dialers->is_debug, fds[1]);
	if (pid > 0)
		d->pid_fd = pidfd_open(pid, 0);
	/* Without it, a dialer that cannot be stopped ends with its socket. */
	if (pid < 0 || d->pid_fd < 0)
		r = -errno;
out:
	(void)close(fds[1]);
	return r;
}

int dialers_start(struct dialers *dialers, const struct dialers_call *call,
		  dialers_cb *on_packet, void *arg, struct dialer **ret_dialer)
{
	struct dialer *d;
	int r;

	if (dialers->count >= DIALERS_MAX)
		return -EAGAIN;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	*d = (struct dialer){ .dialers = dialers,
			      .pid_fd = -1,
			      .sock = -1,
			      .on_packet = on_packet,
			      .arg = arg };
	r = start(d, call);
	if (r < 0) {
		forget(d);
		return r;
	}
	d->next = dialers->first;
	dialers->first = d;
	dialers->count++;
	*ret_dialer = d;
	return 0;
}

int dialers_go(struct dialer *dialer, int data_fd)
{
	return dial_go(dialer->sock, data_fd);
}

int dialers_new(struct loop *loop, bool is_debug, struct dialers **ret_dialers)
{
	struct dialers *dialers = calloc(1, sizeof(*dialers));

	if (!dialers)
		return -ENOMEM;
	dialers->loop = loop;
	dialers->is_debug = is_debug;
	*ret_dialers = dialers;
	return 0;
}

void dialers_free(struct dialers *dialers)
{
	while (dialers && dialers->first) {
		struct dialer *d = dialers->first;

		dialers->first = d->next;
		release(d);
	}
	free(dialers);
}
