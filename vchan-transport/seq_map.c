/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cell holds index + 1, so zeroed memory is an empty map. A search walks from
 * a seqnum's home cell to the first empty one; half of the cells are empty, so
 * that walk always ends and is short.
 */
#include "vchan-transport/seq_map.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

struct cell {
	uint32_t seqnum;
	uint32_t index_plus_one; /* 0: empty */
};

struct seq_map {
	uint64_t key;
	uint64_t factor; /* odd */
	uint32_t capacity;
	uint32_t count;
	uint32_t mask; /* number of cells - 1 */
	struct cell cells[];
};

struct seq_map *seq_map_new(uint32_t capacity)
{
	struct seq_map *map;
	uint64_t random[2];
	uint32_t num_cells = 2;

	assert(capacity > 0 && capacity <= SEQ_MAP_MAX_CAPACITY);
	while (num_cells < 2 * capacity)
		num_cells *= 2;
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return NULL;
	map = calloc(1, sizeof(*map) + num_cells * sizeof(map->cells[0]));
	if (!map)
		return NULL;
	map->key = random[0];
	map->factor = random[1] | 1;
	map->capacity = capacity;
	map->mask = num_cells - 1;
	return map;
}

void seq_map_free(struct seq_map *map)
{
	free(map);
}

/* Two secret-keyed rounds: one alone keeps an arithmetic series a series. */
static uint32_t home_of(const struct seq_map *map, uint32_t seqnum)
{
	uint64_t hash = (seqnum ^ map->key) * map->factor;

	hash = (hash ^ hash >> 32) * map->factor;
	return (uint32_t)(hash >> 40) & map->mask;
}

/* The cell of seqnum, or the empty one where it belongs. */
static uint32_t find(const struct seq_map *map, uint32_t seqnum)
{
	uint32_t at = home_of(map, seqnum);

	while (map->cells[at].index_plus_one != 0 &&
	       map->cells[at].seqnum != seqnum)
		at = (at + 1) & map->mask;
	return at;
}

bool seq_map_put(struct seq_map *map, uint32_t seqnum, uint32_t index)
{
	uint32_t at;

	assert(index != UINT32_MAX);
	at = find(map, seqnum);
	if (map->cells[at].index_plus_one != 0 || map->count == map->capacity)
		return false;
	map->cells[at].seqnum = seqnum;
	map->cells[at].index_plus_one = index + 1;
	map->count++;
	return true;
}

bool seq_map_get(const struct seq_map *map, uint32_t seqnum,
		 uint32_t *ret_index)
{
	const struct cell *cell = &map->cells[find(map, seqnum)];

	if (cell->index_plus_one == 0)
		return false;
	*ret_index = cell->index_plus_one - 1;
	return true;
}

bool seq_map_remove(struct seq_map *map, uint32_t seqnum)
{
	uint32_t hole = find(map, seqnum);
	uint32_t at = hole;

	if (map->cells[hole].index_plus_one == 0)
		return false;
	map->count--;
	for (;;) {
		uint32_t home;

		map->cells[hole].index_plus_one = 0;
		/* What the hole would hide from a search moves into it. */
		do {
			at = (at + 1) & map->mask;
			if (map->cells[at].index_plus_one == 0)
				return true;
			home = home_of(map, map->cells[at].seqnum);
		} while (((at - home) & map->mask) < ((at - hole) & map->mask));
		map->cells[hole] = map->cells[at];
		hole = at;
	}
}

uint32_t seq_map_count(const struct seq_map *map)
{
	return map->count;
}
