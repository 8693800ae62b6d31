/* SPDX-License-Identifier: Apache-2.0 */
/* What guests are to have, over a store in memory and a real folder. */
#include "gateway/wants.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/want_note.h"
#include "memory_store.h"

#define FIRST_DOMID 5
#define NUM_GUESTS  3

static struct wants *wants;
static char dir[] = "/tmp/test_wants_XXXXXX";

static struct {
	unsigned count;
	enum exit_status status;
	char text[512];
} told;

static void on_done(void *arg, enum exit_status status, const char *text)
{
	(void)arg;
	told.count++;
	told.status = status;
	(void)snprintf(told.text, sizeof(told.text), "%s", text);
}

static struct xen_guest guest_of(unsigned domid)
{
	struct xen_guest guest = { .domid = domid };

	(void)snprintf(guest.name, sizeof(guest.name), "u%u", domid);
	(void)snprintf(guest.uuid, sizeof(guest.uuid),
		       "11111111-2222-3333-4444-%012u", domid);
	return guest;
}

static const char *node_of(unsigned domid, unsigned number)
{
	static char path[HANDSHAKE_PATH_BYTES];

	handshake_want_path(path, 0, domid, number);
	return memory_get(path);
}

static unsigned count_nodes(unsigned domid)
{
	unsigned count = 0;

	for (unsigned i = 0; i < WANTS_MAX; i++)
		count += node_of(domid, i) != NULL;
	return count;
}

static void count_one(void *arg, const char *busid)
{
	unsigned *count = arg;

	(void)busid;
	(*count)++;
}

static unsigned count_notes(unsigned domid)
{
	unsigned count = 0;

	assert_int_equal(want_note_each(dir, guest_of(domid).uuid, count_one,
					&count),
			 0);
	return count;
}

static void come(unsigned domid)
{
	struct xen_guest guest = guest_of(domid);
	char path[HANDSHAKE_PATH_BYTES];

	handshake_name_path(path, 0, domid, "peer");
	memory_set(path, guest.uuid);
	wants_guest_came(wants, &guest);
}

static enum exit_status add(unsigned domid, const char *busid)
{
	struct xen_guest guest = guest_of(domid);
	unsigned count = told.count;

	wants_add(wants, &guest, busid, true, on_done, NULL);
	return told.count > count ? told.status : EXIT_OK;
}

static enum exit_status add_number(unsigned domid, unsigned number)
{
	char busid[USBIP_BUSID_BYTES];

	(void)snprintf(busid, sizeof(busid), "1-%u", number + 1);
	return add(domid, busid);
}

static int set_up(void **state)
{
	(void)state;
	memset(&told, 0, sizeof(told));
	memory_clear();
	(void)snprintf(dir, sizeof(dir), "%s", "/tmp/test_wants_XXXXXX");
	assert_non_null(mkdtemp(dir));
	return wants_new(NULL, dir, 0, &wants);
}

static int tear_down(void **state)
{
	char path[128];

	(void)state;
	wants_free(wants);
	for (unsigned i = 0; i < NUM_GUESTS; i++) {
		(void)snprintf(path, sizeof(path), "%s/want-%s", dir,
			       guest_of(FIRST_DOMID + i).uuid);
		(void)unlink(path);
	}
	return rmdir(dir);
}

/* Of a manager that is started after this one has ended. */
static void start_anew(void)
{
	wants_free(wants);
	assert_int_equal(wants_new(NULL, dir, 0, &wants), 0);
}

/* ------------------------------------------------------------------------- */

static void each_of_three_guests_is_to_have_thirty_devices(void **state)
{
	(void)state;
	for (unsigned i = 0; i < NUM_GUESTS; i++) {
		come(FIRST_DOMID + i);
		for (unsigned number = 0; number < 30; number++)
			assert_int_equal(add_number(FIRST_DOMID + i, number),
					 EXIT_OK);
	}

	for (unsigned i = 0; i < NUM_GUESTS; i++) {
		assert_int_equal(count_nodes(FIRST_DOMID + i), 30);
		assert_int_equal(count_notes(FIRST_DOMID + i), 30);
	}
}

