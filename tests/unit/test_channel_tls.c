/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What channel.h promises, over TLS.
 */
#include "vchan-transport/tls.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fake/channel_promises.h"
#include "tests/fake/tls_files.h"

#define LIMIT_MS 5000

static struct tls_context *gateway;
static struct tls_context *client;

static void *accept_one(void *arg)
{
	struct channel **channel = arg;
	struct tls_peer peer;
	char why[CHANNEL_WHY_BYTES];
	int fd = *(int *)arg;

	*channel = NULL;
	if (channel_tls_accept(fd, gateway, clock_ms() + LIMIT_MS, channel,
			       &peer, why) < 0)
		(void)fprintf(stderr, "accept: %s\n", why);
	return NULL;
}

static int open_tls(struct channel **ret_a, struct channel **ret_b)
{
	const struct tls_wanted wanted = { .host = "lab.example" };
	union {
		int fd;
		struct channel *channel;
	} a;
	char why[CHANNEL_WHY_BYTES];
	pthread_t thread;
	int fds[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	a.fd = fds[0];
	if (pthread_create(&thread, NULL, accept_one, &a) != 0)
		return -EAGAIN;
	r = channel_tls_connect(fds[1], client, &wanted, clock_ms() + LIMIT_MS,
				ret_b, why);
	(void)pthread_join(thread, NULL);
	if (r < 0)
		(void)fprintf(stderr, "connect: %s\n", why);
	*ret_a = a.channel;
	return r < 0 || !a.channel ? -EPROTO : 0;
}

int main(void)
{
	static const struct channel_kind kinds[] = {
		{ "tls", open_tls, -ECONNRESET, 1, false },
	};
	static const struct tls_files_leaf leaves[] = {
		{ .file = "gateway",
		  .names = "DNS:lab.example",
		  .usage = "serverAuth",
		  .serial = 2 },
		{ .file = "client",
		  .names = "DNS:guest.example",
		  .usage = "clientAuth",
		  .serial = 3 },
	};
	struct tls_files_ca ca;
	char dir[64];
	char why[CHANNEL_WHY_BYTES];
	int failed = -1;

	tls_files_make_dir(dir, sizeof(dir));
	tls_files_make_ca(&ca, "test");
	tls_files_write_ca(&ca, dir);
	tls_files_issue(&ca, dir, &leaves[0]);
	tls_files_issue(&ca, dir, &leaves[1]);
	if (tls_context_new(TLS_GATEWAY, dir, &gateway, why) == 0 &&
	    tls_context_new(TLS_CLIENT, dir, &client, why) == 0)
		failed = channel_promises_run(kinds, 1);
	else
		(void)fprintf(stderr, "%s\n", why);
	tls_context_free(gateway);
	tls_context_free(client);
	tls_files_free_ca(&ca);
	tls_files_remove_dir(dir);
	return failed;
}
