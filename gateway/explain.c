/* SPDX-License-Identifier: Apache-2.0 */
/* See explain.h. */
#include "gateway/explain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "gateway/config_lists.h"
#include "gateway/registry.h"
#include "vchan-transport/log.h"
#include "vchan-transport/tls.h"

#define UUID_CHARS  36
#define WHY_BYTES   192

#define THIS_GIVES  "this rule gives it"
#define THIS_DENIES "this rule denies it"

enum answer {
	ANSWER_ALLOWED,
	ANSWER_REFUSED,
	ANSWER_DEPENDS, /* on what a remote tells */
};

static const struct {
	const char *word;
	enum exit_status status;
} answers[] = {
	[ANSWER_ALLOWED] = { "allowed", EXIT_OK },
	[ANSWER_REFUSED] = { "refused", EXIT_NOT_ALLOWED },
	[ANSWER_DEPENDS] = { "depends", EXIT_FAILED },
};

/* What was found, and what led to it. */
struct explanation {
	const struct config *config;
	const struct explain_options *options;
	struct policy_peer peer;
	struct policy_device device;
	bool is_virtual;
	bool is_decided; /* by the rule at `line` */
	enum answer answer;
	unsigned line; /* of the section that decides, or 0 */
	char why[WHY_BYTES];
};

/* ---- who and what ---- */

static bool copy_name(char to[static POLICY_NAME_BYTES], const char *text)
{
	size_t len = strlen(text);

	if (len == 0 || len >= POLICY_NAME_BYTES)
		return false;
	memcpy(to, text, len + 1);
	return true;
}

static bool parse_tls_peer(const char *text, struct policy_peer *ret_peer)
{
	uint8_t pin[TLS_PIN_BYTES];

	ret_peer->kind = POLICY_PEER_TLS;
	if (tls_pin_parse(text, pin) == 0)
		return copy_name(ret_peer->pin, text);
	return !strchr(text, ':') && copy_name(ret_peer->name, text);
}

static bool parse_domain(const char *text, struct policy_peer *ret_peer)
{
	ret_peer->kind = POLICY_PEER_DOMAIN;
	if (strlen(text) == UUID_CHARS)
		(void)snprintf(ret_peer->uuid, sizeof(ret_peer->uuid), "%s",
			       text);
	return copy_name(ret_peer->name, text);
}

static bool parse_user(const char *text, struct policy_peer *ret_peer)
{
	uid_t uid;

	ret_peer->kind = POLICY_PEER_USER;
	if (!config_find_user(text, &uid))
		return false;
	(void)snprintf(ret_peer->name, sizeof(ret_peer->name), "%u",
		       (unsigned)uid);
	return true;
}

static bool parse_peer(const char *text, struct policy_peer *ret_peer)
{
	if (strncmp(text, "tls:", 4) == 0)
		return parse_tls_peer(text + 4, ret_peer);
	if (strncmp(text, "xen:", 4) == 0)
		return parse_domain(text + 4, ret_peer);
	if (strncmp(text, "user:", 5) == 0)
		return parse_user(text + 5, ret_peer);
	ret_peer->kind = POLICY_PEER_ANYBODY;
	return strcmp(text, "tcp") == 0 || strcmp(text, "vsock") == 0;
}

static const struct config_virtual *find_virtual(const struct config *config,
						 const char *busid)
{
	for (size_t i = 0; i < config->num_virtuals; i++) {
		if (strcmp(config->virtuals[i].busid, busid) == 0)
			return &config->virtuals[i];
	}
	return NULL;
}

/* "1-1.2@lab": where it is, which is all that is known of it here. */
static int find_away(struct explanation *e, const char *at)
{
	const char *busid = e->options->device;
	struct policy_device *device = &e->device;

	for (size_t i = 0; i < e->config->num_remotes; i++) {
		const char *name = e->config->remotes[i].name;

		if (strcmp(at + 1, name) != 0 ||
		    (size_t)(at - busid) >= sizeof(device->busid))
			continue;
		memcpy(device->busid, busid, (size_t)(at - busid));
		memcpy(device->remote, name, sizeof(device->remote));
		return 0;
	}
	return -ENOENT;
}

