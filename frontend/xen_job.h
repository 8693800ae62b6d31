/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_job.h - one piece of work of the agent in a Xen guest, in a process of
 * its own, since each of them waits for a gateway or for the kernel:
 *
 *	--job=attach GATEWAY BUSID		as `xusbip attach` does it
 *	--job=restore GATEWAY BUSID VENDOR:PRODUCT	found again by these
 *	--job=detach GATEWAY PORT BUSID		if it is still that device's
 *	--job=hold DOMID NAME			all that came from the gateway
 *
 * Its answer is one line on standard output, the port or why not, and its exit
 * status. A job that is told to end undoes what it has not finished.
 */
#ifndef XEN_JOB_H
#define XEN_JOB_H

#include "vchan-transport/failure.h"

/* The process ends itself after that. */
#define XEN_JOB_LIMIT_S 60u

/* `words` are what follows --job=VERB. */
enum exit_status xen_job_run(const char *verb, int num_words, char **words);

#endif
