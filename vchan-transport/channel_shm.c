/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_shm.c - a channel over two rings in shared memory, for two processes
 * of one machine.
 *
 * They meet through a connected AF_UNIX socket.  The server makes a memfd of
 * one control page and the two rings, seals its size, and sends it with two
 * eventfds, the bell of each side.  The socket carries nothing more: its
 * hang-up tells that the other process is gone, and its credentials told who
 * that is.
 *
 * Everything in the memory is the other's to scribble on (ring.h); the bells'
 * descriptions are shared too, so a bell is read with RWF_NOWAIT whatever its
 * flags say now, and a peer that fills a bell to make writing to it block is
 * left to the loop's watchdog.
 */
#include "vchan-transport/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vchan-transport/fdpass.h"
#include "vchan-transport/ring.h"

#define SHM_MAGIC     0x6d687362u
#define SHM_VERSION   1u
#define CONTROL_BYTES 4096u
#define SPIN_NS       20000
/* A spin that found nothing is not tried again for this many sleeps. */
#define SPIN_PAUSE 16

/* The one message of the rendezvous; both ends are on one machine. */
struct shm_offer {
	uint32_t magic;
	uint32_t version;
	uint32_t ring_bytes;
	uint32_t reserved;
};

/* The control page. */
struct shm_control {
	struct ring_control to_client;
	struct ring_control to_server;
};
_Static_assert(sizeof(struct shm_control) <= CONTROL_BYTES, "one page");

enum {
	OFFER_MEMORY,
	OFFER_SERVER_BELL,
	OFFER_CLIENT_BELL,
	OFFER_FDS
};

struct channel_shm {
	struct channel base;
	struct ring in;
	struct ring out;
	uint8_t *memory;
	size_t memory_bytes;
	int bell; /* ours: rung by the peer */
	int peer_bell;
	int sock;     /* -1 once it hung up */
	bool is_gone; /* the socket hung up: the peer process is gone */
	bool is_gone_told;
	bool has_written; /* since the last flush */
	bool has_consumed;
	bool has_cpus; /* there is another CPU for the peer */
	unsigned spin_pause;
};

static struct channel_shm *shm_of(struct channel *c)
{
	return (struct channel_shm *)c;
}

static ssize_t shm_peek(struct channel *c, struct iovec ret_pieces[2])
{
	struct channel_shm *s = shm_of(c);
	ssize_t n = ring_peek(&s->in, ret_pieces);

	if (n == 0 && s->is_gone)
		return -ECONNRESET;
	return n;
}

static void shm_consume(struct channel *c, size_t bytes)
{
	struct channel_shm *s = shm_of(c);

	ring_consume(&s->in, (uint32_t)bytes);
	s->has_consumed = true;
}

static int shm_ended(struct channel *c)
{
	struct channel_shm *s = shm_of(c);

	if (ring_is_ended(&s->in))
		return -EPIPE;
	s->is_gone_told = s->is_gone;
	return s->is_gone ? -ECONNRESET : 0;
}

static ssize_t shm_read(struct channel *c, void *to, size_t bytes)
{
	struct iovec pieces[2];
	ssize_t n = shm_peek(c, pieces);

	if (n <= 0)
		return n;
	if ((size_t)n < bytes)
		bytes = (size_t)n;
	channel_gather(to, pieces, bytes);
	shm_consume(c, bytes);
	return (ssize_t)bytes;
}

static ssize_t shm_writev(struct channel *c, const struct iovec *v, int n)
{
	struct channel_shm *s = shm_of(c);

	if (s->is_gone)
		return -ECONNRESET;
	s->has_written = true;
	return ring_writev(&s->out, v, n);
}

static ssize_t shm_reserve(struct channel *c, struct iovec ret_pieces[2])
{
	struct channel_shm *s = shm_of(c);

	return s->is_gone ? -ECONNRESET : ring_reserve(&s->out, ret_pieces);
}

static void shm_commit(struct channel *c, size_t bytes)
{
	struct channel_shm *s = shm_of(c);

	ring_commit(&s->out, (uint32_t)bytes);
	s->has_written = true;
}

static void ring_bell(const struct channel_shm *s)
{
	const uint64_t one = 1;

	/* Full means rung. */
	(void)!write(s->peer_bell, &one, sizeof(one));
}

