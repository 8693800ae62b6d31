/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks over raw descriptors. Two rules keep them safe and finite: a descriptor
 * lies wholly inside what contains it, and it is at least its own two-byte
 * head long; where that fails, the walk ends. Counts in the bytes
 * (bNumInterfaces, bNumEndpoints) are never believed: what is there is there.
 */
#include "gateway/descriptors.h"

#include <errno.h>

/* bDescriptorType. */
enum {
	TYPE_DEVICE = DESCRIPTOR_DEVICE,
	TYPE_CONFIG = DESCRIPTOR_CONFIGURATION,
	TYPE_INTERFACE = 4,
	TYPE_ENDPOINT = 5
};

/* The least that each must have to be used. */
enum {
	HEAD_BYTES = 2,
	DEVICE_BYTES = 18,
	CONFIG_BYTES = 9,
	INTERFACE_BYTES = 9,
	ENDPOINT_BYTES = 7,
};

/* Bytes that a walk may look at. */
struct span {
	const uint8_t *bytes;
	size_t num_bytes;
};

static uint16_t get_le16(const uint8_t *in)
{
	return (uint16_t)(in[0] | in[1] << 8);
}

/*
 * The configuration at *at, which moves behind it.  wTotalLength says where the
 * next one begins; one that claims more than there is ends with the bytes.
 */
static bool next_config(const struct descriptors *d, size_t *at,
			struct span *ret_config)
{
	const uint8_t *config = d->bytes + *at;
	size_t rest = d->num_bytes - *at;
	size_t total;

	if (rest < CONFIG_BYTES || config[0] < CONFIG_BYTES ||
	    config[1] != TYPE_CONFIG)
		return false;
	total = get_le16(config + 2);
	if (total < config[0])
		return false;
	if (total > rest)
		total = rest;
	*ret_config = (struct span){ config, total };
	*at += total;
	return true;
}

/* Where the descriptor at `at` ends; false if there is none. */
static bool descriptor_end(const struct span *span, size_t at, size_t *ret_end)
{
	size_t rest = span->num_bytes - at;

	if (rest < HEAD_BYTES || span->bytes[at] < HEAD_BYTES ||
	    span->bytes[at] > rest)
		return false;
	*ret_end = at + span->bytes[at];
	return true;
}

int descriptors_parse(struct descriptors *ret_d, const uint8_t *bytes,
		      size_t num_bytes)
{
	struct descriptors d = { .bytes = bytes, .num_bytes = num_bytes };
	size_t at = DEVICE_BYTES;
	struct span config;

	if (num_bytes < DEVICE_BYTES || num_bytes > DESCRIPTORS_MAX_BYTES ||
	    bytes[1] != TYPE_DEVICE)
		return -EINVAL;
	d.class = bytes[4];
	d.subclass = bytes[5];
	d.protocol = bytes[6];
	d.vendor = get_le16(bytes + 8);
	d.product = get_le16(bytes + 10);
	d.release = get_le16(bytes + 12);
	while (d.num_configurations < bytes[17] &&
	       next_config(&d, &at, &config))
		d.num_configurations++;
	*ret_d = d;
	return 0;
}

/* The index-th configuration. */
static bool config_at(const struct descriptors *d, unsigned index,
		      struct span *ret_config)
{
	size_t at = DEVICE_BYTES;

	if (index >= d->num_configurations)
		return false;
	for (unsigned i = 0; i <= index; i++)
		if (!next_config(d, &at, ret_config))
			return false;
	return true;
}

/* The first configuration with this value. */
static bool config_of(const struct descriptors *d, uint8_t value,
		      struct span *ret_config)
{
	size_t at = DEVICE_BYTES;

	for (unsigned i = 0; i < d->num_configurations; i++) {
		struct span config;

		if (!next_config(d, &at, &config))
			return false;
		if (config.bytes[5] == value) {
			*ret_config = config;
			return true;
		}
	}
	return false;
}

