/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that another gateway has: the engine's URBs go there as a client's
 * would, over a socket whose other end a dialer carries on (dial.h), and what
 * comes back is judged as a client would judge it.
 *
 * Its descriptors are those that the rules have judged; whoever asks for them is
 * answered here, so the other gateway cannot show another device later.
 *
 * A request that the engine waits for (a cleared halt, a setting, a reset) is a
 * control request like any other on the wire, as USB/IP clients send it, and
 * is waited for with a limit.
 */
#include "gateway/usb_remote_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/control.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"

/* For a request that the other gateway carries out: a reset takes its time. */
#define REQUEST_LIMIT_MS 10000

/* USB 2.0, 9.4. */
#define GET_DESCRIPTOR 6

static struct usb_remote *remote_of(struct usb_device *d)
{
	return (struct usb_remote *)d;
}

void remote_finish(struct usb_remote *r, struct remote_transfer *t, int status)
{
	struct urb *urb = t->urb;

	if (t->next)
		t->next->previous = t->previous;
	if (t->previous)
		t->previous->next = t->next;
	else
		r->in_flight = t->next;
	t->urb = NULL;
	urb->status = status;
	if (urb != &r->request)
		urb_complete(urb);
}

/* Nothing is told here: the caller may be inside of a call of the engine's. */
void remote_lose(struct usb_remote *r, const char *why)
{
	struct remote_transfer *t;

	if (r->base.is_gone)
		return;
	if (why)
		log_warn("%s: the gateway that has it is given up: %s", r->who,
			 why);
	r->base.is_gone = true;
	channel_watch_stop(&r->watch);
	remote_drop_messages(r);
	while ((t = r->in_flight)) {
		assert(t->urb);
		t->urb->actual_length = 0;
		remote_finish(r, t, -ESHUTDOWN);
	}
}

/* ---- URBs ---- */

/* Answers what the report has told; false if it is not asked for that. */
static bool answer_descriptor(const struct usb_remote *r, struct urb *urb)
{
	uint8_t type = urb->setup[3];
	const uint8_t *bytes;
	size_t n;

	if (urb->type != USB_CONTROL || urb->setup[0] != 0x80 ||
	    urb->setup[1] != GET_DESCRIPTOR ||
	    (type != DESCRIPTOR_DEVICE && type != DESCRIPTOR_CONFIGURATION))
		return false;
	n = descriptors_get(&r->base.descriptors, type, urb->setup[2], &bytes);
	urb->status = n > 0 ? 0 : -EPIPE;
	urb->actual_length = n < urb->length ? n : urb->length;
	if (urb->actual_length > 0)
		memcpy(urb->data, bytes, urb->actual_length);
	return true;
}

static int remote_submit(struct usb_device *d, struct urb *urb)
{
	struct usb_remote *r = remote_of(d);

	if (d->is_gone)
		return -ENODEV;
	if (answer_descriptor(r, urb)) {
		urb_complete(urb);
		return 0;
	}
	if (!urb->transfer)
		urb->transfer = calloc(1, sizeof(struct remote_transfer));
	if (!urb->transfer)
		return -ENOMEM;
	return remote_send_submit(r, urb->transfer, urb);
}

static void remote_cancel(struct usb_device *d, struct urb *urb)
{
	struct remote_transfer *t = urb->transfer;

	if (t->is_cancelled)
		return;
	t->is_cancelled = true;
	remote_send_unlink(remote_of(d), t);
}

static void transfer_done(struct remote_transfer *t)
{
	if (t)
		free(t->packet_bytes);
}

static void remote_urb_done(struct usb_device *d, struct urb *urb)
{
	(void)d;
	transfer_done(urb->transfer);
	free(urb->transfer);
	urb->transfer = NULL;
}

/* ---- requests that are waited for ---- */

static int request(struct usb_remote *r, enum control_kind kind, uint8_t value,
		   uint8_t index)
{
	const uint64_t deadline_ms = clock_ms() + REQUEST_LIMIT_MS;
	struct remote_transfer *t = &r->request_transfer;
	int error;

	if (r->base.is_gone)
		return -ENODEV;
	r->request = (struct urb){ .type = USB_CONTROL };
	control_make(r->request.setup, kind, value, index);
	error = remote_send_submit(r, t, &r->request);
	if (error < 0)
		return error;
	while (t->urb) {
		unsigned want = CHANNEL_READ;

		remote_write(r);
		remote_read(r);
		if (!t->urb || r->has_unread)
			continue;
		want |= r->is_blocked ? CHANNEL_WRITE : 0;
		error = channel_wait(r->channel, want, deadline_ms);
		if (error < 0)
			remote_lose(r, "a request was not answered in time");
	}
	return r->request.status;
}

