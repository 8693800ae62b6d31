/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/claim.h"
#include "gateway/engine.h"
#include "gateway/ipc.h"
#include "gateway/usb_device.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"
#include "vchan-transport/sandbox.h"
#include "vchan-transport/tls.h"

/* For the operation, from accepting to answering. */
#define OPERATION_LIMIT_MS 10000
/* For proofs, of that. */
#define HANDSHAKE_LIMIT_MS 5000
/* For the rings, so that a refusal still reaches who waits for them. */
#define GRANT_LIMIT_MS 5000
/* How long beyond that a peer may hold up one write to its bell. */
#define STUCK_S 2
/* For the one who had the device before to put it back. */
#define RETURN_LIMIT_MS 3000
#define RETURN_CHECK_MS 20
/* For the other side to read the last bytes. */
#define FINISH_LIMIT_MS 1000
/* The same after a device: less than a manager waits before it kills. */
#define END_LIMIT_MS 500
/* A loop that does not turn for so long is stuck in the device or the peer. */
#define WATCHDOG_S 30

#define NO_MANAGER "the manager does not answer"

struct session {
	const struct session_options *options;
	const char *peer;          /* for the log, escaped */
	char name[IPC_NAME_BYTES]; /* TLS: what that is after the handshake */
	struct loop *loop;
	struct channel *channel;
	uint64_t deadline_ms; /* of the operation */
	uint32_t hops;        /* gateways behind the peer */
	int lock_fd;          /* held until the process ends */
};

/* What a failed open means to a client. */
static enum usbip_status status_of(int error)
{
	switch (error) {
	case 0:
		return USBIP_ST_OK;
	case -EBUSY:
		return USBIP_ST_DEV_BUSY;
	case -ENODEV:
		return USBIP_ST_NODEV;
	default:
		return USBIP_ST_DEV_ERR;
	}
}

/* Where both ends have agreed on it, with a sentence. */
static int answer_refusal(struct session *s, uint16_t code,
			  enum usbip_status status, const char *why)
{
	uint8_t reply[USBIP_OP_BYTES + CHANNEL_REASON_BYTES] = { 0 };
	size_t num_bytes = USBIP_OP_BYTES;

	usbip_op_encode(reply, code, status);
	if (channel_tells_reasons(s->channel)) {
		(void)snprintf((char *)reply + USBIP_OP_BYTES,
			       CHANNEL_REASON_BYTES, "%s", why);
		num_bytes = sizeof(reply);
	}
	return channel_write_all(s->channel, reply, num_bytes, s->deadline_ms);
}

/* ------------------------------------------------------------------- list */

/* One device of OP_REP_DEVLIST behind the others; 0 or -errno. */
static int list_append(uint8_t **bytes, size_t *num_bytes,
		       const struct ipc_answer *a)
{
	size_t interfaces = a->device.num_interfaces;
	size_t more = USBIP_DEVICE_BYTES + interfaces * USBIP_INTERFACE_BYTES;
	uint8_t *grown = realloc(*bytes, *num_bytes + more);
	uint8_t *to;

	if (!grown)
		return -ENOMEM;
	*bytes = grown;
	to = grown + *num_bytes;
	usbip_device_encode(to, &a->device);
	to += USBIP_DEVICE_BYTES;
	for (size_t i = 0; i < interfaces; i++) {
		usbip_interface_encode(to, &a->interfaces[i]);
		to += USBIP_INTERFACE_BYTES;
	}
	*num_bytes += more;
	return 0;
}

/*
 * Asks the manager for all devices, as bytes of a reply; how many, or -errno.
 * -EACCES: it gives none to this peer, and says why in *ret_refusal.
 */
static int list_gather(struct session *s, uint8_t **bytes, size_t *num_bytes,
		       struct ipc_answer *ret_refusal)
{
	int manager = s->options->manager_fd;
	struct ipc_answer a;
	int no_fd;
	int count = 0;
	int r = ipc_ask_on_behalf(manager, IPC_LIST, NULL, s->hops);

