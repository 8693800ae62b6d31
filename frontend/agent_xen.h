/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_xen.h - the agent in a Xen guest: hears in xenstore which gateways
 * there are, what each wants (xen_gateway.h), and whether the guest itself is
 * to hold still (xusbip quiesce). It looks 20 times a second at most, however
 * much is written. After save and restore the domain may have another number:
 * then everything is read anew.
 */
#ifndef AGENT_XEN_H
#define AGENT_XEN_H

#include <stdbool.h>
#include <sys/types.h>

struct address;
struct agent_xen;
struct loop;

struct agent_xen_events {
	/* xenstored is gone: nothing more will come of it. */
	void (*on_lost)(void *arg);
	/* The devices of a gateway have changed, or whether it may be used. */
	void (*on_news)(void *arg);
	void *arg;
};

/* 0, -ENODEV where there is no Xen, or -errno. */
int agent_xen_new(struct loop *loop, bool is_debug,
		  const struct agent_xen_events *events,
		  struct agent_xen **ret_xen);
/* After the loop; attachments stay. NULL is fine, as below. */
void agent_xen_free(struct agent_xen *xen);

/* One of the agent's processes has ended: was it one of these? */
bool agent_xen_on_child(struct agent_xen *xen, pid_t pid, int status);
/*
 * Is nothing of that gateway to be attached now? What the guest itself or dom0
 * says is for all of them: no port may be in use when it is saved. Any other
 * gateway holds what is its own.
 */
bool agent_xen_holds(struct agent_xen *xen, const struct address *gateway);
/* A USB device has left this kernel. */
void agent_xen_on_removal(struct agent_xen *xen);

#endif
