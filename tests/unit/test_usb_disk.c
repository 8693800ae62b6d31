/* SPDX-License-Identifier: Apache-2.0 */
/* The memory stick: stages, halts, and what guest and command disagree about. */
#include "gateway/usb_device.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define IN          0x81
#define OUT         0x02
#define BLOCK       512ul
#define BLOCKS      128

#define PASSED      0
#define FAILED      1
#define PHASE_ERROR 2

#define READ_2      "28 00 00000004 00 0002 00"
#define WRITE_2     "2a 00 00000004 00 0002 00"
#define READY       "00 00 00 00 00 00"
#define INQUIRY     "12 00 00 00 24 00"
#define UNKNOWN     "ff 00 00 00 00 00"

static struct usb_device *disk;
static int image_fd;
static unsigned num_completed;
static uint8_t data[BLOCKS * BLOCK];

void urb_complete(struct urb *urb)
{
	(void)urb;
	num_completed++;
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + i / 251);
}

static int open_disk(bool is_high_speed)
{
	image_fd = memfd_create("image", MFD_CLOEXEC);
	assert_true(image_fd >= 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = pattern(i);
	assert_int_equal(write(image_fd, data, sizeof(data)), sizeof(data));
	memset(data, 0, sizeof(data));
	num_completed = 0;
	return usb_disk_open(NULL, image_fd, false, is_high_speed, "SN42",
			     &disk);
}

static int setup(void **state)
{
	(void)state;
	return open_disk(false);
}

static int setup_high(void **state)
{
	(void)state;
	return open_disk(true);
}

static int teardown(void **state)
{
	(void)state;
	disk->ops->close(disk);
	assert_int_equal(close(image_fd), -1);
	return 0;
}

/* Submits, and demands that it is back unless it is to wait. */
static int submit(struct urb *urb, bool is_to_wait)
{
	unsigned before = num_completed;
	int r = disk->ops->submit(disk, urb);

	if (r < 0)
		return r;
	assert_int_equal(num_completed > before, !is_to_wait);
	return is_to_wait ? 0 : urb->status;
}

static struct urb bulk(uint8_t endpoint, uint8_t *bytes, size_t length)
{
	return (struct urb){
		.type = USB_BULK,
		.endpoint = endpoint,
		.length = length,
		.data = length > 0 ? bytes : NULL,
	};
}

/* Sends or takes bytes in one URB; how many, or the URB's result. */
static int move(uint8_t endpoint, size_t length)
{
	struct urb urb = bulk(endpoint, data, length);
	int r = submit(&urb, false);

	return r < 0 ? r : (int)urb.actual_length;
}

static void put_le32(uint8_t *to, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_le32(const uint8_t *from)
{
	return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
	       (uint32_t)from[3] << 24;
}

static void fill_cbw(uint8_t cbw[31], uint8_t direction, uint32_t length,
		     const char *hex)
{
	memset(cbw, 0, 31);
	put_le32(cbw, 0x43425355);
	put_le32(cbw + 4, 0xdeadbeef);
	put_le32(cbw + 8, length);
	cbw[12] = direction & 0x80;
	while (*hex != '\0') {
		char digits[3] = { hex[0], hex[1] };

		assert_true(cbw[14] < 16);
		cbw[15 + cbw[14]++] = (uint8_t)strtoul(digits, NULL, 16);
		hex += 2;
		hex += strspn(hex, " ");
	}
}

static void command(uint8_t direction, uint32_t length, const char *hex)
{
	uint8_t cbw[31];
	struct urb urb = bulk(OUT, cbw, sizeof(cbw));

	fill_cbw(cbw, direction, length, hex);
	assert_int_equal(submit(&urb, false), 0);
	assert_int_equal(urb.actual_length, 31);
}

/* Takes the status, which must have this residue. */
static int status(uint32_t residue)
{
	uint8_t csw[13];
	struct urb urb = bulk(IN, csw, sizeof(csw));

	assert_int_equal(submit(&urb, false), 0);
	assert_int_equal(urb.actual_length, 13);
	assert_memory_equal(csw, "USBS", 4);
	assert_int_equal(get_le32(csw + 4), 0xdeadbeef);
	assert_int_equal(get_le32(csw + 8), residue);
	return csw[12];
}

static int control(uint64_t setup_be, uint8_t *bytes, size_t length)
{
	struct urb urb = { .type = USB_CONTROL, .length = length };
	int r;

	urb.data = bytes;
	for (int i = 0; i < 8; i++)
		urb.setup[i] = (uint8_t)(setup_be >> (56 - 8 * i));
	urb.endpoint = urb.setup[0] & 0x80;
	r = submit(&urb, false);
	return r < 0 ? r : (int)urb.actual_length;
}

static int bulk_only_reset(void)
{
	return control(0x21ff000000000000, NULL, 0);
}

static int clear_halt(uint8_t endpoint)
{
	return disk->ops->clear_halt(disk, endpoint);
}

static void reads_what_is_in_the_image(void **state)
{
	(void)state;
	command(IN, 1024, READ_2);
	assert_int_equal(move(IN, 1024), 1024);
	assert_int_equal(status(0), PASSED);
	for (size_t i = 0; i < 1024; i++)
		assert_int_equal(data[i], pattern(4 * BLOCK + i));
}

static void writes_go_to_the_image_and_nowhere_else(void **state)
{
	uint8_t bytes[4 * BLOCK];

	(void)state;
	memset(data, 0xaa, 1024);
	command(OUT, 1024, WRITE_2);
	assert_int_equal(move(OUT, 1024), 1024);
	assert_int_equal(status(0), PASSED);

	assert_int_equal(pread(image_fd, bytes, sizeof(bytes), 3 * BLOCK),
			 sizeof(bytes));
	assert_int_equal(bytes[BLOCK - 1], pattern(4 * BLOCK - 1));
	for (size_t i = BLOCK; i < 3 * BLOCK; i++)
		assert_int_equal(bytes[i], 0xaa);
	assert_int_equal(bytes[3 * BLOCK], pattern(6 * BLOCK));
}

static void data_stage_may_be_split_into_any_urbs(void **state)
{
	static const size_t pieces[] = { 1, 0, 512, 100, 411 };
	size_t at = 0;

	(void)state;
	command(IN, 1024, READ_2);
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(move(IN, pieces[i]), pieces[i]);
		for (size_t j = 0; j < pieces[i]; j++)
			assert_int_equal(data[j], pattern(4 * BLOCK + at + j));
		at += pieces[i];
	}
	assert_int_equal(status(0), PASSED);

	command(OUT, 1024, WRITE_2);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(move(OUT, pieces[i]), pieces[i]);
	assert_int_equal(status(0), PASSED);
}

static void urbs_may_wait_before_their_stage(void **state)
{
	uint8_t cbw[31];
	uint8_t csw[13];
	uint8_t more[512];
	struct urb first = bulk(IN, data, 512);
	struct urb second = bulk(IN, more, 512);
	struct urb third = bulk(IN, csw, 13);
	struct urb out = bulk(OUT, cbw, 31);

	(void)state;
	assert_int_equal(submit(&first, true), 0);
	assert_int_equal(submit(&second, true), 0);
	assert_int_equal(submit(&third, true), 0);
	fill_cbw(cbw, IN, 1024, READ_2);

	assert_int_equal(submit(&out, false), 0);

	assert_int_equal(num_completed, 4);
	assert_int_equal(second.actual_length, 512);
	assert_int_equal(more[511], pattern(6 * BLOCK - 1));
	assert_int_equal(third.actual_length, 13);
	assert_int_equal(csw[12], PASSED);
}

static void next_command_waits_for_the_status(void **state)
{
	uint8_t cbw[31];
	struct urb next = bulk(OUT, cbw, 31);

	(void)state;
	command(IN, 36, INQUIRY);
	fill_cbw(cbw, OUT, 0, READY);
	assert_int_equal(submit(&next, true), 0);
	assert_int_equal(move(IN, 36), 36);

	assert_int_equal(status(0), PASSED);

	assert_int_equal(next.actual_length, 31);
	assert_int_equal(status(0), PASSED);
}

/* The thirteen cases of the specification, by the guest's expectation. */

static void no_data_expected(void **state)
{
	(void)state;
	command(OUT, 0, READY); /* 1 */
	assert_int_equal(status(0), PASSED);
	command(OUT, 0, UNKNOWN);
	assert_int_equal(status(0), FAILED);
	command(IN, 0, READ_2); /* 2 */
	assert_int_equal(status(0), PHASE_ERROR);
	command(OUT, 0, WRITE_2); /* 3 */
	assert_int_equal(status(0), PHASE_ERROR);
}

static void in_expected_but_none_comes_halts(void **state)
{
	static const char *const hex[] = { READY, UNKNOWN };

	(void)state;
	for (int i = 0; i < 2; i++) { /* 4 */
		command(IN, 64, hex[i]);
		assert_int_equal(move(IN, 64), -EPIPE);
		assert_int_equal(move(IN, 13), -EPIPE);
		assert_int_equal(clear_halt(IN), 0);
		assert_int_equal(status(64), i ? FAILED : PASSED);
	}
}

static void in_expected_but_less_comes_is_short_and_halts(void **state)
{
	(void)state;
	command(IN, 192, INQUIRY); /* 5 */
	assert_int_equal(move(IN, 192), 36);
	assert_int_equal(move(IN, 13), -EPIPE);
	assert_int_equal(clear_halt(IN), 0);
	assert_int_equal(status(192 - 36), PASSED);

	command(IN, 4096, READ_2);
	assert_int_equal(move(IN, 1024), 1024);
	assert_int_equal(move(IN, 1024), -EPIPE);
	assert_int_equal(clear_halt(IN), 0);
	assert_int_equal(status(3072), PASSED);
}

static void in_expected_but_more_would_come_is_a_phase_error(void **state)
{
	(void)state;
	command(IN, 512, READ_2); /* 7 */
	assert_int_equal(move(IN, 512), -EPIPE);
	assert_int_equal(clear_halt(IN), 0);
	assert_int_equal(status(512), PHASE_ERROR);
}

static void in_expected_but_out_meant_is_a_phase_error(void **state)
{
	(void)state;
	command(IN, 1024, WRITE_2); /* 8 */
	assert_int_equal(move(IN, 1024), -EPIPE);
	assert_int_equal(clear_halt(IN), 0);
	assert_int_equal(status(1024), PHASE_ERROR);
}

static void out_expected_but_none_meant_is_dropped(void **state)
{
	(void)state;
	command(OUT, 1024, READY); /* 9 */
	assert_int_equal(move(OUT, 1000), 1000);
	assert_int_equal(move(OUT, 24), 24);
	assert_int_equal(status(1024), PASSED);
	command(OUT, 1024, UNKNOWN);
	assert_int_equal(move(OUT, 1024), 1024);
	assert_int_equal(status(1024), FAILED);
}

static void out_expected_but_in_meant_is_a_phase_error(void **state)
{
	(void)state;
	command(OUT, 1024, READ_2); /* 10 */
	assert_int_equal(move(OUT, 1024), 1024);
	assert_int_equal(status(1024), PHASE_ERROR);
}

static void out_expected_but_less_meant_leaves_a_residue(void **state)
{
	uint8_t bytes[3];

	(void)state;
	memset(data, 0xaa, 1536);
	command(OUT, 1536, WRITE_2); /* 11 */
	assert_int_equal(move(OUT, 1536), 1536);
	assert_int_equal(status(512), PASSED);
	assert_int_equal(pread(image_fd, bytes, 2, 6 * BLOCK - 1), 2);
	assert_int_equal(bytes[0], 0xaa);
	assert_int_equal(bytes[1], pattern(6 * BLOCK));
}

static void out_expected_but_more_meant_writes_nothing(void **state)
{
	uint8_t byte;

	(void)state;
	memset(data, 0xaa, 512);
	command(OUT, 512, WRITE_2); /* 13 */
	assert_int_equal(move(OUT, 512), 512);
	assert_int_equal(status(512), PHASE_ERROR);
	assert_int_equal(pread(image_fd, &byte, 1, 4 * BLOCK), 1);
	assert_int_equal(byte, pattern(4 * BLOCK));
}

static void more_data_than_announced_is_a_phase_error(void **state)
{
	(void)state;
	command(OUT, 1024, WRITE_2);
	assert_int_equal(move(OUT, 512), 512);
	assert_int_equal(move(OUT, 513), 513);
	assert_int_equal(status(512), PHASE_ERROR);
}

static void what_is_no_command_block_halts_until_bulk_only_reset(void **state)
{
	static const uint8_t spoiled[][2] = { { 0, 'X' },   { 12, 0x81 },
					      { 12, 0x40 }, { 13, 1 },
					      { 14, 0 },    { 14, 17 },
					      { 14, 255 } };
	uint8_t cbw[31];

	(void)state;
	for (size_t i = 0; i < 7; i++) {
		struct urb urb = bulk(OUT, cbw, 31);

		fill_cbw(cbw, IN, 36, INQUIRY);
		cbw[spoiled[i][0]] = spoiled[i][1];
		assert_int_equal(submit(&urb, false), 0);

		assert_int_equal(move(IN, 36), -EPIPE);
		assert_int_equal(clear_halt(IN), 0);
		assert_int_equal(clear_halt(OUT), 0);
		assert_int_equal(move(IN, 36), -EPIPE);
		assert_int_equal(move(OUT, 31), -EPIPE);

		assert_int_equal(bulk_only_reset(), 0);
		assert_int_equal(move(OUT, 31), -EPIPE);
		assert_int_equal(clear_halt(IN), 0);
		assert_int_equal(clear_halt(OUT), 0);
		command(OUT, 0, READY);
		assert_int_equal(status(0), PASSED);
	}
}

static void command_block_of_a_wrong_length_halts(void **state)
{
	static const size_t lengths[] = { 0, 1, 30, 32, 1024 };

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		fill_cbw(data, IN, 36, INQUIRY);
		assert_int_equal(move(OUT, lengths[i]), lengths[i]);
		assert_int_equal(move(OUT, 31), -EPIPE);
		assert_int_equal(disk->ops->reset(disk), 0);
	}
	command(OUT, 0, READY);
	assert_int_equal(status(0), PASSED);
}

