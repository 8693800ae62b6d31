/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers against what was asked. Each test is an exchange: notes, then replies
 * with the verdict that each must get.
 */
#include "vchan-transport/urb_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static int setup(void **state)
{
	*state = urb_table_new();
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	urb_table_free(*state);
	return 0;
}

static enum urb_verdict note_submit(struct urb_table *table, uint32_t seqnum,
				    uint32_t direction, uint32_t length)
{
	struct usbip_header header = {
		.command = USBIP_CMD_SUBMIT,
		.seqnum = seqnum,
		.direction = direction,
		.endpoint = 1,
		.submit = { .length = length },
	};

	return urb_table_note(table, &header, NULL);
}

static enum urb_verdict note_unlink(struct urb_table *table, uint32_t seqnum,
				    uint32_t target)
{
	struct usbip_header header = {
		.command = USBIP_CMD_UNLINK,
		.seqnum = seqnum,
		.unlink_seqnum = target,
	};

	return urb_table_note(table, &header, NULL);
}

/* Judges a reply and, if it may pass, settles it. */
static enum urb_verdict answer(struct urb_table *table,
			       struct usbip_header *reply)
{
	const struct urb_entry *entry;
	enum urb_verdict verdict = urb_table_check_reply(table, reply, &entry);

	if (verdict == URB_OK)
		urb_table_settle(table, reply);
	return verdict;
}

static enum urb_verdict answer_submit(struct urb_table *table, uint32_t seqnum,
				      int32_t status, uint32_t actual_length)
{
	struct usbip_header reply = {
		.command = USBIP_RET_SUBMIT,
		.seqnum = seqnum,
		.ret_submit = { .status = status,
				.actual_length = actual_length },
	};

	return answer(table, &reply);
}

static enum urb_verdict answer_unlink(struct urb_table *table, uint32_t seqnum,
				      int32_t status)
{
	struct usbip_header reply = {
		.command = USBIP_RET_UNLINK,
		.seqnum = seqnum,
		.unlink_status = status,
	};

	return answer(table, &reply);
}

static void an_answer_settles_its_command_once(void **state)
{
	assert_int_equal(note_submit(*state, 5, USBIP_DIR_IN, 64), URB_OK);
	assert_int_equal(urb_table_count(*state), 1);

	assert_int_equal(answer_submit(*state, 5, 0, 64), URB_OK);
	assert_int_equal(urb_table_count(*state), 0);
	assert_int_equal(answer_submit(*state, 5, 0, 64), URB_UNKNOWN_SEQNUM);
}

static void a_check_alone_settles_nothing(void **state)
{
	struct usbip_header reply = { .command = USBIP_RET_SUBMIT,
				      .seqnum = 5 };
	const struct urb_entry *entry = NULL;

	note_submit(*state, 5, USBIP_DIR_IN, 64);
	for (int i = 0; i < 2; i++)
		assert_int_equal(urb_table_check_reply(*state, &reply, &entry),
				 URB_OK);
	assert_int_equal(entry->seqnum, 5);
	assert_int_equal(entry->length, 64);
	assert_true(entry->is_in);
	assert_false(entry->is_unlink);
	assert_null(entry->packets);
}

static void answers_may_come_in_another_order(void **state)
{
	for (uint32_t i = 1; i <= 3; i++)
		assert_int_equal(note_submit(*state, i, USBIP_DIR_OUT, i),
				 URB_OK);
	assert_int_equal(answer_submit(*state, 2, 0, 2), URB_OK);
	assert_int_equal(answer_submit(*state, 3, 0, 3), URB_OK);
	assert_int_equal(answer_submit(*state, 1, 0, 1), URB_OK);
}

static void an_answer_to_nothing_is_refused(void **state)
{
	assert_int_equal(answer_submit(*state, 1, 0, 0), URB_UNKNOWN_SEQNUM);
	assert_int_equal(answer_unlink(*state, 1, 0), URB_UNKNOWN_SEQNUM);
}

static void an_answer_of_the_wrong_kind_is_refused(void **state)
{
	note_submit(*state, 1, USBIP_DIR_IN, 64);
	note_unlink(*state, 2, 1);

	assert_int_equal(answer_unlink(*state, 1, 0), URB_UNKNOWN_SEQNUM);
	assert_int_equal(answer_submit(*state, 2, 0, 0), URB_UNKNOWN_SEQNUM);
	assert_int_equal(urb_table_count(*state), 2);
}

