/* SPDX-License-Identifier: Apache-2.0 */
/* See dial.h. */
#include "gateway/dial.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "gateway/dial_take.h"
#include "gateway/relay.h"
#include "vchan-transport/fdpass.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/sandbox.h"
#include "vchan-transport/tls.h"

/* For the manager to judge what it was told. */
#define GO_LIMIT_MS 5000
/* For the other side to read the last bytes. */
#define FINISH_LIMIT_MS 1000
#define STUCK_S         3
#define WATCHDOG_S      30

#define TO_GATEWAY      0
#define TO_SESSION      1

struct dial {
	int manager_fd;
	const char *name;
	const char *busid;
	struct address address;
	uint8_t pin[TLS_PIN_BYTES];
	struct import import;
	struct loop *loop; /* made before the sandbox */
	struct dial_packet packet;
};

/* ---- what was asked for ---- */

static int tell(struct dial *d, enum dial_report_type type)
{
	d->packet.report.type = type;
	return dial_send(d->manager_fd, &d->packet);
}

static enum exit_status fail(struct dial *d, enum exit_status status)
{
	d->packet.report = (struct dial_report){ .status = status };
	(void)snprintf(d->packet.report.why, sizeof(d->packet.report.why), "%s",
		       d->import.failure.text);
	(void)tell(d, DIAL_FAILED);
	return status;
}

static enum exit_status list(struct dial *d)
{
	struct import_entry *entries = NULL;
	size_t count = 0;
	enum exit_status status = import_list(&d->import, &entries, &count);
	int r = 0;

	if (status != EXIT_OK)
		return fail(d, status);
	import_close(&d->import);
	for (size_t i = 0; r == 0 && i < count; i++) {
		d->packet.report =
			(struct dial_report){ .device = entries[i].device };
		memcpy(d->packet.report.interfaces, entries[i].interfaces,
		       sizeof(entries[i].interfaces));
		r = tell(d, DIAL_DEVICE);
	}
	free(entries);
	if (r == 0)
		r = tell(d, DIAL_END);
	return r == 0 ? EXIT_OK : EXIT_FAILED;
}

/* Waits for the manager's word: the socket that came with it, or -errno. */
static int wait_for_go(const struct dial *d)
{
	struct pollfd p = { .fd = d->manager_fd, .events = POLLIN };
	char word;
	int fd = -1;
	ssize_t n;
	int r;

	do
		r = poll(&p, 1, GO_LIMIT_MS);
	while (r < 0 && errno == EINTR);
	if (r <= 0)
		return r == 0 ? -ETIMEDOUT : -errno;
	n = fdpass_recv(d->manager_fd, &word, sizeof(word), &fd, 1);
	if (n <= 0)
		return n < 0 ? (int)n : -EPIPE;
	return fd >= 0 ? fd : -EBADMSG;
}

static enum exit_status carry(struct dial *d, int data_fd)
{
	struct channel *ends[2] = { [TO_GATEWAY] = d->import.channel };
	struct relay_end end = { 0 };
	int r = channel_socket_new(data_fd, &ends[TO_SESSION]);

	if (r == 0)
		r = loop_set_watchdog(d->loop, WATCHDOG_S);
	if (r == 0)
		r = relay_run(d->loop, ends, &end);
	if (r < 0) {
		log_error("%s %s: cannot be carried: %s", d->name, d->busid,
			  strerror(-r));
		return EXIT_FAILED;
	}
	(void)alarm(STUCK_S);
	if (end.end == TO_GATEWAY && end.error == -EPIPE)
		log_info("%s %s: its gateway ended it", d->name, d->busid);
	else if (end.end == TO_GATEWAY)
		log_warn("%s %s: its gateway is lost: %s", d->name, d->busid,
			 strerror(-end.error));
	else
		channel_finish(d->import.channel, clock_ms() + FINISH_LIMIT_MS);
	channel_free(ends[TO_SESSION]);
	return end.error == -EPIPE ? EXIT_OK : EXIT_CANNOT_REACH;
}

static enum exit_status take(struct dial *d)
{
	struct usbip_device device;
	enum exit_status status = import_take(&d->import, d->busid, &device);
	int r;

	if (status == EXIT_OK)
		status = dial_take(&d->import, &device, &d->packet);
	if (status != EXIT_OK)
		return fail(d, status);
	r = dial_send(d->manager_fd, &d->packet);
	if (r == 0)
		r = wait_for_go(d);
	/* The manager has said why, if somebody wants to know. */
	if (r < 0)
		return EXIT_NOT_ALLOWED;
	return carry(d, r);
}

/* ---- life ---- */

static int enter_sandbox(void)
{
	return sandbox_enter(SANDBOX_LINK);
}

static enum exit_status run(struct dial *d)
{
	int r = loop_new(&d->loop);
	enum exit_status status;

	if (r < 0)
		return fail(d, failure_set(&d->import.failure, EXIT_FAILED,
					   "%s", strerror(-r)));
	d->import.options.before_peer = enter_sandbox;
	status = import_open(&d->import, &d->address);
	if (status != EXIT_OK)
		return fail(d, status);
	return d->busid[0] == '\0' ? list(d) : take(d);
}

/* What the manager wrote: trusted, so numbers are read without ceremony. */
static unsigned long number_of(char **argv, enum dial_argv which)
{
	return strtoul(argv[which], NULL, 10);
}

enum exit_status dial_main(int argc, char **argv)
{
	enum exit_status status;
	const char *why;
	struct dial *d;
	char prefix[64];

	if (argc != DIAL_ARGV_COUNT) {
		log_error("%s is the manager's way to start a dialer",
			  DIAL_ARGV_MARK);
		return EXIT_USAGE;
	}
	(void)prctl(PR_SET_NAME, "xusbip-dialer", 0, 0, 0);
	(void)snprintf(prefix, sizeof(prefix), "xusbip-gateway dialer %d",
		       (int)getpid());
	log_init(prefix, number_of(argv, DIAL_ARGV_IS_DEBUG) ? LOG_LEVEL_DEBUG
							     : LOG_LEVEL_INFO);
	d = calloc(1, sizeof(*d));
	if (!d || address_parse(argv[DIAL_ARGV_ADDRESS], &d->address, &why) < 0)
		return EXIT_USAGE;
	d->manager_fd = (int)number_of(argv, DIAL_ARGV_MANAGER_FD);
	d->name = argv[DIAL_ARGV_NAME];
	d->busid = argv[DIAL_ARGV_BUSID];
	d->import.gateway = argv[DIAL_ARGV_ADDRESS];
	d->import.deadline_ms =
		clock_ms() + number_of(argv, DIAL_ARGV_LIMIT_MS);
	d->import.hops = (unsigned)number_of(argv, DIAL_ARGV_HOPS);
	d->import.options.tls_dir = argv[DIAL_ARGV_TLS_DIR];
	if (tls_pin_parse(argv[DIAL_ARGV_PIN], d->pin) == 0)
		d->import.options.tls_pin = d->pin;
	status = run(d);
	import_close(&d->import);
	loop_free(d->loop);
	free(d);
	return status;
}
