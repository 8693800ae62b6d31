/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_identity.h. */
#include "gateway/guest_identity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define UUID_CHARS 36

/* "UUID NAME", by the manager. */
static bool parse_peer(const char *text, struct xen_guest *ret_id)
{
	size_t length = strspn(text, "0123456789abcdefABCDEF-");
	const char *name;

	if (length != UUID_CHARS || (text[length] != ' ' && text[length]))
		return false;
	(void)snprintf(ret_id->uuid, sizeof(ret_id->uuid), "%.*s", UUID_CHARS,
		       text);
	name = text[length] ? text + length + 1 : "";
	/* A part of a name is nobody's. */
	(void)snprintf(ret_id->name, sizeof(ret_id->name), "%s",
		       strlen(name) < sizeof(ret_id->name) ? name : "");
	return true;
}

/*
 * dom0 is told by xenstored: the nodes of a domain go before it does.  Elsewhere
 * the folders tell, which dom0's manager removes.
 */
static bool is_dead(const struct guest_env *env, unsigned domid,
		    const char *uuid)
{
	static const char prefix[] = "/vm/";
	char path[HANDSHAKE_PATH_BYTES];
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	if (env->gateway != 0)
		return false;
	if (store_is_introduced(env->store, domid) == 0)
		return true;
	(void)snprintf(path, sizeof(path), "/local/domain/%u/vm", domid);
	r = store_read(env->store, path, text, sizeof(text));
	return r > 0 && strncmp(text, prefix, strlen(prefix)) == 0 &&
	       strcasecmp(text + strlen(prefix), uuid) != 0;
}

/* What dom0 has written: 1, 0 if nothing or no such thing, -errno. */
static int read_peer(const struct guest_env *env, unsigned domid,
		     struct xen_guest *ret_id)
{
	char path[HANDSHAKE_PATH_BYTES];
	char text[HANDSHAKE_WORD_BYTES];
	int r;

	handshake_name_path(path, env->gateway, domid, "peer");
	r = store_read(env->store, path, text, sizeof(text));
	if (r == -ENOENT || r == -EACCES || r == -EMSGSIZE || r == -EBADMSG)
		return 0;
	return r < 0 ? r : parse_peer(text, ret_id);
}

int guest_identity_read(const struct guest_env *env, unsigned domid,
			struct xen_guest *ret_guest)
{
	struct xen_guest found = { .domid = domid,
				   .is_held = ret_guest->is_held };
	int r = read_peer(env, domid, &found);

	if (r <= 0)
		return r;
	if (is_dead(env, domid, found.uuid))
		return 0;
	*ret_guest = found;
	return 1;
}

bool guest_identity_is_same(const struct guest_env *env,
			    const struct xen_guest *guest)
{
	struct xen_guest found;
	int r = read_peer(env, guest->domid, &found);

	return r < 0 || (r > 0 && strcasecmp(found.uuid, guest->uuid) == 0);
}
