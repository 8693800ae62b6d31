/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_admin.h - commands that are carried out by the gateway on this machine:
 * asks it over its admin.sock (vchan-transport/admin.h) and shows the answer.
 */
#ifndef CMD_ADMIN_H
#define CMD_ADMIN_H

#include <stdbool.h>

#include "vchan-transport/admin.h"

struct cmd_admin {
	enum admin_verb verb;
	const char *domain;
	const char *busid; /* NULL: the verb has none */
	bool persists;
	bool is_json;
};

/* Asks, says on a terminal that it waits, and prints what came of it. */
enum exit_status cmd_admin_run(const struct cmd_admin *asked);

#endif
