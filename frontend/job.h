/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.h - the agent's side of job_run.h: starts this program anew for one
 * piece of work, and reads what came of it.
 */
#ifndef JOB_H
#define JOB_H

#include <stdbool.h>
#include <sys/types.h>

#include "vchan-transport/exit_status.h"

#define JOB_MAX_WORDS  6
#define JOB_TEXT_BYTES 512

/* Owned by who started it, until job_end or job_forget. pid 0: none. */
struct job {
	pid_t pid;
	int fd; /* its standard output */
};

/* `words` end with a NULL. 0 or -errno. */
int job_start(struct job *job, const char *verb, const char *const *words,
	      bool is_debug);
/* It has ended, with that status of waitpid: its line, its exit status. */
enum exit_status job_end(struct job *job, int status,
			 char ret_text[static JOB_TEXT_BYTES]);
/* Tells it to undo what it does; its end is still to come. */
void job_cancel(const struct job *job);
/* Cancels it and has it ended: its end is not told any more. */
void job_forget(struct job *job);

#endif
