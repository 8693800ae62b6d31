/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/vhci.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/sysfs.h"
#include "vchan-transport/usbip.h"

#define STATUS_BYTES 4097u

/* A word up to the next blank, if it fits: where it ends, or NULL. */
static const char *scan_word(const char *at, char *word, size_t cap)
{
	size_t length;

	while (*at == ' ')
		at++;
	length = strcspn(at, " \n");
	if (length == 0 || length >= cap)
		return NULL;
	memcpy(word, at, length);
	word[length] = '\0';
	return at + length;
}

/* "hs  0000 006 003 00010002 000003 3-1" */
static const char *scan_port(const char *at, struct vhci_port *port)
{
	struct {
		uint32_t *value;
		int base;
	} numbers[] = {
		{ &port->number, 10 },
		{ &port->state, 10 },
		{ &port->speed, 10 },
		{ &port->devid, 16 },
	};
	char hub[3];
	char socket[32];

	at = scan_word(at, hub, sizeof(hub));
	if (!at)
		return NULL;
	port->is_super = strcmp(hub, "ss") == 0;
	if (!port->is_super && strcmp(hub, "hs") != 0)
		return NULL;
	for (size_t i = 0; at && i < sizeof(numbers) / sizeof(*numbers); i++)
		at = sysfs_scan_number(at, numbers[i].base, numbers[i].value);
	if (!at)
		return NULL;
	at = scan_word(at, socket, sizeof(socket));
	if (!at)
		return NULL;
	return scan_word(at, port->busid, sizeof(port->busid));
}

static int add(struct vhci_ports *ports, const struct vhci_port *port)
{
	struct vhci_port *grown;

	if (ports->count >= VHCI_MAX_PORTS)
		return -E2BIG;
	grown = realloc(ports->port, (ports->count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	grown[ports->count++] = *port;
	ports->port = grown;
	return 0;
}

int vhci_parse(const char *text, struct vhci_ports *ports)
{
	const char *at = strchr(text, '\n');

	if (!at)
		return -EBADMSG;
	for (at++; *at != '\0'; at++) {
		struct vhci_port port = { 0 };
		int r;

		at = scan_port(at, &port);
		if (!at || *at != '\n')
			return -EBADMSG;
		r = add(ports, &port);
		if (r < 0)
			return r;
	}
	return 0;
}

int vhci_read(const char *dir, struct vhci_ports *ret_ports)
{
	struct vhci_ports ports = { 0 };
	char text[STATUS_BYTES];
	char name[24] = "status";
	int r = 0;

	for (unsigned i = 1; r == 0; i++) {
		ssize_t n = sysfs_read(dir, name, text, sizeof(text));

		/* The first status that is not there ends the controllers. */
		if (n == -ENOENT && i > 1)
			break;
		r = n < 0 ? (int)n : vhci_parse(text, &ports);
		(void)snprintf(name, sizeof(name), "status.%u", i);
	}
	if (r < 0) {
		vhci_done(&ports);
		return r;
	}
	*ret_ports = ports;
	return 0;
}

void vhci_done(struct vhci_ports *ports)
{
	free(ports->port);
	*ports = (struct vhci_ports){ 0 };
}

const struct vhci_port *vhci_find(const struct vhci_ports *ports,
				  uint32_t number)
{
	for (size_t i = 0; i < ports->count; i++) {
		if (ports->port[i].number == number)
			return &ports->port[i];
	}
	return NULL;
}

int vhci_find_free(const struct vhci_ports *ports, uint32_t speed,
		   size_t from_index)
{
	bool is_super = speed == USBIP_SPEED_SUPER ||
			speed == USBIP_SPEED_SUPER_PLUS;

	for (size_t i = from_index; i < ports->count; i++) {
		if (ports->port[i].is_super == is_super &&
		    ports->port[i].state == VHCI_FREE)
			return (int)i;
	}
	return -ENOSPC;
}

int vhci_is_free(const char *dir, uint32_t number)
{
	struct vhci_ports ports;
	const struct vhci_port *port;
	int r = vhci_read(dir, &ports);

	if (r < 0)
		return r;
	port = vhci_find(&ports, number);
	r = port ? port->state == VHCI_FREE : -ENXIO;
	vhci_done(&ports);
	return r;
}

static int attach_at(const char *dir, uint32_t number, int fd, uint32_t devid,
		     uint32_t speed)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "%u %d %u %u", number, fd, devid,
		       speed);
	return sysfs_write(dir, "attach", text);
}

int vhci_attach(const char *dir, uint32_t number, int fd, uint32_t devid,
		uint32_t speed)
{
	int r = attach_at(dir, number, fd, devid, speed);

	if (r == -EINVAL && speed == USBIP_SPEED_SUPER_PLUS)
		r = attach_at(dir, number, fd, devid, USBIP_SPEED_SUPER);
	return r;
}

int vhci_detach(const char *dir, uint32_t number)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%u", number);
	return sysfs_write(dir, "detach", text);
}

const char *vhci_speed_words(uint32_t speed)
{
	switch ((enum usbip_speed)speed) {
	case USBIP_SPEED_UNKNOWN:
		break;
	case USBIP_SPEED_LOW:
		return "Low Speed(1.5Mbps)";
	case USBIP_SPEED_FULL:
		return "Full Speed(12Mbps)";
	case USBIP_SPEED_HIGH:
		return "High Speed(480Mbps)";
	case USBIP_SPEED_SUPER:
		return "Super Speed(5000Mbps)";
	case USBIP_SPEED_SUPER_PLUS:
		return "Super Speed Plus(10000Mbps)";
	}
	return "Unknown Speed";
}

const char *vhci_state_words(uint32_t state)
{
	switch ((enum vhci_state)state) {
	case VHCI_FREE:
		return "Port Available";
	case VHCI_STARTING:
		return "Port Initializing";
	case VHCI_USED:
		return "Port in Use";
	case VHCI_ERROR:
		return "Port Error";
	}
	return "Unknown Status";
}
