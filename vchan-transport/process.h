/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - what a process does that goes on without its terminal, and
 * messages of one struct between processes of ours, over pipes.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Leaves terminal, session and folder, puts /dev/null in place of the standard
 * descriptors, and closes every other one that is not in `keep` (none below 3).
 * `name` is what ps shows, at most 15 bytes.
 */
void process_detach(const char *name, const int *keep, size_t num_keep);

/*
 * One message of fixed size, at most PIPE_BUF, so it is there whole or not at
 * all. Receiving: 1, 0 at the other side's end, -ETIMEDOUT, or -errno.
 */
int process_send(int fd, const void *message, size_t bytes);
int process_receive(int fd, void *message, size_t bytes, uint64_t deadline_ms);

/* Sleeps until the other side's end or the deadline; true for the end. */
bool process_has_ended(int fd, uint64_t deadline_ms);

#endif
