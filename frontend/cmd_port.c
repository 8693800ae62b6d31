/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xusbip port: who is on which port, and what waits for one. The layout is the
 * one of stock `usbip port`, which scripts read.
 */
#include "frontend/command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/json.h"
#include "frontend/local_usb.h"
#include "frontend/names.h"
#include "frontend/record.h"
#include "frontend/standing_note.h"
#include "frontend/vhci.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"

/* What is known of one port in use. */
struct used_port {
	struct json_port known; /* points to the port and to the two below */
	struct usbip_device device;
	struct record record;
};

static bool is_used(const struct vhci_port *port)
{
	return port->state == VHCI_USED || port->state == VHCI_ERROR;
}

static void look_at(const struct vhci_port *port, struct used_port *used)
{
	used->known.port = port;
	if (local_usb_read(LOCAL_USB_DIR, port->busid, &used->device) == 0)
		used->known.device = &used->device;
	if (record_read(RECORD_DIR, port->number, &used->record) == 0)
		used->known.record = &used->record;
}

static void print_port(const struct used_port *used)
{
	const struct vhci_port *port = used->known.port;
	char name[NAMES_BYTES] = "unknown vendor : unknown product";
	char host[4 * ADDRESS_TEXT_CAP];
	char busid[4 * USBIP_BUSID_BYTES];

	printf("Port %02u: <%s> at %s\n", port->number,
	       vhci_state_words(port->state), vhci_speed_words(port->speed));
	if (used->known.device)
		names_product(name, used->device.vendor, used->device.product);
	printf("       %s\n", name);
	if (used->known.record) {
		(void)log_escape(host, sizeof(host), used->record.host,
				 strlen(used->record.host));
		(void)log_escape(busid, sizeof(busid), used->record.busid,
				 strlen(used->record.busid));
		printf("%10s -> usbip://%s:%.8s/%s\n", port->busid, host,
		       used->record.service, busid);
	} else {
		printf("%10s -> unknown host, remote port and remote busid\n",
		       port->busid);
	}
	printf("%10s -> remote bus/dev %03u/%03u\n", " ", port->devid >> 16,
	       port->devid & 0xffff);
}

static void print_waiting(const struct standing_note *note)
{
	char gateway[4 * ADDRESS_TEXT_CAP];
	char device[4 * WISH_DEVICE_BYTES];
	uint64_t now_ms = clock_ms();

	(void)log_escape(gateway, sizeof(gateway), note->gateway,
			 strlen(note->gateway));
	(void)log_escape(device, sizeof(device), note->device,
			 strlen(note->device));
	printf("%s: %s: %s %s",
	       strcmp(note->state, "held") == 0 ? "Detached" : "Waiting",
	       note->name, gateway, device);
	if (note->why[0] != '\0')
		printf(": %s", note->why);
	printf("; since %" PRIu64 " s", (now_ms - note->since_ms) / 1000);
	if (note->next_ms > now_ms)
		printf("; next try in %" PRIu64 " s",
		       (note->next_ms - now_ms + 999) / 1000);
	printf("\n");
}

/* What is to stay attached and is not; how many. */
static size_t find_waiting(struct standing_note ret_notes[static WISH_MAX])
{
	size_t count = standing_note_list(ret_notes);
	size_t waiting = 0;

	for (size_t i = 0; i < count; i++)
		if (!standing_note_is_attached(&ret_notes[i]))
			ret_notes[waiting++] = ret_notes[i];
	return waiting;
}

static enum exit_status print_ports(const struct used_port *used, size_t count,
				    bool is_json)
{
	struct standing_note notes[WISH_MAX];
	size_t num_waiting = find_waiting(notes);
	struct json_port *known;
	enum exit_status status;

	if (!is_json) {
		printf("Imported USB devices\n");
		printf("====================\n");
		for (size_t i = 0; i < count; i++)
			print_port(&used[i]);
		for (size_t i = 0; i < num_waiting; i++)
			print_waiting(&notes[i]);
		return EXIT_OK;
	}
	known = calloc(count + 1, sizeof(*known));
	if (!known)
		return EXIT_FAILED;
	for (size_t i = 0; i < count; i++)
		known[i] = used[i].known;
	status = json_print_ports(known, count, notes, num_waiting);
	free(known);
	return status;
}

static enum exit_status show(const struct vhci_ports *ports, bool is_json)
{
	struct used_port *used = calloc(ports->count + 1, sizeof(*used));
	enum exit_status status;
	size_t count = 0;

	if (!used) {
		log_error("port: no memory for %zu ports", ports->count);
		return EXIT_FAILED;
	}
	for (size_t i = 0; i < ports->count; i++) {
		if (is_used(&ports->port[i]))
			look_at(&ports->port[i], &used[count++]);
	}
	status = print_ports(used, count, is_json);
	free(used);
	return status;
}

static enum exit_status run(const struct command_globals *globals, int argc,
			    char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct standing_note notes[WISH_MAX];
	struct vhci_ports ports;
	bool is_json = false;
	enum exit_status status;
	int option;
	int r;

	(void)globals;
	while ((option = command_next_option(argc, argv, "j", longs)) != -1) {
		if (option != 'j')
			return command_wrong_option(&command_port, argv);
		is_json = true;
	}
	if (optind != argc)
		return command_misused(&command_port, "it takes no arguments");
	r = vhci_read(VHCI_DIR, &ports);
	if (r == -ENOENT) {
		/* No port, and yet something may wait for one. */
		ports = (struct vhci_ports){ 0 };
		if (find_waiting(notes) > 0)
			(void)show(&ports, is_json);
		log_error("port: vhci_hcd is not loaded; load it with: "
			  "modprobe vhci-hcd");
		return EXIT_NO_VHCI;
	}
	if (r < 0) {
		log_error("port: cannot read the ports of vhci_hcd: %s",
			  strerror(-r));
		return EXIT_FAILED;
	}
	status = show(&ports, is_json);
	vhci_done(&ports);
	return status;
}

const struct command command_port = {
	.name = "port",
	.run = run,
	.summary = "Show imported USB devices",
	.usage = "xusbip port [--json]\n"
		 "        --json             The ports as JSON\n",
};
