/* SPDX-License-Identifier: Apache-2.0 */
/* detach.h - takes the device from a port, whoever attached it. */
#ifndef DETACH_H
#define DETACH_H

#include <stdint.h>

/*
 * Removes the record, asks for the port's end and waits until it is free: 0,
 * -ETIMEDOUT if it is not within 5 seconds, or -errno.
 */
int detach_port(uint32_t port);

/* The same, but that it is a loss for those who keep it attached. */
int detach_for_now(uint32_t port);

#endif
