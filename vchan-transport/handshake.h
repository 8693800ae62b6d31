/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handshake.h - the words that two domains say to each other in xenstore, and
 * where.  docs/protocol.md, "Xenstore", gives each a number.
 *
 * A word is "EPOCH VERB [ARGUMENTS]" in one node, so it changes as a whole.
 * The epoch is the asker's random number for one conversation: an answer
 * repeats it, and what carries another one is about something else.  Whatever
 * is read here was written by the other domain: a value that is not exactly a
 * word is none.  Pure: no store, no allocation.
 */
#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vchan-transport/usbip.h"

/* One channel is one node on each side; a pair of domains has so many. */
#define HANDSHAKE_CHANNELS 64u
/* Longest word with its NUL; the store's own limit for a node is 2048. */
#define HANDSHAKE_WORD_BYTES 256
#define HANDSHAKE_WHY_BYTES  160
/* Longest path, "/local/domain/65535/data/xusbip/65535/want/63" and a NUL. */
#define HANDSHAKE_PATH_BYTES 64

enum handshake_verb {
	HANDSHAKE_NONE, /* no node, or nothing that is a word */
	HANDSHAKE_ASK,  /* guest: a channel, `ring_bytes` each way (0: yours) */
	HANDSHAKE_UP,   /* guest: it is mapped */
	HANDSHAKE_OPEN, /* gateway: it is granted */
	HANDSHAKE_CLOSED,   /* gateway: let go, with `status` and `why` */
	HANDSHAKE_HOLD,     /* let go of every device and hold still */
	HANDSHAKE_DONE,     /* answer to it */
	HANDSHAKE_RESUME,   /* take back what was let go of */
	HANDSHAKE_RESUMED,  /* answer to it */
	HANDSHAKE_ATTACH,   /* gateway: take `busid` */
	HANDSHAKE_ATTACHED, /* guest: it is at `port` */
	HANDSHAKE_FAILED,   /* guest: it is not, with `status` and `why` */
};

struct handshake_word {
	enum handshake_verb verb;
	uint64_t epoch; /* never 0 in a word that was parsed */
	uint32_t ring_bytes;
	uint32_t port;
	unsigned status; /* enum exit_status */
	char busid[USBIP_BUSID_BYTES];
	char why[HANDSHAKE_WHY_BYTES]; /* printable ASCII */
};

/*
 * False, with HANDSHAKE_NONE, unless the NUL-terminated text is a word to its
 * last byte: 16 lower-case hex digits, one blank, the verb, its arguments;
 * numbers without sign or leading zeros; `why` is printable ASCII to the end.
 */
bool handshake_parse(const char *text, struct handshake_word *ret_word);

/* What does not fit is cut from `why`, and what is not printable is '?'. */
void handshake_format(char text[static HANDSHAKE_WORD_BYTES],
		      const struct handshake_word *word);

/* Random, not 0.  0 only if the kernel has no random numbers. */
uint64_t handshake_new_epoch(void);

/*
 * "/local/domain/OWNER/data/xusbip/PEER" and below it "/CHANNEL",
 * "/want/NUMBER" or "/NAME": what OWNER tells PEER.
 */
void handshake_pair_path(char path[static HANDSHAKE_PATH_BYTES], unsigned owner,
			 unsigned peer);
void handshake_channel_path(char path[static HANDSHAKE_PATH_BYTES],
			    unsigned owner, unsigned peer, unsigned channel);
void handshake_want_path(char path[static HANDSHAKE_PATH_BYTES], unsigned owner,
			 unsigned peer, unsigned number);
/* NAME is one of ours: "peer", "name", "devices", "hold", "want". */
void handshake_name_path(char path[static HANDSHAKE_PATH_BYTES], unsigned owner,
			 unsigned peer, const char *name);

/*
 * A number as xenstore has them, "0" or without a leading zero, at most `max`;
 * false for anything else.
 */
bool handshake_parse_number(const char *text, uint32_t max,
			    uint32_t *ret_number);

#define HANDSHAKE_MAX_DOMID 32751u /* DOMID_FIRST_RESERVED - 1 */

#endif
