/* SPDX-License-Identifier: Apache-2.0 */
/* hash.h - SHA-256, by which a rule knows a device's descriptors. */
#ifndef HASH_H
#define HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_BYTES 32

/* 0, or -ENOMEM. */
int hash_sha256(const void *bytes, size_t num_bytes,
		uint8_t ret_hash[static HASH_BYTES]);

#endif
