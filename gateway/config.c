/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See config.h. libconfuse reads the file and knows the line; every value is
 * judged by a validating callback (config_checks.h) while the line is known, so
 * that the copying afterwards has nothing left to refuse.
 */
#include "gateway/config.h"

#include <confuse.h>
#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config_checks.h"
#include "gateway/config_lists.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/config_file.h"

#define MIB       ((long)1 << 20)
#define LAST_WORD "missing_closing_brace = true"

/*
 * libconfuse's error callback has no argument of ours: this is where it
 * writes, while one config_load runs.
 */
static char *refusal;

static void on_error(cfg_t *cfg, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));

static void on_error(cfg_t *cfg, const char *fmt, va_list args)
{
	int len;

	/* The first reason is the cause; what follows are its effects. */
	if (refusal[0] != '\0')
		return;
	len = snprintf(refusal, CONFIG_WHY_BYTES,
		       "%s:%d: ", cfg->filename ? cfg->filename : "?",
		       cfg->line);
	if (len > 0 && len < CONFIG_WHY_BYTES)
		(void)vsnprintf(refusal + len, CONFIG_WHY_BYTES - (size_t)len,
				fmt, args);
}

/* ---- copying what was judged ---- */

static uint16_t get_id(cfg_t *section, const char *name, bool *ret_has)
{
	*ret_has = cfg_size(section, name) > 0;
	if (!*ret_has)
		return 0;
	return (uint16_t)strtoul(cfg_getstr(section, name), NULL, 16);
}

static void get_string(cfg_t *section, const char *name, char *to, size_t cap)
{
	if (cfg_size(section, name) > 0)
		(void)snprintf(to, cap, "%s", cfg_getstr(section, name));
}

static int read_rule(struct policy_rule *rule, cfg_t *section)
{
	rule->line = config_line_of(section);
	rule->is_deny = cfg_getbool(section, "deny");
	rule->vendor = get_id(section, "vendor", &rule->has_vendor);
	rule->product = get_id(section, "product", &rule->has_product);
	get_string(section, "serial", rule->serial, sizeof(rule->serial));
	get_string(section, "busid", rule->busid, sizeof(rule->busid));
	get_string(section, "remote", rule->remote, sizeof(rule->remote));
	rule->has_hash = cfg_size(section, "descriptors") > 0 &&
			 tls_pin_parse(cfg_getstr(section, "descriptors"),
				       rule->hash) == 0;
	config_read_patterns(section, "interfaces_any", &rule->any);
	config_read_patterns(section, "interfaces_all", &rule->all);
	config_read_patterns(section, "interfaces_only", &rule->only);
	config_read_patterns(section, "interfaces_none", &rule->none);
	return config_read_audience(section, &rule->to);
}

static int read_rules(struct config *config, cfg_t *cfg)
{
	for (unsigned i = 0; i < cfg_size(cfg, "export"); i++) {
		int r = read_rule(&config->rules[config->num_rules++],
				  cfg_getnsec(cfg, "export", i));

		if (r < 0)
			return r;
	}
	return 0;
}

static int read_virtuals(struct config *config, cfg_t *cfg, const char *name,
			 enum ipc_kind kind)
{
	for (unsigned i = 0; i < cfg_size(cfg, name); i++) {
		struct config_virtual *v =
			&config->virtuals[config->num_virtuals++];
		cfg_t *section = cfg_getnsec(cfg, name, i);
		int r;

		v->kind = kind;
		v->line = config_line_of(section);
		(void)snprintf(v->busid, sizeof(v->busid), "%s",
			       cfg_title(section));
		r = config_read_audience(section, &v->to);
		if (r < 0)
			return r;
		if (kind != IPC_KIND_DISK)
			continue;
		get_string(section, "image", v->image, sizeof(v->image));
		v->is_read_only = cfg_getbool(section, "read_only");
		v->is_high_speed = cfg_getbool(section, "high_speed");
	}
	return 0;
}

static void read_gateways(struct config *config, cfg_t *cfg)
{
	for (unsigned i = 0; i < cfg_size(cfg, "gateway"); i++) {
		struct config_gateway *g =
			&config->gateways[config->num_gateways++];
		cfg_t *section = cfg_getnsec(cfg, "gateway", i);

		(void)snprintf(g->domain, sizeof(g->domain), "%s",
			       cfg_title(section));
		config_read_names(section, "domains", &g->domains);
	}
}

static void read_remotes(struct config *config, cfg_t *cfg)
{
	for (unsigned i = 0; i < cfg_size(cfg, "remote"); i++) {
		struct config_remote *remote =
			&config->remotes[config->num_remotes++];
		cfg_t *section = cfg_getnsec(cfg, "remote", i);
		const char *why;

		(void)snprintf(remote->name, sizeof(remote->name), "%s",
			       cfg_title(section));
		(void)address_parse(cfg_getstr(section, "address"),
				    &remote->address, &why);
		memcpy(remote->tls_dir, config->tls_dir,
		       sizeof(remote->tls_dir));
		get_string(section, "tls_dir", remote->tls_dir,
			   sizeof(remote->tls_dir));
		remote->has_pin = cfg_size(section, "pin") > 0 &&
				  tls_pin_parse(cfg_getstr(section, "pin"),
						remote->pin) == 0;
	}
}

