/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steady_watch.h - a watch that xenstored may refuse: a domain has a quota of
 * them, and other programs in it use it up. Until there is room its owner looks
 * every STEADY_WATCH_LOOK_MS without one, and tries it again each time.
 */
#ifndef STEADY_WATCH_H
#define STEADY_WATCH_H

#include <stdbool.h>

#include "vchan-transport/store.h"

#define STEADY_WATCH_LOOK_MS 10000u

/* All zero at first, and when it is not wanted any more. */
struct steady_watch {
	bool is_set;
	bool is_refused;
};

/*
 * Sets it unless it is set. One line says that it is refused, and one that it
 * is there at last, however often it is tried. 0 or -errno.
 */
int steady_watch_set(struct steady_watch *watch, struct store *store,
		     const char *path, const char *token);
void steady_watch_remove(struct steady_watch *watch, struct store *store,
			 const char *path, const char *token);

/* strerror(-r), but what xenstored means when a quota is used up. */
const char *steady_watch_why(int r);

#endif
