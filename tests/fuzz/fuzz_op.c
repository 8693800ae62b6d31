/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec: whatever the bytes, reading them, writing them and reading them
 * again gives the same, and a string always ends. The input is taken for each
 * kind of record that it is long enough for.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vchan-transport/usbip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_op(const uint8_t *data)
{
	uint8_t out[USBIP_OP_BYTES];
	struct usbip_op op;

	usbip_op_decode(&op, data);
	usbip_op_encode(out, op.code, (enum usbip_status)op.status);
	assert(memcmp(out + 2, data + 2, sizeof(out) - 2) == 0);
	assert(usbip_status_sentence(op.status)[0] != '\0');
}

static void try_small(const uint8_t *data)
{
	uint8_t out[USBIP_ISO_BYTES];
	struct usbip_interface interface;
	struct usbip_iso_packet packet;

	usbip_iso_decode(&packet, data);
	usbip_iso_encode(out, &packet);
	assert(memcmp(out, data, USBIP_ISO_BYTES) == 0);
	usbip_interface_decode(&interface, data);
	usbip_interface_encode(out, &interface);
	assert(memcmp(out, data, 3) == 0 && out[3] == 0);
}

static void try_busid(const uint8_t *data)
{
	uint8_t out[USBIP_BUSID_BYTES];
	char busid[USBIP_BUSID_BYTES];
	char again[USBIP_BUSID_BYTES];

	usbip_busid_decode(busid, data);
	assert(busid[USBIP_BUSID_BYTES - 1] == '\0');
	usbip_busid_encode(out, busid);
	assert(memcmp(out, busid, sizeof(out)) == 0);
	usbip_busid_decode(again, out);
	assert(memcmp(again, busid, sizeof(busid)) == 0);
}

static void try_header(const uint8_t *data)
{
	struct usbip_header header;
	struct usbip_header again;
	uint8_t out[USBIP_HEADER_BYTES];
	uint8_t out_again[USBIP_HEADER_BYTES];

	usbip_header_decode(&header, data);
	usbip_header_encode(out, &header);
	assert(memcmp(out, data, 20) == 0);
	usbip_header_decode(&again, out);
	usbip_header_encode(out_again, &again);
	assert(memcmp(out_again, out, sizeof(out)) == 0);
}

static void try_device(const uint8_t *data)
{
	struct usbip_device device;
	struct usbip_device again;
	uint8_t out[USBIP_DEVICE_BYTES];

	usbip_device_decode(&device, data);
	assert(device.path[USBIP_PATH_BYTES - 1] == '\0');
	assert(device.busid[USBIP_BUSID_BYTES - 1] == '\0');
	usbip_device_encode(out, &device);
	usbip_device_decode(&again, out);
	assert(memcmp(&again, &device, sizeof(device)) == 0);
	assert(memcmp(out + USBIP_PATH_BYTES + USBIP_BUSID_BYTES,
		      data + USBIP_PATH_BYTES + USBIP_BUSID_BYTES, 24) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size >= USBIP_OP_BYTES)
		try_op(data);
	if (size >= USBIP_ISO_BYTES)
		try_small(data);
	if (size >= USBIP_BUSID_BYTES)
		try_busid(data);
	if (size >= USBIP_HEADER_BYTES)
		try_header(data);
	if (size >= USBIP_DEVICE_BYTES)
		try_device(data);
	return 0;
}