size_t descriptors_get(const struct descriptors *d, uint8_t type, uint8_t index,
		       const uint8_t **ret_bytes)
{
	struct span config;

	if (type == TYPE_DEVICE) {
		*ret_bytes = d->bytes;
		return DEVICE_BYTES;
	}
	if (type != TYPE_CONFIG || !config_at(d, index, &config))
		return 0;
	*ret_bytes = config.bytes;
	return config.num_bytes;
}

bool descriptors_configuration(const struct descriptors *d, unsigned index,
			       uint8_t *ret_value)
{
	struct span config;

	if (!config_at(d, index, &config))
		return false;
	*ret_value = config.bytes[5];
	return true;
}

/*
 * The first descriptor of this type at *at or behind it; *at becomes its place,
 * or where the walk had to end.
 */
static bool find_type(const struct span *span, uint8_t type, size_t *at)
{
	size_t end;

	while (descriptor_end(span, *at, &end)) {
		if (span->bytes[*at + 1] == type)
			return true;
		*at = end;
	}
	return false;
}

static void fill_interface(const struct span *config, size_t start, size_t end,
			   struct descriptor_interface *ret_interface)
{
	const uint8_t *bytes = config->bytes + start;

	*ret_interface = (struct descriptor_interface){
		.number = bytes[2],
		.alternate = bytes[3],
		.class = bytes[5],
		.subclass = bytes[6],
		.protocol = bytes[7],
		.bytes = bytes,
		.num_bytes = end - start,
	};
}

/* An interface ends where the next begins, and be that one too short to use. */
static bool next_interface(const struct span *config, size_t *cursor,
			   struct descriptor_interface *ret_interface)
{
	size_t start = *cursor ? *cursor : config->bytes[0];

	if (start > config->num_bytes)
		return false;
	while (find_type(config, TYPE_INTERFACE, &start)) {
		size_t end = start + config->bytes[start];

		(void)find_type(config, TYPE_INTERFACE, &end);
		if (config->bytes[start] >= INTERFACE_BYTES) {
			fill_interface(config, start, end, ret_interface);
			*cursor = end;
			return true;
		}
		start = end;
	}
	return false;
}

bool descriptors_next_interface(const struct descriptors *d,
				uint8_t configuration, size_t *cursor,
				struct descriptor_interface *ret_interface)
{
	struct span config;

	return config_of(d, configuration, &config) &&
	       next_interface(&config, cursor, ret_interface);
}

bool descriptors_next_interface_at(const struct descriptors *d, unsigned index,
				   size_t *cursor,
				   struct descriptor_interface *ret_interface)
{
	struct span config;

	return config_at(d, index, &config) &&
	       next_interface(&config, cursor, ret_interface);
}

static bool find_in_interface(const struct descriptor_interface *interface,
			      uint8_t address,
			      struct descriptor_endpoint *ret_endpoint)
{
	struct span span = { interface->bytes, interface->num_bytes };
	size_t at = 0;

	while (find_type(&span, TYPE_ENDPOINT, &at)) {
		const uint8_t *bytes = span.bytes + at;

		if (bytes[0] >= ENDPOINT_BYTES && bytes[2] == address) {
			*ret_endpoint = (struct descriptor_endpoint){
				.address = address,
				.interface = interface->number,
				.type = bytes[3] & 3,
				.max_packet = get_le16(bytes + 4) & 0x7ff,
				.interval = bytes[6],
			};
			return true;
		}
		at += bytes[0];
	}
	return false;
}

bool descriptors_find_endpoint(
	const struct descriptors *d, uint8_t configuration,
	const uint8_t alternates[static DESCRIPTORS_MAX_INTERFACES],
	uint8_t address, struct descriptor_endpoint *ret_endpoint)
{
	struct descriptor_interface interface;
	struct span config;
	size_t cursor = 0;

	if ((address & 0x70) != 0 || (address & 0x0f) == 0 ||
	    !config_of(d, configuration, &config))
		return false;
	while (next_interface(&config, &cursor, &interface))
		if (interface.number < DESCRIPTORS_MAX_INTERFACES &&
		    interface.alternate == alternates[interface.number] &&
		    find_in_interface(&interface, address, ret_endpoint))
			return true;
	return false;
}
