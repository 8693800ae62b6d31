/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.h - what a process gives up before it reads a peer's first byte, and
 * what more before URBs flow.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

/* A sanitizer's runtime needs more than the program: see sandbox.c. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_IS_SANITIZED 1
#endif
#endif
#if !defined(SANDBOX_IS_SANITIZED) && defined(__SANITIZE_ADDRESS__)
#define SANDBOX_IS_SANITIZED 1
#endif
#ifndef SANDBOX_IS_SANITIZED
#define SANDBOX_IS_SANITIZED 0
#endif

enum sandbox_role {
	/* A session before URBs flow; only narrower from there. */
	SANDBOX_HANDSHAKE,
	SANDBOX_SESSION, /* a channel, a device's descriptor, usbfs ioctls */
	SANDBOX_LINK,    /* a channel and a socket, nothing else */
};

/* At the start of main: umask 077, no new privileges, SIGPIPE ignored. */
void sandbox_at_entry(void);

/*
 * Drops every capability (root without capabilities owns only what it has
 * open), forbids core dumps and ptrace, and allows only the system calls of the role
 * (any other one kills the process, with a line in the audit log).
 * 0 or -errno; a kernel without seccomp is an error, not a warning.
 */
int sandbox_enter(enum sandbox_role role);

/* From SANDBOX_HANDSHAKE, which was entered before, to SANDBOX_SESSION. */
int sandbox_narrow(void);

#endif
