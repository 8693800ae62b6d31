/* SPDX-License-Identifier: Apache-2.0 */
/* What a user is told when a gateway refuses over TLS, which tells reasons. */
#include "vchan-transport/import.h"

#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fake/tls_bed.h"
#include "vchan-transport/usbip.h"

struct fixture {
	struct tls_bed bed;
	struct tls_bed_gateway gateway;
	struct import import;
};

static int set_up(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	tls_bed_make(&f.bed);
	f.import.gateway = "tls:lab.example";
	f.import.deadline_ms = clock_ms() + TLS_BED_LIMIT_MS;
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	import_close(&f->import);
	channel_free(f->gateway.end.channel);
	tls_bed_free(&f->bed);
	return 0;
}

static void meet(struct fixture *f)
{
	struct tls_bed_end client;

	tls_bed_meet(&f->bed, NULL, &f->gateway, &client);
	f->import.channel = client.channel;
}

/* A refusal, and what stands behind it. */
static void answer(const struct fixture *f, uint16_t code, const void *reason,
		   size_t bytes)
{
	uint8_t message[USBIP_OP_BYTES + CHANNEL_REASON_BYTES] = { 0 };

	usbip_op_encode(message, code, USBIP_ST_NA);
	memcpy(message + USBIP_OP_BYTES, reason, bytes);
	assert_int_equal(channel_write_all(f->gateway.end.channel, message,
					   sizeof(message),
					   f->import.deadline_ms),
			 0);
	assert_int_equal(channel_end(f->gateway.end.channel), 0);
}

static enum exit_status list(struct fixture *f)
{
	struct import_entry *entries;
	size_t count;

	return import_list(&f->import, &entries, &count);
}

static void a_refused_device_has_the_gateways_reason(void **state)
{
	struct fixture *f = *state;
	struct usbip_device device;

	meet(f);
	answer(f, USBIP_REP_IMPORT, "no rule gives it", 16);

	assert_int_equal(import_take(&f->import, "1-1", &device),
			 EXIT_NOT_ALLOWED);
	assert_string_equal(f->import.failure.text,
			    "tls:lab.example: it does not give 1-1: no rule "
			    "gives it");
}

static void a_refusal_without_a_reason_has_the_statuss_words(void **state)
{
	struct fixture *f = *state;
	struct usbip_device device;

	meet(f);
	answer(f, USBIP_REP_IMPORT, "", 0);

	assert_int_equal(import_take(&f->import, "1-1", &device),
			 EXIT_NOT_ALLOWED);
	assert_non_null(strstr(f->import.failure.text, "\"xusbip list -r"));
}

static void a_refused_list_has_the_gateways_reason(void **state)
{
	struct fixture *f = *state;

	meet(f);
	answer(f, USBIP_REP_DEVLIST, "not on Sundays", 14);

	assert_int_equal(list(f), EXIT_NOT_ALLOWED);
	assert_string_equal(f->import.failure.text,
			    "tls:lab.example: it does not tell its devices: "
			    "not on Sundays");
}

static void a_reason_without_an_end_is_no_answer(void **state)
{
	struct fixture *f = *state;
	struct usbip_device device;
	uint8_t reason[CHANNEL_REASON_BYTES];

	memset(reason, 'x', sizeof(reason));
	meet(f);
	answer(f, USBIP_REP_IMPORT, reason, sizeof(reason));

	assert_int_equal(import_take(&f->import, "1-1", &device),
			 EXIT_PROTOCOL);
}

static void
a_refused_certificate_is_told_where_the_answer_would_be(void **state)
{
	static const struct tls_files_list revoked = { .serial =
							       TLS_BED_SERIAL };
	struct fixture *f = *state;

	tls_files_revoke(&f->bed.ca, f->bed.gateway_dir, &revoked);
	meet(f);

	assert_int_equal(list(f), EXIT_NOT_ALLOWED);
	assert_string_equal(f->import.failure.text,
			    "tls:lab.example: it does not accept this host's "
			    "certificate: it is revoked");
}

/* ----------------------------------------------------------------- opening */

static void missing_files_are_told_and_nothing_is_asked(void **state)
{
	const struct address to = { .kind = ADDRESS_TLS, .host = "127.0.0.1" };
	struct fixture *f = *state;

	f->import.options.tls_dir = "/nowhere";
	assert_int_equal(import_open(&f->import, &to), EXIT_CONFIG);
	assert_string_equal(f->import.failure.text,
			    "cannot connect to tls:lab.example: "
			    "/nowhere/client.pem: there is no such file; "
			    "xusbip-ca makes it");
}

static void *accept_one(void *arg)
{
	struct fixture *f = arg;
	struct tls_bed_end *end = &f->gateway.end;
	int listener = end->fd;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	end->result = channel_tls_accept(fd, f->bed.gateway,
					 f->import.deadline_ms, &end->channel,
					 &f->gateway.peer, end->why);
	(void)close(listener);
	return NULL;
}

static void another_gateway_than_asked_for_is_not_trusted(void **state)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct address to = { .kind = ADDRESS_TLS, .host = "127.0.0.1" };
	socklen_t bytes = sizeof(in);
	struct fixture *f = *state;
	char why[CHANNEL_WHY_BYTES];
	pthread_t thread;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (const struct sockaddr *)&in, bytes),
			 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&in, &bytes),
			 0);
	to.port = ntohs(in.sin_port);
	assert_int_equal(tls_context_new(TLS_GATEWAY, f->bed.gateway_dir,
					 &f->bed.gateway, why),
			 0);
	f->gateway.end.fd = listener;
	assert_int_equal(pthread_create(&thread, NULL, accept_one, f), 0);
	f->import.options.tls_dir = f->bed.client_dir;

	assert_int_equal(import_open(&f->import, &to), EXIT_NOT_TRUSTED);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_string_equal(f->import.failure.text,
			    "cannot connect to tls:lab.example: its "
			    "certificate is for lab.example, not for "
			    "127.0.0.1");
}

#define with_bed(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_bed(a_refused_device_has_the_gateways_reason),
		with_bed(a_refusal_without_a_reason_has_the_statuss_words),
		with_bed(a_refused_list_has_the_gateways_reason),
		with_bed(a_reason_without_an_end_is_no_answer),
		with_bed(
			a_refused_certificate_is_told_where_the_answer_would_be),
		with_bed(missing_files_are_told_and_nothing_is_asked),
		with_bed(another_gateway_than_asked_for_is_not_trusted),
	};

	return cmocka_run_group_tests_name("import, tls", tests, NULL, NULL);
}
