/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip quiesce and resume: around what a domain must not have devices for,
 * as saving, migrating and suspending. With a domain the gateway of this
 * machine sees to it. Without one this is a guest, and its own agent does,
 * which hears of it in xenstore (docs/protocol.md, "Guests").
 */
#include "frontend/command.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "frontend/cmd_admin.h"
#include "frontend/json.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"
#include "vchan-transport/store.h"

#define OWN_WORD       "data/xusbip/hold"
#define OWN_ANSWER     "data/xusbip/held"
#define AGENT_LIMIT_MS 30000u

static bool is_answered(struct store *store, uint64_t epoch,
			enum handshake_verb verb)
{
	char text[HANDSHAKE_WORD_BYTES];
	struct handshake_word word;

	return store_read(store, OWN_ANSWER, text, sizeof(text)) >= 0 &&
	       handshake_parse(text, &word) && word.epoch == epoch &&
	       word.verb == verb;
}

static int await_answer(struct store *store, uint64_t epoch,
			enum handshake_verb verb)
{
	uint64_t deadline_ms = clock_ms() + AGENT_LIMIT_MS;
	struct pollfd polled = { .fd = store_fd(store), .events = POLLIN };
	char token[STORE_TOKEN_BYTES];
	uint64_t now;
	int r;

	while (!is_answered(store, epoch, verb)) {
		now = clock_ms();
		if (now >= deadline_ms)
			return -ETIMEDOUT;
		(void)poll(&polled, 1, (int)(deadline_ms - now));
		do
			r = store_next_event(store, token);
		while (r > 0);
		if (r < 0)
			return r;
	}
	return 0;
}

static int ask_agent(struct store *store, enum handshake_verb verb)
{
	struct handshake_word word = { .verb = verb,
				       .epoch = handshake_new_epoch() };
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	handshake_format(text, &word);
	r = store_watch(store, OWN_ANSWER, "held");
	if (r == 0)
		r = store_write(store, OWN_WORD, text);
	if (r == 0)
		r = await_answer(store, word.epoch,
				 verb == HANDSHAKE_HOLD ? HANDSHAKE_DONE
							: HANDSHAKE_RESUMED);
	return r;
}

static enum exit_status run_in_guest(enum handshake_verb verb, bool is_json)
{
	const char *what = verb == HANDSHAKE_HOLD ? "quiesced" : "resumed";
	struct store *store;
	int r = store_open(&store);

	if (r < 0) {
		log_error("this machine has no xenstore: %s; name a domain if "
			  "this is a gateway's",
			  strerror(-r));
		return EXIT_FAILED;
	}
	r = ask_agent(store, verb);
	store_close(store);
	if (r == -ETIMEDOUT) {
		log_error("the agent of this domain did not answer within %u s;"
			  " is xusbip-frontend running?",
			  AGENT_LIMIT_MS / 1000);
		return EXIT_TIMEOUT;
	}
	if (r < 0) {
		log_error("cannot ask the agent of this domain in xenstore: %s",
			  strerror(-r));
		return EXIT_FAILED;
	}
	if (is_json)
		return json_print_done(NULL, NULL, what);
	printf("%s this domain\n", what);
	return EXIT_OK;
}

static enum exit_status run(const struct command *command, int argc,
			    char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	bool is_hold = command == &command_quiesce;
	struct cmd_admin asked = { .verb = is_hold ? ADMIN_QUIESCE
						   : ADMIN_RESUME };
	int option;

	while ((option = command_next_option(argc, argv, "j", longs)) != -1) {
		if (option != 'j')
			return command_wrong_option(command, argv);
		asked.is_json = true;
	}
	if (argc - optind > 1)
		return command_misused(command, "it takes one domain or none");
	if (optind == argc)
		return run_in_guest(is_hold ? HANDSHAKE_HOLD : HANDSHAKE_RESUME,
				    asked.is_json);
	asked.domain = argv[optind];
	return cmd_admin_run(&asked);
}

static enum exit_status quiesce(const struct command_globals *globals, int argc,
				char **argv)
{
	(void)globals;
	return run(&command_quiesce, argc, argv);
}

static enum exit_status resume(const struct command_globals *globals, int argc,
			       char **argv)
{
	(void)globals;
	return run(&command_resume, argc, argv);
}

const struct command command_quiesce = {
	.name = "quiesce",
	.run = quiesce,
	.summary = "Have a domain let go of its devices, to save or suspend it",
	.usage = "xusbip quiesce [--json] [<domain>]\n"
		 "    <domain>               Number, name or UUID; none: this "
		 "one\n"
		 "        --json             The result as JSON\n",
};

const struct command command_resume = {
	.name = "resume",
	.run = resume,
	.summary = "Let a domain take back what it let go of",
	.usage = "xusbip resume [--json] [<domain>]\n"
		 "    <domain>               Number, name or UUID; none: this "
		 "one\n"
		 "        --json             The result as JSON\n",
};
