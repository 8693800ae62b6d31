/* SPDX-License-Identifier: Apache-2.0 */
/* See policy.h. */
#include "gateway/policy.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gateway/config.h"

#define CLASS_PER_INTERFACE 0x00
#define CLASS_HUB           0x09
#define CLASS_MISCELLANEOUS 0xef
#define DIGITS              "0123456789"

/*
 * What a machine would hand out by mistake at a high price: what is typed, and
 * a way around its network. As these call themselves; no driver's class (ff)
 * can be told.
 */
static const struct {
	struct policy_pattern pattern;
	const char *kind;
} guarded[] = {
	{ { { 0x03, 0x01, 0x01 }, 3 }, "keyboard" },
	{ { { 0x03, 0x00, 0x01 }, 3 }, "keyboard" },
	{ { { 0x02, 0x06, 0x00 }, 2 }, "network adapter" }, /* ECM */
	{ { { 0x02, 0x0a, 0x00 }, 2 }, "network adapter" }, /* MDLM */
	{ { { 0x02, 0x0c, 0x00 }, 2 }, "network adapter" }, /* EEM */
	{ { { 0x02, 0x0d, 0x00 }, 2 }, "network adapter" }, /* NCM */
	{ { { 0x02, 0x0e, 0x00 }, 2 }, "network adapter" }, /* MBIM */
	{ { { 0x02, 0x02, 0xff }, 3 }, "network adapter" }, /* RNDIS */
	{ { { 0xe0, 0x01, 0x03 }, 3 }, "network adapter" }, /* RNDIS */
	{ { { 0xef, 0x04, 0x01 }, 3 }, "network adapter" }, /* RNDIS */
};

#define NUM_GUARDED (sizeof(guarded) / sizeof(guarded[0]))

/* ---- classes ---- */

static bool pattern_matches(const struct policy_pattern *pattern,
			    const struct policy_class *class)
{
	if (pattern->class.class != class->class)
		return false;
	if (pattern->num_given > 1 &&
	    pattern->class.subclass != class->subclass)
		return false;
	return pattern->num_given <= 2 ||
	       pattern->class.protocol == class->protocol;
}

static bool is_listed_class(const struct policy_patterns *list,
			    const struct policy_class *class)
{
	for (size_t i = 0; i < list->num; i++) {
		if (pattern_matches(&list->patterns[i], class))
			return true;
	}
	return false;
}

/* How many of the device's classes are in the list. */
static size_t count_listed(const struct policy_patterns *list,
			   const struct policy_device *device)
{
	size_t count = 0;

	for (size_t i = 0; i < device->num_classes; i++)
		count += is_listed_class(list, &device->classes[i]);
	return count;
}

static bool has_each(const struct policy_patterns *list,
		     const struct policy_device *device)
{
	for (size_t i = 0; i < list->num; i++) {
		const struct policy_patterns one = {
			.num = 1, .patterns = { list->patterns[i] }
		};

		if (count_listed(&one, device) == 0)
			return false;
	}
	return true;
}

static const char *guarded_kind(const struct policy_class *class)
{
	for (size_t i = 0; i < NUM_GUARDED; i++) {
		if (pattern_matches(&guarded[i].pattern, class))
			return guarded[i].kind;
	}
	return NULL;
}

/* The device's first class that is guarded and that the rule does not name. */
static const struct policy_class *
find_unnamed(const struct policy_rule *rule, const struct policy_device *device)
{
	for (size_t i = 0; i < device->num_classes; i++) {
		const struct policy_class *class = &device->classes[i];

		if (guarded_kind(class) &&
		    !is_listed_class(&rule->any, class) &&
		    !is_listed_class(&rule->all, class) &&
		    !is_listed_class(&rule->only, class))
			return class;
	}
	return NULL;
}

static void add_class(struct policy_device *device, struct policy_class class)
{
	for (size_t i = 0; i < device->num_classes; i++) {
		const struct policy_class *known = &device->classes[i];

		if (known->class == class.class &&
		    known->subclass == class.subclass &&
		    known->protocol == class.protocol)
			return;
	}
	device->is_hub |= class.class == CLASS_HUB;
	if (device->num_classes < POLICY_MAX_CLASSES)
		device->classes[device->num_classes++] = class;
	else
		device->has_more_classes = true;
}

/* Its numbers, and its own class as the only one so far. */
static void begin(struct policy_device *device, uint16_t vendor,
		  uint16_t product, struct policy_class own)
{
	device->vendor = vendor;
	device->product = product;
	device->num_classes = 0;
	device->has_more_classes = false;
	device->is_hub = false;
	if (own.class != CLASS_PER_INTERFACE &&
	    own.class != CLASS_MISCELLANEOUS)
		add_class(device, own);
}

void policy_describe_listed(
	struct policy_device *device, const struct usbip_device *listed,
	const struct usbip_interface interfaces[USBIP_MAX_INTERFACES])
{
	begin(device, listed->vendor, listed->product,
	      (struct policy_class){ listed->class, listed->subclass,
				     listed->protocol });
	for (size_t i = 0;
	     i < listed->num_interfaces && i < USBIP_MAX_INTERFACES; i++)
		add_class(device,
			  (struct policy_class){ interfaces[i].class,
						 interfaces[i].subclass,
						 interfaces[i].protocol });
}

