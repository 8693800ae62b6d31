/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sequences of link_world.h with the real xenstored: breadth-first until
 * nothing is new, then each one to a length. test_xen_sequences.py starts it in
 * dom0.
 */
#include <stdio.h>

#include "tests/fake/link_world.h"
#include "vchan-transport/log.h"
#include "vchan-transport/store.h"

#define ALL_LENGTH 3

static bool play_first(struct store *store)
{
	struct link_world_result r;
	bool is_good = link_world_play_first(store, &r) &&
		       r.played.num_played == LINK_WORLD_SEQUENCES &&
		       r.played.num_situations == LINK_WORLD_SITUATIONS &&
		       r.played.length == LINK_WORLD_LENGTH;

	printf("%s - %u sequences to length %zu reach %zu situations, and no "
	       "longer one another %s\n",
	       is_good ? "ok" : "not ok", r.played.num_played, r.played.length,
	       r.played.num_situations, r.failure);
	return is_good;
}

static bool play_all(struct store *store)
{
	struct link_world_result r;
	bool is_good = link_world_play_all(store, ALL_LENGTH, &r);

	printf("%s - all %u sequences to length %zu reach none but these %s\n",
	       is_good ? "ok" : "not ok", r.played.num_played, r.played.length,
	       r.failure);
	return is_good;
}

int main(void)
{
	struct store *store;
	bool is_good;

	log_init("xen_sequences", LOG_LEVEL_ERROR);
	if (store_open(&store) < 0) {
		printf("not ok - no xenstore\n");
		return 1;
	}
	is_good = play_first(store) && play_all(store);
	store_close(store);
	return is_good ? 0 : 1;
}