	while (r == 0 && count < USBIP_MAX_DEVICES) {
		r = ipc_receive_answer(manager, &a, &no_fd, &no_fd,
				       OPERATION_LIMIT_MS);
		if (r == 0 && a.type == IPC_REFUSED) {
			*ret_refusal = a;
			r = -EACCES;
		}
		if (r < 0 || a.type != IPC_DEVICE)
			break;
		r = list_append(bytes, num_bytes, &a);
		count++;
	}
	return r < 0 ? r : count;
}

static int answer_list(struct session *s, int count, const uint8_t *bytes,
		       size_t num_bytes)
{
	uint8_t head[USBIP_OP_BYTES + sizeof(uint32_t)] = { 0 };
	int r;

	usbip_op_encode(head, USBIP_REP_DEVLIST, USBIP_ST_OK);
	head[USBIP_OP_BYTES + 2] = (uint8_t)(count >> 8);
	head[USBIP_OP_BYTES + 3] = (uint8_t)count;
	r = channel_write_all(s->channel, head, sizeof(head), s->deadline_ms);
	if (r == 0 && count > 0)
		r = channel_write_all(s->channel, bytes, num_bytes,
				      s->deadline_ms);
	return r;
}

static enum exit_status serve_list(struct session *s)
{
	struct ipc_answer refusal = { 0 };
	uint8_t *bytes = NULL;
	size_t num_bytes = 0;
	int count = list_gather(s, &bytes, &num_bytes, &refusal);
	int r = sandbox_narrow();

	if (r == 0 && count == -EACCES)
		r = answer_refusal(s, USBIP_REP_DEVLIST,
				   (enum usbip_status)refusal.status,
				   refusal.peer_reason);
	else if (r == 0 && count < 0)
		r = answer_refusal(s, USBIP_REP_DEVLIST, USBIP_ST_ERROR,
				   NO_MANAGER);
	else if (r == 0)
		r = answer_list(s, count, bytes, num_bytes);
	free(bytes);
	if (r < 0 || count < 0)
		log_warn("%s: list: %s", s->peer,
			 refusal.reason[0] != '\0'
				 ? refusal.reason
				 : strerror(r < 0 ? -r : -count));
	if (r < 0)
		return EXIT_FAILED;
	channel_finish(s->channel, clock_ms() + FINISH_LIMIT_MS);
	return count < 0 ? EXIT_FAILED : EXIT_OK;
}

/* ----------------------------------------------------------------- import */

static int open_remote(struct loop *loop, const struct ipc_answer *a, int fd,
		       struct usb_device **ret_device)
{
	const struct usb_remote_options options = {
		.devid = usbip_devid(&a->device),
		.next_seqnum = a->next_seqnum,
		.speed = a->device.speed,
		.configuration = a->device.configuration,
		.num_descriptor_bytes = a->num_descriptor_bytes,
		.who = a->device.busid,
	};

	return usb_remote_open(loop, fd, &options, ret_device);
}

static int open_device(struct loop *loop, const struct ipc_answer *a, int fd,
		       struct usb_device **ret_device)
{
	switch (a->kind) {
	case IPC_KIND_USB:
		return usb_libusb_open(loop, fd, ret_device);
	case IPC_KIND_DISK:
		return usb_disk_open(loop, fd, a->is_read_only,
				     a->is_high_speed, a->serial, ret_device);
	case IPC_KIND_ZERO:
		return usb_zero_open(loop, ret_device);
	case IPC_KIND_REMOTE:
		return open_remote(loop, a, fd, ret_device);
	default:
		return -EINVAL;
	}
}

static int answer_import(struct session *s, const struct usbip_device *device)
{
	uint8_t reply[USBIP_OP_BYTES + USBIP_DEVICE_BYTES];

	usbip_op_encode(reply, USBIP_REP_IMPORT, USBIP_ST_OK);
	usbip_device_encode(reply + USBIP_OP_BYTES, device);
	return channel_write_all(s->channel, reply, sizeof(reply),
				 s->deadline_ms);
}

