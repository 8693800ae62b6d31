/* SPDX-License-Identifier: Apache-2.0 */
/*
 * call_rate.h - how often each peer has called lately: so many calls a second,
 * and as many at once after a pause. A bounded number of peers is remembered;
 * who has not called for longest makes room. Pure: time comes in.
 */
#ifndef CALL_RATE_H
#define CALL_RATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CALL_RATE_PEERS     256
#define CALL_RATE_KEY_BYTES 80

struct call_rate_peer {
	char key[CALL_RATE_KEY_BYTES]; /* empty: unused */
	uint64_t called_ms;
	/* Thousandths of a call that it may still make. */
	uint64_t left;
};

/* All zero: nobody has called. */
struct call_rate {
	struct call_rate_peer peers[CALL_RATE_PEERS];
};

/* May a peer call now? If so it has. `key` is not empty. */
bool call_rate_take(struct call_rate *rate, const char *key,
		    unsigned per_second, uint64_t now_ms);

#endif
