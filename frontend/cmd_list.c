/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip list: what a gateway exports, or what this machine has. The layout is
 * the one of stock `usbip list`, which scripts read.
 */
#include "frontend/command.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/device_watch.h"
#include "frontend/json.h"
#include "frontend/local_usb.h"
#include "frontend/names.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"

/* Between two lists; what changes meanwhile is in the second one. */
#define WATCH_PAUSE_MS 1000

struct list_options {
	const char *remote;
	bool is_local;
	bool is_parsable;
	bool is_json;
	bool is_watch;
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
				 .options.ring_bytes = IMPORT_LIST_RING_BYTES };
	struct import_entry *entries = NULL;
	size_t count = 0;
	enum exit_status status = import_open(&import, address);

	if (status == EXIT_OK)
		status = import_list(&import, &entries, &count);
	import_close(&import);
	if (status != EXIT_OK)
		return command_fail(&import.failure);
	if (options->is_json)
		status = json_print_remote(options->remote, entries, count,
					   options->is_watch);
	else
		print_remote(options, entries, count);
	free(entries);
	(void)fflush(stdout);
	return status;
}

/* One list after another, until a signal ends it or nobody reads it. */
static enum exit_status watch_remote(const struct list_options *options,
				     const struct address *address)
{
	char value[HANDSHAKE_WORD_BYTES] = DEVICE_WATCH_UNKNOWN;
	bool has_listed = false;

	if (address->kind != ADDRESS_XEN)
		return command_misused(&command_list,
				       "only a xen: address can be watched");
	for (;;) {
		int r = device_watch_wait(address, value);
		enum exit_status status;

		if (r < 0) {
			log_error("cannot watch %s: %s", options->remote,
				  r == -ENODEV ? "this is no Xen domain"
					       : strerror(-r));
			return EXIT_CANNOT_REACH;
		}
		status = list_remote(options, address);
		/* Later it may be the gateway that is started anew. */
		if ((status != EXIT_OK && !has_listed) || ferror(stdout))
			return status;
		has_listed = true;
		(void)poll(NULL, 0, WATCH_PAUSE_MS);
	}
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
		{ "watch", no_argument, NULL, 'w' },
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
		else if (option == 'w')
			options.is_watch = true;
		else
			return command_wrong_option(&command_list, argv);
	}
	if (optind != argc || (options.remote != NULL) == options.is_local)
		return command_misused(&command_list,
				       "give either --remote or --local");
	if (options.is_local && options.is_watch)
		return command_misused(&command_list,
				       "only a xen: address can be watched");
	if (options.is_local)
		return list_local(&options);
	status = command_address(globals, options.remote, &address);
	if (status != EXIT_OK)
		return status;
	return options.is_watch ? watch_remote(&options, &address)
				: list_remote(&options, &address);
}

const struct command command_list = {
	.name = "list",
	.run = run,
	.summary = "List exportable or local USB devices",
	.usage =
		"xusbip list [-p|--parsable] [--json] [--watch] <args>\n"
		"    -r, --remote=<address> List the exportable USB devices "
		"of a gateway\n"
		"    -l, --local            List the local USB devices\n"
		"    -p, --parsable         Parsable list format\n"
		"        --json             The list as JSON\n"
		"        --watch            The list again whenever it changes, "
		"of a xen: address\n",
};