static void a_command_is_not_an_answer(void **state)
{
	static const uint32_t commands[] = { 0, USBIP_CMD_SUBMIT,
					     USBIP_CMD_UNLINK, 5, UINT32_MAX };

	note_submit(*state, 1, USBIP_DIR_IN, 64);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		struct usbip_header reply = { .command = commands[i],
					      .seqnum = 1 };

		assert_int_equal(answer(*state, &reply), URB_BAD_COMMAND);
	}
}

static void a_seqnum_in_flight_is_refused_for_any_command(void **state)
{
	note_submit(*state, 1, USBIP_DIR_IN, 64);
	note_unlink(*state, 2, 1);

	assert_int_equal(note_submit(*state, 1, USBIP_DIR_IN, 8),
			 URB_BAD_SEQNUM);
	assert_int_equal(note_unlink(*state, 1, 2), URB_BAD_SEQNUM);
	assert_int_equal(note_submit(*state, 2, USBIP_DIR_IN, 8),
			 URB_BAD_SEQNUM);
	assert_int_equal(note_unlink(*state, 2, 1), URB_BAD_SEQNUM);
	assert_int_equal(urb_table_count(*state), 2);
	assert_int_equal(answer_submit(*state, 1, 0, 64), URB_OK);
}

static void a_settled_seqnum_may_be_used_again(void **state)
{
	for (int i = 0; i < 3; i++) {
		assert_int_equal(note_submit(*state, 9, USBIP_DIR_IN, 64),
				 URB_OK);
		assert_int_equal(answer_submit(*state, 9, 0, 0), URB_OK);
	}
}

static void seqnums_wrap_from_the_largest_to_0(void **state)
{
	static const uint32_t seqnums[] = { 0xfffffffe, 0xffffffff, 0, 1, 900 };

	for (size_t i = 0; i < ARRAY_SIZE(seqnums); i++)
		assert_int_equal(note_submit(*state, seqnums[i], USBIP_DIR_OUT,
					     1),
				 URB_OK);
	for (size_t i = 0; i < ARRAY_SIZE(seqnums); i++)
		assert_int_equal(answer_submit(*state, seqnums[i], 0, 1),
				 URB_OK);
}

static void in_flight_is_what_the_limit_says_and_not_one_more(void **state)
{
	for (uint32_t i = 0; i < URB_MAX_IN_FLIGHT; i++)
		assert_int_equal(note_submit(*state, i, USBIP_DIR_IN, 8),
				 URB_OK);
	assert_int_equal(note_submit(*state, URB_MAX_IN_FLIGHT, 0, 8),
			 URB_TOO_MANY);
	assert_int_equal(note_unlink(*state, URB_MAX_IN_FLIGHT, 0),
			 URB_TOO_MANY);
	assert_int_equal(note_submit(*state, 7, 0, 8), URB_BAD_SEQNUM);
	assert_int_equal(urb_table_count(*state), URB_MAX_IN_FLIGHT);

	assert_int_equal(answer_submit(*state, 7, 0, 0), URB_OK);
	assert_int_equal(note_unlink(*state, URB_MAX_IN_FLIGHT, 0), URB_OK);
	assert_int_equal(note_submit(*state, 7, 0, 8), URB_TOO_MANY);
}

static void an_actual_length_is_never_more_than_was_asked_for(void **state)
{
	static const struct {
		uint32_t length;
		uint32_t actual_length;
		enum urb_verdict verdict;
	} rows[] = {
		{ 0, 0, URB_OK },
		{ 0, 1, URB_BAD_ACTUAL },
		{ 64, 63, URB_OK },
		{ 64, 64, URB_OK },
		{ 64, 65, URB_BAD_ACTUAL },
		{ 64, INT32_MAX, URB_BAD_ACTUAL },
		{ 64, (uint32_t)INT32_MAX + 1, URB_BAD_ACTUAL },
		{ 64, UINT32_MAX, URB_BAD_ACTUAL },
		{ URB_MAX_LENGTH, URB_MAX_LENGTH, URB_OK },
		{ URB_MAX_LENGTH, URB_MAX_LENGTH + 1, URB_BAD_ACTUAL },
	};

	for (uint32_t i = 0; i < 2 * ARRAY_SIZE(rows); i++) {
		uint32_t row = i / 2;

		assert_int_equal(note_submit(*state, i, i % 2,
					     rows[row].length),
				 URB_OK);
		assert_int_equal(answer_submit(*state, i, 0,
					       rows[row].actual_length),
				 rows[row].verdict);
	}
}

