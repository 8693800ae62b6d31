/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.h - the pump between a channel to a gateway and a socket whose other end
 * a vhci_hcd reads and writes, checking each header in both directions before it
 * passes (urb_check.h).  Runs in a process of its own that holds these two and
 * nothing else, and enters the sandbox before the first URB.
 */
#ifndef LINK_H
#define LINK_H

#include "vchan-transport/exit_status.h"
#include "vchan-transport/usbip.h"

struct channel;

struct link_options {
	struct channel *channel;    /* after OP_REP_IMPORT; owned */
	int vhci_fd;                /* stream socket, the URBs' side; owned */
	struct usbip_device device; /* as imported */
	const char *who;            /* for the log: "xen:0 1-1.2" */
};

/* Runs until either side ends; logs why.  The exit status of the process. */
enum exit_status link_run(const struct link_options *options);

#endif
