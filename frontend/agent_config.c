/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/agent_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <confuse.h>

#include "frontend/sysfs.h"
#include "vchan-transport/config_file.h"
#include "vchan-transport/import.h"

#define MAX_CONNECTIONS 1024
#define LAST_WORD       "missing_closing_brace"

/* libconfuse hands no context to its callbacks: where a load puts its reason. */
static char *reason;

static void on_error(cfg_t *cfg, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));

static void on_error(cfg_t *cfg, const char *fmt, va_list args)
{
	int used;

	if (reason[0] != '\0') /* the first one is the cause */
		return;
	used = snprintf(reason, AGENT_WHY_BYTES, "line %d: ", cfg->line);
	(void)vsnprintf(reason + used, AGENT_WHY_BYTES - (size_t)used, fmt,
			args);
}

static int check_addresses(cfg_t *cfg, cfg_opt_t *opt, unsigned max,
			   bool must_be_tcp)
{
	unsigned count = cfg_opt_size(opt);

	if (count > max) {
		cfg_error(cfg, "%s: more than %u addresses", cfg_opt_name(opt),
			  max);
		return -1;
	}
	for (unsigned i = 0; i < count; i++) {
		const char *text = cfg_opt_getnstr(opt, i);
		struct address address;
		const char *why;

		if (address_parse(text, &address, &why) < 0) {
			cfg_error(cfg, "%s: \"%s\" is not an address: %s",
				  cfg_opt_name(opt), text, why);
			return -1;
		}
		if (must_be_tcp && address.kind != ADDRESS_TCP) {
			cfg_error(cfg, "%s: \"%s\": give HOST or HOST:PORT",
				  cfg_opt_name(opt), text);
			return -1;
		}
	}
	return 0;
}

static int check_listen(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_addresses(cfg, opt, AGENT_MAX_LISTENERS, true);
}

static int check_gateways(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_addresses(cfg, opt, AGENT_MAX_GATEWAYS, false);
}

static int check_max_connections(cfg_t *cfg, cfg_opt_t *opt)
{
	long value = cfg_opt_getnint(opt, 0);

	if (value >= 1 && value <= MAX_CONNECTIONS)
		return 0;
	cfg_error(cfg, "max_connections = %ld: give 1 to %d", value,
		  MAX_CONNECTIONS);
	return -1;
}

static int check_tls_dir(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *dir = cfg_opt_getnstr(opt, 0);

	if (dir[0] == '/' && strlen(dir) < TLS_DIR_BYTES)
		return 0;
	cfg_error(cfg, "tls_dir = \"%s\": give a path from / on", dir);
	return -1;
}

/* ---- attach sections ---- */

static int refuse_wish(cfg_t *section, const char *what)
{
	cfg_error(section, "attach \"%s\": %s", cfg_title(section), what);
	return -1;
}

static bool read_id(const char *text, uint16_t *ret_id)
{
	uint32_t value;
	const char *end = sysfs_scan_number(text, 16, &value);

	if (!end || *end != '\0' || value > UINT16_MAX)
		return false;
	*ret_id = (uint16_t)value;
	return true;
}

/* NULL, or what is wrong with it. */
static const char *read_device(cfg_t *section, struct wish *wish)
{
	const char *busid = cfg_getstr(section, "busid");
	const char *vendor = cfg_getstr(section, "vendor");
	const char *product = cfg_getstr(section, "product");

	if (!busid && !vendor)
		return "busid, or vendor and product, are missing";
	if (!vendor != !product)
		return "vendor and product go together";
	if (busid && !import_is_busid(busid))
		return "a bus id has 1 to 31 characters, none of them a blank";
	if (busid)
		(void)snprintf(wish->busid, sizeof(wish->busid), "%s", busid);
	if (vendor && (!read_id(vendor, &wish->vendor) ||
		       !read_id(product, &wish->product) ||
		       (wish->vendor | wish->product) == 0))
		return "vendor and product are hexadecimal, as in \"0781\"";
	return NULL;
}

