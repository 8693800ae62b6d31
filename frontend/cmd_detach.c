/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip detach: takes the device from a port, whoever attached it, and
 * returns when the port is free; with --from, has the gateway of this machine
 * take a device from a domain.
 */
#include "frontend/command.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "frontend/cmd_admin.h"
#include "frontend/detach.h"
#include "frontend/json.h"
#include "frontend/standing_note.h"
#include "frontend/sysfs.h"
#include "frontend/vhci.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"

static enum exit_status detach(uint32_t port)
{
	int r = vhci_is_free(VHCI_DIR, port);

	if (r == -ENOENT) {
		log_error("detach: vhci_hcd is not loaded, so no port is in "
			  "use");
		return EXIT_NO_VHCI;
	}
	if (r < 0 && r != -ENXIO) {
		log_error("detach: cannot read the ports of vhci_hcd: %s",
			  strerror(-r));
		return EXIT_FAILED;
	}
	if (r != 0) {
		log_error("detach: port %02u is not in use; \"xusbip port\" "
			  "shows those that are",
			  port);
		return EXIT_NO_PORT;
	}
	r = detach_port(port);
	if (r == -EACCES || r == -EPERM) {
		log_error("detach: only root can take devices from vhci_hcd; "
			  "try: sudo xusbip detach ...");
		return EXIT_NOT_ALLOWED;
	}
	if (r < 0) {
		log_error("detach: port %02u is still in use: %s; the kernel's "
			  "log may say more",
			  port,
			  r == -ETIMEDOUT ? "it was not freed" : strerror(-r));
		return r == -ETIMEDOUT ? EXIT_TIMEOUT : EXIT_FAILED;
	}
	return EXIT_OK;
}

/* So that the agent does not attach it again. */
static void let_go(const struct standing_note *note)
{
	standing_note_detached(note->name);
	if (note->is_section)
		log_info("%s stays detached until it was unplugged, or "
			 "xusbip-frontend reads its configuration",
			 note->name);
}

static enum exit_status detach_here(const char *text, bool is_json)
{
	struct standing_note note;
	bool is_standing;
	enum exit_status status;
	uint32_t port;
	const char *end = sysfs_scan_number(text, 10, &port);

	if (!end || *end != '\0')
		return command_misused(&command_detach,
				       "the port is a number, as \"xusbip "
				       "port\" shows it");
	is_standing = standing_note_find(port, &note);
	status = detach(port);
	if (status != EXIT_OK)
		return status;
	if (is_standing)
		let_go(&note);
	if (is_json)
		return json_print_detached(port);
	printf("detached port %02u\n", port);
	return EXIT_OK;
}

static enum exit_status run(const struct command_globals *globals, int argc,
			    char **argv)
{
	static const struct option longs[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "from", required_argument, NULL, 'f' },
		{ "busid", required_argument, NULL, 'b' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct cmd_admin asked = { .verb = ADMIN_DETACH };
	const char *port = NULL;
	int option;

	(void)globals;
	while ((option = command_next_option(argc, argv, "p:b:j", longs)) !=
	       -1) {
		if (option == 'p')
			port = optarg;
		else if (option == 'f')
			asked.domain = optarg;
		else if (option == 'b')
			asked.busid = optarg;
		else if (option == 'j')
			asked.is_json = true;
		else
			return command_wrong_option(&command_detach, argv);
	}
	if (optind != argc || !port == !asked.domain ||
	    !asked.domain != !asked.busid)
		return command_misused(&command_detach,
				       "give --port, or --from and --busid");
	if (port)
		return detach_here(port, asked.is_json);
	if (!import_is_busid(asked.busid))
		return command_misused(&command_detach,
				       "a bus id has 1 to 31 characters, "
				       "none of them a blank");
	return cmd_admin_run(&asked);
}

const struct command command_detach = {
	.name = "detach",
	.run = run,
	.summary = "Detach a remote USB device",
	.usage = "xusbip detach [--json] <args>\n"
		 "    -p, --port=<port>      vhci_hcd port the device is on\n"
		 "        --from=<domain>    In place of -p, on a gateway's "
		 "machine: the\n"
		 "                           domain to take a device from\n"
		 "    -b, --busid=<busid>    With --from: busid of the device "
		 "here\n"
		 "        --json             The result as JSON\n",
};