static void
one_more_than_a_guest_can_have_is_refused_with_the_limit(void **state)
{
	(void)state;
	come(5);
	for (unsigned number = 0; number < WANTS_MAX; number++)
		assert_int_equal(add_number(5, number), EXIT_OK);

	assert_int_equal(add(5, "2-1"), EXIT_BUSY);

	assert_non_null(strstr(told.text, "told to take 64 devices"));
	assert_int_equal(count_notes(5), WANTS_MAX);
}

static void what_the_store_refused_stays_noted_and_is_tried_again(void **state)
{
	struct xen_guest guest = guest_of(5);

	(void)state;
	assert_int_equal(want_note_add(dir, guest.uuid, "1-1"), 0);
	assert_int_equal(want_note_add(dir, guest.uuid, "1-2"), 0);
	memory_error = -ENOSPC;
	come(5);
	memory_error = 0;
	assert_int_equal(count_nodes(5), 0);

	assert_int_equal(add(5, "1-3"), EXIT_OK);
	assert_int_equal(count_notes(5), 3);
	wants_review(wants, 5);

	assert_int_equal(count_nodes(5), 3);
	assert_int_equal(wants_remove(wants, &guest, "1-1"), 1);
	assert_int_equal(count_notes(5), 2);
}

static void what_does_not_fit_stays_noted_until_it_is_taken_back(void **state)
{
	struct xen_guest guest = guest_of(5);
	char busid[USBIP_BUSID_BYTES];

	(void)state;
	for (unsigned i = 0; i <= WANTS_MAX; i++) {
		(void)snprintf(busid, sizeof(busid), "1-%u", i + 1);
		assert_int_equal(want_note_add(dir, guest.uuid, busid), 0);
	}
	come(5);
	assert_int_equal(count_nodes(5), WANTS_MAX);

	assert_int_equal(wants_remove(wants, &guest, "1-1"), 1);

	assert_int_equal(count_notes(5), WANTS_MAX);
	assert_int_equal(wants_remove(wants, &guest, "1-65"), 1);
	assert_int_equal(count_notes(5), WANTS_MAX - 1);
	assert_int_equal(wants_remove(wants, &guest, "1-65"), 0);
}

static void what_the_store_does_not_take_is_not_noted(void **state)
{
	(void)state;
	come(5);
	memory_error = -ENOSPC;

	assert_int_equal(add(5, "1-1"), EXIT_FAILED);

	assert_non_null(strstr(told.text, "quota in xenstore"));
	assert_int_equal(count_notes(5), 0);
}

static void the_next_manager_takes_up_what_was_asked_for(void **state)
{
	char before[HANDSHAKE_WORD_BYTES + 8];

	(void)state;
	come(5);
	assert_int_equal(add(5, "1-1"), EXIT_OK);
	(void)snprintf(before, sizeof(before), "%s", node_of(5, 0));

	start_anew();
	come(5);

	assert_string_equal(node_of(5, 0), before);
	assert_int_equal(add(5, "1-1"), EXIT_BUSY);
}

static void a_file_that_is_no_note_is_left_alone(void **state)
{
	struct xen_guest guest = guest_of(5);
	char path[128];
	FILE *file;

	(void)state;
	come(5);
	(void)snprintf(path, sizeof(path), "%s/want-%s", dir, guest.uuid);
	file = fopen(path, "we");
	assert_non_null(file);
	for (unsigned i = 0; i < WANT_NOTE_BYTES; i++)
		assert_int_equal(fputc('x', file), 'x');
	assert_int_equal(fclose(file), 0);

	assert_int_equal(add(5, "1-1"), EXIT_FAILED);

	assert_int_equal(wants_remove(wants, &guest, "1-1"), -EFBIG);
	assert_int_equal(access(path, F_OK), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_of_three_guests_is_to_have_thirty_devices),
		TEST(one_more_than_a_guest_can_have_is_refused_with_the_limit),
		TEST(what_the_store_refused_stays_noted_and_is_tried_again),
		TEST(what_does_not_fit_stays_noted_until_it_is_taken_back),
		TEST(what_the_store_does_not_take_is_not_noted),
		TEST(the_next_manager_takes_up_what_was_asked_for),
		TEST(a_file_that_is_no_note_is_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
