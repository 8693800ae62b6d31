/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standing.h - the agent's devices that are to stay attached: those of the
 * configuration's attach sections, and those that `xusbip attach --persist` has
 * asked for (wish.h). Each is a machine of standing_fsm.def; whatever waits is
 * done by a job (job_run.h), and how each fares is told in standing_note.h.
 * Attachments do not end with the agent: the next one finds them by their
 * records.
 */
#ifndef STANDING_H
#define STANDING_H

#include <stdbool.h>
#include <sys/types.h>

#include "frontend/agent_config.h"

struct loop;
struct standing;

/* May that gateway's devices be attached now? */
typedef bool standing_may_cb(void *arg, const struct address *gateway);

/*
 * 0; -EWOULDBLOCK: another agent keeps what is to stay; -errno. `may` is NULL
 * for always.
 */
int standing_new(struct loop *loop, bool is_debug, standing_may_cb *may,
		 void *arg, struct standing **ret_standing);
/* Before the loop; ends its jobs. NULL is fine, as below. */
void standing_free(struct standing *standing);

/* The configuration was read: what it asks for, and what the files do. */
void standing_configure(struct standing *standing,
			const struct agent_config *config);

/* One of the agent's processes has ended: was it one of these? */
bool standing_on_child(struct standing *standing, pid_t pid, int status);
/* A USB device has left this kernel. */
void standing_on_removal(struct standing *standing);
/* A gateway in another Xen domain has other devices, or may be used or not. */
void standing_on_news(struct standing *standing);

#endif
