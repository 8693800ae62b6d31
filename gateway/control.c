/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/control.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* USB 2.0, 9.3 and 9.4; USB 2.0, 11.24.2 for the port. */
enum {
	TO_DEVICE = 0x00,
	TO_INTERFACE = 0x01,
	TO_ENDPOINT = 0x02,
	CLASS_TO_PORT = 0x23,

	CLEAR_FEATURE = 1,
	SET_FEATURE = 3,
	SET_ADDRESS = 5,
	SET_CONFIGURATION = 9,
	SET_INTERFACE = 11,

	FEATURE_ENDPOINT_HALT = 0,
	FEATURE_PORT_RESET = 4,
};

static bool is_request(const uint8_t setup[8], uint8_t type, uint8_t request)
{
	return setup[0] == type && setup[1] == request;
}

enum control_kind control_classify(const uint8_t setup[8])
{
	uint16_t value = control_value(setup);

	if (is_request(setup, TO_ENDPOINT, CLEAR_FEATURE) &&
	    value == FEATURE_ENDPOINT_HALT)
		return CONTROL_CLEAR_HALT;
	if (is_request(setup, TO_INTERFACE, SET_INTERFACE))
		return CONTROL_SET_INTERFACE;
	if (is_request(setup, TO_DEVICE, SET_CONFIGURATION))
		return CONTROL_SET_CONFIGURATION;
	if (is_request(setup, CLASS_TO_PORT, SET_FEATURE) &&
	    value == FEATURE_PORT_RESET)
		return CONTROL_RESET;
	if (is_request(setup, TO_DEVICE, SET_ADDRESS))
		return CONTROL_SET_ADDRESS;
	return CONTROL_RAW;
}

void control_make(uint8_t ret_setup[static 8], enum control_kind kind,
		  uint8_t value, uint8_t index)
{
	static const uint8_t requests[][3] = {
		[CONTROL_CLEAR_HALT] = { TO_ENDPOINT, CLEAR_FEATURE,
					 FEATURE_ENDPOINT_HALT },
		[CONTROL_SET_INTERFACE] = { TO_INTERFACE, SET_INTERFACE },
		[CONTROL_SET_CONFIGURATION] = { TO_DEVICE, SET_CONFIGURATION },
		[CONTROL_RESET] = { CLASS_TO_PORT, SET_FEATURE,
				    FEATURE_PORT_RESET },
	};

	assert(kind != CONTROL_RAW && kind != CONTROL_SET_ADDRESS);
	memset(ret_setup, 0, 8);
	memcpy(ret_setup, requests[kind], sizeof(requests[kind]));
	ret_setup[2] |= value;
	ret_setup[4] = index;
}

int control_apply(struct usb_device *device, const uint8_t setup[8])
{
	const struct usb_device_ops *ops = device->ops;
	uint16_t value = control_value(setup);
	uint16_t index = control_index(setup);
	uint8_t endpoint = (uint8_t)index;

	switch (control_classify(setup)) {
	case CONTROL_CLEAR_HALT:
		/* Endpoint 0 cannot stay halted (USB 2.0, 8.5.3.4). */
		if ((endpoint & 0x0f) == 0)
			return 0;
		return ops->clear_halt(device, endpoint);
	case CONTROL_SET_INTERFACE:
		if (value > UINT8_MAX || index >= DESCRIPTORS_MAX_INTERFACES)
			return -EPIPE;
		return ops->set_interface(device, (uint8_t)index,
					  (uint8_t)value);
	case CONTROL_SET_CONFIGURATION:
		return ops->set_configuration(device, (uint8_t)value);
	case CONTROL_RESET:
		return ops->reset(device);
	case CONTROL_SET_ADDRESS:
		return 0;
	case CONTROL_RAW:
		break;
	}
	return -EINVAL;
}
