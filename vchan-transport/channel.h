/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel.h - a byte stream in both directions between two processes, whatever
 * carries it: a shared-memory ring (channel_shm.c), a stream socket
 * (channel_socket.c), TLS over one (channel_tls.c), the rings of libxenvchan
 * (channel_vchan.c).
 *
 * Never blocks, but for channel_wait and the *_all helpers, which take a limit.
 * A channel serves one conversation and is not used again.
 *
 * Reading ends in one of two ways, and only after every byte that the peer
 * wrote has been consumed: -EPIPE, the peer said that it has no more (it ended
 * in order), or -ECONNRESET or another error, the peer is gone or broke the
 * channel.
 *
 * Sleeping: before a caller sleeps it asks channel_arm(); if that says true
 * there is news and it must not sleep, otherwise the channel's descriptors
 * will wake it.  For each descriptor that woke it, it calls channel_wake().
 *
 * Notification: written and consumed bytes are seen by the peer at once, but it
 * is woken only by channel_flush(): one call for a batch.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "vchan-transport/address.h"
#include "vchan-transport/handshake.h"

#define CHANNEL_MAX_FDS   2
#define CHANNEL_WHY_BYTES 256 /* of a failure's words */

/* What the caller of channel_arm or channel_wait wants to hear of. */
#define CHANNEL_READ  1u /* bytes that the last peek or read did not show */
#define CHANNEL_WRITE 2u /* room, after a write that did not fit */
/* With channel_arm: nothing else is awaited, so a short spin costs nobody. */
#define CHANNEL_SPIN 4u

enum channel_fd_kind {
	CHANNEL_FD_LEVEL, /* ready until channel_wake has taken what it tells */
	CHANNEL_FD_EDGE,  /* the same; told once is enough, wake takes all */
	CHANNEL_FD_BELL,  /* told once, and means nothing but "look" */
};

struct channel_fd {
	int fd;
	short events; /* of poll(2) */
	enum channel_fd_kind kind;
};

struct channel; /* opaque; made by the functions below, freed by channel_free */

/* Every slot answers for its channel as the function of its name below. */
struct channel_ops {
	const char *name; /* "shm", "socket", "tls", "vchan" */
	ssize_t (*peek)(struct channel *c, struct iovec ret_pieces[2]);
	void (*consume)(struct channel *c, size_t bytes);
	int (*ended)(struct channel *c);
	ssize_t (*read)(struct channel *c, void *to, size_t bytes);
	ssize_t (*writev)(struct channel *c, const struct iovec *v, int n);
	/* NULL where written bytes have no memory of the channel's own. */
	ssize_t (*reserve)(struct channel *c, struct iovec ret_pieces[2]);
	void (*commit)(struct channel *c, size_t bytes);
	void (*flush)(struct channel *c);
	bool (*arm)(struct channel *c, unsigned want);
	bool (*wake)(struct channel *c, int fd);
	size_t (*fds)(struct channel *c, unsigned want,
		      struct channel_fd ret_fds[CHANNEL_MAX_FDS]);
	int (*end)(struct channel *c);
	/* NULL: no. */
	bool (*tells_reasons)(const struct channel *c);
	/* NULL: there never is one. */
	int (*reason)(struct channel *c, uint64_t deadline_ms,
		      unsigned *ret_status,
		      char why[static HANDSHAKE_WHY_BYTES]);
	void (*free)(struct channel *c);
};

/* First member of each kind of channel. */
struct channel {
	const struct channel_ops *ops;
};

/*
 * Received bytes that are not consumed yet, oldest first, in up to two pieces
 * of memory (unused: length 0).  Returns their number, 0 if there are none now,
 * or how the stream ended.  The memory may be shared with the peer: copy what
 * is judged.  Valid until the next call on this channel.  A channel can always
 * gather CHANNEL_PEEK_BYTES before it must be consumed from.
 */
#define CHANNEL_PEEK_BYTES 32768
ssize_t channel_peek(struct channel *c, struct iovec ret_pieces[2]);
void channel_consume(struct channel *c, size_t bytes);

