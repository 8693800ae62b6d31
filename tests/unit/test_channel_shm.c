/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shm channel against a peer that does not keep its rules: a server whose
 * offer is broken, and either side that scribbles on what is shared. Offers are
 * made from a real one, with one thing changed.
 */
#include "vchan-transport/channel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vchan-transport/fdpass.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define LIMIT_MS      5000
#define OFFER_FDS     3
#define MEMORY_BYTES  (4096 + 2 * CHANNEL_MIN_RING_BYTES)
#define ALL_SEALS     (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* A real server's offer, on its way to the client. */
struct offer {
	uint32_t words[4]; /* magic, version, bytes of a ring, reserved */
	size_t num_bytes;
	int fds[OFFER_FDS + 1]; /* memory, server's bell, client's bell */
	size_t num_fds;
};

struct bed {
	struct offer offer;
	struct channel *server;
	int to_client;
	int client;
	size_t fds_before;
};

static size_t count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	if (!dir)
		return 0;
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static int bed_setup(void **state)
{
	static struct bed bed;
	int fds[2];
	ssize_t n;

	memset(&bed, 0, sizeof(bed));
	bed.fds_before = count_fds();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	if (channel_shm_serve(fds[0], CHANNEL_MIN_RING_BYTES, &bed.server) < 0)
		return -1;
	n = fdpass_recv(fds[1], bed.offer.words, sizeof(bed.offer.words),
			bed.offer.fds, OFFER_FDS);
	(void)close(fds[1]);
	bed.offer.num_bytes = sizeof(bed.offer.words);
	bed.offer.num_fds = OFFER_FDS;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	bed.to_client = fds[0];
	bed.client = fds[1];
	*state = &bed;
	return n == sizeof(bed.offer.words) ? 0 : -1;
}

/* Whatever happened, no descriptor is left. */
static int bed_teardown(void **state)
{
	struct bed *bed = *state;

	channel_free(bed->server);
	for (size_t i = 0; i < bed->offer.num_fds; i++)
		(void)close(bed->offer.fds[i]);
	if (bed->to_client >= 0)
		(void)close(bed->to_client);
	return count_fds() == bed->fds_before ? 0 : -1;
}

/* Sends the offer as it is now and joins; the client's end is used up. */
static int offer_and_join(struct bed *bed, struct channel **ret_channel)
{
	int r = fdpass_send(bed->to_client, bed->offer.words,
			    bed->offer.num_bytes, bed->offer.fds,
			    bed->offer.num_fds);

	if (r < 0)
		return r;
	return channel_shm_join(bed->client, clock_ms() + LIMIT_MS,
				ret_channel);
}

static void check_refused(struct bed *bed, int error)
{
	struct channel *c = NULL;

	assert_int_equal(offer_and_join(bed, &c), error);
	assert_null(c);
}

static int make_memory(size_t bytes, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 ||
	    (seals != 0 && fcntl(fd, F_ADD_SEALS, seals) < 0))
		return -1;
	return fd;
}

/* In place of one of the offer's descriptors. */
static void replace_fd(struct bed *bed, size_t which, int fd)
{
	assert_true(fd >= 0);
	(void)close(bed->offer.fds[which]);
	bed->offer.fds[which] = fd;
}

/* ------------------------------------------------------------------ offers */

static void the_real_offer_is_taken(void **state)
{
	struct channel *c = NULL;

	assert_int_equal(offer_and_join(*state, &c), 0);
	assert_string_equal(channel_kind(c), "shm");
	channel_free(c);
}

static void another_magic_is_refused(void **state)
{
	struct bed *bed = *state;

	bed->offer.words[0] ^= 1;
	check_refused(bed, -EPROTONOSUPPORT);
}

static void another_version_is_refused(void **state)
{
	struct bed *bed = *state;

	bed->offer.words[1]++;
	check_refused(bed, -EPROTONOSUPPORT);
}

static void ring_sizes_that_cannot_be_are_refused(void **state)
{
	static const uint32_t sizes[] = { 0,
					  1,
					  CHANNEL_MIN_RING_BYTES / 2,
					  CHANNEL_MIN_RING_BYTES + 4096,
					  2 * CHANNEL_MAX_RING_BYTES,
					  0x80000000,
					  0xffffffff };
	struct bed *bed = *state;
	int fds[2];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		bed->offer.words[2] = sizes[i];
		check_refused(bed, -EPROTO);

		(void)close(bed->to_client);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC,
					    0, fds),
				 0);
		bed->to_client = fds[0];
		bed->client = fds[1];
	}
	(void)close(bed->client);
}

