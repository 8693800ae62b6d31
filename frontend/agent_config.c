/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/agent_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <confuse.h>

#define MAX_CONNECTIONS 1024

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

/* They were judged while their lines were known. */
static size_t copy_addresses(cfg_t *cfg, const char *name, struct address *to)
{
	size_t count = cfg_size(cfg, name);
	const char *why;

	for (unsigned i = 0; i < count; i++)
		(void)address_parse(cfg_getnstr(cfg, name, i), &to[i], &why);
	return count;
}

static int parse(cfg_t *cfg, const char *path, char *why)
{
	int error;

	switch (cfg_parse(cfg, path)) {
	case CFG_SUCCESS:
		return 0;
	case CFG_FILE_ERROR:
		error = errno ? errno : EIO;
		(void)snprintf(why, AGENT_WHY_BYTES, "%s", strerror(error));
		return -error;
	default:
		if (why[0] == '\0')
			(void)snprintf(why, AGENT_WHY_BYTES, "syntax error");
		return -EINVAL;
	}
}

static cfg_t *new_parser(cfg_opt_t *opts)
{
	cfg_t *cfg = cfg_init(opts, CFGF_NONE);

	if (!cfg)
		return NULL;
	(void)cfg_set_error_function(cfg, on_error);
	(void)cfg_set_validate_func(cfg, "listen", check_listen);
	(void)cfg_set_validate_func(cfg, "gateways", check_gateways);
	(void)cfg_set_validate_func(cfg, "max_connections",
				    check_max_connections);
	return cfg;
}

int agent_config_load(const char *path, struct agent_config *ret_config,
		      char why[static AGENT_WHY_BYTES])
{
	char listen[] = "{127.0.0.1:3240}";
	char gateways[] = "{unix:/run/xusbip/gateway.sock}";
	cfg_opt_t opts[] = {
		CFG_STR_LIST("listen", listen, CFGF_NONE),
		CFG_STR_LIST("gateways", gateways, CFGF_NONE),
		CFG_INT("max_connections", 64, CFGF_NONE),
		CFG_BOOL("allow_remote", cfg_false, CFGF_NONE),
		CFG_END(),
	};
	struct agent_config config = { 0 };
	cfg_t *cfg = new_parser(opts);
	int r;

	if (!cfg)
		return -ENOMEM;
	why[0] = '\0';
	reason = why;
	errno = 0;
	r = parse(cfg, path, why);
	if (r == 0) {
		config.num_listen =
			copy_addresses(cfg, "listen", config.listen);
		config.num_gateways =
			copy_addresses(cfg, "gateways", config.gateways);
		config.max_connections =
			(unsigned)cfg_getint(cfg, "max_connections");
		config.allow_remote = cfg_getbool(cfg, "allow_remote");
		*ret_config = config;
	}
	reason = NULL;
	(void)cfg_free(cfg);
	return r;
}
