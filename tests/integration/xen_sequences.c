/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sequences of link_world.h and of front_world.h with the real xenstored:
 * breadth-first until nothing is new, then each one to a length.
 * test_xen_sequences.py starts it in dom0.
 */
#include <stdio.h>

#include "tests/fake/front_world.h"
#include "tests/fake/link_world.h"
#include "vchan-transport/log.h"
#include "vchan-transport/store.h"

#define ALL_LENGTH    3
#define ALL_SEQUENCES 1293

/* Without those in which the store fails. */
#define FRONT_ALL_LENGTH    4
#define FRONT_ALL_SEQUENCES 1539
#define FRONT_SEQUENCES     3010
#define FRONT_SITUATIONS    569
#define FRONT_LENGTH        11

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
	bool is_good = link_world_play_all(store, ALL_LENGTH, &r) &&
		       r.played.num_played == ALL_SEQUENCES;

	printf("%s - all %u sequences to length %zu reach none but these %s\n",
	       is_good ? "ok" : "not ok", r.played.num_played, r.played.length,
	       r.failure);
	return is_good;
}

static struct store *fronts_store;

static void set_domid(unsigned domid)
{
	char text[12];

	(void)snprintf(text, sizeof(text), "%u", domid);
	(void)store_write(fronts_store, "domid", text);
}

static bool play_front(struct store *store)
{
	const struct front_world_bed bed = { .store = store,
					     .set_domid = set_domid };
	struct sequences_result first = { 0 };
	struct sequences_result all = { 0 };
	const char *failure;
	bool is_good;

	fronts_store = store;
	failure = front_world_play_first(&bed, &first);
	if (!failure)
		failure = front_world_play_all(&bed, FRONT_ALL_LENGTH, &all);
	set_domid(FRONT_WORLD_GUEST);
	is_good = !failure && first.num_played == FRONT_SEQUENCES &&
		  first.num_situations == FRONT_SITUATIONS &&
		  first.length == FRONT_LENGTH &&
		  all.num_played == FRONT_ALL_SEQUENCES;
	printf("%s - %u sequences of a guest's side to length %zu reach %zu "
	       "situations, and all %u to length %zu none but these %s\n",
	       is_good ? "ok" : "not ok", first.num_played, first.length,
	       first.num_situations, all.num_played, all.length,
	       failure ? failure : "");
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
	is_good = play_first(store) && play_all(store) && play_front(store);
	store_close(store);
	return is_good ? 0 : 1;
}
