/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of avahi-browse: what announces a gateway, and what does not. */
#include "frontend/finding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BEFORE "=;eth0;IPv4;lab;_xusbip._tcp;local;"

static size_t add(struct finding *finding, const char *text)
{
	char line[1024];

	(void)snprintf(line, sizeof(line), "%s", text);
	finding_add_announced(finding, line);
	return finding->count;
}

static void a_gateway_that_announces_itself_is_found_once(void **state)
{
	struct finding finding = { 0 };

	(void)state;
	(void)add(&finding, BEFORE "lab.local;10.0.0.2;3241;\"version=0.1\"");
	(void)add(&finding, "=;eth0;IPv6;lab;_xusbip._tcp;local;lab.local;"
			    "fe80::1;3241;");

	assert_int_equal(finding.count, 1);
	assert_string_equal(finding.gateways[0].name, "tls:lab.local:3241");
	assert_int_equal(finding.gateways[0].address.kind, ADDRESS_TLS);
	assert_string_equal(finding.gateways[0].pin, "");
}

static void what_announces_no_gateway_is_left_out(void **state)
{
	static const char *const lines[] = {
		"",
		";;;;;;;;;;;;",
		"+;eth0;IPv4;lab;_xusbip._tcp;local",
		"=;eth0;IPv4;lab;_xusbip._tcp;local",
		BEFORE "lab.local;10.0.0.2",
		BEFORE "lab.local;10.0.0.2;;",
		BEFORE "lab.local;10.0.0.2;0;",
		BEFORE "lab.local;10.0.0.2;65536;",
		BEFORE "lab.local;10.0.0.2;-1;",
		BEFORE "lab.local;10.0.0.2;3241x;",
		BEFORE ";10.0.0.2;3241;",
		BEFORE "-r;10.0.0.2;3241;",
		BEFORE "lab local;10.0.0.2;3241;",
		BEFORE "lab:1;10.0.0.2;3241;",
		BEFORE "[::1];10.0.0.2;3241;",
		BEFORE "\x1b[2J;10.0.0.2;3241;",
		BEFORE "\xff\xfe;10.0.0.2;3241;",
	};
	struct finding finding = { 0 };
	char longest[600];

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		assert_int_equal(add(&finding, lines[i]), 0);
	(void)snprintf(longest, sizeof(longest), BEFORE "%0400d;;3241;", 1);
	assert_int_equal(add(&finding, longest), 0);
}

static void there_is_room_for_so_many_and_no_more(void **state)
{
	struct finding finding = { 0 };
	char line[256];

	(void)state;
	for (unsigned i = 0; i < FINDING_MAX + 1; i++) {
		(void)snprintf(line, sizeof(line), BEFORE "lab%u.local;;3241;",
			       i);
		(void)add(&finding, line);
	}
	assert_int_equal(finding.count, FINDING_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_gateway_that_announces_itself_is_found_once),
		cmocka_unit_test(what_announces_no_gateway_is_left_out),
		cmocka_unit_test(there_is_room_for_so_many_and_no_more),
	};

	return cmocka_run_group_tests_name("finding", tests, NULL, NULL);
}