static void data_follows_an_in_reply_as_much_as_it_says(void **state)
{
	struct usbip_header reply = {
		.command = USBIP_RET_SUBMIT,
		.ret_submit = { .actual_length = 10 },
	};
	const struct urb_entry *entry;

	note_submit(*state, 0, USBIP_DIR_IN, 64);
	assert_int_equal(urb_table_check_reply(*state, &reply, &entry), URB_OK);
	assert_int_equal(urb_reply_payload(&reply, entry), 10);
}

static void no_data_follows_an_out_reply_or_that_of_an_unlink(void **state)
{
	struct usbip_header reply = {
		.command = USBIP_RET_SUBMIT,
		.ret_submit = { .actual_length = 64 },
	};
	const struct urb_entry *entry;

	note_submit(*state, 0, USBIP_DIR_OUT, 64);
	assert_int_equal(urb_table_check_reply(*state, &reply, &entry), URB_OK);
	assert_int_equal(reply.ret_submit.actual_length, 64);
	assert_int_equal(urb_reply_payload(&reply, entry), 0);

	note_unlink(*state, 1, 0);
	reply = (struct usbip_header){ .command = USBIP_RET_UNLINK,
				       .seqnum = 1 };
	assert_int_equal(urb_table_check_reply(*state, &reply, &entry), URB_OK);
	assert_int_equal(urb_reply_payload(&reply, entry), 0);
}

static void a_status_that_is_no_errno_is_refused(void **state)
{
	static const int32_t bad[] = { 1, INT32_MAX, INT32_MIN, -4096 };

	note_submit(*state, 1, USBIP_DIR_IN, 64);
	note_unlink(*state, 2, 1);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(answer_submit(*state, 1, bad[i], 0),
				 URB_BAD_STATUS);
		assert_int_equal(answer_unlink(*state, 2, bad[i]),
				 URB_BAD_STATUS);
	}
	assert_int_equal(urb_table_count(*state), 2);
}

static void a_failed_transfer_may_bring_data(void **state)
{
	static const int32_t errors[] = { -32, -71, -75, -108, -110, -121 };

	for (uint32_t i = 0; i < ARRAY_SIZE(errors); i++) {
		note_submit(*state, i, USBIP_DIR_IN, 64);
		assert_int_equal(answer_submit(*state, i, errors[i], 10),
				 URB_OK);
	}
}

static void an_accepted_reply_is_cleaned_of_what_means_nothing(void **state)
{
	struct usbip_header reply = {
		.command = USBIP_RET_SUBMIT,
		.devid = 77,
		.direction = USBIP_DIR_IN,
		.endpoint = 200,
		.ret_submit = { .start_frame = 12, .error_count = 9 },
	};
	const struct urb_entry *entry;

	note_submit(*state, 0, USBIP_DIR_IN, 64);
	assert_int_equal(urb_table_check_reply(*state, &reply, &entry), URB_OK);
	assert_int_equal(reply.devid, 0);
	assert_int_equal(reply.direction, 0);
	assert_int_equal(reply.endpoint, 0);
	assert_int_equal(reply.ret_submit.error_count, 0);
	assert_int_equal(reply.ret_submit.start_frame, 12);
}

static void a_refused_reply_leaves_the_result_untouched(void **state)
{
	struct usbip_header reply = {
		.command = USBIP_RET_SUBMIT,
		.ret_submit = { .actual_length = 65 },
	};
	const struct urb_entry *entry = NULL;

	note_submit(*state, 0, USBIP_DIR_IN, 64);
	assert_int_equal(urb_table_check_reply(*state, &reply, &entry),
			 URB_BAD_ACTUAL);
	assert_null(entry);
	assert_int_equal(urb_table_count(*state), 1);
}

static void not_isochronous_is_0_or_all_ones_on_either_side(void **state)
{
	static const uint32_t ways[] = { 0, USBIP_NOT_ISO };
	const struct urb_entry *entry;
	uint32_t seqnum = 0;

	for (size_t a = 0; a < ARRAY_SIZE(ways); a++) {
		for (size_t b = 0; b < ARRAY_SIZE(ways); b++) {
			struct usbip_header command = {
				.command = USBIP_CMD_SUBMIT,
				.seqnum = seqnum,
				.submit = { .num_packets = ways[a] },
			};
			struct usbip_header reply = {
				.command = USBIP_RET_SUBMIT,
				.seqnum = seqnum,
				.ret_submit = { .num_packets = ways[b] },
			};

			urb_table_note(*state, &command, NULL);
			assert_int_equal(urb_table_check_reply(*state, &reply,
							       &entry),
					 URB_OK);
			assert_int_equal(reply.ret_submit.num_packets, ways[a]);
			seqnum++;
		}
	}
}

