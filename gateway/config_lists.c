/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/config_lists.h"

#include <errno.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <confuse.h>

#include "gateway/config_checks.h"
#include "vchan-transport/log.h"
#include "vchan-transport/tls.h"

/* Stands in CONFIG_NOT_GIVEN; no entry of any list is it. */
#define NOT_GIVEN "\t"
#define DIGITS    "0123456789"
#define HEX       DIGITS "abcdefABCDEF"

/* ---- one entry ---- */

static bool is_certificate(const char *text)
{
	size_t len = strlen(text);
	uint8_t pin[TLS_PIN_BYTES];

	if (strcmp(text, "*") == 0 || tls_pin_parse(text, pin) == 0)
		return true;
	return len > 0 && len < POLICY_NAME_BYTES &&
	       strspn(text, CONFIG_NAME_CHARS) == len;
}

bool config_find_user(const char *text, uid_t *ret_uid)
{
	size_t len = strlen(text);
	const struct passwd *user;
	unsigned long uid;

	if (len == 0)
		return false;
	if (strspn(text, DIGITS) == len) {
		uid = strtoul(text, NULL, 10);
		*ret_uid = (uid_t)uid;
		return len <= 10 && uid < UINT32_MAX;
	}
	user = getpwnam(text);
	if (user)
		*ret_uid = user->pw_uid;
	return user != NULL;
}

static bool is_user(const char *text)
{
	uid_t uid;

	return strcmp(text, "*") == 0 || config_find_user(text, &uid);
}

static bool parse_pattern(const char *text, struct policy_pattern *ret_pattern)
{
	uint8_t parts[3] = { 0 };
	uint8_t num = 0;

	do {
		if (num == 3 || strspn(text, HEX) != 2)
			return false;
		parts[num++] = (uint8_t)strtoul(text, NULL, 16);
		text += 2;
	} while (*text++ == ':');
	*ret_pattern =
		(struct policy_pattern){ { parts[0], parts[1], parts[2] },
					 num };
	return text[-1] == '\0';
}

static bool is_pattern(const char *text)
{
	struct policy_pattern pattern;

	return parse_pattern(text, &pattern);
}

#define PATTERN_ADVICE \
	"give classes as lsusb -v has them: \"03\", \"03:01\" or \"03:01:01\""

static const struct list {
	const char *name;
	int max;
	bool (*is_good)(const char *text);
	const char *advice;
} lists[] = {
	{ "domains", POLICY_MAX_NAMES, config_is_domain,
	  "give names of up to 79 printable characters, UUIDs, or \"*\"" },
	{ "peers", POLICY_MAX_NAMES, is_certificate,
	  "give names of certificates, sha256: and 64 hexadecimal digits, "
	  "or \"*\"" },
	{ "users", POLICY_MAX_NAMES, is_user,
	  "there is no such user; give names, numbers, or \"*\"" },
	{ "interfaces_any", POLICY_MAX_PATTERNS, is_pattern, PATTERN_ADVICE },
	{ "interfaces_all", POLICY_MAX_PATTERNS, is_pattern, PATTERN_ADVICE },
	{ "interfaces_only", POLICY_MAX_PATTERNS, is_pattern, PATTERN_ADVICE },
	{ "interfaces_none", POLICY_MAX_PATTERNS, is_pattern, PATTERN_ADVICE },
};

#define NUM_LISTS (sizeof(lists) / sizeof(lists[0]))

static const struct list *list_of(const char *name)
{
	for (size_t i = 0; i < NUM_LISTS; i++) {
		if (strcmp(lists[i].name, name) == 0)
			return &lists[i];
	}
	return NULL;
}

static int check_entry(cfg_t *cfg, cfg_opt_t *opt)
{
	const struct list *list = list_of(cfg_opt_name(opt));
	unsigned num = cfg_opt_size(opt);
	const char *text = num > 0 ? cfg_opt_getnstr(opt, num - 1) : NULL;
	char escaped[4 * POLICY_NAME_BYTES];

	if (!list || !text)
		return 0;
	if (strcmp(text, NOT_GIVEN) == 0) {
		config_note_section(cfg);
		return 0;
	}
	if (num > (unsigned)list->max) {
		cfg_error(cfg, "%s: more than %d of them", list->name,
			  list->max);
		return -1;
	}
	if (list->is_good(text))
		return 0;
	(void)log_escape(escaped, sizeof(escaped), text, strlen(text));
	cfg_error(cfg, "%s: \"%s\": %s", list->name, escaped, list->advice);
	return -1;
}

/* ---- a section ---- */

static cfg_opt_t *find_list(cfg_t *section, const char *name)
{
	cfg_opt_t *opt;

	for (unsigned i = 0; (opt = cfg_getnopt(section, i)); i++) {
		if (strcmp(cfg_opt_name(opt), name) == 0)
			return opt;
	}
	return NULL;
}

void config_lists_set(cfg_t *cfg, const char *section)
{
	char path[64];

	for (size_t i = 0; i < NUM_LISTS; i++) {
		(void)snprintf(path, sizeof(path), "%s|%s", section,
			       lists[i].name);
		/* NULL, and no more than that: it cannot have this list. */
		(void)cfg_set_validate_func(cfg, path, check_entry);
	}
}

/* An empty list would read like "nobody" and mean the opposite. */
int config_lists_check(cfg_t *cfg, cfg_t *section)
{
	for (size_t i = 0; i < NUM_LISTS; i++) {
		cfg_opt_t *opt = find_list(section, lists[i].name);

		if (!opt || cfg_opt_size(opt) > 0)
			continue;
		cfg_error(cfg, "%s: name at least one, or remove the line",
			  lists[i].name);
		return -1;
	}
	return 0;
}

bool config_has_list(cfg_t *section, const char *name)
{
	cfg_opt_t *opt = find_list(section, name);

	return opt && cfg_opt_size(opt) > 0 &&
	       strcmp(cfg_opt_getnstr(opt, 0), NOT_GIVEN) != 0;
}

void config_read_names(cfg_t *section, const char *list,
		       struct policy_names *names)
{
	names->num = 0;
	if (!config_has_list(section, list))
		return;
	for (unsigned i = 0; i < cfg_size(section, list); i++)
		(void)snprintf(names->names[names->num++],
			       sizeof(names->names[0]), "%s",
			       cfg_getnstr(section, list, i));
}

int config_read_audience(cfg_t *section, struct policy_audience *audience)
{
	struct policy_names *users = &audience->users;

	config_read_names(section, "domains", &audience->domains);
	config_read_names(section, "peers", &audience->peers);
	config_read_names(section, "users", users);
	for (size_t i = 0; i < users->num; i++) {
		char *name = users->names[i];
		uid_t uid;

		if (strcmp(name, "*") == 0)
			continue;
		/* Anew: what was copied may have been cut. */
		if (!config_find_user(
			    cfg_getnstr(section, "users", (unsigned)i), &uid))
			return -EINVAL;
		(void)snprintf(name, sizeof(users->names[0]), "%u",
			       (unsigned)uid);
	}
	return 0;
}

void config_read_patterns(cfg_t *section, const char *list,
			  struct policy_patterns *patterns)
{
	patterns->num = 0;
	if (!config_has_list(section, list))
		return;
	for (unsigned i = 0; i < cfg_size(section, list); i++) {
		if (parse_pattern(cfg_getnstr(section, list, i),
				  &patterns->patterns[patterns->num]))
			patterns->num++;
	}
}
