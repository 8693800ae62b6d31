/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slot.h - the URBs of one device and the memory behind them: a fixed number of
 * slots, buffers that are used again, and a budget for the bytes in flight.
 *
 * A slot is owned by its pool while it is FREE and by the engine otherwise, which
 * lends its URB to the device from START until urb_complete.
 */
#ifndef SLOT_H
#define SLOT_H

#include "gateway/urb_fsm.h"
#include "gateway/usb_device.h"
#include "vchan-transport/urb_check.h"

/*
 * Slots beyond URB_MAX_IN_FLIGHT carry answers only: refusals and RET_UNLINKs.
 * When they are all taken the engine stops reading until answers have left.
 */
#define SLOT_RESERVE 64

/* An URB and its answer. */
struct slot {
	struct urb urb; /* first: urb_complete finds its slot */
	struct engine *engine;
	struct slot *next; /* free list, or a queue of the engine's */
	enum urb_state state;
	enum urb_act reply; /* RET_SUBMIT, RET_UNLINK, RET_BOTH or TOO_LATE */
	uint32_t seqnum;
	uint32_t unlink_seqnum; /* of the CMD_UNLINK to answer */
	struct usbip_submit submit;
	bool is_in;          /* data follows the answer: what the header said */
	bool is_counted;     /* in flight, against the budget */
	int refused;         /* the answer's status if it is not started */
	size_t buffer_bytes; /* allocated behind urb.data */
	uint32_t packets_cap;
	uint8_t *packet_bytes; /* packets_cap descriptors as on the wire */

	/* The answer, once queued. */
	uint8_t header[USBIP_HEADER_BYTES];
	uint8_t unlink_header[USBIP_HEADER_BYTES];
	size_t data_bytes;
};

struct slot_pool;

/* NULL: no memory.  `device` is borrowed. */
struct slot_pool *slot_pool_new(struct engine *engine,
				struct usb_device *device, size_t budget_bytes);
/* Only when the device holds no URB any more.  NULL is fine. */
void slot_pool_free(struct slot_pool *pool);

/* A slot to fill, state FREE; NULL if there is none. */
struct slot *slot_take(struct slot_pool *pool);
void slot_give(struct slot_pool *pool, struct slot *slot);
bool slot_is_any_free(const struct slot_pool *pool);

/*
 * Counts the URB of slot->submit against the limits and finds its buffer, of
 * at least `bytes`.  -ENOMEM: over the budget, too many in flight, or no memory.
 */
int slot_reserve(struct slot_pool *pool, struct slot *slot, size_t bytes);
/* Room for slot->submit.num_packets packets; 0 or -ENOMEM. */
int slot_reserve_packets(struct slot *slot);

/* Slots by number, for a walk over all of them. */
uint32_t slot_count(const struct slot_pool *pool);
struct slot *slot_at(struct slot_pool *pool, uint32_t index);
uint32_t slot_index(const struct slot_pool *pool, const struct slot *slot);

#endif
