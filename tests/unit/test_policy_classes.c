/* SPDX-License-Identifier: Apache-2.0 */
/* Rules and the classes of a device's interfaces: sets, and what is guarded. */
#include "gateway/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/policy_bed.h"

/* ---- classes ---- */

#define CLASS(c)                 \
	{                        \
		{ (c), 0, 0 }, 1 \
	}
#define SUBCLASS(c, s)             \
	{                          \
		{ (c), (s), 0 }, 2 \
	}
#define EXACTLY(c, s, p)             \
	{                            \
		{ (c), (s), (p) }, 3 \
	}

enum operator{
	ANY,
	ALL,
	ONLY,
	NONE,
	NUM_OPERATORS
};

static const struct {
	struct policy_patterns list;
	bool matches[NUM_OPERATORS]; /* the camera */
} operators[] = {
	{ { 1, { CLASS(0x0e) } }, { [ANY] = true, [ALL] = true } },
	{ { 1, { SUBCLASS(0x0e, 2) } }, { [ANY] = true, [ALL] = true } },
	{ { 1, { EXACTLY(0x0e, 2, 0) } }, { [ANY] = true, [ALL] = true } },
	{ { 1, { EXACTLY(0x0e, 2, 1) } }, { [NONE] = true } },
	{ { 1, { SUBCLASS(0x0e, 3) } }, { [NONE] = true } },
	{ { 1, { CLASS(0x08) } }, { [NONE] = true } },
	{ { 2, { CLASS(0x08), CLASS(0x01) } }, { [ANY] = true } },
	{ { 2, { CLASS(0x0e), CLASS(0x01) } }, { [ANY] = true, [ALL] = true } },
	{ { 3, { CLASS(0x0e), CLASS(0x01), CLASS(0x03) } },
	  { [ANY] = true, [ALL] = true, [ONLY] = true } },
	{ { 4, { CLASS(0x0e), CLASS(0x01), CLASS(0x03), CLASS(0x08) } },
	  { [ANY] = true, [ONLY] = true } },
	{ { 3, { SUBCLASS(0x0e, 1), CLASS(0x01), CLASS(0x03) } },
	  { [ANY] = true, [ALL] = true } },
};

static struct policy_rule rule_with(enum operator operator,
				    const struct policy_patterns * list)
{
	struct policy_rule rule = { 0 };

	switch (operator) {
	case ANY:
		rule.any = *list;
		break;
	case ALL:
		rule.all = *list;
		break;
	case ONLY:
		rule.only = *list;
		break;
	case NONE:
	case NUM_OPERATORS:
		rule.none = *list;
		break;
	}
	return rule;
}

static void each_operator_judges_the_set_of_classes(void **state)
{
	static const char *const words[] = { "interfaces_any", "interfaces_all",
					     "interfaces_only",
					     "interfaces_none" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(operators); i++) {
		for (int o = ANY; o < NUM_OPERATORS; o++) {
			struct policy_rule rule =
				rule_with((enum operator)o, &operators[i].list);
			const char *word = policy_rule_mismatch(&rule, &camera);

			assert_true(policy_rule_is_given(&rule));
			if (operators[i].matches[o] != !word)
				fail_msg("row %zu, %s", i, words[o]);
			if (word)
				assert_string_equal(word, words[o]);
		}
	}
}

static void
a_device_without_interfaces_has_nothing_that_is_asked_for(void **state)
{
	const struct policy_patterns list = { 1, { CLASS(0x0e) } };
	struct policy_device bare = camera;
	struct policy_rule rule;

	(void)state;
	bare.num_classes = 0;
	rule = rule_with(ANY, &list);
	assert_int_equal(judge(&rule, &bare), POLICY_NO_RULE);
	rule = rule_with(ALL, &list);
	assert_int_equal(judge(&rule, &bare), POLICY_NO_RULE);
	rule = rule_with(ONLY, &list);
	assert_int_equal(judge(&rule, &bare), POLICY_NO_RULE);
	rule = rule_with(NONE, &list);
	assert_int_equal(judge(&rule, &bare), POLICY_EXPORTED);
}

static const struct {
	struct policy_class class;
	const char *kind; /* NULL: not guarded */
} guarded[] = {
	{ { 0x03, 1, 1 }, "keyboard" },
	{ { 0x03, 0, 1 }, "keyboard" },
	{ { 0x03, 1, 2 }, NULL }, /* mouse */
	{ { 0x03, 0, 0 }, NULL },
	{ { 0x02, 0x06, 0 }, "network adapter" },
	{ { 0x02, 0x0a, 0 }, "network adapter" },
	{ { 0x02, 0x0c, 7 }, "network adapter" },
	{ { 0x02, 0x0d, 0 }, "network adapter" },
	{ { 0x02, 0x0e, 0 }, "network adapter" },
	{ { 0x02, 0x02, 0xff }, "network adapter" },
	{ { 0x02, 0x02, 1 }, NULL }, /* serial port */
	{ { 0x0a, 0, 0 }, NULL },
	{ { 0xe0, 1, 3 }, "network adapter" },
	{ { 0xe0, 1, 1 }, NULL }, /* Bluetooth */
	{ { 0xef, 4, 1 }, "network adapter" },
	{ { 0xef, 2, 1 }, NULL },
	{ { 0x08, 6, 0x50 }, NULL },
};

