/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_usbfs.h - one device of usbfs, played inside a test's process, beneath
 * the real libusb and our own transfers. The descriptor is a pipe's write end, since its readiness is
 * the same as usbfs's: POLLOUT while there is something to reap, POLLERR when
 * the device is gone. The test hands over the calls that are made on that
 * descriptor, and plays the device: it looks at what was submitted, and finishes
 * it. What is asked of the kernel besides transfers goes to a journal.
 */
#ifndef FAKE_USBFS_H
#define FAKE_USBFS_H

#include <linux/usbdevice_fs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FAKE_USBFS_MAX_URBS 128
#define FAKE_USBFS_MAX_MAPS 64

struct fake_usbfs_map {
	void *start;
	size_t bytes;
};

struct fake_usbfs {
	/* The device, as the test wants it. */
	const uint8_t *descriptors;
	size_t num_descriptor_bytes;
	int speed; /* enum usb_device_speed of Linux */
	bool cannot_gather;
	uint8_t configuration;
	uint32_t drivers; /* bit n: interface n has a driver of the kernel */
	uint32_t probed;  /* gets a driver with each configuration */
	uint32_t others;  /* bit n: another program has interface n */
	/* An errno: what such a request fails with; 0: it works. */
	int submit_error; /* once, of the URB after that many: */
	unsigned submit_error_after;
	int set_interface_error;
	int reset_error;

	bool is_quiet; /* nobody is woken when something ends */

	/* What came of it. */
	unsigned num_reaps; /* asked for, with something there or not */
	char journal[2048]; /* "detach 0, claim 0, " */
	struct usbdevfs_urb *submitted[FAKE_USBFS_MAX_URBS];
	size_t num_submitted;
	struct fake_usbfs_map maps[FAKE_USBFS_MAX_MAPS];
	size_t num_maps;

	int fd; /* usbfs; the test's to give away */
	int reader;
	off_t offset;
	bool is_gone;
	struct usbdevfs_urb *done[FAKE_USBFS_MAX_URBS];
	size_t num_done;
};

/* Zeroes *f and makes fd; the test sets the device afterwards. */
int fake_usbfs_init(struct fake_usbfs *f, const uint8_t *descriptors,
		    size_t num_bytes);
/* fd is not closed. */
void fake_usbfs_done(struct fake_usbfs *f);

/* The calls on fd, with their results and errno. */
int fake_usbfs_ioctl(struct fake_usbfs *f, unsigned long request, void *arg);
ssize_t fake_usbfs_read(struct fake_usbfs *f, void *to, size_t bytes,
			off_t *offset);
void *fake_usbfs_map(struct fake_usbfs *f, size_t bytes);
/* False: this is not one of the maps. */
bool fake_usbfs_unmap(struct fake_usbfs *f, void *start);

/* The device ends the index-th submitted URB; those behind it move up. */
void fake_usbfs_finish(struct fake_usbfs *f, size_t index, int status,
		       size_t actual_length);
void fake_usbfs_unplug(struct fake_usbfs *f);

#endif
