/* SPDX-License-Identifier: Apache-2.0 */
/* The wire format, byte by byte, against bytes written out by hand. */
#include "vchan-transport/usbip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define BASE(command) \
	0, 0, 0, command, 1, 2, 3, 4, 0, 3, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2

static const uint8_t submit_bytes[USBIP_HEADER_BYTES] = {
	BASE(1),             /* what every header begins with */
	0,       4, 2, 0x40, /* transfer_flags */
	0,       1, 0, 0,    /* transfer_buffer_length */
	1,       0, 0, 2,    /* start_frame */
	0,       0, 4, 0,    /* number_of_packets */
	0,       0, 0, 8,    /* interval */
	0x80,    6, 0, 1,    0, 0, 0x12, 0,
};

static const uint8_t unlink_bytes[USBIP_HEADER_BYTES] = {
	BASE(2), 0xff, 0xff, 0xff, 0xfe,
};

static const uint8_t ret_submit_bytes[USBIP_HEADER_BYTES] = {
	BASE(3), 0xff, 0xff, 0xff, 0xe0, /* -32 */
	0,       0,    2,    0,          /* actual_length */
	1,       0,    0,    2,          /* start_frame */
	0,       0,    0,    9,          /* number_of_packets */
	0,       0,    0,    3,          /* error_count */
};

static const uint8_t ret_unlink_bytes[USBIP_HEADER_BYTES] = {
	BASE(4), 0xff, 0xff, 0xff, 0x98, /* -104 */
};

static const uint8_t *const all_headers[] = {
	submit_bytes,
	unlink_bytes,
	ret_submit_bytes,
	ret_unlink_bytes,
};

static void an_operation_is_version_code_and_status(void **state)
{
	static const uint8_t expected[] = { 1, 0x11, 0, 3, 0, 0, 0, 4 };
	uint8_t bytes[USBIP_OP_BYTES];
	struct usbip_op op;

	(void)state;
	usbip_op_encode(bytes, USBIP_REP_IMPORT, USBIP_ST_NODEV);
	assert_memory_equal(bytes, expected, sizeof(expected));

	usbip_op_decode(&op, bytes);
	assert_int_equal(op.version, 0x0111);
	assert_int_equal(op.code, USBIP_REP_IMPORT);
	assert_int_equal(op.status, USBIP_ST_NODEV);
}

static void operations_have_the_codes_of_the_stock_tools(void **state)
{
	(void)state;
	assert_int_equal(USBIP_REQ_DEVLIST, 0x8005);
	assert_int_equal(USBIP_REP_DEVLIST, 0x0005);
	assert_int_equal(USBIP_REQ_IMPORT, 0x8003);
	assert_int_equal(USBIP_REP_IMPORT, 0x0003);
}

static void super_speed_is_5_on_the_wire_and_not_4(void **state)
{
	(void)state;
	assert_int_equal(USBIP_SPEED_LOW, 1);
	assert_int_equal(USBIP_SPEED_FULL, 2);
	assert_int_equal(USBIP_SPEED_HIGH, 3);
	assert_int_equal(USBIP_SPEED_SUPER, 5);
	assert_int_equal(USBIP_SPEED_SUPER_PLUS, 6);
}

static void every_status_has_a_sentence_and_unknown_ones_too(void **state)
{
	(void)state;
	for (uint32_t status = 0; status <= 7; status++)
		assert_non_null(usbip_status_sentence(status));
	assert_non_null(usbip_status_sentence(UINT32_MAX));
	assert_string_equal(usbip_status_sentence(USBIP_ST_NODEV),
			    "no such device");
	assert_string_not_equal(usbip_status_sentence(USBIP_ST_ERROR),
				usbip_status_sentence(USBIP_ST_ERROR + 1));
}

static void a_busid_without_a_nul_is_cut_to_31_characters(void **state)
{
	uint8_t bytes[USBIP_BUSID_BYTES];
	char busid[USBIP_BUSID_BYTES];

	(void)state;
	memset(bytes, 'x', sizeof(bytes));
	memset(busid, 'y', sizeof(busid));
	usbip_busid_decode(busid, bytes);

	assert_int_equal(strnlen(busid, sizeof(busid)), 31);
}

