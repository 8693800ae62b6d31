/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_gateway.h - one gateway as the agent of a Xen guest sees it: what it
 * wants the guest to attach and when it wants it to hold still
 * (docs/protocol.md, "Guests"), and what the agent has done about it.
 *
 * Two lists of tasks: wants, each as long as its node is there, and devices to
 * be taken back, each until it is attached again or cannot be. Whatever waits
 * is done by a job (job_run.h). All that is read may be hostile: it is words
 * of handshake.h or nothing, and however often it changes, there are 16 jobs
 * at most, and a second between two of one task, or of holding.
 */
#ifndef XEN_GATEWAY_H
#define XEN_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct handshake_word;
struct store;
struct xen_gateway;

/* Nothing more will happen by itself. */
#define XEN_GATEWAY_NEVER UINT64_MAX

int xen_gateway_new(struct store *store, unsigned own, unsigned gateway,
		    bool is_debug, struct xen_gateway **ret_gateway);
/* Ends its jobs; attachments stay. NULL is fine. */
void xen_gateway_free(struct xen_gateway *gateway);

unsigned xen_gateway_domid(const struct xen_gateway *gateway);
/* By its number, or by its name, as an address has it behind "xen:". */
bool xen_gateway_is_called(const struct xen_gateway *gateway,
			   const char *domain);

/*
 * Something in its folder may have changed: reads all of it. 0 or -errno: then
 * what it wanted it still wants, and it needs another look.
 */
int xen_gateway_look(struct xen_gateway *gateway);
bool xen_gateway_needs_look(const struct xen_gateway *gateway);

/* HANDSHAKE_NONE if none is there: 0; -errno if that is not known. */
int xen_gateway_read_word(struct store *store, const char *path,
			  struct handshake_word *ret_word);

/* The guest is to hold still, whatever this gateway says, or no more. */
void xen_gateway_set_held(struct xen_gateway *gateway, bool is_held);
/* Its hold is for others, too, who have not let go yet: it is not answered. */
void xen_gateway_set_waiting(struct xen_gateway *gateway, bool is_waiting);
/* May it give something now, or no more, since this was asked last? */
bool xen_gateway_take_news(struct xen_gateway *gateway);
/* Does the guest hold still for it, or is it to? */
bool xen_gateway_holds(const struct xen_gateway *gateway);
/* Is that the gateway's own word? */
bool xen_gateway_says_hold(const struct xen_gateway *gateway);
/* Has it let go of everything, or, if it is not held, tried to take it back? */
bool xen_gateway_has_settled(const struct xen_gateway *gateway);

/*
 * Does what is due: when, of clock_ms(), to call it again. To be called after
 * each of the others.
 */
uint64_t xen_gateway_step(struct xen_gateway *gateway);

/* A device has left this kernel: perhaps one of those attached. */
void xen_gateway_suspect(struct xen_gateway *gateway);

/* One of the agent's processes has ended; false if it is none of its jobs. */
bool xen_gateway_on_child(struct xen_gateway *gateway, pid_t pid, int status);

#endif
