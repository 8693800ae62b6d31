/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/usb_virtual.h"

#include <errno.h>
#include <string.h>

/* bmRequestType */
#define DIR_IN         0x80
#define TYPE_MASK      0x60
#define TYPE_STANDARD  0x00
#define RECIPIENT_MASK 0x1f
#define FOR_DEVICE     0x00
#define FOR_INTERFACE  0x01
#define FOR_ENDPOINT   0x02

/* bRequest */
#define GET_STATUS        0
#define CLEAR_FEATURE     1
#define SET_FEATURE       3
#define SET_ADDRESS       5
#define GET_DESCRIPTOR    6
#define GET_CONFIGURATION 8
#define SET_CONFIGURATION 9
#define GET_INTERFACE     10
#define SET_INTERFACE     11
#define SET_SEL           48
#define SET_ISOCH_DELAY   49

/* Features of an endpoint and of a SuperSpeed device. */
#define ENDPOINT_HALT        0
#define U1_ENABLE            48
#define U2_ENABLE            49

#define DESCRIPTOR_STRING    3
#define DESCRIPTOR_QUALIFIER 6
#define DESCRIPTOR_BOS       15

#define QUALIFIER_BYTES      10
#define LANGUAGE_ENGLISH     0x0409

static uint16_t get_le16(const uint8_t *from)
{
	return (uint16_t)(from[0] | from[1] << 8);
}

static struct usb_virtual *virtual_of(struct usb_device *d)
{
	return (struct usb_virtual *)d;
}

/* ---- queues ------------------------------------------------------------- */

static unsigned endpoint_index(uint8_t address)
{
	return (address & 0x0fu) | (address & DIR_IN ? 16u : 0u);
}

struct usb_virtual_endpoint *usb_virtual_endpoint(struct usb_virtual *v,
						  uint8_t address)
{
	struct usb_virtual_endpoint *e = &v->endpoints[endpoint_index(address)];

	if (e->max_packet == 0 || e->address != address)
		return NULL;
	return e;
}

void usb_virtual_finish(struct usb_virtual_endpoint *endpoint, int status,
			size_t actual_length)
{
	struct urb *urb = endpoint->head;

	endpoint->head = urb->device_next;
	if (!endpoint->head)
		endpoint->tail = NULL;
	endpoint->progress = 0;
	urb->device_next = NULL;
	urb->status = status;
	urb->actual_length = actual_length;
	urb_complete(urb);
}

static void finish_all(struct usb_virtual_endpoint *e, int status)
{
	while (e->head)
		usb_virtual_finish(e, status, e->head->actual_length);
}

void usb_virtual_halt(struct usb_virtual_endpoint *endpoint)
{
	endpoint->is_halted = true;
	finish_all(endpoint, -EPIPE);
}

/* Inside the buffer each, and no more than it in all. */
static bool has_good_packets(const struct urb *urb)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < urb->num_packets; i++) {
		const struct usbip_iso_packet *p = &urb->packets[i];

		if (p->offset > urb->length ||
		    p->length > urb->length - p->offset)
			return false;
		total += p->length;
	}
	return total <= urb->length;
}

static int queue_urb(struct usb_virtual *v, struct urb *urb)
{
	struct usb_virtual_endpoint *e = usb_virtual_endpoint(v, urb->endpoint);

	if (!e || e->type != urb->type)
		return -EPIPE;
	if (e->is_halted)
		return -EPIPE;
	if (urb->type == USB_ISOCHRONOUS) {
		if (!has_good_packets(urb))
			return -EINVAL;
		for (uint32_t i = 0; i < urb->num_packets; i++) {
			urb->packets[i].actual_length = 0;
			urb->packets[i].status = -EXDEV;
		}
	}
	urb->status = 0;
	urb->actual_length = 0;
	urb->device_next = NULL;
	if (e->tail)
		e->tail->device_next = urb;
	else
		e->head = urb;
	e->tail = urb;
	v->model->on_queued(v, e);
	return 0;
}

