/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen.h - the gateway among domains: watches the folders that the manager
 * makes for it in xenstore (docs/protocol.md, "Xenstore"), serves the guests in
 * them (guest_fsm.def) and their channels (xen_link.h) with sessions, and tells
 * them of their devices. In dom0 and in a driver domain alike.
 *
 * A guest that writes without end is looked at 20 times a second, no more; its
 * events are one mark, however many they are.
 */
#ifndef XEN_H
#define XEN_H

#include <stdbool.h>
#include <stddef.h>

#include "gateway/config.h"
#include "gateway/sessions.h"
#include "vchan-transport/exit_status.h"

struct loop;
struct registry;
struct store;
struct wants;
struct xen;

/*
 * 0 or -errno; all that is given stays borrowed. Sessions that outlived a
 * manager are taken up.
 */
int xen_new(struct loop *loop, struct store *store, const struct config *config,
	    struct sessions *sessions, struct registry *registry,
	    struct xen **ret_xen);
/* Sessions live on; before `sessions` goes. NULL is fine. */
void xen_free(struct xen *xen);
/* Guests and devices that no rule names any more lose what they have. */
void xen_set_config(struct xen *xen, const struct config *config);
/* A watch of the store has fired: its token. Those of others are left alone. */
void xen_on_watch(struct xen *xen, const char *token);
/* Something was plugged in, unplugged, taken or given back. */
void xen_devices_changed(struct xen *xen);
/* The gateway stops: revokes every link, so that guests are told. */
void xen_stop(struct xen *xen);

/* ---- for the administrator (admin.h) and what he asked for (wants.h) ---- */

struct xen_guest {
	unsigned domid;
	char name[64];
	char uuid[40];
	bool is_held;
};

/* By number, name or UUID: 0, or -ENOENT. */
int xen_find_guest(const struct xen *xen, const char *domain,
		   struct xen_guest *ret_guest);
/* The i-th one served: 0, or -ENOENT. */
int xen_guest_at(const struct xen *xen, size_t i, struct xen_guest *ret_guest);

/* Once: how it went, in words. */
typedef void xen_done_cb(void *arg, enum exit_status status, const char *text);
/* 0, or -ENOENT without a call. */
int xen_hold(struct xen *xen, const char *domain, xen_done_cb *on_done,
	     void *arg);
int xen_resume(struct xen *xen, const char *domain, xen_done_cb *on_done,
	       void *arg);
/* The asker is gone: nobody is to be told. */
void xen_forget_asker(struct xen *xen, void *arg);

/* What guests are to have; lives as long as xen. */
struct wants *xen_wants(struct xen *xen);
/* Ends what the guest has of that device: how many sessions were told to. */
unsigned xen_revoke(struct xen *xen, unsigned domid, const char *busid);

#endif
