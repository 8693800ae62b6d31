/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry.h - the devices that this gateway can hand out: those of this
 * machine, found through libudev and read from sysfs without opening them, and
 * the virtual ones of the configuration. Who uses them is kept by claim.h.
 */
#ifndef REGISTRY_H
#define REGISTRY_H

#include <stdbool.h>

#include "gateway/config.h"
#include "gateway/ipc.h"
#include "gateway/policy.h"

struct loop;
struct registry;

/*
 * Borrows the configuration until registry_set_config or registry_free. Also
 * logs what is plugged in and unplugged; where that cannot be watched it says
 * so and goes on. Without a loop nothing is watched.
 */
int registry_new(struct loop *loop, const struct config *config,
		 struct registry **ret_registry);
/* NULL is fine. */
void registry_free(struct registry *registry);

void registry_set_config(struct registry *registry,
			 const struct config *config);

/*
 * Tells when a list that was read before may be another one now: something was
 * plugged in or out, or opened. That it was given back the registry cannot see.
 */
typedef void registry_change_cb(void *arg);
void registry_on_change(struct registry *registry,
			registry_change_cb *on_change, void *arg);

/*
 * Calls `each` with an IPC_DEVICE for every device that the rules give to this
 * peer, until it returns an error, which is passed on.
 */
typedef int registry_cb(void *arg, const struct ipc_answer *answer);
int registry_list(struct registry *registry, const struct policy_peer *peer,
		  registry_cb *each, void *arg);

/*
 * Would this peer still get the device that it has, by the configuration as it
 * is now? One that is gone is given: its session ends by itself.
 */
bool registry_is_given(struct registry *registry, const char *busid,
		       const struct policy_peer *peer);

/* What rules see of a device of this machine; 0 or -ENOENT. */
int registry_find(struct registry *registry, const char *busid,
		  struct policy_device *ret_device);

/*
 * Opens a device for a session: 0 with IPC_OPENED in *ret_answer, its
 * descriptor (or -1) and its claim, both the caller's; or -errno with
 * IPC_REFUSED, whose reason is for the log.
 */
int registry_open(struct registry *registry, const char *busid,
		  const struct policy_peer *peer, struct ipc_answer *ret_answer,
		  int *ret_device_fd, int *ret_lock_fd);

#endif
