/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/job_run.h"

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
#include "frontend/standing_note.h"
#include "frontend/sysfs.h"
#include "frontend/vhci.h"
#include "frontend/xen_notes.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"
#include "vchan-transport/tls.h"

#define LINKS_LIMIT_MS  3000u
#define CHECK_MS        10
#define REMOVE_LIMIT_MS 3000

static enum exit_status wrong_words(struct failure *failure)
{
	return failure_set(failure, EXIT_USAGE,
			   "wrong words for a job of the agent");
}

/* ---- attach and restore ---- */

static enum exit_status attach(const struct attach_plan *plan,
			       struct attach_result *result,
			       struct failure *failure)
{
	if (!import_is_busid(plan->busid))
		return wrong_words(failure);
	if (access(VHCI_DIR "/attach", F_OK) < 0)
		return failure_set(failure, EXIT_NO_VHCI,
				   "vhci_hcd is not loaded; load it with: "
				   "modprobe vhci-hcd");
	return attach_run(plan, result, failure);
}

static enum exit_status attach_and_tell(const struct attach_plan *plan,
					struct failure *failure)
{
	struct attach_result result = { 0 };
	enum exit_status status = attach(plan, &result, failure);

	if (status == EXIT_OK)
		printf("%u\n", result.port);
	return status;
}

static enum exit_status attach_at(const char *gateway, const char *busid,
				  struct failure *failure)
{
	struct attach_plan plan = { .gateway = gateway, .busid = busid };
	const char *why;

	if (address_parse(gateway, &plan.address, &why) < 0)
		return wrong_words(failure);
	return attach_and_tell(&plan, failure);
}

static enum exit_status list(const struct attach_plan *plan,
			     struct import_entry **ret_entries,
			     size_t *ret_count, struct failure *failure)
{
	struct import import = { .gateway = plan->gateway,
				 .deadline_ms = clock_ms() + IMPORT_LIMIT_MS,
				 .options = plan->options };
	enum exit_status status;

	status = import_open(&import, &plan->address);
	if (status == EXIT_OK)
		status = import_list(&import, ret_entries, ret_count);
	import_close(&import);
	*failure = import.failure;
	return status;
}

/* Of which kind a device is to be; both 0: of any. */
struct kind {
	uint32_t vendor;
	uint32_t product;
};

static bool read_kind(const char *text, struct kind *ret_kind)
{
	const char *end = sysfs_scan_number(text, 16, &ret_kind->vendor);

	if (!end || *end != ':')
		return false;
	end = sysfs_scan_number(end + 1, 16, &ret_kind->product);
	return end && *end == '\0';
}

/* The one at its old place if it is still that device, else the only one. */
static const struct usbip_device *find_again(const struct import_entry *entries,
					     size_t count, const char *busid,
					     const struct kind *kind)
{
	bool is_known = (kind->vendor | kind->product) != 0;
	const struct usbip_device *found = NULL;
	size_t num_found = 0;

	for (size_t i = 0; i < count; i++) {
		const struct usbip_device *d = &entries[i].device;

		if (is_known &&
		    (d->vendor != kind->vendor || d->product != kind->product))
			continue;
		if (strcmp(d->busid, busid) == 0)
			return d;
		if (is_known) {
			found = d;
			num_found++;
		}
	}
	return num_found == 1 ? found : NULL;
}

/* The plan's bus id may be empty: then it is known by its kind alone. */
static enum exit_status look_for(const struct attach_plan *plan,
				 const struct kind *kind,
				 struct usbip_device *ret_device,
				 struct failure *failure)
{
	struct import_entry *entries = NULL;
	const struct usbip_device *found;
	size_t count = 0;
	enum exit_status status = list(plan, &entries, &count, failure);

	if (status != EXIT_OK)
		return status;
	found = find_again(entries, count, plan->busid, kind);
	if (found)
		*ret_device = *found;
	else
		status = failure_set(failure, EXIT_NO_DEVICE,
				     "it has no such device there, and not "
				     "just one of that kind");
	free(entries);
	return status;
}

