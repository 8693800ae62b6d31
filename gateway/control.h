/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - the control requests that must go through the host's own USB
 * stack instead of to the device raw, since that keeps state for them: toggles,
 * alternate settings, the configuration, the port.
 *
 * Source: stub_rx.c of Linux (is_clear_halt_cmd and its neighbours, tweak_*);
 * since 6.6.50 a request that was carried out so is not also submitted.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdint.h>

#include "gateway/usb_device.h"

enum control_kind {
	CONTROL_RAW, /* goes to the device as it is */
	CONTROL_CLEAR_HALT,
	CONTROL_SET_INTERFACE,
	CONTROL_SET_CONFIGURATION,
	CONTROL_RESET,       /* SET_FEATURE(PORT_RESET), Windows clients */
	CONTROL_SET_ADDRESS, /* never forwarded: the host gave it one */
};

enum control_kind control_classify(const uint8_t setup[8]);

/*
 * Carries out a request that is not CONTROL_RAW.  May block for as long as the
 * host's stack does.  0 or -errno.
 */
int control_apply(struct usb_device *device, const uint8_t setup[8]);

/*
 * The request of this kind, as USB/IP clients send it: a halt's endpoint is its
 * index, an interface's number too, whose setting is its value, and a
 * configuration is a value.
 */
void control_make(uint8_t ret_setup[static 8], enum control_kind kind,
		  uint8_t value, uint8_t index);

static inline uint16_t control_value(const uint8_t setup[8])
{
	return (uint16_t)(setup[2] | setup[3] << 8);
}

static inline uint16_t control_index(const uint8_t setup[8])
{
	return (uint16_t)(setup[4] | setup[5] << 8);
}

static inline uint16_t control_length(const uint8_t setup[8])
{
	return (uint16_t)(setup[6] | setup[7] << 8);
}

#endif
