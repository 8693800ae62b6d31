/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.h - one connection to the agent, in a process of its own: a stock
 * `usbip list` or `usbip attach` asks, the gateways answer: those that are
 * given, and in a Xen guest every domain that serves it. Lists are merged; a
 * device is taken from the first gateway that has it, and then this process is
 * its link, for the stock tool hands its end of the connection to vhci_hcd.
 */
#ifndef SERVE_H
#define SERVE_H

#include <stddef.h>

#include "vchan-transport/address.h"
#include "vchan-transport/exit_status.h"

struct serve_options {
	int peer_fd; /* accepted connection; owned */
	const struct address *gateways;
	size_t num_gateways;
	const char *tls_dir; /* of channel_options */
};

/* Runs it to its end; logs why.  The exit status of the process. */
enum exit_status serve_run(const struct serve_options *options);

#endif
