/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usb_events.h - hears of USB devices that leave this kernel; the only user of
 * libudev here.
 */
#ifndef USB_EVENTS_H
#define USB_EVENTS_H

#include <stdbool.h>

struct usb_events;

/* 0 or -errno; with a descriptor to poll for reading. */
int usb_events_new(struct usb_events **ret_events, int *ret_fd);
/* NULL is fine. */
void usb_events_free(struct usb_events *events);

/* To be called when the descriptor is ready: has a device left? */
bool usb_events_has_removal(struct usb_events *events);

#endif
