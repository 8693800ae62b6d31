/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dial_take.h - reads the descriptors of a device that was just imported, over
 * its channel: what rules are judged by is what the device itself says. Each
 * answer is judged, and counts only as what was asked for.
 */
#ifndef DIAL_TAKE_H
#define DIAL_TAKE_H

#include "gateway/dial.h"
#include "vchan-transport/import.h"

/*
 * Fills the packet's descriptors, serial number, next_seqnum and device. EXIT_OK,
 * or what the import's failure says.
 */
enum exit_status dial_take(struct import *import,
			   const struct usbip_device *device,
			   struct dial_packet *ret_packet);

/*
 * The text of a string descriptor, as UTF-8 with a NUL, cut at what does not fit
 * whole; empty if it is none.
 */
void dial_string(const uint8_t *descriptor, size_t num_bytes, char *ret_text,
		 size_t cap);

#endif
