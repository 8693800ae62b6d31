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

#define CONFIG_NAME_CHARS \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

/* Every check, for the options that it is for. */
void config_checks_set(struct cfg_t *cfg);

/* A section begins: libconfuse will know but the line where it ends. */
void config_note_section(const struct cfg_t *section);
unsigned config_line_of(const struct cfg_t *section);

/* What Xen's tools call domains; nothing in it needs escaping in a log. */
bool config_is_domain(const char *text);
/* "0660" and the like. */
bool config_parse_mode(const char *text, mode_t *ret_mode);
/* "any" stands for the CID that a listener has for every caller. */
int config_parse_listen(const char *text, struct address *ret_address,
			const char **ret_why);

#endif