static void memory_of_another_size_is_refused(void **state)
{
	struct bed *bed = *state;

	replace_fd(bed, 0, make_memory(MEMORY_BYTES - 4096, ALL_SEALS));
	check_refused(bed, -EPROTO);
}

static void memory_that_could_shrink_is_refused(void **state)
{
	struct bed *bed = *state;

	replace_fd(bed, 0,
		   make_memory(MEMORY_BYTES, F_SEAL_GROW | F_SEAL_SEAL));
	check_refused(bed, -EPROTO);
}

static void memory_that_is_a_pipe_is_refused(void **state)
{
	struct bed *bed = *state;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	(void)close(fds[1]);
	replace_fd(bed, 0, fds[0]);
	check_refused(bed, -EPROTO);
}

static void check_bell_of_a_pipe(struct bed *bed, size_t which)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	(void)close(fds[0]);
	replace_fd(bed, which, fds[1]);
	check_refused(bed, -EPROTO);
}

static void a_server_bell_that_is_a_pipe_is_refused(void **state)
{
	check_bell_of_a_pipe(*state, 1);
}

static void a_client_bell_that_is_a_pipe_is_refused(void **state)
{
	check_bell_of_a_pipe(*state, 2);
}

static void an_offer_without_its_last_descriptor_is_refused(void **state)
{
	struct bed *bed = *state;

	(void)close(bed->offer.fds[--bed->offer.num_fds]);
	check_refused(bed, -EPROTO);
}

static void an_offer_without_descriptors_is_refused(void **state)
{
	struct bed *bed = *state;

	while (bed->offer.num_fds > 0)
		(void)close(bed->offer.fds[--bed->offer.num_fds]);
	check_refused(bed, -EPROTO);
}

static void an_offer_with_one_descriptor_too_many_is_refused(void **state)
{
	struct bed *bed = *state;

	bed->offer.fds[bed->offer.num_fds++] = eventfd(0, EFD_CLOEXEC);
	check_refused(bed, -EBADMSG);
}

static void an_offer_that_was_cut_is_refused(void **state)
{
	struct bed *bed = *state;

	bed->offer.num_bytes = 15;
	check_refused(bed, -EPROTO);
}

static void a_server_that_goes_without_an_offer_is_a_reset(void **state)
{
	struct bed *bed = *state;
	struct channel *c = NULL;

	(void)close(bed->to_client);
	bed->to_client = -1;
	assert_int_equal(channel_shm_join(bed->client, clock_ms() + LIMIT_MS,
					  &c),
			 -ECONNRESET);
	assert_null(c);
}

static void a_server_rejects_ring_sizes_that_are_none(void **state)
{
	static const size_t sizes[] = { 0, CHANNEL_MIN_RING_BYTES / 2,
					CHANNEL_MIN_RING_BYTES + 1,
					(size_t)2 * CHANNEL_MAX_RING_BYTES };
	struct bed *bed = *state;
	struct channel *c = NULL;

	(void)close(bed->client);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		int fd = dup(bed->to_client);

		assert_int_equal(channel_shm_serve(fd, sizes[i], &c), -EINVAL);
		assert_null(c);
		assert_int_equal(fcntl(fd, F_GETFD), -1);
	}
}

/* ------------------------------------------------------------------ abuses */

/* The client joined, and the test has the memory in its hands. */
static uint32_t *join_and_map(struct bed *bed, struct channel **ret_client)
{
	void *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
			    MAP_SHARED, bed->offer.fds[0], 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(offer_and_join(bed, ret_client), 0);
	return memory;
}

static void scribbled_indices_end_the_channel_with_a_reason(void **state)
{
	struct bed *bed = *state;
	struct channel *client = NULL;
	uint32_t *words = join_and_map(bed, &client);
	struct iovec pieces[2];
	uint8_t byte = 0;
	struct iovec v = { &byte, 1 };

	memset(words, 0xf0, 4096);
	assert_int_equal(channel_peek(client, pieces), -EPROTO);
	assert_int_equal(channel_read(client, &byte, 1), -EPROTO);
	assert_int_equal(channel_writev(client, &v, 1), -EPROTO);
	assert_int_equal(channel_read_all(client, &byte, 1,
					  clock_ms() + LIMIT_MS),
			 -EPROTO);
	assert_int_equal(channel_write_all(client, &byte, 1,
					   clock_ms() + LIMIT_MS),
			 -EPROTO);
	(void)munmap(words, MEMORY_BYTES);
	channel_free(client);
}

