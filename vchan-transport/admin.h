/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.h - what the administrator asks the gateway on its own machine: the
 * messages on RUNTIME_DIR/admin.sock, a SOCK_SEQPACKET socket that only root may
 * connect to, and the asking side.
 *
 * One connection is one request and one answer, C structs, since both ends are
 * programs of one machine and one build. Who asked and hangs up before the
 * answer has changed his mind.
 */
#ifndef ADMIN_H
#define ADMIN_H

#include <stdbool.h>
#include <stdint.h>

#include "vchan-transport/exit_status.h"
#include "vchan-transport/usbip.h"

#define ADMIN_SOCKET_NAME  "admin.sock"
#define ADMIN_SOCKET_PATH  "/run/xusbip/" ADMIN_SOCKET_NAME
#define ADMIN_VERSION      1u
#define ADMIN_TEXT_BYTES   448
#define ADMIN_DOMAIN_BYTES 64

/* The gateway answers within this, whatever it waits for. */
#define ADMIN_LIMIT_MS 60000u

enum admin_verb {
	ADMIN_ATTACH,  /* have the domain's agent attach the device */
	ADMIN_DETACH,  /* take the device from the domain */
	ADMIN_QUIESCE, /* have the domain let go of everything, and hold */
	ADMIN_RESUME,  /* let it take that back */
};

struct admin_request {
	uint32_t version;
	uint32_t verb; /* enum admin_verb */
	uint32_t persists;
	char domain[ADMIN_DOMAIN_BYTES]; /* number, name or UUID */
	char busid[USBIP_BUSID_BYTES];   /* attach and detach; else empty */
};

struct admin_answer {
	uint32_t status; /* enum exit_status */
	char text[ADMIN_TEXT_BYTES];
};

/*
 * Connects: the socket, -ENOENT or -ECONNREFUSED (no gateway), -EAGAIN if it
 * has too much to do, or -errno.
 */
int admin_connect(const char *path);

/*
 * Sends the request and waits for the answer: 1, 0 if there is none within
 * the limit (ask again with NULL to go on waiting), -EPIPE when the gateway has
 * gone, -EBADMSG, or -errno.
 */
int admin_ask(int sock, const struct admin_request *request, unsigned limit_ms,
	      struct admin_answer *ret_answer);

#endif
