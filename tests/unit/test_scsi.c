/* SPDX-License-Identifier: Apache-2.0 */
/* The SCSI disk: what it says of itself, moves, refuses, and why. */
#include "gateway/scsi.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define BLOCKS 64

static struct scsi_disk disk;
static uint8_t data[BLOCKS * SCSI_BLOCK_BYTES];

static int new_image(uint64_t num_bytes)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)num_bytes), 0);
	return fd;
}

static void use_image(uint64_t num_bytes, bool is_read_only)
{
	if (disk.image_fd > 0)
		(void)close(disk.image_fd);
	assert_int_equal(scsi_disk_init(&disk, new_image(num_bytes),
					is_read_only, "0123456789AB"),
			 0);
}

static int setup(void **state)
{
	(void)state;
	use_image(sizeof(data), false);
	memset(data, 0xee, sizeof(data));
	return 0;
}

/* Begins a command given as hexadecimal digits; blanks are skipped. */
static void begin(const char *hex)
{
	uint8_t cdb[SCSI_CDB_BYTES];
	size_t length = 0;

	while (*hex != '\0') {
		char digits[3] = { hex[0], hex[1] };

		assert_true(length < sizeof(cdb));
		cdb[length++] = (uint8_t)strtoul(digits, NULL, 16);
		hex += 2;
		hex += strspn(hex, " ");
	}
	scsi_begin(&disk, cdb, length);
}

/* A command that gives data: how many bytes, or 0 if it failed. */
static size_t give(const char *hex)
{
	size_t n;

	begin(hex);
	n = (size_t)disk.left;
	assert_true(n <= sizeof(data));
	assert_true(n == 0 || disk.direction == SCSI_TO_HOST);
	assert_int_equal(scsi_data_in(&disk, data, n), n);
	return scsi_end(&disk) ? n : 0;
}

static bool take(const char *hex, size_t num_bytes)
{
	begin(hex);
	if (disk.left > 0) {
		assert_int_equal(disk.direction, SCSI_FROM_HOST);
		assert_int_equal(disk.left, num_bytes);
		assert_int_equal(scsi_data_out(&disk, data, num_bytes),
				 num_bytes);
	}
	return scsi_end(&disk);
}

/* What REQUEST SENSE says. */
static unsigned sense(void)
{
	uint8_t bytes[18];

	begin("03 00 00 00 12 00");
	assert_int_equal(disk.left, 18);
	assert_int_equal(scsi_data_in(&disk, bytes, 18), 18);
	assert_true(scsi_end(&disk));
	assert_int_equal(bytes[0], 0x70);
	return (unsigned)bytes[2] << 16 | (unsigned)bytes[12] << 8 | bytes[13];
}

static void refused(const char *hex, enum scsi_sense reason)
{
	begin(hex);
	assert_int_equal(disk.left, 0);
	assert_false(scsi_end(&disk));
	assert_int_equal(sense(), reason);
	assert_int_equal(sense(), SCSI_OK);
}

static void inquiry_says_removable_disk(void **state)
{
	(void)state;
	assert_int_equal(give("12 00 00 00 24 00"), 36);
	assert_int_equal(data[0], 0);
	assert_int_equal(data[1], 0x80);
	assert_memory_equal(data + 8, "xusbip  Virtual disk    1.0 ", 28);
	assert_int_equal(give("12 00 00 00 05 00"), 5);
	assert_int_equal(give("12 00 00 00 ff 00"), 36);
	refused("12 00 80 00 24 00", SCSI_BAD_FIELD);
}

static void vital_product_data_has_each_page_that_it_lists(void **state)
{
	uint8_t pages[5];

	(void)state;
	assert_int_equal(give("12 01 00 00 ff 00"), 9);
	memcpy(pages, data + 4, 5);
	for (size_t i = 0; i < sizeof(pages); i++) {
		char hex[32];

		(void)snprintf(hex, sizeof(hex), "12 01 %02x 00 ff 00",
			       pages[i]);
		assert_true(give(hex) > 4);
		assert_int_equal(data[1], pages[i]);
	}
	assert_int_equal(give("12 01 80 00 ff 00"), 16);
	assert_memory_equal(data + 4, "0123456789AB", 12);
	refused("12 01 b1 00 ff 00", SCSI_BAD_FIELD);
}