static void a_busid_is_echoed_byte_for_byte(void **state)
{
	static const char *const names[] = { "1-1.2", "", "usb 0951:1666 #\xc3",
					     "1234567890123456789012345678901" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		uint8_t asked[USBIP_BUSID_BYTES] = { 0 };
		uint8_t answered[USBIP_BUSID_BYTES];
		char busid[USBIP_BUSID_BYTES];

		memcpy(asked, names[i], strlen(names[i]));
		usbip_busid_decode(busid, asked);
		usbip_busid_encode(answered, busid);

		assert_string_equal(busid, names[i]);
		assert_memory_equal(answered, asked, sizeof(asked));
	}
}

static void a_name_longer_than_its_field_is_cut_and_ends_with_nul(void **state)
{
	char name[64];
	uint8_t bytes[USBIP_BUSID_BYTES];

	(void)state;
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	usbip_busid_encode(bytes, name);

	assert_int_equal(bytes[USBIP_BUSID_BYTES - 2], 'n');
	assert_int_equal(bytes[USBIP_BUSID_BYTES - 1], 0);
}

static void what_lies_behind_the_end_of_a_string_does_not_pass(void **state)
{
	static const char zeros[USBIP_PATH_BYTES];
	uint8_t bytes[USBIP_DEVICE_BYTES];
	struct usbip_device device;

	(void)state;
	memset(bytes, 0xa5, sizeof(bytes));
	bytes[3] = 0;
	bytes[USBIP_PATH_BYTES] = 0;
	usbip_device_decode(&device, bytes);

	assert_memory_equal(device.path + 3, zeros, USBIP_PATH_BYTES - 3);
	assert_memory_equal(device.busid, zeros, USBIP_BUSID_BYTES);
}

static void a_device_record_has_its_fields_where_linux_has_them(void **state)
{
	static const uint8_t numbers[] = { 0, 0,    0,    1,    0, 0,
					   0, 7,    0,    0,    0, 5,
					   9, 0x51, 0x16, 0x66, 1, 0x10,
					   8, 6,    0x50, 1,    2, 3 };
	struct usbip_device device = {
		.path = "/sys/devices/usb1/1-1",
		.busid = "1-1",
		.busnum = 1,
		.devnum = 7,
		.speed = USBIP_SPEED_SUPER,
		.vendor = 0x0951,
		.product = 0x1666,
		.release = 0x0110,
		.class = 8,
		.subclass = 6,
		.protocol = 0x50,
		.configuration = 1,
		.num_configurations = 2,
		.num_interfaces = 3,
	};
	uint8_t bytes[USBIP_DEVICE_BYTES];
	struct usbip_device again;

	(void)state;
	usbip_device_encode(bytes, &device);
	usbip_device_decode(&again, bytes);

	assert_int_equal(sizeof(numbers), USBIP_DEVICE_BYTES - 288);
	assert_memory_equal(bytes, "/sys/devices/usb1/1-1", 22);
	assert_memory_equal(bytes + 256, "1-1", 4);
	assert_memory_equal(bytes + 288, numbers, sizeof(numbers));
	assert_string_equal(again.path, device.path);
	assert_string_equal(again.busid, device.busid);
	assert_int_equal(again.devnum, 7);
	assert_int_equal(again.speed, USBIP_SPEED_SUPER);
	assert_int_equal(again.product, 0x1666);
	assert_int_equal(again.release, 0x0110);
	assert_int_equal(again.num_interfaces, 3);
}

static void a_devid_is_the_bus_above_the_device(void **state)
{
	struct usbip_device device = { .busnum = 3, .devnum = 7 };

	(void)state;
	assert_int_equal(usbip_devid(&device), 0x00030007);

	device.devnum = 0x10007;
	assert_int_equal(usbip_devid(&device), 0x00030007);
}

