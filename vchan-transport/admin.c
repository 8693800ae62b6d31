/* SPDX-License-Identifier: Apache-2.0 */
/* See admin.h. */
#include "vchan-transport/admin.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int admin_connect(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ADMIN_LIMIT_MS / 1000 };
	int sock;
	int r = 0;

	if (strlen(path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	(void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	/* While the gateway has no room for one more, connecting waits. */
	if (setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) <
		    0 ||
	    connect(sock, (const struct sockaddr *)&at, sizeof(at)) < 0)
		r = -errno;
	if (r < 0) {
		(void)close(sock);
		return r;
	}
	return sock;
}

int admin_ask(int sock, const struct admin_request *request, unsigned limit_ms,
	      struct admin_answer *ret_answer)
{
	struct pollfd polled = { .fd = sock, .events = POLLIN };
	struct admin_answer answer;
	ssize_t n;
	int r;

	if (request && send(sock, request, sizeof(*request), MSG_NOSIGNAL) < 0)
		return -errno;
	do
		r = poll(&polled, 1, (int)limit_ms);
	while (r < 0 && errno == EINTR);
	if (r <= 0)
		return r < 0 ? -errno : 0;
	n = recv(sock, &answer, sizeof(answer), 0);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	if ((size_t)n != sizeof(answer) ||
	    !memchr(answer.text, '\0', sizeof(answer.text)))
		return -EBADMSG;
	*ret_answer = answer;
	return 1;
}
