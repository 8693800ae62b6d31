/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip list: what a gateway exports, or what this machine has. The layout is
 * the one of stock `usbip list`, which scripts read.
 */
#include "frontend/command.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/import.h"
#include "frontend/json.h"
#include "frontend/local_usb.h"
#include "frontend/names.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"

struct list_options {
	const char *remote;
	bool is_local;
	bool is_parsable;
	bool is_json;
};

static void print_parsable(const struct usbip_device *device)
{
	char busid[4 * USBIP_BUSID_BYTES];

	(void)log_escape(busid, sizeof(busid), device->busid,
			 strlen(device->busid));
	printf("busid=%s#usbid=%04x:%04x#\n", busid, device->vendor,
	       device->product);
}

static void print_entry(const struct import_entry *entry)
{
	const struct usbip_device *device = &entry->device;
	char busid[4 * USBIP_BUSID_BYTES];
	char path[4 * USBIP_PATH_BYTES];
	char name[NAMES_BYTES];

	(void)log_escape(busid, sizeof(busid), device->busid,
			 strlen(device->busid));
	(void)log_escape(path, sizeof(path), device->path,
			 strlen(device->path));
	names_product(name, device->vendor, device->product);
	printf("%11s: %s\n", busid, name);
	printf("%11s: %s\n", "", path);
	names_class(name, device->class, device->subclass, device->protocol);
	printf("%11s: %s\n", "", name);
	for (size_t i = 0; i < device->num_interfaces; i++) {
		const struct usbip_interface *at = &entry->interfaces[i];

		names_class(name, at->class, at->subclass, at->protocol);
		printf("%11s: %2zu - %s\n", "", i, name);
	}
	printf("\n");
}

static void print_remote(const struct list_options *options,
			 const struct import_entry *entries, size_t count)
{
	if (options->is_parsable) {
		for (size_t i = 0; i < count; i++)
			print_parsable(&entries[i].device);
		return;
	}
	if (count == 0) {
		log_info("no exportable devices found on %s", options->remote);
		return;
	}
	printf("Exportable USB devices\n");
	printf("======================\n");
	printf(" - %s\n", options->remote);
	for (size_t i = 0; i < count; i++)
		print_entry(&entries[i]);
}

static enum exit_status list_remote(const struct list_options *options,
				    const struct address *address)
{
	struct import import = { .gateway = options->remote,
				 .deadline_ms = clock_ms() + IMPORT_LIMIT_MS,
				 .ring_bytes = IMPORT_LIST_RING_BYTES };
	struct import_entry *entries = NULL;
	size_t count = 0;
	enum exit_status status = import_open(&import, address);

	if (status == EXIT_OK)
		status = import_list(&import, &entries, &count);
	import_close(&import);
	if (status != EXIT_OK)
		return command_fail(&import.failure);
	if (options->is_json)
		status = json_print_remote(options->remote, entries, count);
	else
		print_remote(options, entries, count);
	free(entries);
	return status;
}

static enum exit_status list_local(const struct list_options *options)
{
	struct usbip_device *devices = NULL;
	enum exit_status status = EXIT_OK;
	size_t count = 0;
	int r = local_usb_list(LOCAL_USB_DIR, &devices, &count);

	if (r < 0) {
		log_error("cannot read %s: %s", LOCAL_USB_DIR, strerror(-r));
		return EXIT_FAILED;
	}
	if (options->is_json)
		status = json_print_local(devices, count);
	for (size_t i = 0; !options->is_json && i < count; i++) {
		char name[NAMES_BYTES];

		if (options->is_parsable) {
			print_parsable(&devices[i]);
			continue;
		}
		names_product(name, devices[i].vendor, devices[i].product);
		printf(" - busid %s (%04x:%04x)\n   %s\n\n", devices[i].busid,
		       devices[i].vendor, devices[i].product, name);
	}
	free(devices);
	return status;
}

static enum exit_status run(const struct command_globals *globals, int argc,
			    char **argv)
{
	static const struct option longs[] = {
		{ "parsable", no_argument, NULL, 'p' },
		{ "remote", required_argument, NULL, 'r' },
		{ "local", no_argument, NULL, 'l' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct list_options options = { 0 };
	struct address address;
	enum exit_status status;
	int option;

	while ((option = command_next_option(argc, argv, "pr:lj", longs)) !=
	       -1) {
		if (option == 'p')
			options.is_parsable = true;
		else if (option == 'r')
			options.remote = optarg;
		else if (option == 'l')
			options.is_local = true;
		else if (option == 'j')
			options.is_json = true;
		else
			return command_wrong_option(&command_list, argv);
	}
	if (optind != argc || (options.remote != NULL) == options.is_local)
		return command_misused(&command_list,
				       "give either --remote or --local");
	if (options.is_local)
		return list_local(&options);
	status = command_address(globals, options.remote, &address);
	return status == EXIT_OK ? list_remote(&options, &address) : status;
}

const struct command command_list = {
	.name = "list",
	.run = run,
	.summary = "List exportable or local USB devices",
	.usage = "xusbip list [-p|--parsable] [--json] <args>\n"
		 "    -r, --remote=<address> List the exportable USB devices "
		 "of a gateway\n"
		 "    -l, --local            List the local USB devices\n"
		 "    -p, --parsable         Parsable list format\n"
		 "        --json             The list as JSON\n",
};
