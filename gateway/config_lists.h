/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_lists.h - the lists in the sections of the gateway's configuration:
 * whom a section is for, and classes of interfaces.
 */
#ifndef CONFIG_LISTS_H
#define CONFIG_LISTS_H

#include <stdbool.h>
#include <sys/types.h>

#include "gateway/policy.h"

struct cfg_t;

/* A list that is not in the file: an empty one can be told from it. */
#define CONFIG_NOT_GIVEN "{ \"\t\" }"

/* Every check of an entry, for the lists of this section. */
void config_lists_set(struct cfg_t *cfg, const char *section);

/* What libconfuse cannot see: 0, or -1 for a list that is given but empty. */
int config_lists_check(struct cfg_t *cfg, struct cfg_t *section);

/* By name or number, which somebody need not have. */
bool config_find_user(const char *text, uid_t *ret_uid);

bool config_has_list(struct cfg_t *section, const char *name);

/*
 * They copy what was checked. -EINVAL: a user whom the check found is gone.
 * A list that the section cannot have stays empty.
 */
int config_read_audience(struct cfg_t *section,
			 struct policy_audience *audience);
void config_read_names(struct cfg_t *section, const char *list,
		       struct policy_names *names);
void config_read_patterns(struct cfg_t *section, const char *list,
			  struct policy_patterns *patterns);

#endif
