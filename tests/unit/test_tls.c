/* SPDX-License-Identifier: Apache-2.0 */
/* The folder's files: what is taken, and the words for each that is not. */
#include "vchan-transport/tls.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "skip.h"
#include "tests/fake/tls_bed.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define PATH_BYTES    (TLS_BED_DIR_BYTES + 32)

static const char *path_of(const struct tls_bed *bed, const char *file)
{
	static char path[PATH_BYTES];

	(void)snprintf(path, sizeof(path), "%s/%s", bed->gateway_dir, file);
	return path;
}

static void overwrite(const struct tls_bed *bed, const char *file,
		      const char *text)
{
	FILE *to = fopen(path_of(bed, file), "we");

	assert_non_null(to);
	assert_true(fputs(text, to) >= 0);
	assert_int_equal(fclose(to), 0);
}

static void expect_refused(const struct tls_bed *bed, const char *file,
			   const char *words)
{
	struct tls_context *context = NULL;
	char expected[CHANNEL_WHY_BYTES];
	char why[CHANNEL_WHY_BYTES] = "";

	(void)snprintf(expected, sizeof(expected), "%s: %s", path_of(bed, file),
		       words);
	assert_int_equal(tls_context_new(TLS_GATEWAY, bed->gateway_dir,
					 &context, why),
			 -ENOKEY);
	assert_string_equal(why, expected);
	assert_null(context);
}

static void expect_taken(const struct tls_bed *bed)
{
	struct tls_context *context = NULL;
	char why[CHANNEL_WHY_BYTES] = "";

	assert_int_equal(tls_context_new(TLS_GATEWAY, bed->gateway_dir,
					 &context, why),
			 0);
	tls_context_free(context);
}

static void a_good_folder_is_taken(void **state)
{
	static const struct tls_files_list list = { .serial = 0 };
	struct tls_bed *bed = *state;

	expect_taken(bed);
	tls_files_revoke(&bed->ca, bed->gateway_dir, &list);
	expect_taken(bed);
}

static void a_missing_file_is_named(void **state)
{
	static const char *const files[] = { "ca.pem", "gateway.key",
					     "gateway.pem" };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		assert_int_equal(unlink(path_of(*state, files[i])), 0);
		expect_refused(*state, files[i],
			       "there is no such file; xusbip-ca makes it");
	}
}

static void what_is_no_pem_is_named(void **state)
{
	static const struct {
		const char *file;
		const char *empty;
		const char *broken;
	} rows[] = {
		{ "crl.pem",
		  "it holds no list of what is revoked; xusbip-ca makes it",
		  "it holds a broken list of what is revoked" },
		{ "ca.pem", "it holds no certificate",
		  "it holds a broken certificate" },
		{ "gateway.key", "it holds no private key",
		  "it holds no private key" },
		{ "gateway.pem", "it holds no certificate",
		  "it holds a broken certificate" },
	};
	static const char *const heads[] = { "X509 CRL", "CERTIFICATE",
					     "PRIVATE KEY", "CERTIFICATE" };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char text[128];

		overwrite(*state, rows[i].file, "");
		assert_int_equal(chmod(path_of(*state, rows[i].file), 0600), 0);
		expect_refused(*state, rows[i].file, rows[i].empty);
		overwrite(*state, rows[i].file, "what is this?\n");
		expect_refused(*state, rows[i].file, rows[i].empty);
		(void)snprintf(text, sizeof(text),
			       "-----BEGIN %s-----\nMIIB\n-----END %s-----\n",
			       heads[i], heads[i]);
		overwrite(*state, rows[i].file, text);
		expect_refused(*state, rows[i].file, rows[i].broken);
	}
}

static void a_key_that_others_may_read_is_refused(void **state)
{
	static const mode_t modes[] = { 0640, 0604, 0660, 0601, 0777 };

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		assert_int_equal(
			chmod(path_of(*state, "gateway.key"), modes[i]), 0);
		expect_refused(*state, "gateway.key",
			       "others may read it: chmod 0600 it");
	}
	assert_int_equal(chmod(path_of(*state, "gateway.key"), 0400), 0);
	expect_taken(*state);
}

