/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_tls.h - the certificates and keys that a configuration needs, tried as
 * sessions will read them: better at the start than at the first connection.
 */
#ifndef CONFIG_TLS_H
#define CONFIG_TLS_H

#include "gateway/config.h"

/*
 * 0, or -ENOKEY with words that name the file. Nothing of a key is left in
 * memory.
 */
int config_check_tls(const struct config *config,
		     char why[static CONFIG_WHY_BYTES]);

/* Does it listen for TLS? */
bool config_has_tls(const struct config *config);

/* A line in the log for each of the certificates that ends soon. */
void config_warn_tls(const struct config *config);

#endif
