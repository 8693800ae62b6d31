/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vchan_ends.h - both ends of a vchan channel in one test program, which is the
 * domain that it last said it is. tests/integration/test_channel_vchan.py makes
 * the pretended Xen and these domains.
 */
#ifndef VCHAN_ENDS_H
#define VCHAN_ENDS_H

#include <sys/types.h>

#include "vchan-transport/channel.h"

#define VCHAN_GATEWAY 4u /* a driver domain */
#define VCHAN_GUEST   5u
/* Its xen_gntalloc has room for one channel of the smallest rings. */
#define VCHAN_SMALL    6u
#define VCHAN_LIMIT_MS 10000

struct vchan_ends {
	struct channel *server;
	struct channel *client;
	int warden; /* the other end of the client's life_fd */
};

/* For cmocka: the state is a struct vchan_ends, closed in the end. */
int vchan_setup(void **state);
int vchan_teardown(void **state);

uint64_t vchan_soon(void);
/* Whose xenstore, grants and event channels are opened from now on. */
void vchan_as_domain(unsigned domid);
/* Of a channel of its own, as gateway and guest write it. */
void vchan_next_paths(char server[static 64], char client[static 64]);

/* One end, with a failure's words as a message; 0 or -errno. */
int vchan_serve(size_t ring_bytes, const char *path, struct channel **ret);
int vchan_join(const char *path, int life_fd, struct channel **ret);
/* Both, and quiet. */
int vchan_open_ends(size_t ring_bytes, struct vchan_ends *ret_ends);
void vchan_close_warden(struct vchan_ends *e);
void vchan_close_ends(struct vchan_ends *e);

/* A process with the client's end, which writes 3000 bytes, and `then`. */
pid_t vchan_start_client(const char *path, void (*then)(struct channel *c));

/* The page that both share. */
struct vchan_interface *vchan_page(struct channel *c);
/* Waits for bytes, or how the stream ends. */
ssize_t vchan_await(struct channel *c);

#endif
