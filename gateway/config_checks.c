/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/config_checks.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <confuse.h>

#include "gateway/config.h"
#include "gateway/config_lists.h"
#include "vchan-transport/channel.h"

#define MIB ((long)1 << 20)

/* One more of each kind than is read. */
#define MAX_SECTIONS                                                    \
	(CONFIG_MAX_RULES + CONFIG_MAX_VIRTUALS + CONFIG_MAX_GATEWAYS + \
	 CONFIG_MAX_REMOTES + 4)

/*
 * Where sections begin, for which libconfuse has no place; of the one file
 * that is read.
 */
static struct {
	const cfg_t *section;
	unsigned line;
} begun[MAX_SECTIONS];
static size_t num_begun;

static const char *last_string(cfg_opt_t *opt)
{
	unsigned n = cfg_opt_size(opt);
	const char *text = n > 0 ? cfg_opt_getnstr(opt, n - 1) : NULL;

	return text ? text : "";
}

static int check_long(cfg_t *cfg, cfg_opt_t *opt, long min, long max)
{
	long value = cfg_opt_getnint(opt, 0);

	if (value >= min && value <= max)
		return 0;
	cfg_error(cfg, "%s = %ld: give a number from %ld to %ld",
		  cfg_opt_name(opt), value, min, max);
	return -1;
}

static int check_power_of_two(cfg_t *cfg, cfg_opt_t *opt, long min, long max)
{
	long value = cfg_opt_getnint(opt, 0);

	if (check_long(cfg, opt, min, max) < 0)
		return -1;
	if ((value & (value - 1)) == 0)
		return 0;
	cfg_error(cfg, "%s = %ld: give a power of two", cfg_opt_name(opt),
		  value);
	return -1;
}

static int check_ring_bytes(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_power_of_two(cfg, opt, CHANNEL_MIN_RING_BYTES,
				  CHANNEL_MAX_RING_BYTES);
}

static int check_vchan_ring_bytes(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_power_of_two(cfg, opt, 4096, MIB);
}

static int check_budget_bytes(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_long(cfg, opt, MIB, 1024 * MIB);
}

static int check_max_sessions(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_long(cfg, opt, 1, 900);
}

static int check_calls_per_second(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_long(cfg, opt, 1, 100000);
}

static int check_peer_timeout(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_long(cfg, opt, CHANNEL_MIN_DEAD_S, 3600);
}

static int check_tls_dir(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *text = last_string(opt);

	if (text[0] == '/' && strlen(text) < TLS_DIR_BYTES)
		return 0;
	cfg_error(cfg,
		  "tls_dir = \"%s\": give an absolute path of up to %d bytes",
		  text, TLS_DIR_BYTES - 1);
	return -1;
}

static int check_pin(cfg_t *cfg, cfg_opt_t *opt)
{
	uint8_t pin[TLS_PIN_BYTES];

	if (tls_pin_parse(last_string(opt), pin) == 0)
		return 0;
	cfg_error(cfg,
		  "pin = \"%s\": give sha256: and 64 hexadecimal digits, as "
		  "xusbip-ca show prints them",
		  last_string(opt));
	return -1;
}

static int check_remote_address(cfg_t *cfg, cfg_opt_t *opt)
{
	struct address address;
	const char *why = "another domain's devices are reached from there";

	if (address_parse(last_string(opt), &address, &why) == 0 &&
	    address.kind != ADDRESS_XEN)
		return 0;
	cfg_error(cfg, "address = \"%s\": %s", last_string(opt), why);
	return -1;
}

/* runtime_dir and state_dir, which are as long. */
static int check_dir(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *text = last_string(opt);

	if (text[0] == '/' &&
	    strlen(text) < sizeof(((struct config *)NULL)->runtime_dir))
		return 0;
	cfg_error(cfg, "%s = \"%s\": give an absolute path of up to 79 bytes",
		  cfg_opt_name(opt), text);
	return -1;
}

bool config_parse_mode(const char *text, mode_t *ret_mode)
{
	size_t len = strlen(text);

	if (len == 0 || len > 4 || strspn(text, "01234567") != len)
		return false;
	*ret_mode = (mode_t)strtoul(text, NULL, 8);
	return *ret_mode <= 0777;
}

