/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why something was not done: the exit status and one line of words, filled
 * where it happened and shown once, by whoever has a user or a log. The words
 * name what failed, on what, why, and what to do next; they may hold a peer's
 * bytes and are escaped where they are shown (log.h does).
 */
#ifndef FAILURE_H
#define FAILURE_H

#include "vchan-transport/exit_status.h"

struct failure {
	enum exit_status status;
	char text[448];
};

/* Fills it and returns the status, so that "return failure_set(...)" works. */
enum exit_status failure_set(struct failure *failure, enum exit_status status,
			     const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
