/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/channel.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vchan-transport/tls.h"
#include "vchan-transport/warden.h"

ssize_t channel_peek(struct channel *c, struct iovec ret_pieces[2])
{
	return c->ops->peek(c, ret_pieces);
}

void channel_consume(struct channel *c, size_t bytes)
{
	c->ops->consume(c, bytes);
}

void channel_gather(void *to, const struct iovec pieces[2], size_t bytes)
{
	size_t first = pieces[0].iov_len < bytes ? pieces[0].iov_len : bytes;

	memcpy(to, pieces[0].iov_base, first);
	if (first < bytes)
		memcpy((uint8_t *)to + first, pieces[1].iov_base,
		       bytes - first);
}

int channel_ended(struct channel *c)
{
	return c->ops->ended(c);
}

ssize_t channel_read(struct channel *c, void *to, size_t bytes)
{
	return c->ops->read(c, to, bytes);
}

ssize_t channel_writev(struct channel *c, const struct iovec *v, int n)
{
	return c->ops->writev(c, v, n);
}

ssize_t channel_reserve(struct channel *c, struct iovec ret_pieces[2])
{
	return c->ops->reserve ? c->ops->reserve(c, ret_pieces) : -EOPNOTSUPP;
}

void channel_commit(struct channel *c, size_t bytes)
{
	c->ops->commit(c, bytes);
}

void channel_flush(struct channel *c)
{
	c->ops->flush(c);
}

bool channel_arm(struct channel *c, unsigned want)
{
	return c->ops->arm(c, want);
}

bool channel_wake(struct channel *c, int fd)
{
	return c->ops->wake(c, fd);
}

size_t channel_fds(struct channel *c, unsigned want,
		   struct channel_fd ret_fds[CHANNEL_MAX_FDS])
{
	return c->ops->fds(c, want, ret_fds);
}

int channel_end(struct channel *c)
{
	return c->ops->end(c);
}

void channel_free(struct channel *c)
{
	if (c)
		c->ops->free(c);
}

const char *channel_kind(const struct channel *c)
{
	return c->ops->name;
}

bool channel_tells_reasons(const struct channel *c)
{
	return c->ops->tells_reasons && c->ops->tells_reasons(c);
}

int channel_reason(struct channel *c, uint64_t deadline_ms,
		   unsigned *ret_status, char why[static HANDSHAKE_WHY_BYTES])
{
	if (!c->ops->reason)
		return -EOPNOTSUPP;
	return c->ops->reason(c, deadline_ms, ret_status, why);
}

uint64_t clock_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* poll(2) until a descriptor is ready or the deadline: 0, -ETIMEDOUT, -errno. */
static int poll_until(struct pollfd *polled, size_t n, uint64_t deadline_ms)
{
	uint64_t now = clock_ms();
	int r;

	if (now >= deadline_ms)
		return -ETIMEDOUT;
	r = poll(polled, n, (int)(deadline_ms - now));
	if (r < 0)
		return errno == EINTR ? 0 : -errno;
	return r == 0 ? -ETIMEDOUT : 0;
}

int channel_wait(struct channel *c, unsigned want, uint64_t deadline_ms)
{
	struct channel_fd fds[CHANNEL_MAX_FDS];
	struct pollfd polled[CHANNEL_MAX_FDS];
	size_t n;
	int r;

	if (channel_arm(c, want))
		return 0;
	n = channel_fds(c, want, fds);
	for (size_t i = 0; i < n; i++)
		polled[i] = (struct pollfd){ .fd = fds[i].fd,
					     .events = fds[i].events };
	r = poll_until(polled, n, deadline_ms);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (polled[i].revents)
			(void)channel_wake(c, polled[i].fd);
	}
	return r;
}

int channel_read_all(struct channel *c, void *to, size_t bytes,
		     uint64_t deadline_ms)
{
	uint8_t *at = to;

	while (bytes > 0) {
		ssize_t n = channel_read(c, at, bytes);

		if (n < 0)
			return (int)n;
		if (n == 0) {
			int r;

			/* The rest may wait for the room that was made. */
			channel_flush(c);
			r = channel_wait(c, CHANNEL_READ, deadline_ms);
			if (r < 0)
				return r;
		}
		at += n;
		bytes -= (size_t)n;
	}
	channel_flush(c);
	return 0;
}

