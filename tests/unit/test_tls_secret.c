/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process still knows of its private key after the handshake: one that
 * is started as a session is, looks for the key in all of its own memory. It is
 * told each byte of what to look for inverted, so that it finds no telling.
 */
#include "vchan-transport/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/pem.h>

#include <cmocka.h>

#include "skip.h"
#include "tests/fake/tcp_pair.h"
#include "tests/fake/tls_bed.h"
#include "vchan-transport/sandbox.h"

#define KEY_BYTES 32

struct secret {
	uint8_t inverted[KEY_BYTES];
};

/* As it stands in a file, or as a number's words lie in memory. */
static bool is_secret(const struct secret *secret, const uint8_t *at)
{
	bool is_forward = true;
	bool is_backward = true;

	for (size_t i = 0; i < KEY_BYTES && (is_forward || is_backward); i++) {
		uint8_t byte = (uint8_t)~at[i];

		is_forward = is_forward && byte == secret->inverted[i];
		is_backward = is_backward &&
			      byte == secret->inverted[KEY_BYTES - 1 - i];
	}
	return is_forward || is_backward;
}

/* How often it lies in the writable memory of this process. */
static int count_secret(const struct secret *secret)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	int count = 0;

	while (maps && fgets(line, sizeof(line), maps)) {
		char *rest;
		uintptr_t at = strtoul(line, &rest, 16);
		uintptr_t end = strtoul(rest + 1, &rest, 16);

		if (strncmp(rest, " rw", 3) != 0)
			continue;
		for (; at + KEY_BYTES <= end; at++) {
			union { /* a number from the kernel's text */
				uintptr_t number;
				const uint8_t *bytes;
			} where = { .number = at };

			count += is_secret(secret, where.bytes);
		}
	}
	if (maps)
		(void)fclose(maps);
	return count;
}

/* The other process: 0, or which of the steps went wrong. */
static int accept_and_look(const char *dir, int fd, const struct secret *secret)
{
	struct tls_context *context;
	struct channel *channel;
	struct tls_peer peer;
	char why[CHANNEL_WHY_BYTES];

	if (!tls_certificate_ends_soon(TLS_GATEWAY, dir, why))
		return 6;
	if (tls_context_new(TLS_GATEWAY, dir, &context, why) < 0)
		return 1;
	/* So that looking is known to find. */
	if (count_secret(secret) == 0)
		return 2;
	if (channel_tls_accept(fd, context, clock_ms() + TLS_BED_LIMIT_MS,
			       &channel, &peer, why) < 0)
		return 3;
	tls_context_free(context);
	if (count_secret(secret) != 0)
		return 4;
	/* And the channel is none the worse for it. */
	if (channel_write_all(channel, "x", 1, clock_ms() + TLS_BED_LIMIT_MS) <
	    0)
		return 5;
	channel_finish(channel, clock_ms() + TLS_BED_LIMIT_MS);
	channel_free(channel);
	return 0;
}

static void read_secret(const struct tls_bed *bed, struct secret *ret_secret)
{
	char path[TLS_BED_DIR_BYTES + 16];
	BIGNUM *number = NULL;
	EVP_PKEY *key;
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/gateway.key", bed->gateway_dir);
	file = fopen(path, "re");
	assert_non_null(file);
	key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	assert_int_equal(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY,
					       &number),
			 1);
	assert_int_equal(BN_bn2binpad(number, ret_secret->inverted, KEY_BYTES),
			 KEY_BYTES);
	for (size_t i = 0; i < KEY_BYTES; i++)
		ret_secret->inverted[i] = (uint8_t)~ret_secret->inverted[i];
	BN_clear_free(number);
	EVP_PKEY_free(key);
	(void)fclose(file);
}

static pid_t start(const struct tls_bed *bed, int fd)
{
	struct secret secret;
	char digits[2 * KEY_BYTES + 1];
	char number[16];
	pid_t pid;

	read_secret(bed, &secret);
	for (size_t i = 0; i < KEY_BYTES; i++)
		(void)snprintf(digits + 2 * i, 3, "%02x", secret.inverted[i]);
	(void)snprintf(number, sizeof(number), "%d", fd);
	pid = fork();
	if (pid == 0) {
		int copy = dup(fd); /* not closed on exec */

		(void)snprintf(number, sizeof(number), "%d", copy);
		(void)execl("/proc/self/exe", "look", bed->gateway_dir, number,
			    digits, (char *)NULL);
		_exit(127);
	}
	return pid;
}

static void the_private_key_goes_with_its_context(void **state)
{
	const struct tls_wanted wanted = { .host = TLS_BED_HOST };
	struct tls_bed bed;
	struct tls_context *context = NULL;
	struct channel *channel = NULL;
	char why[CHANNEL_WHY_BYTES];
	uint8_t byte;
	int fds[2];
	int status;
	pid_t pid;

	(void)state;
	skip_unless(!SANDBOX_IS_SANITIZED,
		    "a sanitizer has memory that is not to be looked at");
	tls_bed_make(&bed);
	assert_int_equal(tcp_pair(fds), 0);
	pid = start(&bed, fds[0]);
	(void)close(fds[0]);
	assert_int_equal(
		tls_context_new(TLS_CLIENT, bed.client_dir, &context, why), 0);
	assert_int_equal(channel_tls_connect(fds[1], context, &wanted,
					     clock_ms() + TLS_BED_LIMIT_MS,
					     &channel, why),
			 0);
	(void)channel_read_all(channel, &byte, 1,
			       clock_ms() + TLS_BED_LIMIT_MS);
	channel_free(channel);
	tls_context_free(context);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	tls_bed_free(&bed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_private_key_goes_with_its_context),
	};
	struct secret secret;

	if (argc != 4)
		return cmocka_run_group_tests_name("tls, secret", tests, NULL,
						   NULL);
	for (size_t i = 0; i < KEY_BYTES; i++) {
		char digits[3] = { argv[3][2 * i], argv[3][2 * i + 1], '\0' };

		secret.inverted[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return accept_and_look(argv[1], (int)strtol(argv[2], NULL, 10),
			       &secret);
}
