/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip attach: see attach.h for how it is done; with --to the agent of
 * another domain does it, at the word of the gateway here.
 */
#include "frontend/command.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "frontend/attach.h"
#include "frontend/cmd_admin.h"
#include "frontend/json.h"
#include "frontend/record.h"
#include "frontend/standing_note.h"
#include "frontend/wish.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"

/* Younger records may belong to an attachment that is just being made. */
#define STALE_RECORD_MS 2000u

/* What -r is given with. */
struct asked {
	struct attach_plan plan;
	const char *pin;
	uint8_t pin_bytes[TLS_PIN_BYTES];
	struct wish wish; /* if it persists */
	bool persists;
	bool is_json;
};

/* What stays attached is kept by an agent, which finds the wish by itself. */
static enum exit_status keep(struct wish *wish,
			     const struct attach_result *result)
{
	int r;

	wish->vendor = result->device.vendor;
	wish->product = result->device.product;
	r = wish_write(wish);
	if (r < 0) {
		log_error("attach: it is attached, but will not be again: "
			  "cannot write %s/%s: %s",
			  wish_dir(), wish->name, strerror(-r));
		return EXIT_FAILED;
	}
	if (!standing_note_has_agent())
		log_warn("attach: it is attached, but nobody keeps it so; "
			 "start xusbip-frontend");
	return EXIT_OK;
}

static void make_wish(struct asked *asked)
{
	struct wish *wish = &asked->wish;

	*wish = (struct wish){ .gateway = asked->plan.address };
	(void)snprintf(wish->busid, sizeof(wish->busid), "%s",
		       asked->plan.busid);
	if (asked->pin)
		(void)snprintf(wish->pin, sizeof(wish->pin), "%s", asked->pin);
	wish_set_name(wish);
	asked->plan.wish = wish->name;
}

static enum exit_status attach(struct asked *asked)
{
	struct attach_plan *plan = &asked->plan;
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
	if (asked->persists)
		make_wish(asked);
	status = attach_run(plan, &result, &failure);
	if (status != EXIT_OK)
		return command_fail(&failure);
	if (asked->is_json)
		status = json_print_attached(plan->gateway, &result);
	else
		printf("attached %s of %s as %s at port %02u\n", plan->busid,
		       plan->gateway, result.busid, result.port);
	if (asked->persists && status == EXIT_OK)
		status = keep(&asked->wish, &result);
	return status;
}

static enum exit_status attach_from(const struct command_globals *globals,
				    struct asked *asked)
{
	struct attach_plan *plan = &asked->plan;
	enum exit_status status =
		command_address(globals, plan->gateway, &plan->address);

	if (status == EXIT_OK)
		status = command_pin(asked->pin, &plan->address,
				     asked->pin_bytes);
	if (status != EXIT_OK)
		return status;
	plan->options.tls_dir = globals->tls_dir;
	if (asked->pin)
		plan->options.tls_pin = asked->pin_bytes;
	return attach(asked);
}

static enum exit_status attach_to(const struct asked *asked, const char *domain)
{
	struct cmd_admin admin = { .verb = ADMIN_ATTACH,
				   .domain = domain,
				   .busid = asked->plan.busid,
				   .persists = asked->persists,
				   .is_json = asked->is_json };

	return cmd_admin_run(&admin);
}

static enum exit_status run(const struct command_globals *globals, int argc,
			    char **argv)
{
	static const struct option longs[] = {
		{ "remote", required_argument, NULL, 'r' },
		{ "busid", required_argument, NULL, 'b' },
		{ "device", required_argument, NULL, 'd' },
		{ "to", required_argument, NULL, 't' },
		{ "pin", required_argument, NULL, 'p' },
		{ "persist", no_argument, NULL, 'P' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct asked asked = { 0 };
	const char *domain = NULL;
	int option;

	while ((option = command_next_option(argc, argv, "r:b:d:j", longs)) !=
	       -1) {
		if (option == 'r')
			asked.plan.gateway = optarg;
		else if (option == 'b' || option == 'd')
			asked.plan.busid = optarg;
		else if (option == 'j')
			asked.is_json = true;
		else if (option == 't')
			domain = optarg;
		else if (option == 'p')
			asked.pin = optarg;
		else if (option == 'P')
			asked.persists = true;
		else
			return command_wrong_option(&command_attach, argv);
	}
	if (optind != argc || !asked.plan.busid ||
	    !asked.plan.gateway == !domain)
		return command_misused(&command_attach,
				       "give --busid, and --remote or --to");
	if (asked.pin && domain)
		return command_misused(&command_attach,
				       "--pin goes with --remote");
	if (!import_is_busid(asked.plan.busid))
		return command_misused(&command_attach,
				       "a bus id has 1 to 31 characters, "
				       "none of them a blank");
	return domain ? attach_to(&asked, domain)
		      : attach_from(globals, &asked);
}

const struct command command_attach = {
	.name = "attach",
	.run = run,
	.summary = "Attach a remote USB device",
	.usage =
		"xusbip attach [--json] <args>\n"
		"    -r, --remote=<address> The gateway that exports the "
		"device\n"
		"    -b, --busid=<busid>    Busid of the device there\n"
		"    -d, --device=<devid>   Id of a virtual UDC there\n"
		"        --to=<domain>      In place of -r, on a gateway's "
		"machine: have\n"
		"                           that domain attach a device of "
		"this one\n"
		"        --pin=<pin>        The key that a tls: gateway must "
		"have\n"
		"        --persist          Again whenever it is lost, until it "
		"is detached\n"
		"        --json             The result as JSON\n",
};