static void a_guarded_class_is_given_only_by_a_rule_that_names_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(guarded); i++) {
		const struct policy_class c = guarded[i].class;
		struct policy_device device = camera;
		struct policy_rule plain = { .busid = "1-1.2", .line = 7 };
		struct policy_rule named[] = { plain, plain, plain, plain };
		struct policy_verdict verdict;
		char text[POLICY_SENTENCE_BYTES];

		device.classes[2] = c;
		verdict = policy_judge(&plain, 1, &device, &local);
		policy_verdict_sentence(&verdict, text);
		assert_int_equal(verdict.outcome, guarded[i].kind
							  ? POLICY_UNNAMED
							  : POLICY_EXPORTED);
		if (guarded[i].kind)
			assert_non_null(strstr(text, guarded[i].kind));

		named[0].any = (struct policy_patterns){
			2, { CLASS(0x0e), CLASS(c.class) }
		};
		named[1].all = (struct policy_patterns){
			1, { SUBCLASS(c.class, c.subclass) }
		};
		named[2].all = (struct policy_patterns){
			1, { EXACTLY(c.class, c.subclass, c.protocol) }
		};
		named[3].only = (struct policy_patterns){
			3, { CLASS(0x0e), CLASS(0x03), CLASS(c.class) }
		};
		for (size_t n = 0; n < ARRAY_SIZE(named); n++)
			assert_int_equal(judge(&named[n], &device),
					 POLICY_EXPORTED);
	}
}

static void a_rule_names_every_guarded_class_or_is_passed_over(void **state)
{
	struct policy_device device = camera;
	struct policy_rule rules[] = {
		{ .line = 3, .any = { 1, { CLASS(0x0e) } } },
		{ .line = 9, .any = { 2, { CLASS(0x03), CLASS(0x02) } } },
	};
	struct policy_verdict verdict;
	char text[POLICY_SENTENCE_BYTES];

	(void)state;
	device.classes[2] = (struct policy_class){ 0x02, 0x0e, 0 };
	device.classes[3] = (struct policy_class){ 0x03, 1, 1 };
	assert_ptr_equal(policy_judge(rules, 2, &device, &local).rule,
			 &rules[1]);

	rules[1].any.num = 1;
	verdict = policy_judge(rules, 2, &device, &local);
	assert_int_equal(verdict.outcome, POLICY_UNNAMED);
	policy_verdict_sentence(&verdict, text);
	assert_string_equal(text, "it has a network adapter (02:0e:00), and "
				  "the rule at line 3 does not name its class "
				  "02");

	/* Not to be there is no way of being named. */
	rules[0] = (struct policy_rule){ .busid = "1-1.2",
					 .none = { 1, { CLASS(0x08) } } };
	assert_int_equal(policy_judge(rules, 1, &device, &local).outcome,
			 POLICY_UNNAMED);
}

static void a_hub_or_an_imported_device_is_never_exported(void **state)
{
	static const struct policy_rule rule = {
		.busid = "1-1.2", .any = { 2, { CLASS(0x09), CLASS(0x0e) } }
	};
	struct policy_device device = camera;

	(void)state;
	device.is_hub = true;
	assert_int_equal(judge(&rule, &device), POLICY_HUB);
	device.is_hub = false;
	device.is_imported = true;
	assert_int_equal(judge(&rule, &device), POLICY_IMPORTED);
	device.is_imported = false;
	device.has_more_classes = true;
	assert_int_equal(judge(&rule, &device), POLICY_TOO_MANY_CLASSES);
}

/* ---- what descriptors tell ---- */

/* Two configurations of one interface each; the second has two settings. */
static const uint8_t two_configurations[] = {
	18, 1, 0,  2, 0, 0, 0, 64,   0x34, 0x12, 0x78, 0x56, 0, 1, 0, 0, 0,  2,
	9,  2, 18, 0, 1, 1, 0, 0x80, 50, /* first configuration */
	9,  4, 0,  0, 0, 3, 1, 2,    0,  /* a mouse, say */
	9,  2, 27, 0, 1, 2, 0, 0x80, 50, /* second configuration */
	9,  4, 0,  0, 0, 3, 1, 2,    0,    9,    4,    0,    1, 0, 8, 6, 80, 0,
};

#define DEVICE_CLASS 4
#define SECOND_CLASS (18 + 18 + 9 + 5)
#define CLASS_HUB    9

static struct policy_device device_with(size_t offset, uint8_t class)
{
	uint8_t bytes[sizeof(two_configurations)];
	struct policy_device device = { 0 };
	struct descriptors d;

	memcpy(bytes, two_configurations, sizeof(bytes));
	bytes[offset] = class;
	assert_int_equal(descriptors_parse(&d, bytes, sizeof(bytes)), 0);
	policy_describe(&device, &d);
	return device;
}

