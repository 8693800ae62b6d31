/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file: what is read, and which line is refused and why. */
#include "gateway/config.h"

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

#include "vchan-transport/channel.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static char dir[] = "/tmp/test_config.XXXXXX";
static char path[64];

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/gateway.conf", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	(void)unlink(path);
	return rmdir(dir);
}

static int load(const char *text, struct config **ret_config,
		char why[static CONFIG_WHY_BYTES])
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	return config_load(path, ret_config, why);
}

static void
an_empty_file_listens_on_the_socket_and_exports_nothing(void **state)
{
	char why[CONFIG_WHY_BYTES];
	struct config *config;

	(void)state;
	assert_int_equal(load("", &config, why), 0);

	assert_int_equal(config->num_listen, 1);
	assert_int_equal(config->listen[0].kind, ADDRESS_UNIX);
	assert_string_equal(config->listen[0].host, "/run/xusbip/gateway.sock");
	assert_string_equal(config->runtime_dir, "/run/xusbip");
	assert_string_equal(config->state_dir, "/var/lib/xusbip");
	assert_int_equal(config->socket_mode, 0600);
	assert_int_equal(config->ring_bytes, CHANNEL_RING_BYTES);
	assert_int_equal(config->budget_bytes, 8 << 20);
	assert_int_equal(config->max_sessions, 128);
	assert_int_equal(config->max_sessions_per_peer, 40);
	assert_int_equal(config->num_rules, 0);
	assert_int_equal(config->num_virtuals, 0);
	assert_false(config->has_xen);
	assert_int_equal(config->vchan_ring_bytes, 262144);
	assert_int_equal(config->num_gateways, 0);
	config_free(config);
}

static void every_word_is_read(void **state)
{
	static const char text[] =
		"listen = { \"unix:/x/y\", \"tcp:[::1]:7\",\n"
		"  \"vsock:any:99\", \"vsock:any\" }\n"
		"socket_mode = \"0660\"\n"
		"socket_group = \"root\"\n"
		"runtime_dir = \"/x\"\n"
		"state_dir = \"/y\"\n"
		"ring_bytes = 131072\n"
		"budget_bytes = 1048576\n"
		"max_sessions = 900\n"
		"max_sessions_per_peer = 1\n"
		"export { vendor = \"046D\" product = \"c52b\" }\n"
		"export { serial = \"A 1\" busid = \"1-1.2\" }\n"
		"zero \"zero0\" { }\n"
		"disk \"stick\" { image = \"/i\" }\n"
		"disk \"old\" { image = \"/j\" read_only = true\n"
		"  high_speed = true }\n";
	char why[CONFIG_WHY_BYTES];
	struct config *c;

	(void)state;
	assert_int_equal(load(text, &c, why), 0);

	assert_int_equal(c->num_listen, 4);
	assert_string_equal(c->listen[0].host, "/x/y");
	assert_string_equal(c->listen[1].host, "::1");
	assert_int_equal(c->listen[1].port, 7);
	assert_true(c->listen[2].cid == UINT32_MAX);
	assert_int_equal(c->listen[2].port, 99);
	assert_int_equal(c->listen[3].port, 3240);
	assert_int_equal(c->socket_mode, 0660);
	assert_int_equal(c->socket_group, 0);
	assert_string_equal(c->runtime_dir, "/x");
	assert_string_equal(c->state_dir, "/y");
	assert_int_equal(c->ring_bytes, 131072);
	assert_int_equal(c->budget_bytes, 1048576);
	assert_int_equal(c->max_sessions, 900);
	assert_int_equal(c->max_sessions_per_peer, 1);

	assert_int_equal(c->num_rules, 2);
	assert_true(c->rules[0].has_vendor && c->rules[0].has_product);
	assert_int_equal(c->rules[0].vendor, 0x046d);
	assert_int_equal(c->rules[0].product, 0xc52b);
	assert_string_equal(c->rules[0].serial, "");
	assert_false(c->rules[1].has_vendor || c->rules[1].has_product);
	assert_string_equal(c->rules[1].serial, "A 1");
	assert_string_equal(c->rules[1].busid, "1-1.2");

	assert_int_equal(c->num_virtuals, 3);
	assert_string_equal(c->virtuals[0].busid, "stick");
	assert_int_equal(c->virtuals[0].kind, IPC_KIND_DISK);
	assert_string_equal(c->virtuals[0].image, "/i");
	assert_false(c->virtuals[0].is_read_only);
	assert_false(c->virtuals[0].is_high_speed);
	assert_true(c->virtuals[1].is_read_only);
	assert_true(c->virtuals[1].is_high_speed);
	assert_string_equal(c->virtuals[2].busid, "zero0");
	assert_int_equal(c->virtuals[2].kind, IPC_KIND_ZERO);
	config_free(c);
}

