/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of an answer, from a slot alone. All memory is poisoned before it is
 * filled, so what of the answer was never set shows.
 */
#include "gateway/reply.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define POISON       0xa5
#define DATA_BYTES   64
#define MAX_PACKETS  4
#define ANSWER_BYTES 512

/* A slot whose memory is the test's. */
struct bed {
	struct slot slot;
	uint8_t data[URB_HEADROOM + DATA_BYTES];
	struct usbip_iso_packet packets[MAX_PACKETS];
	uint8_t packet_bytes[MAX_PACKETS * USBIP_ISO_BYTES];
	uint8_t answer[ANSWER_BYTES];
	size_t answer_bytes;
};

static int setup(void **state)
{
	static struct bed bed;

	memset(&bed, POISON, sizeof(bed));
	bed.slot.urb.data = bed.data + URB_HEADROOM;
	bed.slot.urb.packets = bed.packets;
	bed.slot.urb.num_packets = 0;
	bed.slot.urb.type = USB_BULK;
	bed.slot.urb.endpoint = 0x81;
	bed.slot.urb.status = 0;
	bed.slot.urb.actual_length = 0;
	bed.slot.packet_bytes = bed.packet_bytes;
	bed.slot.packets_cap = MAX_PACKETS;
	bed.slot.seqnum = 0x01020304;
	bed.slot.unlink_seqnum = 0x05060708;
	bed.slot.submit =
		(struct usbip_submit){ .length = DATA_BYTES, .start_frame = 9 };
	bed.slot.is_in = true;
	bed.slot.reply = URB_DO_RET_SUBMIT;
	*state = &bed;
	return 0;
}

/* Prepares the answer and puts its pieces together. */
static void prepare(struct bed *bed)
{
	struct iovec pieces[REPLY_MAX_PIECES];
	int n;

	reply_prepare(&bed->slot);
	n = reply_pieces(&bed->slot, pieces);
	assert_true(n >= 1 && n <= REPLY_MAX_PIECES);
	bed->answer_bytes = 0;
	for (int i = 0; i < n; i++) {
		assert_true(pieces[i].iov_len > 0);
		memcpy(bed->answer + bed->answer_bytes, pieces[i].iov_base,
		       pieces[i].iov_len);
		bed->answer_bytes += pieces[i].iov_len;
	}
}

static void assert_no_poison(const struct bed *bed)
{
	for (size_t i = 0; i < bed->answer_bytes; i++)
		assert_int_not_equal(bed->answer[i], POISON);
}

static struct usbip_header header_at(const struct bed *bed, size_t at)
{
	struct usbip_header h;

	assert_true(at + USBIP_HEADER_BYTES <= bed->answer_bytes);
	usbip_header_decode(&h, bed->answer + at);
	return h;
}

static void ret_submit_has_the_data_that_there_is_and_no_more(void **state)
{
	struct bed *bed = *state;
	struct usbip_header h;

	for (size_t n = 0; n <= DATA_BYTES; n++) {
		memset(bed->slot.urb.data, POISON, DATA_BYTES);
		memset(bed->slot.urb.data, 'x', n);
		memset(bed->slot.header, POISON, sizeof(bed->slot.header));
		bed->slot.urb.actual_length = n;
		prepare(bed);
		assert_int_equal(bed->answer_bytes, USBIP_HEADER_BYTES + n);
		assert_no_poison(bed);
		h = header_at(bed, 0);
		assert_int_equal(h.command, USBIP_RET_SUBMIT);
		assert_int_equal(h.seqnum, 0x01020304);
		assert_int_equal(h.ret_submit.actual_length, n);
		assert_int_equal(h.ret_submit.start_frame, 9);
	}
}

static void ret_submit_of_an_out_transfer_has_no_data(void **state)
{
	struct bed *bed = *state;

	bed->slot.is_in = false;
	bed->slot.urb.endpoint = 0x02;
	bed->slot.urb.actual_length = 33;
	bed->slot.urb.status = -EPIPE;
	prepare(bed);
	assert_int_equal(bed->answer_bytes, USBIP_HEADER_BYTES);
	assert_no_poison(bed);
	assert_int_equal(header_at(bed, 0).ret_submit.actual_length, 33);
	assert_int_equal(header_at(bed, 0).ret_submit.status, -EPIPE);
}

static void ret_unlink_is_a_header_and_nothing_else(void **state)
{
	static const enum urb_act replies[] = { URB_DO_RET_UNLINK,
						URB_DO_TOO_LATE };
	struct bed *bed = *state;

	/* Whatever the URB had. */
	bed->slot.urb.actual_length = 10;
	bed->slot.submit.num_packets = 2;
	bed->slot.urb.num_packets = 2;
	for (int i = 0; i < 2; i++) {
		struct usbip_header h;

		memset(bed->slot.header, POISON, sizeof(bed->slot.header));
		bed->slot.reply = replies[i];
		prepare(bed);
		assert_int_equal(bed->answer_bytes, USBIP_HEADER_BYTES);
		assert_no_poison(bed);
		h = header_at(bed, 0);
		assert_int_equal(h.command, USBIP_RET_UNLINK);
		assert_int_equal(h.seqnum, 0x05060708);
		assert_int_equal(h.unlink_status, i == 0 ? -ECONNRESET : 0);
	}
}

