/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_usb.h - a device of this machine as its folder in sysfs shows it:
 * read without opening the device itself.
 */
#ifndef REGISTRY_USB_H
#define REGISTRY_USB_H

#include "gateway/descriptors.h"
#include "gateway/policy.h"
#include "vchan-transport/usbip.h"

/* What sysfs says of one device. */
struct registry_usb {
	struct policy_device policy;
	struct usbip_device device;
	struct usbip_interface interfaces[USBIP_MAX_INTERFACES];
};

/* Reads a device's folder in sysfs; 0 or -errno. */
int registry_read_usb(const char *syspath, const char *busid,
		      struct registry_usb *ret_usb);

/* From a "descriptors" file of sysfs or from usbfs: both give all of them. */
int registry_read_descriptors(struct registry_usb *usb, int fd);

/* What rules look at in descriptors; 0 or -ENOMEM. */
int registry_judge_by(struct policy_device *policy,
		      const struct descriptors *descriptors);

/* The record's fields that descriptors tell. */
void registry_describe(struct usbip_device *device,
		       struct usbip_interface interfaces[USBIP_MAX_INTERFACES],
		       const struct descriptors *descriptors);

#endif