static void capacity_is_the_last_block(void **state)
{
	(void)state;
	assert_int_equal(give("25 00 00000000 0000 00 00"), 8);
	assert_memory_equal(data, "\0\0\0\x3f\0\0\2\0", 8);
	assert_int_equal(give("9e 10 0000000000000000 00000020 00 00"), 32);
	assert_memory_equal(data, "\0\0\0\0\0\0\0\x3f\0\0\2\0", 12);
	assert_int_equal(give("23 00 00 00 00 00 00 00 fc 00"), 12);
	assert_memory_equal(data, "\0\0\0\x08\0\0\0\x40\2\0\2\0", 12);
	refused("25 00 00000001 0000 00 00", SCSI_BAD_FIELD);
	refused("9e 11 0000000000000000 00000020 00 00", SCSI_BAD_FIELD);
}

static void capacity_above_32_bits_is_told_by_the_long_command(void **state)
{
	(void)state;
	use_image(((1ull << 32) + 2) * SCSI_BLOCK_BYTES, false);

	assert_int_equal(give("25 00 00000000 0000 00 00"), 8);
	assert_memory_equal(data, "\xff\xff\xff\xff", 4);
	assert_int_equal(give("9e 10 0000000000000000 00000020 00 00"), 32);
	assert_memory_equal(data, "\0\0\0\1\0\0\0\1", 8);
	assert_true(take("8a 00 0000000100000001 00000001 00 00", 512));
	refused("8a 00 0000000100000002 00000001 00 00", SCSI_BAD_BLOCK);
}

static void image_is_used_in_whole_blocks(void **state)
{
	int fd = new_image(511);

	(void)state;
	use_image(3 * 512 + 511, false);
	assert_int_equal(disk.num_blocks, 3);
	use_image(512, false);
	assert_int_equal(disk.num_blocks, 1);

	assert_int_equal(scsi_disk_init(&disk, fd, false, ""), -EINVAL);
	(void)close(fd);
}

static void mode_sense_tells_write_protection_and_cache(void **state)
{
	(void)state;
	assert_int_equal(give("1a 00 3f 00 c0 00"), 24);
	assert_int_equal(data[0], 23);
	assert_int_equal(data[2] & 0x80, 0);
	assert_memory_equal(data + 4, "\x08\x12\x04", 3);
	assert_int_equal(give("1a 00 48 00 c0 00"), 24);
	assert_int_equal(data[6], 0);
	assert_int_equal(give("5a 00 08 00 00 00 00 00 c0 00"), 28);
	assert_memory_equal(data, "\0\x1a", 2);
	assert_int_equal(give("1a 00 00 00 04 00"), 4);
	refused("1a 00 1c 00 c0 00", SCSI_BAD_FIELD);
	refused("1a 00 c8 00 c0 00", SCSI_CANNOT_SAVE);

	use_image(sizeof(data), true);
	assert_int_equal(give("1a 00 3f 00 c0 00"), 24);
	assert_int_equal(data[2] & 0x80, 0x80);
}

static void blocks_written_are_read_back_by_every_size_of_command(void **state)
{
	static const char *const pairs[][2] = {
		{ "0a 00 0005 02 00", "08 00 0005 02 00" },
		{ "2a 00 00000007 00 0002 00", "28 00 00000007 00 0002 00" },
		{ "aa 00 00000009 00000002 00 00",
		  "a8 00 00000009 00000002 00 00" },
		{ "8a 00 000000000000000b 00000002 00 00",
		  "88 00 000000000000000b 00000002 00 00" },
	};
	uint8_t written[1024];

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		for (size_t j = 0; j < sizeof(written); j++)
			written[j] = (uint8_t)(j * 7 + i);
		memcpy(data, written, sizeof(written));
		assert_true(take(pairs[i][0], sizeof(written)));
		memset(data, 0, sizeof(written));
		assert_int_equal(give(pairs[i][1]), sizeof(written));
		assert_memory_equal(data, written, sizeof(written));
	}
}

