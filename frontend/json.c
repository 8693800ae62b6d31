/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See json.h. json-c's objects own what is put into them; one that could not
 * be made is NULL, is printed as null, and is nothing to be freed.
 */
#include "frontend/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "vchan-transport/log.h"

static void put(json_object *to, const char *key, json_object *value)
{
	if (json_object_object_add(to, key, value) < 0)
		(void)json_object_put(value);
}

static void put_text(json_object *to, const char *key, const char *text)
{
	/* Each byte may become four. */
	char escaped[4 * ADDRESS_TEXT_CAP + 1];

	(void)log_escape(escaped, sizeof(escaped), text, strlen(text));
	put(to, key, json_object_new_string(escaped));
}

static void put_number(json_object *to, const char *key, uint64_t value)
{
	put(to, key, json_object_new_int64((int64_t)value));
}

static void put_hex(json_object *to, const char *key, int digits,
		    uint32_t value)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%0*" PRIx32, digits, value);
	put(to, key, json_object_new_string(text));
}

static const char *speed_name(uint32_t speed)
{
	static const char *const names[] = {
		[USBIP_SPEED_LOW] = "low",
		[USBIP_SPEED_FULL] = "full",
		[USBIP_SPEED_HIGH] = "high",
		[USBIP_SPEED_SUPER] = "super",
		[USBIP_SPEED_SUPER_PLUS] = "super-plus",
	};

	if (speed >= sizeof(names) / sizeof(names[0]) || !names[speed])
		return "unknown";
	return names[speed];
}

static json_object *new_device(const struct usbip_device *device)
{
	json_object *object = json_object_new_object();

	put_text(object, "busid", device->busid);
	put_text(object, "path", device->path);
	put_hex(object, "vendor", 4, device->vendor);
	put_hex(object, "product", 4, device->product);
	put_hex(object, "release", 4, device->release);
	put_text(object, "speed", speed_name(device->speed));
	put_hex(object, "class", 2, device->class);
	put_hex(object, "subclass", 2, device->subclass);
	put_hex(object, "protocol", 2, device->protocol);
	return object;
}

static json_object *new_entry(const struct import_entry *entry)
{
	json_object *object = new_device(&entry->device);
	json_object *list = json_object_new_array();

	for (size_t i = 0; i < entry->device.num_interfaces; i++) {
		json_object *interface = json_object_new_object();

		put_hex(interface, "class", 2, entry->interfaces[i].class);
		put_hex(interface, "subclass", 2,
			entry->interfaces[i].subclass);
		put_hex(interface, "protocol", 2,
			entry->interfaces[i].protocol);
		(void)json_object_array_add(list, interface);
	}
	put(object, "interfaces", list);
	return object;
}

/* Prints and frees the object. */
static enum exit_status print_as(json_object *object, int flags)
{
	const char *text = json_object_to_json_string_ext(
		object, flags | JSON_C_TO_STRING_NOSLASHESCAPE);
	int r = text ? printf("%s\n", text) : -1;

	(void)json_object_put(object);
	return r < 0 || fflush(stdout) != 0 ? EXIT_FAILED : EXIT_OK;
}

static enum exit_status print(json_object *object)
{
	return print_as(object,
			JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED);
}

static json_object *new_remote(const struct json_remote *remote)
{
	json_object *object = json_object_new_object();
	json_object *list = json_object_new_array();

	for (size_t i = 0; i < remote->count; i++)
		(void)json_object_array_add(list,
					    new_entry(&remote->entries[i]));
	put_text(object, "remote", remote->remote);
	put(object, "devices", list);
	return object;
}

enum exit_status json_print_remote(const struct json_remote *remote,
				   bool is_line)
{
	json_object *object = new_remote(remote);

	if (is_line)
		return print_as(object, JSON_C_TO_STRING_PLAIN);
	return print(object);
}

enum exit_status json_print_remotes(const struct json_remote *remotes,
				    size_t count)
{
	json_object *object = json_object_new_object();
	json_object *list = json_object_new_array();

	for (size_t i = 0; i < count; i++)
		(void)json_object_array_add(list, new_remote(&remotes[i]));
	put(object, "gateways", list);
	return print(object);
}

enum exit_status json_print_local(const struct usbip_device *devices,
				  size_t count)
{
	json_object *object = json_object_new_object();
	json_object *list = json_object_new_array();

	for (size_t i = 0; i < count; i++)
		(void)json_object_array_add(list, new_device(&devices[i]));
	put(object, "devices", list);
	return print(object);
}

enum exit_status json_print_attached(const char *remote,
				     const struct attach_result *result)
{
	json_object *object = json_object_new_object();

	put_text(object, "remote", remote);
	put_number(object, "port", result->port);
	put_text(object, "busid", result->busid);
	put(object, "device", new_device(&result->device));
	return print(object);
}

enum exit_status json_print_detached(uint32_t port)
{
	json_object *object = json_object_new_object();

	put_number(object, "port", port);
	return print(object);
}

enum exit_status json_print_done(const char *domain, const char *busid,
				 const char *result)
{
	json_object *object = json_object_new_object();

	if (domain)
		put_text(object, "domain", domain);
	if (busid)
		put_text(object, "busid", busid);
	put_text(object, "result", result);
	return print(object);
}

static json_object *new_port(const struct json_port *port)
{
	json_object *object = json_object_new_object();
	json_object *remote = json_object_new_object();

	put_number(object, "port", port->port->number);
	put_text(object, "state", vhci_state_words(port->port->state));
	put_text(object, "speed", speed_name(port->port->speed));
	put(object, "device", port->device ? new_device(port->device) : NULL);
	if (port->record) {
		put_text(remote, "host", port->record->host);
		put_text(remote, "port", port->record->service);
		put_text(remote, "busid", port->record->busid);
	}
	put_number(remote, "busnum", port->port->devid >> 16);
	put_number(remote, "devnum", port->port->devid & 0xffff);
	put(object, "remote", remote);
	return object;
}

static json_object *new_waiting(const struct standing_note *note)
{
	json_object *object = json_object_new_object();
	uint64_t now_ms = clock_ms();

	put_text(object, "name", note->name);
	put_text(object, "state", note->state);
	put_text(object, "remote", note->gateway);
	put_text(object, "device", note->device);
	put_text(object, "why", note->why);
	put_number(object, "since_s", (now_ms - note->since_ms) / 1000);
	if (note->next_ms > now_ms)
		put_number(object, "next_s",
			   (note->next_ms - now_ms + 999) / 1000);
	return object;
}

enum exit_status json_print_ports(const struct json_port *ports, size_t count,
				  const struct standing_note *waiting,
				  size_t num_waiting)
{
	json_object *waits = json_object_new_array();
	json_object *object = json_object_new_object();
	json_object *list = json_object_new_array();

	for (size_t i = 0; i < count; i++)
		(void)json_object_array_add(list, new_port(&ports[i]));
	put(object, "ports", list);
	for (size_t i = 0; i < num_waiting; i++)
		(void)json_object_array_add(waits, new_waiting(&waiting[i]));
	put(object, "waiting", waits);
	return print(object);
}
