/* SPDX-License-Identifier: Apache-2.0 */
/* wish_list.h - the wishes that `xusbip attach --persist` has left (wish.h). */
#ifndef WISH_LIST_H
#define WISH_LIST_H

#include <stddef.h>

#include "frontend/wish.h"

/* Those of wish_dir(); how many. A file that is none is told and left out. */
size_t wish_list(struct wish ret_wishes[static WISH_MAX]);

#endif
