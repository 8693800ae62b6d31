/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses: what is read, what is refused and why, and the way back. */
#include "vchan-transport/address.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static const struct {
	const char *text;
	struct address address;
	const char *formatted;
} good[] = {
	{ "xen:0", { ADDRESS_XEN, "0", 0, 0 }, "xen:0" },
	{ "xen:my-guest_1.x", { ADDRESS_XEN, "my-guest_1.x", 0, 0 }, NULL },
	{ "tls:lab.example",
	  { ADDRESS_TLS, "lab.example", 3241, 0 },
	  "tls:lab.example:3241" },
	{ "tls:lab.example:7", { ADDRESS_TLS, "lab.example", 7, 0 }, NULL },
	{ "tcp:10.0.2.2",
	  { ADDRESS_TCP, "10.0.2.2", 3240, 0 },
	  "tcp:10.0.2.2:3240" },
	{ "tcp:10.0.2.2:65535", { ADDRESS_TCP, "10.0.2.2", 65535, 0 }, NULL },
	{ "tcp:[::1]", { ADDRESS_TCP, "::1", 3240, 0 }, "tcp:[::1]:3240" },
	{ "tls:[fe80::1%eth0]:1", { ADDRESS_TLS, "fe80::1%eth0", 1, 0 }, NULL },
	{ "[2001:db8::2]:99",
	  { ADDRESS_TCP, "2001:db8::2", 99, 0 },
	  "tcp:[2001:db8::2]:99" },
	{ "::1", { ADDRESS_TCP, "::1", 3240, 0 }, "tcp:[::1]:3240" },
	{ "::ffff:1.2.3.4",
	  { ADDRESS_TCP, "::ffff:1.2.3.4", 3240, 0 },
	  "tcp:[::ffff:1.2.3.4]:3240" },
	{ "localhost",
	  { ADDRESS_TCP, "localhost", 3240, 0 },
	  "tcp:localhost:3240" },
	{ "localhost:1", { ADDRESS_TCP, "localhost", 1, 0 }, "tcp:localhost:1" },
	{ "tcp:xen", { ADDRESS_TCP, "xen", 3240, 0 }, "tcp:xen:3240" },
	{ "xen", { ADDRESS_TCP, "xen", 3240, 0 }, "tcp:xen:3240" },
	{ "unix:/run/xusbip/gateway",
	  { ADDRESS_UNIX, "/run/xusbip/gateway", 0, 0 },
	  NULL },
	{ "unix:a:b", { ADDRESS_UNIX, "a:b", 0, 0 }, NULL },
	{ "vsock:2", { ADDRESS_VSOCK, "", 3240, 2 }, "vsock:2:3240" },
	{ "vsock:4294967295:1", { ADDRESS_VSOCK, "", 1, UINT32_MAX }, NULL },
};

static const struct {
	const char *text;
	const char *why;
} bad[] = {
	{ "", "host" },           { ":3240", "host" },
	{ "tcp:", "host" },       { "tls:", "host" },
	{ "-r", "host" },         { "a b", "host" },
	{ "a/b", "host" },        { "tcp:a\x1b[31m", "host" },
	{ "host:", "port" },      { "host:0", "port" },
	{ "host:65536", "port" }, { "host:-1", "port" },
	{ "host:+1", "port" },    { "host: 1", "port" },
	{ "host:1x", "port" },    { "host:00000000001", "port" },
	{ "host:1:2", "port" },   { "http:example", "port" },
	{ "[::1", "bracket" },    { "[]", "IPv6" },
	{ "[1.2.3.4]", "IPv6" },  { "[::1%]", "IPv6" },
	{ "[::g]", "IPv6" },      { "[::1]x", "port" },
	{ "[::1]:", "port" },     { "xen:", "domain" },
	{ "xen:a/b", "domain" },  { "xen:..\n", "domain" },
	{ "unix:", "path" },      { "unix:/a\nb", "path" },
	{ "vsock:", "CID" },      { "vsock:x", "CID" },
	{ "vsock:-1", "CID" },    { "vsock:4294967296", "CID" },
	{ "vsock:2:0", "port" },
};

