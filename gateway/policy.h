/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy.h - which devices are exported, and to whom.
 *
 * Rules are asked in their order, and the first that speaks of the device and
 * of the one who asks decides; where none does, nothing is exported. A rule
 * speaks of a device that matches every attribute that it gives. Three kinds
 * are not exported so easily: hubs, which are other devices' wiring, and devices
 * that vhci_hcd has imported, which would be exported in a circle, never are;
 * keyboards and network adapters only by a rule that names their class. Pure.
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
#define POLICY_NAME_BYTES   80
#define POLICY_UUID_BYTES   40
#define POLICY_MAX_NAMES    32
#define POLICY_HASH_BYTES   32 /* SHA-256 */
#define POLICY_REMOTE_BYTES 16

/* Of one list of a rule, and of different ones in one device. */
#define POLICY_MAX_PATTERNS 16
#define POLICY_MAX_CLASSES  64

/* Room for policy_verdict_sentence. */
#define POLICY_SENTENCE_BYTES 128

struct config;

/* Empty: none was given. "*" is everybody of its kind. */
struct policy_names {
	size_t num;
	char names[POLICY_MAX_NAMES][POLICY_NAME_BYTES];
};

/*
 * For whom a section is. With no name at all: for those who have none to be
 * named by, which are users of this machine, and callers over TCP and vsock.
 */
struct policy_audience {
	struct policy_names domains; /* of a Xen: names and UUIDs */
	struct policy_names peers;   /* TLS: certificates' names, and pins */
	struct policy_names users;   /* of this machine: decimal uids */
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
	/* Decimal uid, domain, or what is certified; empty: none that we could
	 * use. */
	char name[POLICY_NAME_BYTES];
	char uuid[POLICY_UUID_BYTES]; /* of a domain */
	char pin[POLICY_NAME_BYTES];  /* TLS: as in struct tls_peer */
};

struct policy_class {
	uint8_t class;
	uint8_t subclass;
	uint8_t protocol;
};

/* "03", "03:01" or "03:01:01". */
struct policy_pattern {
	struct policy_class class;
	uint8_t num_given; /* how many of the three, from the front */
};

/* Empty: not given. */
struct policy_patterns {
	size_t num;
	struct policy_pattern patterns[POLICY_MAX_PATTERNS];
};

/* What is not given matches every device. */
struct policy_rule {
	unsigned line; /* of the file, where the rule begins */
	bool is_deny;
	bool has_vendor;
	bool has_product;
	bool has_hash;
	uint16_t vendor;
	uint16_t product;
	char serial[POLICY_SERIAL_BYTES]; /* empty: not given */
	char busid[USBIP_BUSID_BYTES];    /* empty: not given */
	uint8_t hash[POLICY_HASH_BYTES];  /* of all descriptors */
	/* "*": any; empty: the device is one of this machine. */
	char remote[POLICY_REMOTE_BYTES];
	/* What of the device's classes is in the list: one at least, each that
	 * is listed, nothing else, nothing. */
	struct policy_patterns any;
	struct policy_patterns all;
	struct policy_patterns only;
	struct policy_patterns none;
	struct policy_audience to;
};

/* What the rules look at. */
struct policy_device {
	uint16_t vendor;
	uint16_t product;
	char serial[POLICY_SERIAL_BYTES]; /* empty: it has none */
	char busid[USBIP_BUSID_BYTES];    /* as it is called where it is */
	char remote[POLICY_REMOTE_BYTES]; /* empty: in this machine */
	uint8_t hash[POLICY_HASH_BYTES];
	/* Each once: of its interfaces, and its own. */
	struct policy_class classes[POLICY_MAX_CLASSES];
	size_t num_classes;
	bool has_more_classes; /* than there is room for */
	bool is_hub;
	bool is_imported;
};

/* NO_RULE to UNNAMED: the later, the nearer it was. */
enum policy_outcome {
	POLICY_EXPORTED,
	POLICY_NO_RULE,   /* matches the device */
	POLICY_NOT_GIVEN, /* one matches, but is not for this peer */
	POLICY_UNNAMED,   /* one matches, but does not name its guarded class */
	POLICY_DENIED,
	POLICY_HUB,
	POLICY_IMPORTED,
	POLICY_TOO_MANY_CLASSES,
};

struct policy_verdict {
	enum policy_outcome outcome;
	/* Borrowed: the rule that decides, or the first that came nearest;
	 * NULL: none. */
	const struct policy_rule *rule;
	struct policy_class class; /* POLICY_UNNAMED: which */
};

/*
 * Fills what descriptors tell, but for the hash: vendor, product, classes. The
 * interfaces of all configurations and alternate settings count, since a peer
 * may choose others later; the device's own class does unless it says that the
 * interfaces have it (00, ef).
 */
void policy_describe(struct policy_device *device,
		     const struct descriptors *descriptors);

/*
 * The same from what USB/IP lists of a device that another gateway has, where
 * the interfaces are those of its present configuration.
 */
void policy_describe_listed(
	struct policy_device *device, const struct usbip_device *listed,
	const struct usbip_interface interfaces[USBIP_MAX_INTERFACES]);

/* Does the rule give at least one attribute of a device? */
bool policy_rule_is_given(const struct policy_rule *rule);
/* One that the device itself tells, not just where it is? */
bool policy_rule_looks_inside(const struct policy_rule *rule);

/* Is the device where the rule says, whatever the device itself is? */
bool policy_rule_may_match(const struct policy_rule *rule,
			   const struct policy_device *device);
/* The word of the first attribute that differs; NULL: all match. */
const char *policy_rule_mismatch(const struct policy_rule *rule,
				 const struct policy_device *device);

/* Is the peer called so? By name exactly (a certificate's in either case), by
 * UUID, by pin. */
bool policy_is_called(const struct policy_peer *peer, const char *text);
/* Does the list name it, or everybody? */
bool policy_is_listed(const struct policy_names *names,
		      const struct policy_peer *peer);
bool policy_has_names(const struct policy_audience *audience);
/* Is it for this peer? NULL: for anybody at all. */
bool policy_is_given_to(const struct policy_audience *audience,
			const struct policy_peer *peer);
/* Does it decide about this peer, if it matches the device? */
bool policy_rule_is_about(const struct policy_rule *rule,
			  const struct policy_peer *peer);
/* Does any section of the configuration give something to this domain? */
bool policy_names_peer(const struct config *config,
		       const struct policy_peer *peer);

/* What one rule by itself says of it: EXPORTED, DENIED, or why it does not. */
struct policy_verdict policy_judge_by(const struct policy_rule *rule,
				      const struct policy_device *device,
				      const struct policy_peer *peer);
/* `peer` NULL: is there anybody who gets it? */
struct policy_verdict policy_judge(const struct policy_rule *rules,
				   size_t num_rules,
				   const struct policy_device *device,
				   const struct policy_peer *peer);

/* "no export rule matches it", …: what to put after the device in a log line. */
void policy_verdict_sentence(const struct policy_verdict *verdict,
			     char ret_text[static POLICY_SENTENCE_BYTES]);

/* "1-1.2" or "usb1": names that the kernel gives, which no other may have. */
bool policy_is_kernel_busid(const char *text);

#endif