static void an_unlinked_urb_is_answered_by_its_unlink_alone(void **state)
{
	note_submit(*state, 1, USBIP_DIR_IN, 64);
	note_unlink(*state, 2, 1);

	assert_int_equal(answer_unlink(*state, 2, -104), URB_OK);
	assert_int_equal(urb_table_count(*state), 0);
	assert_int_equal(answer_submit(*state, 1, 0, 64), URB_UNKNOWN_SEQNUM);
}

static void an_unlink_that_came_too_late_is_answered_second(void **state)
{
	note_submit(*state, 1, USBIP_DIR_IN, 64);
	note_unlink(*state, 2, 1);

	assert_int_equal(answer_submit(*state, 1, 0, 64), URB_OK);
	assert_int_equal(answer_unlink(*state, 2, 0), URB_OK);
	assert_int_equal(urb_table_count(*state), 0);
}

static void an_unlink_settles_its_target_whatever_the_status(void **state)
{
	static const int32_t statuses[] = { 0, -32, -104, -108, -121 };

	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		note_submit(*state, 1, USBIP_DIR_IN, 64);
		note_unlink(*state, 2, 1);
		assert_int_equal(answer_unlink(*state, 2, statuses[i]), URB_OK);
		assert_int_equal(answer_submit(*state, 1, 0, 0),
				 URB_UNKNOWN_SEQNUM);
	}
}

static void an_unlink_of_nothing_is_noted_and_answered(void **state)
{
	assert_int_equal(note_unlink(*state, 2, 1), URB_OK);
	assert_int_equal(answer_unlink(*state, 2, 0), URB_OK);
	assert_int_equal(answer_unlink(*state, 2, 0), URB_UNKNOWN_SEQNUM);
}

static void an_unlink_of_an_unlink_leaves_its_answer_due(void **state)
{
	note_submit(*state, 1, USBIP_DIR_IN, 64);
	note_unlink(*state, 2, 1);
	note_unlink(*state, 3, 2);
	note_unlink(*state, 4, 4);

	assert_int_equal(answer_unlink(*state, 3, 0), URB_OK);
	assert_int_equal(answer_unlink(*state, 4, 0), URB_OK);
	assert_int_equal(answer_unlink(*state, 2, -104), URB_OK);
	assert_int_equal(urb_table_count(*state), 0);
}

static void two_unlinks_of_one_urb_are_both_answered(void **state)
{
	note_submit(*state, 1, USBIP_DIR_IN, 64);
	note_unlink(*state, 2, 1);
	note_unlink(*state, 3, 1);

	assert_int_equal(answer_unlink(*state, 2, -104), URB_OK);
	assert_int_equal(answer_unlink(*state, 3, 0), URB_OK);
	assert_int_equal(urb_table_count(*state), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_answer_settles_its_command_once),
		TEST(a_check_alone_settles_nothing),
		TEST(answers_may_come_in_another_order),
		TEST(an_answer_to_nothing_is_refused),
		TEST(an_answer_of_the_wrong_kind_is_refused),
		TEST(a_command_is_not_an_answer),
		TEST(a_seqnum_in_flight_is_refused_for_any_command),
		TEST(a_settled_seqnum_may_be_used_again),
		TEST(seqnums_wrap_from_the_largest_to_0),
		TEST(in_flight_is_what_the_limit_says_and_not_one_more),
		TEST(an_actual_length_is_never_more_than_was_asked_for),
		TEST(data_follows_an_in_reply_as_much_as_it_says),
		TEST(no_data_follows_an_out_reply_or_that_of_an_unlink),
		TEST(a_status_that_is_no_errno_is_refused),
		TEST(a_failed_transfer_may_bring_data),
		TEST(an_accepted_reply_is_cleaned_of_what_means_nothing),
		TEST(a_refused_reply_leaves_the_result_untouched),
		TEST(not_isochronous_is_0_or_all_ones_on_either_side),
		TEST(an_unlinked_urb_is_answered_by_its_unlink_alone),
		TEST(an_unlink_that_came_too_late_is_answered_second),
		TEST(an_unlink_settles_its_target_whatever_the_status),
		TEST(an_unlink_of_nothing_is_noted_and_answered),
		TEST(an_unlink_of_an_unlink_leaves_its_answer_due),
		TEST(two_unlinks_of_one_urb_are_both_answered),
	};

	return cmocka_run_group_tests_name("urb_table", tests, NULL, NULL);
}
