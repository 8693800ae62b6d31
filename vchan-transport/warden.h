/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warden.h - the guest's side of a channel over Xen: how it is asked for, and
 * who looks after it.
 *
 * Each channel has a warden, a process of its own that goes through the machine
 * of front_fsm.def: it speaks with the gateway in xenstore, which the process
 * that uses the channel cannot do from its sandbox, takes the word back when
 * that process has ended in whatever way, and ends it when it does not let go
 * of a channel that is no more. It ends with that process. One that is killed
 * takes the channel with it; its node is swept later (xen_guest.h).
 *
 * Between the two is a socket of packets: the warden's offer, the answer to it,
 * and at last the gateway's reason (struct channel_last_word) and the end.
 */
#ifndef WARDEN_H
#define WARDEN_H

#include <stddef.h>
#include <stdint.h>

#include "vchan-transport/address.h"
#include "vchan-transport/channel.h"

/*
 * Opens a channel to a gateway at an address of the kind xen. `ring_bytes` each
 * way, 0: as the gateway has it. 0; or with words: -ENODEV no Xen; -ENOENT
 * nothing offered; -EACCES, -EBUSY, -ETIMEDOUT, -EPROTO, -ECONNREFUSED as the
 * gateway refuses; -errno. The caller does not fork while it has the channel.
 */
int warden_connect(const struct address *to, size_t ring_bytes,
		   uint64_t deadline_ms, struct channel **ret_channel,
		   char why[static CHANNEL_WHY_BYTES]);

#endif
