/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_checks.h - config.c's judgement of each value of the gateway's
 * configuration, given while libconfuse knows the line that it stands in.
 */
#ifndef CONFIG_CHECKS_H
#define CONFIG_CHECKS_H

#include <stdbool.h>
#include <sys/types.h>

#include "vchan-transport/address.h"

struct cfg_t;

/* The list "domains" of a section without one: an empty one can be told from it. */
#define CONFIG_NO_DOMAINS "{ \"\t\" }"

/* Every check, for the options that it is for. */
void config_checks_set(struct cfg_t *cfg);

/* Does the section say domains = { ... }? */
bool config_has_domains(struct cfg_t *section);
/* "0660" and the like. */
bool config_parse_mode(const char *text, mode_t *ret_mode);
/* "any" stands for the CID that a listener has for every caller. */
int config_parse_listen(const char *text, struct address *ret_address,
			const char **ret_why);

#endif
