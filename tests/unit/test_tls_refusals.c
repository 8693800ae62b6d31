/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is let in and who is not, with the words of either end: a gateway and a
 * client meet over TCP, one of them with one thing wrong.
 */
#include "vchan-transport/tls.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fake/tls_bed.h"
#include "vchan-transport/exit_status.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define HOUR_S        3600L

/* What the gateway tells a client that it has refused. */
static void expect_told(struct tls_bed_end *client, const char *words)
{
	char why[HANDSHAKE_WHY_BYTES] = "";
	unsigned status = 0;
	uint8_t byte;

	assert_int_equal(client->result, 0);
	assert_int_equal(channel_read_all(client->channel, &byte, 1,
					  clock_ms() + TLS_BED_LIMIT_MS),
			 -EACCES);
	assert_int_equal(
		channel_reason(client->channel, clock_ms(), &status, why), 0);
	assert_int_equal(status, EXIT_NOT_ALLOWED);
	assert_string_equal(why, words);
}

/* The client's certificate is refused by the gateway, with both sides' words. */
static void expect_client_refused(struct tls_bed *bed, const char *by_gateway,
				  const char *told)
{
	struct tls_bed_gateway gateway;
	struct tls_bed_end client;

	tls_bed_meet(bed, NULL, &gateway, &client);

	assert_int_equal(gateway.end.result, -EKEYREJECTED);
	assert_string_equal(gateway.end.why, by_gateway);
	expect_told(&client, told);
	tls_bed_part(&gateway, &client);
}

static void expect_gateway_refused(struct tls_bed *bed,
				   const struct tls_wanted *wanted,
				   const char *by_client, const char *told)
{
	struct tls_bed_gateway gateway;
	struct tls_bed_end client;

	tls_bed_meet(bed, wanted, &gateway, &client);

	assert_int_equal(client.result, -EKEYREJECTED);
	assert_string_equal(client.why, by_client);
	assert_int_equal(gateway.end.result, -EACCES);
	assert_string_equal(gateway.end.why, told);
	tls_bed_part(&gateway, &client);
}

static void expect_met(struct tls_bed *bed, const struct tls_wanted *wanted)
{
	struct tls_bed_gateway gateway;
	struct tls_bed_end client;

	tls_bed_meet(bed, wanted, &gateway, &client);

	assert_string_equal(gateway.end.why, "");
	assert_int_equal(gateway.end.result, 0);
	assert_int_equal(client.result, 0);
	tls_bed_part(&gateway, &client);
}

/* ---------------------------------------------------------------- who it is */

static void both_know_who_the_other_one_is(void **state)
{
	struct tls_bed_gateway gateway;
	struct tls_bed_end client;

	tls_bed_meet(*state, NULL, &gateway, &client);

	assert_int_equal(client.result, 0);
	assert_int_equal(gateway.end.result, 0);
	assert_string_equal(gateway.peer.name, TLS_BED_CLIENT);
	assert_string_equal(gateway.peer.certificate.serial, "2B");
	assert_int_equal(strncmp(gateway.peer.pin, "sha256:", 7), 0);
	assert_int_equal(strlen(gateway.peer.pin), 7 + 64);
	assert_true(channel_tells_reasons(gateway.end.channel));
	assert_true(channel_tells_reasons(client.channel));
	assert_string_equal(channel_kind(client.channel), "tls");
	tls_bed_part(&gateway, &client);
}

static void a_name_that_cannot_be_one_is_none(void **state)
{
	static const char *const names[] = {
		"DNS:guest example",
		"DNS:a/b",
		"IP:192.0.2.7",
		"email:dns@guest.example",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct tls_bed *bed = *state;
		struct tls_files_leaf leaf = tls_bed_client_leaf;
		struct tls_bed_gateway gateway;
		struct tls_bed_end client;

		leaf.names = names[i];
		tls_files_issue(&bed->ca, bed->client_dir, &leaf);
		tls_context_free(bed->client);
		bed->client = NULL;
		tls_bed_meet(bed, NULL, &gateway, &client);

		assert_int_equal(gateway.end.result, 0);
		assert_string_equal(gateway.peer.name, "");
		tls_bed_part(&gateway, &client);
	}
}

