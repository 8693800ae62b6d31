/* SPDX-License-Identifier: Apache-2.0 */
/*
 * turn.h - attachments over Xen are made a few at a time.
 *
 * Whoever attaches waits for one of a few lock files first. When all ports of a
 * guest are attached at the same moment, on a slow machine, each of them has
 * the time that its steps are limited to, and xenstore is not asked for all of
 * them at once.
 */
#ifndef TURN_H
#define TURN_H

#include <stdint.h>

#define TURN_PLACES 4u

/*
 * The descriptor of a lock, to be closed when the next one may go on.
 * -ETIMEDOUT: all were held until the deadline. -errno: there is no lock.
 */
int turn_take(uint64_t deadline_ms);

#endif
