/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ipc.h - what a session asks its manager: one SOCK_SEQPACKET socketpair each,
 * one message a packet, structs in host order (both ends are the same binary).
 *
 * The manager trusts nothing in a request: its size, type and NUL are checked
 * (ipc_receive_request), and a session that breaks this is killed.  A session may
 * ask any number of times until it has a device.  That it shuts the socket down
 * says that it is putting its device back.  It goes on when the manager is gone.
 */
#ifndef IPC_H
#define IPC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vchan-transport/tls.h"
#include "vchan-transport/usbip.h"

enum ipc_type {
	IPC_LIST = 1, /* -> IPC_DEVICE for each, then IPC_END; or IPC_REFUSED */
	IPC_OPEN,     /* -> IPC_OPENED with descriptors, or IPC_REFUSED */
	IPC_DEVICE,
	IPC_END,
	IPC_OPENED,
	IPC_REFUSED,
	IPC_GRANTED, /* Xen: the rings are there; no answer */
	IPC_PEER, /* TLS: who it has proved to be, first and once; no answer */
};

enum ipc_kind {
	IPC_KIND_USB,    /* descriptor 0: usbfs, opened read-write */
	IPC_KIND_DISK,   /* descriptor 0: the image */
	IPC_KIND_ZERO,   /* no device descriptor */
	IPC_KIND_REMOTE, /* descriptor 0: a socket; see usb_remote_open */
};

struct ipc_request {
	uint32_t type; /* IPC_LIST, IPC_OPEN, IPC_GRANTED or IPC_PEER */
	char busid[USBIP_BUSID_BYTES]; /* IPC_OPEN */
	uint32_t hops;        /* IPC_LIST, IPC_OPEN: gateways behind it */
	struct tls_peer peer; /* IPC_PEER */
};

struct ipc_answer {
	uint32_t type;
	uint32_t status; /* IPC_REFUSED: enum usbip_status */
	uint32_t kind;   /* IPC_OPENED: enum ipc_kind */
	bool is_read_only;
	bool is_high_speed;
	bool is_returning; /* IPC_REFUSED: it is busy, but not for long */
	struct usbip_device device; /* IPC_DEVICE, IPC_OPENED */
	struct usbip_interface interfaces[USBIP_MAX_INTERFACES];
	char reason[128]; /* IPC_REFUSED: for the log */
	/* IPC_REFUSED: for the peer, to whom rules and others are not told. */
	char peer_reason[CHANNEL_REASON_BYTES];
	char serial[64]; /* disk */
	/* IPC_KIND_REMOTE */
	uint32_t next_seqnum;
	uint32_t num_descriptor_bytes;
};

/* What both sides' logs call a peer that has proved who it is. */
#define IPC_NAME_BYTES 160
void ipc_name_peer(char name[static IPC_NAME_BYTES],
		   const struct tls_peer *peer, const char *address);

/* Session's side. 0 or -errno; an answer that does not come within the limit is -ETIMEDOUT. */
int ipc_ask(int sock, enum ipc_type type, const char *busid);
/* For a peer that asks for others, through so many gateways (protocol.md). */
int ipc_ask_on_behalf(int sock, enum ipc_type type, const char *busid,
		      unsigned hops);
int ipc_tell_peer(int sock, const struct tls_peer *peer);
/*
 * The next answer; with IPC_OPENED `*ret_device_fd` (or -1) and `*ret_lock_fd`,
 * the claim (claim.h), which is kept open to the end of the process.
 */
int ipc_receive_answer(int sock, struct ipc_answer *ret_answer,
		       int *ret_device_fd, int *ret_lock_fd, unsigned limit_ms);

/* Manager's side: 1 with a valid request, 0 at the end, -EBADMSG, -errno. */
int ipc_receive_request(int sock, struct ipc_request *ret_request);
int ipc_answer(int sock, const struct ipc_answer *answer, int device_fd,
	       int lock_fd);

/*
 * fork(2) for the manager: the child has the default signal actions, not the
 * loop's, whose pipe is shared, and is no member of the terminal's group, so
 * that Ctrl-C reaches it through the manager only.
 */
pid_t ipc_fork(void);

/* In such a child: this program anew, with these descriptors and no others. */
void __attribute__((noreturn))
ipc_exec(char *const argv[], const int *kept, size_t num_kept);

#endif