static void an_interface_record_ends_with_a_padding_byte_of_0(void **state)
{
	static const uint8_t expected[] = { 3, 1, 2, 0 };
	struct usbip_interface interface = { 3, 1, 2 };
	uint8_t bytes[USBIP_INTERFACE_BYTES] = { 9, 9, 9, 9 };

	(void)state;
	usbip_interface_encode(bytes, &interface);
	assert_memory_equal(bytes, expected, sizeof(expected));

	bytes[3] = 0xff;
	usbip_interface_decode(&interface, bytes);
	assert_int_equal(interface.class, 3);
	assert_int_equal(interface.subclass, 1);
	assert_int_equal(interface.protocol, 2);
}

static void a_submit_is_read_field_by_field(void **state)
{
	static const uint8_t setup[] = { 0x80, 6, 0, 1, 0, 0, 0x12, 0 };
	struct usbip_header header;

	(void)state;
	usbip_header_decode(&header, submit_bytes);

	assert_int_equal(header.command, USBIP_CMD_SUBMIT);
	assert_int_equal(header.seqnum, 0x01020304);
	assert_int_equal(header.devid, 0x00030007);
	assert_int_equal(header.direction, USBIP_DIR_IN);
	assert_int_equal(header.endpoint, 2);
	assert_int_equal(header.submit.flags, 0x00040240);
	assert_int_equal(header.submit.length, 0x10000);
	assert_int_equal(header.submit.start_frame, 0x01000002);
	assert_int_equal(header.submit.num_packets, 1024);
	assert_int_equal(header.submit.interval, 8);
	assert_memory_equal(header.submit.setup, setup, sizeof(setup));
}

static void a_reply_to_a_submit_is_read_field_by_field(void **state)
{
	struct usbip_header header;

	(void)state;
	usbip_header_decode(&header, ret_submit_bytes);

	assert_int_equal(header.command, USBIP_RET_SUBMIT);
	assert_int_equal(header.ret_submit.status, -32);
	assert_int_equal(header.ret_submit.actual_length, 512);
	assert_int_equal(header.ret_submit.start_frame, 0x01000002);
	assert_int_equal(header.ret_submit.num_packets, 9);
	assert_int_equal(header.ret_submit.error_count, 3);
}

static void an_unlink_and_its_reply_are_read_field_by_field(void **state)
{
	struct usbip_header header;

	(void)state;
	usbip_header_decode(&header, unlink_bytes);
	assert_int_equal(header.command, USBIP_CMD_UNLINK);
	assert_int_equal(header.unlink_seqnum, 0xfffffffe);

	usbip_header_decode(&header, ret_unlink_bytes);
	assert_int_equal(header.command, USBIP_RET_UNLINK);
	assert_int_equal(header.unlink_status, -104);
}

static void a_header_is_48_bytes_that_come_back_as_they_were(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_headers); i++) {
		uint8_t bytes[USBIP_HEADER_BYTES];
		struct usbip_header header;

		memset(bytes, 0xa5, sizeof(bytes));
		usbip_header_decode(&header, all_headers[i]);
		usbip_header_encode(bytes, &header);

		assert_memory_equal(bytes, all_headers[i], sizeof(bytes));
	}
}

static void an_unknown_command_is_read_without_what_it_may_mean(void **state)
{
	static const uint32_t commands[] = { 0, 5, 0x80000001, UINT32_MAX };
	static const struct usbip_header zero;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		uint8_t bytes[USBIP_HEADER_BYTES];
		struct usbip_header header;

		memset(bytes, 0xa5, sizeof(bytes));
		for (int b = 0; b < 4; b++)
			bytes[b] = (uint8_t)(commands[i] >> (24 - 8 * b));
		memset(&header, 0xa5, sizeof(header));
		usbip_header_decode(&header, bytes);

		assert_int_equal(header.command, commands[i]);
		assert_int_equal(header.seqnum, 0xa5a5a5a5);
		assert_memory_equal(&header.submit, &zero.submit,
				    sizeof(zero.submit));
	}
}

