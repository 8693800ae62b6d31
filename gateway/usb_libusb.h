/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usb_libusb.h - what the two halves of a device of this host share, and only
 * they: usb_libusb.c has the device (opening, claiming, its requests, its memory,
 * its end), usb_usbfs.c the transfers in flight.
 */
#ifndef USB_LIBUSB_H
#define USB_LIBUSB_H

#include <libusb.h>

#include "gateway/usb_device.h"
#include "vchan-transport/loop.h"

/* libusb's own limit, of interface numbers. */
#define HOST_MAX_INTERFACES DESCRIPTORS_MAX_INTERFACES

/* Below this a copy costs less than what usbfs's memory brings with it. */
#define HOST_DEV_MEM_MIN_BYTES (64u << 10)

/* Sizes of dev_mem buffers: 64 KiB, 128 KiB, ... 1 MiB. */
#define HOST_NUM_BUFFER_SIZES 5

/* A buffer at rest; lies in the buffer itself. */
struct host_free_buffer {
	struct host_free_buffer *next;
};

/* What urb->transfer is. Owned by its slot; in a list while usbfs has it. */
struct host_transfer {
	struct urb *urb;
	struct host_transfer *previous;
	struct host_transfer *next;
	/* What usbfs takes; more than one of them only for isochronous. */
	uint8_t *parts;
	size_t parts_bytes;
	uint32_t num_parts;
	uint32_t num_out;     /* of them, with usbfs */
	size_t moved;         /* bytes, by all that have come back */
	int status;           /* the first that is not 0 */
	int cancel_status;    /* of the URB, should it come back cancelled */
	uint64_t deadline_ms; /* control */
	uint8_t setup[8];     /* control without data */
	uint8_t *buffer;      /* isochronous: the URB's data, or: */
	/* Isochronous packets that do not lie back to back. */
	uint8_t *bounce;
	size_t bounce_bytes;
};

/* A device of this host. Owned by the engine, as its struct usb_device. */
struct host_device {
	struct usb_device base;
	struct loop *loop;
	int fd; /* usbfs */
	libusb_context *context;
	libusb_device_handle *handle;
	uint8_t *descriptor_bytes;
	struct loop_watch *watch;
	struct loop_source source;
	bool can_gather; /* its controller */
	bool must_look;  /* for what has ended already */
	unsigned look_pause;

	/* Fires for the nearest deadline, and at once to tell that it is gone. */
	struct loop_timer *timer;
	bool is_timer_set;
	bool is_gone_told;
	struct host_transfer *in_flight;

	/* Bit n stands for bInterfaceNumber n. */
	uint32_t claimed;
	uint32_t had_driver;
	uint8_t alternates[HOST_MAX_INTERFACES];
	uint8_t first_configuration;
	bool has_done_bulk; /* since it was opened, or reset */

	struct host_free_buffer *free_buffers[HOST_NUM_BUFFER_SIZES];
	size_t free_buffer_bytes;
};

static inline struct host_device *host_of(struct usb_device *d)
{
	return (struct host_device *)d;
}

/* The errno for an error of libusb; 0 for what is none. */
int host_errno(int libusb_error);

/* From now on nothing works; the engine is told from the loop, once. */
void host_mark_gone(struct host_device *h);

/* Gives buffers at rest back to the kernel; false: there were none. */
bool host_drop_free_buffers(struct host_device *h);

/* The operations of struct usb_device_ops that have to do with transfers. */
int host_submit(struct usb_device *d, struct urb *urb);
void host_cancel(struct usb_device *d, struct urb *urb);
void host_urb_done(struct usb_device *d, struct urb *urb);

/* From now on what ends comes back from the loop. 0 or -errno. */
int host_watch(struct host_device *h);

/* Ends the control transfers that are past their limit; sets the timer anew. */
void host_expire(struct host_device *h);

#endif