static void virtual_cancel(struct usb_device *d, struct urb *urb)
{
	struct usb_virtual_endpoint *e =
		&virtual_of(d)->endpoints[endpoint_index(urb->endpoint)];
	struct urb *before = NULL;

	if (e->head == urb) {
		usb_virtual_finish(e, -ECONNRESET, urb->actual_length);
		return;
	}
	for (struct urb *u = e->head; u; u = u->device_next) {
		if (u == urb)
			break;
		before = u;
	}
	if (!before || before->device_next != urb)
		return;
	before->device_next = urb->device_next;
	if (e->tail == urb)
		e->tail = before;
	urb->device_next = NULL;
	urb->status = -ECONNRESET;
	urb_complete(urb);
}

/* ---- settings ----------------------------------------------------------- */

/*
 * Makes one endpoint what the settings say, with no URBs and not halted, if it
 * belongs to `interface` or belonged to it before; any one for interface -1.
 */
static void renew_endpoint(struct usb_virtual *v, uint8_t address,
			   int interface)
{
	struct usb_virtual_endpoint *e = &v->endpoints[endpoint_index(address)];
	struct descriptor_endpoint found = { 0 };
	bool is_there = descriptors_find_endpoint(&v->device.descriptors,
						  v->device.configuration,
						  v->alternates, address,
						  &found);
	bool was_its = e->max_packet != 0 && e->interface == interface;
	bool is_its = is_there && found.interface == interface;

	if (interface >= 0 && !was_its && !is_its)
		return;
	/* First, so that nothing new is taken while the old URBs leave. */
	e->max_packet = 0;
	finish_all(e, -ESHUTDOWN);
	*e = (struct usb_virtual_endpoint){
		.max_packet = is_there ? found.max_packet : 0,
		.address = address,
		.interface = found.interface,
		.type = found.type,
	};
}

static void renew_endpoints(struct usb_virtual *v, int interface)
{
	for (uint8_t number = 1; number < 16; number++) {
		renew_endpoint(v, number, interface);
		renew_endpoint(v, number | DIR_IN, interface);
	}
	v->model->on_settings(v);
}

static bool has_configuration(const struct descriptors *d, uint8_t value)
{
	uint8_t found;

	for (unsigned i = 0; descriptors_configuration(d, i, &found); i++)
		if (found == value)
			return true;
	return false;
}

static int virtual_set_configuration(struct usb_device *d, uint8_t value)
{
	struct usb_virtual *v = virtual_of(d);

	if (value != 0 && !has_configuration(&d->descriptors, value))
		return -EPIPE;
	d->configuration = value;
	memset(v->alternates, 0, sizeof(v->alternates));
	renew_endpoints(v, -1);
	return 0;
}

static bool has_setting(const struct usb_virtual *v, unsigned number,
			unsigned alternate)
{
	struct descriptor_interface interface;
	size_t cursor = 0;

	while (descriptors_next_interface(&v->device.descriptors,
					  v->device.configuration, &cursor,
					  &interface))
		if (interface.number == number &&
		    interface.alternate == alternate)
			return true;
	return false;
}

static bool has_interface(const struct usb_virtual *v, unsigned number)
{
	return number < DESCRIPTORS_MAX_INTERFACES && has_setting(v, number, 0);
}

static int virtual_set_interface(struct usb_device *d, uint8_t number,
				 uint8_t alternate)
{
	struct usb_virtual *v = virtual_of(d);

	if (!has_interface(v, number) || !has_setting(v, number, alternate))
		return -EPIPE;
	v->alternates[number] = alternate;
	renew_endpoints(v, number);
	return 0;
}

static int virtual_reset(struct usb_device *d)
{
	return virtual_set_configuration(d, d->configuration);
}

static int virtual_clear_halt(struct usb_device *d, uint8_t endpoint)
{
	struct usb_virtual *v = virtual_of(d);
	struct usb_virtual_endpoint *e;

	if ((endpoint & 0x7f) == 0)
		return 0;
	e = usb_virtual_endpoint(v, endpoint);
	if (!e)
		return -EPIPE;
	e->is_halted = false;
	if (v->model->on_halt_cleared)
		v->model->on_halt_cleared(v, e);
	return 0;
}

/* ---- control requests --------------------------------------------------- */

/* Each handler: bytes moved, at most request->length, or -EPIPE. */

