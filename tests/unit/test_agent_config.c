/* SPDX-License-Identifier: Apache-2.0 */
/* xusbip-frontend.conf: what is read, and what is refused with its line. */
#include "frontend/agent_config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Loads a file of that text. */
static int load(const char *text, struct agent_config *ret_config,
		char why[AGENT_WHY_BYTES])
{
	char path[] = "/tmp/test_agent_config.XXXXXX";
	int fd = mkstemp(path);
	int r;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	(void)close(fd);
	r = agent_config_load(path, ret_config, why);
	(void)unlink(path);
	return r;
}

static void an_empty_file_gives_the_usual(void **state)
{
	struct agent_config config;
	char why[AGENT_WHY_BYTES];

	(void)state;
	assert_int_equal(load("# nothing\n", &config, why), 0);

	assert_int_equal(config.num_listen, 1);
	assert_string_equal(config.listen[0].host, "127.0.0.1");
	assert_int_equal(config.listen[0].port, 3240);
	assert_int_equal(config.num_gateways, 1);
	assert_int_equal(config.gateways[0].kind, ADDRESS_UNIX);
	assert_string_equal(config.gateways[0].host,
			    "/run/xusbip/gateway.sock");
	assert_true(config.has_usual_gateways);
	assert_string_equal(config.tls_dir, TLS_DIR);
	assert_int_equal(config.num_wishes, 0);
	assert_int_equal(config.max_connections, 64);
	assert_false(config.allow_remote);
}

static void the_usual_gateway_is_asked_where_its_socket_is(void **state)
{
	struct agent_config config;
	char why[AGENT_WHY_BYTES];

	(void)state;
	assert_int_equal(load("", &config, why), 0);
	(void)snprintf(config.gateways[0].host, sizeof(config.gateways[0].host),
		       "/nonexistent/gateway.sock");
	assert_false(agent_config_has_gateway(&config, 0));
	(void)snprintf(config.gateways[0].host, sizeof(config.gateways[0].host),
		       "/tmp");
	assert_true(agent_config_has_gateway(&config, 0));

	assert_int_equal(
		load("gateways = { \"unix:/nonexistent\" }", &config, why), 0);
	assert_true(agent_config_has_gateway(&config, 0));
}

static void every_option_is_read(void **state)
{
	struct agent_config config;
	char why[AGENT_WHY_BYTES];

	(void)state;
	assert_int_equal(load("listen = { \"127.0.0.1:1\", \"[::1]:2\" }\n"
			      "gateways = { \"xen:0\", \"tcp:lab\" }\n"
			      "max_connections = 1024\n"
			      "tls_dir = \"/srv/tls\"\n"
			      "allow_remote = true\n",
			      &config, why),
			 0);

	assert_int_equal(config.num_listen, 2);
	assert_int_equal(config.listen[1].port, 2);
	assert_int_equal(config.num_gateways, 2);
	assert_int_equal(config.gateways[0].kind, ADDRESS_XEN);
	assert_string_equal(config.gateways[1].host, "lab");
	assert_false(config.has_usual_gateways);
	assert_string_equal(config.tls_dir, "/srv/tls");
	assert_int_equal(config.max_connections, 1024);
	assert_true(config.allow_remote);
}

#define PIN                                       \
	"sha256:00112233445566778899aabbccddeeff" \
	"00112233445566778899AABBCCDDEEFF"

static void attach_sections_are_read(void **state)
{
	struct agent_config config;
	char why[AGENT_WHY_BYTES];

	(void)state;
	assert_int_equal(load("attach \"stick\" { gateway = \"tls:lab\"\n"
			      "  pin = \"" PIN "\" vendor = \"0781\"\n"
			      "  product = \"5581\" }\n"
			      "attach \"pad\" { gateway = \"xen:0\"\n"
			      "  busid = \"1-1.2\" }\n",
			      &config, why),
			 0);

	assert_int_equal(config.num_wishes, 2);
	assert_string_equal(config.wishes[0].name, "stick");
	assert_true(config.wishes[0].is_section);
	assert_int_equal(config.wishes[0].gateway.kind, ADDRESS_TLS);
	assert_string_equal(config.wishes[0].pin, PIN);
	assert_string_equal(config.wishes[0].busid, "");
	assert_int_equal(config.wishes[0].vendor, 0x0781);
	assert_int_equal(config.wishes[0].product, 0x5581);
	assert_int_equal(config.wishes[1].gateway.kind, ADDRESS_XEN);
	assert_string_equal(config.wishes[1].busid, "1-1.2");
	assert_int_equal(config.wishes[1].vendor, 0);
}

#define SECTION(rest) "attach \"a\" { " rest " }\n"

