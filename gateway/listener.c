/* SPDX-License-Identifier: Apache-2.0 */
/* See listener.h. */
#include "gateway/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

#define BACKLOG        128
#define CALLS_PER_TURN 16
#define PAUSE_MS       1000

struct listener {
	struct listener *next;
	struct loop *loop;
	enum address_kind kind;
	unsigned dead_s; /* until a peer that vanished is given up */
	int fd;
	struct loop_watch *watch;
	struct loop_timer *pause;
	char name[ADDRESS_TEXT_CAP]; /* as configured */
	char path[256];              /* of a Unix socket */
	listener_cb *on_call;
	void *arg;
};

/* ---- who has called ---- */

static void name_unix_peer(int fd, struct listener_peer *peer)
{
	struct ucred who = { .pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1 };
	socklen_t len = sizeof(who);

	(void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len);
	(void)snprintf(peer->user, sizeof(peer->user), "%u", (unsigned)who.uid);
	(void)snprintf(peer->key, sizeof(peer->key), "uid %s", peer->user);
	(void)snprintf(peer->name, sizeof(peer->name), "uid %u pid %d",
		       (unsigned)who.uid, (int)who.pid);
}

/* One host has a whole network of IPv6 addresses; not on its own link. */
static void name_network(const struct sockaddr_storage *from,
			 struct listener_peer *peer)
{
	struct sockaddr_in6 in6;
	char network[INET6_ADDRSTRLEN];

	memcpy(&in6, from, sizeof(in6));
	if (IN6_IS_ADDR_LINKLOCAL(&in6.sin6_addr))
		return;
	memset(in6.sin6_addr.s6_addr + 8, 0, 8);
	if (inet_ntop(AF_INET6, &in6.sin6_addr, network, sizeof(network)))
		(void)snprintf(peer->key, sizeof(peer->key), "%s/64", network);
}

static void name_inet_peer(const struct sockaddr_storage *from, socklen_t len,
			   struct listener_peer *peer)
{
	bool is_v6 = from->ss_family == AF_INET6;
	char port[8];

	if (getnameinfo((const struct sockaddr *)from, len, peer->key,
			sizeof(peer->key), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		(void)snprintf(port, sizeof(port), "?");
	(void)snprintf(peer->name, sizeof(peer->name),
		       is_v6 ? "[%s]:%s" : "%s:%s", peer->key, port);
	if (is_v6)
		name_network(from, peer);
}

static void name_vsock_peer(const struct sockaddr_storage *from,
			    struct listener_peer *peer)
{
	struct sockaddr_vm vm;

	memcpy(&vm, from, sizeof(vm));
	(void)snprintf(peer->key, sizeof(peer->key), "vsock cid %u",
		       vm.svm_cid);
	(void)snprintf(peer->name, sizeof(peer->name), "vsock cid %u port %u",
		       vm.svm_cid, vm.svm_port);
}

static void name_peer(const struct listener *l, int fd,
		      const struct sockaddr_storage *from, socklen_t len,
		      struct listener_peer *peer)
{
	*peer = (struct listener_peer){ .kind = l->kind };
	if (from->ss_family == AF_VSOCK) {
		name_vsock_peer(from, peer);
	} else if (l->kind == ADDRESS_TCP || l->kind == ADDRESS_TLS) {
		name_inet_peer(from, len, peer);
		channel_tune_tcp(fd, l->dead_s);
	} else {
		name_unix_peer(fd, peer);
	}
}

/* ---- accepting ---- */

static void on_readable(void *arg, short revents);

static void on_pause_over(void *arg)
{
	struct listener *l = arg;

	loop_timer_stop(l->pause);
	l->pause = NULL;
	if (loop_watch_fd(l->loop, l->fd, POLLIN, on_readable, l, &l->watch) <
	    0)
		log_error("%s: cannot listen any more: out of memory", l->name);
}

/* Out of descriptors or memory: the caller waits in the queue meanwhile. */
static void pause_listener(struct listener *l, int error)
{
	log_warn("%s: cannot accept for now: %s", l->name, strerror(error));
	if (loop_timer_start(l->loop, PAUSE_MS, 0, on_pause_over, l,
			     &l->pause) < 0)
		return;
	loop_watch_stop(l->watch);
	l->watch = NULL;
}

static void on_readable(void *arg, short revents)
{
	struct listener *l = arg;

	(void)revents;
	for (int i = 0; i < CALLS_PER_TURN; i++) {
		struct sockaddr_storage from = { 0 };
		socklen_t len = sizeof(from);
		struct listener_peer peer;
		int fd = accept4(l->fd, (struct sockaddr *)&from, &len,
				 SOCK_CLOEXEC);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE ||
			       errno == ENOBUFS || errno == ENOMEM))
			pause_listener(l, errno);
		if (fd < 0)
			return;
		name_peer(l, fd, &from, len, &peer);
		l->on_call(l->arg, fd, &peer);
	}
}

/* ---- opening ---- */

