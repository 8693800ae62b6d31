/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link in a process of its own, as it is in life, sandbox included: this one
 * plays vhci_hcd on its socket and the gateway on its channel. What passes must
 * pass unchanged, whoever is slow, and however it ends.
 */
#include "frontend/link.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fake/link_bench.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIB           (1u << 20)

static bool over_shm = true;
static bool over_socket = false;

static int setup(void **state)
{
	struct link_bench *b = calloc(1, sizeof(*b));
	bool is_shm = *(const bool *)*state;

	*state = b;
	if (!b || link_bench_prepare(b, is_shm) < 0)
		return -1;
	return 0;
}

static int teardown(void **state)
{
	link_bench_close(*state);
	free(*state);
	return 0;
}

/* Byte streams of a test: what goes in on one side comes out on the other. */
static struct link_bytes commands;
static struct link_bytes replies;

static void start(struct link_bench *b)
{
	link_bytes_clear(&commands);
	link_bytes_clear(&replies);
	assert_int_equal(link_bench_start(b), 0);
}

/* ----------------------------------------------------------------- passing */

static void every_kind_of_urb_passes_unchanged(void **state)
{
	static const struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 100, .actual_length = 70 },
		{ .offset = 200, .length = 100, .actual_length = 0 },
		{ .offset = 300, .length = 12, .actual_length = 12 },
	};
	struct link_bench *b = *state;

	start(b);
	link_submit_in(&commands, 1, 100000);
	link_submit_out(&commands, 2, 100001);
	link_submit_in(&commands, 3, 0);
	link_submit_iso(&commands, 4, 0x85, 400, packets, 3);
	link_submit_iso(&commands, 5, 0x06, 400, packets, 3);
	link_unlink(&commands, 6, 3);
	link_unlink(&commands, 7, 77);
	assert_true(link_bench_pass_commands(b, &commands));

	link_ret_iso(&replies, 4, true, packets, 3);
	link_ret_submit_out(&replies, 2, -EPIPE, 5000);
	link_ret_unlink(&replies, 6, -ECONNRESET);
	link_ret_submit_in(&replies, 1, 0, 99999);
	link_ret_iso(&replies, 5, false, packets, 3);
	link_ret_unlink(&replies, 7, 0);
	assert_true(link_bench_pass_replies(b, &replies));
	assert_true(link_bench_is_silent(b));
}

static void data_larger_than_any_buffer_between_passes(void **state)
{
	struct link_bench *b = *state;

	start(b);
	link_submit_out(&commands, 1, 5 * MIB);
	link_submit_in(&commands, 2, 5 * MIB);
	assert_true(link_bench_pass_commands(b, &commands));
	link_ret_submit_out(&replies, 1, 0, 5 * MIB);
	link_ret_submit_in(&replies, 2, 0, 5 * MIB);
	assert_true(link_bench_pass_replies(b, &replies));
}

static void many_urbs_at_once_pass(void **state)
{
	struct link_bench *b = *state;

	start(b);
	for (uint32_t i = 0; i < 4000; i++)
		link_submit_in(&commands, i, 700);
	assert_true(link_bench_pass_commands(b, &commands));
	for (uint32_t i = 0; i < 4000; i++)
		link_ret_submit_in(&replies, 3999 - i, 0, i % 701);
	assert_true(link_bench_pass_replies(b, &replies));
}

static void short_commands_pass_without_waking_vhcis_receiver(void **state)
{
	struct epoll_event event = { .events = EPOLLOUT | EPOLLET };
	struct link_bench *b = *state;
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

	start(b);
	assert_true(epoll_fd >= 0);
	assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, b->vhci, &event),
			 0);
	assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 1);
	for (uint32_t i = 0; i < 10; i++) {
		link_bytes_clear(&commands);
		link_bytes_clear(&replies);
		link_submit_in(&commands, i, 18);
		assert_true(link_bench_pass_commands(b, &commands));
		link_ret_submit_in(&replies, i, 0, 18);
		assert_true(link_bench_pass_replies(b, &replies));
	}
	assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 0);
	(void)close(epoll_fd);
}

