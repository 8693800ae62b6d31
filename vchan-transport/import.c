/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/import.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vchan-transport/channel.h"
#include "vchan-transport/handshake.h"

#define CLASS_HUB 0x09

/* How long beyond its deadline a conversation may be held up in one call. */
#define STUCK_S 2

/* For a gateway to say why, after it has refused. */
#define REASON_LIMIT_MS 1000u

/* What a channel's errno means to a user. */
static enum exit_status status_of(int error)
{
	switch (error) {
	case -ETIMEDOUT:
		return EXIT_TIMEOUT;
	case -EBUSY:
		return EXIT_BUSY;
	case -EACCES:
	case -EPERM:
		return EXIT_NOT_ALLOWED;
	case -EPROTO:
	case -EBADMSG:
		return EXIT_PROTOCOL;
	case -EKEYREJECTED:
		return EXIT_NOT_TRUSTED;
	case -ENOKEY:
		return EXIT_CONFIG;
	default:
		return EXIT_CANNOT_REACH;
	}
}

static void on_stuck(int signo)
{
	static const char text[] =
		"error: a gateway held this end of its channel up; given up, "
		"do not trust it\n";

	(void)signo;
	(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
	_exit(EXIT_TIMEOUT);
}

/* Our own limits don't end a write to a bell that its owner filled. */
static void guard_against_bells(const struct import *import)
{
	uint64_t now_ms = clock_ms();
	uint64_t left_ms = 0;

	if (import->deadline_ms > now_ms)
		left_ms = import->deadline_ms - now_ms;
	(void)signal(SIGALRM, on_stuck);
	(void)alarm((unsigned)(left_ms / 1000) + STUCK_S);
}

/* Do a failure's words leave nothing to be asked? */
static bool is_explained(enum address_kind kind, int error)
{
	if (kind == ADDRESS_XEN)
		return true;
	if (kind != ADDRESS_TLS)
		return false;
	return error == -EKEYREJECTED || error == -ENOKEY || error == -EACCES ||
	       error == -EPROTO;
}

enum exit_status import_open(struct import *import,
			     const struct address *address)
{
	char why[CHANNEL_WHY_BYTES];
	int r;

	guard_against_bells(import);
	r = channel_connect(address, &import->options, import->deadline_ms,
			    &import->channel, why);
	if (r == 0)
		return EXIT_OK;
	if (is_explained(address->kind, r))
		return failure_set(&import->failure, status_of(r),
				   "cannot connect to %s: %s", import->gateway,
				   why);
	return failure_set(&import->failure, status_of(r),
			   "cannot connect to %s: %s; is a gateway running "
			   "there, and may this host use it?",
			   import->gateway, why);
}

void import_close(struct import *import)
{
	if (import->channel) {
		(void)channel_end(import->channel);
		channel_free(import->channel);
		import->channel = NULL;
	}
	(void)alarm(0);
}

/* May a gateway say so? The others speak of this side. */
static bool is_of_gateway(unsigned status)
{
	switch (status) {
	case EXIT_FAILED:
	case EXIT_NO_DEVICE:
	case EXIT_NOT_ALLOWED:
	case EXIT_CANNOT_REACH:
	case EXIT_BUSY:
	case EXIT_PROTOCOL:
	case EXIT_TIMEOUT:
		return true;
	default:
		return false;
	}
}

/*
 * What the gateway said beside the conversation, where it can, about how that
 * has ended; the status stays if it told none.
 */
static bool take_reason(struct import *import, enum exit_status *status,
			char why[static HANDSHAKE_WHY_BYTES])
{
	unsigned told;

	/* Until we have ended, so has not the gateway. */
	(void)channel_end(import->channel);
	if (channel_reason(import->channel, clock_ms() + REASON_LIMIT_MS, &told,
			   why) < 0 ||
	    why[0] == '\0')
		return false;
	if (is_of_gateway(told))
		*status = (enum exit_status)told;
	return true;
}

/* The conversation broke: `r` is how the stream ended. */
static enum exit_status broke(struct import *import, int r, const char *doing)
{
	enum exit_status status = status_of(r);
	const char *why = strerror(-r);
	char reason[HANDSHAKE_WHY_BYTES];

	if (r == -EPIPE || r == -ECONNRESET || r == -EACCES) {
		if (r != -EACCES)
			status = EXIT_PROTOCOL;
		why = "it ended the conversation";
		if (take_reason(import, &status, reason))
			return failure_set(&import->failure, status, "%s: %s",
					   import->gateway, reason);
	} else if (r == -ETIMEDOUT) {
		why = "it did not answer in time";
	}
	return failure_set(&import->failure, status,
			   "%s: %s: %s; see the gateway's log", import->gateway,
			   doing, why);
}

static enum exit_status nonsense(struct import *import, const char *what)
{
	return failure_set(&import->failure, EXIT_PROTOCOL,
			   "%s: it sent %s; nothing of it was used",
			   import->gateway, what);
}

static enum exit_status ask(struct import *import, uint16_t code,
			    const uint8_t *body, size_t body_bytes)
{
	uint8_t message[USBIP_OP_BYTES + USBIP_BUSID_BYTES];
	/* Of no status, and only one of ours reads it so (protocol.md). */
	uint32_t hops = channel_tells_reasons(import->channel) ? import->hops
							       : 0;
	int r;

	usbip_op_encode(message, code, (enum usbip_status)hops);
	if (body_bytes > 0)
		memcpy(message + USBIP_OP_BYTES, body, body_bytes);
	r = channel_write_all(import->channel, message,
			      USBIP_OP_BYTES + body_bytes, import->deadline_ms);
	return r < 0 ? broke(import, r, "asking") : EXIT_OK;
}

static enum exit_status receive(struct import *import, uint8_t *to,
				size_t bytes)
{
	int r = channel_read_all(import->channel, to, bytes,
				 import->deadline_ms);

	return r < 0 ? broke(import, r, "reading its answer") : EXIT_OK;
}

/* The sentence behind a refusal; empty where there is none. */
static enum exit_status
receive_sentence(struct import *import,
		 char ret_sentence[static CHANNEL_REASON_BYTES])
{
	uint8_t bytes[CHANNEL_REASON_BYTES] = { 0 };
	enum exit_status status = EXIT_OK;

	if (channel_tells_reasons(import->channel))
		status = receive(import, bytes, sizeof(bytes));
	if (status != EXIT_OK)
		return status;
	if (!memchr(bytes, '\0', sizeof(bytes)))
		return nonsense(import, "a reason without an end");
	memcpy(ret_sentence, bytes, sizeof(bytes));
	return EXIT_OK;
}

/* The head of an answer; its status in `*ret_status`. */
static enum exit_status receive_op(struct import *import, uint16_t code,
				   uint32_t *ret_status)
{
	uint8_t bytes[USBIP_OP_BYTES];
	enum exit_status status = receive(import, bytes, sizeof(bytes));
	struct usbip_op op;

	if (status != EXIT_OK)
		return status;
	usbip_op_decode(&op, bytes);
	if (op.version != USBIP_VERSION)
		return nonsense(import, "another version of USB/IP than 1.1.1");
	if (op.code != code)
		return nonsense(import, "an answer to another question");
	*ret_status = op.status;
	return EXIT_OK;
}

static enum exit_status receive_entry(struct import *import,
				      struct import_entry *ret_entry)
{
	uint8_t bytes[USBIP_DEVICE_BYTES];
	uint8_t more[USBIP_MAX_INTERFACES * USBIP_INTERFACE_BYTES];
	enum exit_status status = receive(import, bytes, sizeof(bytes));
	size_t count;

	if (status != EXIT_OK)
		return status;
	usbip_device_decode(&ret_entry->device, bytes);
	count = ret_entry->device.num_interfaces;
	if (count > USBIP_MAX_INTERFACES)
		return nonsense(import, "a device with too many interfaces");
	status = receive(import, more, count * USBIP_INTERFACE_BYTES);
	if (status != EXIT_OK)
		return status;
	for (size_t i = 0; i < count; i++)
		usbip_interface_decode(&ret_entry->interfaces[i],
				       more + i * USBIP_INTERFACE_BYTES);
	return EXIT_OK;
}

static enum exit_status receive_entries(struct import *import, size_t count,
					struct import_entry *entries)
{
	for (size_t i = 0; i < count; i++) {
		enum exit_status status = receive_entry(import, &entries[i]);

		if (status != EXIT_OK)
			return status;
	}
	return EXIT_OK;
}

static enum exit_status list_refused(struct import *import, uint32_t refusal)
{
	char sentence[CHANNEL_REASON_BYTES] = "";
	enum exit_status status = receive_sentence(import, sentence);

	if (status != EXIT_OK)
		return status;
	return failure_set(&import->failure, EXIT_NOT_ALLOWED,
			   "%s: it does not tell its devices: %s",
			   import->gateway,
			   sentence[0] != '\0'
				   ? sentence
				   : usbip_status_sentence(refusal));
}

/* A list's head and the number of devices in it. */
static enum exit_status receive_count(struct import *import, size_t *ret_count)
{
	uint8_t bytes[4];
	uint32_t refusal = USBIP_ST_ERROR;
	enum exit_status status =
		receive_op(import, USBIP_REP_DEVLIST, &refusal);
	size_t count;

	if (status != EXIT_OK)
		return status;
	if (refusal != USBIP_ST_OK)
		return list_refused(import, refusal);
	status = receive(import, bytes, sizeof(bytes));
	if (status != EXIT_OK)
		return status;
	count = (size_t)bytes[0] << 24 | (size_t)bytes[1] << 16 |
		(size_t)bytes[2] << 8 | bytes[3];
	if (count > USBIP_MAX_DEVICES)
		return nonsense(import, "a list of too many devices");
	*ret_count = count;
	return EXIT_OK;
}

enum exit_status import_list(struct import *import,
			     struct import_entry **ret_entries,
			     size_t *ret_count)
{
	struct import_entry *entries = NULL;
	enum exit_status status;
	size_t count = 0;

	status = ask(import, USBIP_REQ_DEVLIST, NULL, 0);
	if (status == EXIT_OK)
		status = receive_count(import, &count);
	if (status != EXIT_OK)
		return status;
	if (count > 0) {
		entries = calloc(count, sizeof(*entries));
		if (!entries)
			return failure_set(&import->failure, EXIT_FAILED,
					   "no memory for %zu devices", count);
	}
	status = receive_entries(import, count, entries);
	if (status != EXIT_OK) {
		free(entries);
		return status;
	}
	*ret_entries = entries;
	*ret_count = count;
	return EXIT_OK;
}

bool import_is_busid(const char *busid)
{
	size_t length = strlen(busid);

	if (length == 0 || length >= USBIP_BUSID_BYTES)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (!isgraph((unsigned char)busid[i]))
			return false;
	}
	return true;
}