/* 0 if the path is free or was made so. */
static int remove_stale_socket(const struct sockaddr_un *at)
{
	struct stat st;
	int fd;
	int r = 0;

	if (lstat(at->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: somebody listens and is busy. */
	if (connect(fd, (const struct sockaddr *)at, sizeof(*at)) == 0 ||
	    errno != ECONNREFUSED)
		r = -EADDRINUSE;
	(void)close(fd);
	if (r == 0 && unlink(at->sun_path) < 0)
		r = -errno;
	return r;
}

static int bind_unix(const struct config *config, const char *path, int *ret_fd)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	size_t len = strlen(path);
	int fd;
	int r;

	if (len >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	memcpy(at.sun_path, path, len + 1);
	r = remove_stale_socket(&at);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	/* The umask lets nobody else in before the mode is set. */
	if (lchown(path, (uid_t)-1, config->socket_group) < 0 ||
	    chmod(path, config->socket_mode) < 0) {
		r = -errno;
		(void)unlink(path);
		(void)close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static int bind_socket(int family, const void *at, socklen_t len, int *ret_fd)
{
	const int on = 1;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (family != AF_VSOCK)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* An IPv4 caller is named as one: tcp:0.0.0.0 is its listener. */
	if (family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on,
				 sizeof(on));
	if (bind(fd, at, len) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static int bind_vsock(const struct address *address, int *ret_fd)
{
	struct sockaddr_vm at = { .svm_family = AF_VSOCK,
				  .svm_cid = address->cid,
				  .svm_port = address->port };

	return bind_socket(AF_VSOCK, &at, sizeof(at), ret_fd);
}

/* Owns fd from the call on. */
static int start(const struct listener *like, int fd, struct listener **io_list)
{
	struct listener *l = malloc(sizeof(*l));
	int r = -ENOMEM;

	if (!l) {
		(void)close(fd);
		return r;
	}
	*l = *like;
	l->fd = fd;
	r = listen(fd, BACKLOG) < 0 ? -errno : 0;
	if (r == 0)
		r = loop_watch_fd(l->loop, fd, POLLIN, on_readable, l,
				  &l->watch);
	if (r < 0) {
		(void)close(fd);
		free(l);
		return r;
	}
	l->next = *io_list;
	*io_list = l;
	return 0;
}

/* All addresses of the host; those that this machine lacks may fail. */
static int open_tcp(const struct listener *like, const struct address *address,
		    struct listener **io_list)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *all;
	unsigned num_open = 0;
	char port[8];
	int r;

	(void)snprintf(port, sizeof(port), "%u", address->port);
	if (getaddrinfo(address->host, port, &hints, &all) != 0)
		return -EADDRNOTAVAIL;
	r = -EADDRNOTAVAIL;
	for (const struct addrinfo *a = all; a; a = a->ai_next) {
		int fd = -1;

		r = bind_socket(a->ai_family, a->ai_addr, a->ai_addrlen, &fd);
		if (r == 0)
			r = start(like, fd, io_list);
		if (r == 0)
			num_open++;
		else if (r != -EADDRNOTAVAIL && r != -EAFNOSUPPORT)
			break;
	}
	freeaddrinfo(all);
	if (num_open > 0 && (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT))
		r = 0;
	return r;
}

static const char *next_step(int error)
{
	switch (error) {
	case -EADDRINUSE:
		return "another program listens there: stop it or change "
		       "\"listen\"";
	case -EADDRNOTAVAIL:
		return "this machine has no such address: change \"listen\"";
	case -EACCES:
	case -EPERM:
		return "start it as root or change \"listen\"";
	case -EEXIST:
		return "what is there is no socket: move it away or change "
		       "\"listen\"";
	case -ENOENT:
		return "create its folder or change \"listen\"";
	default:
		return "change \"listen\"";
	}
}

int listener_open(struct loop *loop, const struct config *config,
		  const struct address *address, listener_cb *on_call,
		  void *arg, struct listener **io_list)
{
	struct listener like = { .loop = loop,
				 .kind = address->kind,
				 .dead_s = config->peer_timeout_s,
				 .on_call = on_call,
				 .arg = arg };
	int fd = -1;
	int r;

	(void)address_format(address, like.name, sizeof(like.name));
	if (address->kind == ADDRESS_UNIX)
		memcpy(like.path, address->host, sizeof(like.path));
	if (address->kind == ADDRESS_TCP || address->kind == ADDRESS_TLS) {
		r = open_tcp(&like, address, io_list);
	} else {
		r = address->kind == ADDRESS_UNIX
			    ? bind_unix(config, address->host, &fd)
			    : bind_vsock(address, &fd);
		if (r == 0)
			r = start(&like, fd, io_list);
	}
	if (r < 0)
		log_error("cannot listen on %s: %s: %s", like.name,
			  strerror(-r), next_step(r));
	else
		log_info("listening on %s", like.name);
	return r;
}

void listener_close_all(struct listener *list)
{
	while (list) {
		struct listener *l = list;

		list = l->next;
		loop_watch_stop(l->watch);
		loop_timer_stop(l->pause);
		(void)close(l->fd);
		if (l->path[0] != '\0')
			(void)unlink(l->path);
		free(l);
	}
}
