/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/hash.h"

#include <errno.h>

#include <openssl/evp.h>

int hash_sha256(const void *bytes, size_t num_bytes,
		uint8_t ret_hash[static HASH_BYTES])
{
	/* The library fails for want of memory only. */
	return EVP_Digest(bytes, num_bytes, ret_hash, NULL, EVP_sha256(),
			  NULL) == 1
		       ? 0
		       : -ENOMEM;
}
