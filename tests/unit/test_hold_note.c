/* SPDX-License-Identifier: Apache-2.0 */
/* Which guests are held, in a real folder. */
#include "gateway/hold_note.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define UUID  "11111111-2222-3333-4444-555555555555"
#define EPOCH 0x00a0000000000001u

static char above[64];
static char dir[80]; /* made by the first note */
static char gone[STATE_NOTE_UUID_BYTES];

static int set_up(void **state)
{
	(void)state;
	(void)snprintf(above, sizeof(above), "/tmp/test_hold_note.XXXXXX");
	if (!mkdtemp(above))
		return -1;
	(void)snprintf(dir, sizeof(dir), "%s/state", above);
	return 0;
}

static const char *path_of(const char *name)
{
	static char path[160];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static const char *uuid_of(unsigned number)
{
	static char uuid[STATE_NOTE_UUID_BYTES];

	(void)snprintf(uuid, sizeof(uuid), "11111111-2222-3333-4444-%012u",
		       number);
	return uuid;
}

static int tear_down(void **state)
{
	(void)state;
	(void)hold_note_remove(dir, UUID);
	for (unsigned i = 0; i <= HOLD_NOTE_MAX; i++)
		(void)hold_note_remove(dir, uuid_of(i));
	(void)rmdir(dir);
	return rmdir(above);
}

static void put(const char *text)
{
	FILE *file = fopen(path_of("hold-" UUID), "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void a_guest_is_held_from_its_note_on_until_it_is_removed(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(hold_note_read(dir, UUID), 0);
	assert_int_equal(hold_note_remove(dir, UUID), 0);

	assert_int_equal(hold_note_write(dir, UUID, EPOCH, gone), 0);

	assert_true(hold_note_read(dir, UUID) == EPOCH);
	assert_string_equal(gone, "");
	assert_int_equal(stat(path_of("hold-" UUID), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(hold_note_write(dir, UUID, EPOCH + 1, gone), 0);
	assert_true(hold_note_read(dir, UUID) == EPOCH + 1);
	assert_int_equal(hold_note_remove(dir, UUID), 0);
	assert_int_equal(hold_note_read(dir, UUID), 0);
}

static void what_is_no_uuid_has_no_note(void **state)
{
	static const char *const names[] = {
		"",
		"../state/hold-" UUID,
		UUID "0",
		"1111111122223333444455555555555x",
		"11111111-2222-3333-4444-55555555555/",
		"..................................../",
	};

	(void)state;
	assert_int_equal(hold_note_write(dir, UUID, EPOCH, gone), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_true(hold_note_write(dir, names[i], EPOCH, gone) < 0);
		assert_int_equal(hold_note_read(dir, names[i]), 0);
		assert_true(hold_note_remove(dir, names[i]) < 0);
	}
	assert_true(hold_note_read(dir, UUID) == EPOCH);
}

static void what_is_no_epoch_holds_nobody(void **state)
{
	static const char *const texts[] = {
		"",
		"\n",
		"a1\n",
		"00000000000000a1",
		"00000000000000a1\n\n",
		"00000000000000a1\n00000000000000a1\n",
		"0x000000000000a1\n",
		"-0000000000000a1\n",
		"00000000000000A1\n",
		"0000000000000000\n",
	};

	(void)state;
	assert_int_equal(hold_note_write(dir, UUID, EPOCH, gone), 0);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		put(texts[i]);
		assert_int_equal(hold_note_read(dir, UUID), 0);
	}
	put("00000000000000a1\n");
	assert_true(hold_note_read(dir, UUID) == 0xa1);
}

static void make_old(const char *uuid)
{
	const struct timespec times[] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	char name[64];

	(void)snprintf(name, sizeof(name), "hold-%s", uuid);
	assert_int_equal(utimensat(0, path_of(name), times, 0), 0);
}

static void the_oldest_note_goes_for_one_more_than_there_can_be(void **state)
{
	(void)state;
	for (unsigned i = 0; i < HOLD_NOTE_MAX; i++) {
		assert_int_equal(hold_note_write(dir, uuid_of(i), i + 1, gone),
				 0);
		assert_string_equal(gone, "");
	}
	make_old(uuid_of(700));

	/* Of one that is there already nobody has to go. */
	assert_int_equal(hold_note_write(dir, uuid_of(3), EPOCH, gone), 0);
	assert_string_equal(gone, "");
	assert_true(hold_note_read(dir, uuid_of(700)) == 701);

	assert_int_equal(hold_note_write(dir, UUID, EPOCH, gone), 0);
	assert_string_equal(gone, uuid_of(700));
	assert_int_equal(hold_note_read(dir, gone), 0);
	assert_true(hold_note_read(dir, UUID) == EPOCH);
	for (unsigned i = 0; i < HOLD_NOTE_MAX; i++)
		assert_true((hold_note_read(dir, uuid_of(i)) == 0) ==
			    (i == 700));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_guest_is_held_from_its_note_on_until_it_is_removed),
		TEST(what_is_no_uuid_has_no_note),
		TEST(what_is_no_epoch_holds_nobody),
		TEST(the_oldest_note_goes_for_one_more_than_there_can_be),
	};

	return cmocka_run_group_tests_name("hold_note", tests, NULL, NULL);
}
