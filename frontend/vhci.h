/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhci.h - the ports of this kernel's vhci_hcd, through its sysfs folder: who
 * is on them, giving one a socket, taking it away again.
 *
 * The driver may have several controllers; their ports are numbered through,
 * and the first controller's folder speaks for all ("status", "status.1", ...).
 * Each controller has ports for SuperSpeed devices and ports for the others.
 * `dir` is that folder, VHCI_DIR but in tests.
 */
#ifndef VHCI_H
#define VHCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VHCI_DIR "/sys/devices/platform/vhci_hcd.0"

/* What the kernel can be built for at most: 128 controllers, 30 ports each. */
#define VHCI_MAX_PORTS   3840u
#define VHCI_BUSID_BYTES 32

/* enum usbip_device_status of Linux, the part of it that ports have. */
enum vhci_state {
	VHCI_FREE = 4,
	VHCI_STARTING = 5, /* has a socket, its device has no address yet */
	VHCI_USED = 6,
	VHCI_ERROR = 7,
};

struct vhci_port {
	uint32_t number;
	bool is_super;
	uint32_t state; /* enum vhci_state */
	uint32_t speed; /* enum usbip_speed; this and the next when VHCI_USED */
	uint32_t devid;
	char busid[VHCI_BUSID_BYTES]; /* of the local device; "0-0": none yet */
};

struct vhci_ports {
	size_t count;
	struct vhci_port *port; /* ascending numbers */
};

/* All ports: 0, -ENOENT if there is no vhci_hcd, or -errno. */
int vhci_read(const char *dir, struct vhci_ports *ret_ports);
void vhci_done(struct vhci_ports *ports);

/*
 * Adds the ports of one status attribute's text. -EBADMSG for a text that is
 * not a status, -E2BIG above VHCI_MAX_PORTS.
 */
int vhci_parse(const char *text, struct vhci_ports *ports);

/* The port of that number, or NULL. */
const struct vhci_port *vhci_find(const struct vhci_ports *ports,
				  uint32_t number);

/*
 * The first free port for a device of that speed, from the index on: its
 * index, or -ENOSPC.
 */
int vhci_find_free(const struct vhci_ports *ports, uint32_t speed,
		   size_t from_index);

/* Is it free? 1, 0, or -errno; -ENXIO if there is no such port. */
int vhci_is_free(const char *dir, uint32_t number);

/*
 * Hands the connected stream socket to the port. -EBUSY: somebody was faster.
 * Kernels that refuse SuperSpeedPlus get SuperSpeed.
 */
int vhci_attach(const char *dir, uint32_t number, int fd, uint32_t devid,
		uint32_t speed);

/* Asks for the port's end, which comes later: 0 or -errno. */
int vhci_detach(const char *dir, uint32_t number);

/* "High Speed(480Mbps)" and "Port in Use", as `usbip port` says it. */
const char *vhci_speed_words(uint32_t speed);
const char *vhci_state_words(uint32_t state);

#endif
