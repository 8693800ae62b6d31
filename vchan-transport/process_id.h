/* SPDX-License-Identifier: Apache-2.0 */
/* process_id.h - which process a number means, for notes that outlive it. */
#ifndef PROCESS_ID_H
#define PROCESS_ID_H

#include <stdint.h>
#include <sys/types.h>

/*
 * When it was started, in a unit of the kernel's: it tells processes apart that
 * have had the same number. 0: there is none.
 */
uint64_t process_started_at(pid_t pid);

#endif