static void data_moves_in_pieces_of_any_size(void **state)
{
	size_t done = 0;

	(void)state;
	for (size_t i = 0; i < 1024; i++)
		data[i] = (uint8_t)(i / 3);
	begin("2a 00 00000001 00 0002 00");
	for (size_t n = 1; disk.left > 0; n += 5)
		done += scsi_data_out(&disk, data + done, n);
	assert_int_equal(done, 1024);
	assert_true(scsi_end(&disk));

	begin("28 00 00000001 00 0002 00");
	for (done = 0; disk.left > 0;)
		done += scsi_data_in(&disk, data + 1024 + done, 100);
	assert_int_equal(done, 1024);
	assert_true(scsi_end(&disk));
	assert_memory_equal(data, data + 1024, 1024);
}

static void blocks_behind_the_end_are_refused(void **state)
{
	(void)state;
	assert_int_equal(give("28 00 0000003f 00 0001 00"), 512);
	refused("28 00 0000003f 00 0002 00", SCSI_BAD_BLOCK);
	refused("28 00 00000041 00 0000 00", SCSI_BAD_BLOCK);
	refused("08 1f ffff 00 00", SCSI_BAD_BLOCK);
	refused("88 00 ffffffffffffffff ffffffff 00 00", SCSI_BAD_BLOCK);
	refused("88 00 ffffffffffffffff 00000001 00 00", SCSI_BAD_BLOCK);
	refused("8a 00 0080000000000000 00000001 00 00", SCSI_BAD_BLOCK);
	refused("a8 00 00000000 ffffffff 00 00", SCSI_BAD_BLOCK);
	refused("2f 00 00000040 00 0001 00", SCSI_BAD_BLOCK);
	refused("35 00 00000040 00 0001 00", SCSI_BAD_BLOCK);
	refused("91 00 ffffffffffffffff 00000001 00 00", SCSI_BAD_BLOCK);
}

static void zero_blocks_are_no_error(void **state)
{
	(void)state;
	assert_true(take("2a 00 00000000 00 0000 00", 0));
	begin("28 00 00000040 00 0000 00");
	assert_int_equal(disk.left, 0);
	assert_true(scsi_end(&disk));
}

static void read_of_six_bytes_takes_zero_for_256(void **state)
{
	(void)state;
	use_image((size_t)256 * SCSI_BLOCK_BYTES, false);
	begin("08 00 0000 00 00");
	assert_int_equal(disk.left, (size_t)256 * SCSI_BLOCK_BYTES);
	refused("08 00 0001 00 00", SCSI_BAD_BLOCK);
}

static void read_only_disk_refuses_what_writes(void **state)
{
	(void)state;
	use_image(sizeof(data), true);
	refused("0a 00 0005 02 00", SCSI_WRITE_PROTECTED);
	refused("2a 00 00000007 00 0002 00", SCSI_WRITE_PROTECTED);
	refused("aa 00 00000009 00000002 00 00", SCSI_WRITE_PROTECTED);
	refused("8a 00 000000000000000b 00000002 00 00", SCSI_WRITE_PROTECTED);
	refused("42 00 00 00 00 00 00 00 18 00", SCSI_WRITE_PROTECTED);
	assert_int_equal(give("28 00 00000007 00 0002 00"), 1024);
	assert_true(take("35 00 00000000 00 0000 00", 0));
}

static void unknown_and_short_commands_are_refused(void **state)
{
	(void)state;
	refused("04 00 00 00 00 00", SCSI_BAD_COMMAND);
	refused("ff 00 00 00 00 00", SCSI_BAD_COMMAND);
	refused("28 00 00 00 00 00", SCSI_BAD_FIELD);
	refused("28 20 00000000 00 0001 00", SCSI_BAD_FIELD);
	refused("2f 02 00000000 00 0001 00", SCSI_BAD_FIELD);
	refused("a0 00 03 00 00 00 00000010 00 00", SCSI_BAD_FIELD);
}

static void luns_are_one(void **state)
{
	(void)state;
	assert_int_equal(give("a0 00 00 00 00 00 00000100 00 00"), 16);
	assert_memory_equal(data, "\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0", 16);
}

