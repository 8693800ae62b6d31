/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of raw descriptors: one honest device, then devices that lie. Each
 * blob lies at the end of memory of its own, so that a sanitizer sees any step
 * beyond it.
 */
#include "gateway/descriptors.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define DEVICE(num_configs)                                                   \
	18, 1, 0x00, 0x03, 0xef, 2, 1, 9, 0x51, 0x09, 0x66, 0x16, 0x10, 0x01, \
		1, 2, 3, num_configs
#define CONFIG(value, total) \
	9, 2, (total)&0xff, (total) >> 8, 1, value, 0, 0x80, 50
#define INTERFACE(number, alternate, num_endpoints, class) \
	9, 4, number, alternate, num_endpoints, class, 6, 0x50, 0
#define ENDPOINT(address, attributes, max_packet, interval)              \
	7, 5, address, attributes, (max_packet)&0xff, (max_packet) >> 8, \
		interval

enum {
	DEVICE_BYTES = 18,
	CONFIG_1_BYTES = 77,
	CONFIG_5_BYTES = 25
};

/* clang-format off */
static const uint8_t honest[] = {
	DEVICE(2),
	CONFIG(1, CONFIG_1_BYTES),
	8, 11, 0, 1, 8, 6, 0x50, 0,	/* an interface association */
	INTERFACE(0, 0, 2, 8),
	ENDPOINT(0x81, 2, 512, 0),
	ENDPOINT(0x02, 2, 512, 0),
	INTERFACE(0, 1, 1, 8),
	ENDPOINT(0x81, 5, 0x1400, 1),	/* 3 packets of 1024 a microframe */
	INTERFACE(3, 0, 1, 3),
	5, 0x21, 1, 2, 3,		/* of a class */
	ENDPOINT(0x83, 3, 8, 10),
	CONFIG(5, CONFIG_5_BYTES),
	INTERFACE(1, 0, 1, 0xff),
	ENDPOINT(0x04, 2, 64, 0),
};
/* clang-format on */

static const uint8_t no_alternates[DESCRIPTORS_MAX_INTERFACES];

static uint8_t *copied;

/* What is parsed lies in `copied`, until the next call or the end. */
static struct descriptors parse_copy(const uint8_t *bytes, size_t num_bytes)
{
	struct descriptors d;

	free(copied);
	copied = malloc(num_bytes);
	assert_non_null(copied);
	memcpy(copied, bytes, num_bytes);
	assert_int_equal(descriptors_parse(&d, copied, num_bytes), 0);
	return d;
}

static int free_copied(void **state)
{
	(void)state;
	free(copied);
	return 0;
}

static unsigned count_interfaces(const struct descriptors *d, uint8_t value)
{
	struct descriptor_interface interface;
	size_t cursor = 0;
	unsigned count = 0;

	while (descriptors_next_interface(d, value, &cursor, &interface))
		count++;
	return count;
}

static bool has_endpoint(const struct descriptors *d, uint8_t value,
			 uint8_t address)
{
	struct descriptor_endpoint endpoint;

	return descriptors_find_endpoint(d, value, no_alternates, address,
					 &endpoint);
}

static void a_device_is_named_by_its_first_18_bytes(void **state)
{
	struct descriptors d = parse_copy(honest, sizeof(honest));

	(void)state;
	assert_int_equal(d.vendor, 0x0951);
	assert_int_equal(d.product, 0x1666);
	assert_int_equal(d.release, 0x0110);
	assert_int_equal(d.class, 0xef);
	assert_int_equal(d.subclass, 2);
	assert_int_equal(d.protocol, 1);
	assert_int_equal(d.num_configurations, 2);
}

