/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip: list what gateways export, attach and detach it, show what is
 * attached; on a gateway's machine, say which domain is to have what. The verbs and options are those of stock `usbip`; the addresses
 * reach further (address.h).
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "frontend/command.h"
#include "frontend/sysfs.h"
#include "vchan-transport/log.h"
#include "vchan-transport/sandbox.h"

#define VERSION "0.1"

static const struct command *const commands[] = {
	&command_attach, &command_detach,  &command_explain, &command_list,
	&command_port,   &command_quiesce, &command_resume,
};

#define NUM_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < NUM_COMMANDS; i++) {
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	}
	return NULL;
}

static enum exit_status show_help(const char *name)
{
	const struct command *command = name ? find(name) : NULL;

	if (command) {
		printf("usage: %s", command->usage);
		return EXIT_OK;
	}
	printf("usage: xusbip [--debug] [--log] [--tcp-port PORT] "
	       "[--tls-dir DIR]\n"
	       "              [version] [help] <command> <args>\n\n");
	for (size_t i = 0; i < NUM_COMMANDS; i++)
		printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
	printf("\nAn address is xen:DOMAIN, tls:HOST[:PORT], tcp:HOST[:PORT], "
	       "unix:PATH,\nvsock:CID[:PORT], or HOST[:PORT], which means "
	       "tcp:.\n");
	return EXIT_OK;
}

/* 0, or EXIT_USAGE when it has said what is wrong. */
static enum exit_status read_globals(int argc, char **argv,
				     struct command_globals *globals)
{
	static const struct option longs[] = {
		{ "debug", no_argument, NULL, 'd' },
		{ "log", no_argument, NULL, 'l' },
		{ "tcp-port", required_argument, NULL, 't' },
		{ "tls-dir", required_argument, NULL, 'T' },
		{ NULL, 0, NULL, 0 },
	};
	const char *end;
	uint32_t port;
	int option;

	while ((option = command_next_option(argc, argv, "+dlt:", longs)) !=
	       -1) {
		switch (option) {
		case 'd':
			log_init("xusbip", LOG_LEVEL_DEBUG);
			break;
		case 'l':
			log_to_syslog();
			break;
		case 't':
			end = sysfs_scan_number(optarg, 10, &port);
			if (!end || *end || port == 0 || port > UINT16_MAX) {
				log_error("%s is not a port; it is a number "
					  "from 1 to 65535",
					  optarg);
				return EXIT_USAGE;
			}
			globals->tcp_port = (uint16_t)port;
			break;
		case 'T':
			globals->tls_dir = optarg;
			break;
		default:
			log_error("%s is no option, or lacks its argument; "
				  "see: xusbip help",
				  argv[optind - 1]);
			return EXIT_USAGE;
		}
	}
	return EXIT_OK;
}

static enum exit_status run_command(const struct command_globals *globals,
				    int argc, char **argv)
{
	const struct command *command = find(argv[0]);

	if (strcmp(argv[0], "help") == 0)
		return show_help(argc > 1 ? argv[1] : NULL);
	if (strcmp(argv[0], "version") == 0) {
		printf("xusbip %s\n", VERSION);
		return EXIT_OK;
	}
	if (!command) {
		log_error("%s is not a command; see: xusbip help", argv[0]);
		return EXIT_USAGE;
	}
	optind = 0; /* getopt starts anew, as glibc has it */
	return command->run(globals, argc, argv);
}

int main(int argc, char **argv)
{
	struct command_globals globals = { 0 };
	enum exit_status status;

	sandbox_at_entry();
	log_init("xusbip", LOG_LEVEL_INFO);
	status = read_globals(argc, argv, &globals);
	if (status == EXIT_OK && optind == argc) {
		(void)show_help(NULL);
		status = EXIT_USAGE;
	} else if (status == EXIT_OK) {
		status = run_command(&globals, argc - optind, argv + optind);
	}
	if (fflush(stdout) != 0 && status == EXIT_OK) {
		log_error("cannot write to standard output");
		status = EXIT_FAILED;
	}
	return status;
}
