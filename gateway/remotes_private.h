/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remotes_private.h - what remotes.c (the gateways, questions and their end),
 * remotes_list.c and remotes_open.c share, and nobody else.
 */
#ifndef REMOTES_PRIVATE_H
#define REMOTES_PRIVATE_H

#include "gateway/dialers.h"
#include "gateway/remote_name.h"
#include "gateway/remotes.h"
#include "vchan-transport/import.h"

struct remotes_list {
	struct import_entry *entries;
	size_t num;
	size_t cap;
	bool is_cut;
};

/* One of the configuration; kept while a call needs it. */
struct remote {
	struct remote *next;
	struct config_remote config;
	bool is_retired; /* the configuration has it no more */
	/* What it listed last; nothing if it did not answer. */
	struct remotes_list list;
	uint64_t listed_ms;
	unsigned listed_hops; /* of whom it was asked for */
	bool has_listed;
	unsigned num_listing; /* calls that ask for its list */
};

/* One dialer, asking or carrying. Owned by the list. */
struct remote_call {
	struct remote_call *next;
	struct remotes *remotes;
	struct remote *remote;
	struct dialer *dialer;
	struct remotes_question *question; /* NULL: it carries a device */
	struct remotes_list list;          /* as far as it is told */
	struct policy_device policy;       /* of the device that it carries */
};

struct remotes_question {
	struct remotes_question *next;
	struct remotes *remotes;
	struct remotes_asked asked;
	remotes_answer_cb *on_answer;
	void *arg;
	struct loop_timer *limit;
	bool is_list;
	uint64_t asked_ms;
	unsigned num_waiting; /* calls of it */
	int lock_fd;          /* of a device that is being opened */
};

struct remotes {
	struct remotes_options options;
	struct dialers *dialers;
	struct remote *remotes;
	struct remote_call *calls;
	struct remotes_question *questions;
};

/* Is there a rule that could give the peer any device of this gateway? */
bool remotes_may_give(const struct remotes *remotes,
		      const struct remote *remote,
		      const struct policy_peer *peer);
struct policy_verdict remotes_judge(const struct remotes *remotes,
				    const struct policy_device *device,
				    const struct policy_peer *peer);

/* As the device is shown here, under the bus id that *device has already. */
void remotes_show(struct usbip_device *device,
		  const struct usbip_device *reported);

_Static_assert(CONFIG_REMOTE_NAME_BYTES == POLICY_REMOTE_BYTES,
	       "a remote's name is the same to the rules");

int remotes_ask(struct remotes *remotes, const struct remotes_asked *asked,
		remotes_answer_cb *on_answer, void *arg,
		struct remotes_question **ret_question);
/* Stops its calls and frees it. */
void remotes_drop(struct remotes_question *question);
int remotes_set_limit(struct remotes_question *question, unsigned limit_ms,
		      void (*on_limit)(void *arg));

int remotes_call(struct remotes_question *question, struct remote *remote,
		 const struct dialers_call *call, dialers_cb *on_packet);
/* The dialer is stopped if it is still there. */
void remotes_end_call(struct remote_call *call);

void remotes_free_list(struct remotes_list *list);

#endif