static void what_is_no_device_descriptor_is_refused(void **state)
{
	static const uint8_t not_a_device[18] = { 18, 2 };
	struct descriptors d = { .vendor = 7 };
	uint8_t *large = calloc(1, DESCRIPTORS_MAX_BYTES + 1);

	(void)state;
	assert_non_null(large);
	memcpy(large, honest, DEVICE_BYTES);
	assert_int_equal(descriptors_parse(&d, honest, 0), -EINVAL);
	assert_int_equal(descriptors_parse(&d, honest, 17), -EINVAL);
	assert_int_equal(descriptors_parse(&d, not_a_device, 18), -EINVAL);
	assert_int_equal(descriptors_parse(&d, large,
					   DESCRIPTORS_MAX_BYTES + 1),
			 -EINVAL);
	assert_int_equal(d.vendor, 7);
	assert_int_equal(descriptors_parse(&d, large, DESCRIPTORS_MAX_BYTES),
			 0);
	free(large);
}

static void configurations_are_known_by_index_and_value(void **state)
{
	struct descriptors d = parse_copy(honest, sizeof(honest));
	uint8_t value = 77;

	(void)state;
	assert_true(descriptors_configuration(&d, 0, &value));
	assert_int_equal(value, 1);
	assert_true(descriptors_configuration(&d, 1, &value));
	assert_int_equal(value, 5);
	assert_false(descriptors_configuration(&d, 2, &value));
	assert_false(descriptors_configuration(&d, UINT32_MAX, &value));
	assert_int_equal(value, 5);
}

static void interfaces_are_walked_with_every_alternate_setting(void **state)
{
	static const struct {
		uint8_t number;
		uint8_t alternate;
		uint8_t class;
		size_t num_bytes;
	} rows[] = { { 0, 0, 8, 23 }, { 0, 1, 8, 16 }, { 3, 0, 3, 21 } };
	struct descriptors d = parse_copy(honest, sizeof(honest));
	struct descriptor_interface interface;
	size_t cursor = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_true(
			descriptors_next_interface(&d, 1, &cursor, &interface));
		assert_int_equal(interface.number, rows[i].number);
		assert_int_equal(interface.alternate, rows[i].alternate);
		assert_int_equal(interface.class, rows[i].class);
		assert_int_equal(interface.subclass, 6);
		assert_int_equal(interface.protocol, 0x50);
		assert_int_equal(interface.num_bytes, rows[i].num_bytes);
		assert_int_equal(interface.bytes[1], 4);
	}
	assert_false(descriptors_next_interface(&d, 1, &cursor, &interface));
	assert_false(descriptors_next_interface(&d, 1, &cursor, &interface));
}

static void a_configuration_that_is_not_there_has_nothing(void **state)
{
	struct descriptors d = parse_copy(honest, sizeof(honest));

	(void)state;
	assert_int_equal(count_interfaces(&d, 0), 0);
	assert_int_equal(count_interfaces(&d, 2), 0);
	assert_false(has_endpoint(&d, 0, 0x81));
	assert_false(has_endpoint(&d, 2, 0x81));
}

static void an_endpoint_is_that_of_the_setting_in_use(void **state)
{
	struct descriptors d = parse_copy(honest, sizeof(honest));
	uint8_t alternates[DESCRIPTORS_MAX_INTERFACES] = { 0 };
	struct descriptor_endpoint endpoint;

	(void)state;
	assert_true(
		descriptors_find_endpoint(&d, 1, alternates, 0x81, &endpoint));
	assert_int_equal(endpoint.address, 0x81);
	assert_int_equal(endpoint.type, USB_BULK);
	assert_int_equal(endpoint.max_packet, 512);
	assert_int_equal(endpoint.interface, 0);

	alternates[0] = 1;
	assert_true(
		descriptors_find_endpoint(&d, 1, alternates, 0x81, &endpoint));
	assert_int_equal(endpoint.type, USB_ISOCHRONOUS);
	assert_int_equal(endpoint.max_packet, 1024);
	assert_int_equal(endpoint.interval, 1);
	assert_false(
		descriptors_find_endpoint(&d, 1, alternates, 0x02, &endpoint));

	assert_true(
		descriptors_find_endpoint(&d, 1, alternates, 0x83, &endpoint));
	assert_int_equal(endpoint.type, USB_INTERRUPT);
	assert_int_equal(endpoint.interface, 3);
	assert_int_equal(endpoint.interval, 10);

	alternates[0] = 2;
	assert_false(
		descriptors_find_endpoint(&d, 1, alternates, 0x81, &endpoint));
}

