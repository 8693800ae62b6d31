/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.h - one domain that the gateway serves: the machine of guest_fsm.def,
 * its channels, and what is written in its folder (docs/protocol.md, "Guests").
 * xen.c finds guests and tells them when to look.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/config.h"
#include "gateway/guest_fsm.h"
#include "gateway/sessions.h"
#include "gateway/wants.h"
#include "gateway/xen.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/store.h"

/* As many names of a folder as are looked at. */
#define GUEST_MAX_NAMES 1024

/* How long an agent may take to let go, and to take back. */
#define GUEST_HOLDING_MS  20000
#define GUEST_RESUMING_MS 60000
/* A guest is looked at no more often than this. */
#define GUEST_LOOK_MS 50

struct guest;

/* What guests share; of xen.c. */
struct guest_env {
	struct loop *loop;
	struct store *store;
	struct sessions *sessions;
	struct registry *registry;
	struct wants *wants;
	const struct config *config;
	char runtime_dir[80];
	char state_dir[80];
	unsigned gateway; /* this domain */
	bool is_stopping;
	uint32_t devices_number; /* of the list as it is now */
	/* One is not served any more: who is there instead? */
	void (*left)(void *arg);
	void *arg;
	/* For whoever lists a folder, until the next one does. */
	char names[GUEST_MAX_NAMES][STORE_NAME_BYTES];
};

int guest_new(struct guest_env *env, unsigned domid, struct guest **ret_guest);
/* Its sessions live on.  NULL is fine. */
void guest_free(struct guest *guest);

/* Reads who it is, and whether it is there. */
void guest_check(struct guest *guest);
/* Something in its folder may have changed: it will be looked at. */
void guest_mark(struct guest *guest);
/* What no event tells. */
void guest_poll(struct guest *guest);
/* The list of devices may have changed. */
void guest_say_devices(struct guest *guest);
/* After a new configuration. */
void guest_apply_config(struct guest *guest);

unsigned guest_domid(const struct guest *guest);
/* Neither there nor anything left of it. */
bool guest_is_absent(const struct guest *guest);
/* Who it is, while it is served. */
bool guest_is_served(const struct guest *guest, struct xen_guest *ret_guest);

/* See xen_hold. */
int guest_hold(struct guest *guest, xen_done_cb *on_done, void *arg);
int guest_resume(struct guest *guest, xen_done_cb *on_done, void *arg);
void guest_forget_asker(struct guest *guest, const void *arg);

/* Ends what it has of that device: how many sessions were told to. */
unsigned guest_revoke(struct guest *guest, const char *busid);
/* The gateway stops. */
void guest_stop(struct guest *guest);

#endif
