/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.h - cleans up after a link, whatever ends it.
 *
 * A link gives up its rights and may be killed, so others have to free its
 * port and remove its record: the keeper, and a standby that does it should
 * the keeper have been killed before. Both are made before the link opens
 * anything, so they hold nothing of it; each sees the link's end as the end of
 * a pipe, and the standby sees the keeper's end in the same way. No process
 * that dies by itself takes more with it than the attachment, and none stays.
 *
 * Until the one who asked for the attachment says that it stands, the keeper
 * takes that one's end for a cancellation and tells the link to stop.
 *
 * A record that is gone when the link ends says that somebody has detached the
 * device, with whatever tool: a loss leaves it. The keeper notes it of a device
 * that was to stay (standing_note.h).
 */
#ifndef KEEPER_H
#define KEEPER_H

#include <stdint.h>

#include "frontend/record.h"
#include "frontend/wish.h"

struct keeper {
	int life_fd[2]; /* of keeper and standby; their end says that we ended */
};

/* What is to be cleaned up. */
struct keeper_claim {
	uint32_t port;
	struct record_id record;
	char wish[WISH_NAME_BYTES]; /* by whom it is to stay; empty: nobody */
};

/*
 * Starts both, as children of the calling process, which is to be the link.
 * `asker_fd` is a socket to who asked: a byte says that the attachment stands,
 * the end that it does not; the keeper's own end says that all is cleaned up.
 * 0 or -errno.
 */
int keeper_start(struct keeper *ret_keeper, int asker_fd);

/* From now on the port and its record are theirs to clean up: 0 or -errno. */
int keeper_tell(const struct keeper *keeper, const struct keeper_claim *claim);

#endif
