/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_vchan_open.c - grants or maps a vchan, and says in words why that is
 * not possible. What libxenvchan's init functions leave unset is set here.
 */
#include "vchan-transport/channel_vchan.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <xenstore.h>

#define PAGE_BYTES 4096u

/* libxenvchan cuts longer paths, in silence. */
#define MAX_PATH_LENGTH 48

/* xenstore is short of transactions for a moment, not for long. */
#define RETRY_MIN_MS   10
#define RETRY_RANGE_MS 64

static void __attribute__((format(printf, 5, 0)))
on_complaint(struct xentoollog_logger *logger, xentoollog_level level,
	     int error, const char *context, const char *format, va_list args)
{
	struct complaint *complaint = (struct complaint *)logger;

	(void)context;
	(void)format;
	(void)args;
	if (level >= XTL_ERROR && error > 0 && complaint->error == 0)
		complaint->error = error;
}

static void on_progress(struct xentoollog_logger *logger, const char *context,
			const char *doing_what, int percent, unsigned long done,
			unsigned long total)
{
	(void)logger;
	(void)context;
	(void)doing_what;
	(void)percent;
	(void)done;
	(void)total;
}

static void on_destroy(struct xentoollog_logger *logger)
{
	(void)logger;
}

static struct channel_vchan *vchan_new(void)
{
	struct channel_vchan *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->base.ops = &channel_vchan_ops;
	s->life_fd = -1;
	s->complaint.logger.vmessage = on_complaint;
	s->complaint.logger.progress = on_progress;
	s->complaint.logger.destroy = on_destroy;
	return s;
}

/* What both sides do with a vchan that the library has made. */
static int take_vchan(struct channel_vchan *s, char *why)
{
	struct libxenvchan *vchan = s->vchan;
	struct vchan_interface *page = vchan->ring;
	int r;

	vchan->blocking = 0;
	if (vchan->is_server) {
		vchan->server_persist = 0;
		/*
		 * With a path the library would take its nodes away when it
		 * closes: that is the manager's, and no matter of a sandbox.
		 */
		free(vchan->xs_path);
		vchan->xs_path = NULL;
	}
	s->peer_live = vchan->is_server ? &page->cli_live : &page->srv_live;
	s->peer_marks = vchan->is_server ? &page->srv_notify
					 : &page->cli_notify;
	s->own_marks = vchan->is_server ? &page->cli_notify : &page->srv_notify;
	s->event_fd = libxenvchan_fd_for_select(vchan);
	if (fcntl(s->event_fd, F_SETFL, O_NONBLOCK) == 0)
		return 0;
	r = -errno;
	(void)snprintf(why, CHANNEL_WHY_BYTES, "event channel: %s",
		       strerror(-r));
	return r;
}

/*
 * When libxenvchan_server_init fails it closes what it has not all set: with a
 * leftover of this process in those places it would unmap and free anything.
 * Memory of that size that was freed last is what malloc gives next.
 */
static void leave_zeros_to_malloc(void)
{
	void *volatile zeros = calloc(1, sizeof(struct libxenvchan));

	free(zeros);
}

static bool is_missing(const char *device)
{
	return access(device, F_OK) < 0 && errno == ENOENT;
}

/* How xenstore takes a transaction just now: 0 or -errno. */
static int probe_store(void)
{
	struct xs_handle *xs = xs_open(0);
	xs_transaction_t transaction;
	int r = 0;

	if (!xs)
		return -errno;
	transaction = xs_transaction_start(xs);
	if (transaction == XBT_NULL)
		r = -errno;
	else
		(void)xs_transaction_end(xs, transaction, true);
	xs_close(xs);
	return r;
}

static int explain_grant(unsigned domid, size_t ring_bytes, int error,
			 char *why)
{
	const size_t pages = 1 + 2 * ring_bytes / PAGE_BYTES;

	if (error == ENOSPC)
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "no %zu pages left to grant: raise the limit in "
			       "/sys/module/xen_gntalloc/parameters/limit",
			       pages);
	else
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "cannot grant %zu pages to domain %u: %s", pages,
			       domid, strerror(error));
	return -error;
}

/*
 * One try: 0, -EAGAIN if xenstore had no room for it, or -errno with its words.
 * The library does not say what failed: a driver's refusal is in the complaint,
 * for the rest we have to look.
 */
