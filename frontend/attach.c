/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frontend/keeper.h"
#include "frontend/link.h"
#include "frontend/local_usb.h"
#include "frontend/record.h"
#include "frontend/turn.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/import.h"
#include "vchan-transport/log.h"
#include "vchan-transport/process.h"

/* So much of a transfer fits between vhci_hcd and the link at once. */
#define SOCKET_BUFFER_BYTES (2 << 20)

#define TURN_LIMIT_MS       60000u
#define REPORT_LIMIT_MS     (IMPORT_LIMIT_MS + 5000u)
#define DEVICE_LIMIT_MS     10000u
#define UNDO_LIMIT_MS       8000u
#define CHECK_MS            10u

/* From the link to the asker, once; the pipe's end is the link's end. */
struct report {
	uint32_t port;
	struct usbip_device device;
	struct failure failure;
};
_Static_assert(sizeof(struct report) <= PIPE_BUF, "is written whole");

/* The asker's ends. */
struct asker {
	int report_fd;
	int keeper_fd;
};

static void set_buffers(int fd)
{
	const int bytes = SOCKET_BUFFER_BYTES;

	/* Root may go above the system's limit, which is meant for networks. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) <
	    0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes,
				 sizeof(bytes));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) <
	    0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes,
				 sizeof(bytes));
}

/* Tries free ports until one takes the socket; others may be faster. */
static int attach_to_free_port(int fd, const struct usbip_device *device,
			       uint32_t *ret_port)
{
	struct vhci_ports ports;
	int r = vhci_read(VHCI_DIR, &ports);
	int i = 0;

	if (r < 0)
		return r;
	do {
		i = vhci_find_free(&ports, device->speed, (size_t)i);
		r = i;
		if (i < 0)
			break;
		*ret_port = ports.port[i++].number;
		r = vhci_attach(VHCI_DIR, *ret_port, fd, usbip_devid(device),
				device->speed);
	} while (r == -EBUSY);
	vhci_done(&ports);
	return r;
}

static enum exit_status port_failure(struct failure *failure, int r)
{
	if (r == -ENOSPC)
		return failure_set(failure, EXIT_NO_PORT,
				   "no port of vhci_hcd is free for this "
				   "speed; \"xusbip port\" shows who has them");
	if (r == -ENOENT)
		return failure_set(failure, EXIT_NO_VHCI,
				   "vhci_hcd is not loaded; load it with: "
				   "modprobe vhci-hcd");
	return failure_set(failure, EXIT_FAILED,
			   "vhci_hcd does not take the device: %s; the "
			   "kernel's log may say more",
			   strerror(-r));
}

static enum exit_status give_to_vhci(const struct usbip_device *device,
				     struct link_options *link,
				     uint32_t *ret_port,
				     struct failure *failure)
{
	int pair[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return failure_set(failure, EXIT_FAILED,
				   "no socket for vhci_hcd: %s",
				   strerror(errno));
	set_buffers(pair[0]);
	set_buffers(pair[1]);
	r = attach_to_free_port(pair[1], device, ret_port);
	(void)close(pair[1]); /* vhci_hcd has its own reference */
	if (r < 0) {
		(void)close(pair[0]);
		return port_failure(failure, r);
	}
	link->vhci_fd = pair[0];
	link->device = *device;
	return EXIT_OK;
}

static enum exit_status note_record(const struct attach_plan *plan,
				    const struct keeper *keeper, uint32_t port,
				    struct failure *failure)
{
	struct keeper_claim claim = { .port = port };
	struct record record;
	int r;

	if (plan->wish)
		(void)snprintf(claim.wish, sizeof(claim.wish), "%s",
			       plan->wish);
	record_set(&record, &plan->address, plan->busid);
	r = record_write(RECORD_DIR, port, &record, &claim.record);
	if (r < 0)
		return failure_set(failure, EXIT_FAILED,
				   "cannot write %s/port%u: %s", RECORD_DIR,
				   port, strerror(-r));
	r = keeper_tell(keeper, &claim);
	if (r < 0) {
		record_remove(RECORD_DIR, port);
		return failure_set(failure, EXIT_FAILED,
				   "the processes that clean up were killed");
	}
	return EXIT_OK;
}

/* All that the link does before it pumps. */
static enum exit_status prepare_link(const struct attach_plan *plan,
				     const struct keeper *keeper,
				     struct link_options *link,
				     struct report *report)
{
	struct import import = { .gateway = plan->gateway,
				 .deadline_ms = clock_ms() + IMPORT_LIMIT_MS,
				 .options = plan->options };
	enum exit_status status = import_open(&import, &plan->address);

	if (status == EXIT_OK)
		status = import_take(&import, plan->busid, &report->device);
	if (status != EXIT_OK) {
		report->failure = import.failure;
		import_close(&import);
		return status;
	}
	link->channel = import.channel;
	status = give_to_vhci(&report->device, link, &report->port,
			      &report->failure);
	if (status == EXIT_OK)
		status = note_record(plan, keeper, report->port,
				     &report->failure);
	return status;
}

_Noreturn static void run_link(const struct attach_plan *plan, int report_fd,
			       int keeper_fd)
{
	int keep[] = { report_fd, keeper_fd };
	struct link_options link = { .vhci_fd = -1 };
	struct report report = { 0 };
	struct keeper keeper;
	enum exit_status status;
	char who[ADDRESS_TEXT_CAP + USBIP_BUSID_BYTES];
	int r;

	process_detach("xusbip-link", keep, 2);
	(void)signal(SIGCHLD, SIG_IGN);
	(void)snprintf(who, sizeof(who), "%s %s", plan->gateway, plan->busid);
	link.who = who;
	r = keeper_start(&keeper, keeper_fd);
	(void)close(keeper_fd);
	log_to_syslog();
	if (r < 0)
		status = failure_set(&report.failure, EXIT_FAILED,
				     "cannot start the processes that clean "
				     "up: %s",
				     strerror(-r));
	else
		status = prepare_link(plan, &keeper, &link, &report);
	(void)process_send(report_fd, &report, sizeof(report));
	if (status == EXIT_OK)
		status = link_run(&link);
	_exit(status);
}

static int start_link(const struct attach_plan *plan, struct asker *ret_asker)
{
	int report[2];
	int keeper[2];
	pid_t pid;

	if (pipe2(report, O_CLOEXEC) < 0)
		return -errno;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, keeper) < 0) {
		int r = -errno;

		(void)close(report[0]);
		(void)close(report[1]);
		return r;
	}
	pid = fork();
	if (pid == 0)
		run_link(plan, report[1], keeper[1]);
	(void)close(report[1]);
	(void)close(keeper[1]);
	*ret_asker = (struct asker){ report[0], keeper[0] };
	return pid < 0 ? -errno : 0;
}

