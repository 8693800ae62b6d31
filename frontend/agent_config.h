/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_config.h - xusbip-frontend.conf(5): read whole or refused whole.
 */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "vchan-transport/address.h"

#define AGENT_MAX_LISTENERS 8
#define AGENT_MAX_GATEWAYS  16
#define AGENT_WHY_BYTES     256

struct agent_config {
	size_t num_listen;
	struct address listen[AGENT_MAX_LISTENERS]; /* tcp: only */
	size_t num_gateways;
	struct address gateways[AGENT_MAX_GATEWAYS];
	unsigned max_connections;
	bool allow_remote;
};

/*
 * Returns 0, or -EINVAL or another -errno with the reason, its line included,
 * in `why`. `ret_config` is untouched then.
 */
int agent_config_load(const char *path, struct agent_config *ret_config,
		      char why[static AGENT_WHY_BYTES]);

#endif
