/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/fdpass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int fdpass_send(int sock, const void *bytes, size_t num_bytes, const int *fds,
		size_t num_fds)
{
	_Alignas(struct cmsghdr) char
		control[CMSG_SPACE(FDPASS_MAX * sizeof(int))] = { 0 };
	union { /* iov_base is not const, sendmsg does not write */
		const void *in;
		void *out;
	} base = { .in = bytes };
	struct iovec iov = { .iov_base = base.out, .iov_len = num_bytes };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (num_fds > FDPASS_MAX)
		return -EINVAL;
	if (num_fds > 0) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(num_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(num_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, num_fds * sizeof(int));
	}
	n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	return (size_t)n == num_bytes ? 0 : -EMSGSIZE;
}

/* Takes the descriptors out of a message; how many there were. */
static size_t take_fds(struct msghdr *msg, int fds[FDPASS_MAX])
{
	size_t num_fds = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c;
	     c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		num_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (num_fds > FDPASS_MAX)
			num_fds = FDPASS_MAX; /* the buffer holds no more */
		memcpy(fds, CMSG_DATA(c), num_fds * sizeof(int));
	}
	return num_fds;
}

ssize_t fdpass_recv(int sock, void *bytes, size_t cap, int *ret_fds,
		    size_t max_fds)
{
	_Alignas(struct cmsghdr) char
		control[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
	struct iovec iov = { .iov_base = bytes, .iov_len = cap };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	int fds[FDPASS_MAX];
	size_t num_fds;
	ssize_t n;

	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	num_fds = take_fds(&msg, fds);
	if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || num_fds > max_fds) {
		for (size_t i = 0; i < num_fds; i++)
			(void)close(fds[i]);
		return -EBADMSG;
	}
	for (size_t i = 0; i < max_fds; i++)
		ret_fds[i] = i < num_fds ? fds[i] : -1;
	return n;
}
