/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_watch.h - waits until the list of a gateway in another Xen domain may
 * have changed, which its node "devices" in xenstore tells.
 */
#ifndef DEVICE_WATCH_H
#define DEVICE_WATCH_H

#include "vchan-transport/address.h"
#include "vchan-transport/handshake.h"

/* Begins: whatever the node says, it is news. */
#define DEVICE_WATCH_UNKNOWN "\n"

/*
 * Waits until the node is not `value` any more, and puts there what it is now.
 * 0; -ENODEV no Xen; -ENOENT no domain of that name; -errno. The store is open
 * only while it waits, so what the caller forks has no thread in it.
 */
int device_watch_wait(const struct address *gateway,
		      char value[static HANDSHAKE_WORD_BYTES]);

#endif