/* Does it wait for room to send what it has taken? */
static bool is_sending(struct channel *c)
{
	struct channel_fd fds[CHANNEL_MAX_FDS];
	size_t n = channel_fds(c, 0, fds);

	for (size_t i = 0; i < n; i++) {
		if (fds[i].events & POLLOUT)
			return true;
	}
	return false;
}

int channel_drain(struct channel *c, uint64_t deadline_ms)
{
	int r = 0;

	while (r == 0 && is_sending(c))
		r = channel_wait(c, 0, deadline_ms);
	return r;
}

int channel_write_all(struct channel *c, const void *from, size_t bytes,
		      uint64_t deadline_ms)
{
	union { /* an iovec's base is not const */
		const void *in;
		uint8_t *out;
	} at = { .in = from };

	while (bytes > 0) {
		struct iovec v = { .iov_base = at.out, .iov_len = bytes };
		ssize_t n = channel_writev(c, &v, 1);

		if (n < 0)
			return (int)n;
		channel_flush(c);
		if (n == 0) {
			int r = channel_wait(c, CHANNEL_WRITE, deadline_ms);

			if (r < 0)
				return r;
		}
		at.out += n;
		bytes -= (size_t)n;
	}
	return channel_drain(c, deadline_ms);
}

void channel_finish(struct channel *c, uint64_t deadline_ms)
{
	struct iovec pieces[2];
	ssize_t n;

	if (channel_end(c) < 0)
		return;
	/* Who never stops sending never makes us wait. */
	while (clock_ms() < deadline_ms) {
		n = channel_peek(c, pieces);
		if (n < 0)
			return;
		channel_consume(c, (size_t)n);
		channel_flush(c);
		if (n == 0 && channel_wait(c, CHANNEL_READ, deadline_ms) < 0)
			return;
	}
}

/* A connect with a limit, on a non-blocking socket. */
static int connect_until(int fd, const struct sockaddr *to, socklen_t bytes,
			 uint64_t deadline_ms)
{
	struct pollfd polled = { .fd = fd, .events = POLLOUT };
	int error = 0;
	socklen_t error_bytes = sizeof(error);
	int r;

	if (connect(fd, to, bytes) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	do
		r = poll_until(&polled, 1, deadline_ms);
	while (r == 0 && polled.revents == 0);
	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_bytes) < 0)
		return -errno;
	return -error;
}

static int open_and_connect(const struct sockaddr *to, socklen_t bytes,
			    uint64_t deadline_ms, int *ret_fd)
{
	int fd = socket(to->sa_family,
			SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = connect_until(fd, to, bytes, deadline_ms);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static void set_option(int fd, int level, int option, unsigned value)
{
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

void channel_tune_tcp(int fd, unsigned dead_s)
{
	const unsigned probes = 3;
	unsigned idle_s = dead_s / 3;

	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle_s);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL,
		   (dead_s - idle_s) / (probes + 1));
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, probes);
	/* While data waits for the peer the kernel sends no probes. */
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, dead_s * 1000);
}

static int connect_tcp(const struct address *to, uint64_t deadline_ms,
		       int *ret_fd, char *why)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *found;
	char port[8];
	int r;

	(void)snprintf(port, sizeof(port), "%u", to->port);
	r = getaddrinfo(to->host, port, &hints, &found);
	if (r != 0) {
		(void)snprintf(why, CHANNEL_WHY_BYTES, "%s", gai_strerror(r));
		return -EHOSTUNREACH;
	}
	r = -EHOSTUNREACH;
	for (struct addrinfo *a = found; a && r < 0; a = a->ai_next)
		r = open_and_connect(a->ai_addr, a->ai_addrlen, deadline_ms,
				     ret_fd);
	freeaddrinfo(found);
	if (r < 0) {
		(void)snprintf(why, CHANNEL_WHY_BYTES, "%s", strerror(-r));
		return r;
	}
	channel_tune_tcp(*ret_fd, CHANNEL_DEAD_S);
	return 0;
}

