/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs cases of the kernel's usbtest driver on one device, for the tests in
 * guests: usbtest [-c count] [-s size] [-v vary] [-g sglen] BUSID CASE...
 *
 * The device is named by its place in sysfs (9-1), where usbtest must be bound
 * to one of its interfaces. A CASE is a number or a range (0-29). What is not
 * given on the command line comes from a table with one row for each case.
 * One line tells how each case went; the exit status is 0 when none failed,
 * 1 when one did, 2 when nothing could be tried.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SYSFS_DEVICES "/sys/bus/usb/devices"

/*
 * usbtest's request. The kernel takes it with 32-bit and with 64-bit times;
 * this one has the same layout on every architecture.
 */
struct usbtest_param_32 {
	uint32_t test_num;
	uint32_t iterations;
	uint32_t length;
	uint32_t vary;
	uint32_t sglen;
	int32_t duration_sec;
	int32_t duration_usec;
};

#define USBTEST_REQUEST_32 _IOWR('U', 100, struct usbtest_param_32)

/* What a case is asked to do; 0 in the options means "as in the table". */
struct load {
	uint32_t count;
	uint32_t size;
	uint32_t vary;
	uint32_t sglen;
};

struct target {
	int fd;
	int interface;
};

/*
 * Enough to queue deeply and to wrap every buffer, little enough for emulated
 * hardware: each case takes seconds at most. A source sends whole packets, so
 * reads and scatter-gather entries vary by 1024, the largest packet.
 */
static const struct load default_loads[] = {
	[0] = { 1, 1024, 512, 32 },    /* no operation */
	[1] = { 100, 4096, 0, 32 },    /* bulk write */
	[2] = { 100, 4096, 0, 32 },    /* bulk read */
	[3] = { 100, 4096, 1000, 32 }, /* bulk write, sizes vary */
	[4] = { 100, 4096, 1024, 32 }, /* bulk read, whole packets */
	[5] = { 20, 4096, 0, 32 },     /* bulk write, scatter-gather */
	[6] = { 20, 4096, 0, 32 },     /* bulk read, scatter-gather */
	[7] = { 20, 4096, 1024, 32 },  /* the same, sizes vary */
	[8] = { 20, 4096, 1024, 32 },
	[9] = { 10, 1024, 0, 32 },    /* chapter 9, one at a time */
	[10] = { 20, 1024, 0, 32 },   /* control requests, queued */
	[11] = { 50, 4096, 0, 32 },   /* unlink reads */
	[12] = { 50, 4096, 0, 32 },   /* unlink writes */
	[13] = { 20, 1024, 0, 32 },   /* set and clear halt */
	[14] = { 50, 1024, 511, 32 }, /* vendor control write and read */
	[15] = { 20, 3072, 0, 8 },    /* isochronous write */
	[16] = { 20, 3072, 0, 8 },    /* isochronous read */
	[17] = { 100, 4096, 0, 32 },  /* bulk write from an odd address */
	[18] = { 100, 4096, 0, 32 },  /* bulk read to an odd address */
	[19] = { 100, 4096, 0, 32 },  /* the same, mapped beforehand */
	[20] = { 100, 4096, 0, 32 },
	[21] = { 50, 1024, 511, 32 }, /* control from an odd address */
	[22] = { 20, 3072, 0, 8 },    /* isochronous, odd address */
	[23] = { 20, 3072, 0, 8 },
	[24] = { 20, 4096, 0, 32 }, /* unlink from a queue of bulk writes */
	[25] = { 50, 64, 0, 32 },   /* interrupt write */
	[26] = { 50, 64, 0, 32 },   /* interrupt read */
	[27] = { 20, 4096, 0, 32 }, /* bulk write, queued */
	[28] = { 20, 4096, 0, 32 }, /* bulk read, queued */
	[29] = { 20, 4096, 0, 32 }, /* clear halt keeps toggles in step */
};

#define NUM_CASES (sizeof(default_loads) / sizeof(default_loads[0]))

static int parse_number(const char *text, uint32_t max, uint32_t *ret_number)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(text, &end, 10);
	if (errno || end == text || *end || number > max)
		return -EINVAL;
	*ret_number = (uint32_t)number;
	return 0;
}

/* Reads CASE or FIRST-LAST. */
static int parse_cases(const char *text, uint32_t *ret_first,
		       uint32_t *ret_last)
{
	char first_text[8];
	uint32_t first;
	uint32_t last;
	size_t length = strcspn(text, "-");

	if (length >= sizeof(first_text))
		return -EINVAL;
	memcpy(first_text, text, length);
	first_text[length] = '\0';
	if (parse_number(first_text, NUM_CASES - 1, &first) < 0)
		return -EINVAL;
	last = first;
	if (text[length] &&
	    parse_number(text + length + 1, NUM_CASES - 1, &last) < 0)
		return -EINVAL;
	if (last < first)
		return -EINVAL;
	*ret_first = first;
	*ret_last = last;
	return 0;
}

