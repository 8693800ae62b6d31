/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See address.h. Pure: text in, struct out; inet_pton() is used as a judge of
 * IPv6 literals, not to reach anything.
 */
#include "vchan-transport/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define DIGITS  "0123456789"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static const char *const kind_names[] = {
	[ADDRESS_XEN] = "xen",     [ADDRESS_TLS] = "tls",
	[ADDRESS_TCP] = "tcp",     [ADDRESS_UNIX] = "unix",
	[ADDRESS_VSOCK] = "vsock",
};

#define NUM_KINDS (sizeof(kind_names) / sizeof(kind_names[0]))

const char *address_kind_name(enum address_kind kind)
{
	return kind_names[kind];
}

static int refuse(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EINVAL;
}

/* Reads all of text as a decimal number from min to max; no sign, no blank. */
static bool is_number(const char *text, uint32_t min, uint32_t max,
		      uint32_t *ret_value)
{
	size_t len = strlen(text);
	uint64_t value = 0;

	if (len == 0 || len > 10 || strspn(text, DIGITS) != len)
		return false;
	for (size_t i = 0; i < len; i++)
		value = value * 10 + (uint64_t)(text[i] - '0');
	if (value < min || value > max)
		return false;
	*ret_value = (uint32_t)value;
	return true;
}

/* Copies len bytes of text if there are any and all are in allowed. */
static bool take(char *dst, size_t cap, const char *text, size_t len,
		 const char *allowed)
{
	if (len == 0 || len >= cap)
		return false;
	memcpy(dst, text, len);
	dst[len] = '\0';
	return strspn(dst, allowed) == len;
}

/* An IPv6 address, perhaps with a zone: fe80::1%eth0. */
static bool is_ipv6(const char *host)
{
	size_t len = strcspn(host, "%");
	char literal[INET6_ADDRSTRLEN];
	struct in6_addr ignored;

	if (!take(literal, sizeof(literal), host, len, DIGITS LETTERS ":."))
		return false;
	if (host[len] == '%' && host[len + 1] == '\0')
		return false;
	return inet_pton(AF_INET6, literal, &ignored) == 1;
}

/* text is what follows HOST: nothing, or a colon and a port. */
static int parse_port(const char *text, uint16_t fallback,
		      struct address *address, const char **ret_why)
{
	uint32_t port;

	if (*text == '\0') {
		address->port = fallback;
		return 0;
	}
	if (*text != ':' || !is_number(text + 1, 1, UINT16_MAX, &port))
		return refuse(ret_why, "the port must be a number from 1 to "
				       "65535");
	address->port = (uint16_t)port;
	return 0;
}

static int parse_host(const char *text, uint16_t fallback,
		      struct address *address, const char **ret_why)
{
	size_t cap = sizeof(address->host);
	size_t len;

	if (*text == '[') {
		len = strcspn(text + 1, "]");
		if (text[1 + len] != ']')
			return refuse(ret_why, "the bracket is not closed");
		if (!take(address->host, cap, text + 1, len,
			  DIGITS LETTERS ":.%-_") ||
		    !is_ipv6(address->host))
			return refuse(ret_why, "what is in brackets is not an "
					       "IPv6 address");
		return parse_port(text + 1 + len + 1, fallback, address,
				  ret_why);
	}

	len = strlen(text);
	if (take(address->host, cap, text, len, DIGITS LETTERS ":.%-_") &&
	    is_ipv6(address->host))
		return parse_port("", fallback, address, ret_why);

	len = strcspn(text, ":");
	if (!take(address->host, cap, text, len, DIGITS LETTERS ".-_") ||
	    text[0] == '-')
		return refuse(ret_why,
			      "the host must be a name of up to 255 letters, "
			      "digits, dots and dashes, or an address");
	return parse_port(text + len, fallback, address, ret_why);
}