static int check_socket_mode(cfg_t *cfg, cfg_opt_t *opt)
{
	mode_t mode;

	if (config_parse_mode(last_string(opt), &mode))
		return 0;
	cfg_error(cfg,
		  "socket_mode = \"%s\": give an octal mode such as "
		  "\"0660\"",
		  last_string(opt));
	return -1;
}

static int check_socket_group(cfg_t *cfg, cfg_opt_t *opt)
{
	if (getgrnam(last_string(opt)))
		return 0;
	cfg_error(cfg,
		  "socket_group = \"%s\": there is no such group; create "
		  "it or remove the line",
		  last_string(opt));
	return -1;
}

int config_parse_listen(const char *text, struct address *ret_address,
			const char **ret_why)
{
	char any[32];
	int r;

	if (strcmp(text, "vsock:any") == 0 ||
	    strncmp(text, "vsock:any:", 10) == 0) {
		(void)snprintf(any, sizeof(any), "vsock:4294967295%s",
			       text + 9);
		text = any;
	}
	r = address_parse(text, ret_address, ret_why);
	if (r < 0)
		return r;
	if (ret_address->kind == ADDRESS_XEN) {
		*ret_why = "domains are not listened for: say xen = true";
		return -EINVAL;
	}
	if (ret_address->kind == ADDRESS_UNIX && ret_address->host[0] != '/') {
		*ret_why = "the path must be absolute";
		return -EINVAL;
	}
	return 0;
}

static int check_listen(cfg_t *cfg, cfg_opt_t *opt)
{
	struct address address;
	const char *why;

	if (cfg_opt_size(opt) > CONFIG_MAX_LISTENERS) {
		cfg_error(cfg, "listen: more than %d addresses",
			  CONFIG_MAX_LISTENERS);
		return -1;
	}
	if (config_parse_listen(last_string(opt), &address, &why) == 0)
		return 0;
	cfg_error(cfg, "listen \"%s\": %s", last_string(opt), why);
	return -1;
}

/* Four hexadecimal digits, as lsusb prints them. */
static int check_id(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *text = last_string(opt);

	if (strlen(text) == 4 && strspn(text, "0123456789abcdefABCDEF") == 4)
		return 0;
	cfg_error(cfg,
		  "%s = \"%s\": give four hexadecimal digits, as lsusb "
		  "prints them",
		  cfg_opt_name(opt), text);
	return -1;
}

static int check_serial(cfg_t *cfg, cfg_opt_t *opt)
{
	size_t len = strlen(last_string(opt));

	if (len > 0 && len < POLICY_SERIAL_BYTES)
		return 0;
	cfg_error(cfg,
		  "serial: give between 1 and %d bytes, or remove the "
		  "line",
		  POLICY_SERIAL_BYTES - 1);
	return -1;
}

/* As it is called where it is: a remote passes on what it has from others. */
static int check_busid(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *text = last_string(opt);
	size_t len = strlen(text);

	if (len > 0 && len < USBIP_BUSID_BYTES &&
	    strspn(text, CONFIG_NAME_CHARS "@") == len)
		return 0;
	cfg_error(cfg, "busid = \"%s\": give a bus id such as \"1-1.2\"", text);
	return -1;
}

static bool is_remote_name(const char *text)
{
	size_t len = strlen(text);

	return len > 0 && len < CONFIG_REMOTE_NAME_BYTES &&
	       strspn(text, CONFIG_NAME_CHARS) == len;
}

static int check_rule_remote(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *text = last_string(opt);

	if (strcmp(text, "*") == 0 || is_remote_name(text))
		return 0;
	cfg_error(cfg,
		  "remote = \"%s\": give the name of a remote section, or "
		  "\"*\"",
		  text);
	return -1;
}

