/* SPDX-License-Identifier: Apache-2.0 */
/* Which control requests are special, and what becomes of those that are. */
#include "gateway/control.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/fake/fake_usb_device.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

struct row {
	uint8_t setup[8];
	enum control_kind kind;
	int result;
	const char *journal; /* what the device was asked for */
};

static const struct row rows[] = {
	/* CLEAR_FEATURE(ENDPOINT_HALT), of an endpoint alone */
	{ { 0x02, 1, 0, 0, 0x81 }, CONTROL_CLEAR_HALT, 0, "clear_halt 81, " },
	{ { 0x02, 1, 0, 0, 0x0f }, CONTROL_CLEAR_HALT, 0, "clear_halt 0f, " },
	/* Endpoint 0 cannot stay halted. */
	{ { 0x02, 1, 0, 0, 0x00 }, CONTROL_CLEAR_HALT, 0, "" },
	{ { 0x02, 1, 0, 0, 0x80 }, CONTROL_CLEAR_HALT, 0, "" },
	{ { 0x02, 1, 1, 0, 0x81 }, CONTROL_RAW, -EINVAL, "" },
	{ { 0x02, 3, 0, 0, 0x81 }, CONTROL_RAW, -EINVAL, "" },
	{ { 0x00, 1, 0, 0, 0x81 }, CONTROL_RAW, -EINVAL, "" },
	{ { 0x82, 1, 0, 0, 0x81 }, CONTROL_RAW, -EINVAL, "" },
	/* SET_INTERFACE: wIndex is a number, not an index */
	{ { 0x01, 11, 2, 0, 1 },
	  CONTROL_SET_INTERFACE,
	  0,
	  "set_interface 1 2, " },
	{ { 0x01, 11, 0xff, 0, 31 },
	  CONTROL_SET_INTERFACE,
	  0,
	  "set_interface 31 255, " },
	{ { 0x01, 11, 0, 0, 32 }, CONTROL_SET_INTERFACE, -EPIPE, "" },
	{ { 0x01, 11, 0, 0, 0, 1 }, CONTROL_SET_INTERFACE, -EPIPE, "" },
	{ { 0x01, 11, 0, 1, 1 }, CONTROL_SET_INTERFACE, -EPIPE, "" },
	{ { 0x21, 11, 2, 0, 1 }, CONTROL_RAW, -EINVAL, "" },
	{ { 0x81, 10, 0, 0, 1 }, CONTROL_RAW, -EINVAL, "" },
	/* SET_CONFIGURATION */
	{ { 0x00, 9, 1 },
	  CONTROL_SET_CONFIGURATION,
	  0,
	  "set_configuration 1, " },
	{ { 0x00, 9, 0 },
	  CONTROL_SET_CONFIGURATION,
	  0,
	  "set_configuration 0, " },
	{ { 0x80, 8 }, CONTROL_RAW, -EINVAL, "" },
	{ { 0x40, 9, 1 }, CONTROL_RAW, -EINVAL, "" },
	/* SET_FEATURE(PORT_RESET), to a port that only such clients see */
	{ { 0x23, 3, 4, 0, 1 }, CONTROL_RESET, 0, "reset, " },
	{ { 0x23, 3, 8, 0, 1 }, CONTROL_RAW, -EINVAL, "" },
	{ { 0x23, 1, 4, 0, 1 }, CONTROL_RAW, -EINVAL, "" },
	{ { 0x20, 3, 4, 0, 1 }, CONTROL_RAW, -EINVAL, "" },
	/* SET_ADDRESS never leaves */
	{ { 0x00, 5, 7 }, CONTROL_SET_ADDRESS, 0, "" },
	{ { 0x80, 5, 7 }, CONTROL_RAW, -EINVAL, "" },
	/* GET_DESCRIPTOR, a class and a vendor request */
	{ { 0x80, 6, 0, 1, 0, 0, 18 }, CONTROL_RAW, -EINVAL, "" },
	{ { 0xa1, 0xfe, 0, 0, 0, 0, 1 }, CONTROL_RAW, -EINVAL, "" },
	{ { 0x40, 0x5b, 0, 0, 0, 0, 1 }, CONTROL_RAW, -EINVAL, "" },
};

static void exactly_the_special_requests_are_special(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(control_classify(rows[i].setup), rows[i].kind);
}

static void each_is_carried_out_once_by_its_own_operation(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fake_usb_device f;

		fake_usb_device_init(&f);
		assert_int_equal(control_apply(&f.base, rows[i].setup),
				 rows[i].result);
		assert_string_equal(f.journal, rows[i].journal);
	}
}

static void an_operation_that_fails_says_so(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fake_usb_device f;

		fake_usb_device_init(&f);
		f.request_error = -ENODEV;
		assert_int_equal(control_apply(&f.base, rows[i].setup),
				 rows[i].journal[0] != '\0' ? -ENODEV
							    : rows[i].result);
	}
}

static void fields_of_a_setup_packet_are_little_endian(void **state)
{
	static const uint8_t setup[8] = { 0x80, 6,    0x34, 0x12,
					  0x78, 0x56, 0xbc, 0x9a };

	(void)state;
	assert_int_equal(control_value(setup), 0x1234);
	assert_int_equal(control_index(setup), 0x5678);
	assert_int_equal(control_length(setup), 0x9abc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exactly_the_special_requests_are_special),
		cmocka_unit_test(each_is_carried_out_once_by_its_own_operation),
		cmocka_unit_test(an_operation_that_fails_says_so),
		cmocka_unit_test(fields_of_a_setup_packet_are_little_endian),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