static void commands_that_passed_leave_vhci_room_to_send(void **state)
{
	struct link_bench *b = *state;
	int buffer_bytes = 0;
	socklen_t length = sizeof(buffer_bytes);

	start(b);
	assert_int_equal(getsockopt(b->vhci, SOL_SOCKET, SO_SNDBUF,
				    &buffer_bytes, &length),
			 0);
	for (uint32_t i = 0; i < 1000; i++) {
		int used = 0;

		link_bytes_clear(&commands);
		link_submit_in(&commands, i, 18);
		assert_true(link_bench_pass_commands(b, &commands));
		assert_int_equal(ioctl(b->vhci, SIOCOUTQ, &used), 0);
		assert_true(used < buffer_bytes / 2);
	}
}

static void a_seqnum_may_be_used_again_once_it_was_answered(void **state)
{
	struct link_bench *b = *state;

	start(b);
	for (int i = 0; i < 3; i++) {
		link_bytes_clear(&commands);
		link_bytes_clear(&replies);
		link_submit_in(&commands, 0, 8);
		assert_true(link_bench_pass_commands(b, &commands));
		link_ret_submit_in(&replies, 0, 0, 8);
		assert_true(link_bench_pass_replies(b, &replies));
	}
}

static void fill_with_all_kinds(void)
{
	static const struct usbip_iso_packet packets[] = {
		{ .offset = 0, .length = 10, .actual_length = 7 },
		{ .offset = 10, .length = 10, .actual_length = 3 },
	};

	link_submit_out(&commands, 1, 33);
	link_submit_iso(&commands, 2, 0x85, 20, packets, 2);
	link_submit_iso(&commands, 3, 0x06, 20, packets, 2);
	link_unlink(&commands, 4, 99);
	link_submit_in(&commands, 5, 20);
	link_ret_iso(&replies, 2, true, packets, 2);
	link_ret_unlink(&replies, 4, 0);
	link_ret_iso(&replies, 3, false, packets, 2);
	link_ret_submit_in(&replies, 5, 0, 19);
	link_ret_submit_out(&replies, 1, 0, 33);
}

static void both_directions_may_be_cut_at_every_byte(void **state)
{
	struct link_bench *b = *state;
	size_t longest;

	start(b);
	fill_with_all_kinds();
	longest = commands.used > replies.used ? commands.used : replies.used;
	for (size_t cut = 1; cut < longest; cut++) {
		assert_true(link_bench_pass_commands_cut(b, &commands, cut));
		assert_true(link_bench_pass_replies_cut(b, &replies, cut));
	}
}

/* -------------------------------------------------------------- slow sides */

static void replies_wait_for_a_vhci_that_does_not_read(void **state)
{
	struct link_bench *b = *state;

	start(b);
	/* Around what the socket and the channel hold together. */
	for (uint32_t kib = 64; kib <= 640; kib += 16) {
		link_bytes_clear(&commands);
		link_bytes_clear(&replies);
		link_submit_in(&commands, kib, kib << 10);
		assert_true(link_bench_pass_commands(b, &commands));
		link_ret_submit_in(&replies, kib, 0, kib << 10);
		assert_true(link_bench_stall_replies(b, &replies));
	}
}

static void iso_replies_wait_for_a_vhci_that_does_not_read(void **state)
{
	static struct usbip_iso_packet packets[USBIP_MAX_ISO_PACKETS];
	struct link_bench *b = *state;

	for (uint32_t i = 0; i < USBIP_MAX_ISO_PACKETS; i++)
		packets[i] = (struct usbip_iso_packet){ .offset = 512 * i,
							.length = 512,
							.actual_length = 500 };
	start(b);
	link_submit_iso(&commands, 1, 0x85, 512 * USBIP_MAX_ISO_PACKETS,
			packets, USBIP_MAX_ISO_PACKETS);
	link_submit_iso(&commands, 2, 0x85, 512 * USBIP_MAX_ISO_PACKETS,
			packets, USBIP_MAX_ISO_PACKETS);
	assert_true(link_bench_pass_commands(b, &commands));
	link_ret_iso(&replies, 1, true, packets, USBIP_MAX_ISO_PACKETS);
	link_ret_iso(&replies, 2, true, packets, USBIP_MAX_ISO_PACKETS);
	assert_true(link_bench_stall_replies(b, &replies));
}

static void commands_wait_for_a_gateway_that_does_not_read(void **state)
{
	struct link_bench *b = *state;

	start(b);
	for (uint32_t i = 0; i < 60; i++)
		link_submit_out(&commands, i, 20011);
	assert_true(link_bench_stall_commands(b, &commands));
}

