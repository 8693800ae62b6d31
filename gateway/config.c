/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See config.h. libconfuse reads the file and knows the line; every value is
 * judged by a validating callback while the line is known, so that the copying
 * afterwards has nothing left to refuse.
 */
#include "gateway/config.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vchan-transport/channel.h"

#define NAME_CHARS \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

#define MIB            ((long)1 << 20)

#define MAX_FILE_BYTES ((size_t)1 << 20)
#define LAST_WORD      "\nmissing_closing_brace = true"

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

/* ---- judging values, while the line is known ---- */

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

static int check_ring_bytes(cfg_t *cfg, cfg_opt_t *opt)
{
	long value = cfg_opt_getnint(opt, 0);

	if (check_long(cfg, opt, CHANNEL_MIN_RING_BYTES,
		       CHANNEL_MAX_RING_BYTES) < 0)
		return -1;
	if ((value & (value - 1)) == 0)
		return 0;
	cfg_error(cfg, "ring_bytes = %ld: give a power of two", value);
	return -1;
}

static int check_budget_bytes(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_long(cfg, opt, MIB, 1024 * MIB);
}

static int check_max_sessions(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_long(cfg, opt, 1, 900);
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

/* "0660" and the like. */
static bool parse_mode(const char *text, mode_t *ret_mode)
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

	if (parse_mode(last_string(opt), &mode))
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

/* "any" stands for the CID that a listener has for every caller. */
static int parse_listen(const char *text, struct address *ret_address,
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
	if (ret_address->kind == ADDRESS_TLS ||
	    ret_address->kind == ADDRESS_XEN) {
		*ret_why = "listeners of this kind are not in this build yet";
		return -EOPNOTSUPP;
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
	if (parse_listen(last_string(opt), &address, &why) == 0)
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
		return 0;
	return -1;
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

static void read_rule(struct policy_rule *rule, cfg_t *section)
{
	*rule = (struct policy_rule){ 0 };
	rule->vendor = get_id(section, "vendor", &rule->has_vendor);
	rule->product = get_id(section, "product", &rule->has_product);
	get_string(section, "serial", rule->serial, sizeof(rule->serial));
	get_string(section, "busid", rule->busid, sizeof(rule->busid));
}

static int check_export(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned n = cfg_opt_size(opt);
	struct policy_rule rule;

	read_rule(&rule, cfg_opt_getnsec(opt, n - 1));
	if (n > CONFIG_MAX_RULES)
		cfg_error(cfg, "export: more than %d rules", CONFIG_MAX_RULES);
	else if (!policy_rule_is_given(&rule))
		cfg_error(cfg, "export: an empty rule exports nothing; give "
			       "vendor, product, serial or busid");
	else
		return 0;
	return -1;
}

static void read_virtuals(struct config *config, cfg_t *cfg, const char *name,
			  enum ipc_kind kind)
{
	for (unsigned i = 0; i < cfg_size(cfg, name); i++) {
		struct config_virtual *v =
			&config->virtuals[config->num_virtuals++];
		cfg_t *section = cfg_getnsec(cfg, name, i);

		v->kind = kind;
		(void)snprintf(v->busid, sizeof(v->busid), "%s",
			       cfg_title(section));
		if (kind != IPC_KIND_DISK)
			continue;
		get_string(section, "image", v->image, sizeof(v->image));
		v->is_read_only = cfg_getbool(section, "read_only");
		v->is_high_speed = cfg_getbool(section, "high_speed");
	}
}

static int read_config(struct config *config, cfg_t *cfg)
{
	if (cfg_size(cfg, "listen") == 0) {
		/* The line that libconfuse knows by now is the file's last. */
		(void)snprintf(refusal, CONFIG_WHY_BYTES,
			       "%s: listen: give at least one address",
			       cfg->filename);
		return -EINVAL;
	}
	for (unsigned i = 0; i < cfg_size(cfg, "listen"); i++) {
		const char *why;
		int r = parse_listen(cfg_getnstr(cfg, "listen", i),
				     &config->listen[i], &why);

		if (r < 0)
			return r;
		config->num_listen++;
	}
	config->socket_group = (gid_t)-1;
	if (cfg_size(cfg, "socket_group") > 0) {
		const struct group *group =
			getgrnam(cfg_getstr(cfg, "socket_group"));

		if (!group)
			return -EINVAL;
		config->socket_group = group->gr_gid;
	}
	if (!parse_mode(cfg_getstr(cfg, "socket_mode"), &config->socket_mode))
		return -EINVAL;
	get_string(cfg, "runtime_dir", config->runtime_dir,
		   sizeof(config->runtime_dir));
	config->ring_bytes = (size_t)cfg_getint(cfg, "ring_bytes");
	config->budget_bytes = (size_t)cfg_getint(cfg, "budget_bytes");
	config->max_sessions = (unsigned)cfg_getint(cfg, "max_sessions");
	config->max_sessions_per_peer =
		(unsigned)cfg_getint(cfg, "max_sessions_per_peer");
	for (unsigned i = 0; i < cfg_size(cfg, "export"); i++)
		read_rule(&config->rules[config->num_rules++],
			  cfg_getnsec(cfg, "export", i));
	read_virtuals(config, cfg, "disk", IPC_KIND_DISK);
	read_virtuals(config, cfg, "zero", IPC_KIND_ZERO);
	return 0;
}

/* ---- the file ---- */

static const struct {
	const char *name;
	cfg_validate_callback_t check;
} checks[] = {
	{ "listen", check_listen },
	{ "socket_mode", check_socket_mode },
	{ "socket_group", check_socket_group },
	{ "runtime_dir", check_runtime_dir },
	{ "ring_bytes", check_ring_bytes },
	{ "budget_bytes", check_budget_bytes },
	{ "max_sessions", check_max_sessions },
	{ "max_sessions_per_peer", check_max_sessions },
	{ "export", check_export },
	{ "export|vendor", check_id },
	{ "export|product", check_id },
	{ "export|serial", check_serial },
	{ "export|busid", check_busid },
	{ "disk", check_virtual },
	{ "disk|image", check_image },
	{ "zero", check_virtual },
};

static cfg_t *new_grammar(void)
{
	/* The macros want char *, and libconfuse copies all of it. */
	static char default_listen[] = "{ \"unix:/run/xusbip/gateway.sock\" }";
	cfg_opt_t export_options[] = {
		CFG_STR("vendor", NULL, CFGF_NODEFAULT),
		CFG_STR("product", NULL, CFGF_NODEFAULT),
		CFG_STR("serial", NULL, CFGF_NODEFAULT),
		CFG_STR("busid", NULL, CFGF_NODEFAULT),
		CFG_END(),
	};
	cfg_opt_t disk_options[] = {
		CFG_STR("image", NULL, CFGF_NODEFAULT),
		CFG_BOOL("read_only", cfg_false, CFGF_NONE),
		CFG_BOOL("high_speed", cfg_false, CFGF_NONE),
		CFG_END(),
	};
	cfg_opt_t zero_options[] = { CFG_END() };
	cfg_opt_t options[] = {
		CFG_STR_LIST("listen", default_listen, CFGF_NONE),
		CFG_STR("socket_mode", "0600", CFGF_NONE),
		CFG_STR("socket_group", NULL, CFGF_NODEFAULT),
		CFG_STR("runtime_dir", "/run/xusbip", CFGF_NONE),
		CFG_INT("ring_bytes", CHANNEL_RING_BYTES, CFGF_NONE),
		CFG_INT("budget_bytes", 8 * MIB, CFGF_NONE),
		CFG_INT("max_sessions", 128, CFGF_NONE),
		CFG_INT("max_sessions_per_peer", 40, CFGF_NONE),
		CFG_BOOL("missing_closing_brace", cfg_false, CFGF_NONE),
		CFG_SEC("export", export_options, CFGF_MULTI),
		CFG_SEC("disk", disk_options,
			CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_SEC("zero", zero_options,
			CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_END(),
	};
	cfg_t *cfg = cfg_init(options, CFGF_NONE);

	if (!cfg)
		return NULL;
	(void)cfg_set_error_function(cfg, on_error);
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
		(void)cfg_set_validate_func(cfg, checks[i].name,
					    checks[i].check);
	return cfg;
}

/*
 * The whole file as a stream, with a last word of ours. libconfuse takes a
 * section that is open at the end for a closed one, so a file that was cut
 * could export more than was meant; the word is read at top level or the file
 * is refused.
 */
static int read_file(const char *path, char *text, FILE **ret_stream)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t len = 0;
	struct stat st;
	ssize_t n = -1;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		(void)close(fd);
		return -ENOTSUP;
	}
	while (len < MAX_FILE_BYTES) {
		n = read(fd, text + len, MAX_FILE_BYTES - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	(void)close(fd);
	if (n != 0)
		return n < 0 ? -errno : -EFBIG;
	memcpy(text + len, LAST_WORD, sizeof(LAST_WORD));
	*ret_stream = fmemopen(text, len + strlen(LAST_WORD), "r");
	return *ret_stream ? 0 : -errno;
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
	char *text = malloc(MAX_FILE_BYTES + sizeof(LAST_WORD));
	FILE *stream = NULL;
	cfg_t *cfg = NULL;
	int r = -ENOMEM;

	if (!text)
		return -ENOMEM;
	r = read_file(path, text, &stream);
	if (r < 0)
		goto out;
	r = -ENOMEM;
	cfg = new_grammar();
	if (!cfg)
		goto out;
	r = parse(cfg, path, stream);
	if (r == 0)
		r = read_config(config, cfg);
out:
	if (cfg)
		(void)cfg_free(cfg);
	if (stream)
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