static int serve_once(struct channel_vchan *s, unsigned domid, const char *path,
		      size_t ring_bytes, char *why)
{
	int r;

	leave_zeros_to_malloc();
	s->vchan = libxenvchan_server_init(&s->complaint.logger, (int)domid,
					   path, ring_bytes, ring_bytes);
	if (s->vchan)
		return 0;
	if (s->complaint.error != 0)
		return explain_grant(domid, ring_bytes, s->complaint.error,
				     why);
	r = probe_store();
	(void)snprintf(why, CHANNEL_WHY_BYTES,
		       "cannot write the nodes of a channel to domain %u in "
		       "xenstore: %s",
		       domid, r < 0 ? strerror(-r) : "it is refused");
	if (r == -ENOSPC || r == -EAGAIN)
		return -EAGAIN;
	if (r < 0)
		return r;
	if (is_missing("/dev/xen/gntalloc")) {
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "no /dev/xen/gntalloc: modprobe xen_gntalloc");
		return -ENODEV;
	}
	return -EAGAIN;
}

/* Others who are refused at the same time shall not come back with us. */
static void pause_before_retry(void)
{
	uint8_t random = 0;

	(void)!getrandom(&random, sizeof(random), 0);
	(void)poll(NULL, 0, RETRY_MIN_MS + random % RETRY_RANGE_MS);
}

static bool is_ring_size(size_t bytes)
{
	return bytes >= CHANNEL_VCHAN_MIN_RING_BYTES &&
	       bytes <= CHANNEL_VCHAN_MAX_RING_BYTES &&
	       (bytes & (bytes - 1)) == 0;
}

static int check_path(const char *path, char *why)
{
	if (strnlen(path, MAX_PATH_LENGTH + 1) <= MAX_PATH_LENGTH)
		return 0;
	(void)snprintf(why, CHANNEL_WHY_BYTES,
		       "a path in xenstore of more than %d bytes",
		       MAX_PATH_LENGTH);
	return -ENAMETOOLONG;
}

int channel_vchan_serve(unsigned domid, const char *path, size_t ring_bytes,
			uint64_t deadline_ms, struct channel **ret_channel,
			char why[static CHANNEL_WHY_BYTES])
{
	struct channel_vchan *s;
	int r = check_path(path, why);

	if (r < 0)
		return r;
	if (!is_ring_size(ring_bytes)) {
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "a ring of %zu bytes: it must be a power of two "
			       "from %u to %u",
			       ring_bytes, CHANNEL_VCHAN_MIN_RING_BYTES,
			       CHANNEL_VCHAN_MAX_RING_BYTES);
		return -EINVAL;
	}
	s = vchan_new();
	if (!s) {
		(void)snprintf(why, CHANNEL_WHY_BYTES, "out of memory");
		return -ENOMEM;
	}
	r = serve_once(s, domid, path, ring_bytes, why);
	while (r == -EAGAIN && clock_ms() < deadline_ms) {
		pause_before_retry();
		r = serve_once(s, domid, path, ring_bytes, why);
	}
	if (r == 0)
		r = take_vchan(s, why);
	if (r < 0) {
		channel_free(&s->base);
		return r;
	}
	*ret_channel = &s->base;
	return 0;
}

static int explain_join(const struct channel_vchan *s, unsigned domid,
			int error, char *why)
{
	const int complaint = s->complaint.error;

	if (complaint != 0)
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "cannot map what domain %u grants: %s", domid,
			       strerror(complaint));
	else if (is_missing("/dev/xen/gntdev"))
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "no /dev/xen/gntdev: this is no Xen domain, or "
			       "modprobe xen_gntdev");
	else if (is_missing("/dev/xen/evtchn"))
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "no /dev/xen/evtchn: modprobe xen_evtchn");
	else
		(void)snprintf(why, CHANNEL_WHY_BYTES,
			       "the channel of domain %u is not there: %s",
			       domid, strerror(error));
	return complaint != 0 ? -complaint : -error;
}

int channel_vchan_join(unsigned domid, const char *path, int life_fd,
		       struct channel **ret_channel,
		       char why[static CHANNEL_WHY_BYTES])
{
	struct channel_vchan *s;
	int r = check_path(path, why);

	if (r < 0)
		return r;
	s = vchan_new();
	if (!s) {
		(void)snprintf(why, CHANNEL_WHY_BYTES, "out of memory");
		return -ENOMEM;
	}
	errno = 0;
	s->vchan =
		libxenvchan_client_init(&s->complaint.logger, (int)domid, path);
	if (s->vchan)
		r = take_vchan(s, why);
	else
		r = explain_join(s, domid, errno > 0 ? errno : EIO, why);
	if (r < 0) {
		channel_free(&s->base);
		return r;
	}
	s->life_fd = life_fd;
	*ret_channel = &s->base;
	return 0;
}