static enum exit_status await_report(const struct asker *asker,
				     struct report *ret_report,
				     struct failure *failure)
{
	int r = process_receive(asker->report_fd, ret_report,
				sizeof(*ret_report),
				clock_ms() + REPORT_LIMIT_MS);

	if (r == 1) {
		*failure = ret_report->failure;
		return failure->status;
	}
	if (r == -ETIMEDOUT)
		return failure_set(failure, EXIT_TIMEOUT,
				   "taking the device did not end within %u s",
				   REPORT_LIMIT_MS / 1000);
	return failure_set(failure, EXIT_FAILED,
			   "the link was killed before it had the device");
}

/* Has the kernel set up the device on that port? -EAGAIN: not yet. */
static int look_for_device(uint32_t number, char busid[VHCI_BUSID_BYTES])
{
	struct vhci_ports ports;
	const struct vhci_port *port;
	int r = vhci_read(VHCI_DIR, &ports);

	if (r < 0)
		return r;
	port = vhci_find(&ports, number);
	r = -EAGAIN;
	if (!port || port->state == VHCI_FREE || port->state == VHCI_ERROR)
		r = -ENODEV;
	else if (port->state == VHCI_USED &&
		 local_usb_is_ready(LOCAL_USB_DIR, port->busid))
		r = 0;
	if (r == 0)
		memcpy(busid, port->busid, VHCI_BUSID_BYTES);
	vhci_done(&ports);
	return r;
}

static enum exit_status await_device(const struct asker *asker,
				     struct attach_result *result,
				     struct failure *failure)
{
	uint64_t deadline_ms = clock_ms() + DEVICE_LIMIT_MS;
	int r;

	do {
		r = look_for_device(result->port, result->busid);
		if (r == -EAGAIN &&
		    process_has_ended(asker->report_fd, clock_ms() + CHECK_MS))
			r = -ENODEV;
	} while (r == -EAGAIN && clock_ms() < deadline_ms);
	if (r == 0)
		return EXIT_OK;
	if (r == -EAGAIN)
		return failure_set(failure, EXIT_TIMEOUT,
				   "the kernel did not set the device up "
				   "within %u s; its log may say why",
				   DEVICE_LIMIT_MS / 1000);
	return failure_set(failure, EXIT_FAILED,
			   "the device was lost while the kernel set it up; "
			   "the system's log and the kernel's say why");
}

static enum exit_status attach_now(const struct attach_plan *plan,
				   struct attach_result *ret_result,
				   struct failure *ret_failure)
{
	struct asker asker = { -1, -1 };
	struct report report;
	enum exit_status status;
	int r = start_link(plan, &asker);

	if (r < 0)
		return failure_set(ret_failure, EXIT_FAILED,
				   "cannot start a link: %s", strerror(-r));
	status = await_report(&asker, &report, ret_failure);
	if (status == EXIT_OK) {
		ret_result->port = report.port;
		ret_result->device = report.device;
		status = await_device(&asker, ret_result, ret_failure);
	}
	if (status == EXIT_OK) {
		(void)process_send(asker.keeper_fd, "", 1);
	} else {
		(void)shutdown(asker.keeper_fd, SHUT_WR);
		(void)process_has_ended(asker.keeper_fd,
					clock_ms() + UNDO_LIMIT_MS);
	}
	(void)close(asker.keeper_fd);
	(void)close(asker.report_fd);
	return status;
}

enum exit_status attach_run(const struct attach_plan *plan,
			    struct attach_result *ret_result,
			    struct failure *ret_failure)
{
	enum exit_status status;
	int turn = -1;

	/* Whose turn does not come tries all the same. */
	if (plan->address.kind == ADDRESS_XEN)
		turn = turn_take(clock_ms() + TURN_LIMIT_MS);
	status = attach_now(plan, ret_result, ret_failure);
	if (turn >= 0)
		(void)close(turn);
	return status;
}
