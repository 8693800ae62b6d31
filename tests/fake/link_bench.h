/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link_bench.h - a link in a process of its own between a socket and a channel,
 * both of whose other ends a test holds: it is vhci_hcd and the gateway at once.
 * Byte streams are built first and then passed, so that what comes out can be
 * compared byte for byte with what went in.
 */
#ifndef LINK_BENCH_H
#define LINK_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "frontend/link.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/usbip.h"

#define LINK_BENCH_DEVID 0x00010002
/* What the import said. */
#define LINK_BENCH_DEVICE                                                      \
	{                                                                      \
		.busnum = 1, .devnum = 2, .vendor = 0x1050, .product = 0x0407, \
		.release = 0x0543, .class = 0, .subclass = 0, .protocol = 0    \
	}
#define LINK_BYTES_CAP (11u << 20)

/* A stream to pass; too long a one aborts. */
struct link_bytes {
	uint8_t bytes[LINK_BYTES_CAP];
	size_t used;
	size_t sent;
	size_t got;
};

void link_bytes_clear(struct link_bytes *s);
void link_put_header(struct link_bytes *s, const struct usbip_header *h);
void link_put_data(struct link_bytes *s, size_t n);
void link_put_bytes(struct link_bytes *s, const uint8_t *bytes, size_t n);
void link_put_packets(struct link_bytes *s,
		      const struct usbip_iso_packet *packets, uint32_t n);

/* Whole commands, for endpoints 0x81 and 0x02 unless they say otherwise. */
void link_submit_in(struct link_bytes *s, uint32_t seqnum, uint32_t length);
void link_submit_out(struct link_bytes *s, uint32_t seqnum, uint32_t length);
void link_submit_iso(struct link_bytes *s, uint32_t seqnum, uint8_t endpoint,
		     uint32_t length, const struct usbip_iso_packet *packets,
		     uint32_t n);
void link_unlink(struct link_bytes *s, uint32_t seqnum, uint32_t target);

/* Whole replies. */
void link_ret_submit_in(struct link_bytes *s, uint32_t seqnum, int status,
			uint32_t actual_length);
void link_ret_submit_out(struct link_bytes *s, uint32_t seqnum, int status,
			 uint32_t actual_length);
void link_ret_iso(struct link_bytes *s, uint32_t seqnum, bool is_in,
		  const struct usbip_iso_packet *packets, uint32_t n);
void link_ret_unlink(struct link_bytes *s, uint32_t seqnum, int status);

struct link_bench {
	pid_t pid; /* 0: not running */
	int vhci;
	int links_vhci; /* until it is started */
	struct channel *gateway;
	struct channel *links_channel; /* until it is started */
};

int link_bench_prepare(struct link_bench *b, bool is_shm);
int link_bench_start(struct link_bench *b);
void link_bench_close(struct link_bench *b);

/*
 * All that pass or wait give up after some seconds, and then say false, as they
 * do when other bytes come out than went in.
 */
bool link_bench_pass_commands(struct link_bench *b, struct link_bytes *s);
bool link_bench_pass_replies(struct link_bench *b, struct link_bytes *s);
/* First so many bytes; the rest when the link has done with them. */
bool link_bench_pass_commands_cut(struct link_bench *b, struct link_bytes *s,
				  size_t cut);
bool link_bench_pass_replies_cut(struct link_bench *b, struct link_bytes *s,
				 size_t cut);
/* Nobody reads until nothing more can be written; then all passes. */
bool link_bench_stall_commands(struct link_bench *b, struct link_bytes *s);
bool link_bench_stall_replies(struct link_bench *b, struct link_bytes *s);
/* The first half of that. */
bool link_bench_fill_commands(struct link_bench *b, struct link_bytes *s);
bool link_bench_fill_replies(struct link_bench *b, struct link_bytes *s);

/* Before the start: what the socket takes; a stall then goes on from there. */
bool link_bench_queue_commands(struct link_bench *b, struct link_bytes *s);

/* One side only. */
bool link_bench_send_all(struct link_bench *b, struct link_bytes *s);
bool link_bench_reply_all(struct link_bench *b, struct link_bytes *s);
bool link_bench_expect_commands(struct link_bench *b, struct link_bytes *s);
bool link_bench_expect_replies(struct link_bench *b, struct link_bytes *s);

/* Nothing more came out on either side, and the link sleeps. */
bool link_bench_is_silent(struct link_bench *b);
/* It sleeps and goes on sleeping. */
bool link_bench_is_asleep(struct link_bench *b);

/* Once it sleeps, it is stopped: what is sent then comes to it all at once. */
bool link_bench_freeze(struct link_bench *b);
void link_bench_thaw(struct link_bench *b);

/* The gateway's process is killed, as far as the link can tell. */
void link_bench_lose_gateway(struct link_bench *b);

/* How what the gateway reads ends, behind all that was read before. */
int link_bench_gateway_end(struct link_bench *b);
/* vhci reads the end, and no byte before it. */
bool link_bench_vhci_ended(struct link_bench *b);
/* The exit status of the link; -1: it was killed, or did not end. */
int link_bench_wait(struct link_bench *b);

#endif