static enum exit_status restore(const char *gateway, const char *busid,
				const char *usbid, struct failure *failure)
{
	struct attach_plan plan = { .gateway = gateway, .busid = busid };
	struct usbip_device found = { 0 };
	enum exit_status status;
	struct kind kind;
	const char *why;

	if (!read_kind(usbid, &kind) ||
	    address_parse(gateway, &plan.address, &why) < 0)
		return wrong_words(failure);
	status = look_for(&plan, &kind, &found, failure);
	if (status != EXIT_OK)
		return status;
	plan.busid = found.busid;
	return attach_and_tell(&plan, failure);
}

/* ---- keep and look ---- */

struct wanted {
	struct attach_plan plan;
	uint8_t pin[TLS_PIN_BYTES];
	struct kind kind;
};

static bool read_wanted(char **words, struct wanted *wanted)
{
	struct attach_plan *plan = &wanted->plan;
	const char *why;

	*plan = (struct attach_plan){ .wish = words[0],
				      .gateway = words[1],
				      .busid = words[3],
				      .options.tls_dir = words[5] };
	if (words[2][0] != '\0') {
		if (tls_pin_parse(words[2], wanted->pin) < 0)
			return false;
		plan->options.tls_pin = wanted->pin;
	}
	return address_parse(plan->gateway, &plan->address, &why) == 0 &&
	       read_kind(words[4], &wanted->kind);
}

/* Is it attached, by whomever? Then its port. */
static bool find_attached(const struct wanted *wanted, const char *busid,
			  struct vhci_port *ret_port)
{
	struct vhci_ports ports;
	struct record expected;
	bool is_found = false;

	if (vhci_read(VHCI_DIR, &ports) < 0)
		return false;
	record_set(&expected, &wanted->plan.address, busid);
	for (size_t i = 0; i < ports.count && !is_found; i++) {
		const struct vhci_port *port = &ports.port[i];
		struct record record;

		if (port->state != VHCI_USED ||
		    record_read(RECORD_DIR, port->number, &record) < 0)
			continue;
		is_found = strcmp(record.host, expected.host) == 0 &&
			   strcmp(record.service, expected.service) == 0 &&
			   strcmp(record.busid, expected.busid) == 0;
		*ret_port = *port;
	}
	vhci_done(&ports);
	return is_found;
}

static enum exit_status tell_kept(uint32_t port, uint32_t devid)
{
	printf("%u %u\n", port, devid);
	return EXIT_OK;
}

static enum exit_status keep(char **words, struct failure *failure)
{
	struct wanted wanted;
	struct attach_result result = { 0 };
	struct usbip_device found = { 0 };
	struct vhci_port port;
	enum exit_status status;

	if (!read_wanted(words, &wanted))
		return wrong_words(failure);
	if (find_attached(&wanted, wanted.plan.busid, &port))
		return tell_kept(port.number, port.devid);
	status = look_for(&wanted.plan, &wanted.kind, &found, failure);
	if (status != EXIT_OK)
		return status;
	if (find_attached(&wanted, found.busid, &port))
		return tell_kept(port.number, port.devid);
	wanted.plan.busid = found.busid;
	status = attach(&wanted.plan, &result, failure);
	if (status == EXIT_OK)
		(void)tell_kept(result.port, usbip_devid(&result.device));
	return status;
}

static enum exit_status look(char **words, struct failure *failure)
{
	struct usbip_device found = { 0 };
	struct wanted wanted;
	enum exit_status status;

