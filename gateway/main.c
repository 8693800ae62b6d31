/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip-gateway: exports USB devices. One program, three roles: the manager,
 * which a person or systemd starts, the session, which the manager starts for
 * each connection, and the dialer, which it starts to ask another gateway
 * (manager.h and dial.h say how they are called).
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "gateway/config.h"
#include "gateway/config_tls.h"
#include "gateway/dial.h"
#include "gateway/explain.h"
#include "gateway/manager.h"
#include "gateway/session.h"
#include "vchan-transport/exit_status.h"
#include "vchan-transport/log.h"
#include "vchan-transport/sandbox.h"

#define VERSION "0.1"

static const char usage[] =
	"usage: xusbip-gateway [-c FILE] [--debug]\n"
	"       xusbip-gateway [-c FILE] [--debug] --manager\n"
	"       xusbip-gateway [-c FILE] --check-config\n"
	"       xusbip-gateway [-c FILE] [--verbose] [--json] --explain PEER "
	"DEVICE\n"
	"\n"
	"Exports USB devices of this machine, and virtual ones, with USB/IP.\n"
	"\n"
	"  -c, --config FILE   configuration (default " CONFIG_DEFAULT_PATH
	")\n"
	"      --check-config  read the configuration, say what is wrong, end\n"
	"      --explain       say which rule gives PEER the DEVICE, or why none "
	"does\n"
	"      --verbose       with --explain: what each rule says of it\n"
	"      --json          with --explain: the answer as JSON\n"
	"      --manager       export nothing: only make gateways in other "
	"domains of\n"
	"                      this Xen known to their guests (in dom0)\n"
	"      --debug         log more\n"
	"      --version       print the version and end\n"
	"  -h, --help          print this and end\n"
	"\n"
	"SIGHUP reads the configuration again. See xusbip-gateway(8).\n";

enum action {
	ACTION_SERVE,
	ACTION_CHECK,
	ACTION_EXPLAIN,
	ACTION_END, /* all is said */
	ACTION_REFUSE,
};

struct options {
	const char *config_path;
	bool is_debug;
	bool has_pairs_only;
	struct explain_options explain;
};

enum long_only {
	OPTION_CHECK = 256,
	OPTION_DEBUG,
	OPTION_EXPLAIN,
	OPTION_JSON,
	OPTION_MANAGER,
	OPTION_VERBOSE,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "check-config", no_argument, NULL, OPTION_CHECK },
	{ "explain", no_argument, NULL, OPTION_EXPLAIN },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "verbose", no_argument, NULL, OPTION_VERBOSE },
	{ "manager", no_argument, NULL, OPTION_MANAGER },
	{ "debug", no_argument, NULL, OPTION_DEBUG },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

/* What stands behind the options. */
static enum action parse_words(int argc, char **argv, enum action action,
			       struct options *o)
{
	int expected = action == ACTION_EXPLAIN ? 2 : 0;

	if (argc - optind < expected) {
		(void)fprintf(stderr,
			      "xusbip-gateway: --explain needs PEER and "
			      "DEVICE; see xusbip-gateway --help\n");
		return ACTION_REFUSE;
	}
	if (argc - optind > expected) {
		(void)fprintf(stderr,
			      "xusbip-gateway: \"%s\" is one word too many; "
			      "see xusbip-gateway --help\n",
			      argv[optind + expected]);
		return ACTION_REFUSE;
	}
	if (expected > 0) {
		o->explain.peer = argv[optind];
		o->explain.device = argv[optind + 1];
	}
	return action;
}

static enum action parse_options(int argc, char **argv, struct options *o)
{
	enum action action = ACTION_SERVE;
	int c;

	while ((c = getopt_long(argc, argv, "c:h", long_options, NULL)) >= 0) {
		switch (c) {
		case 'c':
			o->config_path = optarg;
			break;
		case OPTION_CHECK:
			action = ACTION_CHECK;
			break;
		case OPTION_EXPLAIN:
			action = ACTION_EXPLAIN;
			break;
		case OPTION_JSON:
			o->explain.is_json = true;
			break;
		case OPTION_VERBOSE:
			o->explain.is_verbose = true;
			break;
		case OPTION_DEBUG:
			o->is_debug = true;
			break;
		case OPTION_MANAGER:
			o->has_pairs_only = true;
			break;
		case OPTION_VERSION:
			(void)puts("xusbip-gateway " VERSION);
			return ACTION_END;
		case 'h':
			(void)fputs(usage, stdout);
			return ACTION_END;
		default:
			return ACTION_REFUSE;
		}
	}
	return parse_words(argc, argv, action, o);
}

