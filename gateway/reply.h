/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply.h - the bytes that answer an URB, in the order in which Linux's vhci
 * reads them: header, data (IN only), packet descriptors (isochronous only).
 * Pure but for the slot.
 */
#ifndef REPLY_H
#define REPLY_H

#include <sys/uio.h>

#include "gateway/slot.h"

#define REPLY_MAX_PIECES 4

/*
 * Encodes the answer slot->reply into the slot, from what the device left in
 * slot->urb.  Isochronous data is moved together, without the gaps between
 * packets.
 */
void reply_prepare(struct slot *slot);

/* Where a prepared answer's bytes lie; how many pieces. */
int reply_pieces(struct slot *slot, struct iovec ret_pieces[REPLY_MAX_PIECES]);

#endif