static void a_wrong_attach_section_is_refused_with_its_line(void **state)
{
	static const struct {
		const char *text;
		const char *why;
	} rows[] = {
		{ SECTION("busid = \"1-1\""), "gateway is missing" },
		{ SECTION("gateway = \"tls:\" busid = \"1-1\""), "line 1: " },
		{ SECTION("gateway = \"tcp:a\""), "are missing" },
		{ SECTION("gateway = \"tcp:a\" vendor = \"1\""),
		  "go together" },
		{ SECTION("gateway = \"tcp:a\" busid = \"1-1\" "
			  "product = \"1\""),
		  "go together" },
		{ SECTION("gateway = \"tcp:a\" vendor = \"12345\" "
			  "product = \"1\""),
		  "hexadecimal" },
		{ SECTION("gateway = \"tcp:a\" vendor = \"0\" "
			  "product = \"0\""),
		  "hexadecimal" },
		{ SECTION("gateway = \"tcp:a\" busid = \"a b\""), "bus id" },
		{ SECTION("gateway = \"tcp:a\" busid = \"1-1\" "
			  "pin = \"" PIN "\""),
		  "only a tls:" },
		{ SECTION("gateway = \"tls:a\" busid = \"1-1\" "
			  "pin = \"sha256:00\""),
		  "64 hexadecimal" },
		{ SECTION("gateway = \"tcp:a\" busid = \"1-1\" "
			  "serial = \"1\""),
		  "serial" },
		{ "\nattach \"a/b\" { gateway = \"tcp:a\" busid = \"1\" }",
		  "line 2: " },
		{ SECTION("gateway = \"tcp:a\" busid = \"1-1\"")
			  SECTION("gateway = \"tcp:a\" busid = \"1-2\""),
		  "line 2: " },
		{ "tls_dir = \"tls\"\n", "a path from /" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct agent_config config = { .max_connections = 77 };
		char why[AGENT_WHY_BYTES];

		assert_int_equal(load(rows[i].text, &config, why), -EINVAL);
		if (!strstr(why, rows[i].why))
			fail_msg("%s: %s", rows[i].text, why);
		assert_int_equal(config.max_connections, 77);
	}
}

static void there_are_so_many_attach_sections_and_no_more(void **state)
{
	struct agent_config config;
	char why[AGENT_WHY_BYTES];
	char text[8192] = "";
	size_t used = 0;

	(void)state;
	for (int i = 0; i <= WISH_MAX; i++) {
		int expected = i == WISH_MAX ? -EINVAL : 0;

		used += (size_t)snprintf(text + used, sizeof(text) - used,
					 "attach \"a%d\" { gateway = \"tcp:a\" "
					 "busid = \"1\" }\n",
					 i);
		assert_int_equal(load(text, &config, why), expected);
	}
	assert_int_equal(config.num_wishes, WISH_MAX);
	assert_non_null(strstr(why, "more than 32"));
}

static void what_is_wrong_is_refused_with_its_line(void **state)
{
	static const struct {
		const char *text;
		const char *why;
	} rows[] = {
		{ "\ngatways = { \"xen:0\" }\n", "line 2: " },
		{ "# one\n#\n\ngatways = { \"xen:0\" } # four\n", "line 4: " },
		{ "listen = { \"127.0.0.1\" } # one\nallow_remote = perhaps\n",
		  "line 2: " },
		{ "# one\nattach \"a\" {\n# three\ngateway = \"tls:\"\n}\n",
		  "line 5: " },
		{ "attach \"a\" {\ngateway = \"xen:0\"\nbusid = \"1-1\"\n",
		  "no such option" },
		{ "max_connections = 5\n/* without end\n", "within a comment" },
		{ "listen = { \"unix:/x\" }\n", "HOST:PORT" },
		{ "listen = { \"a:0\" }\n", "is not an address" },
		{ "gateways = { \"xen:0\", \"\" }\n", "is not an address" },
		{ "max_connections = 0\n", "give 1 to 1024" },
		{ "max_connections = 1025\n", "give 1 to 1024" },
		{ "max_connections = many\n", "line 1: " },
		{ "allow_remote = perhaps\n", "line 1: " },
		{ "gateways = { \"xen:0\"", "missing_closing_brace" },
		{ "gateways = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17}\n",
		  "more than 16" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct agent_config config = { .max_connections = 77 };
		char why[AGENT_WHY_BYTES];

		assert_int_equal(load(rows[i].text, &config, why), -EINVAL);
		assert_non_null(strstr(why, rows[i].why));
		assert_int_equal(config.max_connections, 77);
	}
}

static void a_file_that_is_not_there_is_told(void **state)
{
	struct agent_config config;
	char why[AGENT_WHY_BYTES];

	(void)state;
	assert_int_equal(agent_config_load("/nonexistent/xusbip.conf", &config,
					   why),
			 -ENOENT);
	assert_string_equal(why, "No such file or directory");
}

static void what_is_no_file_is_told(void **state)
{
	struct agent_config config;
	char why[AGENT_WHY_BYTES];

	(void)state;
	assert_true(agent_config_load("/tmp", &config, why) < 0);
	assert_string_equal(why, "it is not a file");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_file_gives_the_usual),
		cmocka_unit_test(
			the_usual_gateway_is_asked_where_its_socket_is),
		cmocka_unit_test(every_option_is_read),
		cmocka_unit_test(attach_sections_are_read),
		cmocka_unit_test(
			a_wrong_attach_section_is_refused_with_its_line),
		cmocka_unit_test(there_are_so_many_attach_sections_and_no_more),
		cmocka_unit_test(what_is_wrong_is_refused_with_its_line),
		cmocka_unit_test(a_file_that_is_not_there_is_told),
		cmocka_unit_test(what_is_no_file_is_told),
	};

	return cmocka_run_group_tests_name("agent_config", tests, NULL, NULL);
}
