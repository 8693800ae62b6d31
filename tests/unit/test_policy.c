/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices are exported, and to whom: rules, and what no rule can export. */
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
#include "tests/unit/policy_bed.h"

#define UUID "5a6f1c1e-0000-4000-8000-00000000abcd"
#define PIN                                                           \
	"sha256:00112233445566778899aabbccddeeff00112233445566778899" \
	"aabbccddeeff"

static const struct policy_peer user = { .kind = POLICY_PEER_USER,
					 .name = "1000" };
static const struct policy_peer guest = { .kind = POLICY_PEER_DOMAIN,
					  .name = "u1",
					  .uuid = UUID };
static const struct policy_peer host = { .kind = POLICY_PEER_TLS,
					 .name = "anna.example",
					 .pin = PIN };
static const struct policy_peer nameless_guest = { .kind = POLICY_PEER_DOMAIN };
static const struct policy_peer nameless_host = { .kind = POLICY_PEER_TLS,
						  .pin = PIN };

/* ---- attributes ---- */

static void without_rules_nothing_is_exported(void **state)
{
	(void)state;
	assert_int_equal(policy_judge(NULL, 0, &camera, &local).outcome,
			 POLICY_NO_RULE);
}

static void a_rule_without_attributes_exports_nothing(void **state)
{
	static const struct policy_rule empty = { 0 };

	(void)state;
	assert_false(policy_rule_is_given(&empty));
	assert_int_equal(judge(&empty, &camera), POLICY_NO_RULE);
}

/* Each attribute by itself: a rule that matches the camera, and one that does
 * not, for the reason of that attribute. */
static const struct {
	const char *word;
	struct policy_rule match;
	struct policy_rule other;
} attributes[] = {
	{ "vendor",
	  { .has_vendor = true, .vendor = 0x046d },
	  { .has_vendor = true, .vendor = 0 } },
	{ "product",
	  { .has_product = true, .product = 0xc52b },
	  { .has_product = true, .product = 0xc52c } },
	{ "serial", { .serial = "A1" }, { .serial = "A" } },
	{ "serial", { .serial = "A1" }, { .serial = "a1" } },
	{ "serial", { .serial = "A1" }, { .serial = "A12" } },
	{ "busid", { .busid = "1-1.2" }, { .busid = "1-1" } },
	{ "busid", { .busid = "1-1.2" }, { .busid = "1-1.2.1" } },
	{ "descriptors",
	  { .has_hash = true, .hash = { 1, 2, 3 } },
	  { .has_hash = true, .hash = { 1, 2, 3, [31] = 1 } } },
	{ "remote", { .busid = "1-1.2" }, { .remote = "lab" } },
	{ "remote", { .busid = "1-1.2" }, { .remote = "*" } },
};

static void each_attribute_matches_and_fails_by_itself(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++) {
		const struct policy_rule *match = &attributes[i].match;
		const struct policy_rule *other = &attributes[i].other;

		assert_true(policy_rule_is_given(match));
		assert_null(policy_rule_mismatch(match, &camera));
		assert_int_equal(judge(match, &camera), POLICY_EXPORTED);
		assert_true(policy_rule_is_given(other));
		assert_string_equal(policy_rule_mismatch(other, &camera),
				    attributes[i].word);
		assert_int_equal(judge(other, &camera), POLICY_NO_RULE);
	}
}

static void every_given_attribute_must_match(void **state)
{
	static const struct policy_rule all = {
		.has_vendor = true,
		.has_product = true,
		.has_hash = true,
		.vendor = 0x046d,
		.product = 0xc52b,
		.hash = { 1, 2, 3 },
		.serial = "A1",
		.busid = "1-1.2",
		.any = { 1, { { { 0x0e, 0, 0 }, 1 } } },
	};
	struct policy_device other;

	(void)state;
	assert_int_equal(judge(&all, &camera), POLICY_EXPORTED);

	other = camera;
	other.vendor = 0;
	assert_int_equal(judge(&all, &other), POLICY_NO_RULE);
	other = camera;
	other.product = 0;
	assert_int_equal(judge(&all, &other), POLICY_NO_RULE);
	other = camera;
	other.serial[1] = '\0';
	assert_int_equal(judge(&all, &other), POLICY_NO_RULE);
	other = camera;
	other.busid[3] = '\0';
	assert_int_equal(judge(&all, &other), POLICY_NO_RULE);
	other = camera;
	other.hash[31] = 1;
	assert_int_equal(judge(&all, &other), POLICY_NO_RULE);
	other = camera;
	other.num_classes = 0;
	assert_int_equal(judge(&all, &other), POLICY_NO_RULE);
}

