/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_name.h - how a device of another gateway is called here: BUSID@NAME,
 * where BUSID is what it is called there (and may itself have such an end) and
 * NAME is the other gateway's in our configuration. Pure.
 */
#ifndef REMOTE_NAME_H
#define REMOTE_NAME_H

#include <stdbool.h>

#include "vchan-transport/usbip.h"

/* Does the name speak of a device of another gateway? */
bool remote_name_is_one(const char *busid);

/*
 * False if the whole does not fit a bus id, or if BUSID is no name that a file
 * of ours could have: letters, digits and ._-:@, a letter or digit first.
 */
bool remote_name_join(char ret_name[static USBIP_BUSID_BYTES],
		      const char *busid, const char *remote);

/*
 * At the last @; false if one of the two is missing, or BUSID is no such name.
 * `*ret_remote` points into the name.
 */
bool remote_name_split(const char *name,
		       char ret_busid[static USBIP_BUSID_BYTES],
		       const char **ret_remote);

#endif
