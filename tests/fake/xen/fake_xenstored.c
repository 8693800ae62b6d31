/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only xenstored asks of Xen: which domains there are, and dom0's own
 * ring, which it finds by two files of xenfs. To be preloaded together with
 * fake_xen.c, into xenstored alone.
 */
#include "tests/fake/xen/fake_xen.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* The header of Xen's control interface wants GNU C. */
#undef __STRICT_ANSI__
#include <xenctrl.h>

/* As in hypervisor.py. */
enum {
	RUNNING = 1,
	SHUTDOWN = 2,
	CRASHED = 4,
	DYING = 8
};

struct xc_interface_core {
	int connection;
};

static struct xc_interface_core interface = { .connection = -1 };

int xenfs_open(const char *path, int flags, ...) __asm__("open");

/* It goes with the test that started it, however that ends. */
static void __attribute__((constructor)) at_start(void)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
}

xc_interface *xc_interface_open(xentoollog_logger *logger,
				xentoollog_logger *dombuild_logger,
				unsigned open_flags)
{
	(void)logger;
	(void)dombuild_logger;
	(void)open_flags;
	interface.connection = fake_xen_connect();
	return interface.connection < 0 ? NULL : &interface;
}

int xc_interface_close(xc_interface *xch)
{
	return close(xch->connection);
}

int xc_domain_getinfo(xc_interface *xch, uint32_t first_domid,
		      unsigned int max_doms, xc_dominfo_t *info)
{
	unsigned num = 0;

	while (num < max_doms) {
		struct fake_xen_answer answer;
		unsigned flags;

		if (fake_xen_ask(xch->connection, &answer, "info %u",
				 first_domid) < 0)
			break;
		flags = answer.values[1];
		info[num++] = (xc_dominfo_t){
			.domid = answer.values[0],
			.running = !!(flags & RUNNING),
			.shutdown = !!(flags & SHUTDOWN),
			.crashed = !!(flags & CRASHED),
			.dying = !!(flags & DYING),
			.shutdown_reason = answer.values[2],
		};
		first_domid = answer.values[0] + 1;
	}
	return num > 0 ? (int)num : -1;
}

static int open_port_file(void)
{
	int fd = memfd_create("xsd_port", MFD_CLOEXEC);
	struct fake_xen_answer answer;

	if (fd < 0 ||
	    fake_xen_ask(interface.connection, &answer, "store_port") < 0 ||
	    dprintf(fd, "%u", answer.values[0]) < 0 ||
	    lseek(fd, 0, SEEK_SET) < 0)
		abort();
	return fd;
}

static int open_ring_file(void)
{
	struct fake_xen_answer answer;

	if (fake_xen_ask(interface.connection, &answer,
			 "map 0 1 1 1 4294967295 4294967295") < 0)
		abort();
	return answer.fds[0];
}

int xenfs_open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list args;

	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	if (strcmp(path, "/proc/xen/xsd_port") == 0)
		return open_port_file();
	if (strcmp(path, "/proc/xen/xsd_kva") == 0)
		return open_ring_file();
	return openat(AT_FDCWD, path, flags, mode);
}
