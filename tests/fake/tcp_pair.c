/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/tcp_pair.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

int tcp_pair(int ret_fds[static 2])
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t bytes = sizeof(in);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ret_fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (const struct sockaddr *)&in, sizeof(in)) < 0 ||
	    listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&in, &bytes) < 0 ||
	    connect(ret_fds[0], (const struct sockaddr *)&in, bytes) < 0)
		return -1;
	ret_fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	(void)close(listener);
	return ret_fds[1] < 0 ? -1 : 0;
}
