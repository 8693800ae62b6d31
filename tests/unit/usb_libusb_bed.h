/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usb_libusb_bed.h - for the tests of a host device: it runs over the real
 * libusb, the real loop, and a usbfs that is played. The calls on that
 * descriptor are taken by the functions of the same name here, since a program's
 * own come before the C library's. For the same reason this is no archive's
 * member: whoever calls read(2) would get it.
 */
#ifndef USB_LIBUSB_BED_H
#define USB_LIBUSB_BED_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/usb_device.h"
#include "tests/fake/fake_usbfs.h"
#include "vchan-transport/loop.h"

#define LIMIT_MS 10000

/*
 * Configuration 1: interface 0 with bulk 81 and 02 and interrupt 85; interface 2,
 * whose alternate setting 1 has isochronous 83 and 04. Configuration 2: interface
 * 1 alone.
 */
static const uint8_t descriptors[] = {
	/* clang-format off */
	18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x5e, 0x04, 0x0a, 0x00, 0, 1, 0, 0, 0, 2,
	9, 2, 71, 0, 2, 1, 0, 0x80, 50,
	9, 4, 0, 0, 3, 0xff, 0, 0, 0,
	7, 5, 0x81, 2, 0x00, 0x02, 0,
	7, 5, 0x02, 2, 0x00, 0x02, 0,
	7, 5, 0x85, 3, 8, 0, 4,
	9, 4, 2, 0, 0, 0xff, 0, 0, 0,
	9, 4, 2, 1, 2, 0xff, 0, 0, 0,
	7, 5, 0x83, 1, 0x00, 0x04, 1,
	7, 5, 0x04, 1, 0x00, 0x04, 1,
	9, 2, 18, 0, 1, 2, 0, 0x80, 50,
	9, 4, 1, 0, 0, 0xff, 0, 0, 0,
	/* clang-format on */
};

/* Not static: clang takes glibc's fortified read() for external and inline. */
struct fake_usbfs usbfs;

static struct {
	struct loop *loop;
	struct usb_device *device;
	struct loop_timer *limit;
	struct loop_timer *turn;
	size_t num_completed;
	size_t num_awaited;
	size_t num_told_gone;
	bool is_late;
	time_t skipped_s; /* the clock is ahead by this */
} bed;

/* What libusb and our own transfers call. */

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (fd == usbfs.fd)
		return fake_usbfs_ioctl(&usbfs, request, arg);
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

ssize_t read(int fd, void *buf, size_t nbytes)
{
	if (fd == usbfs.fd)
		return fake_usbfs_read(&usbfs, buf, nbytes, &usbfs.offset);
	return syscall(SYS_read, fd, buf, nbytes);
}

ssize_t pread(int fd, void *buf, size_t nbytes, off_t offset)
{
	if (fd == usbfs.fd)
		return fake_usbfs_read(&usbfs, buf, nbytes, &offset);
	return syscall(SYS_pread64, fd, buf, nbytes, offset);
}

off_t lseek(int fd, off_t offset, int whence)
{
	if (fd != usbfs.fd)
		return syscall(SYS_lseek, fd, offset, whence);
	usbfs.offset = offset;
	return offset;
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (fd >= 0 && fd == usbfs.fd)
		return fake_usbfs_map(&usbfs, len);
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

int munmap(void *addr, size_t len)
{
	(void)fake_usbfs_unmap(&usbfs, addr);
	return (int)syscall(SYS_munmap, addr, len);
}

int clock_gettime(clockid_t clock_id, struct timespec *tp)
{
	int r = (int)syscall(SYS_clock_gettime, clock_id, tp);

	tp->tv_sec += bed.skipped_s;
	return r;
}

/* What the device calls. */

void urb_complete(struct urb *urb)
{
	(void)urb;
	bed.num_completed++;
	if (bed.num_completed >= bed.num_awaited)
		loop_stop(bed.loop);
}

static void on_gone(void *arg)
{
	(void)arg;
	bed.num_told_gone++;
	loop_stop(bed.loop);
}

static void on_limit(void *arg)
{
	(void)arg;
	bed.is_late = true;
	loop_stop(bed.loop);
}

static void on_turn(void *arg)
{
	(void)arg;
	loop_stop(bed.loop);
}

/* The bed. */

static inline void run(void)
{
	loop_timer_again(bed.limit, LIMIT_MS);
	loop_run(bed.loop);
	assert_false(bed.is_late);
}

/* Until so many more URBs are back. */
static inline void await(size_t num_urbs)
{
	bed.num_awaited = bed.num_completed + num_urbs;
	run();
	assert_int_equal(bed.num_completed, bed.num_awaited);
}

/* What there is to do now, and no more. */
static inline void run_once(void)
{
	loop_timer_again(bed.turn, 0);
	run();
}

/* Until usbfs has so many, which no callback tells of. */
static inline void run_until_submitted(size_t num_urbs)
{
	for (int turns = 0; usbfs.num_submitted != num_urbs; turns++) {
		assert_true(turns < 100);
		run_once();
	}
}

static inline int set_up(void **state)
{
	(void)state;
	memset(&bed, 0, sizeof(bed));
	if (fake_usbfs_init(&usbfs, descriptors, sizeof(descriptors)) < 0)
		return -1;
	usbfs.speed = 5;
	usbfs.configuration = 1;
	usbfs.drivers = 1;
	if (loop_new(&bed.loop) < 0 ||
	    loop_timer_start(bed.loop, LIMIT_MS, 0, on_turn, NULL, &bed.turn) <
		    0)
		return -1;
	return loop_timer_start(bed.loop, LIMIT_MS, 0, on_limit, NULL,
				&bed.limit);
}

static inline int tear_down(void **state)
{
	(void)state;
	loop_free(bed.loop);
	fake_usbfs_done(&usbfs);
	usbfs.fd = -1;
	return 0;
}

static inline void open_device(void)
{
	assert_int_equal(usb_libusb_open(bed.loop, usbfs.fd, &bed.device), 0);
	bed.device->on_gone = on_gone;
	usbfs.journal[0] = '\0';
}

static inline void close_device(void)
{
	bed.device->ops->close(bed.device);
	bed.device = NULL;
}

static inline void submit(struct urb *urb)
{
	assert_int_equal(bed.device->ops->submit(bed.device, urb), 0);
}

static inline void done(struct urb *urb)
{
	bed.device->ops->urb_done(bed.device, urb);
	assert_null(urb->transfer);
}

/* The headroom before the data of a URB is part of this. */
struct buffer {
	uint8_t headroom[URB_HEADROOM];
	uint8_t data[4096];
};

static inline struct urb make_urb(enum usb_transfer_type type, uint8_t endpoint,
				  struct buffer *buffer, size_t length)
{
	return (struct urb){
		.device = bed.device,
		.type = type,
		.endpoint = endpoint,
		.data = buffer->data,
		.length = length,
		.status = 1,
	};
}

#endif
