/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/xen_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vchan-transport/handshake.h"

#define OWN_FOLDER "data/xusbip"

/* Room for all channels and what else is in a folder. */
#define MAX_NODES (HANDSHAKE_CHANNELS + 16)

static int compare_domids(const void *a, const void *b)
{
	const unsigned *first = a;
	const unsigned *second = b;

	return (*first > *second) - (*first < *second);
}

int xen_guest_gateways(struct store *store, unsigned *ret_domids, size_t cap)
{
	char names[XEN_GUEST_MAX_GATEWAYS][STORE_NAME_BYTES];
	size_t used = 0;
	int n = store_list(store, OWN_FOLDER, names, XEN_GUEST_MAX_GATEWAYS);

	if (n < 0)
		return n == -ENOENT || n == -EACCES ? 0 : n;
	for (int i = 0; i < n && used < cap; i++) {
		uint32_t domid;

		if (handshake_parse_number(names[i], HANDSHAKE_MAX_DOMID,
					   &domid))
			ret_domids[used++] = domid;
	}
	qsort(ret_domids, used, sizeof(*ret_domids), compare_domids);
	return (int)used;
}

size_t xen_guest_list_gateways(unsigned *ret_domids, size_t cap)
{
	struct store *store;
	int n;

	if (store_open(&store) < 0)
		return 0;
	n = xen_guest_gateways(store, ret_domids, cap);
	store_close(store);
	return n > 0 ? (size_t)n : 0;
}

int xen_guest_find(struct store *store, unsigned guest, const char *domain,
		   unsigned *ret_gateway)
{
	unsigned gateways[XEN_GUEST_MAX_GATEWAYS];
	int n;

	if (handshake_parse_number(domain, HANDSHAKE_MAX_DOMID, ret_gateway))
		return 0;
	n = xen_guest_gateways(store, gateways, XEN_GUEST_MAX_GATEWAYS);
	for (int i = 0; i < n; i++) {
		char path[HANDSHAKE_PATH_BYTES];
		char name[HANDSHAKE_WORD_BYTES];

		handshake_name_path(path, guest, gateways[i], "name");
		if (store_read(store, path, name, sizeof(name)) >= 0 &&
		    strcmp(name, domain) == 0) {
			*ret_gateway = gateways[i];
			return 0;
		}
	}
	return n < 0 ? n : -ENOENT;
}

int xen_guest_open_dir(void)
{
	const char *dir = secure_getenv("XUSBIP_XEN_DIR");
	int fd;

	if (!dir) {
		dir = XEN_GUEST_LOCK_DIR;
		(void)mkdir("/run/xusbip", 0755);
	}
	(void)mkdir(dir, 0700);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The lock's descriptor; -EWOULDBLOCK if somebody has it. */
static int lock_channel(int dir_fd, unsigned gateway, unsigned channel)
{
	char name[32];
	int fd;
	int r;

	(void)snprintf(name, sizeof(name), "%u-%u.lock", gateway, channel);
	fd = openat(dir_fd, name,
		    O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
		    0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	r = -errno;
	(void)close(fd);
	return r;
}

/* Has the gateway still a word there, of somebody who is gone? */
static bool is_spent(struct store *store, unsigned guest, unsigned gateway,
		     unsigned channel)
{
	char path[HANDSHAKE_PATH_BYTES];
	char word[HANDSHAKE_WORD_BYTES];
	int r;

	handshake_channel_path(path, gateway, guest, channel);
	r = store_read(store, path, word, sizeof(word));
	return r >= 0 || r == -EMSGSIZE || r == -EBADMSG;
}

static int take_channel(struct store *store, int dir_fd,
			const unsigned domids[2], bool is_any,
			unsigned *ret_channel)
{
	for (unsigned i = 0; i < HANDSHAKE_CHANNELS; i++) {
		int fd = lock_channel(dir_fd, domids[1], i);

		if (fd == -EWOULDBLOCK)
			continue;
		if (fd < 0)
			return fd;
		if (is_any || !is_spent(store, domids[0], domids[1], i)) {
			*ret_channel = i;
			return fd;
		}
		(void)close(fd);
	}
	return -EBUSY;
}

int xen_guest_take_channel(struct store *store, unsigned guest,
			   unsigned gateway, unsigned *ret_channel)
{
	const unsigned domids[] = { guest, gateway };
	int dir_fd = xen_guest_open_dir();
	int r;

	if (dir_fd < 0)
		return dir_fd;
	r = take_channel(store, dir_fd, domids, false, ret_channel);
	if (r == -EBUSY)
		r = take_channel(store, dir_fd, domids, true, ret_channel);
	(void)close(dir_fd);
	return r;
}

/* 1 if there was a node that nobody held, and is no more. */
static int sweep_channel(struct store *store, int dir_fd,
			 const unsigned domids[2], unsigned channel)
{
	char path[HANDSHAKE_PATH_BYTES];
	int lock_fd = lock_channel(dir_fd, domids[1], channel);
	int r;

	if (lock_fd < 0)
		return 0;
	handshake_channel_path(path, domids[0], domids[1], channel);
	r = store_remove(store, path);
	(void)close(lock_fd);
	return r == 0;
}

int xen_guest_sweep(struct store *store, unsigned guest, unsigned gateway)
{
	char names[MAX_NODES][STORE_NAME_BYTES];
	const unsigned domids[] = { guest, gateway };
	char path[HANDSHAKE_PATH_BYTES];
	int removed = 0;
	int dir_fd;
	int n;

	handshake_pair_path(path, guest, gateway);
	n = store_list(store, path, names, MAX_NODES);
	if (n <= 0)
		return n == -ENOENT || n == -EACCES ? 0 : n;
	dir_fd = xen_guest_open_dir();
	if (dir_fd < 0)
		return dir_fd;
	for (int i = 0; i < n; i++) {
		uint32_t channel;

		if (handshake_parse_number(names[i], HANDSHAKE_CHANNELS - 1,
					   &channel))
			removed +=
				sweep_channel(store, dir_fd, domids, channel);
	}
	(void)close(dir_fd);
	return removed;
}

int xen_guest_sweep_all(void)
{
	unsigned gateways[XEN_GUEST_MAX_GATEWAYS];
	struct store *store;
	int removed = 0;
	int guest;
	int n = 0;

	if (store_open(&store) < 0)
		return 0;
	guest = store_domid(store);
	if (guest >= 0)
		n = xen_guest_gateways(store, gateways, XEN_GUEST_MAX_GATEWAYS);
	for (int i = 0; i < n; i++) {
		int r = xen_guest_sweep(store, (unsigned)guest, gateways[i]);

		removed += r > 0 ? r : 0;
	}
	store_close(store);
	return removed;
}
