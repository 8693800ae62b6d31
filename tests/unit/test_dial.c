/* SPDX-License-Identifier: Apache-2.0 */
/* What a dialer tells its manager, and what the manager makes of nonsense. */
#include "gateway/dial.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/dial_take.h"

struct fixture {
	int fds[2]; /* the dialer's and the manager's */
	struct dial_packet sent;
	struct dial_packet got;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	return f ? socketpair(AF_UNIX, SOCK_SEQPACKET, 0, f->fds) : -1;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)close(f->fds[0]);
	(void)close(f->fds[1]);
	free(f);
	return 0;
}

static int pass(struct fixture *f)
{
	assert_int_equal(dial_send(f->fds[0], &f->sent), 0);
	return dial_receive(f->fds[1], &f->got);
}

/* ---- packets ---- */

static void a_report_arrives_with_as_many_descriptors_as_it_says(void **state)
{
	struct fixture *f = *state;

	f->sent.report.type = DIAL_TAKEN;
	f->sent.report.num_descriptor_bytes = DIAL_DESCRIPTOR_BYTES;
	memset(f->sent.descriptors, 7, DIAL_DESCRIPTOR_BYTES);
	assert_int_equal(pass(f), 1);
	assert_memory_equal(&f->got, &f->sent, sizeof(f->sent));

	f->sent.report.num_descriptor_bytes = 18;
	assert_int_equal(pass(f), 1);
	assert_int_equal(f->got.report.num_descriptor_bytes, 18);
}

static void a_report_that_breaks_the_rules_is_none(void **state)
{
	struct fixture *f = *state;
	struct dial_report *r = &f->sent.report;

	*r = (struct dial_report){ .type = 0 };
	assert_int_equal(pass(f), -EBADMSG);
	*r = (struct dial_report){ .type = DIAL_FAILED + 1 };
	assert_int_equal(pass(f), -EBADMSG);
	*r = (struct dial_report){ .type = DIAL_FAILED, .status = EXIT_OK };
	assert_int_equal(pass(f), -EBADMSG);
	*r = (struct dial_report){ .type = DIAL_FAILED, .status = 99 };
	assert_int_equal(pass(f), -EBADMSG);
	*r = (struct dial_report){ .type = DIAL_TAKEN,
				   .num_descriptor_bytes = 17 };
	assert_int_equal(pass(f), -EBADMSG);
	*r = (struct dial_report){ .type = DIAL_END,
				   .num_descriptor_bytes = 1 };
	assert_int_equal(pass(f), -EBADMSG);
	*r = (struct dial_report){ .type = DIAL_DEVICE,
				   .device.num_interfaces =
					   USBIP_MAX_INTERFACES + 1 };
	assert_int_equal(pass(f), -EBADMSG);
	*r = (struct dial_report){ .type = DIAL_DEVICE };
	memset(r->device.busid, 'x', sizeof(r->device.busid));
	assert_int_equal(pass(f), -EBADMSG);
	*r = (struct dial_report){ .type = DIAL_TAKEN,
				   .num_descriptor_bytes = 18 };
	memset(r->serial, 'x', sizeof(r->serial));
	assert_int_equal(pass(f), -EBADMSG);
}

static void a_packet_of_another_size_is_none(void **state)
{
	struct fixture *f = *state;
	struct dial_report *r = &f->sent.report;

	*r = (struct dial_report){ .type = DIAL_TAKEN,
				   .num_descriptor_bytes = 18 };
	assert_int_equal(send(f->fds[0], r, sizeof(*r) - 1, 0), sizeof(*r) - 1);
	assert_int_equal(dial_receive(f->fds[1], &f->got), -EBADMSG);
	assert_int_equal(send(f->fds[0], &f->sent, sizeof(*r) + 17, 0),
			 sizeof(*r) + 17);
	assert_int_equal(dial_receive(f->fds[1], &f->got), -EBADMSG);
	assert_int_equal(dial_receive(f->fds[1], &f->got), -EAGAIN);
	assert_int_equal(shutdown(f->fds[0], SHUT_RDWR), 0);
	assert_int_equal(dial_receive(f->fds[1], &f->got), 0);
}

/* ---- strings ---- */

static void a_string_descriptor_becomes_utf_8(void **state)
{
	static const struct {
		uint8_t bytes[12];
		const char *text;
	} rows[] = {
		{ { 6, 3, 'A', 0, '1', 0 }, "A1" },
		{ { 6, 3, 0xe9, 0, 0xac, 0x20 }, "\xc3\xa9\xe2\x82\xac" },
		{ { 6, 3, 0x3d, 0xd8, 0x00, 0xde }, "\xf0\x9f\x98\x80" },
		{ { 6, 3, 0x3d, 0xd8, 'x', 0 }, "\xef\xbf\xbdx" },
		{ { 4, 3, 0x00, 0xde }, "\xef\xbf\xbd" },
		{ { 4, 3, 0x3d, 0xd8 }, "\xef\xbf\xbd" },
		{ { 8, 3, 'A', 0, 0, 0, 'B', 0 }, "A" },
		{ { 5, 3, 'A', 0, 'B', 0 }, "A" },
		{ { 6, 2, 'A', 0, 'B', 0 }, "" },
		{ { 255, 3, 'A', 0 }, "A" },
		{ { 0, 3, 'A', 0 }, "" },
	};
	char text[POLICY_SERIAL_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		dial_string(rows[i].bytes, sizeof(rows[i].bytes), text,
			    sizeof(text));
		assert_string_equal(text, rows[i].text);
	}
}

static void a_long_string_is_cut_between_two_characters(void **state)
{
	static const uint8_t bytes[] = { 6, 3, 0xac, 0x20, 0xac, 0x20 };
	char text[6];

	(void)state;
	dial_string(bytes, sizeof(bytes), text, sizeof(text));
	assert_string_equal(text, "\xe2\x82\xac");
	dial_string(bytes, 1, text, sizeof(text));
	assert_string_equal(text, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_report_arrives_with_as_many_descriptors_as_it_says),
		TEST(a_report_that_breaks_the_rules_is_none),
		TEST(a_packet_of_another_size_is_none),
		cmocka_unit_test(a_string_descriptor_becomes_utf_8),
		cmocka_unit_test(a_long_string_is_cut_between_two_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
