/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip attach: see attach.h for how it is done; with --to the agent of
 * another domain does it, at the word of the gateway here.
 */
#include "frontend/command.h"

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "frontend/attach.h"
#include "frontend/cmd_admin.h"
#include "frontend/json.h"
#include "frontend/record.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"

/* Younger records may belong to an attachment that is just being made. */
#define STALE_RECORD_MS 2000u

static enum exit_status attach(const struct attach_plan *plan, bool is_json)
{
	struct attach_result result;
	struct failure failure;
	enum exit_status status;

	if (geteuid() != 0) {
		log_error("attach: only root can give devices to vhci_hcd; "
			  "try: sudo xusbip attach ...");
		return EXIT_NOT_ALLOWED;
	}
	if (access(VHCI_DIR "/attach", F_OK) < 0) {
		log_error("attach: vhci_hcd is not loaded; load it with: "
			  "modprobe vhci-hcd");
		return EXIT_NO_VHCI;
	}
	(void)record_sweep(RECORD_DIR, VHCI_DIR, STALE_RECORD_MS);
	status = attach_run(plan, &result, &failure);
	if (status != EXIT_OK)
		return command_fail(&failure);
	if (is_json)
		return json_print_attached(plan->gateway, &result);
	printf("attached %s of %s as %s at port %02u\n", plan->busid,
	       plan->gateway, result.busid, result.port);
	return EXIT_OK;
}

static enum exit_status attach_from(const struct command_globals *globals,
				    struct attach_plan *plan, bool is_json)
{
	enum exit_status status =
		command_address(globals, plan->gateway, &plan->address);

	return status == EXIT_OK ? attach(plan, is_json) : status;
}

static enum exit_status run(const struct command_globals *globals, int argc,
			    char **argv)
{
	static const struct option longs[] = {
		{ "remote", required_argument, NULL, 'r' },
		{ "busid", required_argument, NULL, 'b' },
		{ "device", required_argument, NULL, 'd' },
		{ "to", required_argument, NULL, 't' },
		{ "persist", no_argument, NULL, 'P' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct cmd_admin asked = { .verb = ADMIN_ATTACH };
	struct attach_plan plan = { 0 };
	int option;

	while ((option = command_next_option(argc, argv, "r:b:d:j", longs)) !=
	       -1) {
		if (option == 'r')
			plan.gateway = optarg;
		else if (option == 'b' || option == 'd')
			plan.busid = optarg;
		else if (option == 'j')
			asked.is_json = true;
		else if (option == 't')
			asked.domain = optarg;
		else if (option == 'P')
			asked.persists = true;
		else
			return command_wrong_option(&command_attach, argv);
	}
	if (optind != argc || !plan.busid || !plan.gateway == !asked.domain)
		return command_misused(&command_attach,
				       "give --busid, and --remote or --to");
	if (asked.persists && !asked.domain)
		return command_misused(&command_attach,
				       "--persist goes with --to");
	if (!import_is_busid(plan.busid))
		return command_misused(&command_attach,
				       "a bus id has 1 to 31 characters, "
				       "none of them a blank");
	asked.busid = plan.busid;
	return asked.domain ? cmd_admin_run(&asked)
			    : attach_from(globals, &plan, asked.is_json);
}

const struct command command_attach = {
	.name = "attach",
	.run = run,
	.summary = "Attach a remote USB device",
	.usage = "xusbip attach [--json] <args>\n"
		 "    -r, --remote=<address> The gateway that exports the "
		 "device\n"
		 "    -b, --busid=<busid>    Busid of the device there\n"
		 "    -d, --device=<devid>   Id of a virtual UDC there\n"
		 "        --to=<domain>      In place of -r, on a gateway's "
		 "machine: have\n"
		 "                           that domain attach a device of "
		 "this one\n"
		 "        --persist          With --to: again whenever it is "
		 "lost\n"
		 "        --json             The result as JSON\n",
};