static void a_key_of_somebody_else_is_refused(void **state)
{
	skip_unless(geteuid() == 0, "only root gives files away");
	assert_int_equal(chown(path_of(*state, "gateway.key"), 65534, 65534),
			 0);
	expect_refused(*state, "gateway.key",
		       "it belongs to somebody else: chown it");
}

static void what_is_no_regular_file_is_refused(void **state)
{
	assert_int_equal(unlink(path_of(*state, "gateway.key")), 0);
	assert_int_equal(mkfifo(path_of(*state, "gateway.key"), 0600), 0);
	expect_refused(*state, "gateway.key", "it is no regular file");
}

static void a_key_of_another_certificate_is_refused(void **state)
{
	struct tls_bed *bed = *state;
	char old[PATH_BYTES];

	(void)snprintf(old, sizeof(old), "%s/old.key", bed->gateway_dir);
	assert_int_equal(rename(path_of(bed, "gateway.key"), old), 0);
	tls_files_issue(&bed->ca, bed->gateway_dir, &tls_bed_gateway_leaf);
	assert_int_equal(rename(old, path_of(bed, "gateway.key")), 0);

	expect_refused(bed, "gateway.key",
		       "it is not the key of the certificate beside it");
}

static void a_locked_key_is_refused_without_asking(void **state)
{
	struct tls_bed *bed = *state;
	char command[3 * PATH_BYTES];

	(void)snprintf(command, sizeof(command),
		       "cd %s && openssl pkey -in gateway.key -aes128 -passout "
		       "pass:secret -out locked.key && mv locked.key "
		       "gateway.key && chmod 0600 gateway.key",
		       bed->gateway_dir);
	assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) */

	expect_refused(bed, "gateway.key",
		       "it is locked by a passphrase; store it without");
}

static void a_folder_with_a_long_name_is_refused(void **state)
{
	struct tls_context *context = NULL;
	char why[CHANNEL_WHY_BYTES] = "";
	char dir[TLS_DIR_BYTES + 1];

	(void)state;
	memset(dir, 'x', TLS_DIR_BYTES);
	dir[TLS_DIR_BYTES] = '\0';
	assert_int_equal(tls_context_new(TLS_CLIENT, dir, &context, why),
			 -ENOKEY);
	dir[TLS_DIR_BYTES - 1] = '\0';
	assert_int_equal(tls_context_new(TLS_CLIENT, dir, &context, why),
			 -ENOKEY);
	assert_null(context);
}

/* ------------------------------------------------------------- revocations */

/* Does the CA's list of that serial number revoke the certificate? */
static bool is_revoked_by(const struct tls_bed *bed,
			  const struct tls_files_ca *ca, long serial,
			  const struct tls_certificate_id *certificate)
{
	const struct tls_files_list list = { .serial = serial };
	struct tls_revocations *revoked = NULL;
	char why[CHANNEL_WHY_BYTES];
	bool is;

	tls_files_revoke(ca, bed->gateway_dir, &list);
	assert_int_equal(tls_revocations_new(bed->gateway_dir, &revoked, why),
			 0);
	is = tls_is_revoked(revoked, certificate);
	tls_revocations_free(revoked);
	return is;
}

/* The client's, as a handshake tells it. */
static struct tls_certificate_id meet_client(struct tls_bed *bed)
{
	struct tls_bed_gateway gateway;
	struct tls_bed_end client;

	tls_bed_meet(bed, NULL, &gateway, &client);
	assert_int_equal(gateway.end.result, 0);
	tls_bed_part(&gateway, &client);
	return gateway.peer.certificate;
}

static void what_is_revoked_is_known_by_its_serial(void **state)
{
	struct tls_bed *bed = *state;
	struct tls_certificate_id id = meet_client(bed);

	assert_string_equal(id.serial, "2B");
	assert_true(is_revoked_by(bed, &bed->ca, TLS_BED_SERIAL, &id));
	assert_false(is_revoked_by(bed, &bed->ca, TLS_BED_SERIAL + 1, &id));
	assert_false(is_revoked_by(bed, &bed->ca, 0x2b2b, &id));
	id.serial[0] = '\0';
	assert_false(is_revoked_by(bed, &bed->ca, TLS_BED_SERIAL, &id));
}