/* `reason` for the log, `peer_reason` for the peer. */
static enum exit_status refuse_import(struct session *s, const char *busid,
				      enum usbip_status status,
				      const char *reason,
				      const char *peer_reason)
{
	log_warn("%s: %s is refused: %s", s->peer, busid, reason);
	if (answer_refusal(s, USBIP_REP_IMPORT, status, peer_reason) == 0)
		channel_finish(s->channel, clock_ms() + FINISH_LIMIT_MS);
	return status == USBIP_ST_DEV_BUSY ? EXIT_BUSY : EXIT_NO_DEVICE;
}

static void on_terminate(void *arg, int signo)
{
	(void)signo;
	engine_stop(arg);
}

static enum exit_status exit_status_of(enum engine_end end)
{
	switch (end) {
	case ENGINE_PEER_ENDED:
	case ENGINE_STOPPED:
		return EXIT_OK;
	case ENGINE_PEER_LOST:
		return EXIT_CANNOT_REACH;
	case ENGINE_BAD_CHANNEL:
	case ENGINE_VIOLATION:
		return EXIT_PROTOCOL;
	case ENGINE_DEVICE_GONE:
		return EXIT_NO_DEVICE;
	case ENGINE_STUCK:
		return EXIT_TIMEOUT;
	case ENGINE_RUNNING:
		break;
	}
	return EXIT_FAILED;
}

/* URBs, from the import's answer to the end of either side. */
static enum exit_status serve_device(struct session *s,
				     struct usb_device *device,
				     const struct ipc_answer *a)
{
	struct loop *loop = s->loop;
	const struct engine_options options = {
		.loop = loop,
		.channel = s->channel,
		.device = device,
		.devid = usbip_devid(&a->device),
		.budget_bytes = s->options->budget_bytes,
		.who = s->peer,
	};
	struct engine *engine;
	enum engine_end end;
	int r = engine_new(&options, &engine);

	if (r == 0)
		r = loop_on_signal(loop, SIGTERM, on_terminate, engine);
	if (r == 0)
		r = loop_set_watchdog(loop, WATCHDOG_S);
	if (r == 0)
		r = sandbox_narrow();
	if (r == 0)
		r = answer_import(s, &a->device);
	if (r < 0) {
		log_warn("%s: %s: %s", s->peer, a->device.busid, strerror(-r));
		return EXIT_FAILED;
	}
	log_info("%s: %s attached, %s channel", s->peer, a->device.busid,
		 channel_kind(s->channel));
	loop_run(loop);
	end = engine_end(engine);
	log_info("%s: %s detached: %s", s->peer, a->device.busid,
		 engine_end_sentence(engine));
	/* Buffers are still the kernel's: only the process's end frees them. */
	if (end == ENGINE_STUCK)
		_exit(EXIT_TIMEOUT);
	engine_free(engine);
	return exit_status_of(end);
}

/* Asks the manager, again while the device is on its way back. */
static int ask_for_device(struct session *s, const char *busid,
			  struct ipc_answer *ret_answer, int *ret_device_fd)
{
	const uint64_t deadline_ms = clock_ms() + RETURN_LIMIT_MS;
	int manager = s->options->manager_fd;
	int r;

	for (;;) {
		r = ipc_ask_on_behalf(manager, IPC_OPEN, busid, s->hops);
		if (r == 0)
			r = ipc_receive_answer(manager, ret_answer,
					       ret_device_fd, &s->lock_fd,
					       OPERATION_LIMIT_MS);
		if (r != 0 || ret_answer->type != IPC_REFUSED ||
		    !ret_answer->is_returning || clock_ms() >= deadline_ms)
			return r;
		(void)poll(NULL, 0, RETURN_CHECK_MS);
	}
}

static enum exit_status serve_import(struct session *s, const char *busid)
{
	struct ipc_answer a = { 0 };
	struct usb_device *device;
	enum exit_status status;
	int device_fd = -1;
	int r = ask_for_device(s, busid, &a, &device_fd);