static void sections_name_the_domains_that_they_are_for(void **state)
{
	static const char text[] =
		"listen = { }\n"
		"xen = true\n"
		"vchan_ring_bytes = 4096\n"
		"export { busid = \"1-1\" domains = { \"u1\", \"*\" } }\n"
		"export { busid = \"1-2\" }\n"
		"disk \"stick\" { image = \"/i\" domains = { \"a b\" } }\n"
		"zero \"zero0\" { domains = { \"u2\" } }\n"
		"gateway \"usbvm\" { domains = { \"u1\", \"u3\" } }\n";
	char why[CONFIG_WHY_BYTES];
	struct config *c;

	(void)state;
	assert_int_equal(load(text, &c, why), 0);
	assert_int_equal(c->num_listen, 0);
	assert_true(c->has_xen);
	assert_int_equal(c->vchan_ring_bytes, 4096);
	assert_int_equal(c->rules[0].to.domains.num, 2);
	assert_string_equal(c->rules[0].to.domains.names[0], "u1");
	assert_string_equal(c->rules[0].to.domains.names[1], "*");
	assert_int_equal(c->rules[1].to.domains.num, 0);
	assert_string_equal(c->virtuals[0].to.domains.names[0], "a b");
	assert_string_equal(c->virtuals[1].to.domains.names[0], "u2");
	assert_int_equal(c->num_gateways, 1);
	assert_string_equal(c->gateways[0].domain, "usbvm");
	assert_int_equal(c->gateways[0].domains.num, 2);
	assert_string_equal(c->gateways[0].domains.names[1], "u3");
	config_free(c);
}

#define HASH                                                          \
	"sha256:00112233445566778899AABBCCDDEEFF00112233445566778899" \
	"aabbccddeeff"

static void a_rule_has_sets_of_classes_and_a_hash_and_may_deny(void **state)
{
	static const char text[] =
		"# first\n"
		"export { interfaces_any = { \"03\", \"08:06\", \"0E:01:02\" } }\n"
		"export {\n"
		"  descriptors = \"" HASH "\"\n"
		"  interfaces_all = { \"01\" }\n"
		"  interfaces_only = { \"ff\", \"00:00:00\" }\n"
		"  interfaces_none = { \"e0:01\" }\n"
		"  deny = true\n"
		"}\n";
	char why[CONFIG_WHY_BYTES];
	const struct policy_pattern *p;
	struct config *c;

	(void)state;
	assert_int_equal(load(text, &c, why), 0);
	assert_int_equal(c->num_rules, 2);
	assert_int_equal(c->rules[0].line, 2);
	assert_false(c->rules[0].is_deny || c->rules[0].has_hash);
	assert_int_equal(c->rules[0].any.num, 3);
	p = c->rules[0].any.patterns;
	assert_int_equal(p[0].num_given, 1);
	assert_int_equal(p[0].class.class, 3);
	assert_int_equal(p[1].num_given, 2);
	assert_int_equal(p[1].class.subclass, 6);
	assert_int_equal(p[2].num_given, 3);
	assert_int_equal(p[2].class.class, 0x0e);
	assert_int_equal(p[2].class.protocol, 2);
	assert_int_equal(c->rules[0].all.num + c->rules[0].only.num +
				 c->rules[0].none.num,
			 0);

	assert_int_equal(c->rules[1].line, 3);
	assert_true(c->rules[1].is_deny && c->rules[1].has_hash);
	assert_int_equal(c->rules[1].hash[1], 0x11);
	assert_int_equal(c->rules[1].hash[31], 0xff);
	assert_int_equal(c->rules[1].any.num, 0);
	assert_int_equal(c->rules[1].all.num, 1);
	assert_int_equal(c->rules[1].only.num, 2);
	assert_int_equal(c->rules[1].only.patterns[0].class.class, 0xff);
	assert_int_equal(c->rules[1].none.patterns[0].class.class, 0xe0);
	config_free(c);
}

