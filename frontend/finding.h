/* SPDX-License-Identifier: Apache-2.0 */
/*
 * finding.h - the gateways that this machine knows of: those that the agent's
 * configuration names, those that give what is to stay attached, the domains
 * that serve this guest of Xen, and those that announce themselves in the local
 * network. Of the latter anybody may say anything: it is an address or
 * nothing, and whoever is behind it has to prove itself as ever.
 */
#ifndef FINDING_H
#define FINDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vchan-transport/address.h"
#include "vchan-transport/tls.h"

#define FINDING_MAX 96

struct found_gateway {
	struct address address;
	char name[ADDRESS_TEXT_CAP];
	char pin[TLS_PIN_TEXT_BYTES]; /* empty: none */
};

struct finding {
	size_t count;
	struct found_gateway gateways[FINDING_MAX]; /* each address once */
	char tls_dir[TLS_DIR_BYTES];                /* as it is configured */
};

/* Within 3 seconds. */
void finding_run(struct finding *ret_finding);

/* Adds what a line of `avahi-browse -p` announces, if it announces anything. */
void finding_add_announced(struct finding *finding, char *line);

#endif
