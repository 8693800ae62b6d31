/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.h - the notes about attached devices that stock `usbip port` reads:
 * /var/run/vhci_hcd/portN, one line "host port busid".
 *
 * A note is removed by whoever ends its attachment. Ends are noticed late, and
 * ports are used again at once, so a note is known by its identity and not by
 * its name; whoever finds another one under the name leaves it alone.
 * `dir` is RECORD_DIR but in tests.
 */
#ifndef RECORD_H
#define RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "vchan-transport/address.h"
#include "vchan-transport/usbip.h"

#define RECORD_DIR "/var/run/vhci_hcd"

struct record {
	char host[ADDRESS_TEXT_CAP];
	char service[8];
	char busid[USBIP_BUSID_BYTES];
};

/* One writing of one record. */
struct record_id {
	dev_t device;
	ino_t inode;
	struct timespec written;
};

/*
 * What to note about a device from that address: plain host and port for tcp:,
 * as the stock tool does, so that its users see no difference; for the others
 * the kind stays in front. Blanks cannot be noted and become underscores.
 */
void record_set(struct record *ret_record, const struct address *gateway,
		const char *busid);

/* Writes it for that port in place of an older one: 0 or -errno. */
int record_write(const char *dir, uint32_t port, const struct record *record,
		 struct record_id *ret_id);

/* 0, -ENOENT, -EBADMSG for what is not a record, or -errno. */
int record_read(const char *dir, uint32_t port, struct record *ret_record);

/* Which writing the record of that port is: 0 or -errno. */
int record_identify(const char *dir, uint32_t port, struct record_id *ret_id);

/* Is the record of that port still this one? */
bool record_is(const char *dir, uint32_t port, const struct record_id *id);

/* Removes the record of that port, and the folder when it is empty. */
void record_remove(const char *dir, uint32_t port);

/*
 * Removes the records of free ports that were written at least min_age_ms ago
 * (a younger one may belong to an attachment that the status read before does
 * not show). Returns how many, or -errno.
 */
int record_sweep(const char *dir, const char *vhci_dir, unsigned min_age_ms);

#endif
