/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_channels.h. */
#include "gateway/guest_channels.h"

#include <errno.h>
#include <string.h>

#include "gateway/channel_lock.h"
#include "vchan-transport/log.h"
#include "vchan-transport/store.h"

/* Names of a folder that are looked at; a guest with more hides its own. */
#define MAX_NAMES 256

static void free_channel(struct guest_channels *g, size_t number)
{
	xen_channel_free(g->list[number]);
	g->list[number] = NULL;
}

/* Where it cannot be made now it is tried again at the next look. */
static void ensure_channel(struct guest_channels *g, size_t number)
{
	int r;

	if (g->list[number])
		return;
	r = xen_channel_new(&g->host, (unsigned)number, &g->list[number]);
	if (r < 0)
		log_warn("%s channel %zu: cannot be served yet: %s",
			 g->host.who, number, strerror(-r));
}

/* One for each number in `owner`'s folder for `peer`. */
static void ensure_channels(struct guest_channels *g, unsigned owner,
			    unsigned peer)
{
	char path[HANDSHAKE_PATH_BYTES];
	char names[MAX_NAMES][STORE_NAME_BYTES];
	uint32_t number;
	int n;

	handshake_pair_path(path, owner, peer);
	n = store_list(g->host.store, path, names, MAX_NAMES);
	/* EACCES: it is the guest's folder and the guest's will. */
	if (n < 0 && n != -ENOENT && n != -EACCES && n != -ECONNRESET)
		log_warn("%s: %s cannot be listed: %s", g->host.who, path,
			 strerror(-n));
	for (int i = 0; i < n; i++)
		if (handshake_parse_number(names[i], HANDSHAKE_CHANNELS - 1,
					   &number))
			ensure_channel(g, number);
}

static void on_lock(void *arg, unsigned domid, unsigned channel)
{
	struct guest_channels *g = arg;

	if (domid == g->host.guest)
		ensure_channel(g, channel);
}

void guest_channels_take_up(struct guest_channels *channels)
{
	const struct xen_channel_host *host = &channels->host;

	ensure_channels(channels, host->gateway, host->guest);
	channel_lock_each(host->runtime_dir, on_lock, channels);
}

void guest_channels_review(struct guest_channels *channels)
{
	const struct xen_channel_host *host = &channels->host;

	ensure_channels(channels, host->guest, host->gateway);
	for (size_t i = 0; i < HANDSHAKE_CHANNELS; i++) {
		if (!channels->list[i])
			continue;
		xen_channel_review(channels->list[i]);
		if (xen_channel_is_idle(channels->list[i]))
			free_channel(channels, i);
	}
}

void guest_channels_poll(struct guest_channels *channels)
{
	for (size_t i = 0; i < HANDSHAKE_CHANNELS; i++)
		if (channels->list[i])
			xen_channel_poll(channels->list[i]);
}

void guest_channels_die(struct guest_channels *channels)
{
	for (size_t i = 0; i < HANDSHAKE_CHANNELS; i++)
		if (channels->list[i])
			xen_channel_die(channels->list[i]);
}

void guest_channels_free(struct guest_channels *channels)
{
	for (size_t i = 0; i < HANDSHAKE_CHANNELS; i++)
		free_channel(channels, i);
}

bool guest_channels_are_quiet(const struct guest_channels *channels)
{
	for (size_t i = 0; i < HANDSHAKE_CHANNELS; i++)
		if (channels->list[i] &&
		    !xen_channel_is_quiet(channels->list[i]))
			return false;
	return true;
}

unsigned guest_channels_count(const struct guest_channels *channels)
{
	unsigned count = 0;

	for (size_t i = 0; i < HANDSHAKE_CHANNELS; i++) {
		const struct xen_channel *c = channels->list[i];

		count += c && (!xen_channel_is_quiet(c) ||
			       xen_channel_state(c) == XEN_LINK_WEDGED);
	}
	return count;
}

uint64_t guest_channels_pages(const struct guest_channels *channels)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < HANDSHAKE_CHANNELS; i++)
		if (channels->list[i])
			pages += xen_channel_pages(channels->list[i]);
	return pages;
}

unsigned guest_channels_revoke(struct guest_channels *channels,
			       guest_channels_cb *is_meant, void *arg,
			       enum exit_status status, const char *why)
{
	unsigned count = 0;

	for (size_t i = 0; i < HANDSHAKE_CHANNELS; i++) {
		struct xen_channel *c = channels->list[i];

		if (!c || xen_channel_is_quiet(c) ||
		    (is_meant && !is_meant(arg, xen_channel_busid(c))))
			continue;
		xen_channel_revoke(c, status, why);
		count++;
	}
	return count;
}
