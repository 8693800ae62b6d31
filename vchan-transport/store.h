/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - xenstore, as much of it as this project needs, over libxenstore.
 *
 * Values of other domains are bounded when they are read, and node by node:
 * nothing here returns more than it was given room for.  Calls wait for
 * xenstored, which every domain does.  Once xenstored has hung up, every call
 * says -ECONNRESET: the process then ends and is started anew, which is a
 * state that every machine knows.
 *
 * libxenstore reads in a thread of its own as soon as there is a watch: open
 * the store behind the last fork, and before no sandbox.
 */
#ifndef STORE_H
#define STORE_H

#include <stdbool.h>
#include <stddef.h>

#define STORE_TOKEN_BYTES 24
#define STORE_NAME_BYTES  64

struct store;

/* -ENODEV: this machine has no xenstore (no Xen, or no xenstored). */
int store_open(struct store **ret_store);
/* NULL is fine. */
void store_close(struct store *store);

/* This domain's own number, from its node "domid"; or -errno. */
int store_domid(struct store *store);

/*
 * Readable when store_next_event may have something; see there.  That xenstored
 * has hung up it does not tell: the next call does.
 */
int store_fd(struct store *store);
/*
 * The token of the next watch that fired; 1, or 0 if none is left, which is to
 * be asked before each sleep; -ECONNRESET.  What fired is a hint and may be
 * old: read the node.
 */
int store_next_event(struct store *store, char ret_token[STORE_TOKEN_BYTES]);
/* Fires once at once.  Paths that begin with @ are xenstored's own events. */
int store_watch(struct store *store, const char *path, const char *token);
int store_unwatch(struct store *store, const char *path, const char *token);

/*
 * The value, NUL-terminated: its length; -ENOENT (also for what this domain
 * may not know of), -EACCES, -EMSGSIZE when it does not fit into `cap` with its
 * NUL, -EBADMSG when it has a NUL inside.
 */
int store_read(struct store *store, const char *path, char *value, size_t cap);

/*
 * The names below a node, as many as there is room for: how many, -ENOENT,
 * -errno.  Names that are too long are left out.
 */
int store_list(struct store *store, const char *path,
	       char (*names)[STORE_NAME_BYTES], size_t cap);

/* Makes what is missing on the way.  -ENOSPC: this domain's quota is used up. */
int store_write(struct store *store, const char *path, const char *value);
/*
 * Writes only where `guard` exists, in one transaction, so that nodes which
 * somebody removed do not come back: -ENOENT then; -EAGAIN after many conflicts.
 */
int store_write_under(struct store *store, const char *guard, const char *path,
		      const char *value);
/* With all below it; 0 also if it was not there. */
int store_remove(struct store *store, const char *path);
/*
 * The same, and the node is `owner`'s then, who alone may write to it and make
 * nodes below it; these have the same rights.  `reader` may read it, nobody else
 * may (dom0 may do everything).  -EPERM where this domain may not.
 */
int store_make_under(struct store *store, const char *guard, const char *path,
		     const char *value, unsigned owner, unsigned reader);

/*
 * Does xenstored serve that domain: 1; 0: not yet, or it is dead, whatever is
 * left of its nodes; -errno.  For dom0 only.
 */
int store_is_introduced(struct store *store, unsigned domid);

#endif
