/* SPDX-License-Identifier: Apache-2.0 */
/*
 * front_link.h - the guest's side of one channel over Xen: the machine of
 * front_fsm.def, with what it reads and writes in xenstore. What it wants of the
 * process that uses the channel its owner does, who also tells it what happened
 * there and when its time is over (warden.c).
 */
#ifndef FRONT_LINK_H
#define FRONT_LINK_H

#include <stdint.h>

#include "vchan-transport/channel.h"
#include "vchan-transport/exit_status.h"
#include "vchan-transport/front_fsm.h"
#include "vchan-transport/handshake.h"

#define FRONT_LINK_NEVER_MS UINT64_MAX

struct front_link;
struct store;

/* None may feed the link. */
struct front_link_ops {
	/* To be mapped at gateway_node; or -errno: it is refused, see reason. */
	void (*offer)(const struct front_link *link, int error);
	/* It is over, for this reason: to be let go of. */
	void (*hang_up)(const struct front_link *link);
	void (*kill)(const struct front_link *link);
};

/* Embedded in its owner. */
struct front_link {
	const struct front_link_ops *ops;
	struct store *store; /* its own; NULL: none, or xenstored has hung up */
	enum front_state state;
	unsigned guest; /* domains */
	unsigned gateway;
	unsigned channel;
	uint64_t epoch;
	uint32_t ring_bytes;
	uint64_t limit_at_ms;            /* of clock_ms(), or never */
	unsigned looks;                  /* since the state was another one */
	int error;                       /* why not, for who asks */
	struct channel_last_word reason; /* and why no more */
	char folder[HANDSHAKE_PATH_BYTES];
	char own_node[HANDSHAKE_PATH_BYTES];
	char gateway_folder[HANDSHAKE_PATH_BYTES];
	char gateway_node[HANDSHAKE_PATH_BYTES];
};

void front_link_init(struct front_link *link, const struct front_link_ops *ops,
		     uint32_t ring_bytes);
/* Which channel it is; before it is fed. */
void front_link_place(struct front_link *link, unsigned guest, unsigned gateway,
		      unsigned channel);

/* Why it is refused or over, if it is next. */
void front_link_set_reason(struct front_link *link, int error,
			   enum exit_status status, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* xenstored has hung up, or (-errno) does not answer as it should. */
void front_link_lose_store(struct front_link *link, int error);

void front_link_feed(struct front_link *link, enum front_stim stim);
/* What the gateway says now is given to each state that it leads to. */
void front_link_review(struct front_link *link);
/* The process could not map what it was offered. */
void front_link_fail(struct front_link *link);
/* The time of `limit_at_ms` has come. */
void front_link_limit(struct front_link *link);

#endif