static void sections_name_peers_and_users(void **state)
{
	static const char text[] =
		"export { busid = \"1-1\"\n"
		"  peers = { \"anna.example\", \"" HASH "\", \"*\" } }\n"
		"disk \"d\" { image = \"/i\" users = { \"root\", \"0012\" } }\n"
		"zero \"z\" { users = { \"*\" } peers = { \"b\" }\n"
		"  domains = { \"u1\" } }\n";
	char why[CONFIG_WHY_BYTES];
	struct config *c;

	(void)state;
	assert_int_equal(load(text, &c, why), 0);
	assert_int_equal(c->rules[0].to.peers.num, 3);
	assert_string_equal(c->rules[0].to.peers.names[0], "anna.example");
	assert_string_equal(c->rules[0].to.peers.names[1], HASH);
	assert_string_equal(c->rules[0].to.peers.names[2], "*");
	assert_int_equal(c->rules[0].to.users.num, 0);
	assert_int_equal(c->virtuals[0].line, 3);
	assert_int_equal(c->virtuals[0].to.users.num, 2);
	assert_string_equal(c->virtuals[0].to.users.names[0], "0");
	assert_string_equal(c->virtuals[0].to.users.names[1], "12");
	assert_int_equal(c->virtuals[1].line, 4);
	assert_string_equal(c->virtuals[1].to.users.names[0], "*");
	assert_string_equal(c->virtuals[1].to.peers.names[0], "b");
	assert_string_equal(c->virtuals[1].to.domains.names[0], "u1");
	config_free(c);
}

static void a_rule_may_be_for_devices_of_a_remote(void **state)
{
	static const char text[] =
		"export { remote = \"lab\" busid = \"zero0@far\" }\n"
		"export { remote = \"*\" }\n"
		"remote \"lab\" { address = \"tls:lab.example\" }\n";
	char why[CONFIG_WHY_BYTES];
	struct config *c;

	(void)state;
	assert_int_equal(load(text, &c, why), 0);
	assert_string_equal(c->rules[0].remote, "lab");
	assert_string_equal(c->rules[0].busid, "zero0@far");
	assert_string_equal(c->rules[1].remote, "*");
	assert_true(policy_rule_is_given(&c->rules[1]));
	assert_string_equal(c->remotes[0].name, "lab");
	config_free(c);
}

