/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/store.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xenstore.h>

#include "vchan-transport/handshake.h"

/* A transaction that others disturb is begun anew; 90 ms in all. */
#define TRIES         30u
#define PAUSE_STEP_US 200u

struct store {
	struct xs_handle *xs;
};

/*
 * libxenstore's errno. Its words for a connection that has ended depend on
 * where it noticed; we never send what xenstored would call invalid.
 */
static int error_of(int error)
{
	switch (error) {
	case EBADF:
	case EINVAL:
	case EPIPE:
	case EIO:
		return -ECONNRESET;
	case 0:
		return -EIO;
	default:
		return -error;
	}
}

static int done(bool is_done)
{
	return is_done ? 0 : error_of(errno);
}

int store_open(struct store **ret_store)
{
	struct store *store = calloc(1, sizeof(*store));
	int error;

	if (!store)
		return -ENOMEM;
	errno = 0;
	store->xs = xs_open(0);
	/* Made now, so that no watch fires before there is a descriptor. */
	if (store->xs && xs_fileno(store->xs) >= 0) {
		*ret_store = store;
		return 0;
	}
	error = errno;
	store_close(store);
	switch (error) {
	case 0:
	case ENOENT:
	case ENXIO:
	case ECONNREFUSED:
		return -ENODEV;
	default:
		return -error;
	}
}

void store_close(struct store *store)
{
	if (!store)
		return;
	if (store->xs)
		xs_close(store->xs);
	free(store);
}

int store_domid(struct store *store)
{
	char text[12];
	uint32_t domid;
	int r = store_read(store, "domid", text, sizeof(text));

	if (r < 0)
		return r;
	if (!handshake_parse_number(text, HANDSHAKE_MAX_DOMID, &domid))
		return -EBADMSG;
	return (int)domid;
}

int store_fd(struct store *store)
{
	return xs_fileno(store->xs);
}

int store_next_event(struct store *store, char ret_token[STORE_TOKEN_BYTES])
{
	char **event = xs_check_watch(store->xs);
	size_t length;

	if (!event)
		return errno == EAGAIN ? 0 : error_of(errno);
	length = strnlen(event[XS_WATCH_TOKEN], STORE_TOKEN_BYTES - 1);
	memcpy(ret_token, event[XS_WATCH_TOKEN], length);
	ret_token[length] = '\0';
	free(event);
	return 1;
}

int store_watch(struct store *store, const char *path, const char *token)
{
	return done(xs_watch(store->xs, path, token));
}

int store_unwatch(struct store *store, const char *path, const char *token)
{
	return done(xs_unwatch(store->xs, path, token));
}

int store_read(struct store *store, const char *path, char *value, size_t cap)
{
	unsigned length = 0;
	char *found = xs_read(store->xs, XBT_NULL, path, &length);
	int r = (int)length;

	if (!found)
		return error_of(errno);
	if (length >= cap)
		r = -EMSGSIZE;
	else if (strnlen(found, length) != length)
		r = -EBADMSG;
	else {
		memcpy(value, found, length);
		value[length] = '\0';
	}
	free(found);
	return r;
}

int store_list(struct store *store, const char *path,
	       char (*names)[STORE_NAME_BYTES], size_t cap)
{
	unsigned count = 0;
	char **found = xs_directory(store->xs, XBT_NULL, path, &count);
	size_t used = 0;

	if (!found)
		return error_of(errno);
	for (unsigned i = 0; i < count && used < cap; i++) {
		size_t length = strlen(found[i]);

		if (length < STORE_NAME_BYTES)
			memcpy(names[used++], found[i], length + 1);
	}
	free(found);
	return (int)used;
}

int store_write(struct store *store, const char *path, const char *value)
{
	return done(xs_write(store->xs, XBT_NULL, path, value,
			     (unsigned)strlen(value)));
}

struct addition {
	const char *guard;
	const char *path;
	const char *value;
	struct xs_permissions *rights; /* two; NULL: as they come */
};

/* In one transaction: 0, -EAGAIN when it was disturbed, or -errno. */
static int try_add(struct store *store, const struct addition *a)
{
	xs_transaction_t t = xs_transaction_start(store->xs);
	unsigned length;
	void *found;
	int r = 0;

	if (t == XBT_NULL) {
		r = error_of(errno);
		/* This domain has as many at once as it may. */
		return r == -ENOSPC || r == -EBUSY ? -EAGAIN : r;
	}
	found = xs_read(store->xs, t, a->guard, &length);
	if (!found ||
	    !xs_write(store->xs, t, a->path, a->value,
		      (unsigned)strlen(a->value)) ||
	    (a->rights &&
	     !xs_set_permissions(store->xs, t, a->path, a->rights, 2)))
		r = error_of(errno);
	free(found);
	if (xs_transaction_end(store->xs, t, r < 0))
		return r;
	return r < 0 ? r : error_of(errno);
}

static int add(struct store *store, const struct addition *a)
{
	for (unsigned i = 0; i < TRIES; i++) {
		int r = try_add(store, a);

		if (r != -EAGAIN)
			return r;
		(void)usleep(i * PAUSE_STEP_US);
	}
	return -EAGAIN;
}

int store_write_under(struct store *store, const char *guard, const char *path,
		      const char *value)
{
	return add(store, &(struct addition){ .guard = guard,
					      .path = path,
					      .value = value });
}

int store_make_under(struct store *store, const char *guard, const char *path,
		     const char *value, unsigned owner, unsigned reader)
{
	struct xs_permissions rights[] = {
		{ .id = owner, .perms = XS_PERM_NONE },
		{ .id = reader, .perms = XS_PERM_READ },
	};
	int r = add(store, &(struct addition){ .guard = guard,
					       .path = path,
					       .value = value,
					       .rights = rights });

	return r == -EACCES ? -EPERM : r;
}

int store_remove(struct store *store, const char *path)
{
	int r = done(xs_rm(store->xs, XBT_NULL, path));

	return r == -ENOENT ? 0 : r;
}

int store_is_introduced(struct store *store, unsigned domid)
{
	errno = 0;
	if (xs_is_domain_introduced(store->xs, domid))
		return 1;
	return errno == 0 ? 0 : error_of(errno);
}
