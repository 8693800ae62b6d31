/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of the operations against answers that were written
 * before the question came: a socketpair holds them.
 */
#include "vchan-transport/import.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vchan-transport/channel.h"

#define LIMIT_MS 5000u

struct fixture {
	struct import import;
	int gateway_fd;
	uint8_t answer[4096];
	size_t used;
};

static struct usbip_device sample(void)
{
	return (struct usbip_device){ .path = "/sys/devices/usb1/1-1",
				      .busid = "1-1",
				      .busnum = 1,
				      .devnum = 2,
				      .speed = USBIP_SPEED_SUPER,
				      .vendor = 0x46f4,
				      .product = 1,
				      .num_configurations = 1,
				      .num_interfaces = 1 };
}

static int connect_pair(struct fixture *f)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		return -1;
	f->gateway_fd = pair[1];
	f->used = 0;
	f->import.deadline_ms = clock_ms() + LIMIT_MS;
	return channel_socket_new(pair[0], &f->import.channel);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	f->import.gateway = "unix:/test";
	*state = f;
	return connect_pair(f);
}

static void disconnect(struct fixture *f)
{
	import_close(&f->import);
	(void)close(f->gateway_fd);
}

static int tear_down(void **state)
{
	disconnect(*state);
	free(*state);
	return 0;
}

/* A new conversation for the next row of a table. */
static void reconnect(struct fixture *f)
{
	disconnect(f);
	assert_int_equal(connect_pair(f), 0);
}

static void put_op(struct fixture *f, uint16_t code, enum usbip_status status)
{
	usbip_op_encode(f->answer + f->used, code, status);
	f->used += USBIP_OP_BYTES;
}

static void put_count(struct fixture *f, uint32_t count)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		f->answer[f->used++] = (uint8_t)(count >> shift);
}

static void put_device(struct fixture *f, const struct usbip_device *device)
{
	usbip_device_encode(f->answer + f->used, device);
	f->used += USBIP_DEVICE_BYTES;
}

static void put_interface(struct fixture *f, uint8_t class)
{
	const struct usbip_interface interface = { .class = class };

	usbip_interface_encode(f->answer + f->used, &interface);
	f->used += USBIP_INTERFACE_BYTES;
}

/* Sends the answer and nothing after it. */
static void send_answer(struct fixture *f)
{
	assert_int_equal(write(f->gateway_fd, f->answer, f->used), f->used);
	assert_int_equal(shutdown(f->gateway_fd, SHUT_WR), 0);
}

static enum exit_status list(struct fixture *f, size_t *ret_count)
{
	struct import_entry *entries = NULL;
	enum exit_status status;

	send_answer(f);
	status = import_list(&f->import, &entries, ret_count);
	free(entries);
	return status;
}

static enum exit_status take(struct fixture *f, struct usbip_device *ret_device)
{
	send_answer(f);
	return import_take(&f->import, "1-1", ret_device);
}

/* Takes a device that is described in that way. */
static enum exit_status take_as(struct fixture *f,
				const struct usbip_device *device)
{
	struct usbip_device taken;

	put_op(f, USBIP_REP_IMPORT, USBIP_ST_OK);
	put_device(f, device);
	return take(f, &taken);
}

static void a_list_gives_devices_with_their_interfaces(void **state)
{
	struct fixture *f = *state;
	struct usbip_device device = sample();
	struct import_entry *entries;
	size_t count;

	put_op(f, USBIP_REP_DEVLIST, USBIP_ST_OK);
	put_count(f, 2);
	device.num_interfaces = 2;
	put_device(f, &device);
	put_interface(f, 3);
	put_interface(f, 8);
	device = sample();
	put_device(f, &device);
	put_interface(f, 9);
	send_answer(f);

	assert_int_equal(import_list(&f->import, &entries, &count), EXIT_OK);

	assert_int_equal(count, 2);
	assert_string_equal(entries[0].device.busid, "1-1");
	assert_int_equal(entries[0].interfaces[1].class, 8);
	assert_int_equal(entries[1].interfaces[0].class, 9);
	free(entries);
}

