/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link to hypervisor.py, see there for what is said. Shared by the two
 * libraries to preload: fake_xen.so, for programs, answers for grants and
 * event channels; fake_xenstored.so has in addition what only xenstored asks.
 */
#ifndef XUSBIP_TESTS_FAKE_XEN_H
#define XUSBIP_TESTS_FAKE_XEN_H

#define FAKE_XEN_MAX_VALUES 3
#define FAKE_XEN_MAX_FDS    2

struct fake_xen_answer {
	unsigned values[FAKE_XEN_MAX_VALUES];
	int fds[FAKE_XEN_MAX_FDS]; /* -1 where there is none */
};

/*
 * A connection that speaks for the domain FAKE_XEN_DOMID ("store" for
 * xenstored) to the hypervisor in FAKE_XEN_DIR, or -1 and errno.
 */
int fake_xen_connect(void);

/* Asks and waits: 0, or -1 and errno. What a caller wants no fd of has none. */
int fake_xen_ask(int connection, struct fake_xen_answer *ret_answer,
		 const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