static int find_here(struct explanation *e)
{
	struct registry *registry;
	int r = registry_new(NULL, e->config, &registry);

	if (r < 0)
		return r;
	r = registry_find(registry, e->options->device, &e->device);
	registry_free(registry);
	return r;
}

/* ---- judging ---- */

static void judge_virtual(struct explanation *e, const struct config_virtual *v)
{
	bool is_given = policy_is_given_to(&v->to, &e->peer);

	e->is_virtual = true;
	e->line = v->line;
	e->answer = is_given ? ANSWER_ALLOWED : ANSWER_REFUSED;
	(void)snprintf(e->why, sizeof(e->why), "%s",
		       is_given ? "this section gives it"
				: "this section does not give it to this peer");
}

static void judge_here(struct explanation *e)
{
	const struct config *config = e->config;
	struct policy_verdict verdict = policy_judge(
		config->rules, config->num_rules, &e->device, &e->peer);

	e->answer = verdict.outcome == POLICY_EXPORTED ? ANSWER_ALLOWED
						       : ANSWER_REFUSED;
	e->line = verdict.rule ? verdict.rule->line : 0;
	e->is_decided = verdict.outcome == POLICY_EXPORTED ||
			verdict.outcome == POLICY_DENIED;
	if (verdict.outcome == POLICY_EXPORTED)
		(void)snprintf(e->why, sizeof(e->why), "%s", THIS_GIVES);
	else if (verdict.outcome == POLICY_DENIED)
		(void)snprintf(e->why, sizeof(e->why), "%s", THIS_DENIES);
	else
		policy_verdict_sentence(&verdict, e->why);
}

/* The rules in their order, until one looks at what only the remote knows. */
static void judge_away(struct explanation *e)
{
	const struct config *config = e->config;

	e->answer = ANSWER_REFUSED;
	(void)snprintf(e->why, sizeof(e->why),
		       "no export rule gives what %s has to this peer",
		       e->device.remote);
	for (size_t i = 0; i < config->num_rules; i++) {
		const struct policy_rule *rule = &config->rules[i];

		if (!policy_rule_may_match(rule, &e->device) ||
		    !policy_rule_is_about(rule, &e->peer))
			continue;
		e->is_decided = true;
		e->line = rule->line;
		if (policy_rule_looks_inside(rule)) {
			e->answer = ANSWER_DEPENDS;
			(void)snprintf(e->why, sizeof(e->why),
				       "this rule looks at what %s tells of it",
				       e->device.remote);
		} else if (rule->is_deny) {
			(void)snprintf(e->why, sizeof(e->why), "%s",
				       THIS_DENIES);
		} else {
			e->answer = ANSWER_ALLOWED;
			(void)snprintf(e->why, sizeof(e->why),
				       "%s, if it is no hub, keyboard or "
				       "network adapter",
				       THIS_GIVES);
		}
		return;
	}
}

static int judge(struct explanation *e)
{
	const char *at = strrchr(e->options->device, '@');
	const struct config_virtual *v =
		find_virtual(e->config, e->options->device);
	int r;

	if (v) {
		judge_virtual(e, v);
		return 0;
	}
	r = at ? find_away(e, at) : find_here(e);
	if (r < 0)
		return r;
	if (at)
		judge_away(e);
	else
		judge_here(e);
	return 0;
}

/* ---- saying it ---- */

/* Why one rule does not decide, or that it does. */
static void explain_rule(const struct explanation *e,
			 const struct policy_rule *rule,
			 char ret_text[static WHY_BYTES])
{
	struct policy_verdict verdict =
		policy_judge_by(rule, &e->device, &e->peer);
	const char *word = policy_rule_mismatch(rule, &e->device);

	if (e->is_decided && rule->line == e->line)
		(void)snprintf(ret_text, WHY_BYTES, "%s", e->why);
	else if (word && (e->device.remote[0] == '\0' ||
			  !policy_rule_may_match(rule, &e->device)))
		(void)snprintf(ret_text, WHY_BYTES, "%s differs", word);
	else if (!policy_rule_is_about(rule, &e->peer))
		(void)snprintf(ret_text, WHY_BYTES, "it is not for this peer");
	else
		policy_verdict_sentence(&verdict, ret_text);
}

