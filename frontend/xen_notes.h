/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_notes.h - what the agent of a guest has to know for longer than it lives,
 * as files beside the locks of its channels (xen_guest.h): the devices that
 * were let go of at a gateway's word and are to be taken back (held-G), and the
 * links that serve stock commands (link-PID), which nothing else tells apart:
 * the stock tool notes the agent's address, whatever gateway is behind it.
 */
#ifndef XEN_NOTES_H
#define XEN_NOTES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vchan-transport/usbip.h"

/* As many as a guest has channels to one gateway. */
#define XEN_NOTES_MAX 64

struct xen_note {
	char busid[USBIP_BUSID_BYTES];
	uint16_t vendor; /* with the product 0: not known */
	uint16_t product;
	pid_t pid; /* of a link */
};

/* Adds one that was let go of, unless it is there: 0 or -errno. */
int xen_notes_hold(unsigned gateway, const struct xen_note *note);
/* Those that were let go of; how many. */
size_t xen_notes_held(unsigned gateway,
		      struct xen_note ret_notes[static XEN_NOTES_MAX]);
/* It was taken back, or never will be: 0 or -errno. */
int xen_notes_drop(unsigned gateway, const char *busid);

/*
 * This process is a link to a gateway, "xen:0". The note counts while the
 * process lives: it keeps a locked descriptor. 0 or -errno.
 */
int xen_notes_add_link(const char *gateway, const struct xen_note *note);
/* The links to it that live; how many. Notes of others are removed. */
size_t xen_notes_links(const char *gateway,
		       struct xen_note ret_notes[static XEN_NOTES_MAX]);
/* Tells it to end; one that has ended is no failure. */
void xen_notes_end_link(const struct xen_note *note);

#endif