static void shm_flush(struct channel *c)
{
	struct channel_shm *s = shm_of(c);
	bool must_ring = false;

	if (s->has_written)
		must_ring = ring_writer_must_notify(&s->out);
	if (s->has_consumed)
		must_ring |= ring_reader_must_notify(&s->in);
	s->has_written = false;
	s->has_consumed = false;
	if (must_ring)
		ring_bell(s);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/*
 * Waits a moment for bytes while the peer works on another CPU; with one CPU
 * the peer gets it, and often has answered when it comes back: a switch less
 * than to sleep and to be woken.
 */
static bool shm_spin(struct channel_shm *s)
{
	int64_t until;

	if (ring_reader_has_news(&s->in))
		return true;
	if (!s->has_cpus) {
		(void)sched_yield();
		return ring_reader_has_news(&s->in);
	}
	if (s->spin_pause > 0) {
		s->spin_pause--;
		return false;
	}
	until = now_ns() + SPIN_NS;
	do {
		for (int i = 0; i < 32; i++) {
			if (ring_reader_has_news(&s->in))
				return true;
			__builtin_ia32_pause();
		}
	} while (now_ns() < until);
	s->spin_pause = SPIN_PAUSE;
	return false;
}

static bool shm_arm(struct channel *c, unsigned want)
{
	struct channel_shm *s = shm_of(c);
	bool has_news = (want & (CHANNEL_READ | CHANNEL_WRITE)) && s->is_gone &&
			!s->is_gone_told;

	if (want & CHANNEL_READ) {
		if ((want & CHANNEL_SPIN) && shm_spin(s))
			return true;
		has_news |= ring_reader_arm(&s->in);
	}
	if (want & CHANNEL_WRITE)
		has_news |= ring_writer_arm(&s->out);
	return has_news;
}

static bool shm_wake(struct channel *c, int fd)
{
	struct channel_shm *s = shm_of(c);
	uint64_t rings;
	struct iovec iov = { .iov_base = &rings, .iov_len = sizeof(rings) };
	char byte;
	ssize_t n;

	if (fd == s->bell) {
		(void)!preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
		return true;
	}
	n = recv(fd, &byte, sizeof(byte), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	/* A byte here is not ours to understand: the peer broke the rules. */
	s->is_gone = true;
	return false;
}

static size_t shm_fds(struct channel *c, unsigned want,
		      struct channel_fd ret_fds[CHANNEL_MAX_FDS])
{
	struct channel_shm *s = shm_of(c);

	(void)want;
	ret_fds[0] = (struct channel_fd){ s->bell, POLLIN, CHANNEL_FD_BELL };
	if (s->is_gone)
		return 1;
	ret_fds[1] = (struct channel_fd){ s->sock, POLLIN, CHANNEL_FD_LEVEL };
	return 2;
}

static int shm_end(struct channel *c)
{
	struct channel_shm *s = shm_of(c);

	ring_end(&s->out);
	ring_bell(s);
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		(void)close(fd);
}

static void shm_free(struct channel *c)
{
	struct channel_shm *s = shm_of(c);

	if (s->memory)
		(void)munmap(s->memory, s->memory_bytes);
	close_fd(s->bell);
	close_fd(s->peer_bell);
	close_fd(s->sock);
	free(s);
}

static const struct channel_ops shm_ops = {
	.name = "shm",
	.peek = shm_peek,
	.consume = shm_consume,
	.ended = shm_ended,
	.read = shm_read,
	.writev = shm_writev,
	.reserve = shm_reserve,
	.commit = shm_commit,
	.flush = shm_flush,
	.arm = shm_arm,
	.wake = shm_wake,
	.fds = shm_fds,
	.end = shm_end,
	.free = shm_free,
};

static bool is_ring_size(size_t bytes)
{
	return bytes >= CHANNEL_MIN_RING_BYTES &&
	       bytes <= CHANNEL_MAX_RING_BYTES && (bytes & (bytes - 1)) == 0;
}

static int shm_new(int sock, struct channel_shm **ret_shm)
{
	struct channel_shm *s = calloc(1, sizeof(*s));
	cpu_set_t cpus;

	if (!s) {
		(void)close(sock);
		return -ENOMEM;
	}
	s->base.ops = &shm_ops;
	s->bell = -1;
	s->peer_bell = -1;
	s->sock = sock;
	s->has_cpus = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 &&
		      CPU_COUNT(&cpus) > 1;
	*ret_shm = s;
	return 0;
}

static int shm_map(struct channel_shm *s, int memfd, uint32_t ring_bytes,
		   bool is_server)
{
	struct shm_control *control;
	void *memory;
	uint8_t *rings;

	s->memory_bytes = CONTROL_BYTES + 2 * (size_t)ring_bytes;
	memory = mmap(NULL, s->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		      memfd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	s->memory = memory;
	control = memory;
	rings = s->memory + CONTROL_BYTES;
	s->in.shared = is_server ? &control->to_server : &control->to_client;
	s->out.shared = is_server ? &control->to_client : &control->to_server;
	s->in.data = is_server ? rings : rings + ring_bytes;
	s->out.data = is_server ? rings + ring_bytes : rings;
	s->in.size = ring_bytes;
	s->out.size = ring_bytes;
	return 0;
}

static int make_memory(size_t bytes)
{
	int fd =
		memfd_create("xusbip-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) <
		    0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	return fd;
}

static int shm_offer(struct channel_shm *s, uint32_t ring_bytes)
{
	const struct shm_offer offer = { .magic = SHM_MAGIC,
					 .version = SHM_VERSION,
					 .ring_bytes = ring_bytes };
	int fds[OFFER_FDS];
	int r;

	r = make_memory(CONTROL_BYTES + 2 * (size_t)ring_bytes);
	if (r < 0)
		return r;
	fds[OFFER_MEMORY] = r;
	s->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->peer_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->bell < 0 || s->peer_bell < 0) {
		r = -errno;
	} else {
		fds[OFFER_SERVER_BELL] = s->bell;
		fds[OFFER_CLIENT_BELL] = s->peer_bell;
		r = shm_map(s, fds[OFFER_MEMORY], ring_bytes, true);
	}
	if (r == 0)
		r = fdpass_send(s->sock, &offer, sizeof(offer), fds, OFFER_FDS);
	(void)close(fds[OFFER_MEMORY]);
	return r;
}

int channel_shm_serve(int fd, size_t ring_bytes, struct channel **ret_channel)
{
	struct channel_shm *s;
	int r;

	if (!is_ring_size(ring_bytes)) {
		(void)close(fd);
		return -EINVAL;
	}
	r = shm_new(fd, &s);
	if (r < 0)
		return r;
	r = shm_offer(s, (uint32_t)ring_bytes);
	if (r < 0) {
		shm_free(&s->base);
		return r;
	}
	*ret_channel = &s->base;
	return 0;
}

/* Only a real eventfd can be a bell: reading anything else might block. */
static bool is_eventfd(int fd)
{
	char link[64];
	char target[64];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	return strcmp(target, "anon_inode:[eventfd]") == 0;
}

static bool is_sealed(int fd, size_t bytes)
{
	const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	return seals >= 0 && (seals & wanted) == wanted &&
	       fstat(fd, &st) == 0 && st.st_size >= 0 &&
	       (size_t)st.st_size == bytes;
}

static int shm_take_offer(struct channel_shm *s, const struct shm_offer *offer,
			  const int fds[OFFER_FDS])
{
	s->bell = fds[OFFER_CLIENT_BELL];
	s->peer_bell = fds[OFFER_SERVER_BELL];
	if (offer->magic != SHM_MAGIC || offer->version != SHM_VERSION)
		return -EPROTONOSUPPORT;
	if (!is_ring_size(offer->ring_bytes) || !is_eventfd(s->bell) ||
	    !is_eventfd(s->peer_bell) ||
	    !is_sealed(fds[OFFER_MEMORY],
		       CONTROL_BYTES + 2 * (size_t)offer->ring_bytes))
		return -EPROTO;
	return shm_map(s, fds[OFFER_MEMORY], offer->ring_bytes, false);
}

static int wait_readable(int fd, uint64_t deadline_ms)
{
	uint64_t now = clock_ms();
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int r;

	if (now >= deadline_ms)
		return -ETIMEDOUT;
	r = poll(&p, 1, (int)(deadline_ms - now));
	if (r < 0)
		return -errno;
	return r == 0 ? -ETIMEDOUT : 0;
}

int channel_shm_join(int fd, uint64_t deadline_ms, struct channel **ret_channel)
{
	struct shm_offer offer;
	int fds[OFFER_FDS] = { -1, -1, -1 };
	struct channel_shm *s;
	ssize_t n;
	int r;

	r = shm_new(fd, &s);
	if (r < 0)
		return r;
	r = wait_readable(fd, deadline_ms);
	if (r == 0) {
		n = fdpass_recv(fd, &offer, sizeof(offer), fds, OFFER_FDS);
		if (n < 0)
			r = (int)n;
		else if (n == 0)
			r = -ECONNRESET;
		else if (n != sizeof(offer))
			r = -EPROTO;
	}
	if (r == 0) {
		r = shm_take_offer(s, &offer, fds);
	} else {
		close_fd(fds[OFFER_CLIENT_BELL]);
		close_fd(fds[OFFER_SERVER_BELL]);
	}
	close_fd(fds[OFFER_MEMORY]);
	if (r < 0) {
		shm_free(&s->base);
		return r;
	}
	*ret_channel = &s->base;
	return 0;
}
