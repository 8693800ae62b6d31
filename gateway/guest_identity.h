/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_identity.h - who is behind a domain's number, by what dom0 says: numbers
 * are used again.
 */
#ifndef GUEST_IDENTITY_H
#define GUEST_IDENTITY_H

#include "gateway/guest.h"

/*
 * Who is served under this number: 1 and its name and UUID; 0 if nobody, or one
 * that is dead; -errno if that cannot be known now.
 */
int guest_identity_read(const struct guest_env *env, unsigned domid,
			struct xen_guest *ret_guest);
/* Does dom0 say that this number is still that domain's, as far as it is known? */
bool guest_identity_is_same(const struct guest_env *env,
			    const struct xen_guest *guest);

#endif
