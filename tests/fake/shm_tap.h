/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shm_tap.h - a pair of shm channels that met through the test, which has seen
 * the offer and so has their memory in its hands, to scribble on it. Neither end
 * notices when the other goes: the test holds both their sockets.
 */
#ifndef SHM_TAP_H
#define SHM_TAP_H

#include <stddef.h>
#include <stdint.h>

#include "vchan-transport/channel.h"

#define SHM_TAP_CONTROL_BYTES 4096
#define SHM_TAP_BYTES \
	(SHM_TAP_CONTROL_BYTES + (size_t)2 * CHANNEL_MIN_RING_BYTES)

struct shm_tap {
	struct channel *server; /* the test's to free, like the next */
	struct channel *client;
	uint8_t *memory; /* the control page, then both rings */
	int socks[2];
};

int shm_tap_open(struct shm_tap *t);
void shm_tap_close(struct shm_tap *t);

#endif
