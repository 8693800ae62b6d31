/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command.h - the subcommands of xusbip: one file each, cmd_NAME.c. Each reads
 * its own options, does its work, and says in one line what went wrong.
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <getopt.h>
#include <stdint.h>

#include "vchan-transport/channel.h"
#include "vchan-transport/failure.h"

/* The options before the subcommand. */
struct command_globals {
	uint16_t tcp_port;   /* where an address has none; 0: the usual one */
	const char *tls_dir; /* of channel_options */
};

struct command {
	const char *name;
	enum exit_status (*run)(const struct command_globals *globals, int argc,
				char **argv);
	const char *summary;
	const char *usage;
};

extern const struct command command_list;
extern const struct command command_attach;
extern const struct command command_detach;
extern const struct command command_explain;
extern const struct command command_port;
extern const struct command command_quiesce;
extern const struct command command_resume;

/* Shows the failure, and returns its status. */
enum exit_status command_fail(const struct failure *failure);

/* Says what is wrong with the command line; EXIT_USAGE. */
enum exit_status command_misused(const struct command *command,
				 const char *what);

/* Reads the next option as getopt_long() does, which is not let talk. */
int command_next_option(int argc, char **argv, const char *shorts,
			const struct option *longs);

/* Says which option is wrong; EXIT_USAGE. */
enum exit_status command_wrong_option(const struct command *command,
				      char **argv);

/* The address behind -r; EXIT_USAGE if it is none. */
enum exit_status command_address(const struct command_globals *globals,
				 const char *text, struct address *ret_address);

/* What --pin says of it; NULL: nothing. EXIT_USAGE if it is no pin. */
enum exit_status command_pin(const char *text, const struct address *address,
			     uint8_t ret_pin[static TLS_PIN_BYTES]);

#endif