/* Copies the first `bytes`, no more than there are, out of two pieces. */
void channel_gather(void *to, const struct iovec pieces[2], size_t bytes);

/*
 * How the stream has ended, 0 if it has not; bytes may still lie there.  Who
 * waits for the rest of a message asks this first and then channel_peek: what
 * that does not show will not come.
 */
int channel_ended(struct channel *c);

/* Reads up to `bytes`: how many, 0 if none now, or how the stream ended. */
ssize_t channel_read(struct channel *c, void *to, size_t bytes);

/* Writes what fits: how many bytes, 0 if there is no room, or -errno. */
ssize_t channel_writev(struct channel *c, const struct iovec *v, int n);

/*
 * Memory to fill instead of writing: up to two pieces of the channel's own,
 * of which the first `bytes` are then committed.  Returns their length, 0 if
 * there is no room, -EOPNOTSUPP where the channel has no such memory, or
 * -errno.  Only for bytes that need no judging: the peer may see them early.
 */
ssize_t channel_reserve(struct channel *c, struct iovec ret_pieces[2]);
void channel_commit(struct channel *c, size_t bytes);

/* Wakes the peer if it waits for what was written or consumed. */
void channel_flush(struct channel *c);

/* To be asked before sleeping: true = do not sleep, there is news. */
bool channel_arm(struct channel *c, unsigned want);

/*
 * A descriptor was ready.  False: it has nothing more to say, drop it.  A bell
 * that is watched for edges needs no call.
 */
bool channel_wake(struct channel *c, int fd);

/*
 * The descriptors to poll for `want`; returns how many. Also asks for what the
 * channel itself waits for, to send on what it has taken.
 */
size_t channel_fds(struct channel *c, unsigned want,
		   struct channel_fd ret_fds[CHANNEL_MAX_FDS]);

/*
 * Says that no more will be written; what was written before still arrives.
 * Reading goes on.  0 or -errno.
 */
int channel_end(struct channel *c);

/* Lets go of everything.  NULL is fine. */
void channel_free(struct channel *c);

const char *channel_kind(const struct channel *c);

/*
 * Have both ends agreed that an operation's refusal is followed by its reason?
 * Then CHANNEL_REASON_BYTES follow the head of an answer whose status is not
 * USBIP_ST_OK: a sentence, padded with NULs.
 */
#define CHANNEL_REASON_BYTES 128
bool channel_tells_reasons(const struct channel *c);

/*
 * What the other side told about the end beside the stream: over Xen the
 * gateway's last word, over TLS the alert; waits for it, and drops what it
 * still sends. 0 with one of enum exit_status, -ENOENT if it is gone without a
 * word, -ETIMEDOUT, -EOPNOTSUPP for a channel that never has one.
 */
int channel_reason(struct channel *c, uint64_t deadline_ms,
		   unsigned *ret_status, char why[static HANDSHAKE_WHY_BYTES]);

/*
 * For conversations with one question at a time.  Each waits at most until
 * `deadline_ms` of clock_ms(): -ETIMEDOUT then; otherwise 0 or how the stream
 * ended.  channel_write_all flushes, and drains.
 */
uint64_t clock_ms(void);
int channel_wait(struct channel *c, unsigned want, uint64_t deadline_ms);
int channel_read_all(struct channel *c, void *to, size_t bytes,
		     uint64_t deadline_ms);
int channel_write_all(struct channel *c, const void *from, size_t bytes,
		      uint64_t deadline_ms);
/*
 * Waits until the channel has sent all that was written and flushed, an end
 * too, so that it arrives although nobody asks the channel again.
 */
int channel_drain(struct channel *c, uint64_t deadline_ms);
/* Ends, then waits for the peer's end and drops what it still sends. */
void channel_finish(struct channel *c, uint64_t deadline_ms);

