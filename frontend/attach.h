/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach.h - one device from a gateway to a port of this kernel, without a
 * daemon.
 *
 * The process that will be the link is made first, so that nobody else ever
 * holds the channel or the socket that vhci_hcd gets. It has its keepers made
 * (keeper.h), connects, takes the device, gives vhci_hcd its socket, notes the
 * record, reports, gives up its rights, and pumps (link.h). The asking process
 * waits for that report and then for the kernel to have set the device up;
 * until it says that the attachment stands, its end undoes it.
 */
#ifndef ATTACH_H
#define ATTACH_H

#include <stdint.h>

#include "frontend/vhci.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/failure.h"
#include "vchan-transport/usbip.h"

struct attach_plan {
	struct address address;
	struct channel_options options;
	const char *gateway; /* as the user named it */
	const char *busid;
	const char *wish; /* its name, for a device that stays; or NULL */
};

struct attach_result {
	uint32_t port;
	char busid[VHCI_BUSID_BYTES]; /* of the local device */
	struct usbip_device device;   /* as the gateway describes it */
};

/*
 * Returns when the device is there, or when everything is undone and
 * `ret_failure` says why. Every wait in it has a limit.
 */
enum exit_status attach_run(const struct attach_plan *plan,
			    struct attach_result *ret_result,
			    struct failure *ret_failure);

#endif
