/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.h - one direction of a byte stream in shared memory, with the discipline
 * of libxenvchan: free-running indices, one writer, one reader, and a side is
 * notified only if it said that it waits.
 *
 * The other side owns half of the shared words and may write anything at any
 * time.  An end keeps its own index and the ring's size in private memory, reads
 * the other's index once for each decision, and checks it against the size
 * (XSA-86); what it finds wrong ends the ring (-EPROTO).  Pure: memory only.
 */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* In shared memory; each word has one writer but for the waiting marks. */
struct ring_control {
	_Alignas(64) _Atomic uint32_t produced; /* by the writer, free-running */
	_Atomic uint32_t is_ended;              /* by the writer: no more */
	_Alignas(64) _Atomic uint32_t consumed; /* by the reader, free-running */
	/* Set by who waits, cleared by who is about to notify. */
	_Alignas(64) _Atomic uint32_t reader_waits;
	_Alignas(64) _Atomic uint32_t writer_waits;
};

/* An end of a ring, in private memory; zero-initialised but for the first. */
struct ring {
	struct ring_control *shared;
	uint8_t *data;  /* `size` bytes */
	uint32_t size;  /* a power of two */
	uint32_t index; /* writer: produced; reader: consumed */
	uint32_t seen;  /* the other's index when this end last looked */
	bool is_end_told;
};

/* Reader: what lies there, 0 if nothing, -EPIPE ended and empty, -EPROTO. */
ssize_t ring_peek(struct ring *r, struct iovec ret_pieces[2]);
/* Reader: has the writer ended?  Ask before ring_peek. */
bool ring_is_ended(struct ring *r);
/* Reader: `bytes` were used; no more than ring_peek showed. */
void ring_consume(struct ring *r, uint32_t bytes);
/* Reader: should the writer be notified of what was consumed? */
bool ring_reader_must_notify(struct ring *r);
/* Reader, before it sleeps: true if there is news since ring_peek. */
bool ring_reader_arm(struct ring *r);
/* Reader: news since ring_peek, without arming. */
bool ring_reader_has_news(const struct ring *r);

/* Writer: copies what fits; how many bytes, or -EPROTO. */
ssize_t ring_writev(struct ring *r, const struct iovec *v, int n);
/* Writer: the room there is, to fill in place; its length, or -EPROTO. */
ssize_t ring_reserve(struct ring *r, struct iovec ret_pieces[2]);
/* Writer: the first `bytes` of it are filled. */
void ring_commit(struct ring *r, uint32_t bytes);
bool ring_writer_must_notify(struct ring *r);
/* Writer, before it sleeps: true if there is room worth waking for. */
bool ring_writer_arm(struct ring *r);
/* Writer: nothing follows. */
void ring_end(struct ring *r);

#endif