/* A rule for devices of a remote that is not there has a wrong letter in it. */
static int check_rule_remotes(const struct config *config, const char *path)
{
	for (size_t i = 0; i < config->num_rules; i++) {
		const struct policy_rule *rule = &config->rules[i];
		bool is_known = rule->remote[0] == '\0' ||
				strcmp(rule->remote, "*") == 0;

		for (size_t j = 0; j < config->num_remotes; j++)
			is_known |= strcmp(rule->remote,
					   config->remotes[j].name) == 0;
		if (is_known)
			continue;
		(void)snprintf(refusal, CONFIG_WHY_BYTES,
			       "%s:%u: remote = \"%s\": there is no remote of "
			       "this name; name one in remote \"%s\" { address "
			       "= ... }",
			       path, rule->line, rule->remote, rule->remote);
		return -EINVAL;
	}
	return 0;
}

static int read_listen(struct config *config, cfg_t *cfg)
{
	if (cfg_size(cfg, "listen") == 0 && !config->has_xen) {
		/* The line that libconfuse knows by now is the file's last. */
		(void)snprintf(refusal, CONFIG_WHY_BYTES,
			       "%s: listen: give at least one address, or "
			       "xen = true",
			       cfg->filename);
		return -EINVAL;
	}
	for (unsigned i = 0; i < cfg_size(cfg, "listen"); i++) {
		const char *why;
		int r = config_parse_listen(cfg_getnstr(cfg, "listen", i),
					    &config->listen[i], &why);

		if (r < 0)
			return r;
		config->num_listen++;
	}
	return 0;
}

static int read_config(struct config *config, cfg_t *cfg)
{
	int r;

	config->has_xen = cfg_getbool(cfg, "xen");
	r = read_listen(config, cfg);
	if (r < 0)
		return r;
	config->socket_group = (gid_t)-1;
	if (cfg_size(cfg, "socket_group") > 0) {
		const struct group *group =
			getgrnam(cfg_getstr(cfg, "socket_group"));

		if (!group)
			return -EINVAL;
		config->socket_group = group->gr_gid;
	}
	if (!config_parse_mode(cfg_getstr(cfg, "socket_mode"),
			       &config->socket_mode))
		return -EINVAL;
	get_string(cfg, "runtime_dir", config->runtime_dir,
		   sizeof(config->runtime_dir));
	get_string(cfg, "state_dir", config->state_dir,
		   sizeof(config->state_dir));
	config->ring_bytes = (size_t)cfg_getint(cfg, "ring_bytes");
	config->vchan_ring_bytes = (size_t)cfg_getint(cfg, "vchan_ring_bytes");
	config->budget_bytes = (size_t)cfg_getint(cfg, "budget_bytes");
	config->max_sessions = (unsigned)cfg_getint(cfg, "max_sessions");
	config->max_sessions_per_peer =
		(unsigned)cfg_getint(cfg, "max_sessions_per_peer");
	config->calls_per_second =
		(unsigned)cfg_getint(cfg, "calls_per_second");
	config->peer_timeout_s = (unsigned)cfg_getint(cfg, "peer_timeout");
	get_string(cfg, "tls_dir", config->tls_dir, sizeof(config->tls_dir));
	r = read_rules(config, cfg);
	if (r == 0)
		r = read_virtuals(config, cfg, "disk", IPC_KIND_DISK);
	if (r == 0)
		r = read_virtuals(config, cfg, "zero", IPC_KIND_ZERO);
	if (r < 0)
		return r;
	read_gateways(config, cfg);
	read_remotes(config, cfg);
	return check_rule_remotes(config, cfg->filename);
}

/* ---- the file ---- */

/* The macros want char *, and libconfuse copies all of it. */
static char not_given[] = CONFIG_NOT_GIVEN;

#define AUDIENCE_OPTIONS                                     \
	CFG_STR_LIST("domains", not_given, CFGF_NONE),       \
		CFG_STR_LIST("peers", not_given, CFGF_NONE), \
		CFG_STR_LIST("users", not_given, CFGF_NONE)