	if (r != 0)
		return refuse_import(s, busid, USBIP_ST_ERROR, NO_MANAGER,
				     NO_MANAGER);
	if (a.type != IPC_OPENED)
		return refuse_import(s, busid, (enum usbip_status)a.status,
				     a.reason, a.peer_reason);
	r = open_device(s->loop, &a, device_fd, &device);
	if (r < 0)
		return refuse_import(s, busid, status_of(r), strerror(-r),
				     strerror(-r));
	/* The answer names what was asked for, byte for byte (usbip_attach.c). */
	memcpy(a.device.busid, busid, sizeof(a.device.busid));
	status = serve_device(s, device, &a);
	(void)shutdown(s->options->manager_fd, SHUT_RDWR);
	/* Said first, waited for last: a peer holds up no device. */
	if (status == EXIT_OK || status == EXIT_NO_DEVICE)
		(void)channel_end(s->channel);
	device->ops->close(device);
	if (status == EXIT_OK || status == EXIT_NO_DEVICE)
		channel_finish(s->channel, clock_ms() + END_LIMIT_MS);
	return status;
}

/* ------------------------------------------------------------- operations */

static enum exit_status no_request(struct session *s, int error)
{
	char told[HANDSHAKE_WHY_BYTES];
	const char *why = strerror(-error);
	unsigned ignored;

	if (error == -EPIPE)
		why = "closed by the peer";
	else if (error == -EPROTO &&
		 channel_reason(s->channel, clock_ms(), &ignored, told) == 0)
		why = told;
	log_info("%s: no request: %s", s->peer, why);
	if (error == -EPROTO)
		return EXIT_PROTOCOL;
	return error == -ETIMEDOUT ? EXIT_TIMEOUT : EXIT_CANNOT_REACH;
}

static enum exit_status serve_operation(struct session *s)
{
	uint8_t request[USBIP_OP_BYTES];
	uint8_t wire_busid[USBIP_BUSID_BYTES];
	char busid[USBIP_BUSID_BYTES];
	struct usbip_op op;
	int r = channel_read_all(s->channel, request, sizeof(request),
				 s->deadline_ms);

	if (r == 0) {
		usbip_op_decode(&op, request);
		s->hops = channel_tells_reasons(s->channel) ? op.status : 0;
		if (op.version == USBIP_VERSION && op.code == USBIP_REQ_DEVLIST)
			return serve_list(s);
		if (op.version != USBIP_VERSION ||
		    op.code != USBIP_REQ_IMPORT) {
			log_warn(
				"%s: refused: version %04x, code %04x is no USB/IP 1.1.1 request",
				s->peer, op.version, op.code);
			return EXIT_PROTOCOL;
		}
		r = channel_read_all(s->channel, wire_busid, sizeof(wire_busid),
				     s->deadline_ms);
	}
	if (r < 0)
		return no_request(s, r);
	usbip_busid_decode(busid, wire_busid);
	return serve_import(s, busid);
}

/*
 * What all guests together may have can be used up though this one has not had
 * its share: then smaller rings are better than none. Its share is charged with
 * the full ones.
 */
static int grant_rings(struct session *s, char why[static CHANNEL_WHY_BYTES])
{
	const struct session_options *o = s->options;
	const uint64_t deadline_ms = clock_ms() + GRANT_LIMIT_MS;
	size_t bytes = o->ring_bytes;
	int r = channel_vchan_serve(o->domid, o->path, bytes, deadline_ms,
				    &s->channel, why);

	while (r == -ENOSPC && bytes > CHANNEL_VCHAN_MIN_RING_BYTES) {
		bytes /= 2;
		r = channel_vchan_serve(o->domid, o->path, bytes, deadline_ms,
					&s->channel, why);
	}
	if (r == 0 && bytes < o->ring_bytes)
		log_warn("%s: rings of %zu bytes for want of pages to grant: "
			 "raise the limit in "
			 "/sys/module/xen_gntalloc/parameters/limit",
			 o->peer, bytes);
	return r;
}

/* Grants the rings and says so; the client's coming is its first byte's. */
static int grant_channel(struct session *s)
{
	const struct session_options *o = s->options;
	char why[CHANNEL_WHY_BYTES];
	int r = grant_rings(s, why);

	if (r < 0) {
		log_warn("%s: no channel: %s", o->peer, why);
		return r;
	}
	r = ipc_ask(o->manager_fd, IPC_GRANTED, NULL);
	if (r < 0)
		log_warn("%s: no channel: the manager does not listen: %s",
			 o->peer, strerror(-r));
	return r;
}