static void flushing_and_verifying_succeed(void **state)
{
	(void)state;
	assert_true(take("00 00 00 00 00 00", 0));
	assert_true(take("35 00 00000000 00 0000 00", 0));
	assert_true(take("91 00 0000000000000000 00000040 00 00", 0));
	assert_true(take("2f 00 00000000 00 0040 00", 0));
	assert_true(take("2a 08 00000000 00 0001 00", 512));
}

static void ejected_disk_has_no_medium_until_it_is_loaded(void **state)
{
	(void)state;
	assert_true(take("1e 00 00 00 01 00", 0));
	refused("1b 00 00 00 02 00", SCSI_REMOVAL_PREVENTED);
	assert_true(take("1e 00 00 00 00 00", 0));
	assert_true(take("1b 00 00 00 00 00", 0));
	assert_true(take("00 00 00 00 00 00", 0));

	assert_true(take("1b 00 00 00 02 00", 0));

	refused("00 00 00 00 00 00", SCSI_NO_MEDIUM);
	refused("28 00 00000000 00 0001 00", SCSI_NO_MEDIUM);
	refused("25 00 00000000 0000 00 00", SCSI_NO_MEDIUM);
	assert_int_equal(give("12 00 00 00 24 00"), 36);

	assert_true(take("1b 00 00 00 03 00", 0));

	assert_int_equal(give("12 00 00 00 24 00"), 36);
	refused("00 00 00 00 00 00", SCSI_MEDIUM_CHANGED);
	assert_true(take("00 00 00 00 00 00", 0));
}

static void unmapped_blocks_read_as_zeros(void **state)
{
	static const uint8_t list[24] = { 0, 22, 0, 16, 0, 0, 0, 0, 0, 0,
					  0, 0,  0, 0,  0, 8, 0, 0, 0, 8 };
	struct stat before;
	struct stat after;

	(void)state;
	assert_true(disk.can_unmap);
	assert_true(take("2a 00 00000000 00 0040 00", sizeof(data)));
	assert_int_equal(fstat(disk.image_fd, &before), 0);

	memcpy(data, list, sizeof(list));
	assert_true(take("42 00 00 00 00 00 00 00 18 00", sizeof(list)));

	assert_int_equal(fstat(disk.image_fd, &after), 0);
	assert_true(after.st_blocks < before.st_blocks);
	assert_int_equal(after.st_size, before.st_size);
	assert_int_equal(give("28 00 00000008 00 0009 00"), 9 * 512);
	for (size_t i = 0; i < 4096; i++)
		assert_int_equal(data[i], 0);
	assert_int_equal(data[4096], 0xee);
}

static void
unmap_list_that_lies_is_refused_and_nothing_is_unmapped(void **state)
{
	uint8_t list[40] = { 0, 38, 0, 32 };

	(void)state;
	list[15] = 8; /* blocks 8 to 15 */
	list[19] = 8;
	list[31] = 0x3f; /* and two from the last one */
	list[35] = 2;
	assert_true(take("2a 00 00000000 00 0040 00", sizeof(data)));

	memcpy(data, list, sizeof(list));
	assert_false(take("42 00 00 00 00 00 00 00 28 00", sizeof(list)));
	assert_int_equal(sense(), SCSI_BAD_BLOCK);
	data[3] = 48;
	assert_false(take("42 00 00 00 00 00 00 00 28 00", sizeof(list)));
	assert_int_equal(sense(), SCSI_BAD_PARAMETER);
	refused("42 00 00 00 00 00 00 00 07 00", SCSI_BAD_LIST_LENGTH);
	refused("42 00 00 00 00 00 00 ff ff 00", SCSI_BAD_FIELD);
	refused("42 01 00 00 00 00 00 00 18 00", SCSI_BAD_FIELD);
	assert_true(take("42 00 00 00 00 00 00 00 00 00", 0));

	assert_int_equal(give("28 00 00000008 00 0001 00"), 512);
	assert_int_equal(data[0], 0xee);
}

