/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_bed.h - a gateway's folder and a client's, and meetings of the two over
 * TCP: the gateway's end in a thread, the client's in the caller's.
 */
#ifndef TLS_BED_H
#define TLS_BED_H

#include "tests/fake/tls_files.h"
#include "vchan-transport/tls.h"

#define TLS_BED_HOST      "lab.example"
#define TLS_BED_CLIENT    "guest.example"
#define TLS_BED_DIR_BYTES 64
#define TLS_BED_LIMIT_MS  5000
#define TLS_BED_GW_SERIAL 0x2a
#define TLS_BED_SERIAL    0x2b

struct tls_bed {
	struct tls_files_ca ca;
	struct tls_files_ca other_ca;
	char gateway_dir[TLS_BED_DIR_BYTES];
	char client_dir[TLS_BED_DIR_BYTES];
	struct tls_context *gateway; /* read by the first meeting */
	struct tls_context *client;
	uint64_t limit_ms; /* of each handshake */
};

/* Both have good files; to be changed before the first meeting. */
void tls_bed_make(struct tls_bed *bed);
void tls_bed_free(struct tls_bed *bed);

/* One for each test of a program, as cmocka wants it: 0. */
int tls_bed_set_up(void **state);
int tls_bed_tear_down(void **state);

/* A deadline that only a fault reaches. */
uint64_t tls_bed_soon(void);

/* What a good certificate looks like. */
extern const struct tls_files_leaf tls_bed_gateway_leaf;
extern const struct tls_files_leaf tls_bed_client_leaf;

/* One end of a meeting: what came of it. */
struct tls_bed_end {
	int fd;
	int result;
	struct channel *channel; /* NULL: there is none */
	char why[CHANNEL_WHY_BYTES];
};

/* The gateway's end, which a thread serves. */
struct tls_bed_gateway {
	struct tls_bed_end end;
	struct tls_bed *bed;
	struct tls_peer peer;
	unsigned long thread;
};

/* Serves one end of a pair; the other one is the caller's to misuse. */
void tls_bed_serve(struct tls_bed *bed, struct tls_bed_gateway *gateway,
		   int *ret_fd);
/* Waits for the gateway's handshake to be over. */
void tls_bed_join(struct tls_bed_gateway *gateway);

/* A whole meeting; `wanted` NULL: the gateway by its name. */
void tls_bed_meet(struct tls_bed *bed, const struct tls_wanted *wanted,
		  struct tls_bed_gateway *ret_gateway,
		  struct tls_bed_end *ret_client);
void tls_bed_part(struct tls_bed_gateway *gateway, struct tls_bed_end *client);

#endif
