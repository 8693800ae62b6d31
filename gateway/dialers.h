/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dialers.h - the manager's dialer processes (dial.h): starts them, hears what
 * they report and that they end. What is asked of whom is for the caller.
 */
#ifndef DIALERS_H
#define DIALERS_H

#include <stdbool.h>

#include "gateway/config.h"
#include "gateway/dial.h"

/* At once: those that ask, and those that carry a device's bytes. */
#define DIALERS_MAX 64

struct dialer;
struct dialers;
struct loop;

struct dialers_call {
	const struct config_remote *remote;
	const char *busid; /* there; "": the list is asked for */
	unsigned hops;     /* gateways behind this question, this one counted */
	unsigned limit_ms; /* for the answer */
};

/*
 * One packet, or NULL: it has ended, and is no more after the call. Called from
 * the loop, never from within dialers_start. It may be stopped meanwhile.
 */
typedef void dialers_cb(void *arg, const struct dial_packet *packet);

int dialers_new(struct loop *loop, bool is_debug, struct dialers **ret_dialers);
/*
 * Forgets them: those that carry a device go on, the others end. Nobody is told.
 * NULL is fine.
 */
void dialers_free(struct dialers *dialers);

/* 0, -EAGAIN if there are DIALERS_MAX, or -errno. */
int dialers_start(struct dialers *dialers, const struct dialers_call *call,
		  dialers_cb *on_packet, void *arg, struct dialer **ret_dialer);
/* Gives it the socket that carries URBs; the descriptor stays the caller's. */
int dialers_go(struct dialer *dialer, int data_fd);
/* Kills it; nobody is told. NULL is fine. */
void dialers_stop(struct dialer *dialer);

#endif
