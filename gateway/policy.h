/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy.h - which devices of this machine are exported, and to whom.
 *
 * Deny by default: a device is exported when it matches every attribute that
 * one of the rules gives, and that rule gives it to the one who asks: to the Xen
 * domains that it names, or, when it names none, to every peer that is none.
 * Two kinds are never exported, whatever the rules say: hubs, which are other
 * devices' wiring, and devices that vhci_hcd has imported, which would be
 * exported in a circle.  Pure.
 */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/descriptors.h"
#include "vchan-transport/usbip.h"

/* sysfs's text for the longest string descriptor there is, with its NUL. */
#define POLICY_SERIAL_BYTES 384

/* A pin's text fits too. */
#define POLICY_NAME_BYTES  80
#define POLICY_UUID_BYTES  40
#define POLICY_MAX_DOMAINS 32

struct config;

/* Xen domains by name, by UUID, or "*" for all. Empty: none was named. */
struct policy_domains {
	size_t num;
	char names[POLICY_MAX_DOMAINS][POLICY_NAME_BYTES];
};

enum policy_peer_kind {
	POLICY_PEER_ANYBODY, /* over TCP or vsock, which prove nothing */
	POLICY_PEER_USER,    /* of this machine, over a Unix socket */
	POLICY_PEER_DOMAIN,  /* of a Xen */
	POLICY_PEER_TLS,     /* with a certificate */
};

/* Who asks. */
struct policy_peer {
	enum policy_peer_kind kind;
	/* User, domain, or what is certified; empty: none that we could use. */
	char name[POLICY_NAME_BYTES];
	char uuid[POLICY_UUID_BYTES]; /* of a domain */
	char pin[POLICY_NAME_BYTES];  /* TLS: as in struct tls_peer */
};

/* What is not given matches every device. */
struct policy_rule {
	bool has_vendor;
	bool has_product;
	uint16_t vendor;
	uint16_t product;
	char serial[POLICY_SERIAL_BYTES]; /* empty: not given */
	char busid[USBIP_BUSID_BYTES];    /* empty: not given */
	struct policy_domains domains;
};

/* What the rules look at. */
struct policy_device {
	uint16_t vendor;
	uint16_t product;
	char serial[POLICY_SERIAL_BYTES]; /* empty: it has none */
	char busid[USBIP_BUSID_BYTES];
	bool is_hub;
	bool is_imported;
};

enum policy_verdict {
	POLICY_EXPORTED,
	POLICY_NO_RULE,
	POLICY_NOT_GIVEN,
	POLICY_HUB,
	POLICY_IMPORTED,
};

/* Does the rule give at least one attribute of a device? */
bool policy_rule_is_given(const struct policy_rule *rule);

/* Is a domain called so? By its name exactly, or by its UUID. */
bool policy_is_called(const struct policy_peer *peer, const char *text);
/* Is it given to this peer? NULL: to anybody at all. */
bool policy_is_given_to(const struct policy_domains *domains,
			const struct policy_peer *peer);
/* Does any section of the configuration name this domain? */
bool policy_names_peer(const struct config *config,
		       const struct policy_peer *peer);

/* `peer` NULL: is there anybody who gets it? */
enum policy_verdict policy_judge(const struct policy_rule *rules,
				 size_t num_rules,
				 const struct policy_device *device,
				 const struct policy_peer *peer);

/* "no export rule matches it", …: what to put after the device in a log line. */
const char *policy_verdict_sentence(enum policy_verdict verdict);

/*
 * Does the device call itself a hub, or any interface in any of its
 * configurations?  A peer may choose another configuration later.
 */
bool policy_is_hub(const struct descriptors *descriptors);

/* "1-1.2" or "usb1": names that the kernel gives, which no other may have. */
bool policy_is_kernel_busid(const char *text);

#endif
