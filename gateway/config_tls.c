/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/config_tls.h"

#include <stdio.h>
#include <string.h>

#include "vchan-transport/log.h"

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

bool config_has_tls(const struct config *config)
{
	for (size_t i = 0; i < config->num_listen; i++) {
		if (config->listen[i].kind == ADDRESS_TLS)
			return true;
	}
	return false;
}

/* Has an earlier remote the same folder? */
static bool is_told(const struct config *config, size_t remote)
{
	const char *dir = config->remotes[remote].tls_dir;

	for (size_t i = 0; i < remote; i++) {
		if (config->remotes[i].address.kind == ADDRESS_TLS &&
		    strcmp(config->remotes[i].tls_dir, dir) == 0)
			return true;
	}
	return false;
}

/* Where listeners have the same folder, its crl.pem has been told of. */
static void warn_of_remote(const struct config *config, const char *dir)
{
	char why[CHANNEL_WHY_BYTES];

	if (!config_has_tls(config) || strcmp(dir, config->tls_dir) != 0)
		tls_warn_of_ends(TLS_CLIENT, dir);
	else if (tls_certificate_ends_soon(TLS_CLIENT, dir, why))
		log_warn("%s", why);
}

void config_warn_tls(const struct config *config)
{
	if (config_has_tls(config))
		tls_warn_of_ends(TLS_GATEWAY, config->tls_dir);
	for (size_t i = 0; i < config->num_remotes; i++) {
		if (config->remotes[i].address.kind == ADDRESS_TLS &&
		    !is_told(config, i))
			warn_of_remote(config, config->remotes[i].tls_dir);
	}
}
