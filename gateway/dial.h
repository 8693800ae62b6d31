/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dial.h - the dialer: a process that the manager starts to ask another gateway
 * for its devices, or for one of them. It tells the manager what it was
 * answered, over a SOCK_SEQPACKET socketpair, one message a packet, structs in
 * host order. For a device it then waits for the word to go on, which comes with
 * a socket, and from there on carries bytes between that and the other gateway.
 *
 * So a session never has the keys of this host, and who talks to the network
 * never has the guest's channel. Neither chooses a device: the manager judges
 * what the dialer reports before any URB can flow. It trusts nothing in a
 * report: a dialer whose packets break the rules here is killed.
 */
#ifndef DIAL_H
#define DIAL_H

#include <stdint.h>

#include "gateway/policy.h"
#include "vchan-transport/exit_status.h"
#include "vchan-transport/failure.h"
#include "vchan-transport/urb_check.h"

/* How a dialer's process is called: dialers.c writes it, dial_main reads it. */
#define DIAL_ARGV_MARK "--dial"
enum dial_argv {
	DIAL_ARGV_MODE = 1,   /* DIAL_ARGV_MARK */
	DIAL_ARGV_MANAGER_FD, /* a number, as the two below */
	DIAL_ARGV_IS_DEBUG,
	DIAL_ARGV_LIMIT_MS, /* for all that comes before the word to go on */
	DIAL_ARGV_HOPS, /* gateways behind this question, this one counted */
	DIAL_ARGV_NAME, /* of the other gateway, in our configuration */
	DIAL_ARGV_ADDRESS,
	DIAL_ARGV_TLS_DIR,
	DIAL_ARGV_PIN,   /* "sha256:..." or empty */
	DIAL_ARGV_BUSID, /* there; empty: the list is asked for */
	DIAL_ARGV_COUNT,
};

/* A configuration's descriptors come in one control transfer. */
#define DIAL_MAX_CONFIGURATIONS 8
#define DIAL_DESCRIPTOR_BYTES          \
	(URB_DEVICE_DESCRIPTOR_BYTES + \
	 DIAL_MAX_CONFIGURATIONS * URB_MAX_SETUP_LENGTH)

enum dial_report_type {
	DIAL_DEVICE = 1, /* of a list */
	DIAL_END,        /* of a list */
	DIAL_TAKEN,      /* the device is ours there; its descriptors follow */
	DIAL_FAILED,
};

struct dial_report {
	uint32_t type;
	uint32_t status;               /* DIAL_FAILED: enum exit_status */
	uint32_t next_seqnum;          /* DIAL_TAKEN */
	uint32_t num_descriptor_bytes; /* DIAL_TAKEN; 0 otherwise */
	struct usbip_device device;    /* as it is called there */
	struct usbip_interface interfaces[USBIP_MAX_INTERFACES]; /* of a list */
	char serial[POLICY_SERIAL_BYTES];              /* DIAL_TAKEN; UTF-8 */
	char why[sizeof(((struct failure *)0)->text)]; /* DIAL_FAILED */
};

/* As many bytes of descriptors are sent as the report says. */
struct dial_packet {
	struct dial_report report;
	uint8_t descriptors[DIAL_DESCRIPTOR_BYTES];
};

/* The dialer's side: 0 or -errno. */
int dial_send(int sock, const struct dial_packet *packet);

/* The manager's: 1 with a valid packet, 0 at the end, -EBADMSG, -errno. */
int dial_receive(int sock, struct dial_packet *ret_packet);
/* The word to go on, with the socket that carries URBs: 0 or -errno. */
int dial_go(int sock, int data_fd);

/* Runs a dialer to its end. The exit status of the process. */
enum exit_status dial_main(int argc, char **argv);

#endif