/* Those that were asked: none behind the one that decides. */
static size_t count_asked(const struct explanation *e)
{
	const struct config *config = e->config;
	size_t num = 0;

	if (e->is_virtual)
		return 0;
	while (num < config->num_rules &&
	       (num == 0 || !e->is_decided ||
		config->rules[num - 1].line != e->line))
		num++;
	return num;
}

/* The line of the file, for people who would look it up next. */
static void print_source(const char *path, unsigned line)
{
	FILE *file = fopen(path, "re");
	char escaped[1024];
	char *text = NULL;
	size_t cap = 0;
	ssize_t len = -1;

	for (unsigned i = 0; file && i < line; i++)
		len = getline(&text, &cap, file);
	if (len > 0) {
		size_t blanks = strspn(text, " \t");

		(void)log_escape(escaped, sizeof(escaped), text + blanks,
				 strcspn(text + blanks, "\n"));
		printf("    %s\n", escaped);
	}
	free(text);
	if (file)
		(void)fclose(file);
}

static enum exit_status print_text(const struct explanation *e)
{
	const char *path = e->options->config_path;
	size_t num_asked = e->options->is_verbose ? count_asked(e) : 0;
	char why[WHY_BYTES];

	if (e->line > 0) {
		printf("%s: %s:%u: %s\n", answers[e->answer].word, path,
		       e->line, e->why);
		print_source(path, e->line);
	} else {
		printf("%s: %s: %s\n", answers[e->answer].word, path, e->why);
	}
	if (num_asked > 0)
		printf("What the rules say:\n");
	for (size_t i = 0; i < num_asked; i++) {
		explain_rule(e, &e->config->rules[i], why);
		printf("    %s:%u: %s\n", path, e->config->rules[i].line, why);
	}
	return answers[e->answer].status;
}

static void put(json_object *to, const char *key, json_object *value)
{
	if (json_object_object_add(to, key, value) < 0)
		(void)json_object_put(value);
}

static json_object *new_line(unsigned line)
{
	return line > 0 ? json_object_new_int64(line) : NULL;
}

static enum exit_status print_json(const struct explanation *e)
{
	size_t num_asked = e->options->is_verbose ? count_asked(e) : 0;
	json_object *object = json_object_new_object();
	json_object *rules = json_object_new_array();
	char why[WHY_BYTES];
	const char *text;

	put(object, "peer", json_object_new_string(e->options->peer));
	put(object, "device", json_object_new_string(e->options->device));
	put(object, "answer", json_object_new_string(answers[e->answer].word));
	put(object, "file", json_object_new_string(e->options->config_path));
	put(object, "line", new_line(e->line));
	put(object, "why", json_object_new_string(e->why));
	for (size_t i = 0; i < num_asked; i++) {
		json_object *rule = json_object_new_object();

		explain_rule(e, &e->config->rules[i], why);
		put(rule, "line", new_line(e->config->rules[i].line));
		put(rule, "why", json_object_new_string(why));
		(void)json_object_array_add(rules, rule);
	}
	if (e->options->is_verbose)
		put(object, "rules", rules);
	else
		(void)json_object_put(rules);
	text = json_object_to_json_string_ext(
		object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
				JSON_C_TO_STRING_NOSLASHESCAPE);
	printf("%s\n", text ? text : "null");
	(void)json_object_put(object);
	return answers[e->answer].status;
}

enum exit_status explain_run(const struct config *config,
			     const struct explain_options *options)
{
	struct explanation e = { .config = config, .options = options };
	int r;

	if (!parse_peer(options->peer, &e.peer)) {
		log_error("%s is nobody whom rules know: write tls:NAME, "
			  "tls:sha256:HEX, xen:DOMAIN, user:NAME, tcp or vsock",
			  options->peer);
		return EXIT_USAGE;
	}
	r = judge(&e);
	if (r < 0) {
		log_error("%s: there is no such device: neither in this "
			  "machine, nor in %s, nor of a remote of it",
			  options->device, options->config_path);
		return EXIT_NO_DEVICE;
	}
	return options->is_json ? print_json(&e) : print_text(&e);
}