/* How to open a channel, beside its address. All zero: as usual. */
struct channel_options {
	size_t ring_bytes;   /* xen: each way; 0: as the gateway has it */
	const char *tls_dir; /* tls: the folder (tls.h); NULL: TLS_DIR */
	/* tls: the key that the gateway must have; NULL: it must be certified
	 * for the address's host. Of TLS_PIN_BYTES. */
	const uint8_t *tls_pin;
	/*
	 * All but xen: called when all that this side opens is open, and before
	 * a peer of another host is listened to, to give rights up: 0, or
	 * -errno, which ends it. NULL: nothing to do.
	 */
	int (*before_peer)(void);
};
#define TLS_PIN_BYTES 32

/*
 * Opens a channel to a listener as a client: socket for tcp: and vsock:, shm
 * for unix:, tls for tls: (tls.h has its failures), vchan for xen: (warden.h).
 * -ENOKEY: this host's own TLS files are not as they must be.  The failure's
 * words are left in `why`.
 */
int channel_connect(const struct address *to,
		    const struct channel_options *options, uint64_t deadline_ms,
		    struct channel **ret_channel,
		    char why[static CHANNEL_WHY_BYTES]);

/*
 * A TCP connection that carries small messages, and whose end is noticed within
 * `dead_s` when its peer vanishes without a word, data waiting for it or not.
 */
#define CHANNEL_DEAD_S     15u
#define CHANNEL_MIN_DEAD_S 5u
void channel_tune_tcp(int fd, unsigned dead_s);

/*
 * Takes over an accepted connection: as a stream (tcp:, vsock:) or, for unix:,
 * by offering shared memory with rings of `ring_bytes` each way (a power of
 * two).  Owns `fd` from the call on, on failure too.  For tls: see tls.h.
 */
int channel_accept(enum address_kind kind, int fd, size_t ring_bytes,
		   struct channel **ret_channel);

#define CHANNEL_RING_BYTES     (1u << 20)
#define CHANNEL_MIN_RING_BYTES (64u << 10)
#define CHANNEL_MAX_RING_BYTES (16u << 20)

/* A stream of any kind on a connected socket; owns `fd`. */
int channel_socket_new(int fd, struct channel **ret_channel);

/* The two ends of channel_shm, over a connected AF_UNIX socket; own `fd`. */
int channel_shm_serve(int fd, size_t ring_bytes, struct channel **ret_channel);
int channel_shm_join(int fd, uint64_t deadline_ms,
		     struct channel **ret_channel);

/* Of each ring; both are of this size. */
#define CHANNEL_VCHAN_MIN_RING_BYTES 4096u
#define CHANNEL_VCHAN_MAX_RING_BYTES (1u << 20)

/*
 * The two ends of channel_vchan, between domains; the failure's words are left
 * in `why`. Nodes are written below `path` (of our domain, relative, or
 * absolute), which has at most 48 bytes and is there already; they are not
 * removed.  What xenstore's quotas refuse is tried again until the deadline.
 * Opening is for outside of a sandbox, all else and freeing fits in it.
 *
 * The server may be used at once: the client's coming is an event as any other,
 * and until then there is nothing to read.
 */
int channel_vchan_serve(unsigned domid, const char *path, size_t ring_bytes,
			uint64_t deadline_ms, struct channel **ret_channel,
			char why[static CHANNEL_WHY_BYTES]);
/*
 * `life_fd`, a connected SOCK_SEQPACKET socket, tells that the gateway is gone:
 * by a hang-up, or by a message, which is a channel_last_word or nothing.  Bytes
 * that are in the ring are read first.  The channel owns it when it is there;
 * on failure it stays the caller's.
 */
int channel_vchan_join(unsigned domid, const char *path, int life_fd,
		       struct channel **ret_channel,
		       char why[static CHANNEL_WHY_BYTES]);

/* What the gateway said about the end; from a warden to the process it serves. */
struct channel_last_word {
	uint32_t status; /* enum exit_status */
	char why[HANDSHAKE_WHY_BYTES];
};

#endif
