/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See sandbox.h. The lists below say for each system call who needs it; what
 * runs before the sandbox (opening the device, the loop, the channel's shared
 * memory) is not in them.
 */
#include "vchan-transport/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xen/xen.h>
/* needs the one above */
#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static const int common_calls[] = {
	SCMP_SYS(read),    /* eventfds, sockets */
	SCMP_SYS(write),   /* eventfds, sockets, the log */
	SCMP_SYS(preadv2), /* channel_shm's bell */
	SCMP_SYS(readv),   /* channel_socket */
	SCMP_SYS(writev),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmsg), /* fdpass */
	SCMP_SYS(sendto),
	SCMP_SYS(sendmsg),
	SCMP_SYS(shutdown),   /* channel_end */
	SCMP_SYS(getsockopt), /* SO_ERROR */
	SCMP_SYS(close),
	SCMP_SYS(fstat), /* glibc */
	SCMP_SYS(poll),  /* channel_wait */
	SCMP_SYS(ppoll),
	SCMP_SYS(epoll_ctl), /* the loop */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(clock_gettime),   /* where the vdso does not answer */
	SCMP_SYS(timerfd_settime), /* the loop's timers */
	SCMP_SYS(alarm),           /* the loop's watchdog */
	SCMP_SYS(brk),             /* malloc */
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(getrandom),
	SCMP_SYS(futex),        /* glibc's locks */
	SCMP_SYS(sched_yield),  /* a ring that spins */
	SCMP_SYS(rt_sigaction), /* abort */
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(getpid), /* the log, abort */
	SCMP_SYS(gettid),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

static const int session_calls[] = {
	SCMP_SYS(pread64), /* a disk's image */
	SCMP_SYS(pwrite64),  SCMP_SYS(preadv),    SCMP_SYS(pwritev),
	SCMP_SYS(fdatasync), SCMP_SYS(fallocate), /* UNMAP */
	SCMP_SYS(lseek), /* libusb rewinds usbfs after a reset */
};

/*
 * Opening a device, beside what it is used with; the descriptor came through the
 * manager's socket.
 */
static const int handshake_calls[] = {
	SCMP_SYS(eventfd2), /* libusb_init */
	SCMP_SYS(timerfd_create), SCMP_SYS(uname),
	SCMP_SYS(pipe2),   /* the loop's signals */
	SCMP_SYS(seccomp), /* sandbox_narrow; can only take away more */
};

/*
 * libusb_init looks for usbfs, and libusb_wrap_sys_device for the name of its
 * descriptor. They go on without it.
 */
static const int vain_calls[] = {
	SCMP_SYS(openat),
	SCMP_SYS(statfs),
	SCMP_SYS(readlink),
};

/* By number, what libusb and we ask of usbfs, for a device that is open. */
static const uint32_t session_ioctls[] = {
	USBDEVFS_SUBMITURB,
	USBDEVFS_REAPURBNDELAY,
	USBDEVFS_DISCARDURB,
	USBDEVFS_CONTROL,
	USBDEVFS_SETCONFIGURATION,
	USBDEVFS_SETINTERFACE,
	USBDEVFS_CLEAR_HALT,
	USBDEVFS_RESET,
	USBDEVFS_CLAIMINTERFACE,
	USBDEVFS_RELEASEINTERFACE,
	USBDEVFS_DISCONNECT_CLAIM,
	USBDEVFS_GETDRIVER,
	USBDEVFS_IOCTL, /* detach and attach a driver */
	USBDEVFS_GET_CAPABILITIES,
	USBDEVFS_GET_SPEED,
	USBDEVFS_CONNECTINFO,
};

/* Of channel_vchan; a granted page needs none to be let go. */
static const uint32_t vchan_ioctls[] = {
	IOCTL_EVTCHN_NOTIFY,
	IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR, /* unmapping */
	IOCTL_GNTDEV_UNMAP_GRANT_REF,
};

void sandbox_at_entry(void)
{
	(void)umask(077);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)signal(SIGPIPE, SIG_IGN);
}

/* As an ordinary user there is nothing to drop from the bounding set. */
static int drop_capabilities(void)
{
	capng_clear(CAPNG_SELECT_BOTH);
	if (capng_apply(CAPNG_SELECT_BOTH) == 0)
		return 0;
	capng_clear(CAPNG_SELECT_BOTH);
	return capng_apply(CAPNG_SELECT_CAPS) == 0 ? 0 : -EPERM;
}

