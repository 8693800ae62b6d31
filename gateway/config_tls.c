/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/config_tls.h"

#include <stdio.h>

static int check_dir(enum tls_role role, const char *dir, const char *what,
		     char why[static CONFIG_WHY_BYTES])
{
	struct tls_context *context;
	char cause[CHANNEL_WHY_BYTES];
	int r = tls_context_new(role, dir, &context, cause);

	if (r < 0) {
		(void)snprintf(why, CONFIG_WHY_BYTES, "%s: %s", what, cause);
		return r;
	}
	tls_context_free(context);
	return 0;
}

int config_check_tls(const struct config *config,
		     char why[static CONFIG_WHY_BYTES])
{
	char what[128];
	int r = 0;

	for (size_t i = 0; i < config->num_listen && r == 0; i++) {
		const struct address *address = &config->listen[i];

		if (address->kind != ADDRESS_TLS)
			continue;
		(void)snprintf(what, sizeof(what), "listen tls:%.100s",
			       address->host);
		r = check_dir(TLS_GATEWAY, config->tls_dir, what, why);
	}
	for (size_t i = 0; i < config->num_remotes && r == 0; i++) {
		const struct config_remote *remote = &config->remotes[i];

		if (remote->address.kind != ADDRESS_TLS)
			continue;
		(void)snprintf(what, sizeof(what), "remote \"%s\"",
			       remote->name);
		r = check_dir(TLS_CLIENT, remote->tls_dir, what, why);
	}
	return r;
}
