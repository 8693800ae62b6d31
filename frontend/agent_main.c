/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip-frontend: the agent (agent.h), or with --serve one connection of it
 * (serve.h), or with --job a piece of its work (job_run.h), which only the
 * agent itself asks for.
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "frontend/agent.h"
#include "frontend/agent_config.h"
#include "frontend/job_run.h"
#include "frontend/serve.h"
#include "frontend/sysfs.h"
#include "vchan-transport/log.h"
#include "vchan-transport/sandbox.h"

#define VERSION "0.1"

struct command_line {
	struct agent_options agent;
	const char *serve; /* number of a descriptor, or NULL */
	const char *job;   /* its verb, or NULL */
	const char *tls_dir;
	bool is_check;
	bool is_help;
	bool is_version;
};

static bool read_command_line(int argc, char **argv, struct command_line *line)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check-config", no_argument, NULL, 'C' },
		{ "debug", no_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ "serve", required_argument, NULL, 'S' },
		{ "job", required_argument, NULL, 'J' },
		{ "tls-dir", required_argument, NULL, 'T' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "c:dhV", longs, NULL)) != -1) {
		if (option == 'c')
			line->agent.config_path = optarg;
		else if (option == 'C')
			line->is_check = true;
		else if (option == 'd')
			line->agent.is_debug = true;
		else if (option == 'h')
			line->is_help = true;
		else if (option == 'V')
			line->is_version = true;
		else if (option == 'S')
			line->serve = optarg;
		else if (option == 'J')
			line->job = optarg;
		else if (option == 'T')
			line->tls_dir = optarg;
		else
			return false;
	}
	return line->serve || line->job || optind == argc;
}

/* The arguments are addresses of gateways, as the agent has formatted them. */
static enum exit_status serve(const struct command_line *line, int argc,
			      char **argv)
{
	struct address gateways[AGENT_MAX_GATEWAYS];
	struct serve_options options = { .gateways = gateways,
					 .tls_dir = line->tls_dir };
	const char *why;
	const char *end;
	uint32_t fd;

	end = sysfs_scan_number(line->serve, 10, &fd);
	if (!end || *end || fd <= STDERR_FILENO || argc > AGENT_MAX_GATEWAYS)
		return EXIT_USAGE;
	options.peer_fd = (int)fd;
	for (int i = 0; i < argc; i++) {
		if (address_parse(argv[i], &gateways[i], &why) < 0)
			return EXIT_USAGE;
	}
	options.num_gateways = (size_t)argc;
	return serve_run(&options);
}

static enum exit_status check_config(const char *path)
{
	struct agent_config config;
	char why[AGENT_WHY_BYTES];

	if (agent_config_load(path, &config, why) < 0) {
		log_error("%s: %s", path, why);
		return EXIT_CONFIG;
	}
	agent_config_warn_tls(&config);
	log_info("%s is a right configuration", path);
	return EXIT_OK;
}

static enum exit_status show_help(void)
{
	printf("usage: xusbip-frontend [-c|--config FILE] [--debug]\n"
	       "       xusbip-frontend [-c|--config FILE] --check-config\n"
	       "\n"
	       "Serves stock usbip commands on this machine from xusbip "
	       "gateways;\n%s says where.\n",
	       AGENT_CONFIG_PATH);
	return EXIT_OK;
}

int main(int argc, char **argv)
{
	struct command_line line = { .agent.config_path = AGENT_CONFIG_PATH };
	char prefix[48] = "xusbip-frontend";
	bool is_right;

	sandbox_at_entry();
	log_init(prefix, LOG_LEVEL_INFO);
	is_right = read_command_line(argc, argv, &line);
	if (line.serve)
		(void)snprintf(prefix, sizeof(prefix),
			       "xusbip-frontend connection %d", (int)getpid());
	if (line.job)
		(void)snprintf(prefix, sizeof(prefix), "xusbip-frontend job %d",
			       (int)getpid());
	log_init(prefix,
		 line.agent.is_debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	if (!is_right) {
		log_error("wrong command line; see: xusbip-frontend --help");
		return EXIT_USAGE;
	}
	if (line.is_help)
		return show_help();
	if (line.is_version) {
		printf("xusbip-frontend %s\n", VERSION);
		return EXIT_OK;
	}
	if (line.is_check)
		return check_config(line.agent.config_path);
	if (line.serve)
		return serve(&line, argc - optind, argv + optind);
	if (line.job)
		return job_run(line.job, argc - optind, argv + optind);
	return agent_run(&line.agent);
}
