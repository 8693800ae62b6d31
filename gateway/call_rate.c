/* SPDX-License-Identifier: Apache-2.0 */
/* See call_rate.h. */
#include "gateway/call_rate.h"

#include <stdio.h>
#include <string.h>

#define CALL 1000u

/* The peer's entry, or the one that it may have. */
static struct call_rate_peer *find(struct call_rate *rate, const char *key)
{
	struct call_rate_peer *oldest = &rate->peers[0];

	for (size_t i = 0; i < CALL_RATE_PEERS; i++) {
		struct call_rate_peer *peer = &rate->peers[i];

		if (strcmp(peer->key, key) == 0)
			return peer;
		if (peer->key[0] == '\0' ||
		    (oldest->key[0] != '\0' &&
		     peer->called_ms < oldest->called_ms))
			oldest = peer;
	}
	return oldest;
}

bool call_rate_take(struct call_rate *rate, const char *key,
		    unsigned per_second, uint64_t now_ms)
{
	const uint64_t most = (uint64_t)per_second * CALL;
	struct call_rate_peer *peer = find(rate, key);
	uint64_t passed_ms = now_ms - peer->called_ms;

	if (strcmp(peer->key, key) != 0) {
		(void)snprintf(peer->key, sizeof(peer->key), "%s", key);
		peer->left = most;
	} else if (passed_ms >= 1000 || peer->left > most) {
		peer->left = most;
	} else {
		peer->left += passed_ms * per_second;
		if (peer->left > most)
			peer->left = most;
	}
	peer->called_ms = now_ms;
	if (peer->left < CALL)
		return false;
	peer->left -= CALL;
	return true;
}