static int parse_vsock(const char *text, struct address *address,
		       const char **ret_why)
{
	size_t len = strcspn(text, ":");
	char cid[12];

	if (!take(cid, sizeof(cid), text, len, DIGITS) ||
	    !is_number(cid, 0, UINT32_MAX, &address->cid))
		return refuse(ret_why, "the CID must be a number from 0 to "
				       "4294967295");
	return parse_port(text + len, ADDRESS_PORT_USBIP, address, ret_why);
}

static int parse_path(const char *text, struct address *address,
		      const char **ret_why)
{
	size_t len = strlen(text);

	if (len == 0)
		return refuse(ret_why, "the path is missing");
	if (len > ADDRESS_PATH_MAX_BYTES)
		return refuse(ret_why, "the path is longer than the 107 bytes "
				       "that a Unix socket can have");
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return refuse(ret_why,
				      "the path has a control character");
	}
	memcpy(address->host, text, len + 1);
	return 0;
}

static int parse_domain(const char *text, struct address *address,
			const char **ret_why)
{
	if (!take(address->host, sizeof(address->host), text, strlen(text),
		  DIGITS LETTERS ".-_+:"))
		return refuse(ret_why, "the domain must be a number or a name "
				       "of letters, digits and .-_+:");
	return 0;
}

static int parse_kind(const char *text, struct address *address,
		      const char **ret_why)
{
	switch (address->kind) {
	case ADDRESS_XEN:
		return parse_domain(text, address, ret_why);
	case ADDRESS_TLS:
		return parse_host(text, ADDRESS_PORT_TLS, address, ret_why);
	case ADDRESS_TCP:
		return parse_host(text, ADDRESS_PORT_USBIP, address, ret_why);
	case ADDRESS_UNIX:
		return parse_path(text, address, ret_why);
	case ADDRESS_VSOCK:
		return parse_vsock(text, address, ret_why);
	}
	return refuse(ret_why, "the kind of address is unknown");
}

/*
 * Removes a known kind and its colon from the front of text. A bare host has
 * none and is tcp, as for the stock usbip -r.
 */
static const char *split_kind(const char *text, enum address_kind *ret_kind)
{
	for (size_t i = 0; i < NUM_KINDS; i++) {
		size_t len = strlen(kind_names[i]);

		if (strncmp(text, kind_names[i], len) == 0 &&
		    text[len] == ':') {
			*ret_kind = (enum address_kind)i;
			return text + len + 1;
		}
	}
	*ret_kind = ADDRESS_TCP;
	return text;
}

int address_parse(const char *text, struct address *ret_address,
		  const char **ret_why)
{
	struct address address = { 0 };
	const char *why = NULL;
	const char *rest = split_kind(text, &address.kind);
	int r = parse_kind(rest, &address, &why);

	if (r < 0) {
		*ret_why = why;
		return r;
	}
	*ret_address = address;
	return 0;
}

int address_format(const struct address *address, char *dst, size_t cap)
{
	const char *name = address_kind_name(address->kind);
	bool is_v6 = strchr(address->host, ':') != NULL;
	char text[ADDRESS_TEXT_CAP];
	int len = 0;

	switch (address->kind) {
	case ADDRESS_XEN:
	case ADDRESS_UNIX:
		len = snprintf(text, sizeof(text), "%s:%s", name,
			       address->host);
		break;
	case ADDRESS_TLS:
	case ADDRESS_TCP:
		len = snprintf(text, sizeof(text),
			       is_v6 ? "%s:[%s]:%u" : "%s:%s:%u", name,
			       address->host, address->port);
		break;
	case ADDRESS_VSOCK:
		len = snprintf(text, sizeof(text), "%s:%u:%u", name,
			       address->cid, address->port);
		break;
	}
	if (len < 0 || (size_t)len >= sizeof(text) || (size_t)len >= cap)
		return -ENOSPC;
	memcpy(dst, text, (size_t)len + 1);
	return 0;
}
