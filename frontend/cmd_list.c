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

#include "frontend/agent_config.h"
#include "frontend/device_watch.h"
#include "frontend/finding.h"
#include "frontend/json.h"
#include "frontend/local_usb.h"
#include "frontend/names.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"

/* Between two lists; what changes meanwhile is in the second one. */
#define WATCH_PAUSE_MS 1000

/* Of all gateways for each; there may be many. */
#define ALL_LIMIT_MS 5000u

struct list_options {
	const char *remote;
	const char *pin;
	uint8_t pin_bytes[TLS_PIN_BYTES]; /* where channel points to */
	struct channel_options channel;
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

static void print_head(void)
{
	printf("Exportable USB devices\n");
	printf("======================\n");
}

static void print_remote(const struct list_options *options,
			 const struct json_remote *list)
{
	if (options->is_parsable) {
		for (size_t i = 0; i < list->count; i++)
			print_parsable(&list->entries[i].device);
		return;
	}
	if (list->count == 0) {
		log_info("no exportable devices found on %s", list->remote);
		return;
	}
	printf(" - %s\n", list->remote);
	for (size_t i = 0; i < list->count; i++)
		print_entry(&list->entries[i]);
}

/* The caller frees list->entries. */
static enum exit_status ask(const struct list_options *options,
			    const struct address *address, unsigned limit_ms,
			    struct json_remote *list)
{
	struct import import = { .gateway = list->remote,
				 .deadline_ms = clock_ms() + limit_ms,
				 .options = options->channel };
	enum exit_status status = import_open(&import, address);

	if (status == EXIT_OK)
		status = import_list(&import, &list->entries, &list->count);
	import_close(&import);
	return status == EXIT_OK ? status : command_fail(&import.failure);
}

static enum exit_status list_remote(const struct list_options *options,
				    const struct address *address)
{
	struct json_remote list = { .remote = options->remote };
	enum exit_status status = ask(options, address, IMPORT_LIMIT_MS, &list);

	if (status != EXIT_OK)
		return status;
	if (options->is_json) {
		status = json_print_remote(&list, options->is_watch);
	} else {
		if (!options->is_parsable && list.count > 0)
			print_head();
		print_remote(options, &list);
	}
	free(list.entries);
	(void)fflush(stdout);
	return status;
}

/* ---- of all gateways ---- */

static enum exit_status print_all(const struct list_options *options,
				  const struct json_remote *lists, size_t count)
{
	bool has_head = false;

	if (options->is_json)
		return json_print_remotes(lists, count);
	for (size_t i = 0; i < count; i++) {
		if (lists[i].count > 0 && !has_head) {
			print_head();
			has_head = true;
		}
		print_remote(options, &lists[i]);
	}
	return EXIT_OK;
}

/* One that does not answer is told, and does not hide the others. */
static enum exit_status ask_all(struct list_options *options,
				const struct finding *finding)
{
	struct json_remote *lists = calloc(finding->count, sizeof(*lists));
	enum exit_status failed = EXIT_CANNOT_REACH;
	size_t count = 0;

	if (!lists)
		return EXIT_FAILED;
	for (size_t i = 0; i < finding->count; i++) {
		const struct found_gateway *found = &finding->gateways[i];
		bool has_pin = tls_pin_parse(found->pin, options->pin_bytes) ==
			       0;
		enum exit_status status;

		lists[count].remote = found->name;
		options->channel.tls_pin = has_pin ? options->pin_bytes : NULL;
		status = ask(options, &found->address, ALL_LIMIT_MS,
			     &lists[count]);
		if (status == EXIT_OK)
			count++;
		else
			failed = status;
	}
	if (count > 0)
		failed = print_all(options, lists, count);
	for (size_t i = 0; i < count; i++)
		free(lists[i].entries);
	free(lists);
	return failed;
}

static enum exit_status list_all(struct list_options *options)
{
	struct finding *finding = malloc(sizeof(*finding));
	enum exit_status status;

	if (!finding)
		return EXIT_FAILED;
	finding_run(finding);
	if (!options->channel.tls_dir)
		options->channel.tls_dir = finding->tls_dir;
	if (finding->count > 0) {
		status = ask_all(options, finding);
	} else {
		log_error("list: no gateway is known; give --remote or "
			  "--local, or name gateways in %s",
			  AGENT_CONFIG_PATH);
		status = EXIT_CANNOT_REACH;
	}
	free(finding);
	return status;
}

/* ---- again and again ---- */

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

static enum exit_status list_at(const struct command_globals *globals,
				struct list_options *options)
{
	struct address address;
	enum exit_status status =
		command_address(globals, options->remote, &address);

	if (status == EXIT_OK)
		status =
			command_pin(options->pin, &address, options->pin_bytes);
	if (status != EXIT_OK)
		return status;
	if (options->pin)
		options->channel.tls_pin = options->pin_bytes;
	return options->is_watch ? watch_remote(options, &address)
				 : list_remote(options, &address);
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
		{ "pin", required_argument, NULL, 'P' },
		{ NULL, 0, NULL, 0 },
	};
	struct list_options options = {
		.channel = { .ring_bytes = IMPORT_LIST_RING_BYTES,
			     .tls_dir = globals->tls_dir },
	};
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
		else if (option == 'P')
			options.pin = optarg;
		else
			return command_wrong_option(&command_list, argv);
	}
	if (optind != argc || (options.remote && options.is_local))
		return command_misused(&command_list,
				       "give --remote, or --local, or neither");
	if (options.remote)
		return list_at(globals, &options);
	if (options.is_watch || options.pin)
		return command_misused(&command_list,
				       "--watch and --pin go with --remote");
	if (options.is_local)
		return list_local(&options);
	if (options.is_parsable)
		return command_misused(&command_list,
				       "--parsable goes with --remote or "
				       "--local; --json tells whose each is");
	return list_all(&options);
}

const struct command command_list = {
	.name = "list",
	.run = run,
	.summary = "List exportable or local USB devices",
	.usage =
		"xusbip list [-p|--parsable] [--json] [--watch] <args>\n"
		"                           Without -r and -l: of all gateways "
		"that are\n"
		"                           configured or announced\n"
		"    -r, --remote=<address> List the exportable USB devices "
		"of a gateway\n"
		"        --pin=<pin>        The key that a tls: gateway must "
		"have\n"
		"    -l, --local            List the local USB devices\n"
		"    -p, --parsable         Parsable list format\n"
		"        --json             The list as JSON\n"
		"        --watch            The list again whenever it changes, "
		"of a xen: address\n",
};