static void an_unlink_that_was_too_late_is_answered_behind_the_urb(void **state)
{
	struct bed *bed = *state;
	struct usbip_header h;

	memset(bed->slot.urb.data, 'x', 10);
	bed->slot.urb.actual_length = 10;
	bed->slot.reply = URB_DO_RET_BOTH;
	prepare(bed);
	assert_int_equal(bed->answer_bytes, 2 * USBIP_HEADER_BYTES + 10);
	assert_no_poison(bed);
	h = header_at(bed, 0);
	assert_int_equal(h.command, USBIP_RET_SUBMIT);
	h = header_at(bed, USBIP_HEADER_BYTES + 10);
	assert_int_equal(h.command, USBIP_RET_UNLINK);
	assert_int_equal(h.seqnum, 0x05060708);
	assert_int_equal(h.unlink_status, 0);
}

/* Two packets with a gap between them and behind the last. */
static void make_iso(struct bed *bed)
{
	bed->slot.urb.type = USB_ISOCHRONOUS;
	bed->slot.urb.num_packets = 2;
	bed->slot.submit.num_packets = 2;
	bed->packets[0] = (struct usbip_iso_packet){ .offset = 0,
						     .length = 20,
						     .actual_length = 15 };
	bed->packets[1] = (struct usbip_iso_packet){
		.offset = 30, .length = 20, .actual_length = 5, .status = -EXDEV
	};
	memset(bed->slot.urb.data, 'a', 15);
	memset(bed->slot.urb.data + 30, 'b', 5);
}

static void iso_data_in_is_packed_and_its_packets_follow(void **state)
{
	struct bed *bed = *state;
	struct usbip_iso_packet p;
	struct usbip_header h;

	make_iso(bed);
	prepare(bed);
	assert_int_equal(bed->answer_bytes,
			 USBIP_HEADER_BYTES + 20 + 2 * USBIP_ISO_BYTES);
	assert_no_poison(bed);
	h = header_at(bed, 0);
	assert_int_equal(h.ret_submit.actual_length, 20);
	assert_int_equal(h.ret_submit.num_packets, 2);
	assert_int_equal(h.ret_submit.error_count, 1);
	assert_memory_equal(bed->answer + USBIP_HEADER_BYTES,
			    "aaaaaaaaaaaaaaabbbbb", 20);
	usbip_iso_decode(&p, bed->answer + USBIP_HEADER_BYTES + 20 +
				     USBIP_ISO_BYTES);
	assert_int_equal(p.offset, 30);
	assert_int_equal(p.length, 20);
	assert_int_equal(p.actual_length, 5);
	assert_int_equal(p.status, -EXDEV);
}

static void iso_data_out_stays_and_its_packets_follow(void **state)
{
	struct bed *bed = *state;

	make_iso(bed);
	bed->slot.is_in = false;
	bed->slot.urb.endpoint = 0x06;
	prepare(bed);
	assert_int_equal(bed->answer_bytes,
			 USBIP_HEADER_BYTES + 2 * USBIP_ISO_BYTES);
	assert_no_poison(bed);
	assert_int_equal(header_at(bed, 0).ret_submit.actual_length, 20);
}

static void an_iso_unlink_that_was_too_late_has_all_four_pieces(void **state)
{
	struct bed *bed = *state;
	size_t whole = USBIP_HEADER_BYTES + 20 + 2 * USBIP_ISO_BYTES;

	make_iso(bed);
	bed->slot.reply = URB_DO_RET_BOTH;
	prepare(bed);
	assert_int_equal(bed->answer_bytes, whole + USBIP_HEADER_BYTES);
	assert_no_poison(bed);
	assert_int_equal(header_at(bed, whole).command, USBIP_RET_UNLINK);
}

static void a_list_that_was_never_submitted_is_not_sent(void **state)
{
	static const uint32_t none[] = { 0, USBIP_NOT_ISO };
	struct bed *bed = *state;

	bed->slot.urb.type = USB_ISOCHRONOUS;
	for (int i = 0; i < 2; i++) {
		bed->slot.submit.num_packets = none[i];
		prepare(bed);
		assert_int_equal(bed->answer_bytes, USBIP_HEADER_BYTES);
		assert_no_poison(bed);
		assert_int_equal(header_at(bed, 0).ret_submit.num_packets,
				 none[i]);
	}
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ret_submit_has_the_data_that_there_is_and_no_more),
		TEST(ret_submit_of_an_out_transfer_has_no_data),
		TEST(ret_unlink_is_a_header_and_nothing_else),
		TEST(an_unlink_that_was_too_late_is_answered_behind_the_urb),
		TEST(iso_data_in_is_packed_and_its_packets_follow),
		TEST(iso_data_out_stays_and_its_packets_follow),
		TEST(an_iso_unlink_that_was_too_late_has_all_four_pieces),
		TEST(a_list_that_was_never_submitted_is_not_sent),
	};

	return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