static const struct {
	const char *text;
	int line;
	const char *reason;
} refused[] = {
	{ "export { deny = true }", 1, "empty rule" },
	{ "export { peers = { \"a\" } users = { \"*\" } }", 1, "empty rule" },
	{ "export { busid = \"1-1\" deny = maybe }", 1, "boolean" },
	{ "export { interfaces_any = { \"3\" } }", 1, "lsusb -v" },
	{ "export { interfaces_all = { \"03:\" } }", 1, "lsusb -v" },
	{ "export { interfaces_only = { \"03:01:01:01\" } }", 1, "lsusb -v" },
	{ "export { interfaces_none = { \"0g\" } }", 1, "lsusb -v" },
	{ "export { interfaces_any = { \"03\",\n\"030101\" } }", 2, "lsusb" },
	{ "export { interfaces_any = { \"*\" } }", 1, "interfaces_any" },
	{ "export { interfaces_any = { } }", 1, "at least one" },
	{ "export { busid = \"1-1\" interfaces_none = { } }", 1, "at least" },
	{ "export { descriptors = \"sha256:12\" }", 1, "sha256sum" },
	{ "export { descriptors = \"" HASH "0\" }", 1, "sha256sum" },
	{ "export { busid = \"zero0\" }", 1, "of a remote" },
	{ "export { remote = \"\" }", 1, "remote section" },
	{ "export { remote = \"a b\" }", 1, "remote section" },
	{ "export { remote = \"1234567890123456\" }", 1, "remote section" },
	{ "\nexport {\nremote = \"lab\"\n}", 2, "no remote of this name" },
	{ "export { remote = \"*\" busid = \"a b\" }", 1, "bus id" },
	{ "zero \"z\" { peers = { \"a b\" } }", 1, "certificates" },
	{ "zero \"z\" { peers = { \"sha256:12\" } }", 1, "certificates" },
	{ "zero \"z\" { peers = { } }", 1, "at least one" },
	{ "zero \"z\" { users = { \"no such user\" } }", 1, "no such user\"" },
	{ "zero \"z\" { users = { \"4294967295\" } }", 1, "no such user;" },
	{ "zero \"z\" { users = { \"\" } }", 1, "no such user;" },
	{ "zero \"z\" { users = { } }", 1, "at least one" },
	{ "zero \"z\" { deny = true }", 1, "deny" },
	{ "gateway \"g\" { peers = { \"a\" } }", 1, "peers" },
	{ "remote \"a/b\" { address = \"tcp:h\" }", 1, "name has" },
	{ "remote \"lab\" { }", 1, "where it is" },
	{ "remote \"lab\" { address = \"xen:0\" }", 1, "from there" },
	{ "remote \"lab\" { pin = \"12\" }", 1, "xusbip-ca show" },
	{ "tls_dir = \"tls\"", 1, "absolute" },
	{ "calls_per_second = 0", 1, "from 1 to" },
	{ "peer_timeout = 1", 1, "from" },
	{ "\nlisen = { }", 2, "lisen" },
	{ "export { vendr = \"1234\" }", 1, "vendr" },
	{ "zero \"z\" { image = \"/x\" }", 1, "image" },
	{ "listen = { \"unix:/x\",\n\"tls:\" }", 2, "host" },
	{ "listen = { \"xen:0\" }", 1, "say xen = true" },
	{ "listen = { \"tcp:h:0\" }", 1, "port" },
	{ "listen = { \"unix:x\" }", 1, "absolute" },
	{ "socket_mode = \"0999\"", 1, "octal" },
	{ "socket_mode = \"4755\"", 1, "octal" },
	{ "socket_group = \"no such group\"", 1, "no such group" },
	{ "runtime_dir = \"run\"", 1, "absolute" },
	{ "state_dir = \"lib\"", 1, "state_dir = \"lib\": give an absolute" },
	{ "ring_bytes = 65535", 1, "65536" },
	{ "ring_bytes = 33554432", 1, "16777216" },
	{ "ring_bytes = 65537", 1, "power of two" },
	{ "ring_bytes = many", 1, "ring_bytes" },
	{ "budget_bytes = 0", 1, "1048576" },
	{ "vchan_ring_bytes = 2048", 1, "from 4096" },
	{ "vchan_ring_bytes = 2097152", 1, "1048576" },
	{ "vchan_ring_bytes = 12288", 1, "power of two" },
	{ "max_sessions = 0", 1, "from 1 to" },
	{ "max_sessions = 901", 1, "from 1 to" },
	{ "max_sessions_per_peer = -1", 1, "from 1 to" },
	{ "\n\nexport { }", 3, "empty rule" },
	{ "export { vendor = \"46d\" }", 1, "hexadecimal" },
	{ "export { vendor = \"0x46\" }", 1, "hexadecimal" },
	{ "export { product = \"46 d\" }", 1, "hexadecimal" },
	{ "export { serial = \"\" }", 1, "serial" },
	{ "export { busid = \"stick\" }", 1, "bus id" },
	{ "disk \"stick\" { }", 1, "image" },
	{ "disk \"stick\" { image = \"x\" }", 1, "absolute" },
	{ "disk \"s\" { image = \"/x\" read_only = perhaps }", 1, "boolean" },
	{ "zero \"\" { }", 1, "name" },
	{ "zero \"12345678901234567890123456789012\" { }", 1, "name" },
	{ "zero \"../x\" { }", 1, "name" },
	{ "zero \"a/b\" { }", 1, "name" },
	{ "zero \"1-1.2\" { }", 1, "real device" },
	{ "zero \"usb1\" { }", 1, "real device" },
	{ "zero \"z\" { }\nzero \"z\" { }", 2, "duplicate title" },
	{ "zero \"z\" { }\ndisk \"z\" { image = \"/x\" }", 2, "another" },
	{ "export { busid = \"1-1\"\ndomains = { } }", 2, "at least one" },
	{ "export { domains = { \"u1\" } }", 1, "empty rule" },
	{ "zero \"z\" { domains = { } }", 1, "at least one" },
	{ "zero \"z\" { domains = { \"\" } }", 1, "printable" },
	{ "zero \"z\" { domains = { \"a\", \"\\n\" } }", 1, "printable" },
	{ "zero \"z\" { domains = { \"0123456789012345678901234567890123456789"
	  "0123456789012345678901234567890123456789\" } }",
	  1, "printable" },
	{ "gateway \"g\" { }", 1, "for which domains" },
	{ "gateway \"g\" { domains = { } }", 1, "for which domains" },
	{ "gateway \"*\" { domains = { \"u1\" } }", 1, "UUID" },
	{ "gateway \"\" { domains = { \"u1\" } }", 1, "UUID" },
	{ "zero \"z\" {", 2, "missing_closing_brace" },
	{ "export { vendor = \"1234\"\n", 3, "missing_closing_brace" },
	{ "export { vendor = \"12", 2, "premature end" },
	{ "/* never ends", 2, "within a comment" },
};

