/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seq_map.h - which slot a sequence number lies in: a hash table of fixed size
 * from seqnum to a small index.
 *
 * Open addressing at most half full, and removal moves what follows back, so
 * there are no tombstones and a long life costs nothing.  Sequence numbers are
 * the peer's to choose: the hash is keyed with random bits, so no choice of
 * them makes a long chain.  Nothing is allocated after seq_map_new.
 */
#ifndef SEQ_MAP_H
#define SEQ_MAP_H

#include <stdbool.h>
#include <stdint.h>

#define SEQ_MAP_MAX_CAPACITY (1u << 20)

struct seq_map;

/* capacity: 1 to SEQ_MAP_MAX_CAPACITY.  NULL: no memory, or no random bits. */
struct seq_map *seq_map_new(uint32_t capacity);
void seq_map_free(struct seq_map *map);

/* False, and nothing changes, when seqnum is there already or the map full. */
bool seq_map_put(struct seq_map *map, uint32_t seqnum, uint32_t index);

/* False, with *ret_index untouched, when seqnum is not there. */
bool seq_map_get(const struct seq_map *map, uint32_t seqnum,
		 uint32_t *ret_index);

/* False when seqnum is not there. */
bool seq_map_remove(struct seq_map *map, uint32_t seqnum);

uint32_t seq_map_count(const struct seq_map *map);

#endif
