/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_share.h. */
#include "gateway/guest_share.h"

#include <stdbool.h>
#include <stddef.h>

void guest_share_init(struct guest_share *share, uint64_t now_ms)
{
	*share = (struct guest_share){ .channels = GUEST_BURST,
				       .refilled_ms = now_ms,
				       .forgiven_ms = now_ms };
}

static bool take_channel(struct guest_share *share, uint64_t now_ms)
{
	const uint64_t gained = (now_ms - share->refilled_ms) / GUEST_REFILL_MS;

	share->refilled_ms += gained * GUEST_REFILL_MS;
	if (gained >= GUEST_BURST - share->channels)
		share->channels = GUEST_BURST;
	else
		share->channels += (unsigned)gained;
	if (share->channels == 0)
		return false;
	share->channels--;
	return true;
}

/* What is less than a page is left for the next time. */
static void forgive(struct guest_share *share, uint64_t most, uint64_t now_ms)
{
	const uint64_t passed_ms = now_ms - share->forgiven_ms;
	uint64_t pages;

	if (passed_ms >= GUEST_FORGIVE_MS || most == 0) {
		share->pages -= share->pages < most ? share->pages : most;
		share->forgiven_ms = now_ms;
		return;
	}
	pages = passed_ms * most / GUEST_FORGIVE_MS;
	share->pages -= share->pages < pages ? share->pages : pages;
	share->forgiven_ms += (pages * GUEST_FORGIVE_MS + most - 1) / most;
}

static bool take_pages(struct guest_share *share,
		       const struct guest_share_ask *ask, uint64_t now_ms)
{
	const uint64_t most = ask->limit / GUEST_SHARE_PART;

	forgive(share, most, now_ms);
	if (share->pages < ask->used)
		share->pages = ask->used;
	if (ask->pages > most || share->pages > most - ask->pages)
		return false;
	share->pages += ask->pages;
	return true;
}

const char *guest_share_take(struct guest_share *share,
			     const struct guest_share_ask *ask, uint64_t now_ms)
{
	if (!take_channel(share, now_ms))
		return "too many channels in a short time: try again in a "
		       "second";
	if (!take_pages(share, ask, now_ms))
		return "this domain has had its share, half of xen_gntalloc's "
		       "limit: try again in some minutes, or have the limit "
		       "raised";
	return NULL;
}