/* A hash has the form of a pin. */
static int check_hash(cfg_t *cfg, cfg_opt_t *opt)
{
	uint8_t hash[TLS_PIN_BYTES];

	if (tls_pin_parse(last_string(opt), hash) == 0)
		return 0;
	cfg_error(
		cfg,
		"%s = \"%s\": give sha256: and 64 hexadecimal digits, as "
		"sha256sum /sys/bus/usb/devices/BUSID/descriptors prints them",
		cfg_opt_name(opt), last_string(opt));
	return -1;
}

static int check_image(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *text = last_string(opt);

	if (text[0] == '/' &&
	    strlen(text) < sizeof(((struct config_virtual *)NULL)->image))
		return 0;
	cfg_error(cfg,
		  "image = \"%s\": give an absolute path of up to 255 "
		  "bytes",
		  text);
	return -1;
}

bool config_is_domain(const char *text)
{
	size_t len = strlen(text);

	if (len == 0 || len >= POLICY_NAME_BYTES)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < ' ' || text[i] > '~')
			return false;
	}
	return true;
}

/* Within one kind libconfuse refuses it already. */
static bool is_title_twice(cfg_t *cfg, const char *name, cfg_t *section)
{
	for (unsigned i = 0; i < cfg_size(cfg, name); i++) {
		cfg_t *other = cfg_getnsec(cfg, name, i);

		if (other != section &&
		    strcmp(cfg_title(other), cfg_title(section)) == 0)
			return true;
	}
	return false;
}

static int check_virtual(cfg_t *cfg, cfg_opt_t *opt)
{
	cfg_t *section = cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1);
	const char *kind = cfg_opt_name(opt);
	const char *name = cfg_title(section);
	size_t len = strlen(name);

	if (len == 0 || len >= USBIP_BUSID_BYTES ||
	    strspn(name, CONFIG_NAME_CHARS) != len || strchr("._-", name[0]))
		cfg_error(cfg,
			  "%s \"%s\": a name has 1 to 31 letters, digits "
			  "and ._- and starts with a letter or a digit",
			  kind, name);
	else if (policy_is_kernel_busid(name))
		cfg_error(cfg,
			  "%s \"%s\": the name looks like the bus id of a "
			  "real device; choose another",
			  kind, name);
	else if (is_title_twice(cfg, "disk", section) ||
		 is_title_twice(cfg, "zero", section))
		cfg_error(cfg,
			  "%s \"%s\": there is another virtual device of "
			  "this name",
			  kind, name);
	else if (cfg_size(cfg, "disk") + cfg_size(cfg, "zero") >
		 CONFIG_MAX_VIRTUALS)
		cfg_error(cfg, "%s \"%s\": more than %d virtual devices", kind,
			  name, CONFIG_MAX_VIRTUALS);
	else if (strcmp(kind, "disk") == 0 && cfg_size(section, "image") == 0)
		cfg_error(cfg, "disk \"%s\": say which file: image = \"/path\"",
			  name);
	else
		return config_lists_check(cfg, section);
	return -1;
}

void config_note_section(const cfg_t *section)
{
	if (num_begun == MAX_SECTIONS ||
	    (num_begun > 0 && begun[num_begun - 1].section == section))
		return;
	begun[num_begun].section = section;
	begun[num_begun++].line = (unsigned)section->line;
}

unsigned config_line_of(const cfg_t *section)
{
	for (size_t i = num_begun; i-- > 0;) {
		if (begun[i].section == section)
			return begun[i].line;
	}
	return 0;
}

/* What all of a rule's words of one value are; its lists are config_lists.h's. */
static bool has_attribute(cfg_t *section)
{
	static const char *const words[] = {
		"vendor", "product", "serial", "busid", "descriptors", "remote"
	};
	static const char *const lists[] = { "interfaces_any", "interfaces_all",
					     "interfaces_only",
					     "interfaces_none" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (cfg_size(section, words[i]) > 0)
			return true;
	}
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		if (config_has_list(section, lists[i]))
			return true;
	}
	return false;
}

