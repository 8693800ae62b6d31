/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a folder's files end soon, and how often that is told. */
#include "vchan-transport/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_loop.h"
#include "tests/fake/tls_bed.h"

#define DAY_S ((long)24 * 60 * 60)
/* A test may last so long between a file's making and its judging. */
#define SLACK_S 600
#define SOON_S  (TLS_SOON_DAYS * DAY_S)

static const struct {
	long until_s;
	const char *words; /* NULL: none */
} rows[] = {
	{ SOON_S + SLACK_S, NULL },
	{ SOON_S - SLACK_S, ".pem: ends on " },
	{ SLACK_S, ".pem: ends on " },
	{ -SLACK_S, ".pem: has ended on " },
};

static void expect(bool is_soon, const char *why, const char *words)
{
	assert_int_equal(is_soon, words != NULL);
	if (!words)
		return;
	assert_non_null(strstr(why, words));
	assert_non_null(strstr(why, " UTC, and then nobody "));
	assert_non_null(strstr(why, "xusbip-ca renew"));
}

static void a_certificate_that_ends_within_a_week_is_told(void **state)
{
	struct tls_bed *bed = *state;
	struct tls_files_leaf gateway = tls_bed_gateway_leaf;
	struct tls_files_leaf client = tls_bed_client_leaf;
	char why[CHANNEL_WHY_BYTES];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		gateway.until_s = rows[i].until_s;
		client.until_s = rows[i].until_s;
		tls_files_issue(&bed->ca, bed->gateway_dir, &gateway);
		tls_files_issue(&bed->ca, bed->client_dir, &client);
		expect(tls_certificate_ends_soon(TLS_GATEWAY, bed->gateway_dir,
						 why),
		       why, rows[i].words);
		expect(tls_certificate_ends_soon(TLS_CLIENT, bed->client_dir,
						 why),
		       why, rows[i].words);
	}
}

static void a_list_that_ends_within_a_week_is_told(void **state)
{
	struct tls_bed *bed = *state;
	char why[CHANNEL_WHY_BYTES];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct tls_files_list list = {
			.from_s = -2 * DAY_S,
			.until_s = rows[i].until_s,
		};

		tls_files_revoke(&bed->ca, bed->gateway_dir, &list);
		expect(tls_list_ends_soon(bed->gateway_dir, why), why,
		       rows[i].words);
	}
}

/* Of two CAs. */
static void the_first_of_several_ends_counts(void **state)
{
	static const struct tls_files_list late = { .until_s = 100 * DAY_S };
	static const struct tls_files_list soon = { .until_s = DAY_S };
	struct tls_bed *bed = *state;
	char why[CHANNEL_WHY_BYTES];
	char command[4 * TLS_BED_DIR_BYTES];

	tls_files_revoke(&bed->other_ca, bed->client_dir, &soon);
	tls_files_revoke(&bed->ca, bed->gateway_dir, &late);
	assert_false(tls_list_ends_soon(bed->gateway_dir, why));
	(void)snprintf(command, sizeof(command), "cat %s/crl.pem >>%s/crl.pem",
		       bed->client_dir, bed->gateway_dir);
	assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) */
	assert_true(tls_list_ends_soon(bed->gateway_dir, why));
}

static void what_cannot_be_read_is_not_told(void **state)
{
	const struct tls_bed *bed = *state;
	char why[CHANNEL_WHY_BYTES];

	assert_false(tls_list_ends_soon(bed->gateway_dir, why));
	assert_false(
		tls_certificate_ends_soon(TLS_CLIENT, bed->gateway_dir, why));
	assert_false(
		tls_certificate_ends_soon(TLS_CLIENT, "/nonexistent", why));
}

static void count(void *arg)
{
	(*(int *)arg)++;
}

static void it_is_told_at_once_and_every_day(void **state)
{
	const uint64_t day_ms = (uint64_t)DAY_S * 1000;
	int num = 0;

	(void)state;
	assert_int_equal(tls_warn_daily(NULL, count, &num), 0);
	assert_int_equal(num, 1);
	fake_loop_run(day_ms - 1);
	assert_int_equal(num, 1);
	fake_loop_run(1);
	assert_int_equal(num, 2);
	fake_loop_run(10 * day_ms);
	assert_int_equal(num, 12);
	loop_timer_stop(fake_timers);
	fake_loop_sweep();
}

#define with_bed(test) \
	cmocka_unit_test_setup_teardown(test, tls_bed_set_up, tls_bed_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_bed(a_certificate_that_ends_within_a_week_is_told),
		with_bed(a_list_that_ends_within_a_week_is_told),
		with_bed(the_first_of_several_ends_counts),
		with_bed(what_cannot_be_read_is_not_told),
		cmocka_unit_test(it_is_told_at_once_and_every_day),
	};

	return cmocka_run_group_tests_name("tls_ends", tests, NULL, NULL);
}