static void a_rule_is_for_devices_of_its_remote_or_of_this_machine(void **state)
{
	static const struct policy_rule here = { .has_vendor = true,
						 .vendor = 0x046d };
	static const struct policy_rule lab = { .remote = "lab" };
	static const struct policy_rule any = { .remote = "*" };
	static const struct policy_rule one = { .remote = "lab",
						.busid = "1-1.2" };
	struct policy_device away = camera;

	(void)state;
	(void)snprintf(away.remote, sizeof(away.remote), "lab");
	assert_int_equal(judge(&here, &away), POLICY_NO_RULE);
	assert_int_equal(judge(&lab, &away), POLICY_EXPORTED);
	assert_int_equal(judge(&any, &away), POLICY_EXPORTED);
	assert_int_equal(judge(&one, &away), POLICY_EXPORTED);
	assert_int_equal(judge(&any, &camera), POLICY_NO_RULE);
	(void)snprintf(away.remote, sizeof(away.remote), "lab2");
	assert_int_equal(judge(&lab, &away), POLICY_NO_RULE);
	assert_int_equal(judge(&any, &away), POLICY_EXPORTED);
}

/* ---- the order of rules ---- */

static void the_first_rule_that_matches_decides(void **state)
{
	static const struct policy_rule rules[] = {
		{ .line = 1, .has_vendor = true, .vendor = 0x1234 },
		{ .line = 2, .is_deny = true, .serial = "B2" },
		{ .line = 3, .busid = "1-1.2" },
		{ .line = 4,
		  .is_deny = true,
		  .has_vendor = true,
		  .vendor = 0x046d },
		{ .line = 5, .has_vendor = true, .vendor = 0x046d },
	};
	struct policy_device device = camera;
	struct policy_verdict verdict;

	(void)state;
	verdict = policy_judge(rules, ARRAY_SIZE(rules), &device, &local);
	assert_int_equal(verdict.outcome, POLICY_EXPORTED);
	assert_int_equal(verdict.rule->line, 3);

	device.busid[3] = '\0';
	verdict = policy_judge(rules, ARRAY_SIZE(rules), &device, &local);
	assert_int_equal(verdict.outcome, POLICY_DENIED);
	assert_int_equal(verdict.rule->line, 4);

	(void)snprintf(device.serial, sizeof(device.serial), "B2");
	verdict = policy_judge(rules, ARRAY_SIZE(rules), &device, &local);
	assert_int_equal(verdict.outcome, POLICY_DENIED);
	assert_int_equal(verdict.rule->line, 2);

	device.vendor = 0x1234;
	verdict = policy_judge(rules, ARRAY_SIZE(rules), &device, &local);
	assert_int_equal(verdict.outcome, POLICY_EXPORTED);
	assert_int_equal(verdict.rule->line, 1);
}

static void put_name(struct policy_names *names, const char *name)
{
	(void)snprintf(names->names[names->num++], POLICY_NAME_BYTES, "%s",
		       name);
}

static void a_rule_for_others_does_not_decide(void **state)
{
	struct policy_rule rules[] = {
		{ .line = 1, .is_deny = true, .busid = "1-1.2" },
		{ .line = 2, .busid = "1-1.2" },
		{ .line = 3, .busid = "1-1.2" },
	};

	(void)state;
	put_name(&rules[0].to.domains, "u1");
	put_name(&rules[2].to.domains, "*");
	assert_int_equal(policy_judge(rules, 3, &camera, &guest).rule->line, 1);
	assert_int_equal(policy_judge(rules, 3, &camera, &local).rule->line, 2);
	assert_int_equal(
		policy_judge(rules, 3, &camera, &nameless_guest).rule->line, 3);
	assert_int_equal(policy_judge(rules, 3, &camera, NULL).rule->line, 2);
	assert_int_equal(policy_judge(rules, 3, &camera, &host).outcome,
			 POLICY_NOT_GIVEN);
}

static void a_rule_that_denies_without_a_name_is_for_everybody(void **state)
{
	static const struct policy_peer *const peers[] = {
		NULL, &local, &user, &guest, &host, &nameless_guest
	};
	struct policy_rule rules[] = {
		{ .is_deny = true, .busid = "1-1.2" },
		{ .busid = "1-1.2" },
	};

	(void)state;
	put_name(&rules[1].to.domains, "*");
	put_name(&rules[1].to.peers, "*");
	put_name(&rules[1].to.users, "*");
	for (size_t i = 0; i < ARRAY_SIZE(peers); i++)
		assert_int_equal(
			policy_judge(rules, 2, &camera, peers[i]).outcome,
			POLICY_DENIED);
}

/* ---- whom it is for ---- */

enum list {
	NOBODY,
	DOMAINS,
	PEERS,
	USERS
};

