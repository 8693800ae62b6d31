/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses as people write them:
 *
 *	xen:DOMAIN	tls:HOST[:PORT]		tcp:HOST[:PORT]
 *	unix:PATH	vsock:CID[:PORT]	HOST[:PORT] (means tcp:)
 *
 * This is the grammar only: nothing is resolved or opened here, and an
 * address of a kind that this build cannot open still parses. HOST is a name,
 * an IPv4 address, or an IPv6 address, which needs brackets when a port
 * follows. A host that is called like a kind is written with the kind in
 * front: tcp:xen.
 */
#ifndef XUSBIP_ADDRESS_H
#define XUSBIP_ADDRESS_H

#include <stddef.h>
#include <stdint.h>

#define ADDRESS_PORT_USBIP 3240
#define ADDRESS_PORT_TLS   3241

/* Enough for the text of any address, its NUL included. */
#define ADDRESS_TEXT_CAP 280

/* What fits into sockaddr_un with its NUL. */
#define ADDRESS_PATH_MAX_BYTES 107

enum address_kind {
	ADDRESS_XEN,
	ADDRESS_TLS,
	ADDRESS_TCP,
	ADDRESS_UNIX,
	ADDRESS_VSOCK,
};

struct address {
	enum address_kind kind;
	/* Domain, host (IPv6 without its brackets) or path; else empty. */
	char host[256];
	/* For tls, tcp and vsock; else 0. */
	uint16_t port;
	/* For vsock; else 0. */
	uint32_t cid;
};

/*
 * Returns 0, or -EINVAL with a sentence in ret_why (static, without a full
 * stop) that says what is wrong with the text.
 */
int address_parse(const char *text, struct address *ret_address,
		  const char **ret_why);

/*
 * Writes the address so that address_parse() reads the same one back, with
 * its kind and port always there. Returns 0, or -ENOSPC if cap is too small.
 */
int address_format(const struct address *address, char *dst, size_t cap);

/* "xen", "tls", "tcp", "unix" or "vsock". */
const char *address_kind_name(enum address_kind kind);

#endif
