/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manager.h - the gateway's first process: it listens, starts a session
 * process for each connection, and answers what sessions ask (ipc.h). It reads
 * no byte of a peer.
 *
 * Sessions outlive a manager that dies; the next one finds their claims
 * (claim.h) and puts their devices back when they end. A manager that is told
 * to stop ends them first.
 */
#ifndef MANAGER_H
#define MANAGER_H

#include <stdbool.h>

#include "gateway/config.h"
#include "vchan-transport/exit_status.h"

struct manager_options {
	const char *config_path; /* read again at SIGHUP */
	struct config *config;   /* owned from the call on */
	bool is_debug;
	/* Only makes gateways of other domains known (pairs.h). */
	bool has_pairs_only;
};

/* How a session's process is called: sessions_start writes it, main reads it. */
#define SESSION_ARGV_MARK "--session"
enum session_argv {
	SESSION_ARGV_MODE = 1, /* SESSION_ARGV_MARK */
	SESSION_ARGV_KIND,     /* enum address_kind, a number as all below */
	SESSION_ARGV_PEER_FD,
	SESSION_ARGV_MANAGER_FD,
	SESSION_ARGV_RING_BYTES,
	SESSION_ARGV_BUDGET_BYTES,
	SESSION_ARGV_IS_DEBUG,
	SESSION_ARGV_DOMID, /* Xen: of the peer; the fd is a lock there */
	SESSION_ARGV_PATH,  /* Xen: "data/xusbip/F/N", below our own domain */
	SESSION_ARGV_TLS_DIR,
	SESSION_ARGV_PEER, /* its name, a text */
	SESSION_ARGV_COUNT,
};

/* Serves until SIGTERM or SIGINT. The exit status of the process. */
enum exit_status manager_run(const struct manager_options *options);

#endif
