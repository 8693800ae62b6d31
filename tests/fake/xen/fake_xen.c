/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libxengnttab and libxenevtchn without Xen, to be preloaded: what the real
 * libxenvchan and xenstored call of them, answered by hypervisor.py.
 *
 * A handle is a connection to it, so a program that dies lets go of what its
 * handles held. Pages are shared memory and a port is two eventfds, one for
 * each direction: once they are there, a program needs nothing but its own
 * descriptors, and no system call that its sandbox might forbid.
 */
#include "tests/fake/xen/fake_xen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xentoollog.h>

#define PAGE_BYTES 4096
#define NONE       0xffffffffU
#define LINE_BYTES 128

struct mapping {
	struct mapping *next;
	void *address;
	size_t bytes;
	unsigned number;
};

/* For both interfaces that give and take grants. */
struct xengntdev_handle {
	int connection;
	struct xentoollog_logger *logger; /* NULL: none */
	struct mapping *mappings;
};

struct port {
	struct port *next;
	unsigned number;
	int wake;  /* what the other side raises */
	int other; /* what we raise */
};

struct xenevtchn_handle {
	int connection;
	int ready; /* an epoll of the ports */
	struct port *ports;
};

/* ---- the hypervisor ----------------------------------------------------- */

int fake_xen_connect(void)
{
	const char *folder = getenv("FAKE_XEN_DIR");
	const char *domid = getenv("FAKE_XEN_DOMID");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct fake_xen_answer answer;
	int fd;
	int r;

	if (!folder || !domid) {
		errno = ENOENT;
		return -1;
	}
	(void)snprintf(address.sun_path, sizeof(address.sun_path),
		       "%s/hypervisor", folder);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	r = connect(fd, (struct sockaddr *)&address, sizeof(address));
	if (r == 0 && strcmp(domid, "store") == 0)
		r = fake_xen_ask(fd, &answer, "store");
	else if (r == 0)
		r = fake_xen_ask(fd, &answer, "domain %s", domid);
	if (r < 0) {
		int error = errno;

		(void)close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static int receive(int connection, char *line, size_t size, int *ret_fds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * FAKE_XEN_MAX_FDS)];
		struct cmsghdr aligned;
	} control;
	struct iovec iov = { .iov_base = line, .iov_len = size - 1 };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	for (int i = 0; i < FAKE_XEN_MAX_FDS; i++)
		ret_fds[i] = -1;
	if (n == 0)
		errno = ENODEV;
	if (n <= 0)
		return -1;
	line[n] = '\0';
	if (head)
		memcpy(ret_fds, CMSG_DATA(head), head->cmsg_len - CMSG_LEN(0));
	return 0;
}

int fake_xen_ask(int connection, struct fake_xen_answer *ret_answer,
		 const char *format, ...)
{
	char line[LINE_BYTES];
	char *at = line;
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (send(connection, line, (size_t)length, MSG_NOSIGNAL) < 0 ||
	    receive(connection, line, sizeof(line), ret_answer->fds) < 0)
		return -1;
	(void)strsep(&at, " ");
	if (strcmp(line, "ok") != 0) {
		errno = at ? (int)strtol(at, NULL, 10) : EPROTO;
		return -1;
	}
	for (size_t i = 0; i < FAKE_XEN_MAX_VALUES; i++)
		ret_answer->values[i] = at ? (unsigned)strtoul(at, &at, 10) : 0;
	return 0;
}

/* ---- grants ------------------------------------------------------------- */

static struct xengntdev_handle *open_grants(struct xentoollog_logger *logger)
{
	struct xengntdev_handle *handle = calloc(1, sizeof(*handle));

	if (!handle)
		return NULL;
	handle->logger = logger;
	handle->connection = fake_xen_connect();
	if (handle->connection < 0) {
		free(handle);
		return NULL;
	}
	return handle;
}

/* As the drivers do: what is not unmapped stays in the address space. */
static int close_grants(struct xengntdev_handle *handle)
{
	struct fake_xen_answer answer;

	if (!handle)
		return 0;
	(void)fake_xen_ask(handle->connection, &answer, "release");
	(void)close(handle->connection);
	while (handle->mappings) {
		struct mapping *mapping = handle->mappings;

		handle->mappings = mapping->next;
		free(mapping);
	}
	free(handle);
	return 0;
}

/* Maps what an answer gave, and closes its fd. */
static void *add_mapping(struct xengntdev_handle *handle,
			 const struct fake_xen_answer *answer, size_t count,
			 unsigned first_page, int prot)
{
	struct mapping *mapping = malloc(sizeof(*mapping));
	size_t bytes = count * PAGE_BYTES;
	void *address = mmap(NULL, bytes, prot, MAP_SHARED, answer->fds[0],
			     (off_t)first_page * PAGE_BYTES);

	(void)close(answer->fds[0]);
	if (!mapping || address == MAP_FAILED)
		abort();
	*mapping = (struct mapping){ .next = handle->mappings,
				     .address = address,
				     .bytes = bytes,
				     .number = answer->values[0] };
	handle->mappings = mapping;
	return address;
}

