/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TCP_PAIR_H
#define TCP_PAIR_H

/* Two ends of a connection over the loopback interface; 0 or -1. */
int tcp_pair(int ret_fds[static 2]);

#endif
