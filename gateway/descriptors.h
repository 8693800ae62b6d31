/* SPDX-License-Identifier: Apache-2.0 */
/*
 * descriptors.h - a bounded parser of a device's raw descriptors: the 18-byte
 * device descriptor, then each configuration with all that hangs on it, as
 * read(2) on usbfs gives them and as virtual devices carry them.
 *
 * Devices lie.  Nothing here trusts a length, a count or an index in them, and
 * every walk makes progress or stops.  Pure: it keeps a pointer into the bytes
 * and allocates nothing.
 *
 * Source: USB 2.0 chapter 9, USB 3.2 chapter 9.
 */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DESCRIPTORS_MAX_BYTES      65536
#define DESCRIPTORS_MAX_INTERFACES 32

/* bmAttributes & 3 of an endpoint. */
enum usb_transfer_type {
	USB_CONTROL = 0,
	USB_ISOCHRONOUS = 1,
	USB_BULK = 2,
	USB_INTERRUPT = 3,
};

struct descriptors {
	const uint8_t *bytes; /* borrowed */
	size_t num_bytes;
	uint16_t vendor;
	uint16_t product;
	uint16_t release;
	uint8_t class;
	uint8_t subclass;
	uint8_t protocol;
	uint8_t num_configurations; /* as many as are really there */
};

struct descriptor_interface {
	uint8_t number; /* bInterfaceNumber: has gaps, may be up to 255 */
	uint8_t alternate;
	uint8_t class;
	uint8_t subclass;
	uint8_t protocol;
	/* The interface's own bytes, up to the next interface. */
	const uint8_t *bytes;
	size_t num_bytes;
};

struct descriptor_endpoint {
	uint8_t address; /* with the direction bit */
	uint8_t interface;
	enum usb_transfer_type type;
	uint16_t max_packet; /* bytes, without the high-bandwidth bits */
	uint8_t interval;
};

/*
 * 0, or -EINVAL if there is not even a device descriptor, or more than
 * DESCRIPTORS_MAX_BYTES.
 */
int descriptors_parse(struct descriptors *ret_d, const uint8_t *bytes,
		      size_t num_bytes);

/* bDescriptorType of what descriptors_get has. */
#define DESCRIPTOR_DEVICE        1
#define DESCRIPTOR_CONFIGURATION 2

/*
 * What GET_DESCRIPTOR is answered with, for the device or for its index-th
 * configuration: how many bytes, 0 if there is no such one.
 */
size_t descriptors_get(const struct descriptors *d, uint8_t type, uint8_t index,
		       const uint8_t **ret_bytes);

/* bConfigurationValue of the index-th configuration; false if there is none. */
bool descriptors_configuration(const struct descriptors *d, unsigned index,
			       uint8_t *ret_value);

/*
 * Walks interface descriptors (each alternate setting is one) of the
 * configuration with this value: start with *cursor = 0; false at the end.
 */
bool descriptors_next_interface(const struct descriptors *d,
				uint8_t configuration, size_t *cursor,
				struct descriptor_interface *ret_interface);

/* The same by index: two configurations may claim one value. */
bool descriptors_next_interface_at(const struct descriptors *d, unsigned index,
				   size_t *cursor,
				   struct descriptor_interface *ret_interface);

/*
 * The endpoint `address` (with the direction bit; not 0) of a configuration,
 * where interface n has alternate setting alternates[n].  False: none.  Where
 * interfaces share one, the first has it, as in Linux.
 */
bool descriptors_find_endpoint(
	const struct descriptors *d, uint8_t configuration,
	const uint8_t alternates[static DESCRIPTORS_MAX_INTERFACES],
	uint8_t address, struct descriptor_endpoint *ret_endpoint);

#endif
