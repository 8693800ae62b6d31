/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - the gateway's configuration file, read once and whole: an unknown
 * word or a value out of its range refuses the file, with its line. What the
 * words mean is in xusbip-gateway.conf(5).
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "gateway/ipc.h"
#include "gateway/policy.h"
#include "vchan-transport/address.h"
#include "vchan-transport/tls.h"

#define CONFIG_DEFAULT_PATH      "/etc/xusbip/gateway.conf"
#define CONFIG_MAX_LISTENERS     16
#define CONFIG_MAX_RULES         256
#define CONFIG_MAX_VIRTUALS      64
#define CONFIG_MAX_GATEWAYS      16
#define CONFIG_MAX_REMOTES       16

#define CONFIG_REMOTE_NAME_BYTES POLICY_REMOTE_BYTES

#define CONFIG_VCHAN_RING_BYTES  262144

/* Room for why a file was refused: "FILE:LINE: reason". */
#define CONFIG_WHY_BYTES 512

/* A virtual device. */
struct config_virtual {
	enum ipc_kind kind; /* disk or zero */
	unsigned line;      /* of the file, where the section begins */
	char busid[USBIP_BUSID_BYTES];
	char image[256]; /* disk: absolute path */
	bool is_read_only;
	bool is_high_speed;
	struct policy_audience to;
};

/* A gateway in another domain, and the guests that this domain's manager makes
 * known to it. */
struct config_gateway {
	char domain[POLICY_NAME_BYTES]; /* its name or UUID */
	struct policy_names domains;
};

/*
 * A gateway whose devices this one passes on, where a rule says so: one that is
 * BUSID there is BUSID@NAME here.
 */
struct config_remote {
	char name[CONFIG_REMOTE_NAME_BYTES];
	struct address address;      /* of any kind but xen */
	char tls_dir[TLS_DIR_BYTES]; /* its client.pem is who we are there */
	bool has_pin;
	uint8_t pin[TLS_PIN_BYTES];
};

struct config {
	struct address listen[CONFIG_MAX_LISTENERS];
	size_t num_listen;
	mode_t socket_mode;
	gid_t socket_group; /* (gid_t)-1: as it comes */
	char runtime_dir[80];
	char state_dir[80];
	bool has_xen; /* guests of this Xen are served */
	size_t ring_bytes;
	size_t vchan_ring_bytes;
	size_t budget_bytes;
	unsigned max_sessions;
	unsigned max_sessions_per_peer;
	unsigned calls_per_second; /* of one source address, TCP and TLS */
	unsigned peer_timeout_s;   /* until a peer that vanished is given up */
	char tls_dir[TLS_DIR_BYTES];
	struct policy_rule rules[CONFIG_MAX_RULES];
	size_t num_rules;
	struct config_virtual virtuals[CONFIG_MAX_VIRTUALS];
	size_t num_virtuals;
	struct config_gateway gateways[CONFIG_MAX_GATEWAYS];
	size_t num_gateways;
	struct config_remote remotes[CONFIG_MAX_REMOTES];
	size_t num_remotes;
};

/*
 * Reads and checks the file. 0; -ENOENT, -EACCES, … when it cannot be read,
 * -EINVAL when it is refused. `why` says what and where, in one line. The
 * result is freed with config_free.
 */
int config_load(const char *path, struct config **ret_config,
		char why[static CONFIG_WHY_BYTES]);

/* NULL is fine. */
void config_free(struct config *config);

#endif