static cfg_opt_t export_options[] = {
	CFG_STR("vendor", NULL, CFGF_NODEFAULT),
	CFG_STR("product", NULL, CFGF_NODEFAULT),
	CFG_STR("serial", NULL, CFGF_NODEFAULT),
	CFG_STR("busid", NULL, CFGF_NODEFAULT),
	CFG_STR("descriptors", NULL, CFGF_NODEFAULT),
	CFG_STR("remote", NULL, CFGF_NODEFAULT),
	CFG_STR_LIST("interfaces_any", not_given, CFGF_NONE),
	CFG_STR_LIST("interfaces_all", not_given, CFGF_NONE),
	CFG_STR_LIST("interfaces_only", not_given, CFGF_NONE),
	CFG_STR_LIST("interfaces_none", not_given, CFGF_NONE),
	CFG_BOOL("deny", cfg_false, CFGF_NONE),
	AUDIENCE_OPTIONS,
	CFG_END(),
};
static cfg_opt_t disk_options[] = {
	CFG_STR("image", NULL, CFGF_NODEFAULT),
	CFG_BOOL("read_only", cfg_false, CFGF_NONE),
	CFG_BOOL("high_speed", cfg_false, CFGF_NONE),
	AUDIENCE_OPTIONS,
	CFG_END(),
};
static cfg_opt_t zero_options[] = {
	AUDIENCE_OPTIONS,
	CFG_END(),
};
static cfg_opt_t gateway_options[] = {
	CFG_STR_LIST("domains", not_given, CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t remote_options[] = {
	CFG_STR("address", NULL, CFGF_NODEFAULT),
	CFG_STR("tls_dir", NULL, CFGF_NODEFAULT),
	CFG_STR("pin", NULL, CFGF_NODEFAULT),
	CFG_END(),
};

static cfg_t *new_grammar(void)
{
	static char default_listen[] = "{ \"unix:/run/xusbip/gateway.sock\" }";
	cfg_opt_t options[] = {
		CFG_STR_LIST("listen", default_listen, CFGF_NONE),
		CFG_STR("socket_mode", "0600", CFGF_NONE),
		CFG_STR("socket_group", NULL, CFGF_NODEFAULT),
		CFG_STR("runtime_dir", "/run/xusbip", CFGF_NONE),
		CFG_STR("state_dir", "/var/lib/xusbip", CFGF_NONE),
		CFG_INT("ring_bytes", CHANNEL_RING_BYTES, CFGF_NONE),
		CFG_BOOL("xen", cfg_false, CFGF_NONE),
		CFG_INT("vchan_ring_bytes", CONFIG_VCHAN_RING_BYTES, CFGF_NONE),
		CFG_INT("budget_bytes", 8 * MIB, CFGF_NONE),
		CFG_INT("max_sessions", 128, CFGF_NONE),
		CFG_INT("max_sessions_per_peer", 40, CFGF_NONE),
		CFG_INT("calls_per_second", 20, CFGF_NONE),
		CFG_INT("peer_timeout", CHANNEL_DEAD_S, CFGF_NONE),
		CFG_STR("tls_dir", TLS_DIR, CFGF_NONE),
		CFG_BOOL("missing_closing_brace", cfg_false, CFGF_NONE),
		CFG_SEC("export", export_options, CFGF_MULTI),
		CFG_SEC("disk", disk_options,
			CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_SEC("zero", zero_options,
			CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_SEC("gateway", gateway_options,
			CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_SEC("remote", remote_options,
			CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_END(),
	};
	cfg_t *cfg = cfg_init(options, CFGF_NONE);

	if (!cfg)
		return NULL;
	(void)cfg_set_error_function(cfg, on_error);
	config_checks_set(cfg);
	return cfg;
}

static int parse(cfg_t *cfg, const char *path, FILE *stream)
{
	cfg->filename = strdup(path);
	if (!cfg->filename)
		return -ENOMEM;
	if (cfg_parse_fp(cfg, stream) != CFG_SUCCESS)
		return -EINVAL;
	if (!cfg_getbool(cfg, "missing_closing_brace")) {
		cfg_error(cfg, "the file ends within a comment");
		return -EINVAL;
	}
	return 0;
}

static int load(const char *path, struct config *config)
{
	FILE *stream = NULL;
	char *text = NULL;
	cfg_t *cfg;
	int r = config_file_read(path, LAST_WORD, &text, &stream);

	if (r < 0)
		return r;
	cfg = new_grammar();
	r = cfg ? parse(cfg, path, stream) : -ENOMEM;
	if (r == 0)
		r = read_config(config, cfg);
	if (cfg)
		(void)cfg_free(cfg);
	(void)fclose(stream);
	free(text);
	return r;
}

int config_load(const char *path, struct config **ret_config,
		char why[static CONFIG_WHY_BYTES])
{
	struct config *config = calloc(1, sizeof(*config));
	int r = -ENOMEM;

	why[0] = '\0';
	refusal = why;
	if (config)
		r = load(path, config);
	if (r < 0) {
		if (why[0] == '\0')
			(void)snprintf(why, CONFIG_WHY_BYTES, "%s: %s", path,
				       r == -ENOTSUP ? "it is not a file"
						     : strerror(-r));
		config_free(config);
		return r == -ENOTSUP ? -EINVAL : r;
	}
	*ret_config = config;
	return 0;
}

void config_free(struct config *config)
{
	free(config);
}