static const struct {
	enum list list;
	const char *name;
	const struct policy_peer *peer;
	bool is_given;
} audiences[] = {
	{ NOBODY, "", &local, true },
	{ NOBODY, "", &user, true },
	{ NOBODY, "", &guest, false },
	{ NOBODY, "", &host, false },

	{ DOMAINS, "u1", &guest, true },
	{ DOMAINS, UUID, &guest, true },
	{ DOMAINS, "5A6F1C1E-0000-4000-8000-00000000ABCD", &guest, true },
	{ DOMAINS, "*", &guest, true },
	{ DOMAINS, "*", &nameless_guest, true },
	{ DOMAINS, "U1", &guest, false },
	{ DOMAINS, "u", &guest, false },
	{ DOMAINS, "u11", &guest, false },
	{ DOMAINS, "", &nameless_guest, false },
	{ DOMAINS, "*", &local, false },
	{ DOMAINS, "*", &user, false },
	{ DOMAINS, "*", &host, false },
	{ DOMAINS, "anna.example", &host, false },
	{ DOMAINS, "u1", NULL, true },

	{ PEERS, "anna.example", &host, true },
	{ PEERS, "Anna.Example", &host, true },
	{ PEERS, PIN, &host, true },
	{ PEERS, PIN, &nameless_host, true },
	{ PEERS, "*", &nameless_host, true },
	{ PEERS, "anna", &host, false },
	{ PEERS, "anna.example.org", &host, false },
	{ PEERS, "", &nameless_host, false },
	{ PEERS, "*", &local, false },
	{ PEERS, "*", &user, false },
	{ PEERS, "*", &guest, false },
	{ PEERS, "u1", &guest, false },

	{ USERS, "1000", &user, true },
	{ USERS, "*", &user, true },
	{ USERS, "100", &user, false },
	{ USERS, "0", &user, false },
	{ USERS, "*", &local, false },
	{ USERS, "*", &guest, false },
	{ USERS, "*", &host, false },
};

static void a_rule_is_for_those_it_names_and_nobody_else(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(audiences); i++) {
		struct policy_rule rule = { .busid = "1-1.2" };
		struct policy_names *const lists[] = {
			[DOMAINS] = &rule.to.domains,
			[PEERS] = &rule.to.peers,
			[USERS] = &rule.to.users,
		};
		enum policy_outcome expected = audiences[i].is_given
						       ? POLICY_EXPORTED
						       : POLICY_NOT_GIVEN;

		if (audiences[i].list != NOBODY) {
			put_name(lists[audiences[i].list], "other");
			put_name(lists[audiences[i].list], audiences[i].name);
		}
		if (policy_judge(&rule, 1, &camera, audiences[i].peer).outcome !=
		    expected)
			fail_msg("row %zu: %s", i, audiences[i].name);
	}
}

static void several_lists_add_up(void **state)
{
	struct policy_audience to = { 0 };

	(void)state;
	put_name(&to.domains, "u1");
	put_name(&to.peers, PIN);
	put_name(&to.users, "1000");
	assert_true(policy_is_given_to(&to, &guest));
	assert_true(policy_is_given_to(&to, &host));
	assert_true(policy_is_given_to(&to, &user));
	assert_false(policy_is_given_to(&to, &local));
	assert_false(policy_is_given_to(&to, &nameless_guest));
}

static void a_domain_is_named_by_any_section_that_gives_devices(void **state)
{
	struct config *config = calloc(1, sizeof(*config));
	struct policy_names *domains;

	(void)state;
	assert_non_null(config);
	config->num_rules = 1;
	config->num_virtuals = 1;
	assert_false(policy_names_peer(config, &guest));
	for (int i = 0; i < 2; i++) {
		domains = i ? &config->rules[0].to.domains
			    : &config->virtuals[0].to.domains;
		put_name(domains, "u1");
		assert_true(policy_names_peer(config, &guest));
		assert_false(policy_names_peer(config, &local));
		domains->num = 0;
	}
	put_name(&config->rules[0].to.domains, "u1");
	config->rules[0].is_deny = true;
	assert_false(policy_names_peer(config, &guest));
	free(config);
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
		cmocka_unit_test(each_attribute_matches_and_fails_by_itself),
		cmocka_unit_test(every_given_attribute_must_match),
		cmocka_unit_test(
			a_rule_is_for_devices_of_its_remote_or_of_this_machine),
		cmocka_unit_test(the_first_rule_that_matches_decides),
		cmocka_unit_test(a_rule_for_others_does_not_decide),
		cmocka_unit_test(
			a_rule_that_denies_without_a_name_is_for_everybody),
		cmocka_unit_test(a_rule_is_for_those_it_names_and_nobody_else),
		cmocka_unit_test(several_lists_add_up),
		cmocka_unit_test(
			a_domain_is_named_by_any_section_that_gives_devices),
		cmocka_unit_test(the_kernels_bus_ids_are_told_from_other_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
