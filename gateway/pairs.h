/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pairs.h - which domains may talk: what the manager does in dom0 for gateways,
 * its own and those in other domains. For each pair that the configuration
 * names, and as long as both domains live, it keeps the two folders of
 * docs/protocol.md, "Xenstore", with their rights, and removes what the dead
 * have left in the folders of the living.
 *
 * xenstore's events are hints to look. A look reads every domain anew and
 * compares, so it also finds what no event told, and what a manager before
 * this one has made.
 */
#ifndef PAIRS_H
#define PAIRS_H

#include <stdbool.h>

#include "gateway/config.h"

struct loop;
struct pairs;
struct store;

/*
 * Looks at once. `is_gateway`: this domain is one, too, for those that its rules
 * name. 0 or -errno; what is given stays borrowed.
 */
int pairs_new(struct loop *loop, struct store *store,
	      const struct config *config, bool is_gateway,
	      struct pairs **ret_pairs);
/* The folders stay. NULL is fine. */
void pairs_free(struct pairs *pairs);

/* Folders that it does not name go. */
void pairs_set_config(struct pairs *pairs, const struct config *config);
/* A watch of the store has fired: its token. Those of others are left alone. */
void pairs_on_watch(struct pairs *pairs, const char *token);
/* Removes the pairs that have no open channel. */
void pairs_remove_unused(struct pairs *pairs);

#endif
