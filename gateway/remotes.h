/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remotes.h - the devices of other gateways, as the manager passes them on: what
 * they list, and opening one. Dialers (dial.h) ask; this judges what they
 * report by this gateway's own rules, and remembers a list for a moment.
 *
 * Answers come later, in the words of ipc.h. Whoever asks can take the question
 * back; everything has a limit of time and of number.
 */
#ifndef REMOTES_H
#define REMOTES_H

#include <stdbool.h>
#include <stddef.h>

#include "gateway/config.h"
#include "gateway/ipc.h"
#include "gateway/policy.h"

/* Gateways that a question may go through. */
#define REMOTES_MAX_HOPS 4
/* Of one gateway; what it lists beyond is left out. */
#define REMOTES_MAX_DEVICES 256

struct loop;
struct remotes;
struct remotes_question;

struct remotes_options {
	struct loop *loop;
	const struct config *config; /* until remotes_set_config */
	bool is_debug;
	void (*on_change)(void *arg); /* another list than the last one */
	void *arg;
};

/* Who asks for what. */
struct remotes_asked {
	struct policy_peer peer;
	char busid[USBIP_BUSID_BYTES]; /* remotes_open */
	size_t room;                   /* remotes_list: for so many devices */
	unsigned hops;                 /* gateways behind the peer */
};

/*
 * An answer. The question is no more once IPC_END, IPC_OPENED or IPC_REFUSED is
 * told, and may be taken back at no other answer. The descriptors of IPC_OPENED
 * stay the teller's, who closes them.
 */
typedef void remotes_answer_cb(void *arg, const struct ipc_answer *answer,
			       int device_fd, int lock_fd);

int remotes_new(const struct remotes_options *options,
		struct remotes **ret_remotes);
/* Devices in use go on; questions are forgotten. NULL is fine. */
void remotes_free(struct remotes *remotes);
void remotes_set_config(struct remotes *remotes, const struct config *config);

/*
 * Asks all of them: IPC_DEVICE for each device that the rules give to the peer,
 * then IPC_END; a gateway that does not answer in time is left out. It may all
 * be told before this returns. 0, or -ENOMEM and nothing is told.
 */
int remotes_list(struct remotes *remotes, const struct remotes_asked *asked,
		 remotes_answer_cb *on_answer, void *arg,
		 struct remotes_question **ret_question);

/* Opens a device (remote_name_is_one): IPC_OPENED or IPC_REFUSED, as above. */
int remotes_open(struct remotes *remotes, const struct remotes_asked *asked,
		 remotes_answer_cb *on_answer, void *arg,
		 struct remotes_question **ret_question);

/* Nothing more is told. NULL is fine. */
void remotes_cancel(struct remotes_question *question);

/*
 * Would this peer still get the device that it has, by the rules as they are
 * now? One that is not in use any more, or that an earlier manager has opened,
 * is given.
 */
bool remotes_is_given(const struct remotes *remotes, const char *busid,
		      const struct policy_peer *peer);

#endif
