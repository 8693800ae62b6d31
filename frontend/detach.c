/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/detach.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>

#include "frontend/record.h"
#include "frontend/vhci.h"
#include "vchan-transport/channel.h"

#define FREE_LIMIT_MS 5000u
#define CHECK_MS      10

static bool is_free_within(uint32_t port, unsigned limit_ms)
{
	uint64_t deadline_ms = clock_ms() + limit_ms;

	while (vhci_is_free(VHCI_DIR, port) == 0) {
		if (clock_ms() >= deadline_ms)
			return false;
		(void)poll(NULL, 0, CHECK_MS);
	}
	return true;
}

int detach_port(uint32_t port)
{
	/* First, as the stock tool does: whoever watches it lets go then. */
	record_remove(RECORD_DIR, port);
	return detach_for_now(port);
}

int detach_for_now(uint32_t port)
{
	int r = vhci_detach(VHCI_DIR, port);

	if (r == -EACCES || r == -EPERM)
		return r;
	/* It may have ended by itself meanwhile, which is as good. */
	if (is_free_within(port, r < 0 ? 0 : FREE_LIMIT_MS))
		return 0;
	return r < 0 ? r : -ETIMEDOUT;
}
