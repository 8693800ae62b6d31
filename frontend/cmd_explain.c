/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip explain: on a gateway's machine, which rule decides. The rules are the
 * gateway's, and so is the answer: this finds the gateway's program and becomes
 * it.
 */
#include "frontend/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vchan-transport/log.h"

#define PROGRAM "xusbip-gateway"

/* Next to this program, or where it is installed: the s of sbin. */
static void exec_gateway(char **words)
{
	static const char *const places[] = { "", "../sbin/" };
	char own[4096];
	char path[sizeof(own) + sizeof(PROGRAM) + 16];
	ssize_t len = readlink("/proc/self/exe", own, sizeof(own));
	const char *slash = len > 0 ? memrchr(own, '/', (size_t)len) : NULL;

	for (size_t i = 0; slash && i < sizeof(places) / sizeof(places[0]);
	     i++) {
		(void)snprintf(path, sizeof(path), "%.*s%s" PROGRAM,
			       (int)(slash + 1 - own), own, places[i]);
		(void)execv(path, words);
	}
	(void)execvp(PROGRAM, words);
}

static enum exit_status run(const struct command_globals *globals, int argc,
			    char **argv)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "json", no_argument, NULL, 'j' },
		{ "verbose", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	static char program[] = PROGRAM;
	static char explain[] = "--explain";
	char **words;
	int option;

	(void)globals;
	while ((option = command_next_option(argc, argv, "c:", longs)) != -1) {
		if (option == '?')
			return command_wrong_option(&command_explain, argv);
	}
	if (argc - optind != 2)
		return command_misused(&command_explain,
				       "it takes a peer and a device");
	/* The same words, the NULL at their end too. */
	words = calloc((size_t)argc + 2, sizeof(*words));
	if (words) {
		words[0] = program;
		words[1] = explain;
		memcpy(words + 2, argv + 1, (size_t)argc * sizeof(*words));
		exec_gateway(words);
	}
	log_error("explain: " PROGRAM " cannot be started: %s; is the gateway "
		  "installed on this machine?",
		  strerror(errno));
	free(words);
	return EXIT_FAILED;
}

const struct command command_explain = {
	.name = "explain",
	.run = run,
	.summary = "Which rule of this gateway gives a peer a device, or why "
		   "none does",
	.usage = "xusbip explain [-c <file>] [--json] [--verbose] <peer> "
		 "<device>\n"
		 "    <peer>                 tls:NAME, tls:sha256:HEX, "
		 "xen:DOMAIN, user:NAME,\n"
		 "                           tcp or vsock\n"
		 "    <device>               Its bus id, as in a list\n"
		 "    -c, --config=<file>    The gateway's configuration\n"
		 "        --json             The answer as JSON\n"
		 "        --verbose          What each rule says of it\n",
};
