/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_guest.h - what this domain's own folder in xenstore, data/xusbip, says:
 * which gateways serve it, and which channels to them its processes use.
 *
 * A channel number belongs to whoever holds its lock file. A node whose number
 * nobody holds was left by processes that were killed.
 */
#ifndef XEN_GUEST_H
#define XEN_GUEST_H

#include <stddef.h>
#include <stdint.h>

#include "vchan-transport/store.h"

/* More gateways than this are left out. */
#define XEN_GUEST_MAX_GATEWAYS 64

/* Where the lock files are, unless the environment's XUSBIP_XEN_DIR says. */
#define XEN_GUEST_LOCK_DIR "/run/xusbip/xen"

/* Opens the folder of the lock files, made if it is missing; or -errno. */
int xen_guest_open_dir(void);

/* The domains that offer something to this one, in order; how many, -errno. */
int xen_guest_gateways(struct store *store, unsigned *ret_domids, size_t cap);
/* The same for who has no store open; none where there is no Xen. */
size_t xen_guest_list_gateways(unsigned *ret_domids, size_t cap);

/* By number, which need not offer anything, or by name: -ENOENT. */
int xen_guest_find(struct store *store, unsigned guest, const char *domain,
		   unsigned *ret_gateway);

/*
 * Takes a channel to the gateway that nobody uses, one that the gateway has
 * cleaned up if there is any: the lock's descriptor, -EBUSY, -errno.
 */
int xen_guest_take_channel(struct store *store, unsigned guest,
			   unsigned gateway, unsigned *ret_channel);

/* Removes the nodes that killed processes left; how many, or -errno. */
int xen_guest_sweep(struct store *store, unsigned guest, unsigned gateway);
/* Towards every gateway, for who has no store open. */
int xen_guest_sweep_all(void);

#endif
