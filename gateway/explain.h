/* SPDX-License-Identifier: Apache-2.0 */
/*
 * explain.h - xusbip-gateway --explain: which rule decides whether somebody gets
 * a device, said for a person or as JSON. It asks the rules that the manager
 * asks, of the file as it is now.
 */
#ifndef EXPLAIN_H
#define EXPLAIN_H

#include <stdbool.h>

#include "gateway/config.h"
#include "vchan-transport/exit_status.h"

struct explain_options {
	const char *config_path;
	const char *peer; /* "tls:NAME", "xen:NAME", "user:NAME", "tcp", … */
	const char *device; /* a bus id, as in a list */
	bool is_json;
	bool is_verbose; /* each rule that was asked */
};

/*
 * EXIT_OK: it is given, EXIT_NOT_ALLOWED: it is not, EXIT_FAILED: that depends
 * on what a remote tells of it, EXIT_NO_DEVICE, EXIT_USAGE.
 */
enum exit_status explain_run(const struct config *config,
			     const struct explain_options *options);

#endif