static void assert_same(const struct address *a, const struct address *b)
{
	assert_int_equal(a->kind, b->kind);
	assert_string_equal(a->host, b->host);
	assert_int_equal(a->port, b->port);
	assert_int_equal(a->cid, b->cid);
}

static void every_good_address_is_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct address address;
		const char *why = "untouched";

		assert_int_equal(address_parse(good[i].text, &address, &why),
				 0);
		assert_same(&address, &good[i].address);
		assert_string_equal(why, "untouched");
	}
}

static void what_is_formatted_reads_back_the_same(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		const char *expected = good[i].formatted;
		char text[ADDRESS_TEXT_CAP];
		struct address again;
		const char *why;

		assert_int_equal(address_format(&good[i].address, text,
						sizeof(text)),
				 0);
		assert_string_equal(text, expected ? expected : good[i].text);
		assert_int_equal(address_parse(text, &again, &why), 0);
		assert_same(&again, &good[i].address);
	}
}

static void every_bad_address_is_refused_with_what_is_wrong(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct address address = { .port = 77 };
		const char *why = "";

		assert_int_equal(address_parse(bad[i].text, &address, &why),
				 -EINVAL);
		assert_non_null(strstr(why, bad[i].why));
		assert_int_equal(address.port, 77);
	}
}

/* Fills text with prefix and then len letters. */
static void make_long(char *text, const char *prefix, size_t len)
{
	size_t at = strlen(prefix);

	memcpy(text, prefix, at);
	memset(text + at, 'a', len);
	text[at + len] = '\0';
}

static void lengths_are_taken_at_the_limit_and_refused_beyond(void **state)
{
	static const struct {
		const char *prefix;
		size_t limit;
	} limits[] = {
		{ "unix:", 107 }, { "xen:", 255 }, { "tcp:", 255 },
		{ "tls:", 255 },  { "", 255 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		struct address address;
		const char *why;
		char text[512];

		make_long(text, limits[i].prefix, limits[i].limit);
		assert_int_equal(address_parse(text, &address, &why), 0);
		assert_int_equal(strlen(address.host), limits[i].limit);

		make_long(text, limits[i].prefix, limits[i].limit + 1);
		assert_int_equal(address_parse(text, &address, &why), -EINVAL);
	}
}

static void any_address_fits_the_text_cap(void **state)
{
	struct address address = { .kind = ADDRESS_VSOCK,
				   .port = UINT16_MAX,
				   .cid = UINT32_MAX };
	char text[ADDRESS_TEXT_CAP];

	(void)state;
	assert_int_equal(address_format(&address, text, sizeof(text)), 0);
	for (int kind = ADDRESS_XEN; kind <= ADDRESS_UNIX; kind++) {
		address.kind = (enum address_kind)kind;
		memset(address.host, ':', sizeof(address.host) - 1);

		assert_int_equal(address_format(&address, text, sizeof(text)),
				 0);
	}
}

static void a_buffer_too_small_is_refused_and_left_alone(void **state)
{
	struct address address = { .kind = ADDRESS_XEN, .host = "abc" };
	char text[8] = "before";

	(void)state;
	assert_int_equal(address_format(&address, text, 7), -ENOSPC);
	assert_string_equal(text, "before");

	assert_int_equal(address_format(&address, text, 8), 0);
	assert_string_equal(text, "xen:abc");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_good_address_is_read),
		cmocka_unit_test(what_is_formatted_reads_back_the_same),
		cmocka_unit_test(
			every_bad_address_is_refused_with_what_is_wrong),
		cmocka_unit_test(
			lengths_are_taken_at_the_limit_and_refused_beyond),
		cmocka_unit_test(any_address_fits_the_text_cap),
		cmocka_unit_test(a_buffer_too_small_is_refused_and_left_alone),
	};

	return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