static void an_endpoint_belongs_to_its_configuration(void **state)
{
	struct descriptors d = parse_copy(honest, sizeof(honest));

	(void)state;
	assert_true(has_endpoint(&d, 5, 0x04));
	assert_false(has_endpoint(&d, 1, 0x04));
	assert_false(has_endpoint(&d, 5, 0x81));
}

static void direction_is_part_of_an_endpoint_address(void **state)
{
	struct descriptors d = parse_copy(honest, sizeof(honest));

	(void)state;
	assert_true(has_endpoint(&d, 1, 0x81));
	assert_false(has_endpoint(&d, 1, 0x01));
	assert_true(has_endpoint(&d, 1, 0x02));
	assert_false(has_endpoint(&d, 1, 0x82));
}

static void no_address_outside_1_to_15_is_an_endpoint(void **state)
{
	static const uint8_t bytes[] = {
		DEVICE(1),
		CONFIG(1, 39),
		INTERFACE(0, 0, 3, 8),
		ENDPOINT(0x00, 2, 512, 0),
		ENDPOINT(0x80, 2, 512, 0),
		ENDPOINT(0x91, 2, 512, 0),
	};
	struct descriptors d = parse_copy(bytes, sizeof(bytes));

	(void)state;
	for (unsigned address = 0; address < 256; address++)
		assert_false(has_endpoint(&d, 1, (uint8_t)address));
}