static int connect_unix(const struct address *to, uint64_t deadline_ms,
			int *ret_fd)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	size_t length = strnlen(to->host, sizeof(to->host));

	if (length >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, to->host, length);
	return open_and_connect((const struct sockaddr *)&un, sizeof(un),
				deadline_ms, ret_fd);
}

static int connect_vsock(const struct address *to, uint64_t deadline_ms,
			 int *ret_fd)
{
	const struct sockaddr_vm vm = { .svm_family = AF_VSOCK,
					.svm_cid = to->cid,
					.svm_port = to->port };

	return open_and_connect((const struct sockaddr *)&vm, sizeof(vm),
				deadline_ms, ret_fd);
}

/* Owns fd only when it fails. */
static int give_rights_up(const struct channel_options *options, int fd,
			  char *why)
{
	int r = options->before_peer ? options->before_peer() : 0;

	if (r < 0) {
		(void)close(fd);
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "cannot give up what is not needed: %s",
			       strerror(-r));
	}
	return r;
}

static int connect_tls(const struct address *to,
		       const struct channel_options *options,
		       uint64_t deadline_ms, struct channel **ret_channel,
		       char *why)
{
	struct tls_context *context;
	const struct tls_wanted wanted = { .host = to->host,
					   .pin = options->tls_pin };
	int fd = -1;
	int r = tls_context_new(TLS_CLIENT,
				options->tls_dir ? options->tls_dir : TLS_DIR,
				&context, why);

	if (r < 0)
		return r;
	r = connect_tcp(to, deadline_ms, &fd, why);
	if (r == 0)
		r = give_rights_up(options, fd, why);
	if (r == 0)
		r = channel_tls_connect(fd, context, &wanted, deadline_ms,
					ret_channel, why);
	tls_context_free(context);
	return r;
}

/* The rings are met first, which takes more than the sandbox leaves. */
static int join_shm(const struct channel_options *options, int fd,
		    uint64_t deadline_ms, struct channel **ret_channel,
		    char *why)
{
	struct channel *c;
	int r = channel_shm_join(fd, deadline_ms, &c);

	if (r == 0 && options->before_peer) {
		r = options->before_peer();
		if (r < 0)
			channel_free(c);
	}
	if (r < 0)
		(void)snprintf(why, CHANNEL_WHY_BYTES, "%s", strerror(-r));
	else
		*ret_channel = c;
	return r;
}

int channel_connect(const struct address *to,
		    const struct channel_options *options, uint64_t deadline_ms,
		    struct channel **ret_channel,
		    char why[static CHANNEL_WHY_BYTES])
{
	int fd = -1;
	int r = -EOPNOTSUPP;

	why[0] = '\0';
	switch (to->kind) {
	case ADDRESS_TCP:
		r = connect_tcp(to, deadline_ms, &fd, why);
		break;
	case ADDRESS_UNIX:
		r = connect_unix(to, deadline_ms, &fd);
		break;
	case ADDRESS_VSOCK:
		r = connect_vsock(to, deadline_ms, &fd);
		break;
	case ADDRESS_XEN:
		return warden_connect(to, options->ring_bytes, deadline_ms,
				      ret_channel, why);
	case ADDRESS_TLS:
		return connect_tls(to, options, deadline_ms, ret_channel, why);
	}
	if (r == 0 && to->kind == ADDRESS_UNIX)
		return join_shm(options, fd, deadline_ms, ret_channel, why);
	if (r == 0)
		r = give_rights_up(options, fd, why);
	if (r == 0)
		r = channel_socket_new(fd, ret_channel);
	if (r < 0 && why[0] == '\0')
		(void)snprintf(why, CHANNEL_WHY_BYTES, "%s", strerror(-r));
	return r;
}

int channel_accept(enum address_kind kind, int fd, size_t ring_bytes,
		   struct channel **ret_channel)
{
	if (kind == ADDRESS_UNIX)
		return channel_shm_serve(fd, ring_bytes, ret_channel);
	return channel_socket_new(fd, ret_channel);
}
