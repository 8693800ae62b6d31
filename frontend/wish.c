/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/wish.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vchan-transport/state_file.h"

#define FILE_BYTES 1024

#define FNV_BASIS  0x811c9dc5u
#define FNV_PRIME  0x01000193u

const char *wish_dir(void)
{
	const char *dir = getenv("XUSBIP_WISH_DIR");

	return dir ? dir : WISH_DIR;
}

static bool is_of_name(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '_';
}

bool wish_is_name(const char *text)
{
	size_t length = strlen(text);

	for (size_t i = 0; i < length; i++)
		if (!is_of_name(text[i]))
			return false;
	return length > 0 && length < WISH_NAME_BYTES && text[0] != '-';
}

static uint32_t fnv1a(uint32_t hash, const char *text)
{
	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * FNV_PRIME;
	return hash;
}

/* The bus id for people, and the rest so that each device has its own. */
void wish_set_name(struct wish *wish)
{
	char address[ADDRESS_TEXT_CAP];
	uint32_t hash;

	(void)address_format(&wish->gateway, address, sizeof(address));
	hash = fnv1a(fnv1a(FNV_BASIS, address), wish->busid);
	(void)snprintf(wish->name, sizeof(wish->name), "_%.21s_%08x",
		       wish->busid, hash);
	for (char *at = wish->name; *at; at++)
		if (!is_of_name(*at))
			*at = '-';
}

bool wish_is_same(const struct wish *a, const struct wish *b)
{
	return strcmp(a->name, b->name) == 0 &&
	       a->is_section == b->is_section &&
	       a->gateway.kind == b->gateway.kind &&
	       strcmp(a->gateway.host, b->gateway.host) == 0 &&
	       a->gateway.port == b->gateway.port &&
	       a->gateway.cid == b->gateway.cid &&
	       strcmp(a->pin, b->pin) == 0 && strcmp(a->busid, b->busid) == 0 &&
	       a->vendor == b->vendor && a->product == b->product;
}

static bool has_kind(const struct wish *wish)
{
	return (wish->vendor | wish->product) != 0;
}

void wish_name_device(const struct wish *wish,
		      char text[static WISH_DEVICE_BYTES])
{
	int used = snprintf(text, WISH_DEVICE_BYTES, "%s", wish->busid);

	if (has_kind(wish))
		(void)snprintf(text + used, WISH_DEVICE_BYTES - (size_t)used,
			       "%s%04x:%04x", used > 0 ? " " : "", wish->vendor,
			       wish->product);
}

/* In double quotes, as libconfuse reads it back. */
static void quote(char *to, size_t cap, const char *text)
{
	size_t used = 0;

	to[used++] = '"';
	for (; *text && used + 3 < cap; text++) {
		if (*text == '"' || *text == '\\' || *text == '$')
			to[used++] = '\\';
		to[used++] = *text;
	}
	to[used++] = '"';
	to[used] = '\0';
}

int wish_write(const struct wish *wish)
{
	char address[ADDRESS_TEXT_CAP];
	char gateway[2 * ADDRESS_TEXT_CAP];
	char busid[2 * USBIP_BUSID_BYTES + 3];
	char pin[TLS_PIN_TEXT_BYTES + 16] = "";
	char kind[64] = "";
	char text[FILE_BYTES];
	int r = state_make_folder(wish_dir(), 0700);

	if (r < 0)
		return r;
	(void)address_format(&wish->gateway, address, sizeof(address));
	quote(gateway, sizeof(gateway), address);
	quote(busid, sizeof(busid), wish->busid);
	if (wish->pin[0] != '\0')
		(void)snprintf(pin, sizeof(pin), "\tpin = \"%s\"\n", wish->pin);
	if (has_kind(wish))
		(void)snprintf(kind, sizeof(kind),
			       "\tvendor = \"%04x\"\n\tproduct = \"%04x\"\n",
			       wish->vendor, wish->product);
	(void)snprintf(text, sizeof(text),
		       "attach \"%s\" {\n\tgateway = %s\n\tbusid = %s\n%s%s}\n",
		       wish->name, gateway, busid, pin, kind);
	return state_write(wish_dir(), wish->name, text, 0600);
}

int wish_remove(const char *name)
{
	char path[STATE_PATH_BYTES];

	(void)snprintf(path, sizeof(path), "%s/%s", wish_dir(), name);
	return unlink(path) < 0 ? -errno : 0;
}
