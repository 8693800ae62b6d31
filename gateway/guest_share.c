/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_share.h. */
#include "gateway/guest_share.h"

#include <stddef.h>

#include "gateway/xen_check.h"
#include "vchan-transport/channel.h"

/* No more than this part of a share is taken of one that is short no more. */
#define RESTED_PART 4

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

/*
 * The full ring while half of the share is left, half the ring while a quarter
 * is, and so on.  So at each step a channel takes the same part of what is left:
 * a 64th to a 32nd with what the installation sets, 8256 pages for rings of 128.
 * A step lasts for some 30 channels then, the first for all that one vhci_hcd
 * can have.  Who opens channels at a steady pace comes to rest at the step whose
 * pages are forgiven meanwhile.
 */
static uint32_t fit_ring(const struct guest_share_ask *ask, uint64_t most,
			 uint64_t left)
{
	uint32_t bytes = ask->full_bytes;
	uint64_t enough = most / 2;

	while (bytes > CHANNEL_VCHAN_MIN_RING_BYTES &&
	       (bytes > ask->ring_bytes || left < enough ||
		left < xen_check_pages(bytes))) {
		bytes /= 2;
		enough /= 2;
	}
	return bytes;
}

/* The ring, or 0 if there is no room for any. */
static uint32_t take_pages(struct guest_share *share,
			   const struct guest_share_ask *ask, uint64_t now_ms)
{
	const uint64_t most = ask->limit / GUEST_SHARE_PART;
	uint32_t ring_bytes;
	uint64_t left;

	forgive(share, most, now_ms);
	if (share->pages < ask->used)
		share->pages = ask->used;
	left = share->pages < most ? most - share->pages : 0;
	ring_bytes = fit_ring(ask, most, left);
	if (left < xen_check_pages(ring_bytes))
		return 0;
	if (share->pages <= most / RESTED_PART)
		share->is_short = false;
	if (ring_bytes < ask->ring_bytes)
		share->is_short = true;
	share->pages += xen_check_pages(ring_bytes);
	return ring_bytes;
}

const char *guest_share_take(struct guest_share *share,
			     const struct guest_share_ask *ask, uint64_t now_ms,
			     uint32_t *ret_ring_bytes)
{
	uint32_t ring_bytes;

	if (!take_channel(share, now_ms))
		return "too many channels in a short time: try again in a "
		       "second";
	ring_bytes = take_pages(share, ask, now_ms);
	if (ring_bytes == 0)
		return "this domain has had its share, half of xen_gntalloc's "
		       "limit: try again in some minutes, or have the limit "
		       "raised";
	*ret_ring_bytes = ring_bytes;
	return NULL;
}