/*
 * So much is waiting from the beginning that the link's buffer is filled to its
 * last byte again and again, and that byte is anywhere, in a header too.
 */
static void a_buffer_may_be_full_at_any_byte(void **state)
{
	struct link_bench *b = *state;
	uint32_t seed = 1;

	link_bytes_clear(&commands);
	for (uint32_t i = 0; i < 4000; i++) {
		seed = seed * 1103515245 + 12345;
		link_submit_out(&commands, i, (seed >> 16) % 180);
	}
	assert_true(link_bench_queue_commands(b, &commands));
	assert_int_equal(link_bench_start(b), 0);
	assert_true(link_bench_stall_commands(b, &commands));
}

static void a_link_that_waits_sleeps(void **state)
{
	struct link_bench *b = *state;

	start(b);
	assert_true(link_bench_is_asleep(b));
	link_submit_in(&commands, 1, 5 * MIB);
	link_submit_out(&commands, 2, 100);
	commands.used -= 10;
	assert_true(link_bench_send_all(b, &commands));
	assert_true(link_bench_is_asleep(b));
	/* vhci does not read, the gateway does not either. */
	link_ret_submit_in(&replies, 1, 0, 5 * MIB);
	assert_true(link_bench_fill_replies(b, &replies));
	assert_true(link_bench_is_asleep(b));
	link_bytes_clear(&commands);
	link_put_data(&commands, 10);
	link_submit_out(&commands, 3, 3 * MIB);
	assert_true(link_bench_fill_commands(b, &commands));
	assert_true(link_bench_is_asleep(b));
}

static void a_lost_gateway_costs_no_cpu_while_vhci_does_not_read(void **state)
{
	struct link_bench *b = *state;

	start(b);
	link_submit_in(&commands, 1, 5 * MIB);
	assert_true(link_bench_pass_commands(b, &commands));
	link_ret_submit_in(&replies, 1, 0, 5 * MIB);
	assert_true(link_bench_fill_replies(b, &replies));
	link_bench_lose_gateway(b);
	assert_true(link_bench_is_asleep(b));
}

/* -------------------------------------------------------------------- ends */

static void a_detach_is_an_end_in_order_behind_all_commands(void **state)
{
	struct link_bench *b = *state;

	start(b);
	for (uint32_t i = 0; i < 20; i++)
		link_submit_out(&commands, i, 3000);
	assert_true(link_bench_send_all(b, &commands));
	(void)shutdown(b->vhci, SHUT_WR);
	assert_true(link_bench_expect_commands(b, &commands));
	assert_int_equal(link_bench_gateway_end(b), -EPIPE);
	assert_int_equal(channel_end(b->gateway), 0);
	assert_int_equal(link_bench_wait(b), EXIT_OK);
}

/* Both are there when the link looks: one event tells of them. */
static void an_end_that_comes_with_commands_is_noticed(void **state)
{
	struct link_bench *b = *state;

	start(b);
	link_submit_out(&commands, 1, 100);
	assert_true(link_bench_freeze(b));
	assert_true(link_bench_send_all(b, &commands));
	(void)shutdown(b->vhci, SHUT_WR);
	link_bench_thaw(b);
	assert_true(link_bench_expect_commands(b, &commands));
	assert_int_equal(link_bench_gateway_end(b), -EPIPE);
	assert_int_equal(channel_end(b->gateway), 0);
	assert_int_equal(link_bench_wait(b), EXIT_OK);
}

static void a_gateway_that_does_not_read_holds_up_no_detach(void **state)
{
	struct link_bench *b = *state;

	start(b);
	link_submit_out(&commands, 1, 2 * MIB);
	assert_true(link_bench_fill_commands(b, &commands));
	(void)shutdown(b->vhci, SHUT_WR);
	assert_int_equal(link_bench_wait(b), EXIT_OK);
}

static void sigterm_is_an_end_in_order(void **state)
{
	struct link_bench *b = *state;

	start(b);
	link_submit_in(&commands, 1, 8);
	assert_true(link_bench_pass_commands(b, &commands));
	assert_int_equal(kill(b->pid, SIGTERM), 0);
	assert_int_equal(link_bench_gateway_end(b), -EPIPE);
	assert_int_equal(channel_end(b->gateway), 0);
	assert_int_equal(link_bench_wait(b), EXIT_OK);
	assert_true(link_bench_vhci_ended(b));
}