static int check_export(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned n = cfg_opt_size(opt);
	cfg_t *section = cfg_opt_getnsec(opt, n - 1);

	if (n > CONFIG_MAX_RULES) {
		cfg_error(cfg, "export: more than %d rules", CONFIG_MAX_RULES);
		return -1;
	}
	if (config_lists_check(cfg, section) < 0)
		return -1;
	if (!has_attribute(section))
		cfg_error(cfg, "export: an empty rule exports nothing; give "
			       "vendor, product, serial, busid, descriptors, "
			       "remote or interfaces_...");
	else if (cfg_size(section, "busid") > 0 &&
		 cfg_size(section, "remote") == 0 &&
		 !policy_is_kernel_busid(cfg_getstr(section, "busid")))
		cfg_error(cfg,
			  "busid = \"%s\": give a bus id such as \"1-1.2\"; "
			  "other names are for devices of a remote",
			  cfg_getstr(section, "busid"));
	else
		return 0;
	return -1;
}

static int check_gateway(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned n = cfg_opt_size(opt);
	cfg_t *section = cfg_opt_getnsec(opt, n - 1);
	const char *name = cfg_title(section);

	if (n > CONFIG_MAX_GATEWAYS)
		cfg_error(cfg, "gateway: more than %d of them",
			  CONFIG_MAX_GATEWAYS);
	else if (!config_is_domain(name) || strcmp(name, "*") == 0)
		cfg_error(cfg,
			  "gateway \"%s\": give the name of up to %d printable "
			  "characters, or the UUID, of its domain",
			  name, POLICY_NAME_BYTES - 1);
	else if (!config_has_list(section, "domains"))
		cfg_error(cfg,
			  "gateway \"%s\": say for which domains: domains = { "
			  "\"name\" }",
			  name);
	else
		return 0;
	return -1;
}

static int check_remote(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned n = cfg_opt_size(opt);
	cfg_t *section = cfg_opt_getnsec(opt, n - 1);
	const char *name = cfg_title(section);

	if (n > CONFIG_MAX_REMOTES)
		cfg_error(cfg, "remote: more than %d of them",
			  CONFIG_MAX_REMOTES);
	else if (!is_remote_name(name))
		cfg_error(cfg,
			  "remote \"%s\": a name has 1 to %d letters, digits "
			  "and ._-",
			  name, CONFIG_REMOTE_NAME_BYTES - 1);
	else if (cfg_size(section, "address") == 0)
		cfg_error(cfg,
			  "remote \"%s\": say where it is: address = "
			  "\"tls:HOST\"",
			  name);
	else
		return 0;
	return -1;
}

static const struct {
	const char *name;
	cfg_validate_callback_t check;
} checks[] = {
	{ "listen", check_listen },
	{ "socket_mode", check_socket_mode },
	{ "socket_group", check_socket_group },
	{ "runtime_dir", check_dir },
	{ "state_dir", check_dir },
	{ "ring_bytes", check_ring_bytes },
	{ "vchan_ring_bytes", check_vchan_ring_bytes },
	{ "budget_bytes", check_budget_bytes },
	{ "max_sessions", check_max_sessions },
	{ "max_sessions_per_peer", check_max_sessions },
	{ "export", check_export },
	{ "export|vendor", check_id },
	{ "export|product", check_id },
	{ "export|serial", check_serial },
	{ "export|busid", check_busid },
	{ "export|descriptors", check_hash },
	{ "export|remote", check_rule_remote },
	{ "disk", check_virtual },
	{ "disk|image", check_image },
	{ "zero", check_virtual },
	{ "calls_per_second", check_calls_per_second },
	{ "peer_timeout", check_peer_timeout },
	{ "tls_dir", check_tls_dir },
	{ "remote", check_remote },
	{ "remote|address", check_remote_address },
	{ "remote|tls_dir", check_tls_dir },
	{ "remote|pin", check_pin },
	{ "gateway", check_gateway },
};

void config_checks_set(cfg_t *cfg)
{
	static const char *const listed[] = { "export", "disk", "zero",
					      "gateway" };

	num_begun = 0;
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
		(void)cfg_set_validate_func(cfg, checks[i].name,
					    checks[i].check);
	for (size_t i = 0; i < sizeof(listed) / sizeof(listed[0]); i++)
		config_lists_set(cfg, listed[i]);
}