static int reply(const struct usb_request *r, uint8_t *data, const void *bytes,
		 size_t num_bytes)
{
	size_t n = num_bytes < r->length ? num_bytes : r->length;

	if (n > 0) /* without data, there may be no memory */
		memcpy(data, bytes, n);
	return (int)n;
}

static int get_own_descriptor(const struct usb_virtual *v,
			      const struct usb_request *r, uint8_t *data)
{
	const uint8_t *bytes;
	size_t n = descriptors_get(&v->device.descriptors, r->value >> 8,
				   r->value & 0xff, &bytes);

	return n > 0 ? reply(r, data, bytes, n) : -EPIPE;
}

static int get_string(const struct usb_virtual *v, const struct usb_request *r,
		      uint8_t *data)
{
	static const uint8_t languages[] = { 4, DESCRIPTOR_STRING,
					     LANGUAGE_ENGLISH & 0xff,
					     LANGUAGE_ENGLISH >> 8 };
	uint8_t bytes[2 + 2 * USB_VIRTUAL_STRING_MAX] = { 0 };
	unsigned index = r->value & 0xff;
	size_t length;

	if (index == 0)
		return reply(r, data, languages, sizeof(languages));
	if (index > USB_VIRTUAL_STRINGS)
		return -EPIPE;
	length = strlen(v->strings[index - 1]);
	for (size_t i = 0; i < length; i++)
		bytes[2 + 2 * i] = (uint8_t)v->strings[index - 1][i];
	bytes[0] = (uint8_t)(2 + 2 * length);
	bytes[1] = DESCRIPTOR_STRING;
	return reply(r, data, bytes, bytes[0]);
}

static int get_descriptor(struct usb_virtual *v, const struct usb_request *r,
			  uint8_t *data)
{
	const struct usb_virtual_model *m = v->model;

	switch (r->value >> 8) {
	case DESCRIPTOR_DEVICE:
	case DESCRIPTOR_CONFIGURATION:
		return get_own_descriptor(v, r, data);
	case DESCRIPTOR_STRING:
		return get_string(v, r, data);
	case DESCRIPTOR_QUALIFIER:
		if (!m->qualifier)
			return -EPIPE;
		return reply(r, data, m->qualifier, QUALIFIER_BYTES);
	case DESCRIPTOR_BOS:
		if (!m->bos)
			return -EPIPE;
		return reply(r, data, m->bos, m->num_bos_bytes);
	default:
		return -EPIPE;
	}
}

static int get_status(struct usb_virtual *v, const struct usb_request *r,
		      uint8_t *data)
{
	const struct usb_virtual_endpoint *e;
	uint8_t status[2] = { 0 };

	switch (r->type & RECIPIENT_MASK) {
	case FOR_DEVICE:
		break;
	case FOR_INTERFACE:
		if (!has_interface(v, r->index))
			return -EPIPE;
		break;
	case FOR_ENDPOINT:
		if ((r->index & 0x7f) == 0)
			break;
		e = usb_virtual_endpoint(v, r->index & 0xff);
		if (!e)
			return -EPIPE;
		status[0] = e->is_halted;
		break;
	default:
		return -EPIPE;
	}
	return reply(r, data, status, sizeof(status));
}

static int change_feature(struct usb_virtual *v, const struct usb_request *r)
{
	uint8_t address = r->index & 0xff;
	struct usb_virtual_endpoint *e;

	if ((r->type & RECIPIENT_MASK) == FOR_DEVICE &&
	    (r->value == U1_ENABLE || r->value == U2_ENABLE))
		return v->device.speed >= USBIP_SPEED_SUPER ? 0 : -EPIPE;
	if ((r->type & RECIPIENT_MASK) != FOR_ENDPOINT ||
	    r->value != ENDPOINT_HALT)
		return -EPIPE;
	if (r->request == CLEAR_FEATURE)
		return virtual_clear_halt(&v->device, address);
	e = usb_virtual_endpoint(v, address);
	if (!e || e->type == USB_ISOCHRONOUS)
		return -EPIPE;
	usb_virtual_halt(e);
	return 0;
}

