/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "frontend/agent_config.h"
#include "frontend/link.h"
#include "frontend/xen_notes.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"
#include "vchan-transport/usbip.h"
#include "vchan-transport/xen_guest.h"

/* For the client's question, all gateways' answers, and our reply. */
#define OPERATION_LIMIT_MS 10000u
/* For the client to take the end of a reply. */
#define FINISH_LIMIT_MS 1000u

#define COUNT_BYTES     4
#define ENTRY_MAX_BYTES \
	(USBIP_DEVICE_BYTES + USBIP_MAX_INTERFACES * USBIP_INTERFACE_BYTES)

#define MAX_GATEWAYS (AGENT_MAX_GATEWAYS + XEN_GUEST_MAX_GATEWAYS)

struct conversation {
	const struct serve_options *options;
	struct channel *client;
	uint64_t deadline_ms;
	struct address gateways[MAX_GATEWAYS]; /* in order */
	size_t num_gateways;
};

/* The devices of all gateways. */
struct merged {
	struct import_entry *entry;
	size_t count;
};

/*
 * A conversation with the gateway of that index, with its share of the time
 * that is left, so that one that does not answer leaves time for the others.
 */
static enum exit_status open_gateway(const struct conversation *c, size_t index,
				     size_t ring_bytes, struct import *import,
				     char name[ADDRESS_TEXT_CAP])
{
	const struct address *gateway = &c->gateways[index];
	uint64_t now = clock_ms();
	uint64_t left_ms = now < c->deadline_ms ? c->deadline_ms - now : 0;

	(void)address_format(gateway, name, ADDRESS_TEXT_CAP);
	*import = (struct import){
		.gateway = name,
		.deadline_ms = now + left_ms / (c->num_gateways - index),
		.options.ring_bytes = ring_bytes,
		.options.tls_dir = c->options->tls_dir,
	};
	return import_open(import, gateway);
}

static enum exit_status reply_failed(int r)
{
	log_warn("the client did not take its answer: %s", strerror(-r));
	return r == -ETIMEDOUT ? EXIT_TIMEOUT : EXIT_PROTOCOL;
}

/* An answer that is a status and nothing else. */
static enum exit_status refuse(const struct conversation *c, uint16_t code,
			       enum usbip_status status)
{
	uint8_t bytes[USBIP_OP_BYTES];
	int r;

	usbip_op_encode(bytes, code, status);
	r = channel_write_all(c->client, bytes, sizeof(bytes), c->deadline_ms);
	if (r < 0)
		return reply_failed(r);
	channel_finish(c->client, clock_ms() + FINISH_LIMIT_MS);
	return EXIT_OK;
}

static bool is_listed(const struct merged *merged, const char *busid)
{
	for (size_t i = 0; i < merged->count; i++) {
		if (strcmp(merged->entry[i].device.busid, busid) == 0)
			return true;
	}
	return false;
}