static void a_bad_line_is_refused_with_its_number_and_reason(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		char why[CONFIG_WHY_BYTES];
		char place[80];
		struct config *config = NULL;

		(void)snprintf(place, sizeof(place), "%s:%d: ", path,
			       refused[i].line);
		if (load(refused[i].text, &config, why) != -EINVAL)
			fail_msg("accepted: %s", refused[i].text);
		assert_null(config);
		if (strncmp(why, place, strlen(place)) != 0 ||
		    !strstr(why, refused[i].reason))
			fail_msg("%s: %s", refused[i].text, why);
		assert_null(strchr(why, '\n'));
	}
}

static void a_file_without_a_listener_is_refused(void **state)
{
	char why[CONFIG_WHY_BYTES];
	struct config *config;

	(void)state;
	assert_int_equal(load("listen = { }", &config, why), -EINVAL);
	assert_non_null(strstr(why, "listen: give at least one address"));
}

/* As many lines, each with another number between its two parts. */
static void repeat(char *to, size_t cap, const char *before, const char *after,
		   int count)
{
	size_t len = 0;

	for (int i = 0; i < count; i++)
		len += (size_t)snprintf(to + len, cap - len, "%s%d%s\n", before,
					1000 + i, after);
}

static void a_list_at_its_limit_is_read_and_one_more_is_refused(void **state)
{
	static const char rule[] = "export { vendor = \"";
	static const char zero[] = "zero \"z";
	char text[(CONFIG_MAX_RULES + 1) * 40] = "";
	char why[CONFIG_WHY_BYTES];
	struct config *config;

	(void)state;
	repeat(text, sizeof(text), rule, "\" }", CONFIG_MAX_RULES);
	assert_int_equal(load(text, &config, why), 0);
	assert_int_equal(config->num_rules, CONFIG_MAX_RULES);
	config_free(config);
	repeat(text, sizeof(text), rule, "\" }", CONFIG_MAX_RULES + 1);
	assert_int_equal(load(text, &config, why), -EINVAL);
	assert_non_null(strstr(why, "more than 256"));

	repeat(text, sizeof(text), zero, "\" { }", CONFIG_MAX_VIRTUALS);
	assert_int_equal(load(text, &config, why), 0);
	assert_int_equal(config->num_virtuals, CONFIG_MAX_VIRTUALS);
	config_free(config);
	repeat(text, sizeof(text), zero, "\" { }", CONFIG_MAX_VIRTUALS + 1);
	assert_int_equal(load(text, &config, why), -EINVAL);
	assert_non_null(strstr(why, "more than 64"));

	repeat(text, sizeof(text), "gateway \"g", "\" { domains = { \"u\" } }",
	       CONFIG_MAX_GATEWAYS);
	assert_int_equal(load(text, &config, why), 0);
	assert_int_equal(config->num_gateways, CONFIG_MAX_GATEWAYS);
	config_free(config);
	repeat(text, sizeof(text), "gateway \"g", "\" { domains = { \"u\" } }",
	       CONFIG_MAX_GATEWAYS + 1);
	assert_int_equal(load(text, &config, why), -EINVAL);
	assert_non_null(strstr(why, "more than 16"));
}