/* NULL, or why the file would do nothing for anybody. */
static const char *lacks(const struct config *config)
{
	if (config->num_virtuals > 0 || config->num_gateways > 0)
		return NULL;
	for (size_t i = 0; i < config->num_rules; i++) {
		if (!config->rules[i].is_deny)
			return NULL;
	}
	return "it has no export that gives something, no disk and no zero";
}

/* What a start needs beyond a file that is well written. */
static enum exit_status check(const struct options *o,
			      const struct config *config)
{
	char why[CONFIG_WHY_BYTES];

	if (config_check_tls(config, why) < 0) {
		log_error("%s: %s", o->config_path, why);
		return EXIT_CONFIG;
	}
	if (!o->has_pairs_only && lacks(config))
		log_warn("%s: exports nothing: %s", o->config_path,
			 lacks(config));
	return EXIT_OK;
}

static enum exit_status run(struct options *o, enum action action)
{
	char why[CONFIG_WHY_BYTES];
	struct manager_options options = { .config_path = o->config_path,
					   .is_debug = o->is_debug,
					   .has_pairs_only =
						   o->has_pairs_only };
	enum exit_status status;

	if (config_load(o->config_path, &options.config, why) < 0) {
		log_error("%s", why);
		return EXIT_CONFIG;
	}
	o->explain.config_path = o->config_path;
	status = action == ACTION_EXPLAIN
			 ? explain_run(options.config, &o->explain)
			 : check(o, options.config);
	if (status == EXIT_OK && action == ACTION_SERVE)
		return manager_run(&options);
	if (status == EXIT_OK && action == ACTION_CHECK) {
		config_warn_tls(options.config);
		(void)printf("%s: ok\n", o->config_path);
	}
	config_free(options.config);
	return status;
}

/* What the manager wrote: trusted, so numbers are read without ceremony. */
static unsigned long number_of(char **argv, enum session_argv which)
{
	return strtoul(argv[which], NULL, 10);
}

static enum exit_status run_session(int argc, char **argv)
{
	struct session_options options = { 0 };
	char prefix[64];
	bool is_debug;

	if (argc != SESSION_ARGV_COUNT) {
		log_error("%s is the manager's way to start a session",
			  SESSION_ARGV_MARK);
		return EXIT_USAGE;
	}
	options.kind = (enum address_kind)number_of(argv, SESSION_ARGV_KIND);
	options.peer_fd = (int)number_of(argv, SESSION_ARGV_PEER_FD);
	options.manager_fd = (int)number_of(argv, SESSION_ARGV_MANAGER_FD);
	options.ring_bytes = number_of(argv, SESSION_ARGV_RING_BYTES);
	options.budget_bytes = number_of(argv, SESSION_ARGV_BUDGET_BYTES);
	options.domid = (unsigned)number_of(argv, SESSION_ARGV_DOMID);
	options.path = argv[SESSION_ARGV_PATH];
	options.tls_dir = argv[SESSION_ARGV_TLS_DIR];
	options.peer = argv[SESSION_ARGV_PEER];
	is_debug = number_of(argv, SESSION_ARGV_IS_DEBUG) != 0;

	/* Otherwise ps shows "exe", by which the manager started us. */
	(void)prctl(PR_SET_NAME, "xusbip-session", 0, 0, 0);
	(void)snprintf(prefix, sizeof(prefix), "xusbip-gateway session %d",
		       (int)getpid());
	log_init(prefix, is_debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	return session_run(&options);
}

int main(int argc, char **argv)
{
	struct options options = { .config_path = CONFIG_DEFAULT_PATH };
	enum action action;

	sandbox_at_entry();
	log_init("xusbip-gateway", LOG_LEVEL_INFO);
	if (argc > 1 && strcmp(argv[1], SESSION_ARGV_MARK) == 0)
		return run_session(argc, argv);
	if (argc > 1 && strcmp(argv[1], DIAL_ARGV_MARK) == 0)
		return dial_main(argc, argv);

	action = parse_options(argc, argv, &options);
	if (action == ACTION_END)
		return EXIT_OK;
	if (action == ACTION_REFUSE)
		return EXIT_USAGE;
	if (options.is_debug)
		log_init("xusbip-gateway", LOG_LEVEL_DEBUG);
	return run(&options, action);
}
