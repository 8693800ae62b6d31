/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.h - the administrator's socket: RUNTIME_DIR/admin.sock, where xusbip
 * asks for what is done to guests (vchan-transport/admin.h). A request waits
 * for its answer in a connection of its own, and no longer than ADMIN_LIMIT_MS.
 * 64 are served at once; who comes when there are more waits to be accepted.
 */
#ifndef GATEWAY_ADMIN_H
#define GATEWAY_ADMIN_H

struct admin;
struct config;
struct loop;
struct wants;
struct xen;

/* 0 or -errno; what is given stays borrowed. */
int admin_open(struct loop *loop, const struct config *config, struct xen *xen,
	       struct wants *wants, struct admin **ret_admin);
/* Before xen and wants go. NULL is fine. */
void admin_close(struct admin *admin);

#endif
