/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/xen_job.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "frontend/attach.h"
#include "frontend/detach.h"
#include "frontend/local_usb.h"
#include "frontend/record.h"
#include "frontend/sysfs.h"
#include "frontend/vhci.h"
#include "frontend/xen_notes.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"

#define LINKS_LIMIT_MS 3000u
#define CHECK_MS       10

static enum exit_status wrong_words(struct failure *failure)
{
	return failure_set(failure, EXIT_USAGE,
			   "wrong words for a job of the agent");
}

/* ---- attach and restore ---- */

static enum exit_status attach(const char *gateway, const char *busid,
			       struct failure *failure)
{
	struct attach_plan plan = { .gateway = gateway, .busid = busid };
	struct attach_result result;
	enum exit_status status;
	const char *why;

	if (address_parse(gateway, &plan.address, &why) < 0 ||
	    !import_is_busid(busid))
		return wrong_words(failure);
	if (access(VHCI_DIR "/attach", F_OK) < 0)
		return failure_set(failure, EXIT_NO_VHCI,
				   "vhci_hcd is not loaded; load it with: "
				   "modprobe vhci-hcd");
	status = attach_run(&plan, &result, failure);
	if (status == EXIT_OK)
		printf("%u\n", result.port);
	return status;
}

static enum exit_status list(const char *gateway,
			     struct import_entry **ret_entries,
			     size_t *ret_count, struct failure *failure)
{
	struct import import = { .gateway = gateway,
				 .deadline_ms = clock_ms() + IMPORT_LIMIT_MS };
	struct address address;
	enum exit_status status;
	const char *why;

	if (address_parse(gateway, &address, &why) < 0)
		return wrong_words(failure);
	status = import_open(&import, &address);
	if (status == EXIT_OK)
		status = import_list(&import, ret_entries, ret_count);
	import_close(&import);
	*failure = import.failure;
	return status;
}

/* The one at its old place if it is still that device, else the only one. */
static const char *find_again(const struct import_entry *entries, size_t count,
			      const char *busid, uint32_t vendor,
			      uint32_t product)
{
	const char *found = NULL;
	size_t num_found = 0;

	for (size_t i = 0; i < count; i++) {
		const struct usbip_device *d = &entries[i].device;
		bool is_known = (vendor | product) != 0;

		if (is_known && (d->vendor != vendor || d->product != product))
			continue;
		if (strcmp(d->busid, busid) == 0)
			return d->busid;
		if (is_known) {
			found = d->busid;
			num_found++;
		}
	}
	return num_found == 1 ? found : NULL;
}

static enum exit_status restore(const char *gateway, const char *busid,
				const char *usbid, struct failure *failure)
{
	struct import_entry *entries = NULL;
	size_t count = 0;
	enum exit_status status;
	uint32_t vendor;
	uint32_t product;
	const char *found;
	const char *end = sysfs_scan_number(usbid, 16, &vendor);

	if (!end || *end != ':' || !sysfs_scan_number(end + 1, 16, &product))
		return wrong_words(failure);
	status = list(gateway, &entries, &count, failure);
	if (status != EXIT_OK)
		return status;
	found = find_again(entries, count, busid, vendor, product);
	if (found)
		status = attach(gateway, found, failure);
	else
		status = failure_set(failure, EXIT_NO_DEVICE,
				     "%s has no device %s, and not just one "
				     "of its kind, %s",
				     gateway, busid, usbid);
	free(entries);
	return status;
}

/* ---- detach and hold ---- */

static bool is_from(const struct record *record, const char *domain)
{
	struct address address = { .kind = ADDRESS_XEN };
	struct record expected;

	(void)snprintf(address.host, sizeof(address.host), "%s", domain);
	record_set(&expected, &address, record->busid);
	return domain[0] != '\0' && strcmp(expected.host, record->host) == 0;
}

static enum exit_status detach(const char *gateway, const char *port_text,
			       const char *busid, struct failure *failure)
{
	struct record record;
	struct address address;
	const char *why;
	const char *end;
	uint32_t port;
	int r;

	end = sysfs_scan_number(port_text, 10, &port);
	if (!end || *end != '\0' || address_parse(gateway, &address, &why) < 0)
		return wrong_words(failure);
	if (record_read(RECORD_DIR, port, &record) < 0 ||
	    !is_from(&record, address.host) || strcmp(record.busid, busid) != 0)
		return EXIT_OK; /* it is not there any more */
	r = detach_port(port);
	if (r < 0)
		return failure_set(failure, EXIT_FAILED,
				   "port %u is still in use: %s", port,
				   strerror(-r));
	return EXIT_OK;
}