void policy_describe(struct policy_device *device, const struct descriptors *d)
{
	begin(device, d->vendor, d->product,
	      (struct policy_class){ d->class, d->subclass, d->protocol });
	for (unsigned i = 0; i < d->num_configurations; i++) {
		struct descriptor_interface interface;
		size_t cursor = 0;

		while (descriptors_next_interface_at(d, i, &cursor, &interface))
			add_class(device,
				  (struct policy_class){ interface.class,
							 interface.subclass,
							 interface.protocol });
	}
}

/* ---- whom a rule is for ---- */

static bool is_text(const char *given, const char *text)
{
	return given[0] != '\0' && strcmp(text, given) == 0;
}

static bool is_text_in_either_case(const char *given, const char *text)
{
	return given[0] != '\0' && strcasecmp(text, given) == 0;
}

bool policy_is_called(const struct policy_peer *peer, const char *text)
{
	switch (peer->kind) {
	case POLICY_PEER_ANYBODY:
		return false;
	case POLICY_PEER_USER:
		return is_text(peer->name, text);
	case POLICY_PEER_DOMAIN:
		return is_text(peer->name, text) ||
		       is_text_in_either_case(peer->uuid, text);
	case POLICY_PEER_TLS:
		return is_text_in_either_case(peer->name, text) ||
		       is_text_in_either_case(peer->pin, text);
	}
	return false;
}

bool policy_is_listed(const struct policy_names *names,
		      const struct policy_peer *peer)
{
	for (size_t i = 0; i < names->num; i++) {
		if (strcmp(names->names[i], "*") == 0 ||
		    policy_is_called(peer, names->names[i]))
			return true;
	}
	return false;
}

bool policy_has_names(const struct policy_audience *audience)
{
	return audience->domains.num + audience->peers.num +
		       audience->users.num >
	       0;
}

bool policy_is_given_to(const struct policy_audience *audience,
			const struct policy_peer *peer)
{
	bool is_for_all = !policy_has_names(audience);

	if (!peer)
		return true;
	switch (peer->kind) {
	case POLICY_PEER_ANYBODY:
		return is_for_all;
	case POLICY_PEER_USER:
		return is_for_all || policy_is_listed(&audience->users, peer);
	case POLICY_PEER_DOMAIN:
		return policy_is_listed(&audience->domains, peer);
	case POLICY_PEER_TLS:
		return policy_is_listed(&audience->peers, peer);
	}
	return false;
}

bool policy_names_peer(const struct config *config,
		       const struct policy_peer *peer)
{
	if (peer->kind != POLICY_PEER_DOMAIN)
		return false;
	for (size_t i = 0; i < config->num_rules; i++) {
		if (!config->rules[i].is_deny &&
		    policy_is_given_to(&config->rules[i].to, peer))
			return true;
	}
	for (size_t i = 0; i < config->num_virtuals; i++) {
		if (policy_is_given_to(&config->virtuals[i].to, peer))
			return true;
	}
	return false;
}

/*
 * A rule that denies without a name is for everybody: whoever forgets a name
 * shall not have given something away. Nobody at all (NULL) gets what everybody
 * is denied.
 */
bool policy_rule_is_about(const struct policy_rule *rule,
			  const struct policy_peer *peer)
{
	if (rule->is_deny && !policy_has_names(&rule->to))
		return true;
	return rule->is_deny && !peer ? false
				      : policy_is_given_to(&rule->to, peer);
}

/* ---- judging ---- */

bool policy_rule_looks_inside(const struct policy_rule *rule)
{
	return rule->has_vendor || rule->has_product || rule->has_hash ||
	       rule->serial[0] != '\0' ||
	       rule->any.num + rule->all.num + rule->only.num + rule->none.num >
		       0;
}

bool policy_rule_is_given(const struct policy_rule *rule)
{
	return policy_rule_looks_inside(rule) || rule->busid[0] != '\0' ||
	       rule->remote[0] != '\0';
}

static const char *class_mismatch(const struct policy_rule *rule,
				  const struct policy_device *device)
{
	size_t num = device->num_classes;

	if (rule->any.num > 0 && count_listed(&rule->any, device) == 0)
		return "interfaces_any";
	if (!has_each(&rule->all, device))
		return "interfaces_all";
	if (rule->only.num > 0 &&
	    (num == 0 || count_listed(&rule->only, device) < num))
		return "interfaces_only";
	return count_listed(&rule->none, device) > 0 ? "interfaces_none" : NULL;
}

static const char *place_mismatch(const struct policy_rule *rule,
				  const struct policy_device *device)
{
	bool is_any_remote = strcmp(rule->remote, "*") == 0 &&
			     device->remote[0] != '\0';

	if (!is_any_remote && strcmp(rule->remote, device->remote) != 0)
		return "remote";
	if (rule->busid[0] != '\0' && strcmp(rule->busid, device->busid) != 0)
		return "busid";
	return NULL;
}