/* What vhci_hcd would take as it is; the kernel checks none of it. */
static enum exit_status judge_device(struct import *import, const char *busid,
				     const struct usbip_device *device)
{
	switch (device->speed) {
	case USBIP_SPEED_LOW:
	case USBIP_SPEED_FULL:
	case USBIP_SPEED_HIGH:
	case USBIP_SPEED_SUPER:
	case USBIP_SPEED_SUPER_PLUS:
		break;
	default:
		return nonsense(import, "a device of no known speed");
	}
	if (strcmp(device->busid, busid) != 0)
		return nonsense(import,
				"another device than the one asked for");
	if (device->class == CLASS_HUB)
		return nonsense(import, "a hub");
	if (device->busnum > UINT16_MAX || device->devnum > UINT16_MAX ||
	    usbip_devid(device) == 0)
		return nonsense(import, "a device with an impossible number");
	return EXIT_OK;
}

static enum exit_status refused(struct import *import, const char *busid,
				uint32_t refusal)
{
	static const enum exit_status statuses[] = {
		[USBIP_ST_NA] = EXIT_NOT_ALLOWED,
		[USBIP_ST_DEV_BUSY] = EXIT_BUSY,
		[USBIP_ST_DEV_ERR] = EXIT_FAILED,
		[USBIP_ST_NODEV] = EXIT_NO_DEVICE,
		[USBIP_ST_ERROR] = EXIT_FAILED,
	};

	enum exit_status status;
	char reason[HANDSHAKE_WHY_BYTES] = "";
	_Static_assert(sizeof(reason) >= CHANNEL_REASON_BYTES, "holds both");

	if (refusal >= sizeof(statuses) / sizeof(statuses[0]))
		return nonsense(import, "an unknown status");
	status = receive_sentence(import, reason);
	if (status != EXIT_OK)
		return status;
	status = statuses[refusal];
	if (reason[0] != '\0' || take_reason(import, &status, reason))
		return failure_set(&import->failure, status,
				   "%s: it does not give %s: %s",
				   import->gateway, busid, reason);
	return failure_set(&import->failure, status,
			   "%s: it does not give %s: %s; \"xusbip list -r %s\" "
			   "shows what it exports",
			   import->gateway, busid,
			   usbip_status_sentence(refusal), import->gateway);
}

enum exit_status import_take(struct import *import, const char *busid,
			     struct usbip_device *ret_device)
{
	uint8_t request[USBIP_BUSID_BYTES];
	uint8_t reply[USBIP_DEVICE_BYTES];
	struct usbip_device device;
	enum exit_status status;
	uint32_t refusal = USBIP_ST_ERROR;

	usbip_busid_encode(request, busid);
	status = ask(import, USBIP_REQ_IMPORT, request, sizeof(request));
	if (status == EXIT_OK)
		status = receive_op(import, USBIP_REP_IMPORT, &refusal);
	if (status != EXIT_OK)
		return status;
	if (refusal != USBIP_ST_OK)
		return refused(import, busid, refusal);
	status = receive(import, reply, sizeof(reply));
	if (status != EXIT_OK)
		return status;
	usbip_device_decode(&device, reply);
	status = judge_device(import, busid, &device);
	if (status != EXIT_OK)
		return status;
	*ret_device = device;
	return EXIT_OK;
}
