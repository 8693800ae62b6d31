/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices are exported: rules, and what no rule can export. */
#include "gateway/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/config.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static const struct policy_peer local = { .kind = POLICY_PEER_ANYBODY };

static const struct policy_device mouse = {
	.vendor = 0x046d,
	.product = 0xc52b,
	.serial = "A1",
	.busid = "1-1.2",
};

static void without_rules_nothing_is_exported(void **state)
{
	(void)state;
	assert_int_equal(policy_judge(NULL, 0, &mouse, &local), POLICY_NO_RULE);
}

static void a_rule_without_attributes_exports_nothing(void **state)
{
	static const struct policy_rule empty = { 0 };

	(void)state;
	assert_int_equal(policy_judge(&empty, 1, &mouse, &local),
			 POLICY_NO_RULE);
}

static void every_given_attribute_must_match(void **state)
{
	static const struct policy_rule all = {
		.has_vendor = true,
		.has_product = true,
		.vendor = 0x046d,
		.product = 0xc52b,
		.serial = "A1",
		.busid = "1-1.2",
	};
	struct policy_device other;

	(void)state;
	assert_int_equal(policy_judge(&all, 1, &mouse, &local),
			 POLICY_EXPORTED);

	other = mouse;
	other.vendor = 0;
	assert_int_equal(policy_judge(&all, 1, &other, &local), POLICY_NO_RULE);
	other = mouse;
	other.product = 0;
	assert_int_equal(policy_judge(&all, 1, &other, &local), POLICY_NO_RULE);
	other = mouse;
	other.serial[1] = '\0';
	assert_int_equal(policy_judge(&all, 1, &other, &local), POLICY_NO_RULE);
	other = mouse;
	other.busid[3] = '\0';
	assert_int_equal(policy_judge(&all, 1, &other, &local), POLICY_NO_RULE);
}

static void one_matching_rule_of_several_is_enough(void **state)
{
	static const struct policy_rule rules[] = {
		{ .has_vendor = true, .vendor = 0x1234 },
		{ .busid = "1-1.2" },
	};

	(void)state;
	assert_int_equal(policy_judge(rules, ARRAY_SIZE(rules), &mouse, &local),
			 POLICY_EXPORTED);
}

static void a_hub_or_an_imported_device_is_never_exported(void **state)
{
	static const struct policy_rule rule = { .busid = "1-1.2" };
	struct policy_device device = mouse;

	(void)state;
	device.is_hub = true;
	assert_int_equal(policy_judge(&rule, 1, &device, &local), POLICY_HUB);
	device.is_hub = false;
	device.is_imported = true;
	assert_int_equal(policy_judge(&rule, 1, &device, &local),
			 POLICY_IMPORTED);
}

#define UUID "5a6f1c1e-0000-4000-8000-00000000abcd"

static const struct policy_peer guest = {
	.kind = POLICY_PEER_DOMAIN,
	.name = "u1",
	.uuid = UUID,
};

static enum policy_verdict judge_for(const char *domain,
				     const struct policy_peer *peer)
{
	struct policy_rule rule = { .busid = "1-1.2" };

	if (domain) {
		rule.domains.num = 2;
		(void)snprintf(rule.domains.names[0], POLICY_NAME_BYTES, "%s",
			       "other");
		(void)snprintf(rule.domains.names[1], POLICY_NAME_BYTES, "%s",
			       domain);
	}
	return policy_judge(&rule, 1, &mouse, peer);
}

static void a_rule_without_domains_is_for_everybody_but_domains(void **state)
{
	(void)state;
	assert_int_equal(judge_for(NULL, &local), POLICY_EXPORTED);
	assert_int_equal(judge_for(NULL, &guest), POLICY_NOT_GIVEN);
}