static void reset_in_a_data_stage_begins_anew(void **state)
{
	(void)state;
	command(IN, 1024, READ_2);
	assert_int_equal(move(IN, 512), 512);
	assert_int_equal(bulk_only_reset(), 0);
	command(OUT, 1024, WRITE_2);
	assert_int_equal(disk->ops->set_configuration(disk, 1), 0);
	command(OUT, 0, READY);
	assert_int_equal(status(0), PASSED);
}

static void cancelled_urb_leaves_its_stage_to_the_next(void **state)
{
	struct urb urb = bulk(OUT, data, 512);
	struct urb waits = bulk(IN, data, 512);

	(void)state;
	assert_int_equal(submit(&waits, true), 0);
	disk->ops->cancel(disk, &waits);
	assert_int_equal(waits.status, -ECONNRESET);
	command(IN, 512, "28 00 00000000 00 0001 00");
	assert_int_equal(submit(&urb, true), 0);
	disk->ops->cancel(disk, &urb);
	assert_int_equal(move(IN, 512), 512);
	assert_int_equal(status(0), PASSED);
}

static void status_needs_thirteen_bytes(void **state)
{
	(void)state;
	command(OUT, 0, READY);
	assert_int_equal(move(IN, 12), -EOVERFLOW);
	assert_int_equal(move(IN, 512), 13);
	assert_memory_equal(data, "USBS", 4);
}