static void a_gateway_that_ends_detaches_behind_its_last_reply(void **state)
{
	struct link_bench *b = *state;

	start(b);
	link_submit_in(&commands, 1, 50000);
	assert_true(link_bench_pass_commands(b, &commands));
	link_ret_submit_in(&replies, 1, 0, 50000);
	assert_true(link_bench_reply_all(b, &replies));
	assert_int_equal(channel_end(b->gateway), 0);
	assert_true(link_bench_expect_replies(b, &replies));
	assert_true(link_bench_vhci_ended(b));
	assert_int_equal(link_bench_wait(b), EXIT_NO_DEVICE);
}

static void a_gateway_that_is_lost_detaches_behind_its_last_reply(void **state)
{
	struct link_bench *b = *state;

	start(b);
	link_submit_in(&commands, 1, 50000);
	assert_true(link_bench_pass_commands(b, &commands));
	link_ret_submit_in(&replies, 1, 0, 50000);
	assert_true(link_bench_reply_all(b, &replies));
	link_bench_lose_gateway(b);
	assert_true(link_bench_expect_replies(b, &replies));
	assert_true(link_bench_vhci_ended(b));
	assert_int_equal(link_bench_wait(b), EXIT_CANNOT_REACH);
}

static void an_end_inside_a_reply_is_a_lost_gateway(void **state)
{
	struct link_bench *b = *state;

	start(b);
	link_submit_in(&commands, 1, 100);
	assert_true(link_bench_pass_commands(b, &commands));
	link_ret_submit_in(&replies, 1, 0, 100);
	replies.used -= 1;
	assert_true(link_bench_reply_all(b, &replies));
	assert_int_equal(channel_end(b->gateway), 0);
	assert_int_equal(link_bench_wait(b), EXIT_CANNOT_REACH);
}

static void an_end_inside_a_header_is_a_lost_gateway(void **state)
{
	struct link_bench *b = *state;

	start(b);
	link_ret_submit_in(&replies, 1, 0, 100);
	replies.used = 47;
	assert_true(link_bench_reply_all(b, &replies));
	assert_int_equal(channel_end(b->gateway), 0);
	assert_int_equal(link_bench_wait(b), EXIT_CANNOT_REACH);
	assert_true(link_bench_vhci_ended(b));
}

static void
a_gateway_that_never_ends_holds_up_a_detach_for_a_moment(void **state)
{
	struct link_bench *b = *state;

	start(b);
	(void)shutdown(b->vhci, SHUT_RDWR);
	assert_int_equal(link_bench_wait(b), EXIT_OK);
}

#define OF(over, test)                                             \
	{                                                          \
#test " (" #over ")", test, setup, teardown, &over \
	}
#define EACH(test) OF(over_shm, test), OF(over_socket, test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(every_kind_of_urb_passes_unchanged),
		EACH(data_larger_than_any_buffer_between_passes),
		EACH(many_urbs_at_once_pass),
		EACH(short_commands_pass_without_waking_vhcis_receiver),
		EACH(commands_that_passed_leave_vhci_room_to_send),
		EACH(a_seqnum_may_be_used_again_once_it_was_answered),
		EACH(both_directions_may_be_cut_at_every_byte),
		EACH(replies_wait_for_a_vhci_that_does_not_read),
		EACH(iso_replies_wait_for_a_vhci_that_does_not_read),
		EACH(commands_wait_for_a_gateway_that_does_not_read),
		EACH(a_buffer_may_be_full_at_any_byte),
		EACH(a_link_that_waits_sleeps),
		OF(over_shm,
		   a_lost_gateway_costs_no_cpu_while_vhci_does_not_read),
		EACH(a_detach_is_an_end_in_order_behind_all_commands),
		EACH(an_end_that_comes_with_commands_is_noticed),
		OF(over_shm, a_gateway_that_does_not_read_holds_up_no_detach),
		EACH(sigterm_is_an_end_in_order),
		EACH(a_gateway_that_ends_detaches_behind_its_last_reply),
		OF(over_shm,
		   a_gateway_that_is_lost_detaches_behind_its_last_reply),
		EACH(an_end_inside_a_reply_is_a_lost_gateway),
		EACH(an_end_inside_a_header_is_a_lost_gateway),
		OF(over_shm,
		   a_gateway_that_never_ends_holds_up_a_detach_for_a_moment),
	};

	return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
