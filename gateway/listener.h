/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listener.h - the sockets that the manager listens on, and who has called.
 * No byte that a caller sends is read here: a connection is accepted, named by
 * what the kernel says of its other end, and handed on.
 */
#ifndef LISTENER_H
#define LISTENER_H

#include <stddef.h>

#include "gateway/config.h"
#include "vchan-transport/address.h"

struct listener;
struct loop;

/* Who called. */
struct listener_peer {
	enum address_kind kind;
	char name[96]; /* for logs: "127.0.0.1:4711", "uid 0 pid 12" */
	char key[80];  /* whose connections count together: "127.0.0.1" */
	char user[16]; /* ADDRESS_UNIX: the uid */
};

/* Owns `fd` from the call on. */
typedef void listener_cb(void *arg, int fd, const struct listener_peer *peer);

/*
 * Listens on an address, each one of a host name's, and logs it. Failures are
 * logged too, in one line: -errno then, and nothing is left listening. A Unix
 * socket that nobody answers on is replaced.
 */
int listener_open(struct loop *loop, const struct config *config,
		  const struct address *address, listener_cb *on_call,
		  void *arg, struct listener **io_list);

/* Stops listening on all of them and removes their Unix sockets. */
void listener_close_all(struct listener *list);

#endif