static void read_error_in_the_middle_ends_the_stage_there(void **state)
{
	(void)state;
	assert_int_equal(ftruncate(image_fd, 5 * BLOCK), 0);
	command(IN, 1024, READ_2);
	{
		struct urb urb = bulk(IN, data, 1024);

		assert_int_equal(submit(&urb, false), -EPIPE);
		assert_int_equal(urb.actual_length, 512);
	}
	assert_int_equal(clear_halt(IN), 0);
	assert_int_equal(status(512), FAILED);
	command(IN, 18, "03 00 00 00 12 00");
	assert_int_equal(move(IN, 18), 18);
	assert_int_equal(data[2], 3);
	assert_int_equal(data[12], 0x11);
	assert_int_equal(status(0), PASSED);
}

static void class_requests_are_the_two_of_bulk_only(void **state)
{
	uint8_t byte = 9;

	(void)state;
	assert_int_equal(control(0xa1fe000000000100, &byte, 1), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(control(0xa1fe000000000000, &byte, 0), -EPIPE);
	assert_int_equal(control(0xa1fe000001000100, &byte, 1), -EPIPE);
	assert_int_equal(control(0xa1fe010000000100, &byte, 1), -EPIPE);
	assert_int_equal(control(0x21ff000000000100, &byte, 1), -EPIPE);
	assert_int_equal(control(0xa1fd000000000100, &byte, 1), -EPIPE);
}

static void super_speed_has_bos_and_large_packets(void **state)
{
	struct descriptor_endpoint endpoint;
	uint8_t alternates[DESCRIPTORS_MAX_INTERFACES] = { 0 };
	uint8_t bytes[64];

	(void)state;
	assert_int_equal(disk->speed, USBIP_SPEED_SUPER);
	assert_true(descriptors_find_endpoint(&disk->descriptors, 1, alternates,
					      IN, &endpoint));
	assert_int_equal(endpoint.max_packet, 1024);
	assert_int_equal(control(0x8006000f00004000, bytes, 64), 22);
	assert_int_equal(control(0x8006000600000a00, bytes, 10), -EPIPE);
	assert_int_equal(control(0x0003300000000000, NULL, 0), 0);
	assert_int_equal(control(0x0030000000000600, bytes, 6), 6);
	assert_int_equal(control(0x8006030309040a00, bytes, 10), 10);
	assert_memory_equal(bytes, "\x0a\3S\0N\0004\0002\0", 10);
}

static void high_speed_has_qualifier_and_smaller_packets(void **state)
{
	struct descriptor_endpoint endpoint;
	uint8_t alternates[DESCRIPTORS_MAX_INTERFACES] = { 0 };
	uint8_t bytes[64];
	const uint8_t *list;

	(void)state;
	assert_int_equal(disk->speed, USBIP_SPEED_HIGH);
	assert_true(descriptors_find_endpoint(&disk->descriptors, 1, alternates,
					      OUT, &endpoint));
	assert_int_equal(endpoint.max_packet, 512);
	assert_int_equal(control(0x8006000f00004000, bytes, 64), -EPIPE);
	assert_int_equal(control(0x8006000600000a00, bytes, 10), 10);
	assert_int_equal(usb_disk_descriptors(true, &list),
			 disk->descriptors.num_bytes);
	assert_ptr_equal(list, disk->descriptors.bytes);
}

static void image_without_a_block_is_refused(void **state)
{
	int fd = memfd_create("image", MFD_CLOEXEC);
	struct usb_device *none = NULL;

	(void)state;
	assert_int_equal(usb_disk_open(NULL, fd, false, false, "", &none),
			 -EINVAL);
	assert_null(none);
	assert_int_equal(close(fd), -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define HIGH(name) cmocka_unit_test_setup_teardown(name, setup_high, teardown)
	const struct CMUnitTest tests[] = {
		TEST(reads_what_is_in_the_image),
		TEST(writes_go_to_the_image_and_nowhere_else),
		TEST(data_stage_may_be_split_into_any_urbs),
		TEST(urbs_may_wait_before_their_stage),
		TEST(next_command_waits_for_the_status),
		TEST(no_data_expected),
		TEST(in_expected_but_none_comes_halts),
		TEST(in_expected_but_less_comes_is_short_and_halts),
		TEST(in_expected_but_more_would_come_is_a_phase_error),
		TEST(in_expected_but_out_meant_is_a_phase_error),
		TEST(out_expected_but_none_meant_is_dropped),
		TEST(out_expected_but_in_meant_is_a_phase_error),
		TEST(out_expected_but_less_meant_leaves_a_residue),
		TEST(out_expected_but_more_meant_writes_nothing),
		TEST(more_data_than_announced_is_a_phase_error),
		TEST(what_is_no_command_block_halts_until_bulk_only_reset),
		TEST(command_block_of_a_wrong_length_halts),
		TEST(reset_in_a_data_stage_begins_anew),
		TEST(cancelled_urb_leaves_its_stage_to_the_next),
		TEST(status_needs_thirteen_bytes),
		TEST(read_error_in_the_middle_ends_the_stage_there),
		TEST(class_requests_are_the_two_of_bulk_only),
		TEST(super_speed_has_bos_and_large_packets),
		HIGH(high_speed_has_qualifier_and_smaller_packets),
		cmocka_unit_test(image_without_a_block_is_refused),
	};

	return cmocka_run_group_tests_name("usb_disk", tests, NULL, NULL);
}
