/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_usb_device.h - a device behind the engine that does nothing by itself:
 * it keeps each URB that it is lent, and the test says when and how it is given
 * back. What it was asked for besides goes to a journal. The data of a transfer
 * to the host is poisoned when it comes, so that a test can tell which bytes the
 * device never wrote.
 *
 * Its endpoints: 0x81 and 0x02 bulk, 0x83 and 0x04 interrupt, 0x85 and 0x06
 * isochronous, all of interface 0; interface 1 has none, and with its alternate
 * setting 1 the bulk endpoint 0x87 instead.
 */
#ifndef FAKE_USB_DEVICE_H
#define FAKE_USB_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/usb_device.h"

#define FAKE_USB_MAX_HELD 8192
#define FAKE_USB_POISON   0xa5

/* Owned by its test; it is never freed by close(). */
struct fake_usb_device {
	struct usb_device base; /* first: the engine holds this */

	/* How it behaves, as the test wants it. */
	int submit_error;      /* of every submit; 0: it is taken */
	int request_error;     /* of every special request; 0: it works */
	bool is_cancelling;    /* gives a cancelled URB back at once */
	bool is_instant;       /* finishes every URB inside submit */
	bool is_out_of_memory; /* has no buffers of its own to give */

	/* What came of it. */
	struct urb *held[FAKE_USB_MAX_HELD];
	size_t num_held;
	char journal[1024]; /* "submit 81, cancel 81, clear_halt 81, " */
	bool keeps_journal;
	unsigned num_submits;
	unsigned num_cancels;
	unsigned num_closes;
	size_t memory_bytes; /* of its own that is lent out */
};

void fake_usb_device_init(struct fake_usb_device *f);

/* The first URB that it holds for this endpoint; NULL if there is none. */
struct urb *fake_usb_device_find(struct fake_usb_device *f, uint8_t endpoint);

/*
 * Gives an URB back. To the host, `actual_length` bytes of fake_usb_byte() are
 * written before; isochronous packets are the test's to fill.
 */
void fake_usb_device_finish(struct fake_usb_device *f, struct urb *urb,
			    int status, size_t actual_length);

/* It is unplugged: what it holds fails, and the engine is told. */
void fake_usb_device_unplug(struct fake_usb_device *f);

/* The n-th byte of everything that it sends; never FAKE_USB_POISON. */
uint8_t fake_usb_byte(size_t n);

#endif
