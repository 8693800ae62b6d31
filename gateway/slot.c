/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/slot.h"

#include <errno.h>
#include <stdlib.h>

#define NUM_SLOTS (URB_MAX_IN_FLIGHT + SLOT_RESERVE)

/* Buffers come in powers of two from 512 bytes to URB_MAX_LENGTH. */
#define MIN_CLASS   9
#define MAX_CLASS   24
#define NUM_CLASSES (MAX_CLASS - MIN_CLASS + 1)
_Static_assert(URB_MAX_LENGTH == 1u << MAX_CLASS, "the largest class");
/* From here on the device knows better memory than the heap. */
#define DEVICE_CLASS 16
/* How much of each class is kept for the next URB, unused. */
#define CACHED_BYTES   (1u << 20)
#define CACHED_BUFFERS 32
/* Packet lists up to this length stay with their slot. */
#define KEPT_PACKETS 64

struct buffer_class {
	uint8_t *cached[CACHED_BUFFERS];
	size_t num_cached;
};

struct slot_pool {
	struct usb_device *device;
	struct slot *slots;
	struct slot *free;
	size_t budget_bytes;
	size_t used_bytes;
	uint32_t num_counted;
	struct buffer_class classes[NUM_CLASSES];
};

static unsigned class_of(size_t bytes)
{
	unsigned class = MIN_CLASS;

	while (((size_t)1 << class) < bytes)
		class ++;
	return class;
}

static bool is_from_device(const struct slot_pool *pool, unsigned class)
{
	return class >= DEVICE_CLASS && pool->device->ops->buffer_alloc;
}

static size_t cache_limit(unsigned class)
{
	size_t n = CACHED_BYTES >> class;

	return n > CACHED_BUFFERS ? CACHED_BUFFERS : n;
}

static uint8_t *buffer_get(struct slot_pool *pool, size_t bytes,
			   size_t *ret_bytes)
{
	unsigned class = class_of(bytes);
	size_t rounded = (size_t)1 << class;
	struct buffer_class *c = &pool->classes[class - MIN_CLASS];
	uint8_t *memory;

	*ret_bytes = rounded;
	if (is_from_device(pool, class))
		return pool->device->ops->buffer_alloc(pool->device, rounded);
	if (c->num_cached > 0)
		return c->cached[--c->num_cached];
	memory = malloc(URB_HEADROOM + rounded);
	/* cppcheck-suppress memleak ; buffer_put finds its beginning */
	return memory ? memory + URB_HEADROOM : NULL;
}

static void buffer_put(struct slot_pool *pool, uint8_t *data, size_t bytes)
{
	unsigned class = class_of(bytes);
	struct buffer_class *c = &pool->classes[class - MIN_CLASS];

	if (is_from_device(pool, class))
		pool->device->ops->buffer_free(pool->device, data, bytes);
	else if (c->num_cached < cache_limit(class))
		c->cached[c->num_cached++] = data;
	else
		free(data - URB_HEADROOM);
}

struct slot_pool *slot_pool_new(struct engine *engine,
				struct usb_device *device, size_t budget_bytes)
{
	struct slot_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pool->device = device;
	pool->budget_bytes = budget_bytes;
	pool->slots = calloc(NUM_SLOTS, sizeof(*pool->slots));
	if (!pool->slots) {
		free(pool);
		return NULL;
	}
	for (uint32_t i = NUM_SLOTS; i-- > 0;) {
		struct slot *slot = &pool->slots[i];

		slot->engine = engine;
		slot->urb.device = device;
		slot->next = pool->free;
		pool->free = slot;
	}
	return pool;
}

static void free_packets(struct slot *slot)
{
	free(slot->urb.packets);
	free(slot->packet_bytes);
	slot->urb.packets = NULL;
	slot->packet_bytes = NULL;
	slot->packets_cap = 0;
}

void slot_pool_free(struct slot_pool *pool)
{
	if (!pool)
		return;
	for (uint32_t i = 0; i < NUM_SLOTS; i++) {
		struct slot *slot = &pool->slots[i];

		if (slot->urb.data)
			buffer_put(pool, slot->urb.data, slot->buffer_bytes);
		if (slot->urb.transfer && pool->device->ops->urb_done)
			pool->device->ops->urb_done(pool->device, &slot->urb);
		free_packets(slot);
	}
	for (size_t i = 0; i < NUM_CLASSES; i++) {
		struct buffer_class *c = &pool->classes[i];

		while (c->num_cached > 0)
			free(c->cached[--c->num_cached] - URB_HEADROOM);
	}
	free(pool->slots);
	free(pool);
}

/* What an URB holds of the budget: a list of packets is memory as data is. */
static size_t slot_cost(const struct slot *slot)
{
	size_t cost = slot->submit.length;

	if (urb_is_iso(slot->submit.num_packets))
		cost += slot->submit.num_packets *
			(sizeof(*slot->urb.packets) + USBIP_ISO_BYTES);
	return cost;
}

struct slot *slot_take(struct slot_pool *pool)
{
	struct slot *slot = pool->free;

	if (!slot)
		return NULL;
	pool->free = slot->next;
	slot->next = NULL;
	return slot;
}

void slot_give(struct slot_pool *pool, struct slot *slot)
{
	if (slot->urb.data) {
		buffer_put(pool, slot->urb.data, slot->buffer_bytes);
		slot->urb.data = NULL;
	}
	if (slot->is_counted) {
		pool->used_bytes -= slot_cost(slot);
		pool->num_counted--;
		slot->is_counted = false;
	}
	if (slot->packets_cap > KEPT_PACKETS)
		free_packets(slot);
	slot->urb.num_packets = 0;
	slot->data_bytes = 0;
	slot->refused = 0;
	slot->next = pool->free;
	pool->free = slot;
}

bool slot_is_any_free(const struct slot_pool *pool)
{
	return pool->free != NULL;
}

int slot_reserve(struct slot_pool *pool, struct slot *slot, size_t bytes)
{
	size_t cost = slot_cost(slot);

	if (pool->num_counted >= URB_MAX_IN_FLIGHT ||
	    cost > pool->budget_bytes - pool->used_bytes)
		return -ENOMEM;
	if (bytes > 0) {
		slot->urb.data = buffer_get(pool, bytes, &slot->buffer_bytes);
		if (!slot->urb.data)
			return -ENOMEM;
	}
	pool->used_bytes += cost;
	pool->num_counted++;
	slot->is_counted = true;
	return 0;
}

int slot_reserve_packets(struct slot *slot)
{
	uint32_t n = slot->submit.num_packets;

	if (n <= slot->packets_cap)
		return 0;
	free_packets(slot);
	slot->urb.packets = calloc(n, sizeof(*slot->urb.packets));
	slot->packet_bytes = calloc(n, USBIP_ISO_BYTES);
	if (!slot->urb.packets || !slot->packet_bytes) {
		free_packets(slot);
		return -ENOMEM;
	}
	slot->packets_cap = n;
	return 0;
}

uint32_t slot_count(const struct slot_pool *pool)
{
	(void)pool;
	return NUM_SLOTS;
}

struct slot *slot_at(struct slot_pool *pool, uint32_t index)
{
	return &pool->slots[index];
}

uint32_t slot_index(const struct slot_pool *pool, const struct slot *slot)
{
	return (uint32_t)(slot - pool->slots);
}