static void another_ca_revokes_its_own_certificates_only(void **state)
{
	struct tls_bed *bed = *state;
	const struct tls_certificate_id id = meet_client(bed);

	assert_false(is_revoked_by(bed, &bed->other_ca, TLS_BED_SERIAL, &id));
}

/* As RFC 5280 compares names: neither the type of string nor case counts. */
static void a_ca_is_known_however_its_name_is_encoded(void **state)
{
	struct tls_bed *bed = *state;
	const struct tls_certificate_id id = meet_client(bed);
	struct tls_files_ca same = {
		.key = bed->ca.key, .certificate = X509_dup(bed->ca.certificate)
	};
	X509_NAME *name = X509_NAME_new();

	assert_non_null(same.certificate);
	assert_int_equal(X509_NAME_add_entry_by_txt(
				 name, "CN", V_ASN1_BMPSTRING,
				 (const unsigned char *)"\0O\0u\0R\0s", 8, -1,
				 0),
			 1);
	assert_int_equal(X509_set_subject_name(same.certificate, name), 1);
	assert_true(is_revoked_by(bed, &same, TLS_BED_SERIAL, &id));
	X509_NAME_free(name);
	X509_free(same.certificate);
}

static void without_a_list_nothing_is_revoked(void **state)
{
	static const struct tls_certificate_id any = { .issuer = "0123cdef",
						       .serial = "2A" };
	const struct tls_bed *bed = *state;
	struct tls_revocations *revoked = NULL;
	char why[CHANNEL_WHY_BYTES];

	assert_int_equal(tls_revocations_new(bed->gateway_dir, &revoked, why),
			 0);
	assert_false(tls_is_revoked(revoked, &any));
	tls_revocations_free(revoked);
	tls_revocations_free(NULL);
}

static void a_broken_list_is_no_list(void **state)
{
	const struct tls_bed *bed = *state;
	struct tls_revocations *revoked = NULL;
	char why[CHANNEL_WHY_BYTES] = "";

	overwrite(bed, "crl.pem", "what is this?\n");
	assert_int_equal(tls_revocations_new(bed->gateway_dir, &revoked, why),
			 -ENOKEY);
	assert_non_null(strstr(why, "crl.pem: it holds no list"));
	assert_null(revoked);
}

/* -------------------------------------------------------------------- pins */

static void pins_are_64_digits_behind_their_name(void **state)
{
	static const char *const bad[] = {
		"",
		"sha256:",
		"sha1:00",
		"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456"
		"789abcde",
		"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456"
		"789abcdef0",
		"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456"
		"789abcdeg",
	};
	uint8_t pin[TLS_PIN_BYTES] = { 0 };

	(void)state;
	assert_int_equal(tls_pin_parse("sha256:0123456789abcdef0123456789ABCDEF"
				       "0123456789abcdef0123456789abcdef",
				       pin),
			 0);
	assert_int_equal(pin[1], 0x23);
	assert_int_equal(pin[TLS_PIN_BYTES - 1], 0xef);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(tls_pin_parse(bad[i], pin), -EINVAL);
}

#define with_bed(test) \
	cmocka_unit_test_setup_teardown(test, tls_bed_set_up, tls_bed_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_bed(a_good_folder_is_taken),
		with_bed(a_missing_file_is_named),
		with_bed(what_is_no_pem_is_named),
		with_bed(a_key_that_others_may_read_is_refused),
		with_bed(a_key_of_somebody_else_is_refused),
		with_bed(what_is_no_regular_file_is_refused),
		with_bed(a_key_of_another_certificate_is_refused),
		with_bed(a_locked_key_is_refused_without_asking),
		cmocka_unit_test(a_folder_with_a_long_name_is_refused),
		with_bed(what_is_revoked_is_known_by_its_serial),
		with_bed(another_ca_revokes_its_own_certificates_only),
		with_bed(a_ca_is_known_however_its_name_is_encoded),
		with_bed(without_a_list_nothing_is_revoked),
		with_bed(a_broken_list_is_no_list),
		cmocka_unit_test(pins_are_64_digits_behind_their_name),
	};

	return cmocka_run_group_tests_name("tls", tests, NULL, NULL);
}
