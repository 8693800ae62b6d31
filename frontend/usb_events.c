/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/usb_events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <libudev.h>

/* In one call; what is left keeps the descriptor ready. */
#define MAX_EVENTS 64

struct usb_events {
	struct udev *udev;
	struct udev_monitor *monitor;
};

int usb_events_new(struct usb_events **ret_events, int *ret_fd)
{
	struct usb_events *events = calloc(1, sizeof(*events));
	int r = -ENOMEM;

	if (!events)
		return r;
	events->udev = udev_new();
	/* The kernel's own events: they come without a udevd, too. */
	if (events->udev)
		events->monitor =
			udev_monitor_new_from_netlink(events->udev, "kernel");
	if (events->monitor)
		r = udev_monitor_filter_add_match_subsystem_devtype(
			events->monitor, "usb", "usb_device");
	if (r >= 0)
		r = udev_monitor_enable_receiving(events->monitor);
	if (r < 0) {
		usb_events_free(events);
		return r;
	}
	*ret_fd = udev_monitor_get_fd(events->monitor);
	*ret_events = events;
	return 0;
}

void usb_events_free(struct usb_events *events)
{
	if (!events)
		return;
	(void)udev_monitor_unref(events->monitor);
	(void)udev_unref(events->udev);
	free(events);
}

bool usb_events_has_removal(struct usb_events *events)
{
	bool has_removal = false;

	for (unsigned i = 0; i < MAX_EVENTS; i++) {
		struct udev_device *device =
			udev_monitor_receive_device(events->monitor);
		const char *action;

		if (!device)
			break;
		action = udev_device_get_action(device);
		has_removal |= action && strcmp(action, "remove") == 0;
		(void)udev_device_unref(device);
	}
	return has_removal;
}