/* The last one at an address: an earlier one was unmapped behind our back. */
static int drop_mapping(struct xengntdev_handle *handle, void *address,
			const char *verb)
{
	struct mapping **at = &handle->mappings;
	struct fake_xen_answer answer;
	struct mapping *mapping;
	int r;

	while (*at && (*at)->address != address)
		at = &(*at)->next;
	mapping = *at;
	if (!mapping) {
		errno = EINVAL;
		return -1;
	}
	*at = mapping->next;
	r = fake_xen_ask(handle->connection, &answer, "%s %u", verb,
			 mapping->number);
	(void)munmap(mapping->address, mapping->bytes);
	free(mapping);
	return r;
}

/* The real ones log what the driver refuses. */
static void __attribute__((format(printf, 2, 3)))
complain(struct xengntdev_handle *handle, const char *format, ...)
{
	const int error = errno;
	va_list args;

	if (!handle->logger)
		return;
	va_start(args, format);
	handle->logger->vmessage(handle->logger, XTL_ERROR, error, "fake_xen",
				 format, args);
	va_end(args);
	errno = error;
}

static void *share(xengntshr_handle *xgs, uint32_t domid, unsigned count,
		   int writable, uint32_t offset, uint32_t port)
{
	struct fake_xen_answer answer;

	if (fake_xen_ask(xgs->connection, &answer, "share %u %u %d %u %u",
			 domid, count, writable, offset, port) < 0) {
		complain(xgs, "%u pages are not granted", count);
		return NULL;
	}
	return add_mapping(xgs, &answer, count, 0, PROT_READ | PROT_WRITE);
}

static void *map(xengnttab_handle *xgt, uint32_t domid, const uint32_t *refs,
		 uint32_t count, int prot, const uint32_t notify[2])
{
	struct fake_xen_answer answer;

	/* Those of one share only, in order: libxenvchan wants no others. */
	for (uint32_t i = 1; i < count; i++) {
		if (refs[i] != refs[0] + i) {
			errno = EINVAL;
			return NULL;
		}
	}
	if (fake_xen_ask(xgt->connection, &answer, "map %u %u %u %d %u %u",
			 domid, refs[0], count, !!(prot & PROT_WRITE),
			 notify[0], notify[1]) < 0) {
		complain(xgt, "%u pages are not mapped", count);
		return NULL;
	}
	return add_mapping(xgt, &answer, count, answer.values[1], prot);
}

static const uint32_t no_notify[2] = { NONE, NONE };

xengntshr_handle *xengntshr_open(struct xentoollog_logger *logger,
				 unsigned open_flags)
{
	(void)open_flags;
	return open_grants(logger);
}

int xengntshr_close(xengntshr_handle *xgs)
{
	return close_grants(xgs);
}

void *xengntshr_share_pages(xengntshr_handle *xgs, uint32_t domid, int count,
			    uint32_t *refs, int writable)
{
	void *address =
		share(xgs, domid, (unsigned)count, writable, NONE, NONE);

	for (int i = 0; address && i < count; i++)
		refs[i] = xgs->mappings->number + (unsigned)i;
	return address;
}

void *xengntshr_share_page_notify(xengntshr_handle *xgs, uint32_t domid,
				  uint32_t *ref, int writable,
				  uint32_t notify_offset,
				  evtchn_port_t notify_port)
{
	void *address =
		share(xgs, domid, 1, writable, notify_offset, notify_port);

	if (address)
		*ref = xgs->mappings->number;
	return address;
}

int xengntshr_unshare(xengntshr_handle *xgs, void *start_address,
		      uint32_t count)
{
	(void)count;
	return drop_mapping(xgs, start_address, "unshare");
}

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger,
				 unsigned open_flags)
{
	(void)open_flags;
	return open_grants(logger);
}

int xengnttab_close(xengnttab_handle *xgt)
{
	return close_grants(xgt);
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t nr_grants)
{
	(void)xgt;
	(void)nr_grants;
	return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid,
			      uint32_t ref, int prot)
{
	return map(xgt, domid, &ref, 1, prot, no_notify);
}

void *xengnttab_map_domain_grant_refs(xengnttab_handle *xgt, uint32_t count,
				      uint32_t domid, uint32_t *refs, int prot)
{
	return map(xgt, domid, refs, count, prot, no_notify);
}

