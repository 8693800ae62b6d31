/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/steady_watch.h"

#include <errno.h>
#include <string.h>

#include "vchan-transport/log.h"

const char *steady_watch_why(int r)
{
	return r == -ENOSPC || r == -E2BIG
		       ? "this domain has used up its quota in xenstore"
		       : strerror(-r);
}

int steady_watch_set(struct steady_watch *watch, struct store *store,
		     const char *path, const char *token)
{
	int r = watch->is_set ? 0 : store_watch(store, path, token);

	if (r == -ECONNRESET)
		return r;
	if (r < 0 && !watch->is_refused)
		log_warn("xenstore: %s cannot be watched: %s; it is looked at "
			 "every %u s",
			 path, steady_watch_why(r),
			 STEADY_WATCH_LOOK_MS / 1000);
	if (r == 0 && watch->is_refused)
		log_info("xenstore: %s is watched now", path);
	*watch = (struct steady_watch){ .is_set = r == 0, .is_refused = r < 0 };
	return r;
}

void steady_watch_remove(struct steady_watch *watch, struct store *store,
			 const char *path, const char *token)
{
	if (watch->is_set)
		(void)store_unwatch(store, path, token);
	*watch = (struct steady_watch){ 0 };
}
