/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_io - the median time of one operation, for tests/bench/run:
 *
 *	bench_io read|write BYTES COUNT DEVICE	one block at a time, O_DIRECT
 *	bench_io control COUNT USBFS-NODE	GET_DESCRIPTOR(device, 18 bytes)
 *
 * Prints nanoseconds.  In a guest that counts instructions a nanosecond is an
 * instruction of both ends together, and of the idle loop not.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define MAX_COUNT 10000
#define ALIGNMENT 4096

static uint64_t times[MAX_COUNT];

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int report(size_t count)
{
	qsort(times, count, sizeof(*times), compare);
	printf("%llu\n", (unsigned long long)times[count / 2]);
	return 0;
}

static int bench_blocks(bool is_write, size_t bytes, size_t count,
			const char *path)
{
	int fd = open(path,
		      (is_write ? O_WRONLY : O_RDONLY) | O_DIRECT | O_CLOEXEC);
	void *block;

	if (fd < 0 || posix_memalign(&block, ALIGNMENT, bytes) != 0) {
		perror(path);
		return 1;
	}
	memset(block, 0x5a, bytes);
	for (size_t i = 0; i < count; i++) {
		off_t at = (off_t)((i % 16) * bytes);
		uint64_t begin = now_ns();
		ssize_t n = is_write ? pwrite(fd, block, bytes, at)
				     : pread(fd, block, bytes, at);

		times[i] = now_ns() - begin;
		if (n != (ssize_t)bytes) {
			fprintf(stderr, "%s: %s\n", path, strerror(errno));
			return 1;
		}
	}
	return report(count);
}

static int bench_control(size_t count, const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t descriptor[18];

	if (fd < 0) {
		perror(path);
		return 1;
	}
	for (size_t i = 0; i < count; i++) {
		struct usbdevfs_ctrltransfer request = {
			.bRequestType = 0x80,
			.bRequest = 6,
			.wValue = 0x0100,
			.wLength = sizeof(descriptor),
			.timeout = 1000,
			.data = descriptor,
		};
		uint64_t begin = now_ns();
		int n = ioctl(fd, USBDEVFS_CONTROL, &request);

		times[i] = now_ns() - begin;
		if (n != (int)sizeof(descriptor)) {
			perror(path);
			return 1;
		}
	}
	return report(count);
}

int main(int argc, char **argv)
{
	size_t count;

	if (argc == 5 &&
	    (strcmp(argv[1], "read") == 0 || strcmp(argv[1], "write") == 0)) {
		count = strtoul(argv[3], NULL, 10);
		if (count > 0 && count <= MAX_COUNT)
			return bench_blocks(argv[1][0] == 'w',
					    strtoul(argv[2], NULL, 10), count,
					    argv[4]);
	}
	if (argc == 4 && strcmp(argv[1], "control") == 0) {
		count = strtoul(argv[2], NULL, 10);
		if (count > 0 && count <= MAX_COUNT)
			return bench_control(count, argv[3]);
	}
	fprintf(stderr, "usage: bench_io read|write BYTES COUNT DEVICE\n"
			"       bench_io control COUNT USBFS-NODE\n");
	return 2;
}