bool policy_rule_may_match(const struct policy_rule *rule,
			   const struct policy_device *device)
{
	return !place_mismatch(rule, device);
}

const char *policy_rule_mismatch(const struct policy_rule *rule,
				 const struct policy_device *device)
{
	const char *word = place_mismatch(rule, device);

	if (word)
		return word;
	if (rule->has_vendor && rule->vendor != device->vendor)
		return "vendor";
	if (rule->has_product && rule->product != device->product)
		return "product";
	if (rule->serial[0] != '\0' &&
	    strcmp(rule->serial, device->serial) != 0)
		return "serial";
	if (rule->has_hash &&
	    memcmp(rule->hash, device->hash, sizeof(rule->hash)) != 0)
		return "descriptors";
	return class_mismatch(rule, device);
}

struct policy_verdict policy_judge_by(const struct policy_rule *rule,
				      const struct policy_device *device,
				      const struct policy_peer *peer)
{
	struct policy_verdict verdict = { .outcome = POLICY_NO_RULE };
	const struct policy_class *unnamed;

	if (!policy_rule_is_given(rule) || policy_rule_mismatch(rule, device))
		return verdict;
	verdict.rule = rule;
	unnamed = find_unnamed(rule, device);
	if (!policy_rule_is_about(rule, peer)) {
		verdict.outcome = POLICY_NOT_GIVEN;
	} else if (rule->is_deny) {
		verdict.outcome = POLICY_DENIED;
	} else if (unnamed) {
		verdict.outcome = POLICY_UNNAMED;
		verdict.class = *unnamed;
	} else {
		verdict.outcome = POLICY_EXPORTED;
	}
	return verdict;
}

struct policy_verdict policy_judge(const struct policy_rule *rules,
				   size_t num_rules,
				   const struct policy_device *device,
				   const struct policy_peer *peer)
{
	struct policy_verdict nearest = { .outcome = POLICY_NO_RULE };

	if (device->is_hub)
		nearest.outcome = POLICY_HUB;
	else if (device->is_imported)
		nearest.outcome = POLICY_IMPORTED;
	else if (device->has_more_classes)
		nearest.outcome = POLICY_TOO_MANY_CLASSES;
	if (nearest.outcome != POLICY_NO_RULE)
		return nearest;
	for (size_t i = 0; i < num_rules; i++) {
		struct policy_verdict verdict =
			policy_judge_by(&rules[i], device, peer);

		if (verdict.outcome == POLICY_EXPORTED ||
		    verdict.outcome == POLICY_DENIED)
			return verdict;
		if (verdict.outcome > nearest.outcome)
			nearest = verdict;
	}
	return nearest;
}

void policy_verdict_sentence(const struct policy_verdict *verdict,
			     char ret_text[static POLICY_SENTENCE_BYTES])
{
	unsigned line = verdict->rule ? verdict->rule->line : 0;
	const struct policy_class *class = &verdict->class;
	const char *kind = guarded_kind(class);
	const char *text = "";

	switch (verdict->outcome) {
	case POLICY_EXPORTED:
		(void)snprintf(ret_text, POLICY_SENTENCE_BYTES,
			       "exported by the rule at line %u", line);
		return;
	case POLICY_DENIED:
		(void)snprintf(ret_text, POLICY_SENTENCE_BYTES,
			       "denied by the rule at line %u", line);
		return;
	case POLICY_NOT_GIVEN:
		(void)snprintf(ret_text, POLICY_SENTENCE_BYTES,
			       "no export rule gives it to this peer, nor does "
			       "the one at line %u",
			       line);
		return;
	case POLICY_UNNAMED:
		(void)snprintf(ret_text, POLICY_SENTENCE_BYTES,
			       "it has a %s (%02x:%02x:%02x), and the rule at "
			       "line %u does not name its class %02x",
			       kind ? kind : "", class->class, class->subclass,
			       class->protocol, line, class->class);
		return;
	case POLICY_NO_RULE:
		text = "no export rule matches it";
		break;
	case POLICY_HUB:
		text = "a hub is never exported";
		break;
	case POLICY_IMPORTED:
		text = "it is imported from elsewhere by vhci_hcd";
		break;
	case POLICY_TOO_MANY_CLASSES:
		text = "it has interfaces of too many classes to be judged";
		break;
	}
	(void)snprintf(ret_text, POLICY_SENTENCE_BYTES, "%s", text);
}

/* Skips a decimal number at the front; NULL if there is none. */
static const char *skip_number(const char *text)
{
	size_t len = strspn(text, DIGITS);

	return len > 0 ? text + len : NULL;
}

bool policy_is_kernel_busid(const char *text)
{
	if (strncmp(text, "usb", 3) == 0) {
		text = skip_number(text + 3);
		return text && *text == '\0';
	}
	text = skip_number(text);
	if (!text || *text != '-')
		return false;
	do {
		text = skip_number(text + 1);
	} while (text && *text == '.');
	return text && *text == '\0';
}
