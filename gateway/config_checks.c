/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/config_checks.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <confuse.h>

#include "gateway/config.h"
#include "vchan-transport/channel.h"

#define NAME_CHARS \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

#define MIB ((long)1 << 20)

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

static int check_runtime_dir(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *text = last_string(opt);

	if (text[0] == '/' &&
	    strlen(text) < sizeof(((struct config *)NULL)->runtime_dir))
		return 0;
	cfg_error(cfg,
		  "runtime_dir = \"%s\": give an absolute path of up to "
		  "79 bytes",
		  text);
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

static int check_busid(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *text = last_string(opt);

	if (strlen(text) < USBIP_BUSID_BYTES && policy_is_kernel_busid(text))
		return 0;
	cfg_error(cfg, "busid = \"%s\": give a bus id such as \"1-1.2\"", text);
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

/* Stands in CONFIG_NO_DOMAINS; no name has it. */
#define NO_DOMAIN "\t"

/* What Xen's tools call domains; nothing in it needs escaping in a log. */
static bool is_domain_name(const char *text)
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

static int check_domain(cfg_t *cfg, cfg_opt_t *opt)
{
	if (cfg_opt_size(opt) > POLICY_MAX_DOMAINS) {
		cfg_error(cfg,
			  "domains: more than %d of them; \"*\" stands "
			  "for all",
			  POLICY_MAX_DOMAINS);
		return -1;
	}
	if (is_domain_name(last_string(opt)) ||
	    strcmp(last_string(opt), NO_DOMAIN) == 0)
		return 0;
	cfg_error(cfg,
		  "domains: give names of up to %d printable characters, "
		  "UUIDs, or \"*\"",
		  POLICY_NAME_BYTES - 1);
	return -1;
}

bool config_has_domains(cfg_t *section)
{
	return cfg_size(section, "domains") > 0 &&
	       strcmp(cfg_getnstr(section, "domains", 0), NO_DOMAIN) != 0;
}

/* An empty list would read like "nobody" and mean the opposite. */
static int check_domains(cfg_t *cfg, cfg_t *section)
{
	if (cfg_size(section, "domains") > 0)
		return 0;
	cfg_error(cfg, "domains: name at least one domain, or remove the line");
	return -1;
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
	    strspn(name, NAME_CHARS) != len || strchr("._-", name[0]))
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
		return check_domains(cfg, section);
	return -1;
}

static int check_export(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned n = cfg_opt_size(opt);
	cfg_t *section = cfg_opt_getnsec(opt, n - 1);

	if (n > CONFIG_MAX_RULES)
		cfg_error(cfg, "export: more than %d rules", CONFIG_MAX_RULES);
	else if (cfg_size(section, "vendor") + cfg_size(section, "product") +
			 cfg_size(section, "serial") +
			 cfg_size(section, "busid") ==
		 0)
		cfg_error(cfg, "export: an empty rule exports nothing; give "
			       "vendor, product, serial or busid");
	else
		return check_domains(cfg, section);
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
	else if (!is_domain_name(name) || strcmp(name, "*") == 0)
		cfg_error(cfg,
			  "gateway \"%s\": give the name of up to %d printable "
			  "characters, or the UUID, of its domain",
			  name, POLICY_NAME_BYTES - 1);
	else if (!config_has_domains(section))
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
	size_t len = strlen(name);

	if (n > CONFIG_MAX_REMOTES)
		cfg_error(cfg, "remote: more than %d of them",
			  CONFIG_MAX_REMOTES);
	else if (len == 0 || len >= CONFIG_REMOTE_NAME_BYTES ||
		 strspn(name, NAME_CHARS) != len)
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
	{ "runtime_dir", check_runtime_dir },
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
	{ "export|domains", check_domain },
	{ "disk", check_virtual },
	{ "disk|image", check_image },
	{ "disk|domains", check_domain },
	{ "zero", check_virtual },
	{ "zero|domains", check_domain },
	{ "calls_per_second", check_calls_per_second },
	{ "peer_timeout", check_peer_timeout },
	{ "tls_dir", check_tls_dir },
	{ "remote", check_remote },
	{ "remote|address", check_remote_address },
	{ "remote|tls_dir", check_tls_dir },
	{ "remote|pin", check_pin },
	{ "gateway", check_gateway },
	{ "gateway|domains", check_domain },
};

void config_checks_set(cfg_t *cfg)
{
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
		(void)cfg_set_validate_func(cfg, checks[i].name,
					    checks[i].check);
}