static void
interface_numbers_beyond_the_limit_are_shown_but_not_used(void **state)
{
	static const uint8_t bytes[] = {
		DEVICE(1),
		CONFIG(1, 57),
		INTERFACE(31, 0, 1, 8),
		ENDPOINT(0x81, 2, 512, 0),
		INTERFACE(32, 0, 1, 9),
		ENDPOINT(0x82, 2, 512, 0),
		INTERFACE(255, 0, 1, 9),
		ENDPOINT(0x83, 2, 512, 0),
	};
	struct descriptors d = parse_copy(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(count_interfaces(&d, 1), 3);
	assert_true(has_endpoint(&d, 1, 0x81));
	assert_false(has_endpoint(&d, 1, 0x82));
	assert_false(has_endpoint(&d, 1, 0x83));
}

static void counts_in_the_bytes_are_not_believed(void **state)
{
	static const uint8_t bytes[] = {
		DEVICE(255),
		9,
		2,
		34,
		0,
		200,
		1,
		0,
		0x80,
		50,
		INTERFACE(0, 0, 30, 8),
		INTERFACE(1, 0, 0, 8),
		ENDPOINT(0x81, 2, 512, 0),
	};
	struct descriptors d = parse_copy(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(d.num_configurations, 1);
	assert_int_equal(count_interfaces(&d, 1), 2);
	assert_true(has_endpoint(&d, 1, 0x81));
	assert_false(has_endpoint(&d, 1, 0x82));
}

static void more_configurations_than_announced_are_not_there(void **state)
{
	uint8_t bytes[sizeof(honest)];
	struct descriptors d;
	uint8_t value;

	(void)state;
	memcpy(bytes, honest, sizeof(honest));
	bytes[17] = 1;
	d = parse_copy(bytes, sizeof(bytes));
	assert_int_equal(d.num_configurations, 1);
	assert_false(descriptors_configuration(&d, 1, &value));
	assert_false(has_endpoint(&d, 5, 0x04));

	bytes[17] = 0;
	d = parse_copy(bytes, sizeof(bytes));
	assert_int_equal(d.num_configurations, 0);
	assert_int_equal(count_interfaces(&d, 1), 0);
}

static void
a_configuration_that_claims_too_much_ends_with_the_bytes(void **state)
{
	static const uint8_t bytes[] = {
		DEVICE(2),
		CONFIG(1, 0xffff),
		INTERFACE(0, 0, 1, 8),
		ENDPOINT(0x81, 2, 512, 0),
	};
	struct descriptors d = parse_copy(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(d.num_configurations, 1);
	assert_true(has_endpoint(&d, 1, 0x81));
}

static void a_configuration_that_claims_too_little_is_none(void **state)
{
	static const uint8_t bytes[] = { DEVICE(1), CONFIG(1, 8) };
	static const uint8_t short_head[] = { DEVICE(1), 8, 2, 9, 0,
					      1,         1, 0, 0, 0 };
	struct descriptors d = parse_copy(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(d.num_configurations, 0);

	d = parse_copy(short_head, sizeof(short_head));
	assert_int_equal(d.num_configurations, 0);
}

static void a_hole_that_usbfs_left_ends_a_configuration_only(void **state)
{
	static const uint8_t bytes[] = {
		DEVICE(2),
		CONFIG(1, 30),
		INTERFACE(0, 0, 1, 8),
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		CONFIG(2, 18),
		INTERFACE(7, 0, 0, 8),
	};
	struct descriptors d = parse_copy(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(d.num_configurations, 2);
	assert_int_equal(count_interfaces(&d, 1), 1);
	assert_int_equal(count_interfaces(&d, 2), 1);
}

static void a_length_of_0_or_1_ends_the_walk(void **state)
{
	static const uint8_t lengths[] = { 0, 1 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		const uint8_t bytes[] = {
			DEVICE(1),
			CONFIG(1, 36),
			lengths[i],
			4,
			INTERFACE(0, 0, 1, 8),
			ENDPOINT(0x81, 2, 512, 0),
			INTERFACE(1, 0, 0, 8),
		};
		struct descriptors d = parse_copy(bytes, sizeof(bytes));

		assert_int_equal(count_interfaces(&d, 1), 0);
		assert_false(has_endpoint(&d, 1, 0x81));
	}
}

static void a_descriptor_too_short_for_its_kind_is_not_used(void **state)
{
	static const uint8_t bytes[] = {
		DEVICE(1),
		CONFIG(1, 46),
		INTERFACE(0, 0, 1, 8),
		6,
		5,
		0x81,
		2,
		0,
		2,
		8,
		4,
		1,
		0,
		1,
		8,
		6,
		0x50,
		ENDPOINT(0x82, 2, 512, 0),
		7,
		4,
		2,
		0,
		1,
		8,
		6,
	};
	struct descriptors d = parse_copy(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(count_interfaces(&d, 1), 1);
	assert_false(has_endpoint(&d, 1, 0x81));
	assert_false(has_endpoint(&d, 1, 0x82));
}

/* Both crashed libusb in 2026: endpoints that are counted but not there. */
static void known_hostile_configurations_are_walked_in_bounds(void **state)
{
	static const uint8_t twenty[] = {
		DEVICE(1), CONFIG(1, 20), INTERFACE(0, 0, 1, 8), 2, 0x0b,
	};
	static const uint8_t nine[] = {
		DEVICE(1), CONFIG(1, 17), 8, 0x0b, 0, 1, 8, 6, 0x50, 0,
	};
	static const uint8_t cut[] = { DEVICE(1), CONFIG(1, 10), 8 };
	struct descriptors d = parse_copy(twenty, sizeof(twenty));

	(void)state;
	assert_int_equal(count_interfaces(&d, 1), 1);
	assert_false(has_endpoint(&d, 1, 0x81));

	d = parse_copy(nine, sizeof(nine));
	assert_int_equal(count_interfaces(&d, 1), 0);

	d = parse_copy(cut, sizeof(cut));
	assert_int_equal(count_interfaces(&d, 1), 0);
}

static void values_of_0_are_handed_on_as_they_are(void **state)
{
	static const uint8_t bytes[] = {
		DEVICE(1),
		CONFIG(0, 25),
		INTERFACE(0, 0, 1, 8),
		ENDPOINT(0x81, 0, 0, 0),
	};
	struct descriptors d = parse_copy(bytes, sizeof(bytes));
	struct descriptor_endpoint endpoint;

	(void)state;
	assert_true(descriptors_find_endpoint(&d, 0, no_alternates, 0x81,
					      &endpoint));
	assert_int_equal(endpoint.type, USB_CONTROL);
	assert_int_equal(endpoint.max_packet, 0);
	assert_int_equal(endpoint.interval, 0);
}

static void every_prefix_of_a_device_is_walked_in_bounds(void **state)
{
	(void)state;
	for (size_t length = DEVICE_BYTES; length <= sizeof(honest); length++) {
		struct descriptors d = parse_copy(honest, length);

		for (unsigned value = 0; value < 8; value++) {
			(void)count_interfaces(&d, (uint8_t)value);
			(void)has_endpoint(&d, (uint8_t)value, 0x81);
		}
		assert_in_range(d.num_configurations, 0, 2);
	}
}

static void every_byte_may_be_anything_and_walks_still_end(void **state)
{
	uint8_t bytes[sizeof(honest)];

	(void)state;
	for (size_t at = 0; at < sizeof(honest); at++) {
		for (unsigned value = 0; value < 256; value++) {
			struct descriptors d;

			memcpy(bytes, honest, sizeof(honest));
			bytes[at] = (uint8_t)value;
			if (descriptors_parse(&d, bytes, sizeof(bytes)) < 0)
				continue;
			assert_in_range(count_interfaces(&d, 1), 0, 13);
			(void)has_endpoint(&d, 5, 0x04);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_is_named_by_its_first_18_bytes),
		cmocka_unit_test(what_is_no_device_descriptor_is_refused),
		cmocka_unit_test(configurations_are_known_by_index_and_value),
		cmocka_unit_test(
			interfaces_are_walked_with_every_alternate_setting),
		cmocka_unit_test(a_configuration_that_is_not_there_has_nothing),
		cmocka_unit_test(an_endpoint_is_that_of_the_setting_in_use),
		cmocka_unit_test(an_endpoint_belongs_to_its_configuration),
		cmocka_unit_test(direction_is_part_of_an_endpoint_address),
		cmocka_unit_test(no_address_outside_1_to_15_is_an_endpoint),
		cmocka_unit_test(
			interface_numbers_beyond_the_limit_are_shown_but_not_used),
		cmocka_unit_test(counts_in_the_bytes_are_not_believed),
		cmocka_unit_test(
			more_configurations_than_announced_are_not_there),
		cmocka_unit_test(
			a_configuration_that_claims_too_much_ends_with_the_bytes),
		cmocka_unit_test(
			a_configuration_that_claims_too_little_is_none),
		cmocka_unit_test(
			a_hole_that_usbfs_left_ends_a_configuration_only),
		cmocka_unit_test(a_length_of_0_or_1_ends_the_walk),
		cmocka_unit_test(
			a_descriptor_too_short_for_its_kind_is_not_used),
		cmocka_unit_test(
			known_hostile_configurations_are_walked_in_bounds),
		cmocka_unit_test(values_of_0_are_handed_on_as_they_are),
		cmocka_unit_test(every_prefix_of_a_device_is_walked_in_bounds),
		cmocka_unit_test(
			every_byte_may_be_anything_and_walks_still_end),
	};

	return cmocka_run_group_tests_name("descriptors", tests, NULL,
					   free_copied);
}