/* A device that could not be asked for by its bus id is left out. */
static int merge(struct merged *merged, const struct import_entry *entries,
		 size_t count)
{
	struct import_entry *grown;

	if (count == 0)
		return 0;
	grown = realloc(merged->entry,
			(merged->count + count) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	merged->entry = grown;
	for (size_t i = 0; i < count && merged->count < USBIP_MAX_DEVICES;
	     i++) {
		const char *busid = entries[i].device.busid;

		if (import_is_busid(busid) && !is_listed(merged, busid))
			grown[merged->count++] = entries[i];
	}
	return 0;
}

static void gather(const struct conversation *c, struct merged *merged)
{
	for (size_t i = 0; i < c->num_gateways; i++) {
		char name[ADDRESS_TEXT_CAP];
		struct import_entry *entries = NULL;
		struct import import;
		size_t count = 0;
		enum exit_status status = open_gateway(
			c, i, IMPORT_LIST_RING_BYTES, &import, name);

		if (status == EXIT_OK)
			status = import_list(&import, &entries, &count);
		import_close(&import);
		if (status != EXIT_OK)
			log_warn("its devices are left out of the list: %s",
				 import.failure.text);
		else if (merge(merged, entries, count) < 0)
			log_warn("no memory for the devices of %s", name);
		free(entries);
	}
}

static size_t encode_list(const struct merged *merged, uint8_t *out)
{
	uint8_t *at = out;

	usbip_op_encode(at, USBIP_REP_DEVLIST, USBIP_ST_OK);
	at += USBIP_OP_BYTES;
	for (int shift = 24; shift >= 0; shift -= 8)
		*at++ = (uint8_t)(merged->count >> shift);
	for (size_t i = 0; i < merged->count; i++) {
		const struct import_entry *entry = &merged->entry[i];

		usbip_device_encode(at, &entry->device);
		at += USBIP_DEVICE_BYTES;
		for (size_t j = 0; j < entry->device.num_interfaces; j++) {
			usbip_interface_encode(at, &entry->interfaces[j]);
			at += USBIP_INTERFACE_BYTES;
		}
	}
	return (size_t)(at - out);
}

static enum exit_status serve_list(const struct conversation *c)
{
	struct merged merged = { 0 };
	uint8_t *reply;
	int r = -ENOMEM;

	gather(c, &merged);
	reply = malloc(USBIP_OP_BYTES + COUNT_BYTES +
		       merged.count * ENTRY_MAX_BYTES);
	if (reply)
		r = channel_write_all(c->client, reply,
				      encode_list(&merged, reply),
				      c->deadline_ms);
	free(reply);
	free(merged.entry);
	if (r < 0)
		return reply_failed(r);
	channel_finish(c->client, clock_ms() + FINISH_LIMIT_MS);
	return EXIT_OK;
}

/* What a stock client is told of a failure. */
static enum usbip_status wire_status(enum exit_status status)
{
	if (status == EXIT_NO_DEVICE)
		return USBIP_ST_NODEV;
	if (status == EXIT_NOT_ALLOWED)
		return USBIP_ST_NA;
	if (status == EXIT_BUSY)
		return USBIP_ST_DEV_BUSY;
	return USBIP_ST_ERROR;
}

/*
 * Takes the device from the first gateway that does not say that it has none.
 * Of several failures the one of a gateway that answered counts most.
 */
static enum exit_status take_device(const struct conversation *c,
				    const char *busid, struct import *import,
				    char name[ADDRESS_TEXT_CAP],
				    struct usbip_device *ret_device)
{
	enum exit_status result = EXIT_NO_DEVICE;

	for (size_t i = 0; i < c->num_gateways; i++) {
		enum exit_status status = open_gateway(c, i, 0, import, name);
		bool is_connected = status == EXIT_OK;

		if (is_connected)
			status = import_take(import, busid, ret_device);
		if (status == EXIT_OK)
			return status;
		import_close(import);
		log_warn("import of %s: %s", busid, import->failure.text);
		if (is_connected && status != EXIT_NO_DEVICE)
			return status;
		if (status != EXIT_NO_DEVICE)
			result = status;
	}
	return result;
}

/* The agent may have to end this link at its gateway's word. */
static void note_link(const char *gateway, const char *busid,
		      const struct usbip_device *device)
{
	struct xen_note note = { .vendor = device->vendor,
				 .product = device->product };
	int r;

	if (strncmp(gateway, "xen:", 4) != 0)
		return;
	(void)snprintf(note.busid, sizeof(note.busid), "%s", busid);
	r = xen_notes_add_link(gateway, &note);
	if (r < 0)
		log_warn("%s %s: cannot be noted for the agent: %s", gateway,
			 busid, strerror(-r));
}

/* From here on the client's connection is vhci_hcd's. */
static enum exit_status become_link(struct conversation *c,
				    struct import *import, const char *busid,
				    const struct usbip_device *device)
{
	char who[ADDRESS_TEXT_CAP + USBIP_BUSID_BYTES];
	struct link_options link = { .channel = import->channel,
				     .vhci_fd = c->options->peer_fd,
				     .device = *device,
				     .who = who };

	(void)snprintf(who, sizeof(who), "%s %s", import->gateway, busid);
	channel_free(c->client);
	c->client = NULL;
	(void)prctl(PR_SET_NAME, "xusbip-link", 0, 0, 0);
	note_link(import->gateway, busid, device);
	return link_run(&link);
}

static enum exit_status serve_import(struct conversation *c)
{
	uint8_t asked[USBIP_BUSID_BYTES];
	uint8_t reply[USBIP_OP_BYTES + USBIP_DEVICE_BYTES];
	char busid[USBIP_BUSID_BYTES];
	char name[ADDRESS_TEXT_CAP];
	struct usbip_device device;
	struct import import;
	enum exit_status status;
	int r = channel_read_all(c->client, asked, sizeof(asked),
				 c->deadline_ms);

	if (r < 0) {
		log_warn("the client asked for no device: %s", strerror(-r));
		return EXIT_PROTOCOL;
	}
	usbip_busid_decode(busid, asked);
	if (!import_is_busid(busid))
		return refuse(c, USBIP_REP_IMPORT, USBIP_ST_NODEV);
	status = take_device(c, busid, &import, name, &device);
	if (status != EXIT_OK)
		return refuse(c, USBIP_REP_IMPORT, wire_status(status));
	usbip_op_encode(reply, USBIP_REP_IMPORT, USBIP_ST_OK);
	usbip_device_encode(reply + USBIP_OP_BYTES, &device);
	/* The client compares all of it, what follows a NUL included. */
	memcpy(reply + USBIP_OP_BYTES + USBIP_PATH_BYTES, asked, sizeof(asked));
	r = channel_write_all(c->client, reply, sizeof(reply), c->deadline_ms);
	if (r < 0) {
		import_close(&import);
		return reply_failed(r);
	}
	return become_link(c, &import, busid, &device);
}

static enum exit_status serve_operation(struct conversation *c)
{
	uint8_t bytes[USBIP_OP_BYTES];
	struct usbip_op op;
	int r = channel_read_all(c->client, bytes, sizeof(bytes),
				 c->deadline_ms);

	if (r == -EPIPE) /* looked whether somebody listens */
		return EXIT_OK;
	if (r < 0) {
		log_warn("the client asked nothing: %s", strerror(-r));
		return r == -ETIMEDOUT ? EXIT_TIMEOUT : EXIT_PROTOCOL;
	}
	usbip_op_decode(&op, bytes);
	if (op.version != USBIP_VERSION) {
		log_warn("the client speaks version %x.%02x of USB/IP, "
			 "not 1.11 (1.1.1)",
			 op.version >> 8, op.version & 0xff);
		return EXIT_PROTOCOL;
	}
	if (op.code == USBIP_REQ_DEVLIST)
		return serve_list(c);
	if (op.code == USBIP_REQ_IMPORT)
		return serve_import(c);
	log_warn("the client asked for operation %04x, which does not exist",
		 op.code);
	return EXIT_PROTOCOL;
}

static bool is_gateway(const struct conversation *c, const struct address *a)
{
	for (size_t i = 0; i < c->num_gateways; i++) {
		if (c->gateways[i].kind == a->kind &&
		    strcmp(c->gateways[i].host, a->host) == 0)
			return true;
	}
	return false;
}

/* Those of the configuration, then the domains that serve this one. */
static void find_gateways(struct conversation *c)
{
	const struct serve_options *options = c->options;
	unsigned domids[XEN_GUEST_MAX_GATEWAYS];
	size_t n = xen_guest_list_gateways(domids, XEN_GUEST_MAX_GATEWAYS);

	for (size_t i = 0; i < options->num_gateways && i < AGENT_MAX_GATEWAYS;
	     i++)
		c->gateways[c->num_gateways++] = options->gateways[i];
	for (size_t i = 0; i < n; i++) {
		struct address found = { .kind = ADDRESS_XEN };

		(void)snprintf(found.host, sizeof(found.host), "%u", domids[i]);
		if (!is_gateway(c, &found))
			c->gateways[c->num_gateways++] = found;
	}
}

enum exit_status serve_run(const struct serve_options *options)
{
	struct conversation c = { .options = options,
				  .deadline_ms =
					  clock_ms() + OPERATION_LIMIT_MS };
	const int on = 1;
	enum exit_status status;
	int copy;

	/* Otherwise ps shows "exe", by which the agent started us. */
	(void)prctl(PR_SET_NAME, "xusbip-serve", 0, 0, 0);
	(void)setsockopt(options->peer_fd, IPPROTO_TCP, TCP_NODELAY, &on,
			 sizeof(on));
	/* The channel owns its descriptor, and the link wants this one. */
	copy = fcntl(options->peer_fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0 || channel_socket_new(copy, &c.client) < 0) {
		log_error("no memory for a connection");
		return EXIT_FAILED;
	}
	find_gateways(&c);
	status = serve_operation(&c);
	channel_free(c.client);
	return status;
}
