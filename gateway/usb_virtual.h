/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usb_virtual.h - what the virtual devices share: a device made of tables.
 *
 * It answers chapter 9 from the tables, keeps one queue of URBs for each
 * endpoint, halts and alternate settings.  A kind of device (usb_disk.c,
 * usb_zero.c) embeds struct usb_virtual as its first member, gives it a model,
 * and moves data: it is told of each queued URB, looks at the head of a queue
 * and finishes it.
 *
 * Everything in an URB but its lengths and its memory is the guest's word.
 */
#ifndef USB_VIRTUAL_H
#define USB_VIRTUAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/usb_device.h"

struct usb_virtual;

/* A setup packet, in host order. */
struct usb_request {
	uint8_t type; /* bmRequestType */
	uint8_t request;
	uint16_t value;
	uint16_t index;
	uint16_t length; /* of the data, at most what the URB has room for */
};

/* Owned by its device; URBs in the queue are lent by the engine. */
struct usb_virtual_endpoint {
	struct urb *head;
	struct urb *tail;
	size_t progress;     /* with the head: bytes or packets done so far */
	uint64_t due_ms;     /* the kind's own: not to be served before */
	uint16_t max_packet; /* 0: not there in the present settings */
	uint8_t address;
	uint8_t interface;
	enum usb_transfer_type type;
	bool is_halted;
};

struct usb_virtual_model {
	const char *name;
	uint32_t speed;             /* enum usbip_speed */
	const uint8_t *descriptors; /* the device, then its configurations */
	size_t num_descriptor_bytes;
	const uint8_t *bos; /* NULL: none */
	size_t num_bos_bytes;
	const uint8_t *qualifier; /* 10 bytes, or NULL */

	/*
	 * Class and vendor requests; data holds request->length bytes.  How many
	 * were moved, or -EPIPE.  NULL: there are none.
	 */
	int (*control)(struct usb_virtual *v, const struct usb_request *request,
		       uint8_t *data);
	/* An URB was queued on an endpoint that is not halted. */
	void (*on_queued)(struct usb_virtual *v,
			  struct usb_virtual_endpoint *endpoint);
	/* The guest cleared a halt.  NULL: nothing to do. */
	void (*on_halt_cleared)(struct usb_virtual *v,
				struct usb_virtual_endpoint *endpoint);
	/* A new configuration or alternate setting, or a reset. */
	void (*on_settings)(struct usb_virtual *v);
	/* Frees the device; there are no URBs any more. */
	void (*free)(struct usb_virtual *v);
};

#define USB_VIRTUAL_STRINGS    3
#define USB_VIRTUAL_STRING_MAX 64 /* characters, the NUL included */

struct usb_virtual {
	struct usb_device device; /* first: the engine holds this */
	struct usb_device_ops ops;
	const struct usb_virtual_model *model;
	/* String descriptors 1 to 3, printable ASCII. */
	char strings[USB_VIRTUAL_STRINGS][USB_VIRTUAL_STRING_MAX];
	uint8_t alternates[DESCRIPTORS_MAX_INTERFACES];
	struct usb_virtual_endpoint endpoints[32];
};

/*
 * Fills a zeroed *v; its first configuration is active afterwards.  What of a
 * string is not printable ASCII becomes '?', what is too long is cut.
 * -EINVAL: the model's descriptors are broken.
 */
int usb_virtual_init(struct usb_virtual *v,
		     const struct usb_virtual_model *model,
		     const char *const strings[static USB_VIRTUAL_STRINGS]);

/* The endpoint with this address, or NULL if the present settings lack it. */
struct usb_virtual_endpoint *usb_virtual_endpoint(struct usb_virtual *v,
						  uint8_t address);

/* Gives back the head of the queue, which must not be empty. */
void usb_virtual_finish(struct usb_virtual_endpoint *endpoint, int status,
			size_t actual_length);

/*
 * Halts the endpoint: what waits ends with -EPIPE, and so does what comes until
 * the guest clears the halt.  The head keeps the actual_length it has.
 */
void usb_virtual_halt(struct usb_virtual_endpoint *endpoint);

#endif