static int hold_port(unsigned gateway, const struct vhci_port *port,
		     const struct record *record)
{
	struct xen_note note = { 0 };
	struct usbip_device device;
	int r;

	memcpy(note.busid, record->busid, sizeof(note.busid));
	if (local_usb_read(LOCAL_USB_DIR, port->busid, &device) == 0) {
		note.vendor = device.vendor;
		note.product = device.product;
	}
	/* First: who is killed in between has not forgotten it. */
	r = xen_notes_hold(gateway, &note);
	if (r < 0)
		log_warn("cannot note that %s is to be taken back: %s",
			 note.busid, strerror(-r));
	r = detach_port(port->number);
	if (r < 0)
		log_warn("port %u: cannot be detached: %s", port->number,
			 strerror(-r));
	return r;
}

static int hold_ports(unsigned gateway, const char *domain, const char *name)
{
	struct vhci_ports ports;
	int result = 0;
	int r = vhci_read(VHCI_DIR, &ports);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (size_t i = 0; i < ports.count; i++) {
		const struct vhci_port *port = &ports.port[i];
		struct record record;

		if (port->state == VHCI_FREE ||
		    record_read(RECORD_DIR, port->number, &record) < 0)
			continue;
		if (!is_from(&record, domain) && !is_from(&record, name))
			continue;
		r = hold_port(gateway, port, &record);
		if (r < 0)
			result = r;
	}
	vhci_done(&ports);
	return result;
}

/* Links of stock commands: their ports are free when they have ended. */
static int hold_links(unsigned gateway, const char *domain)
{
	uint64_t deadline_ms = clock_ms() + LINKS_LIMIT_MS;
	struct xen_note notes[XEN_NOTES_MAX];
	char address[ADDRESS_TEXT_CAP];
	size_t count;

	(void)snprintf(address, sizeof(address), "xen:%s", domain);
	count = xen_notes_links(address, notes);
	for (size_t i = 0; i < count; i++) {
		if (xen_notes_hold(gateway, &notes[i]) < 0)
			log_warn("cannot note that %s is to be taken back",
				 notes[i].busid);
		xen_notes_end_link(&notes[i]);
	}
	while (xen_notes_links(address, notes) > 0) {
		if (clock_ms() >= deadline_ms)
			return -ETIMEDOUT;
		(void)poll(NULL, 0, CHECK_MS);
	}
	return 0;
}

static enum exit_status hold(const char *domain, const char *name,
			     struct failure *failure)
{
	uint32_t gateway;
	int links;
	int named = 0;
	int r;

	if (!handshake_parse_number(domain, HANDSHAKE_MAX_DOMID, &gateway))
		return wrong_words(failure);
	r = hold_ports(gateway, domain, name);
	links = hold_links(gateway, domain);
	if (name[0] != '\0')
		named = hold_links(gateway, name);
	if (r == 0)
		r = links < 0 ? links : named;
	if (r < 0)
		return failure_set(failure, EXIT_FAILED,
				   "not all devices could be let go of: %s",
				   strerror(-r));
	return EXIT_OK;
}

enum exit_status xen_job_run(const char *verb, int num_words, char **words)
{
	struct failure failure = { .text = "" };
	enum exit_status status;

	(void)prctl(PR_SET_NAME, "xusbip-job", 0, 0, 0);
	(void)alarm(XEN_JOB_LIMIT_S);
	if (strcmp(verb, "attach") == 0 && num_words == 2)
		status = attach(words[0], words[1], &failure);
	else if (strcmp(verb, "restore") == 0 && num_words == 3)
		status = restore(words[0], words[1], words[2], &failure);
	else if (strcmp(verb, "detach") == 0 && num_words == 3)
		status = detach(words[0], words[1], words[2], &failure);
	else if (strcmp(verb, "hold") == 0 && num_words == 2)
		status = hold(words[0], words[1], &failure);
	else
		status = wrong_words(&failure);
	if (status != EXIT_OK)
		printf("%s\n", failure.text);
	(void)fflush(stdout);
	return status;
}