static const char *read_gateway(cfg_t *section, struct wish *wish)
{
	const char *gateway = cfg_getstr(section, "gateway");
	const char *pin = cfg_getstr(section, "pin");
	uint8_t bytes[TLS_PIN_BYTES];
	const char *why;

	if (!gateway)
		return "gateway is missing";
	if (address_parse(gateway, &wish->gateway, &why) < 0)
		return why;
	if (!pin)
		return NULL;
	if (wish->gateway.kind != ADDRESS_TLS)
		return "only a tls: gateway has a pin";
	if (tls_pin_parse(pin, bytes) < 0)
		return "a pin is sha256: and 64 hexadecimal digits";
	(void)snprintf(wish->pin, sizeof(wish->pin), "%s", pin);
	return NULL;
}

static const char *read_wish(cfg_t *section, struct wish *ret_wish)
{
	struct wish wish = { 0 };
	const char *wrong;

	if (!wish_is_name(cfg_title(section)))
		return "a name has up to 31 letters, digits, - and _";
	(void)snprintf(wish.name, sizeof(wish.name), "%s", cfg_title(section));
	wrong = read_gateway(section, &wish);
	if (!wrong)
		wrong = read_device(section, &wish);
	if (!wrong)
		*ret_wish = wish;
	return wrong;
}

static int check_attach(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned count = cfg_opt_size(opt);
	cfg_t *section = cfg_opt_getnsec(opt, count - 1);
	struct wish wish;
	const char *wrong = read_wish(section, &wish);

	if (wrong)
		return refuse_wish(section, wrong);
	if (count <= WISH_MAX)
		return 0;
	cfg_error(cfg, "more than %d attach sections", WISH_MAX);
	return -1;
}

static cfg_opt_t attach_opts[] = {
	CFG_STR("gateway", NULL, CFGF_NODEFAULT),
	CFG_STR("pin", NULL, CFGF_NODEFAULT),
	CFG_STR("busid", NULL, CFGF_NODEFAULT),
	CFG_STR("vendor", NULL, CFGF_NODEFAULT),
	CFG_STR("product", NULL, CFGF_NODEFAULT),
	CFG_END(),
};

#define ATTACH_SECTION                 \
	CFG_SEC("attach", attach_opts, \
		CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES)

static size_t copy_wishes(cfg_t *cfg, struct wish *to)
{
	size_t count = cfg_size(cfg, "attach");

	for (unsigned i = 0; i < count; i++) {
		(void)read_wish(cfg_getnsec(cfg, "attach", i), &to[i]);
		to[i].is_section = true;
	}
	return count;
}

/* ---- the whole ---- */

/* They were judged while their lines were known. */
static size_t copy_addresses(cfg_t *cfg, const char *name, struct address *to)
{
	size_t count = cfg_size(cfg, name);
	const char *why;

	for (unsigned i = 0; i < count; i++)
		(void)address_parse(cfg_getnstr(cfg, name, i), &to[i], &why);
	return count;
}

static int parse_stream(cfg_t *cfg, FILE *stream)
{
	if (cfg_parse_fp(cfg, stream) != CFG_SUCCESS)
		return -EINVAL;
	if (!cfg_getbool(cfg, LAST_WORD)) {
		cfg_error(cfg, "the file ends within a comment");
		return -EINVAL;
	}
	return 0;
}

static int parse_file(cfg_t *cfg, const char *path)
{
	FILE *stream = NULL;
	char *text = NULL;
	int r = config_file_read(path, LAST_WORD " = true", &text, &stream);

	if (r < 0)
		return r;
	r = parse_stream(cfg, stream);
	(void)fclose(stream);
	free(text);
	return r;
}

static int parse(cfg_t *cfg, const char *path, char *why)
{
	int r;

	why[0] = '\0';
	reason = why;
	r = parse_file(cfg, path);
	reason = NULL;
	if (r < 0 && why[0] == '\0')
		(void)snprintf(why, AGENT_WHY_BYTES, "%s",
			       r == -ENOTSUP  ? "it is not a file"
			       : r == -EINVAL ? "syntax error"
					      : strerror(-r));
	return r;
}

static cfg_t *new_parser(cfg_opt_t *opts)
{
	cfg_t *cfg = cfg_init(opts, CFGF_NONE);

	if (!cfg)
		return NULL;
	(void)cfg_set_error_function(cfg, on_error);
	(void)cfg_set_validate_func(cfg, "attach", check_attach);
	return cfg;
}

