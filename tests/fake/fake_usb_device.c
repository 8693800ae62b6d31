/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fake_usb_device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENDPOINT(address, attributes, max_packet) \
	7, 5, (address), (attributes), (max_packet)&0xff, (max_packet) >> 8, 1

static const uint8_t descriptor_bytes[] = {
	/* device */
	18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x34, 0x12, 0x78, 0x56, 0, 1, 0, 0, 0,
	1,
	/* configuration 1: two interfaces; it could wake the host */
	9, 2, 85, 0, 2, 1, 0, 0xa0, 50,
	/* interface 0 */
	9, 4, 0, 0, 6, 0xff, 0, 0, 0, ENDPOINT(0x81, 2, 512),
	ENDPOINT(0x02, 2, 512), ENDPOINT(0x83, 3, 64), ENDPOINT(0x04, 3, 64),
	ENDPOINT(0x85, 1, 1024), ENDPOINT(0x06, 1, 1024),
	/* interface 1, alternate settings 0 and 1 */
	9, 4, 1, 0, 0, 0xff, 0, 0, 0, 9, 4, 1, 1, 1, 0xff, 0, 0, 0,
	ENDPOINT(0x87, 2, 512)
};

uint8_t fake_usb_byte(size_t n)
{
	uint8_t byte = (uint8_t)(n * 31 + (n >> 8) * 7 + 1);

	return byte == FAKE_USB_POISON ? 0 : byte;
}

static struct fake_usb_device *fake_of(struct usb_device *d)
{
	return (struct fake_usb_device *)d;
}

__attribute__((format(printf, 2, 3))) static void
note(struct fake_usb_device *f, const char *format, ...)
{
	size_t used = strlen(f->journal);
	va_list args;

	if (!f->keeps_journal)
		return;
	va_start(args, format);
	(void)vsnprintf(f->journal + used, sizeof(f->journal) - used, format,
			args);
	va_end(args);
}

static int fake_submit(struct usb_device *d, struct urb *urb)
{
	struct fake_usb_device *f = fake_of(d);

	note(f, "submit %02x, ", urb->endpoint);
	f->num_submits++;
	if (f->submit_error != 0)
		return f->submit_error;
	if (f->num_held == FAKE_USB_MAX_HELD)
		return -ENOMEM;
	if (urb_is_device_to_host(urb) && urb->length > 0)
		memset(urb->data, FAKE_USB_POISON, urb->length);
	f->held[f->num_held++] = urb;
	if (f->is_instant)
		fake_usb_device_finish(f, urb, 0, urb->length);
	return 0;
}

static void fake_cancel(struct usb_device *d, struct urb *urb)
{
	struct fake_usb_device *f = fake_of(d);

	note(f, "cancel %02x, ", urb->endpoint);
	f->num_cancels++;
	if (f->is_cancelling)
		fake_usb_device_finish(f, urb, -ECONNRESET, 0);
}

static int fake_clear_halt(struct usb_device *d, uint8_t endpoint)
{
	note(fake_of(d), "clear_halt %02x, ", endpoint);
	return fake_of(d)->request_error;
}

static int fake_set_interface(struct usb_device *d, uint8_t number,
			      uint8_t alternate)
{
	note(fake_of(d), "set_interface %u %u, ", number, alternate);
	return fake_of(d)->request_error;
}

static int fake_set_configuration(struct usb_device *d, uint8_t value)
{
	note(fake_of(d), "set_configuration %u, ", value);
	return fake_of(d)->request_error;
}

static int fake_reset(struct usb_device *d)
{
	note(fake_of(d), "reset, ");
	return fake_of(d)->request_error;
}

static uint8_t *fake_buffer_alloc(struct usb_device *d, size_t bytes)
{
	struct fake_usb_device *f = fake_of(d);
	uint8_t *memory;

	if (f->is_out_of_memory)
		return NULL;
	memory = malloc(URB_HEADROOM + bytes);
	if (!memory)
		return NULL;
	f->memory_bytes += bytes;
	return memory + URB_HEADROOM;
}

static void fake_buffer_free(struct usb_device *d, uint8_t *data, size_t bytes)
{
	fake_of(d)->memory_bytes -= bytes;
	free(data - URB_HEADROOM);
}

static void fake_close(struct usb_device *d)
{
	fake_of(d)->num_closes++;
}

static const struct usb_device_ops ops = {
	.name = "fake",
	.submit = fake_submit,
	.cancel = fake_cancel,
	.clear_halt = fake_clear_halt,
	.set_interface = fake_set_interface,
	.set_configuration = fake_set_configuration,
	.reset = fake_reset,
	.buffer_alloc = fake_buffer_alloc,
	.buffer_free = fake_buffer_free,
	.close = fake_close,
};

void fake_usb_device_init(struct fake_usb_device *f)
{
	memset(f, 0, sizeof(*f));
	f->base.ops = &ops;
	f->base.configuration = 1;
	f->base.speed = USBIP_SPEED_HIGH;
	f->keeps_journal = true;
	if (descriptors_parse(&f->base.descriptors, descriptor_bytes,
			      sizeof(descriptor_bytes)) < 0)
		abort();
}

struct urb *fake_usb_device_find(struct fake_usb_device *f, uint8_t endpoint)
{
	for (size_t i = 0; i < f->num_held; i++) {
		if (f->held[i]->endpoint == endpoint)
			return f->held[i];
	}
	return NULL;
}

static void let_go(struct fake_usb_device *f, const struct urb *urb)
{
	size_t i = 0;

	while (i < f->num_held && f->held[i] != urb)
		i++;
	if (i == f->num_held)
		abort(); /* given back twice */
	f->num_held--;
	memmove(&f->held[i], &f->held[i + 1],
		(f->num_held - i) * sizeof(struct urb *));
}

void fake_usb_device_finish(struct fake_usb_device *f, struct urb *urb,
			    int status, size_t actual_length)
{
	let_go(f, urb);
	if (urb_is_device_to_host(urb) && urb->type != USB_ISOCHRONOUS) {
		for (size_t i = 0; i < actual_length; i++)
			urb->data[i] = fake_usb_byte(i);
	}
	urb->status = status;
	urb->actual_length = actual_length;
	urb_complete(urb);
}

void fake_usb_device_unplug(struct fake_usb_device *f)
{
	f->base.is_gone = true;
	f->submit_error = -ENODEV;
	while (f->num_held > 0)
		fake_usb_device_finish(f, f->held[0], -ESHUTDOWN, 0);
	if (f->base.on_gone)
		f->base.on_gone(f->base.on_gone_arg);
}
