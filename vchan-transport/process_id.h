/* SPDX-License-Identifier: Apache-2.0 */
/* process_id.h - which process a number means, for notes that outlive it. */
#ifndef PROCESS_ID_H
#define PROCESS_ID_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * When it was started, in a unit of the kernel's: it tells processes apart that
 * have had the same number. 0: there is none, or it cannot be read.
 */
uint64_t process_started_at(pid_t pid);

/*
 * A pidfd, the caller's, of the process that was started then: 0; -ESRCH if it
 * has ended, also where nobody has waited for it yet; -errno: nobody can tell.
 */
int process_open(pid_t pid, uint64_t started_at, int *ret_pidfd);
/* False as well where nobody can tell whether it still is that process. */
bool process_is_over(pid_t pid, uint64_t started_at);

#endif