static void the_question_is_the_stock_one(void **state)
{
	struct fixture *f = *state;
	struct usbip_device device = sample();
	uint8_t asked[64] = { 0 };
	struct usbip_op op;

	assert_int_equal(take_as(f, &device), EXIT_OK);

	assert_int_equal(recv(f->gateway_fd, asked, sizeof(asked), 0), 40);
	usbip_op_decode(&op, asked);
	assert_int_equal(op.version, 0x0111);
	assert_int_equal(op.code, 0x8003);
	assert_int_equal(op.status, 0);
	assert_string_equal((char *)asked + USBIP_OP_BYTES, "1-1");
}

static void an_empty_list_is_a_list(void **state)
{
	struct fixture *f = *state;
	size_t count = 7;

	put_op(f, USBIP_REP_DEVLIST, USBIP_ST_OK);
	put_count(f, 0);

	assert_int_equal(list(f, &count), EXIT_OK);
	assert_int_equal(count, 0);
}

static void a_list_that_is_too_long_is_refused_before_it_is_read(void **state)
{
	struct fixture *f = *state;
	size_t count;

	put_op(f, USBIP_REP_DEVLIST, USBIP_ST_OK);
	put_count(f, USBIP_MAX_DEVICES + 1);

	assert_int_equal(list(f, &count), EXIT_PROTOCOL);
	assert_non_null(strstr(f->import.failure.text, "too many devices"));
}

static void a_list_shorter_than_it_says_is_refused(void **state)
{
	struct fixture *f = *state;
	struct usbip_device device = sample();
	size_t count;

	put_op(f, USBIP_REP_DEVLIST, USBIP_ST_OK);
	put_count(f, USBIP_MAX_DEVICES);
	put_device(f, &device);

	assert_int_equal(list(f, &count), EXIT_PROTOCOL);
}

static void more_interfaces_than_any_device_has_are_refused(void **state)
{
	struct fixture *f = *state;
	struct usbip_device device = sample();
	size_t count;

	device.num_interfaces = USBIP_MAX_INTERFACES + 1;
	put_op(f, USBIP_REP_DEVLIST, USBIP_ST_OK);
	put_count(f, 1);
	put_device(f, &device);

	assert_int_equal(list(f, &count), EXIT_PROTOCOL);
}

static void another_version_is_refused(void **state)
{
	struct fixture *f = *state;
	size_t count;

	put_op(f, USBIP_REP_DEVLIST, USBIP_ST_OK);
	f->answer[1] = 0x06;

	assert_int_equal(list(f, &count), EXIT_PROTOCOL);
	assert_non_null(strstr(f->import.failure.text, "version"));
}

static void an_answer_to_another_question_is_refused(void **state)
{
	struct fixture *f = *state;
	size_t count;

	put_op(f, USBIP_REP_IMPORT, USBIP_ST_OK);

	assert_int_equal(list(f, &count), EXIT_PROTOCOL);
}

static void an_end_without_an_answer_is_told(void **state)
{
	struct fixture *f = *state;
	size_t count;

	assert_int_equal(list(f, &count), EXIT_PROTOCOL);
	assert_non_null(strstr(f->import.failure.text, "ended"));
}

static void silence_has_a_limit(void **state)
{
	struct fixture *f = *state;
	struct import_entry *entries;
	size_t count;

	f->import.deadline_ms = clock_ms() + 20;

	assert_int_equal(import_list(&f->import, &entries, &count),
			 EXIT_TIMEOUT);
}

static void a_device_is_taken_as_described(void **state)
{
	struct fixture *f = *state;
	struct usbip_device device = sample();
	struct usbip_device taken;

	put_op(f, USBIP_REP_IMPORT, USBIP_ST_OK);
	put_device(f, &device);

	assert_int_equal(take(f, &taken), EXIT_OK);
	assert_string_equal(taken.busid, "1-1");
	assert_int_equal(usbip_devid(&taken), 0x10002);
	assert_int_equal(taken.speed, USBIP_SPEED_SUPER);
}