static void longest_unmap_list_fits(void **state)
{
	size_t length = 8 + 16 * SCSI_MAX_UNMAP_RANGES;
	char hex[40];

	(void)state;
	memset(data, 0, length);
	data[2] = (16 * SCSI_MAX_UNMAP_RANGES) >> 8;
	(void)snprintf(hex, sizeof(hex), "42 00 00 00 00 00 00 %04zx 00",
		       length);
	assert_true(take(hex, length));
	(void)snprintf(hex, sizeof(hex), "42 00 00 00 00 00 00 %04zx 00",
		       length + 1);
	refused(hex, SCSI_BAD_FIELD);
}

static void image_that_became_shorter_is_a_read_error(void **state)
{
	(void)state;
	assert_int_equal(ftruncate(disk.image_fd, 10 * 512 + 100), 0);
	begin("28 00 00000009 00 0004 00");

	assert_int_equal(scsi_data_in(&disk, data, 2048), 612);

	assert_int_equal(disk.left, 0);
	assert_false(scsi_end(&disk));
	assert_int_equal(sense(), SCSI_READ_ERROR);
	refused("2f 00 00000000 00 0040 00", SCSI_READ_ERROR);
}

static void image_that_cannot_be_written_is_a_write_error(void **state)
{
	char path[64];
	int fd;

	(void)state;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", disk.image_fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	(void)close(disk.image_fd);
	disk.image_fd = fd;
	begin("2a 00 00000009 00 0004 00");

	assert_int_equal(scsi_data_out(&disk, data, 2048), 0);

	assert_int_equal(disk.left, 0);
	assert_false(scsi_end(&disk));
	assert_int_equal(sense(), SCSI_WRITE_ERROR);
}

static void full_file_system_is_told_as_such(void **state)
{
	int fd = open("/dev/full", O_RDWR | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	(void)close(disk.image_fd);
	disk.image_fd = fd;
	begin("2a 00 00000009 00 0001 00");

	assert_int_equal(scsi_data_out(&disk, data, 512), 0);

	assert_false(scsi_end(&disk));
	assert_int_equal(sense(), SCSI_NO_SPACE);
}

static void next_command_forgets_the_sense_of_the_last(void **state)
{
	(void)state;
	begin("ff 00 00 00 00 00");
	assert_false(scsi_end(&disk));
	assert_int_equal(give("12 00 00 00 24 00"), 36);
	assert_int_equal(sense(), SCSI_OK);
}

static void command_may_be_given_up_in_the_middle(void **state)
{
	(void)state;
	begin("2a 08 00000000 00 0002 00");
	assert_int_equal(scsi_data_out(&disk, data, 100), 100);
	assert_int_equal(give("12 00 00 00 24 00"), 36);
	assert_memory_equal(data + 8, "xusbip", 6);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, setup)
	const struct CMUnitTest tests[] = {
		TEST(inquiry_says_removable_disk),
		TEST(vital_product_data_has_each_page_that_it_lists),
		TEST(capacity_is_the_last_block),
		TEST(capacity_above_32_bits_is_told_by_the_long_command),
		TEST(image_is_used_in_whole_blocks),
		TEST(mode_sense_tells_write_protection_and_cache),
		TEST(blocks_written_are_read_back_by_every_size_of_command),
		TEST(data_moves_in_pieces_of_any_size),
		TEST(blocks_behind_the_end_are_refused),
		TEST(zero_blocks_are_no_error),
		TEST(read_of_six_bytes_takes_zero_for_256),
		TEST(read_only_disk_refuses_what_writes),
		TEST(unknown_and_short_commands_are_refused),
		TEST(luns_are_one),
		TEST(flushing_and_verifying_succeed),
		TEST(ejected_disk_has_no_medium_until_it_is_loaded),
		TEST(unmapped_blocks_read_as_zeros),
		TEST(unmap_list_that_lies_is_refused_and_nothing_is_unmapped),
		TEST(longest_unmap_list_fits),
		TEST(image_that_became_shorter_is_a_read_error),
		TEST(image_that_cannot_be_written_is_a_write_error),
		TEST(full_file_system_is_told_as_such),
		TEST(next_command_forgets_the_sense_of_the_last),
		TEST(command_may_be_given_up_in_the_middle),
	};

	return cmocka_run_group_tests_name("scsi", tests, NULL, NULL);
}
