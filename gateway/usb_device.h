/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usb_device.h - what the engine asks of a device, and the URBs between them.
 *
 * Three kinds exist: a device of this machine through libusb (usb_libusb.c), a
 * virtual one (usb_disk.c, usb_zero.c), and one that another gateway has
 * (usb_remote.c).  All live in a session's process and belong to its engine
 * alone, so a call that blocks (a reset, a configuration) holds up this device
 * and no other.
 *
 * Life of an URB: the engine owns the slot and its buffer, lends it with
 * ops->submit, and has it back when the device calls urb_complete(), exactly
 * once for each accepted submit, from inside submit, cancel, work or a loop
 * callback.
 */
#ifndef USB_DEVICE_H
#define USB_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/descriptors.h"
#include "vchan-transport/usbip.h"

struct loop;
struct urb;
struct usb_device;

/* Room before the data of control transfers: usbfs's setup. */
#define URB_HEADROOM 8

struct urb {
	/* Set by the engine, read by the device. */
	struct usb_device *device;
	enum usb_transfer_type type;
	uint8_t endpoint; /* address with the direction bit; 0x00/0x80: control */
	uint8_t setup[8]; /* control */
	uint32_t flags;   /* USBIP_URB_ZERO_PACKET, bulk OUT only */
	size_t length;    /* bytes asked for */
	uint8_t *data; /* length bytes; control: URB_HEADROOM lie before it */
	/* Isochronous: packets with offset and length; the device sets the rest. */
	uint32_t num_packets;
	struct usbip_iso_packet *packets;

	/* Set by the device before urb_complete. */
	int status; /* 0 or a negative errno as Linux has it for an URB */
	size_t actual_length; /* of isochronous: the sum over the packets */

	/* The device's own, NULL in a fresh slot and kept with it for reuse. */
	void *transfer;
	/* The device's list of URBs that wait; unused by the engine. */
	struct urb *device_next;
};

static inline bool urb_is_device_to_host(const struct urb *urb)
{
	return (urb->endpoint & 0x80) != 0;
}

/*
 * Gives the URB back.  A cancelled one has status -ECONNRESET; one that ended
 * by itself in the meantime keeps what it got.
 */
void urb_complete(struct urb *urb);

struct usb_device_ops {
	const char *name;

	/*
	 * Starts the transfer.  0: urb_complete will follow, or has come already.
	 * -errno: it will not; the errno is the URB's result.
	 */
	int (*submit)(struct usb_device *d, struct urb *urb);

	/* Asks for an early end of a submitted URB; urb_complete still follows. */
	void (*cancel)(struct usb_device *d, struct urb *urb);

	/* The control requests that are not passed on raw; 0 or -errno. */
	int (*clear_halt)(struct usb_device *d, uint8_t endpoint);
	int (*set_interface)(struct usb_device *d, uint8_t number,
			     uint8_t alternate);
	int (*set_configuration)(struct usb_device *d, uint8_t value);
	/* -ENODEV: it came back as another device, or not at all. */
	int (*reset)(struct usb_device *d);

	/*
	 * Memory for `bytes` of data, best for this device (DMA-able, say):
	 * at least 64 KiB, so never of a control transfer.  NULL: no memory.  Both
	 * may be NULL: the heap.
	 */
	uint8_t *(*buffer_alloc)(struct usb_device *d, size_t bytes);
	void (*buffer_free)(struct usb_device *d, uint8_t *data, size_t bytes);
	/* Frees urb->transfer of a slot that is given up.  NULL: nothing to do. */
	void (*urb_done)(struct usb_device *d, struct urb *urb);

	/*
	 * All URBs are back, and the loop does not turn any more.  Leaves the device
	 * as it was found: alternate settings 0, first configuration, drivers
	 * re-attached; frees it.
	 */
	void (*close)(struct usb_device *d);
};

/* First member of each kind of device. */
struct usb_device {
	const struct usb_device_ops *ops;
	struct descriptors descriptors; /* bytes owned by the device */
	uint8_t configuration; /* active bConfigurationValue, 0: none */
	uint32_t speed;        /* enum usbip_speed */
	bool is_gone;          /* unplugged: nothing will work again */
	/* Set by the engine; the device calls it once when it finds itself gone. */
	void (*on_gone)(void *arg);
	void *on_gone_arg;
};

/*
 * A device of this machine from an open usbfs descriptor, which it owns from
 * the call on.  All interfaces of the active configuration are claimed, their drivers
 * detached interface by interface.  -EBUSY: another program has an interface.
 */
int usb_libusb_open(struct loop *loop, int fd, struct usb_device **ret_device);

/*
 * A memory stick over an image: bulk-only mass storage, SCSI transparent command
 * set, 512-byte blocks.  Owns `image_fd` from the call on.  `serial` becomes the
 * serial number string.  SuperSpeed, with HighSpeed if is_high_speed.
 */
int usb_disk_open(struct loop *loop, int image_fd, bool is_read_only,
		  bool is_high_speed, const char *serial,
		  struct usb_device **ret_device);

/* Gadget Zero's twin, 0525:a4a0; HighSpeed. */
int usb_zero_open(struct loop *loop, struct usb_device **ret_device);

/* What is known of a device that another gateway has, from its dialer. */
struct usb_remote_options {
	uint32_t devid; /* there */
	uint32_t next_seqnum;
	uint32_t speed; /* enum usbip_speed */
	uint8_t configuration;
	size_t num_descriptor_bytes; /* the first bytes that the socket has */
	const char *who;             /* for the log; borrowed */
};

/*
 * A device that another gateway has, over a socket that carries the URBs of an
 * import and that it owns from the call on. -EPROTO: its descriptors are not
 * there.
 */
int usb_remote_open(struct loop *loop, int fd,
		    const struct usb_remote_options *options,
		    struct usb_device **ret_device);

/*
 * The descriptors that virtual devices show, for a list without opening anything;
 * returns their number of bytes.
 */
size_t usb_disk_descriptors(bool is_high_speed, const uint8_t **ret_bytes);
size_t usb_zero_descriptors(const uint8_t **ret_bytes);

#endif