static void a_section_names_so_many_domains_and_no_more(void **state)
{
	char text[POLICY_MAX_NAMES * 16 + 80];
	char why[CONFIG_WHY_BYTES];
	struct config *config;

	(void)state;
	for (int more = 0; more <= 1; more++) {
		size_t len = (size_t)snprintf(text, sizeof(text),
					      "zero \"z\" { domains = { \"u\"");

		for (int i = 1; i < POLICY_MAX_NAMES + more; i++)
			len += (size_t)snprintf(text + len, sizeof(text) - len,
						", \"u%d\"", i);
		(void)snprintf(text + len, sizeof(text) - len, " } }");
		assert_int_equal(load(text, &config, why), more ? -EINVAL : 0);
		if (more)
			continue;
		assert_int_equal(config->virtuals[0].to.domains.num,
				 POLICY_MAX_NAMES);
		config_free(config);
	}
	assert_non_null(strstr(why, "more than 32"));
}

static void a_rule_names_so_many_classes_and_no_more(void **state)
{
	char text[POLICY_MAX_PATTERNS * 8 + 80];
	char why[CONFIG_WHY_BYTES];
	struct config *config;

	(void)state;
	for (int more = 0; more <= 1; more++) {
		size_t len = (size_t)snprintf(text, sizeof(text),
					      "export { interfaces_any = { "
					      "\"03\"");

		for (int i = 1; i < POLICY_MAX_PATTERNS + more; i++)
			len += (size_t)snprintf(text + len, sizeof(text) - len,
						", \"%02x\"", i);
		(void)snprintf(text + len, sizeof(text) - len, " } }");
		assert_int_equal(load(text, &config, why), more ? -EINVAL : 0);
		if (more)
			continue;
		assert_int_equal(config->rules[0].any.num, POLICY_MAX_PATTERNS);
		config_free(config);
	}
	assert_non_null(strstr(why, "more than 16"));
}

static void what_is_not_a_file_is_refused_with_its_name(void **state)
{
	char why[CONFIG_WHY_BYTES];
	struct config *config;

	(void)state;
	assert_int_equal(config_load("/no/such", &config, why), -ENOENT);
	assert_string_equal(why, "/no/such: No such file or directory");
	assert_int_equal(config_load(dir, &config, why), -EINVAL);
	assert_non_null(strstr(why, "not a file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			an_empty_file_listens_on_the_socket_and_exports_nothing),
		cmocka_unit_test(every_word_is_read),
		cmocka_unit_test(sections_name_the_domains_that_they_are_for),
		cmocka_unit_test(
			a_rule_has_sets_of_classes_and_a_hash_and_may_deny),
		cmocka_unit_test(sections_name_peers_and_users),
		cmocka_unit_test(a_rule_may_be_for_devices_of_a_remote),
		cmocka_unit_test(a_rule_names_so_many_classes_and_no_more),
		cmocka_unit_test(
			a_bad_line_is_refused_with_its_number_and_reason),
		cmocka_unit_test(a_file_without_a_listener_is_refused),
		cmocka_unit_test(
			a_list_at_its_limit_is_read_and_one_more_is_refused),
		cmocka_unit_test(a_section_names_so_many_domains_and_no_more),
		cmocka_unit_test(what_is_not_a_file_is_refused_with_its_name),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
