/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import.h - the client's side of USB/IP's operations: which devices a gateway
 * exports, and taking one. One conversation with one deadline for all of it;
 * whatever the gateway answers is bounded and judged before it is believed.
 *
 *	struct import import = { .gateway = "xen:0", .deadline_ms = ... };
 *	import_open, then import_list or import_take, then import_close, unless
 *	import.channel goes to a link.
 */
#ifndef IMPORT_H
#define IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vchan-transport/address.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/failure.h"
#include "vchan-transport/usbip.h"

/* For one conversation, connecting included. */
#define IMPORT_LIMIT_MS 10000u

/* Rings for a list: small, so that asking costs a guest's gateway little. */
#define IMPORT_LIST_RING_BYTES 16384u

struct import {
	const char *gateway;  /* as the user named it, for words */
	uint64_t deadline_ms; /* of clock_ms() */
	unsigned hops;        /* gateways that pass this question on */
	struct channel_options options;
	struct channel *channel; /* from import_open on */
	struct failure failure;  /* when something returned not EXIT_OK */
};

struct import_entry {
	struct usbip_device device;
	struct usbip_interface interfaces[USBIP_MAX_INTERFACES];
};

/* Connects: EXIT_CANNOT_REACH and relatives. */
enum exit_status import_open(struct import *import,
			     const struct address *address);

/*
 * What is exported. The caller frees the array, which is NULL for none.
 * Strings in it are NUL-terminated, and that is all that is known of them.
 */
enum exit_status import_list(struct import *import,
			     struct import_entry **ret_entries,
			     size_t *ret_count);

/*
 * Takes the device; the channel carries its URBs from here on. EXIT_NO_DEVICE,
 * EXIT_NOT_ALLOWED, EXIT_BUSY as the gateway says it; EXIT_PROTOCOL if what
 * it sent is no answer, or describes a device that cannot be.
 */
enum exit_status import_take(struct import *import, const char *busid,
			     struct usbip_device *ret_device);

/* Ends the conversation in order, if there is one. */
void import_close(struct import *import);

/* Printable, without blanks, and short enough for the wire? */
bool import_is_busid(const char *busid);

#endif