/* What changes settings; the engine keeps the configuration's value. */
static int change_settings(struct usb_device *d, enum control_kind kind,
			   uint8_t value, uint8_t index)
{
	struct usb_remote *r = remote_of(d);
	int error = request(r, kind, value, index);

	if (error == 0 && kind == CONTROL_SET_INTERFACE)
		r->alternates[index] = value;
	else if (error == 0)
		memset(r->alternates, 0, sizeof(r->alternates));
	return error;
}

static int remote_clear_halt(struct usb_device *d, uint8_t endpoint)
{
	return request(remote_of(d), CONTROL_CLEAR_HALT, 0, endpoint);
}

static int remote_set_interface(struct usb_device *d, uint8_t number,
				uint8_t alternate)
{
	return change_settings(d, CONTROL_SET_INTERFACE, alternate, number);
}

static int remote_set_configuration(struct usb_device *d, uint8_t value)
{
	return change_settings(d, CONTROL_SET_CONFIGURATION, value, 0);
}

static int remote_reset(struct usb_device *d)
{
	return change_settings(d, CONTROL_RESET, 0, 1);
}

/* ---- the loop ---- */

static bool remote_has_work(void *arg)
{
	struct usb_remote *r = arg;

	if (r->base.is_gone)
		return !r->is_gone_told;
	if ((r->first && !r->is_blocked) || r->has_unread)
		return true;
	return channel_watch_arm(
		&r->watch, CHANNEL_READ | (r->is_blocked ? CHANNEL_WRITE : 0));
}

static void remote_work(void *arg)
{
	struct usb_remote *r = arg;

	if (!r->base.is_gone) {
		remote_write(r);
		remote_read(r);
	}
	if (!r->base.is_gone || r->is_gone_told)
		return;
	r->is_gone_told = true;
	if (r->base.on_gone)
		r->base.on_gone(r->base.on_gone_arg);
}

/* ---- life ---- */

static void remote_close(struct usb_device *d)
{
	struct usb_remote *r = remote_of(d);

	channel_watch_stop(&r->watch);
	remote_drop_messages(r);
	transfer_done(&r->request_transfer);
	channel_free(r->channel);
	urb_table_free(r->table);
	free(r->packed);
	free(r);
}

static const struct usb_device_ops remote_ops = {
	.name = "remote",
	.submit = remote_submit,
	.cancel = remote_cancel,
	.clear_halt = remote_clear_halt,
	.set_interface = remote_set_interface,
	.set_configuration = remote_set_configuration,
	.reset = remote_reset,
	.urb_done = remote_urb_done,
	.close = remote_close,
};

/* The manager has put them there, before anybody else had the socket. */
static int read_descriptors(struct usb_remote *r, int fd, size_t bytes)
{
	ssize_t n = recv(fd, r->descriptor_bytes, bytes, MSG_DONTWAIT);

	if (n != (ssize_t)bytes)
		return -EPROTO;
	return descriptors_parse(&r->base.descriptors, r->descriptor_bytes,
				 bytes);
}

static int start(struct usb_remote *r)
{
	int error;

	r->table = urb_table_new();
	if (!r->table)
		return -ENOMEM;
	error = channel_watch_start(&r->watch, r->loop, r->channel);
	if (error < 0)
		return error;
	r->source = (struct loop_source){ .has_work = remote_has_work,
					  .work = remote_work,
					  .arg = r };
	loop_add_source(r->loop, &r->source);
	return 0;
}

int usb_remote_open(struct loop *loop, int fd,
		    const struct usb_remote_options *options,
		    struct usb_device **ret_device)
{
	struct usb_remote *r =
		calloc(1, sizeof(*r) + options->num_descriptor_bytes);
	int error = -ENOMEM;

	if (r)
		error = read_descriptors(r, fd, options->num_descriptor_bytes);
	if (error < 0) {
		(void)close(fd);
		free(r);
		return error;
	}
	r->loop = loop;
	r->who = options->who;
	r->devid = options->devid;
	r->next_seqnum = options->next_seqnum;
	r->base.ops = &remote_ops;
	r->base.configuration = options->configuration;
	r->base.speed = options->speed;
	r->last = &r->first;
	r->has_unread = true;
	error = channel_socket_new(fd, &r->channel);
	if (error == 0)
		error = start(r);
	if (error < 0) {
		remote_close(&r->base);
		return error;
	}
	*ret_device = &r->base;
	return 0;
}
