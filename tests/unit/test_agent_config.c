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
	assert_int_equal(config.max_connections, 64);
	assert_false(config.allow_remote);
}

static void every_option_is_read(void **state)
{
	struct agent_config config;
	char why[AGENT_WHY_BYTES];

	(void)state;
	assert_int_equal(load("listen = { \"127.0.0.1:1\", \"[::1]:2\" }\n"
			      "gateways = { \"xen:0\", \"tcp:lab\" }\n"
			      "max_connections = 1024\n"
			      "allow_remote = true\n",
			      &config, why),
			 0);

	assert_int_equal(config.num_listen, 2);
	assert_int_equal(config.listen[1].port, 2);
	assert_int_equal(config.num_gateways, 2);
	assert_int_equal(config.gateways[0].kind, ADDRESS_XEN);
	assert_string_equal(config.gateways[1].host, "lab");
	assert_int_equal(config.max_connections, 1024);
	assert_true(config.allow_remote);
}

static void what_is_wrong_is_refused_with_its_line(void **state)
{
	static const struct {
		const char *text;
		const char *why;
	} rows[] = {
		{ "\ngatways = { \"xen:0\" }\n", "line 2: " },
		{ "listen = { \"unix:/x\" }\n", "HOST:PORT" },
		{ "listen = { \"a:0\" }\n", "is not an address" },
		{ "gateways = { \"xen:0\", \"\" }\n", "is not an address" },
		{ "max_connections = 0\n", "give 1 to 1024" },
		{ "max_connections = 1025\n", "give 1 to 1024" },
		{ "max_connections = many\n", "line 1: " },
		{ "allow_remote = perhaps\n", "line 1: " },
		{ "gateways = { \"xen:0\"", "line 1: " },
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_file_gives_the_usual),
		cmocka_unit_test(every_option_is_read),
		cmocka_unit_test(what_is_wrong_is_refused_with_its_line),
		cmocka_unit_test(a_file_that_is_not_there_is_told),
	};

	return cmocka_run_group_tests_name("agent_config", tests, NULL, NULL);
}
