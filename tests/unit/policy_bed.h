/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy_bed.h - a device and somebody who asks for it, for the tests of the
 * rules.
 */
#ifndef POLICY_BED_H
#define POLICY_BED_H

#include "gateway/policy.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static const struct policy_peer local = { .kind = POLICY_PEER_ANYBODY };

/* A camera with a microphone and buttons. */
static const struct policy_device camera = {
	.vendor = 0x046d,
	.product = 0xc52b,
	.serial = "A1",
	.busid = "1-1.2",
	.hash = { 1, 2, 3 },
	.classes = { { 0x0e, 1, 0 },
		     { 0x0e, 2, 0 },
		     { 0x01, 1, 0 },
		     { 0x03, 0, 0 } },
	.num_classes = 4,
};

static enum policy_outcome judge(const struct policy_rule *rule,
				 const struct policy_device *device)
{
	return policy_judge(rule, 1, device, &local).outcome;
}

#endif
