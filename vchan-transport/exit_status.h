/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exit statuses of every program of xusbip. A script tells by the number
 * what kind of thing went wrong; the one line on stderr says what exactly.
 * The numbers are a promise to users: new ones go to the end.
 */
#ifndef XUSBIP_EXIT_STATUS_H
#define XUSBIP_EXIT_STATUS_H

enum exit_status {
	/* What was asked for is done. */
	EXIT_OK = 0,
	/* It failed in a way that has no number of its own. */
	EXIT_FAILED = 1,
	/* The command line is wrong; nothing was tried. */
	EXIT_USAGE = 2,
	/* The device asked for is not there, or is not exported. */
	EXIT_NO_DEVICE = 3,
	/* The peer's rules, or this system's permissions, forbid it. */
	EXIT_NOT_ALLOWED = 4,
	/* The address cannot be reached: nobody listens, or no such host. */
	EXIT_CANNOT_REACH = 5,
	/* This kernel has no vhci_hcd, or it is not loaded. */
	EXIT_NO_VHCI = 6,
	/* The device is in use by somebody else. */
	EXIT_BUSY = 7,
	/* The port given is not in use, or no port is free. */
	EXIT_NO_PORT = 8,
	/* The configuration file is missing or wrong. */
	EXIT_CONFIG = 9,
	/* The peer broke the protocol. */
	EXIT_PROTOCOL = 10,
	/* The peer, or the kernel, did not answer within the limit. */
	EXIT_TIMEOUT = 11,
	/* The peer did not prove who it is, or it is not who it should be. */
	EXIT_NOT_TRUSTED = 12,
	/* This gateway serves no such domain. */
	EXIT_NO_DOMAIN = 13,
};

#endif
