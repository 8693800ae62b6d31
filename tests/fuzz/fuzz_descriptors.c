/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor parser: every walk ends, and whatever it finds lies inside the
 * bytes. The input is what usbfs would give for a device.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "gateway/descriptors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_interfaces(const struct descriptors *d, uint8_t value)
{
	struct descriptor_interface interface;
	size_t cursor = 0;
	size_t last = 0;

	while (descriptors_next_interface(d, value, &cursor, &interface)) {
		assert(cursor > last);
		assert(interface.num_bytes >= 9);
		assert(interface.bytes >= d->bytes + 18);
		assert(interface.bytes + interface.num_bytes <=
		       d->bytes + d->num_bytes);
		last = cursor;
	}
}

static void find_endpoints(const struct descriptors *d, uint8_t value,
			   const uint8_t *alternates)
{
	struct descriptor_endpoint endpoint;

	for (unsigned address = 0; address < 256; address++) {
		if (!descriptors_find_endpoint(d, value, alternates,
					       (uint8_t)address, &endpoint))
			continue;
		assert(endpoint.address == address);
		assert((address & 0x70) == 0 && (address & 0x0f) != 0);
		assert(endpoint.interface < DESCRIPTORS_MAX_INTERFACES);
		assert(endpoint.max_packet < 2048);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t alternates[DESCRIPTORS_MAX_INTERFACES];
	struct descriptors d;
	uint8_t value;

	if (descriptors_parse(&d, data, size) < 0)
		return 0;
	for (unsigned i = 0; i < d.num_configurations && i < 4; i++) {
		assert(descriptors_configuration(&d, i, &value));
		walk_interfaces(&d, value);
		for (int alternate = 0; alternate < 2; alternate++) {
			memset(alternates, alternate, sizeof(alternates));
			find_endpoints(&d, value, alternates);
		}
	}
	assert(!descriptors_configuration(&d, d.num_configurations, &value));
	return 0;
}
