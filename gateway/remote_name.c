/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/remote_name.h"

#include <string.h>

#define FIRST_CHARS                  \
	"abcdefghijklmnopqrstuvwxyz" \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#define CHARS FIRST_CHARS "._-:@"

bool remote_name_is_one(const char *busid)
{
	return strchr(busid, '@') != NULL;
}

static bool is_good(const char *text)
{
	return text[0] != '\0' && strchr(FIRST_CHARS, text[0]) &&
	       strspn(text, CHARS) == strlen(text);
}

bool remote_name_join(char ret_name[static USBIP_BUSID_BYTES],
		      const char *busid, const char *remote)
{
	size_t len = strlen(busid);
	size_t remote_len = strlen(remote);

	if (!is_good(busid) || len + 1 + remote_len >= USBIP_BUSID_BYTES)
		return false;
	memcpy(ret_name, busid, len);
	ret_name[len] = '@';
	memcpy(ret_name + len + 1, remote, remote_len + 1);
	return true;
}

bool remote_name_split(const char *name,
		       char ret_busid[static USBIP_BUSID_BYTES],
		       const char **ret_remote)
{
	const char *at = strrchr(name, '@');
	size_t len = at ? (size_t)(at - name) : 0;

	if (len == 0 || len >= USBIP_BUSID_BYTES || at[1] == '\0')
		return false;
	memcpy(ret_busid, name, len);
	ret_busid[len] = '\0';
	*ret_remote = at + 1;
	return is_good(ret_busid);
}
