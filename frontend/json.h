/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.h - what --json prints, one object a command; the only user of json-c.
 * Numbers of USB are strings of hexadecimal digits, as lsusb shows them. All
 * text is escaped as in the log: printable ASCII only.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "frontend/attach.h"
#include "frontend/record.h"
#include "frontend/standing_note.h"
#include "frontend/vhci.h"
#include "vchan-transport/failure.h"
#include "vchan-transport/import.h"

/* What a gateway exports. */
struct json_remote {
	const char *remote;
	struct import_entry *entries;
	size_t count;
};

/*
 * {"remote": ..., "devices": [{"busid": ..., ..., "interfaces": [...]}]}
 * `is_line`: in one line, for it is one of several.
 */
enum exit_status json_print_remote(const struct json_remote *remote,
				   bool is_line);

/* {"gateways": [{"remote": ..., "devices": [...]}]} */
enum exit_status json_print_remotes(const struct json_remote *remotes,
				    size_t count);

/* {"devices": [...]} */
enum exit_status json_print_local(const struct usbip_device *devices,
				  size_t count);

/* {"remote": ..., "port": 0, "busid": local, "device": {...}} */
enum exit_status json_print_attached(const char *remote,
				     const struct attach_result *result);

/* {"port": 0} */
enum exit_status json_print_detached(uint32_t port);

/* {"domain": ..., "busid": ..., "result": ...}; what is NULL is left out */
enum exit_status json_print_done(const char *domain, const char *busid,
				 const char *result);

/* One port in use; what is NULL is not known. */
struct json_port {
	const struct vhci_port *port;
	const struct usbip_device *device;
	const struct record *record;
};

/*
 * {"ports": [{"port": 0, "state": ..., ..., "remote": {...}}],
 *  "waiting": [{"name": ..., "state": ..., "remote": ..., "device": ...,
 *		 "why": ..., "since_s": 0, "next_s": 0}]}
 * The last two are ages from now; next_s is missing if no try is planned.
 */
enum exit_status json_print_ports(const struct json_port *ports, size_t count,
				  const struct standing_note *waiting,
				  size_t num_waiting);

#endif