/* The bells' descriptions are shared: their flags are the peer's to change. */
static void a_bell_made_blocking_does_not_block_who_is_woken(void **state)
{
	struct bed *bed = *state;
	struct channel *client = NULL;
	const int bell = bed->offer.fds[2];
	uint64_t rings;

	assert_int_equal(offer_and_join(bed, &client), 0);
	assert_int_equal(fcntl(bell, F_SETFL, 0), 0);
	(void)alarm(LIMIT_MS / 1000);
	for (int i = 0; i < 3; i++) {
		struct channel_fd fds[CHANNEL_MAX_FDS];

		assert_int_equal(channel_fds(client, CHANNEL_READ, fds), 2);
		assert_true(channel_wake(client, fds[0].fd));
	}
	(void)alarm(0);

	/* And a bell that was rung is quiet again after the wake-up. */
	rings = 7;
	assert_int_equal(write(bell, &rings, sizeof(rings)), sizeof(rings));
	assert_int_equal(
		channel_wait(client, CHANNEL_READ, clock_ms() + LIMIT_MS), 0);
	assert_int_equal(channel_wait(client, CHANNEL_READ, clock_ms() + 10),
			 -ETIMEDOUT);
	channel_free(client);
}

static void a_word_over_the_socket_ends_the_channel(void **state)
{
	struct bed *bed = *state;
	struct channel *client = NULL;
	uint8_t byte;

	assert_int_equal(offer_and_join(bed, &client), 0);
	assert_int_equal(write(bed->to_client, "x", 1), 1);
	assert_int_equal(channel_read_all(client, &byte, 1,
					  clock_ms() + LIMIT_MS),
			 -ECONNRESET);
	channel_free(client);
}

/*
 * A peer that is gone is no news to who asks for nothing, and cannot: a caller
 * that waits for something else would never sleep.
 */
static void a_peer_that_is_gone_wakes_only_who_wants_something(void **state)
{
	struct bed *bed = *state;
	struct channel *client = NULL;
	struct iovec pieces[2];

	assert_int_equal(offer_and_join(bed, &client), 0);
	(void)close(bed->to_client);
	bed->to_client = -1;
	assert_int_equal(channel_peek(client, pieces), 0);
	while (!channel_arm(client, CHANNEL_READ))
		assert_int_equal(channel_wait(client, CHANNEL_READ,
					      clock_ms() + LIMIT_MS),
				 0);
	assert_false(channel_arm(client, 0));

	assert_int_equal(channel_ended(client), -ECONNRESET);
	assert_false(channel_arm(client, CHANNEL_READ));
	channel_free(client);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, bed_setup, bed_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_real_offer_is_taken),
		TEST(another_magic_is_refused),
		TEST(another_version_is_refused),
		TEST(ring_sizes_that_cannot_be_are_refused),
		TEST(memory_of_another_size_is_refused),
		TEST(memory_that_could_shrink_is_refused),
		TEST(memory_that_is_a_pipe_is_refused),
		TEST(a_server_bell_that_is_a_pipe_is_refused),
		TEST(a_client_bell_that_is_a_pipe_is_refused),
		TEST(an_offer_without_its_last_descriptor_is_refused),
		TEST(an_offer_without_descriptors_is_refused),
		TEST(an_offer_with_one_descriptor_too_many_is_refused),
		TEST(an_offer_that_was_cut_is_refused),
		TEST(a_server_that_goes_without_an_offer_is_a_reset),
		TEST(a_server_rejects_ring_sizes_that_are_none),
		TEST(scribbled_indices_end_the_channel_with_a_reason),
		TEST(a_bell_made_blocking_does_not_block_who_is_woken),
		TEST(a_word_over_the_socket_ends_the_channel),
		TEST(a_peer_that_is_gone_wakes_only_who_wants_something),
	};

	return cmocka_run_group_tests_name("channel_shm", tests, NULL, NULL);
}