static int standard_in(struct usb_virtual *v, const struct usb_request *r,
		       uint8_t *data)
{
	switch (r->request) {
	case GET_STATUS:
		return get_status(v, r, data);
	case GET_DESCRIPTOR:
		if ((r->type & RECIPIENT_MASK) != FOR_DEVICE)
			return -EPIPE;
		return get_descriptor(v, r, data);
	case GET_CONFIGURATION:
		return reply(r, data, &v->device.configuration, 1);
	case GET_INTERFACE:
		if (!has_interface(v, r->index))
			return -EPIPE;
		return reply(r, data, &v->alternates[r->index], 1);
	default:
		return -EPIPE;
	}
}

static int standard_out(struct usb_virtual *v, const struct usb_request *r)
{
	switch (r->request) {
	case CLEAR_FEATURE:
	case SET_FEATURE:
		return change_feature(v, r);
	case SET_ADDRESS:
		return 0;
	case SET_CONFIGURATION:
		return virtual_set_configuration(&v->device, r->value & 0xff);
	case SET_INTERFACE:
		if (r->index > 0xff || r->value > 0xff)
			return -EPIPE;
		return virtual_set_interface(&v->device, (uint8_t)r->index,
					     (uint8_t)r->value);
	case SET_SEL:
	case SET_ISOCH_DELAY:
		if (v->device.speed < USBIP_SPEED_SUPER)
			return -EPIPE;
		return r->length;
	default:
		return -EPIPE;
	}
}

static int control(struct usb_virtual *v, struct urb *urb)
{
	struct usb_request r = {
		.type = urb->setup[0],
		.request = urb->setup[1],
		.value = get_le16(urb->setup + 2),
		.index = get_le16(urb->setup + 4),
		.length = get_le16(urb->setup + 6),
	};
	int moved = -EPIPE;

	/* The guest may say one length here and another one in its URB. */
	if (r.length > urb->length)
		r.length = (uint16_t)urb->length;
	if ((r.type & TYPE_MASK) != TYPE_STANDARD) {
		if (v->model->control)
			moved = v->model->control(v, &r, urb->data);
	} else if (r.type & DIR_IN) {
		moved = standard_in(v, &r, urb->data);
	} else {
		moved = standard_out(v, &r);
	}
	if (moved < 0)
		return moved;
	urb->status = 0;
	urb->actual_length = (size_t)moved;
	urb_complete(urb);
	return 0;
}

/* ---- the device --------------------------------------------------------- */

static int virtual_submit(struct usb_device *d, struct urb *urb)
{
	if (urb->type == USB_CONTROL)
		return control(virtual_of(d), urb);
	return queue_urb(virtual_of(d), urb);
}

static void virtual_close(struct usb_device *d)
{
	struct usb_virtual *v = virtual_of(d);

	v->model->free(v);
}

static void copy_string(char to[static USB_VIRTUAL_STRING_MAX],
			const char *from)
{
	size_t i;

	for (i = 0; i < USB_VIRTUAL_STRING_MAX - 1 && from[i] != '\0'; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[i] = '\0';
}

int usb_virtual_init(struct usb_virtual *v,
		     const struct usb_virtual_model *model,
		     const char *const strings[static USB_VIRTUAL_STRINGS])
{
	uint8_t first;
	int r;

	v->model = model;
	v->ops = (struct usb_device_ops){
		.name = model->name,
		.submit = virtual_submit,
		.cancel = virtual_cancel,
		.clear_halt = virtual_clear_halt,
		.set_interface = virtual_set_interface,
		.set_configuration = virtual_set_configuration,
		.reset = virtual_reset,
		.close = virtual_close,
	};
	v->device.ops = &v->ops;
	v->device.speed = model->speed;
	for (size_t i = 0; i < USB_VIRTUAL_STRINGS; i++)
		copy_string(v->strings[i], strings[i]);
	r = descriptors_parse(&v->device.descriptors, model->descriptors,
			      model->num_descriptor_bytes);
	if (r < 0)
		return r;
	if (!descriptors_configuration(&v->device.descriptors, 0, &first))
		return -EINVAL;
	return virtual_set_configuration(&v->device, first);
}
