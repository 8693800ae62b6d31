/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of what is in flight: an array of slots, a list of the free ones,
 * and a seq_map from sequence number to slot. A slot keeps the memory for its
 * isochronous packets, so after a while a URB allocates nothing; all of it
 * together is bounded by what may be in flight at once.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "vchan-transport/seq_map.h"
#include "vchan-transport/urb_check.h"

#define NO_SLOT UINT32_MAX

struct slot {
	struct urb_entry entry;
	struct usbip_iso_packet *packets; /* owned; for cap_packets of them */
	uint32_t cap_packets;
	uint32_t next_free;
};

struct urb_table {
	struct seq_map *map;
	uint32_t free_slot; /* NO_SLOT: none */
	struct slot slots[URB_MAX_IN_FLIGHT];
};

struct urb_table *urb_table_new(void)
{
	struct urb_table *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->map = seq_map_new(URB_MAX_IN_FLIGHT);
	if (!table->map) {
		urb_table_free(table);
		return NULL;
	}
	for (uint32_t i = 0; i < URB_MAX_IN_FLIGHT; i++)
		table->slots[i].next_free = i + 1;
	table->slots[URB_MAX_IN_FLIGHT - 1].next_free = NO_SLOT;
	return table;
}

void urb_table_free(struct urb_table *table)
{
	if (!table)
		return;
	for (uint32_t i = 0; i < URB_MAX_IN_FLIGHT; i++)
		free(table->slots[i].packets);
	seq_map_free(table->map);
	free(table);
}

size_t urb_table_count(const struct urb_table *table)
{
	return seq_map_count(table->map);
}

static const struct urb_entry *find_entry(const struct urb_table *table,
					  uint32_t seqnum)
{
	uint32_t at;

	if (!seq_map_get(table->map, seqnum, &at))
		return NULL;
	return &table->slots[at].entry;
}

/* Room in a slot for as many packets; what was in it is lost. */
static bool reserve_packets(struct slot *slot, uint32_t num_packets)
{
	struct usbip_iso_packet *packets;

	if (num_packets <= slot->cap_packets)
		return true;
	packets = calloc(num_packets, sizeof(*packets));
	if (!packets)
		return false;
	free(slot->packets);
	slot->packets = packets;
	slot->cap_packets = num_packets;
	return true;
}

/* Standard GET_DESCRIPTOR of type 1, from the device: USB 2.0, 9.4.3. */
static bool asks_for_device_descriptor(const struct usbip_header *command)
{
	const uint8_t *setup = command->submit.setup;

	return command->endpoint == 0 && urb_is_in(command) &&
	       setup[0] == 0x80 && setup[1] == 6 && setup[3] == 1;
}

static bool fill_submit(struct slot *slot, const struct usbip_header *command,
			const struct usbip_iso_packet *packets)
{
	const struct usbip_submit *submit = &command->submit;
	bool is_iso = urb_is_iso(submit->num_packets);

	assert(packets || !is_iso);
	if (is_iso && !reserve_packets(slot, submit->num_packets))
		return false;
	slot->entry = (struct urb_entry){
		.seqnum = command->seqnum,
		.length = submit->length,
		.num_packets = submit->num_packets,
		.is_in = urb_is_in(command),
		.is_device_descriptor = asks_for_device_descriptor(command),
	};
	if (is_iso) {
		memcpy(slot->packets, packets,
		       submit->num_packets * sizeof(*packets));
		slot->entry.packets = slot->packets;
	}
	return true;
}

enum urb_verdict urb_table_note(struct urb_table *table,
				const struct usbip_header *command,
				const struct usbip_iso_packet *packets)
{
	uint32_t at = table->free_slot;
	struct slot *slot;

	if (find_entry(table, command->seqnum))
		return URB_BAD_SEQNUM;
	if (at == NO_SLOT)
		return URB_TOO_MANY;
	slot = &table->slots[at];
	if (command->command == USBIP_CMD_UNLINK)
		slot->entry = (struct urb_entry){
			.seqnum = command->seqnum,
			.target = command->unlink_seqnum,
			.is_unlink = true,
		};
	else if (!fill_submit(slot, command, packets))
		return URB_TOO_MANY;
	table->free_slot = slot->next_free;
	(void)seq_map_put(table->map, command->seqnum, at);
	return URB_OK;
}

void urb_table_set_owner(struct urb_table *table, uint32_t seqnum, void *owner)
{
	uint32_t at;

	if (seq_map_get(table->map, seqnum, &at))
		table->slots[at].entry.owner = owner;
}

static bool is_same_packets(uint32_t submitted, uint32_t replied)
{
	if (urb_is_iso(submitted))
		return replied == submitted;
	return !urb_is_iso(replied);
}

static enum urb_verdict check_ret_submit(struct usbip_ret_submit *reply,
					 const struct urb_entry *entry)
{
	uint32_t most_errors =
		urb_is_iso(entry->num_packets) ? entry->num_packets : 0;

	if (!urb_is_status(reply->status))
		return URB_BAD_STATUS;
	if (reply->actual_length > entry->length)
		return URB_BAD_ACTUAL;
	if (!is_same_packets(entry->num_packets, reply->num_packets))
		return URB_BAD_PACKETS;
	reply->num_packets = entry->num_packets;
	if (reply->error_count > most_errors)
		reply->error_count = most_errors;
	return URB_OK;
}

enum urb_verdict urb_table_check_reply(struct urb_table *table,
				       struct usbip_header *reply,
				       const struct urb_entry **ret_entry)
{
	bool is_unlink = reply->command == USBIP_RET_UNLINK;
	const struct urb_entry *entry;
	enum urb_verdict verdict = URB_OK;

	if (!is_unlink && reply->command != USBIP_RET_SUBMIT)
		return URB_BAD_COMMAND;
	entry = find_entry(table, reply->seqnum);
	if (!entry || entry->is_unlink != is_unlink)
		return URB_UNKNOWN_SEQNUM;
	if (!is_unlink)
		verdict = check_ret_submit(&reply->ret_submit, entry);
	else if (!urb_is_status(reply->unlink_status))
		verdict = URB_BAD_STATUS;
	if (verdict != URB_OK)
		return verdict;
	reply->devid = 0;
	reply->direction = 0;
	reply->endpoint = 0;
	*ret_entry = entry;
	return URB_OK;
}

static void forget(struct urb_table *table, uint32_t seqnum)
{
	uint32_t at;

	if (!seq_map_get(table->map, seqnum, &at))
		return;
	(void)seq_map_remove(table->map, seqnum);
	table->slots[at].next_free = table->free_slot;
	table->free_slot = at;
}

void urb_table_settle(struct urb_table *table, const struct usbip_header *reply)
{
	const struct urb_entry *entry = find_entry(table, reply->seqnum);
	const struct urb_entry *target = NULL;

	if (entry && entry->is_unlink)
		target = find_entry(table, entry->target);
	if (target && !target->is_unlink)
		forget(table, target->seqnum);
	forget(table, reply->seqnum);
}
