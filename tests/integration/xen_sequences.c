/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sequences of link_world.h with the real xenstored: each one to a length,
 * then breadth-first. test_xen_sequences.py starts it in dom0.
 */
#include <stdio.h>

#include "tests/fake/link_world.h"
#include "vchan-transport/log.h"
#include "vchan-transport/store.h"

#define ALL_LENGTH  4
#define LEAST_DEPTH 6

int main(void)
{
	struct link_world_result all;
	struct link_world_result first;
	struct store *store;
	bool is_good;

	log_init("xen_sequences", LOG_LEVEL_ERROR);
	if (store_open(&store) < 0) {
		printf("not ok - no xenstore\n");
		return 1;
	}
	is_good = link_world_play(store, ALL_LENGTH, &all);
	printf("%s - all %u sequences to length %d %s\n",
	       is_good ? "ok" : "not ok", all.num_played, ALL_LENGTH,
	       all.failure);
	is_good &= link_world_play(store, 0, &first) &&
		   first.length >= LEAST_DEPTH;
	printf("%s - %u more, to length %zu, reach %zu situations %s\n",
	       is_good ? "ok" : "not ok", first.num_played, first.length,
	       first.num_situations, first.failure);
	store_close(store);
	return is_good ? 0 : 1;
}
