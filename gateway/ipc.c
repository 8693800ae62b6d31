/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ipc.h. Requests are read without room for descriptors, so the kernel
 * drops any that come with them; answers go through fdpass. The manager's end
 * does not block: a session that does not take its answers gets -EAGAIN.
 */
#include "gateway/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vchan-transport/channel.h"
#include "vchan-transport/exit_status.h"
#include "vchan-transport/fdpass.h"
#include "vchan-transport/log.h"

#define ASK_LIMIT_MS 5000
#define SERIAL_CHARS "0123456789ABCDEF"
#define ISSUER_CHARS "0123456789abcdef"
#define NAME_CHARS                                                       \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" \
	"._-"

static int wait_for(int sock, short events, uint64_t deadline_ms)
{
	for (;;) {
		struct pollfd p = { .fd = sock, .events = events };
		uint64_t now_ms = clock_ms();
		int r;

		if (now_ms >= deadline_ms)
			return -ETIMEDOUT;
		r = poll(&p, 1, (int)(deadline_ms - now_ms));
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

static int send_request(int sock, const struct ipc_request *request)
{
	int r = wait_for(sock, POLLOUT, clock_ms() + ASK_LIMIT_MS);

	if (r < 0)
		return r;
	if (send(sock, request, sizeof(*request), MSG_NOSIGNAL) < 0)
		return -errno;
	return 0;
}

int ipc_ask(int sock, enum ipc_type type, const char *busid)
{
	return ipc_ask_on_behalf(sock, type, busid, 0);
}

int ipc_ask_on_behalf(int sock, enum ipc_type type, const char *busid,
		      unsigned hops)
{
	struct ipc_request request = { .type = type, .hops = hops };

	if (busid && strlen(busid) >= sizeof(request.busid))
		return -EINVAL;
	if (busid)
		memcpy(request.busid, busid, strlen(busid) + 1);
	return send_request(sock, &request);
}

int ipc_tell_peer(int sock, const struct tls_peer *peer)
{
	const struct ipc_request request = { .type = IPC_PEER, .peer = *peer };

	return send_request(sock, &request);
}

void ipc_name_peer(char name[static IPC_NAME_BYTES],
		   const struct tls_peer *peer, const char *address)
{
	const char *who = peer->name[0] != '\0' ? peer->name : peer->pin;

	(void)snprintf(name, IPC_NAME_BYTES, "%.80s (%.70s)", who, address);
}

static bool is_answer(const struct ipc_answer *answer, size_t num_fds)
{
	switch (answer->type) {
	case IPC_DEVICE:
	case IPC_END:
	case IPC_REFUSED:
		return num_fds == 0;
	case IPC_OPENED:
		return answer->kind <= IPC_KIND_REMOTE &&
		       num_fds == (answer->kind == IPC_KIND_ZERO ? 1 : 2);
	default:
		return false;
	}
}

int ipc_receive_answer(int sock, struct ipc_answer *ret_answer,
		       int *ret_device_fd, int *ret_lock_fd, unsigned limit_ms)
{
	struct ipc_answer answer;
	size_t num_fds = 0;
	int fds[2];
	ssize_t n;
	int r;

	r = wait_for(sock, POLLIN, clock_ms() + limit_ms);
	if (r < 0)
		return r;
	n = fdpass_recv(sock, &answer, sizeof(answer), fds, 2);
	if (n < 0)
		return (int)n;
	if (n == 0)
		return -EPIPE;
	while (num_fds < 2 && fds[num_fds] >= 0)
		num_fds++;
	if (n != (ssize_t)sizeof(answer) || !is_answer(&answer, num_fds)) {
		while (num_fds > 0)
			(void)close(fds[--num_fds]);
		return -EBADMSG;
	}

	*ret_answer = answer;
	*ret_lock_fd = num_fds > 0 ? fds[num_fds - 1] : -1;
	*ret_device_fd = num_fds == 2 ? fds[0] : -1;
	return 0;
}

static bool is_text(const char *text, size_t cap, const char *chars)
{
	size_t len = strnlen(text, cap);

	return len < cap && strspn(text, chars) == len;
}

/* What a verified certificate can say, and nothing else. */
static bool is_peer(const struct tls_peer *peer)
{
	const struct tls_certificate_id *which = &peer->certificate;
	uint8_t pin[TLS_PIN_BYTES];

	return is_text(peer->name, sizeof(peer->name), NAME_CHARS) &&
	       is_text(which->serial, sizeof(which->serial), SERIAL_CHARS) &&
	       which->serial[0] != '\0' &&
	       is_text(which->issuer, sizeof(which->issuer), ISSUER_CHARS) &&
	       which->issuer[0] != '\0' &&
	       memchr(peer->pin, '\0', sizeof(peer->pin)) &&
	       tls_pin_parse(peer->pin, pin) == 0;
}

/* The text of a bus id is the peer's and any will do; that it ends is ours. */
static bool is_request(const struct ipc_request *request)
{
	switch (request->type) {
	case IPC_LIST:
	case IPC_GRANTED:
		return true;
	case IPC_PEER:
		return is_peer(&request->peer);
	case IPC_OPEN:
		return memchr(request->busid, '\0', sizeof(request->busid));
	default:
		return false;
	}
}

int ipc_receive_request(int sock, struct ipc_request *ret_request)
{
	struct ipc_request request;
	ssize_t n;

	n = recv(sock, &request, sizeof(request), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0)
		return -errno;
	if (n == 0)
		return 0;
	if (n != (ssize_t)sizeof(request) || !is_request(&request))
		return -EBADMSG;
	*ret_request = request;
	return 1;
}

int ipc_answer(int sock, const struct ipc_answer *answer, int device_fd,
	       int lock_fd)
{
	int fds[2];
	size_t num_fds = 0;

	if (device_fd >= 0)
		fds[num_fds++] = device_fd;
	if (lock_fd >= 0)
		fds[num_fds++] = lock_fd;
	return fdpass_send(sock, answer, sizeof(*answer), fds, num_fds);
}

pid_t ipc_fork(void)
{
	static const int handled[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD };
	sigset_t all;
	sigset_t before;
	pid_t pid;

	(void)sigfillset(&all);
	(void)sigprocmask(SIG_BLOCK, &all, &before);
	pid = fork();
	if (pid == 0) {
		for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]);
		     i++)
			(void)signal(handled[i], SIG_DFL);
		(void)setsid();
	}
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	return pid;
}

void ipc_exec(char *const argv[], const int *kept, size_t num_kept)
{
	/* Whatever else is open, a library's too, ends with exec. */
	(void)close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	for (size_t i = 0; i < num_kept; i++)
		(void)fcntl(kept[i], F_SETFD, 0);
	(void)execv("/proc/self/exe", argv);
	log_error("cannot start %s: exec of /proc/self/exe: %s", argv[1],
		  strerror(errno));
	_exit(EXIT_FAILED);
}
