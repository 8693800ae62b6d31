/* SPDX-License-Identifier: Apache-2.0 */
/* See policy.h. */
#include "gateway/policy.h"

#include <string.h>
#include <strings.h>

#include "gateway/config.h"

#define USB_CLASS_HUB 9
#define DIGITS        "0123456789"

bool policy_rule_is_given(const struct policy_rule *rule)
{
	return rule->has_vendor || rule->has_product ||
	       rule->serial[0] != '\0' || rule->busid[0] != '\0';
}

static bool rule_matches(const struct policy_rule *rule,
			 const struct policy_device *device)
{
	if (!policy_rule_is_given(rule))
		return false;
	if (rule->has_vendor && rule->vendor != device->vendor)
		return false;
	if (rule->has_product && rule->product != device->product)
		return false;
	if (rule->serial[0] != '\0' &&
	    strcmp(rule->serial, device->serial) != 0)
		return false;
	return rule->busid[0] == '\0' ||
	       strcmp(rule->busid, device->busid) == 0;
}

bool policy_is_called(const struct policy_peer *peer, const char *text)
{
	return peer->kind == POLICY_PEER_DOMAIN &&
	       ((peer->name[0] != '\0' && strcmp(text, peer->name) == 0) ||
		(peer->uuid[0] != '\0' && strcasecmp(text, peer->uuid) == 0));
}

bool policy_is_given_to(const struct policy_domains *domains,
			const struct policy_peer *peer)
{
	if (!peer)
		return true;
	if (peer->kind != POLICY_PEER_DOMAIN)
		return domains->num == 0;
	for (size_t i = 0; i < domains->num; i++) {
		if (strcmp(domains->names[i], "*") == 0 ||
		    policy_is_called(peer, domains->names[i]))
			return true;
	}
	return false;
}

bool policy_names_peer(const struct config *config,
		       const struct policy_peer *peer)
{
	if (peer->kind != POLICY_PEER_DOMAIN)
		return false;
	for (size_t i = 0; i < config->num_rules; i++) {
		if (policy_is_given_to(&config->rules[i].domains, peer))
			return true;
	}
	for (size_t i = 0; i < config->num_virtuals; i++) {
		if (policy_is_given_to(&config->virtuals[i].domains, peer))
			return true;
	}
	return false;
}

enum policy_verdict policy_judge(const struct policy_rule *rules,
				 size_t num_rules,
				 const struct policy_device *device,
				 const struct policy_peer *peer)
{
	enum policy_verdict verdict = POLICY_NO_RULE;

	if (device->is_hub)
		return POLICY_HUB;
	if (device->is_imported)
		return POLICY_IMPORTED;
	for (size_t i = 0; i < num_rules; i++) {
		if (!rule_matches(&rules[i], device))
			continue;
		if (policy_is_given_to(&rules[i].domains, peer))
			return POLICY_EXPORTED;
		verdict = POLICY_NOT_GIVEN;
	}
	return verdict;
}

const char *policy_verdict_sentence(enum policy_verdict verdict)
{
	switch (verdict) {
	case POLICY_EXPORTED:
		return "exported";
	case POLICY_NO_RULE:
		return "no export rule matches it";
	case POLICY_NOT_GIVEN:
		return "no export rule gives it to this peer";
	case POLICY_HUB:
		return "a hub is never exported";
	case POLICY_IMPORTED:
		return "it is imported from elsewhere by vhci_hcd";
	}
	return "unknown verdict";
}

bool policy_is_hub(const struct descriptors *descriptors)
{
	uint8_t value;

	if (descriptors->class == USB_CLASS_HUB)
		return true;
	for (unsigned i = 0; descriptors_configuration(descriptors, i, &value);
	     i++) {
		struct descriptor_interface interface;
		size_t cursor = 0;

		while (descriptors_next_interface(descriptors, value, &cursor,
						  &interface)) {
			if (interface.class == USB_CLASS_HUB)
				return true;
		}
	}
	return false;
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