/* ----------------------------------------------- certificates of the client */

static void clients_with_a_wrong_certificate_are_refused(void **state)
{
	static const struct {
		struct tls_files_leaf leaf;
		const char *by_gateway;
		const char *told;
	} rows[] = {
		{ { "client", "DNS:a", "serverAuth", 9, 0, 0, 0 },
		  "its certificate is not for clients",
		  "it does not accept this host's certificate: "
		  "it is for another use" },
		{ { "client", "DNS:a", NULL, 9, 0, 0, 0 },
		  "its certificate is not for clients",
		  "it does not accept this host's certificate: "
		  "it is for another use" },
		{ { "client", "DNS:a", "clientAuth", 9, -2 * HOUR_S, -HOUR_S,
		    0 },
		  "its certificate has expired",
		  "it does not accept this host's certificate: "
		  "it has expired, or is not yet valid there" },
		{ { "client", "DNS:a", "clientAuth", 9, HOUR_S, 2 * HOUR_S, 0 },
		  "its certificate is not yet valid; compare the clocks",
		  "it does not accept this host's certificate: "
		  "it has expired, or is not yet valid there" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct tls_bed *bed = *state;

		tls_files_issue(&bed->ca, bed->client_dir, &rows[i].leaf);
		tls_context_free(bed->client);
		bed->client = NULL;
		expect_client_refused(bed, rows[i].by_gateway, rows[i].told);
	}
}

static void a_client_of_another_ca_is_refused(void **state)
{
	struct tls_bed *bed = *state;

	tls_files_issue(&bed->other_ca, bed->client_dir, &tls_bed_client_leaf);

	expect_client_refused(bed, "its certificate is of another CA",
			      "it does not accept this host's certificate: "
			      "it is of another CA");
}

static void a_revoked_client_is_refused_and_others_are_not(void **state)
{
	static const struct tls_files_list list = { .serial = TLS_BED_SERIAL };
	struct tls_bed *bed = *state;
	struct tls_files_leaf another = tls_bed_client_leaf;

	tls_files_revoke(&bed->ca, bed->gateway_dir, &list);
	expect_client_refused(bed, "its certificate is revoked",
			      "it does not accept this host's certificate: "
			      "it is revoked");

	another.serial = TLS_BED_SERIAL + 1;
	tls_files_issue(&bed->ca, bed->client_dir, &another);
	tls_context_free(bed->client);
	bed->client = NULL;
	expect_met(bed, NULL);
}

/* The folder's name, then what is wrong with its list. */
static void expect_list_refused(struct tls_bed *bed, const char *words)
{
	char by_gateway[CHANNEL_WHY_BYTES];

	(void)snprintf(by_gateway, sizeof(by_gateway), "%s/crl.pem %s",
		       bed->gateway_dir, words);
	expect_client_refused(bed, by_gateway,
			      "it does not accept this host's certificate: "
			      "it cannot judge it; see its log");
	tls_context_free(bed->gateway);
	bed->gateway = NULL;
}

static void a_list_that_says_nothing_now_lets_nobody_in(void **state)
{
	static const struct tls_files_list old = { .from_s = -2 * HOUR_S,
						   .until_s = -HOUR_S };
	static const struct tls_files_list early = { .from_s = HOUR_S };
	static const struct tls_files_list good = { .serial = 0 };
	struct tls_bed *bed = *state;

	tls_files_revoke(&bed->ca, bed->gateway_dir, &old);
	expect_list_refused(bed, "has expired; make a new one");
	tls_files_revoke(&bed->ca, bed->gateway_dir, &early);
	expect_list_refused(bed, "is not yet valid; compare the clocks");
	tls_files_revoke(&bed->other_ca, bed->gateway_dir, &good);
	expect_list_refused(bed, "has no list of the CA that its certificate "
				 "is of");
}

/* ---------------------------------------------- certificates of the gateway */

static void gateways_with_a_wrong_certificate_are_refused(void **state)
{
	static const struct {
		struct tls_files_leaf leaf;
		const char *by_client;
		const char *told;
	} rows[] = {
		{ { "gateway", "DNS:lab.example", "clientAuth", 9, 0, 0, 0 },
		  "its certificate is not for gateways",
		  "it does not accept this gateway's certificate: "
		  "it is for another use" },
		{ { "gateway", "DNS:lab.example", "serverAuth", 9, -2 * HOUR_S,
		    -HOUR_S, 0 },
		  "its certificate has expired",
		  "it does not accept this gateway's certificate: "
		  "it has expired, or is not yet valid there" },
		{ { "gateway", "DNS:lab.example", NULL, 9, 0, 0, 0 },
		  "its certificate is not for gateways",
		  "it does not accept this gateway's certificate: "
		  "it is for another use" },
		{ { "gateway", "DNS:other.example", "serverAuth", 9, 0, 0, 0 },
		  "its certificate is for other.example, not for lab.example",
		  "it does not accept this gateway's certificate: "
		  "it is broken, or of another host" },
		{ { "gateway", "DNS:*.example", "serverAuth", 9, 0, 0, 0 },
		  "its certificate is not for lab.example",
		  "it does not accept this gateway's certificate: "
		  "it is broken, or of another host" },
		{ { "gateway", NULL, "serverAuth", 9, 0, 0, 0 },
		  "its certificate is not for lab.example",
		  "it does not accept this gateway's certificate: "
		  "it is broken, or of another host" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct tls_bed *bed = *state;

		tls_files_issue(&bed->ca, bed->gateway_dir, &rows[i].leaf);
		tls_context_free(bed->gateway);
		bed->gateway = NULL;
		expect_gateway_refused(bed, NULL, rows[i].by_client,
				       rows[i].told);
	}
}

static void a_gateway_of_another_ca_is_refused(void **state)
{
	struct tls_bed *bed = *state;

	tls_files_issue(&bed->other_ca, bed->gateway_dir,
			&tls_bed_gateway_leaf);

	expect_gateway_refused(bed, NULL, "its certificate is of another CA",
			       "it does not accept this gateway's "
			       "certificate: it is of another CA");
}

static void a_revoked_gateway_is_refused(void **state)
{
	static const struct tls_files_list list = { .serial =
							    TLS_BED_GW_SERIAL };
	struct tls_bed *bed = *state;

	tls_files_revoke(&bed->ca, bed->client_dir, &list);

	expect_gateway_refused(bed, NULL, "its certificate is revoked",
			       "it does not accept this gateway's "
			       "certificate: it is revoked");
}

static void hosts_are_names_and_addresses_of_the_certificate(void **state)
{
	static const char *const good[] = {
		"lab.example", "LAB.example", "lab.example.",
		"192.0.2.1",   "2001:db8::1", "2001:DB8:0::1%lo"
	};
	static const char *const bad[] = { "192.0.2.2", "2001:db8::2",
					   "example", "a.lab.example",
					   "cn.example" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		const struct tls_wanted wanted = { .host = good[i] };

		expect_met(*state, &wanted);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct tls_wanted wanted = { .host = bad[i] };
		char words[CHANNEL_WHY_BYTES];

		(void)snprintf(words, sizeof(words),
			       "its certificate is for lab.example, not for "
			       "%s",
			       bad[i]);
		expect_gateway_refused(
			*state, &wanted, words,
			"it does not accept this gateway's certificate: it is "
			"broken, or of another host");
	}
}

static void a_part_of_a_name_is_none(void **state)
{
	static const char *const hosts[] = { ".example", "", "%eth0" };

	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		const struct tls_wanted wanted = { .host = hosts[i] };
		struct tls_bed_gateway gateway;
		struct tls_bed_end client;

		tls_bed_meet(*state, &wanted, &gateway, &client);

		assert_int_equal(client.result, -EINVAL);
		assert_string_equal(client.why, "no certificate can be for "
						"such an address");
		assert_int_equal(gateway.end.result, -ECONNRESET);
		tls_bed_part(&gateway, &client);
	}
}

/* -------------------------------------------------------------------- pins */

/* The gateway's, as its own certificate has it. */
static void find_pin(const struct tls_bed *bed,
		     uint8_t ret_pin[static TLS_PIN_BYTES])
{
	char command[256];
	char text[TLS_PIN_TEXT_BYTES] = TLS_PIN_TEXT;
	const size_t head = strlen(TLS_PIN_TEXT);
	FILE *openssl;

	(void)snprintf(command, sizeof(command),
		       "openssl x509 -in %s/gateway.pem -noout -pubkey | "
		       "openssl pkey -pubin -outform DER | sha256sum",
		       bed->gateway_dir);
	openssl = popen(command, "r"); /* NOLINT(cert-env33-c) */
	assert_non_null(openssl);
	assert_int_equal(fread(text + head, 1, sizeof(text) - head - 1,
			       openssl),
			 sizeof(text) - head - 1);
	(void)pclose(openssl);
	assert_int_equal(tls_pin_parse(text, ret_pin), 0);
}

static void a_pin_stands_in_for_a_name(void **state)
{
	uint8_t pin[TLS_PIN_BYTES];
	const struct tls_wanted wanted = { .host = "other.example",
					   .pin = pin };

	find_pin(*state, pin);
	expect_met(*state, &wanted);
}

static void another_pin_is_refused_though_the_name_is_right(void **state)
{
	uint8_t pin[TLS_PIN_BYTES];
	const struct tls_wanted wanted = { .host = TLS_BED_HOST, .pin = pin };
	struct tls_bed_gateway gateway;
	struct tls_bed_end client;

	find_pin(*state, pin);
	pin[TLS_PIN_BYTES - 1] ^= 1;
	tls_bed_meet(*state, &wanted, &gateway, &client);

	assert_int_equal(client.result, -EKEYREJECTED);
	assert_int_equal(
		strncmp(client.why,
			"its key is not the pinned one, but sha256:", 42),
		0);
	assert_int_equal(gateway.end.result, -EACCES);
	tls_bed_part(&gateway, &client);
}

static void a_pin_is_no_excuse_for_the_rest(void **state)
{
	static const struct tls_files_list list = { .serial =
							    TLS_BED_GW_SERIAL };
	struct tls_bed *bed = *state;
	uint8_t pin[TLS_PIN_BYTES];
	const struct tls_wanted wanted = { .host = TLS_BED_HOST, .pin = pin };

	find_pin(bed, pin);
	tls_files_revoke(&bed->ca, bed->client_dir, &list);
	expect_gateway_refused(bed, &wanted, "its certificate is revoked",
			       "it does not accept this gateway's "
			       "certificate: it is revoked");

	(void)tls_files_issue(&bed->other_ca, bed->gateway_dir,
			      &tls_bed_gateway_leaf);
	find_pin(bed, pin);
	tls_context_free(bed->gateway);
	bed->gateway = NULL;
	expect_gateway_refused(bed, &wanted, "its certificate is of another CA",
			       "it does not accept this gateway's "
			       "certificate: it is of another CA");
}

#define with_bed(test) \
	cmocka_unit_test_setup_teardown(test, tls_bed_set_up, tls_bed_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_bed(both_know_who_the_other_one_is),
		with_bed(a_name_that_cannot_be_one_is_none),
		with_bed(clients_with_a_wrong_certificate_are_refused),
		with_bed(a_client_of_another_ca_is_refused),
		with_bed(a_revoked_client_is_refused_and_others_are_not),
		with_bed(a_list_that_says_nothing_now_lets_nobody_in),
		with_bed(gateways_with_a_wrong_certificate_are_refused),
		with_bed(a_gateway_of_another_ca_is_refused),
		with_bed(a_revoked_gateway_is_refused),
		with_bed(hosts_are_names_and_addresses_of_the_certificate),
		with_bed(a_part_of_a_name_is_none),
		with_bed(a_pin_stands_in_for_a_name),
		with_bed(another_pin_is_refused_though_the_name_is_right),
		with_bed(a_pin_is_no_excuse_for_the_rest),
	};

	return cmocka_run_group_tests_name("tls refusals", tests, NULL, NULL);
}
