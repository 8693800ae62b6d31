/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/device_watch.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "vchan-transport/store.h"
#include "vchan-transport/xen_guest.h"

/* To look without a watch: one may be lost with the folder. */
#define LOOK_MS 10000

static int find_node(struct store *store, const struct address *gateway,
		     char path[static HANDSHAKE_PATH_BYTES])
{
	unsigned domid;
	int guest = store_domid(store);
	int r = guest;

	if (r >= 0)
		r = xen_guest_find(store, (unsigned)guest, gateway->host,
				   &domid);
	if (r < 0)
		return r;
	handshake_name_path(path, domid, (unsigned)guest, "devices");
	return store_watch(store, path, "devices");
}

/* Until something may have changed. */
static int sleep_until_fired(struct store *store)
{
	struct pollfd polled = { .fd = store_fd(store), .events = POLLIN };
	char token[STORE_TOKEN_BYTES];
	int r = store_next_event(store, token);

	if (r == 0)
		(void)poll(&polled, 1, LOOK_MS);
	return r < 0 ? r : 0;
}

int device_watch_wait(const struct address *gateway,
		      char value[static HANDSHAKE_WORD_BYTES])
{
	char path[HANDSHAKE_PATH_BYTES];
	char now[HANDSHAKE_WORD_BYTES];
	struct store *store;
	int r = store_open(&store);

	if (r < 0)
		return r;
	r = find_node(store, gateway, path);
	while (r == 0) {
		/* One that cannot be read is as one without a value. */
		if (store_read(store, path, now, sizeof(now)) < 0)
			now[0] = '\0';
		if (strcmp(now, value) != 0)
			break;
		r = sleep_until_fired(store);
	}
	store_close(store);
	if (r == 0)
		(void)snprintf(value, HANDSHAKE_WORD_BYTES, "%s", now);
	return r;
}