void *xengnttab_map_grant_ref_notify(xengnttab_handle *xgt, uint32_t domid,
				     uint32_t ref, int prot,
				     uint32_t notify_offset,
				     evtchn_port_t notify_port)
{
	const uint32_t notify[2] = { notify_offset, notify_port };

	return map(xgt, domid, &ref, 1, prot, notify);
}

int xengnttab_unmap(xengnttab_handle *xgt, void *start_address, uint32_t count)
{
	(void)count;
	return drop_mapping(xgt, start_address, "unmap");
}

/* ---- event channels ----------------------------------------------------- */

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger,
				 unsigned int flags)
{
	xenevtchn_handle *xce = calloc(1, sizeof(*xce));

	(void)logger;
	(void)flags;
	if (!xce)
		return NULL;
	xce->connection = fake_xen_connect();
	xce->ready = epoll_create1(EPOLL_CLOEXEC);
	if (xce->connection < 0 || xce->ready < 0) {
		(void)close(xce->ready);
		free(xce);
		return NULL;
	}
	return xce;
}

static void free_port(struct port *port)
{
	(void)close(port->wake);
	(void)close(port->other);
	free(port);
}

int xenevtchn_close(xenevtchn_handle *xce)
{
	struct fake_xen_answer answer;

	if (!xce)
		return 0;
	(void)fake_xen_ask(xce->connection, &answer, "release");
	(void)close(xce->connection);
	(void)close(xce->ready);
	while (xce->ports) {
		struct port *port = xce->ports;

		xce->ports = port->next;
		free_port(port);
	}
	free(xce);
	return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
	return xce->ready;
}

static int add_port(xenevtchn_handle *xce, const struct fake_xen_answer *answer)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct port *port = malloc(sizeof(*port));

	if (!port)
		abort();
	*port = (struct port){ .next = xce->ports,
			       .number = answer->values[0],
			       .wake = answer->fds[0],
			       .other = answer->fds[1] };
	event.data.ptr = port;
	if (epoll_ctl(xce->ready, EPOLL_CTL_ADD, port->wake, &event) < 0)
		abort();
	xce->ports = port;
	return (int)port->number;
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *xce,
						      uint32_t domid)
{
	struct fake_xen_answer answer;

	if (fake_xen_ask(xce->connection, &answer, "bind_unbound %u", domid) <
	    0)
		return -1;
	return add_port(xce, &answer);
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce,
						     uint32_t domid,
						     evtchn_port_t remote_port)
{
	struct fake_xen_answer answer;

	if (fake_xen_ask(xce->connection, &answer, "bind_interdomain %u %u",
			 domid, remote_port) < 0)
		return -1;
	return add_port(xce, &answer);
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce,
					      unsigned int virq)
{
	struct fake_xen_answer answer;

	(void)virq;
	if (fake_xen_ask(xce->connection, &answer, "bind_virq") < 0)
		return -1;
	return add_port(xce, &answer);
}

static struct port **find_port(xenevtchn_handle *xce, unsigned number)
{
	struct port **at = &xce->ports;

	while (*at && (*at)->number != number)
		at = &(*at)->next;
	if (!*at)
		errno = ENOTCONN;
	return at;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
	struct port **at = find_port(xce, port);
	struct port *gone = *at;
	struct fake_xen_answer answer;

	if (!gone)
		return -1;
	*at = gone->next;
	/* The other side has it open too, so closing it is not enough. */
	(void)epoll_ctl(xce->ready, EPOLL_CTL_DEL, gone->wake, NULL);
	free_port(gone);
	return fake_xen_ask(xce->connection, &answer, "unbind %u", port);
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
	const struct port *to = *find_port(xce, port);
	const uint64_t one = 1;

	if (!to)
		return -1;
	return write(to->other, &one, sizeof(one)) < 0 ? -1 : 0;
}

/* Waits as read() of the real device does, or not, by its O_NONBLOCK. */
xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
	for (;;) {
		struct epoll_event event;
		uint64_t times;
		int n = epoll_wait(xce->ready, &event, 1, 0);

		if (n == 0 && (fcntl(xce->ready, F_GETFL) & O_NONBLOCK)) {
			errno = EAGAIN;
			return -1;
		}
		if (n == 0)
			n = epoll_wait(xce->ready, &event, 1, -1);
		if (n < 0)
			return -1;
		if (n == 1) {
			const struct port *port = event.data.ptr;

			if (read(port->wake, &times, sizeof(times)) > 0)
				return (int)port->number;
		}
	}
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
	return *find_port(xce, port) ? 0 : -1;
}

/* ---- the devices of Xen's drivers ---- */

/* As they are in a domain: who explains a failure looks whether they are. */
int access(const char *name, int type)
{
	if (strncmp(name, "/dev/xen/", strlen("/dev/xen/")) == 0)
		return 0;
	return faccessat(AT_FDCWD, name, type, 0);
}