/* What a failed handshake means; the words are logged. */
static enum exit_status proof_status(int error)
{
	switch (error) {
	case -EKEYREJECTED:
		return EXIT_NOT_TRUSTED;
	case -EACCES:
		return EXIT_NOT_ALLOWED;
	case -EPROTO:
		return EXIT_PROTOCOL;
	case -ETIMEDOUT:
		return EXIT_TIMEOUT;
	default:
		return EXIT_CANNOT_REACH;
	}
}

/* From here on the peer is who its certificate says. */
static enum exit_status introduce(struct session *s,
				  const struct tls_peer *peer)
{
	int r = ipc_tell_peer(s->options->manager_fd, peer);

	ipc_name_peer(s->name, peer, s->options->peer);
	s->peer = s->name;
	if (r == 0)
		return EXIT_OK;
	log_warn("%s: " NO_MANAGER ": %s", s->peer, strerror(-r));
	return EXIT_FAILED;
}

/* Both sides prove who they are; our files are read before. */
static enum exit_status open_tls(struct session *s)
{
	const uint64_t deadline_ms = clock_ms() + HANDSHAKE_LIMIT_MS;
	const struct session_options *o = s->options;
	struct tls_context *context;
	struct tls_peer peer = { 0 };
	char why[CHANNEL_WHY_BYTES];
	int r = tls_context_new(TLS_GATEWAY, o->tls_dir, &context, why);

	if (r < 0) {
		log_error("%s: cannot be served: %s", s->peer, why);
		return EXIT_CONFIG;
	}
	r = sandbox_enter(SANDBOX_HANDSHAKE);
	if (r < 0) {
		log_error("%s: no sandbox: %s", s->peer, strerror(-r));
		tls_context_free(context);
		return EXIT_FAILED;
	}
	r = channel_tls_accept(o->peer_fd, context, deadline_ms, &s->channel,
			       &peer, why);
	tls_context_free(context);
	if (r < 0) {
		log_warn("%s: refused: %s", s->peer, why);
		return proof_status(r);
	}
	return introduce(s, &peer);
}

/* Of the other kinds; no byte of the peer is read. */
static enum exit_status open_plain(struct session *s)
{
	const struct session_options *o = s->options;
	int r;

	if (o->kind == ADDRESS_XEN) {
		r = grant_channel(s);
		if (r < 0)
			return r == -ENOSPC ? EXIT_BUSY : EXIT_FAILED;
	} else {
		r = channel_accept(o->kind, o->peer_fd, o->ring_bytes,
				   &s->channel);
		if (r < 0) {
			log_warn("%s: no channel: %s", s->peer, strerror(-r));
			return EXIT_CANNOT_REACH;
		}
	}
	r = sandbox_enter(SANDBOX_HANDSHAKE);
	if (r == 0)
		return EXIT_OK;
	log_error("%s: no sandbox: %s", s->peer, strerror(-r));
	return EXIT_FAILED;
}

static enum exit_status serve(struct session *s)
{
	enum exit_status status;
	int r = loop_new(&s->loop);

	if (r < 0) {
		log_error("%s: no event loop: %s", s->peer, strerror(-r));
		return EXIT_FAILED;
	}
	status = s->options->kind == ADDRESS_TLS ? open_tls(s) : open_plain(s);
	return status == EXIT_OK ? serve_operation(s) : status;
}

enum exit_status session_run(const struct session_options *options)
{
	struct session s = { .options = options,
			     .peer = options->peer,
			     .deadline_ms = clock_ms() + OPERATION_LIMIT_MS,
			     .lock_fd = -1 };
	enum exit_status status;

	/* Until the loop's watchdog takes over. */
	(void)alarm(OPERATION_LIMIT_MS / 1000 + STUCK_S);
	status = serve(&s);
	loop_free(s.loop);
	/* It is over, and says how: who is in a hurry need not kill it. */
	(void)signal(SIGTERM, SIG_IGN);
	channel_free(s.channel);
	(void)close(options->manager_fd);
	if (s.lock_fd >= 0)
		claim_settle(s.lock_fd);
	return status;
}