static void a_packet_is_offset_length_actual_length_and_status(void **state)
{
	static const uint8_t expected[] = { 0,    0,    1,    0x88, 0, 0,
					    0,    196,  0,    0,    0, 100,
					    0xff, 0xff, 0xff, 0xee };
	struct usbip_iso_packet packet = { 392, 196, 100, -18 };
	struct usbip_iso_packet again;
	uint8_t bytes[USBIP_ISO_BYTES];

	(void)state;
	usbip_iso_encode(bytes, &packet);
	assert_memory_equal(bytes, expected, sizeof(expected));

	usbip_iso_decode(&again, bytes);
	assert_memory_equal(&again, &packet, sizeof(packet));
}

/* Encodes one of each, the structs' own padding poisoned too. */
static void encode_all(uint8_t *out, uint8_t poison)
{
	struct usbip_device device;
	struct usbip_header header;
	struct usbip_interface interface = { 1, 2, 3 };
	struct usbip_iso_packet packet = { 1, 2, 3, 4 };

	memset(&device, poison, sizeof(device));
	memcpy(device.path, "p", 2);
	memcpy(device.busid, "b", 2);
	device.busnum = device.devnum = device.speed = 1;
	device.vendor = device.product = device.release = 1;
	device.class = device.subclass = device.protocol = 1;
	device.configuration = device.num_configurations = 1;
	device.num_interfaces = 1;
	usbip_device_encode(out, &device);
	out += USBIP_DEVICE_BYTES;
	for (size_t i = 0; i < ARRAY_SIZE(all_headers); i++) {
		memset(&header, poison, sizeof(header));
		usbip_header_decode(&header, all_headers[i]);
		usbip_header_encode(out, &header);
		out += USBIP_HEADER_BYTES;
	}
	usbip_op_encode(out, USBIP_REP_DEVLIST, USBIP_ST_OK);
	out += USBIP_OP_BYTES;
	usbip_busid_encode(out, "1-1");
	out += USBIP_BUSID_BYTES;
	usbip_interface_encode(out, &interface);
	out += USBIP_INTERFACE_BYTES;
	usbip_iso_encode(out, &packet);
}

static void nothing_that_lay_in_memory_before_leaves_in_a_message(void **state)
{
	uint8_t first[USBIP_DEVICE_BYTES + 4 * USBIP_HEADER_BYTES +
		      USBIP_OP_BYTES + USBIP_BUSID_BYTES +
		      USBIP_INTERFACE_BYTES + USBIP_ISO_BYTES];
	uint8_t second[sizeof(first)];

	(void)state;
	memset(first, 0xa5, sizeof(first));
	memset(second, 0x5a, sizeof(second));
	encode_all(first, 0xa5);
	encode_all(second, 0x5a);

	assert_memory_equal(first, second, sizeof(first));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_operation_is_version_code_and_status),
		cmocka_unit_test(operations_have_the_codes_of_the_stock_tools),
		cmocka_unit_test(super_speed_is_5_on_the_wire_and_not_4),
		cmocka_unit_test(
			every_status_has_a_sentence_and_unknown_ones_too),
		cmocka_unit_test(a_busid_without_a_nul_is_cut_to_31_characters),
		cmocka_unit_test(a_busid_is_echoed_byte_for_byte),
		cmocka_unit_test(
			a_name_longer_than_its_field_is_cut_and_ends_with_nul),
		cmocka_unit_test(
			what_lies_behind_the_end_of_a_string_does_not_pass),
		cmocka_unit_test(
			a_device_record_has_its_fields_where_linux_has_them),
		cmocka_unit_test(a_devid_is_the_bus_above_the_device),
		cmocka_unit_test(
			an_interface_record_ends_with_a_padding_byte_of_0),
		cmocka_unit_test(a_submit_is_read_field_by_field),
		cmocka_unit_test(a_reply_to_a_submit_is_read_field_by_field),
		cmocka_unit_test(
			an_unlink_and_its_reply_are_read_field_by_field),
		cmocka_unit_test(
			a_header_is_48_bytes_that_come_back_as_they_were),
		cmocka_unit_test(
			an_unknown_command_is_read_without_what_it_may_mean),
		cmocka_unit_test(
			a_packet_is_offset_length_actual_length_and_status),
		cmocka_unit_test(
			nothing_that_lay_in_memory_before_leaves_in_a_message),
	};

	return cmocka_run_group_tests_name("usbip", tests, NULL, NULL);
}
