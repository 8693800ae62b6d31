/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wish.h - a device that is to stay attached (standing.h): by whom it is given
 * and how it is known there. A wish is an attach section of the configuration,
 * or a file of its own that `xusbip attach --persist` has written, in the same
 * words; agent_config.h reads both.
 */
#ifndef WISH_H
#define WISH_H

#include <stdbool.h>
#include <stdint.h>

#include "vchan-transport/address.h"
#include "vchan-transport/tls.h"
#include "vchan-transport/usbip.h"

/* Unless the environment's XUSBIP_WISH_DIR says. */
#define WISH_DIR        "/var/lib/xusbip/attach"

#define WISH_MAX        32
#define WISH_NAME_BYTES 32

struct wish {
	char name[WISH_NAME_BYTES];
	bool is_section; /* of the configuration; otherwise a file */
	struct address gateway;
	char pin[TLS_PIN_TEXT_BYTES];  /* empty: none */
	char busid[USBIP_BUSID_BYTES]; /* empty: wherever it is */
	uint16_t vendor;               /* with the product 0: of any kind */
	uint16_t product;
};

const char *wish_dir(void);

/* Letters, digits, - and _, the first one no -; short enough? */
bool wish_is_name(const char *text);
/* The name of what is asked for at the command line: the same each time. */
void wish_set_name(struct wish *wish);

/* Do both ask for the same, from the same, under the same name? */
bool wish_is_same(const struct wish *a, const struct wish *b);

/* "1-1.2 0781:5581", without what is not known. */
#define WISH_DEVICE_BYTES (USBIP_BUSID_BYTES + 10)
void wish_name_device(const struct wish *wish,
		      char text[static WISH_DEVICE_BYTES]);

/* Its file, for the administrator only: 0 or -errno. */
int wish_write(const struct wish *wish);
/* 0, -ENOENT or -errno. */
int wish_remove(const char *name);

#endif
