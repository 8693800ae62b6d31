/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_config.h - xusbip-frontend.conf(5): read whole or refused whole; and
 * the files of what is to stay attached, in the same words (wish.h).
 */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "frontend/wish.h"
#include "vchan-transport/address.h"
#include "vchan-transport/tls.h"

#define AGENT_CONFIG_PATH   "/etc/xusbip/frontend.conf"

#define AGENT_MAX_LISTENERS 8
#define AGENT_MAX_GATEWAYS  16
#define AGENT_WHY_BYTES     256

struct agent_config {
	size_t num_listen;
	struct address listen[AGENT_MAX_LISTENERS]; /* tcp: only */
	size_t num_gateways;
	struct address gateways[AGENT_MAX_GATEWAYS];
	bool has_usual_gateways; /* nobody has named them */
	char tls_dir[TLS_DIR_BYTES];
	size_t num_wishes;
	struct wish wishes[WISH_MAX];
	unsigned max_connections;
	bool allow_remote;
};

/*
 * Returns 0, or -EINVAL or another -errno with the reason, its line included,
 * in `why`. `ret_config` is untouched then. Without a file at AGENT_CONFIG_PATH
 * everything is as usual; elsewhere it has to be there.
 */
int agent_config_load(const char *path, struct agent_config *ret_config,
		      char why[static AGENT_WHY_BYTES]);

/* A line in the log for what of its TLS folder ends soon, if it needs one. */
void agent_config_warn_tls(const struct agent_config *config);

/*
 * May that gateway be asked? The usual one only where its socket is: nobody has
 * said that there is one.
 */
bool agent_config_has_gateway(const struct agent_config *config, size_t index);

/*
 * The wish of that file, which has one section, called as the file: 0, or
 * -errno with the reason.
 */
int agent_config_load_wish(const char *path, struct wish *ret_wish,
			   char why[static AGENT_WHY_BYTES]);

#endif