	if (!read_wanted(words, &wanted))
		return wrong_words(failure);
	status = look_for(&wanted.plan, &wanted.kind, &found, failure);
	if (status == EXIT_OK)
		printf("%u\n", usbip_devid(&found));
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

/*
 * A port that goes while a transfer is under way is reset again and again for
 * ten seconds, and counts as one in use as long: no suspending meanwhile.
 */
static void take_from_drivers(const struct vhci_port *port)
{
	int r = local_usb_remove(LOCAL_USB_DIR, port->busid, REMOVE_LIMIT_MS);

	if (r < 0)
		log_warn("port %u: is detached from under its driver: %s",
			 port->number, strerror(-r));
}

static int hold_port(unsigned gateway, const struct vhci_port *port,
		     const struct record *record)
{
	struct standing_note standing;
	struct xen_note note = { 0 };
	struct usbip_device device;
	int r;

	/* The agent attaches it again by itself, and nobody has detached it. */
	if (standing_note_find(port->number, &standing)) {
		take_from_drivers(port);
		return detach_for_now(port->number);
	}
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
	take_from_drivers(port);
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

/* As far as can be seen: a stock command has it, and a device of that kind. */
static bool may_be_of_link(const struct vhci_port *port,
			   const struct xen_note *link)
{
	struct address address;
	struct record record;
	struct usbip_device device;
	const char *why;

	return port->state == VHCI_USED &&
	       record_read(RECORD_DIR, port->number, &record) == 0 &&
	       strcmp(record.busid, link->busid) == 0 &&
	       address_parse(record.host, &address, &why) == 0 &&
	       address.kind == ADDRESS_TCP &&
	       local_usb_read(LOCAL_USB_DIR, port->busid, &device) == 0 &&
	       device.vendor == link->vendor && device.product == link->product;
}

/*
 * Which port is a link's nothing tells for sure, so it is done if there is just
 * one that may be.
 */
static void take_link_from_drivers(const struct xen_note *link)
{
	const struct vhci_port *found = NULL;
	struct vhci_ports ports;
	unsigned count = 0;

	if (vhci_read(VHCI_DIR, &ports) < 0)
		return;
	for (size_t i = 0; i < ports.count; i++) {
		if (!may_be_of_link(&ports.port[i], link))
			continue;
		found = &ports.port[i];
		count++;
	}
	if (count == 1)
		take_from_drivers(found);
	vhci_done(&ports);
}

/* Links of stock commands: their ports are free when they have ended. */
static int hold_links(unsigned gateway, const char *domain)
{
	uint64_t deadline_ms;
	struct xen_note notes[XEN_NOTES_MAX];
	char address[ADDRESS_TEXT_CAP];
	size_t count;

	(void)snprintf(address, sizeof(address), "xen:%s", domain);
	count = xen_notes_links(address, notes);
	for (size_t i = 0; i < count; i++) {
		if (xen_notes_hold(gateway, &notes[i]) < 0)
			log_warn("cannot note that %s is to be taken back",
				 notes[i].busid);
		/* Another domain could call its device as one of others. */
		if (gateway == 0)
			take_link_from_drivers(&notes[i]);
		xen_notes_end_link(&notes[i]);
	}
	deadline_ms = clock_ms() + LINKS_LIMIT_MS;
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

enum exit_status job_run(const char *verb, int num_words, char **words)
{
	struct failure failure = { .text = "" };
	enum exit_status status;

	(void)prctl(PR_SET_NAME, "xusbip-job", 0, 0, 0);
	(void)alarm(JOB_RUN_LIMIT_S);
	if (strcmp(verb, "attach") == 0 && num_words == 2)
		status = attach_at(words[0], words[1], &failure);
	else if (strcmp(verb, "restore") == 0 && num_words == 3)
		status = restore(words[0], words[1], words[2], &failure);
	else if (strcmp(verb, "detach") == 0 && num_words == 3)
		status = detach(words[0], words[1], words[2], &failure);
	else if (strcmp(verb, "hold") == 0 && num_words == 2)
		status = hold(words[0], words[1], &failure);
	else if (strcmp(verb, "keep") == 0 && num_words == JOB_WISH_WORDS)
		status = keep(words, &failure);
	else if (strcmp(verb, "look") == 0 && num_words == JOB_WISH_WORDS)
		status = look(words, &failure);
	else
		status = wrong_words(&failure);
	if (status != EXIT_OK)
		printf("%s\n", failure.text);
	(void)fflush(stdout);
	return status;
}