static void copy_config(cfg_t *cfg, struct agent_config *config)
{
	const cfg_opt_t *gateways = cfg_getopt(cfg, "gateways");

	config->num_listen = copy_addresses(cfg, "listen", config->listen);
	config->num_gateways =
		copy_addresses(cfg, "gateways", config->gateways);
	config->has_usual_gateways = !(gateways->flags & CFGF_MODIFIED);
	(void)snprintf(config->tls_dir, sizeof(config->tls_dir), "%s",
		       cfg_getstr(cfg, "tls_dir"));
	config->num_wishes = copy_wishes(cfg, config->wishes);
	config->max_connections = (unsigned)cfg_getint(cfg, "max_connections");
	config->allow_remote = cfg_getbool(cfg, "allow_remote");
}

/* What is not there may be meant so. */
static bool may_be_missing(const char *path)
{
	return strcmp(path, AGENT_CONFIG_PATH) == 0;
}

int agent_config_load(const char *path, struct agent_config *ret_config,
		      char why[static AGENT_WHY_BYTES])
{
	char listen[] = "{127.0.0.1:3240}";
	char gateways[] = "{unix:/run/xusbip/gateway.sock}";
	char tls_dir[] = TLS_DIR;
	cfg_opt_t opts[] = {
		CFG_STR_LIST("listen", listen, CFGF_NONE),
		CFG_STR_LIST("gateways", gateways, CFGF_NONE),
		CFG_STR("tls_dir", tls_dir, CFGF_NONE),
		CFG_INT("max_connections", 64, CFGF_NONE),
		CFG_BOOL("allow_remote", cfg_false, CFGF_NONE),
		CFG_BOOL(LAST_WORD, cfg_false, CFGF_NONE),
		ATTACH_SECTION,
		CFG_END(),
	};
	struct agent_config config = { 0 };
	cfg_t *cfg = new_parser(opts);
	int r;

	if (!cfg)
		return -ENOMEM;
	(void)cfg_set_validate_func(cfg, "listen", check_listen);
	(void)cfg_set_validate_func(cfg, "gateways", check_gateways);
	(void)cfg_set_validate_func(cfg, "tls_dir", check_tls_dir);
	(void)cfg_set_validate_func(cfg, "max_connections",
				    check_max_connections);
	r = parse(cfg, path, why);
	if (r == -ENOENT && may_be_missing(path))
		r = 0;
	if (r == 0) {
		copy_config(cfg, &config);
		*ret_config = config;
	}
	(void)cfg_free(cfg);
	return r;
}

bool agent_config_has_gateway(const struct agent_config *config, size_t index)
{
	return !config->has_usual_gateways ||
	       access(config->gateways[index].host, F_OK) == 0;
}

int agent_config_load_wish(const char *path, struct wish *ret_wish,
			   char why[static AGENT_WHY_BYTES])
{
	cfg_opt_t opts[] = { ATTACH_SECTION,
			     CFG_BOOL(LAST_WORD, cfg_false, CFGF_NONE),
			     CFG_END() };
	const char *slash = strrchr(path, '/');
	cfg_t *cfg = new_parser(opts);
	struct wish wish;
	int r;

	if (!cfg)
		return -ENOMEM;
	r = parse(cfg, path, why);
	if (r == 0 && cfg_size(cfg, "attach") == 1)
		(void)read_wish(cfg_getnsec(cfg, "attach", 0), &wish);
	else if (r == 0)
		r = -EBADMSG;
	(void)cfg_free(cfg);
	if (r == 0 && strcmp(wish.name, slash ? slash + 1 : path) != 0)
		r = -EBADMSG;
	if (r == 0)
		*ret_wish = wish;
	if (r == -EBADMSG)
		(void)snprintf(why, AGENT_WHY_BYTES,
			       "it is not one attach section, called as the "
			       "file");
	return r;
}

void agent_config_warn_tls(const struct agent_config *config)
{
	bool has_tls = false;

	for (size_t i = 0; i < config->num_gateways; i++)
		has_tls |= config->gateways[i].kind == ADDRESS_TLS;
	for (size_t i = 0; i < config->num_wishes; i++)
		has_tls |= config->wishes[i].gateway.kind == ADDRESS_TLS;
	if (has_tls)
		tls_warn_of_ends(TLS_CLIENT, config->tls_dir);
}