static void bytes_after_the_reply_stay_in_the_channel(void **state)
{
	struct fixture *f = *state;
	struct usbip_device device = sample();
	struct usbip_device taken;
	uint8_t next[4];

	put_op(f, USBIP_REP_IMPORT, USBIP_ST_OK);
	put_device(f, &device);
	memcpy(f->answer + f->used, "next", 4);
	f->used += 4;

	assert_int_equal(take(f, &taken), EXIT_OK);
	assert_int_equal(channel_read_all(f->import.channel, next, 4,
					  f->import.deadline_ms),
			 0);
	assert_memory_equal(next, "next", 4);
}

static void each_refusal_has_its_exit_status(void **state)
{
	static const struct {
		enum usbip_status refusal;
		enum exit_status status;
	} rows[] = {
		{ USBIP_ST_NA, EXIT_NOT_ALLOWED },
		{ USBIP_ST_DEV_BUSY, EXIT_BUSY },
		{ USBIP_ST_DEV_ERR, EXIT_FAILED },
		{ USBIP_ST_NODEV, EXIT_NO_DEVICE },
		{ USBIP_ST_ERROR, EXIT_FAILED },
		{ (enum usbip_status)6, EXIT_PROTOCOL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fixture *f = *state;
		struct usbip_device taken;

		put_op(f, USBIP_REP_IMPORT, rows[i].refusal);
		assert_int_equal(take(f, &taken), rows[i].status);
		assert_int_equal(f->import.failure.status, rows[i].status);
		reconnect(*state);
	}
}

static void another_device_than_asked_for_is_refused(void **state)
{
	struct usbip_device device = sample();

	memcpy(device.busid, "1-10", 5);
	assert_int_equal(take_as(*state, &device), EXIT_PROTOCOL);
}

static void a_device_of_no_known_speed_is_refused(void **state)
{
	static const uint32_t speeds[] = { 0, 4, 7, UINT32_MAX };

	for (size_t i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++) {
		struct usbip_device device = sample();

		device.speed = speeds[i];
		assert_int_equal(take_as(*state, &device), EXIT_PROTOCOL);
		reconnect(*state);
	}
}

static void a_hub_is_refused(void **state)
{
	struct usbip_device device = sample();

	device.class = 9;
	assert_int_equal(take_as(*state, &device), EXIT_PROTOCOL);
}

static void a_device_number_that_cannot_be_is_refused(void **state)
{
	static const uint32_t numbers[][2] = {
		{ 0, 0 },
		{ 0x10000, 1 },
		{ 1, 0x10001 },
		{ UINT32_MAX, UINT32_MAX },
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct usbip_device device = sample();

		device.busnum = numbers[i][0];
		device.devnum = numbers[i][1];
		assert_int_equal(take_as(*state, &device), EXIT_PROTOCOL);
		reconnect(*state);
	}
}

static void bus_ids_are_short_and_printable(void **state)
{
	(void)state;
	assert_true(import_is_busid("1-1.2"));
	assert_true(import_is_busid("1234567890123456789012345678901"));
	assert_false(import_is_busid("12345678901234567890123456789012"));
	assert_false(import_is_busid(""));
	assert_false(import_is_busid("1 1"));
	assert_false(import_is_busid("1-1\n"));
	assert_false(import_is_busid("\x1b[2J"));
}

#define connected(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		connected(a_list_gives_devices_with_their_interfaces),
		connected(the_question_is_the_stock_one),
		connected(an_empty_list_is_a_list),
		connected(a_list_that_is_too_long_is_refused_before_it_is_read),
		connected(a_list_shorter_than_it_says_is_refused),
		connected(more_interfaces_than_any_device_has_are_refused),
		connected(another_version_is_refused),
		connected(an_answer_to_another_question_is_refused),
		connected(an_end_without_an_answer_is_told),
		connected(silence_has_a_limit),
		connected(a_device_is_taken_as_described),
		connected(bytes_after_the_reply_stay_in_the_channel),
		connected(each_refusal_has_its_exit_status),
		connected(another_device_than_asked_for_is_refused),
		connected(a_device_of_no_known_speed_is_refused),
		connected(a_hub_is_refused),
		connected(a_device_number_that_cannot_be_is_refused),
		cmocka_unit_test(bus_ids_are_short_and_printable),
	};

	return cmocka_run_group_tests_name("import", tests, NULL, NULL);
}
