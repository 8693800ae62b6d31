/* SPDX-License-Identifier: Apache-2.0 */
/*
 * local_usb.h - the USB devices that this kernel has, from sysfs. `dir` is
 * LOCAL_USB_DIR but in tests.
 */
#ifndef LOCAL_USB_H
#define LOCAL_USB_H

#include <stdbool.h>
#include <stddef.h>

#include "vchan-transport/usbip.h"

#define LOCAL_USB_DIR "/sys/bus/usb/devices"

/* 0, or -ENOENT if there is no such device (any more). */
int local_usb_read(const char *dir, const char *busid,
		   struct usbip_device *ret_device);

/*
 * Is the device there, with its configuration set? One that the administrator
 * has not authorized counts as set up: it will not get any further.
 */
bool local_usb_is_ready(const char *dir, const char *busid);

/*
 * Takes the device from its drivers, as if it had been unplugged, and returns
 * when it is gone: 0, -ETIMEDOUT or -errno.
 */
int local_usb_remove(const char *dir, const char *busid, unsigned limit_ms);

/*
 * All but hubs and what came by vhci_hcd, sorted by bus id: 0 or -errno. The
 * caller frees the array.
 */
int local_usb_list(const char *dir, struct usbip_device **ret_devices,
		   size_t *ret_count);

#endif
