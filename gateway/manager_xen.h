/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manager_xen.h - the manager among domains: its one connection to xenstore,
 * whose events it hands to those who asked for them, and what hangs on it: the
 * pairs (pairs.h) in dom0, the guests (xen.h) and the administrator's socket
 * (admin.h) where this domain is a gateway.
 */
#ifndef MANAGER_XEN_H
#define MANAGER_XEN_H

#include <stdbool.h>

#include "gateway/config.h"

struct loop;
struct manager_xen;
struct registry;
struct sessions;

struct manager_xen_options {
	struct loop *loop;
	const struct config *config;
	bool has_pairs_only; /* no gateway: the rest is NULL */
	struct sessions *sessions;
	struct registry *registry;
	/* xenstored has hung up: nothing of this works any more. */
	void (*on_lost)(void *arg);
	void *arg;
};

/* 0, or -errno, which has been logged; what is given stays borrowed. */
int manager_xen_open(const struct manager_xen_options *options,
		     struct manager_xen **ret_xen);
/* Sessions live on, and so do the folders that they need. NULL is fine. */
void manager_xen_close(struct manager_xen *xen);

/* Each of these: NULL is fine. */
void manager_xen_set_config(struct manager_xen *xen,
			    const struct config *config);
/* Something was plugged in, unplugged, taken or given back. */
void manager_xen_devices_changed(struct manager_xen *xen);
/* The gateway stops: guests are told. */
void manager_xen_stop(struct manager_xen *xen);
/* It has stopped, in order: folders that nobody needs any more go. */
void manager_xen_clean(struct manager_xen *xen);

#endif