/* Reads one number from a file of the device in sysfs. */
static int read_attribute(const char *busid, const char *name,
			  uint32_t *ret_number)
{
	char path[256];
	char line[16];
	FILE *file;
	char *got;

	(void)snprintf(path, sizeof(path), SYSFS_DEVICES "/%s/%s", busid, name);
	file = fopen(path, "re");
	if (!file)
		return -ENODEV;
	got = fgets(line, sizeof(line), file);
	(void)fclose(file);
	if (!got)
		return -EIO;
	line[strcspn(line, "\n")] = '\0';
	return parse_number(line, UINT32_MAX, ret_number);
}

static bool is_bound_to_usbtest(const char *interface_name)
{
	char path[512];
	char target[256];
	const char *driver;
	ssize_t length;

	(void)snprintf(path, sizeof(path), SYSFS_DEVICES "/%s/driver",
		       interface_name);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		return false;
	target[length] = '\0';
	driver = strrchr(target, '/');
	return driver && strcmp(driver + 1, "usbtest") == 0;
}

/* The interface of the device that usbtest drives, from BUSID:CONFIG.NUMBER. */
static int find_interface(const char *busid, int *ret_interface)
{
	size_t length = strlen(busid);
	const char *dot;
	struct dirent *entry;
	uint32_t number;
	int r = -ENOENT;
	DIR *devices = opendir(SYSFS_DEVICES);

	if (!devices)
		return -errno;
	while (r < 0 && (entry = readdir(devices))) {
		dot = strrchr(entry->d_name, '.');
		if (strncmp(entry->d_name, busid, length) != 0 ||
		    entry->d_name[length] != ':' || !dot ||
		    !is_bound_to_usbtest(entry->d_name))
			continue;
		r = parse_number(dot + 1, UINT8_MAX, &number);
		if (r == 0)
			*ret_interface = (int)number;
	}
	(void)closedir(devices);
	return r;
}

static int open_target(const char *busid, struct target *ret_target)
{
	uint32_t bus;
	uint32_t device;
	char path[64];
	int interface = 0;
	int fd;

	if (read_attribute(busid, "busnum", &bus) < 0 ||
	    read_attribute(busid, "devnum", &device) < 0) {
		fprintf(stderr, "usbtest: %s: no such USB device\n", busid);
		return -ENODEV;
	}
	if (find_interface(busid, &interface) < 0) {
		fprintf(stderr,
			"usbtest: %s: the driver usbtest has none of its "
			"interfaces: modprobe usbtest, or bind it\n",
			busid);
		return -ENODEV;
	}
	(void)snprintf(path, sizeof(path), "/dev/bus/usb/%03u/%03u", bus,
		       device);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "usbtest: %s: %s\n", path, strerror(errno));
		return -ENODEV;
	}
	ret_target->fd = fd;
	ret_target->interface = interface;
	return 0;
}

static uint32_t pick(uint32_t option, uint32_t from_table)
{
	return option ? option : from_table;
}

/* Runs a case, says how it went, and answers whether it failed. */
static bool has_failed(const struct target *target, uint32_t number,
		       const struct load *options)
{
	const struct load *load = &default_loads[number];
	struct usbtest_param_32 param = {
		.test_num = number,
		.iterations = pick(options->count, load->count),
		.length = pick(options->size, load->size),
		.vary = pick(options->vary, load->vary),
		.sglen = pick(options->sglen, load->sglen),
	};
	struct usbdevfs_ioctl request = {
		.ifno = target->interface,
		.ioctl_code = (int)USBTEST_REQUEST_32,
		.data = &param,
	};

	if (ioctl(target->fd, USBDEVFS_IOCTL, &request) >= 0) {
		printf("case %u: ok\n", number);
		return false;
	}
	if (errno == EOPNOTSUPP) {
		printf("case %u: not offered (EOPNOTSUPP)\n", number);
		return false;
	}
	printf("case %u: failed: %s\n", number, strerror(errno));
	return true;
}

static int usage(void)
{
	fputs("usage: usbtest [-c count] [-s size] [-v vary] [-g sglen] "
	      "BUSID CASE|FIRST-LAST...\n",
	      stderr);
	return 2;
}

static int parse_options(int argc, char **argv, struct load *ret_options)
{
	uint32_t *number;
	int option;

	while ((option = getopt(argc, argv, "c:s:v:g:")) != -1) {
		switch (option) {
		case 'c':
			number = &ret_options->count;
			break;
		case 's':
			number = &ret_options->size;
			break;
		case 'v':
			number = &ret_options->vary;
			break;
		case 'g':
			number = &ret_options->sglen;
			break;
		default:
			return -EINVAL;
		}
		if (parse_number(optarg, INT32_MAX, number) < 0)
			return -EINVAL;
	}
	return argc - optind < 2 ? -EINVAL : 0;
}

int main(int argc, char **argv)
{
	struct load options = { 0 };
	struct target target;
	uint32_t number;
	uint32_t last;
	int num_failed = 0;

	if (parse_options(argc, argv, &options) < 0)
		return usage();
	for (int i = optind + 1; i < argc; i++) {
		if (parse_cases(argv[i], &number, &last) < 0)
			return usage();
	}
	if (open_target(argv[optind], &target) < 0)
		return 2;
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = optind + 1; i < argc; i++) {
		(void)parse_cases(argv[i], &number, &last);
		for (; number <= last; number++)
			num_failed += has_failed(&target, number, &options);
	}
	(void)close(target.fd);
	return num_failed ? 1 : 0;
}