static void what_a_list_tells_is_judged_as_far_as_it_goes(void **state)
{
	static const struct usbip_interface interfaces[USBIP_MAX_INTERFACES] = {
		{ 3, 1, 1 }, { 8, 6, 80 }, { 8, 6, 80 }
	};
	struct usbip_device listed = { .vendor = 0x1234,
				       .product = 0x5678,
				       .class = 0xef,
				       .num_interfaces = 3 };
	struct policy_device device = { 0 };

	(void)state;
	policy_describe_listed(&device, &listed, interfaces);
	assert_int_equal(device.vendor, 0x1234);
	assert_int_equal(device.product, 0x5678);
	assert_int_equal(device.num_classes, 2);
	assert_int_equal(device.classes[0].class, 3);
	assert_int_equal(device.classes[1].class, 8);
	assert_false(device.is_hub);

	listed.class = CLASS_HUB;
	listed.num_interfaces = UINT8_MAX; /* as many as there is room for */
	policy_describe_listed(&device, &listed, interfaces);
	assert_true(device.is_hub);
	assert_int_equal(device.num_classes, 4);
}

static void a_hub_in_any_configuration_makes_the_device_a_hub(void **state)
{
	(void)state;
	assert_false(device_with(SECOND_CLASS, 3).is_hub);
	assert_true(device_with(DEVICE_CLASS, CLASS_HUB).is_hub);
	assert_true(device_with(SECOND_CLASS, CLASS_HUB).is_hub);
}

static void classes_of_all_configurations_and_settings_count_once(void **state)
{
	struct policy_device device = device_with(DEVICE_CLASS, 0);

	(void)state;
	assert_int_equal(device.vendor, 0x1234);
	assert_int_equal(device.product, 0x5678);
	assert_int_equal(device.num_classes, 2);
	assert_int_equal(device.classes[0].class, 3);
	assert_int_equal(device.classes[0].subclass, 1);
	assert_int_equal(device.classes[0].protocol, 2);
	assert_int_equal(device.classes[1].class, 8);
	assert_int_equal(device.classes[1].protocol, 0x50);
}

static void a_configuration_with_anothers_value_is_not_overlooked(void **state)
{
	/* bConfigurationValue of the second */
	struct policy_device device = device_with(18 + 18 + 5, 1);

	(void)state;
	assert_int_equal(device.num_classes, 2);
	assert_int_equal(device.classes[1].class, 8);
}

static void the_devices_own_class_counts_unless_interfaces_have_it(void **state)
{
	(void)state;
	assert_int_equal(device_with(DEVICE_CLASS, 0).num_classes, 2);
	assert_int_equal(device_with(DEVICE_CLASS, 0xef).num_classes, 2);
	assert_int_equal(device_with(DEVICE_CLASS, 0xff).num_classes, 3);
	assert_int_equal(device_with(DEVICE_CLASS, 0xff).classes[0].class,
			 0xff);
}

static void more_classes_than_can_be_judged_are_noticed(void **state)
{
	uint8_t bytes[18 + 9 + (POLICY_MAX_CLASSES + 1) * 9] = { 0 };
	struct policy_device device = { 0 };
	struct descriptors d;

	(void)state;
	memcpy(bytes, two_configurations, 18 + 9);
	for (size_t more = 0; more <= 1; more++) {
		size_t num = POLICY_MAX_CLASSES + more;
		size_t total = 9 + num * 9;

		bytes[18 + 2] = (uint8_t)total;
		bytes[18 + 3] = (uint8_t)(total >> 8);
		for (size_t i = 0; i < num; i++) {
			uint8_t *interface = bytes + 18 + 9 + i * 9;

			interface[0] = 9;
			interface[1] = 4;
			interface[5] = 0xff;
			interface[6] = (uint8_t)i;
		}
		assert_int_equal(descriptors_parse(&d, bytes, 18 + total), 0);
		policy_describe(&device, &d);
		assert_int_equal(device.num_classes, POLICY_MAX_CLASSES);
		assert_int_equal(device.has_more_classes, more);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_operator_judges_the_set_of_classes),
		cmocka_unit_test(
			a_device_without_interfaces_has_nothing_that_is_asked_for),
		cmocka_unit_test(
			a_guarded_class_is_given_only_by_a_rule_that_names_it),
		cmocka_unit_test(
			a_rule_names_every_guarded_class_or_is_passed_over),
		cmocka_unit_test(a_hub_or_an_imported_device_is_never_exported),
		cmocka_unit_test(what_a_list_tells_is_judged_as_far_as_it_goes),
		cmocka_unit_test(
			a_hub_in_any_configuration_makes_the_device_a_hub),
		cmocka_unit_test(
			classes_of_all_configurations_and_settings_count_once),
		cmocka_unit_test(
			a_configuration_with_anothers_value_is_not_overlooked),
		cmocka_unit_test(
			the_devices_own_class_counts_unless_interfaces_have_it),
		cmocka_unit_test(more_classes_than_can_be_judged_are_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
