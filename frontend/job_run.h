/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job_run.h - one piece of work of the agent, in a process of its own, since
 * each of them waits for a gateway or for the kernel:
 *
 *	--job=attach GATEWAY BUSID		as `xusbip attach` does it
 *	--job=restore GATEWAY BUSID VENDOR:PRODUCT	found again by these
 *	--job=detach GATEWAY PORT BUSID		if it is still that device's
 *	--job=hold DOMID NAME			all that came from the gateway
 *	--job=keep WISH				attached, if it is not yet
 *	--job=look WISH				does the gateway have it?
 *
 * WISH is JOB_WISH_WORDS words: NAME GATEWAY PIN BUSID VENDOR:PRODUCT TLS_DIR,
 * those that are not known empty or 0000:0000.
 *
 * Its answer is one line on standard output, and its exit status: why not; of
 * attach and restore the port, of keep the port and the device's number there,
 * of look that number. A job that is told to end undoes what it has not
 * finished.
 */
#ifndef JOB_RUN_H
#define JOB_RUN_H

#include "vchan-transport/failure.h"

#define JOB_WISH_WORDS 6

/* The process ends itself after that. */
#define JOB_RUN_LIMIT_S 60u

/* `words` are what follows --job=VERB. */
enum exit_status job_run(const char *verb, int num_words, char **words);

#endif
