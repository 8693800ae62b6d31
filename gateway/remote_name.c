/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/remote_name.h"

#include <stdio.h>
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
	char name[USBIP_BUSID_BYTES];
	int n = snprintf(name, sizeof(name), "%s@%s", busid, remote);

	if (n < 0 || (size_t)n >= sizeof(name) || !is_good(busid))
		return false;
	memcpy(ret_name, name, sizeof(name));
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