static void a_rule_with_domains_is_for_those_and_nobody_else(void **state)
{
	const struct policy_peer nameless = { .kind = POLICY_PEER_DOMAIN };

	(void)state;
	assert_int_equal(judge_for("u1", &guest), POLICY_EXPORTED);
	assert_int_equal(judge_for(UUID, &guest), POLICY_EXPORTED);
	assert_int_equal(judge_for("5A6F1C1E-0000-4000-8000-00000000ABCD",
				   &guest),
			 POLICY_EXPORTED);
	assert_int_equal(judge_for("*", &guest), POLICY_EXPORTED);
	assert_int_equal(judge_for("*", &nameless), POLICY_EXPORTED);

	assert_int_equal(judge_for("U1", &guest), POLICY_NOT_GIVEN);
	assert_int_equal(judge_for("u", &guest), POLICY_NOT_GIVEN);
	assert_int_equal(judge_for("u11", &guest), POLICY_NOT_GIVEN);
	assert_int_equal(judge_for("", &nameless), POLICY_NOT_GIVEN);
	assert_int_equal(judge_for("u1", &local), POLICY_NOT_GIVEN);
	assert_int_equal(judge_for("*", &local), POLICY_NOT_GIVEN);
	assert_int_equal(judge_for("u1", NULL), POLICY_EXPORTED);
}

static void a_domain_is_named_by_any_section_that_gives_devices(void **state)
{
	struct config *config = calloc(1, sizeof(*config));
	struct policy_domains *domains;

	(void)state;
	assert_non_null(config);
	config->num_rules = 1;
	config->num_virtuals = 1;
	assert_false(policy_names_peer(config, &guest));
	for (int i = 0; i < 2; i++) {
		domains = i ? &config->rules[0].domains
			    : &config->virtuals[0].domains;
		domains->num = 1;
		(void)snprintf(domains->names[0], POLICY_NAME_BYTES, "%s",
			       "u1");
		assert_true(policy_names_peer(config, &guest));
		assert_false(policy_names_peer(config, &local));
		domains->num = 0;
	}
	free(config);
}

/* A device with two configurations of one interface each. */
static const uint8_t two_configurations[] = {
	18, 1, 0,  2, 0, 0, 0,  64,   0x34, 0x12, 0x78, 0x56, 0,  1,
	0,  0, 0,  2, 9, 2, 18, 0,    1,    1,    0,    0x80, 50, /* first configuration */
	9,  4, 0,  0, 0, 3, 0,  0,    0,  /* a keyboard, say */
	9,  2, 18, 0, 1, 2, 0,  0x80, 50, /* second configuration */
	9,  4, 0,  0, 0, 3, 0,  0,    0,
};

#define DEVICE_CLASS 4
#define SECOND_CLASS (18 + 18 + 9 + 5)
#define CLASS_HUB    9

static bool is_hub_with(size_t offset, uint8_t class)
{
	uint8_t bytes[sizeof(two_configurations)];
	struct descriptors d;

	memcpy(bytes, two_configurations, sizeof(bytes));
	bytes[offset] = class;
	assert_int_equal(descriptors_parse(&d, bytes, sizeof(bytes)), 0);
	return policy_is_hub(&d);
}

static void a_hub_in_any_configuration_makes_the_device_a_hub(void **state)
{
	(void)state;
	assert_false(is_hub_with(SECOND_CLASS, 3));
	assert_true(is_hub_with(DEVICE_CLASS, CLASS_HUB));
	assert_true(is_hub_with(SECOND_CLASS, CLASS_HUB));
}

static void the_kernels_bus_ids_are_told_from_other_names(void **state)
{
	static const char *const yes[] = { "1-1",       "12-3", "1-1.2",
					   "1-1.2.3.4", "usb1", "usb12" };
	static const char *const no[] = { "",      "1",     "1-",     "-1",
					  "1-1.",  "1-1.a", "usb",    "usb1a",
					  "usb-1", "stick", "1-1:1.0" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
		assert_true(policy_is_kernel_busid(yes[i]));
	for (size_t i = 0; i < ARRAY_SIZE(no); i++)
		assert_false(policy_is_kernel_busid(no[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_rules_nothing_is_exported),
		cmocka_unit_test(a_rule_without_attributes_exports_nothing),
		cmocka_unit_test(every_given_attribute_must_match),
		cmocka_unit_test(one_matching_rule_of_several_is_enough),
		cmocka_unit_test(a_hub_or_an_imported_device_is_never_exported),
		cmocka_unit_test(
			a_rule_without_domains_is_for_everybody_but_domains),
		cmocka_unit_test(
			a_rule_with_domains_is_for_those_and_nobody_else),
		cmocka_unit_test(
			a_domain_is_named_by_any_section_that_gives_devices),
		cmocka_unit_test(
			a_hub_in_any_configuration_makes_the_device_a_hub),
		cmocka_unit_test(the_kernels_bus_ids_are_told_from_other_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
