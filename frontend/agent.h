/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.h - xusbip-frontend: listens where stock `usbip` asks, and starts a
 * process for each connection (serve.h), to which it pays no further heed: the
 * agent parses nothing of anybody, and its end leaves attachments alone.
 *
 * It also removes the records of attachments that have ended, which the stock
 * tool leaves behind; when it starts, when one of its processes ends, and when
 * a USB device leaves this kernel.
 */
#ifndef AGENT_H
#define AGENT_H

#include <stdbool.h>

#include "vchan-transport/exit_status.h"

struct agent_options {
	const char *config_path;
	bool is_debug;
};

/* Runs until SIGTERM or SIGINT.  SIGHUP reads the configuration anew. */
enum exit_status agent_run(const struct agent_options *options);

#endif