static int forbid_dumps(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return -errno;
	/* The leak check traces its own process. */
	if (!SANDBOX_IS_SANITIZED && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

static int allow_calls(scmp_filter_ctx filter, const int *calls, size_t num)
{
	for (size_t i = 0; i < num; i++) {
		int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);

		if (r < 0)
			return r;
	}
	return 0;
}

/* They fail, where a sanitizer's runtime does not need them. */
static int refuse_calls(scmp_filter_ctx filter, const int *calls, size_t num)
{
	uint32_t action = SANDBOX_IS_SANITIZED ? SCMP_ACT_ALLOW
					       : SCMP_ACT_ERRNO(EACCES);
	int r = 0;

	for (size_t i = 0; r == 0 && i < num; i++)
		r = seccomp_rule_add(filter, action, calls[i], 0);
	return r;
}

/* Allows a call where the masked low 32 bits of an argument are `value`. */
static int allow_where(scmp_filter_ctx filter, int call, unsigned argument,
		       uint32_t mask, uint32_t value)
{
	const struct scmp_arg_cmp is_value = { .arg = argument,
					       .op = SCMP_CMP_MASKED_EQ,
					       .datum_a = mask,
					       .datum_b = value };

	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1,
				      &is_value);
}

static int allow_where_one_of(scmp_filter_ctx filter, int call,
			      const uint32_t *values, size_t num)
{
	for (size_t i = 0; i < num; i++) {
		int r = allow_where(filter, call, 1, UINT32_MAX, values[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Calls that are harmless only with certain arguments. */
static int allow_with_arguments(scmp_filter_ctx filter, enum sandbox_role role)
{
	static const uint32_t commands[] = { F_GETFL, F_SETFL, F_GETFD,
					     F_SETFD };
	/* Memory may be had, but never to run it. */
	int r = allow_where(filter, SCMP_SYS(mmap), 2, PROT_EXEC, 0);

	if (r == 0)
		r = allow_where(filter, SCMP_SYS(mprotect), 2, PROT_EXEC, 0);
	if (r == 0)
		r = allow_where_one_of(filter, SCMP_SYS(fcntl), commands,
				       ARRAY_SIZE(commands));
	/* glibc's fstat(): an empty path means the descriptor. */
	if (r == 0)
		r = allow_where(filter, SCMP_SYS(newfstatat), 3, UINT32_MAX,
				AT_EMPTY_PATH);
	/* abort() */
	if (r == 0)
		r = allow_where(filter, SCMP_SYS(tgkill), 0, UINT32_MAX,
				(uint32_t)getpid());
	if (r == 0)
		r = allow_where_one_of(filter, SCMP_SYS(ioctl), vchan_ioctls,
				       ARRAY_SIZE(vchan_ioctls));
	/* seccomp_load, again in sandbox_narrow */
	if (r == 0 && role == SANDBOX_HANDSHAKE)
		r = allow_where(filter, SCMP_SYS(prctl), 0, UINT32_MAX,
				PR_SET_NO_NEW_PRIVS);
	if (r == 0 && role != SANDBOX_LINK)
		r = allow_where_one_of(filter, SCMP_SYS(ioctl), session_ioctls,
				       ARRAY_SIZE(session_ioctls));
	return r;
}

static int allow_role(scmp_filter_ctx filter, enum sandbox_role role)
{
	int r = allow_calls(filter, common_calls, ARRAY_SIZE(common_calls));

	if (r == 0 && role != SANDBOX_LINK)
		r = allow_calls(filter, session_calls,
				ARRAY_SIZE(session_calls));
	if (r == 0 && role == SANDBOX_HANDSHAKE)
		r = allow_calls(filter, handshake_calls,
				ARRAY_SIZE(handshake_calls));
	if (r == 0 && role == SANDBOX_HANDSHAKE)
		r = refuse_calls(filter, vain_calls, ARRAY_SIZE(vain_calls));
	if (r == 0)
		r = allow_with_arguments(filter, role);
	return r;
}

static int restrict_calls(enum sandbox_role role)
{
	/*
	 * A sanitizer's runtime starts processes to look for leaks and to find
	 * a symbol's name: what the lists lack is only logged there.
	 */
	uint32_t otherwise = SANDBOX_IS_SANITIZED ? SCMP_ACT_LOG
						  : SCMP_ACT_KILL_PROCESS;
	scmp_filter_ctx filter = seccomp_init(otherwise);
	int r;

	if (!filter)
		return -ENOMEM;
	/* A tree, not a list: an ioctl for each URB goes through it. */
	r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (r == 0)
		r = allow_role(filter, role);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r;
}

int sandbox_enter(enum sandbox_role role)
{
	int r = drop_capabilities();

	if (r == 0)
		r = forbid_dumps();
	if (r == 0)
		r = restrict_calls(role);
	return r;
}

int sandbox_narrow(void)
{
	return restrict_calls(SANDBOX_SESSION);
}
