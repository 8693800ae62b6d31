/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/manager_xen.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/admin.h"
#include "gateway/pairs.h"
#include "gateway/xen.h"
#include "gateway/xen_check.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/store.h"

/* In one turn of the loop, so that the others have theirs. */
#define MAX_EVENTS 64
/* A hang-up that no event tells. */
#define ALIVE_EVERY_MS 5000

struct manager_xen {
	struct manager_xen_options options;
	struct store *store;
	struct loop_watch *watch;
	struct loop_timer *timer;
	struct pairs *pairs; /* NULL: not dom0 */
	struct xen *xen;     /* NULL: no gateway */
	struct admin *admin;
};

/* ---- events ---- */

static void lose(struct manager_xen *x)
{
	loop_watch_stop(x->watch);
	x->watch = NULL;
	loop_timer_stop(x->timer);
	x->timer = NULL;
	log_error("xenstore: the connection is lost: xenstored has ended; this "
		  "process has to be started anew");
	x->options.on_lost(x->options.arg);
}

static void on_store(void *arg, short revents)
{
	struct manager_xen *x = arg;
	char token[STORE_TOKEN_BYTES];
	int r = 1;

	(void)revents;
	for (unsigned i = 0; i < MAX_EVENTS; i++) {
		r = store_next_event(x->store, token);
		if (r <= 0)
			break;
		if (x->pairs)
			pairs_on_watch(x->pairs, token);
		if (x->xen)
			xen_on_watch(x->xen, token);
	}
	if (r < 0)
		lose(x);
}

static void on_alive_time(void *arg)
{
	struct manager_xen *x = arg;

	if (store_domid(x->store) == -ECONNRESET)
		lose(x);
}

/* ---- life ---- */

static int open_store(struct manager_xen *x, unsigned *ret_domid)
{
	int r = store_open(&x->store);

	if (r == 0)
		r = store_domid(x->store);
	if (r == -ENODEV)
		log_error("xenstore: this machine has none: it is no domain of "
			  "a Xen, or xenstored does not run, or "
			  "/dev/xen/xenbus is missing; start what is missing, "
			  "or say xen = false");
	else if (r < 0)
		log_error("xenstore: %s", strerror(-r));
	if (r < 0)
		return r;
	*ret_domid = (unsigned)r;
	return 0;
}

static int open_gateway(struct manager_xen *x)
{
	const struct manager_xen_options *o = &x->options;
	char why[XEN_CHECK_WHY_BYTES];
	int r;

	if (xen_check("", o->config->vchan_ring_bytes, why) < 0)
		log_warn("%s", why);
	r = xen_new(o->loop, x->store, o->config, o->sessions, o->registry,
		    &x->xen);

	if (r < 0) {
		log_error("guests cannot be served: %s", strerror(-r));
		return r;
	}
	r = admin_open(o->loop, o->config, x->xen, xen_wants(x->xen),
		       &x->admin);
	if (r < 0)
		log_error("%s/admin.sock: %s", o->config->runtime_dir,
			  strerror(-r));
	return r;
}

static int start(struct manager_xen *x)
{
	const struct manager_xen_options *o = &x->options;
	unsigned domid = 0;
	int r = open_store(x, &domid);

	if (r < 0)
		return r;
	if (o->has_pairs_only && domid != 0) {
		log_error("--manager is for dom0, and this is domain %u: start "
			  "xusbip-gateway without it",
			  domid);
		return -EPERM;
	}
	r = loop_watch_fd(o->loop, store_fd(x->store), POLLIN, on_store, x,
			  &x->watch);
	if (r == 0)
		r = loop_timer_start(o->loop, ALIVE_EVERY_MS, ALIVE_EVERY_MS,
				     on_alive_time, x, &x->timer);
	if (r == 0 && domid == 0)
		r = pairs_new(o->loop, x->store, o->config, !o->has_pairs_only,
			      &x->pairs);
	if (r < 0) {
		log_error("xenstore: domains cannot be watched: %s",
			  strerror(-r));
		return r;
	}
	return o->has_pairs_only ? 0 : open_gateway(x);
}

int manager_xen_open(const struct manager_xen_options *options,
		     struct manager_xen **ret_xen)
{
	struct manager_xen *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return -ENOMEM;
	x->options = *options;
	r = start(x);
	if (r < 0) {
		manager_xen_close(x);
		return r;
	}
	*ret_xen = x;
	return 0;
}

void manager_xen_close(struct manager_xen *xen)
{
	if (!xen)
		return;
	admin_close(xen->admin);
	xen_free(xen->xen);
	pairs_free(xen->pairs);
	loop_timer_stop(xen->timer);
	loop_watch_stop(xen->watch);
	store_close(xen->store);
	free(xen);
}

/* ---- what the manager tells ---- */

void manager_xen_set_config(struct manager_xen *xen,
			    const struct config *config)
{
	if (!xen)
		return;
	xen->options.config = config;
	if (xen->pairs)
		pairs_set_config(xen->pairs, config);
	if (xen->xen)
		xen_set_config(xen->xen, config);
}

void manager_xen_devices_changed(struct manager_xen *xen)
{
	if (xen && xen->xen)
		xen_devices_changed(xen->xen);
}

void manager_xen_stop(struct manager_xen *xen)
{
	if (xen && xen->xen)
		xen_stop(xen->xen);
}

void manager_xen_clean(struct manager_xen *xen)
{
	if (xen && xen->pairs)
		pairs_remove_unused(xen->pairs);
}
