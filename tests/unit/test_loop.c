/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop with real descriptors, timers and signals. Each test runs the
 * loop until what it waits for has come; a timer of the loop is the limit.
 */
#include "vchan-transport/loop.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vchan-transport/channel_watch.h"

#define LIMIT_MS 5000

struct bed {
	struct loop *loop;
	struct loop_timer *limit;
	int a;
	int b;
	/* What callbacks saw. */
	struct loop_watch *watch;
	struct loop_timer *timer;
	short revents;
	unsigned calls;
	unsigned stop_after;
	int signo;
	bool is_late;
};

static void on_limit(void *arg)
{
	struct bed *bed = arg;

	bed->is_late = true;
	loop_stop(bed->loop);
}

static int bed_setup(void **state)
{
	static struct bed bed;
	int fds[2];

	memset(&bed, 0, sizeof(bed));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	bed.a = fds[0];
	bed.b = fds[1];
	bed.stop_after = 1;
	if (loop_new(&bed.loop) < 0)
		return -1;
	*state = &bed;
	return loop_timer_start(bed.loop, LIMIT_MS, 0, on_limit, &bed,
				&bed.limit);
}

static int bed_teardown(void **state)
{
	struct bed *bed = *state;

	loop_free(bed->loop);
	(void)close(bed->a);
	(void)close(bed->b);
	return bed->is_late ? -1 : 0;
}

static void count(struct bed *bed)
{
	if (++bed->calls == bed->stop_after)
		loop_stop(bed->loop);
}

static void on_ready(void *arg, short revents)
{
	struct bed *bed = arg;

	bed->revents = revents;
	count(bed);
}

/* ------------------------------------------------------------- descriptors */

static void a_descriptor_is_told_of_what_it_is_watched_for(void **state)
{
	struct bed *bed = *state;

	assert_int_equal(write(bed->b, "x", 1), 1);
	assert_int_equal(loop_watch_fd(bed->loop, bed->a, POLLIN, on_ready, bed,
				       &bed->watch),
			 0);
	loop_run(bed->loop);
	assert_int_equal(bed->revents, POLLIN);

	assert_int_equal(loop_watch_set(bed->watch, POLLOUT), 0);
	bed->stop_after++;
	loop_run(bed->loop);
	assert_int_equal(bed->revents, POLLOUT);

	assert_int_equal(loop_watch_set(bed->watch, POLLIN | POLLOUT), 0);
	bed->stop_after++;
	loop_run(bed->loop);
	assert_int_equal(bed->revents, POLLIN | POLLOUT);
}

static void on_time(void *arg)
{
	count(arg);
}

static void a_watch_for_nothing_is_silent(void **state)
{
	struct bed *bed = *state;

	assert_int_equal(write(bed->b, "x", 1), 1);
	assert_int_equal(loop_watch_fd(bed->loop, bed->a, POLLIN, on_ready, bed,
				       &bed->watch),
			 0);
	assert_int_equal(loop_watch_set(bed->watch, 0), 0);
	assert_int_equal(loop_timer_start(bed->loop, 10, 0, on_time, bed,
					  &bed->timer),
			 0);
	loop_run(bed->loop);
	assert_int_equal(bed->revents, 0);
}

static void a_hang_up_is_told_as_something_to_read(void **state)
{
	struct bed *bed = *state;

	assert_int_equal(loop_watch_fd(bed->loop, bed->a, POLLIN, on_ready, bed,
				       &bed->watch),
			 0);
	assert_int_equal(shutdown(bed->b, SHUT_RDWR), 0);
	loop_run(bed->loop);
	assert_int_equal(bed->revents, POLLIN);
}

static void an_edge_is_told_once_and_an_end_with_it(void **state)
{
	struct bed *bed = *state;

	assert_int_equal(write(bed->b, "x", 1), 1);
	assert_int_equal(loop_watch_fd(bed->loop, bed->a, POLLIN | LOOP_EDGE,
				       on_ready, bed, &bed->watch),
			 0);
	loop_run(bed->loop);
	assert_int_equal(bed->revents, POLLIN);

	/* The byte lies there still: no news. */
	bed->revents = 0;
	bed->stop_after++;
	assert_int_equal(loop_timer_start(bed->loop, 10, 0, on_time, bed,
					  &bed->timer),
			 0);
	loop_run(bed->loop);
	assert_int_equal(bed->revents, 0);

	assert_int_equal(write(bed->b, "y", 1), 1);
	assert_int_equal(shutdown(bed->b, SHUT_WR), 0);
	bed->stop_after++;
	loop_run(bed->loop);
	assert_int_equal(bed->revents, POLLIN | POLLRDHUP);
}

static void on_ready_stop_watch(void *arg, short revents)
{
	struct bed *bed = arg;

	bed->revents = revents;
	loop_watch_stop(bed->watch);
	bed->watch = NULL;
	loop_stop(bed->loop);
}

static void a_watch_may_be_stopped_inside_its_own_callback(void **state)
{
	struct bed *bed = *state;

	assert_int_equal(write(bed->b, "x", 1), 1);
	assert_int_equal(loop_watch_fd(bed->loop, bed->a, POLLIN,
				       on_ready_stop_watch, bed, &bed->watch),
			 0);
	loop_run(bed->loop);
	assert_int_equal(bed->revents, POLLIN);

	/* The descriptor may be watched anew, or be another one by now. */
	assert_int_equal(loop_watch_fd(bed->loop, bed->a, POLLOUT, on_ready,
				       bed, &bed->watch),
			 0);
	loop_run(bed->loop);
	assert_int_equal(bed->revents, POLLOUT);
	loop_watch_stop(NULL);
}

static void what_cannot_be_watched_is_refused(void **state)
{
	struct bed *bed = *state;

	assert_true(loop_watch_fd(bed->loop, -1, POLLIN, on_ready, bed,
				  &bed->watch) < 0);
	assert_null(bed->watch);
}

/* ------------------------------------------------------------------ timers */

static void a_timer_fires_at_its_time_and_again(void **state)
{
	struct bed *bed = *state;
	uint64_t start = loop_now_ms(bed->loop);

	bed->stop_after = 3;
	assert_int_equal(loop_timer_start(bed->loop, 10, 10, on_time, bed,
					  &bed->timer),
			 0);
	loop_run(bed->loop);
	assert_true(loop_now_ms(bed->loop) >= start + 30);
	loop_timer_stop(bed->timer);
	loop_timer_stop(NULL);
}

static void a_timer_that_fired_can_be_set_anew(void **state)
{
	struct bed *bed = *state;
	uint64_t start = loop_now_ms(bed->loop);

	assert_int_equal(loop_timer_start(bed->loop, 0, 0, on_time, bed,
					  &bed->timer),
			 0);
	loop_run(bed->loop);
	loop_timer_again(bed->timer, 20);
	bed->stop_after = 2;
	loop_run(bed->loop);
	assert_int_equal(bed->calls, 2);
	assert_true(loop_now_ms(bed->loop) >= start + 20);
}

/* ----------------------------------------------------------------- sources */

struct counter {
	struct bed *bed;
	struct loop_source source;
	unsigned left;
	unsigned asked;
};

static bool counter_has_work(void *arg)
{
	struct counter *c = arg;

	c->asked++;
	return c->left > 0;
}

static void counter_work(void *arg)
{
	struct counter *c = arg;

	if (--c->left == 0)
		loop_stop(c->bed->loop);
}

static void a_source_with_work_is_not_slept_on(void **state)
{
	struct bed *bed = *state;
	struct counter c = { .bed = bed, .left = 1000 };

	c.source = (struct loop_source){ .has_work = counter_has_work,
					 .work = counter_work,
					 .arg = &c };
	loop_add_source(bed->loop, &c.source);
	loop_run(bed->loop);
	assert_int_equal(c.left, 0);
}

static void a_busy_source_leaves_descriptors_and_timers_their_turn(void **state)
{
	struct bed *bed = *state;
	struct counter c = { .bed = bed, .left = UINT32_MAX };

	c.source = (struct loop_source){ .has_work = counter_has_work,
					 .work = counter_work,
					 .arg = &c };
	loop_add_source(bed->loop, &c.source);
	assert_int_equal(write(bed->b, "x", 1), 1);
	assert_int_equal(loop_watch_fd(bed->loop, bed->a, POLLIN,
				       on_ready_stop_watch, bed, &bed->watch),
			 0);
	loop_run(bed->loop);
	assert_int_equal(bed->revents, POLLIN);
	assert_int_equal(loop_timer_start(bed->loop, 5, 0, on_time, bed,
					  &bed->timer),
			 0);
	loop_run(bed->loop);
	assert_int_equal(bed->calls, 1);
}

static void an_idle_source_lets_the_loop_sleep(void **state)
{
	struct bed *bed = *state;
	struct counter c = { .bed = bed };

	c.source = (struct loop_source){ .has_work = counter_has_work,
					 .work = counter_work,
					 .arg = &c };
	loop_add_source(bed->loop, &c.source);
	assert_int_equal(loop_timer_start(bed->loop, 50, 0, on_time, bed,
					  &bed->timer),
			 0);
	loop_run(bed->loop);
	/* Once before each sleep, of which there are very few. */
	assert_true(c.asked >= 1 && c.asked < 10);
}

/* ----------------------------------------------------- signals and watchdog */

static void on_signal(void *arg, int signo)
{
	struct bed *bed = arg;

	bed->signo = signo;
	loop_stop(bed->loop);
}

static void a_signal_is_a_callback_of_the_loop(void **state)
{
	struct bed *bed = *state;

	assert_int_equal(loop_on_signal(bed->loop, SIGUSR1, on_signal, bed), 0);
	assert_int_equal(kill(getpid(), SIGUSR1), 0);
	loop_run(bed->loop);
	assert_int_equal(bed->signo, SIGUSR1);
}

static void on_time_never_return(void *arg)
{
	(void)arg;
	for (;;)
		(void)pause();
}

static void the_watchdog_ends_a_process_whose_loop_is_held_up(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	if (pid == 0) {
		struct loop *loop;
		struct loop_timer *timer;

		if (loop_new(&loop) == 0 && loop_set_watchdog(loop, 1) == 0 &&
		    loop_timer_start(loop, 0, 0, on_time_never_return, NULL,
				     &timer) == 0)
			loop_run(loop);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGALRM);
}

static void a_freed_loop_takes_its_watchdog_along(void **state)
{
	struct loop *loop;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(loop_set_watchdog(loop, 60), 0);
	loop_free(loop);
	assert_int_equal(alarm(0), 0);
	loop_free(NULL);
}

/* ---------------------------------------------------------- channel_watch.h */

/* A channel's reader in a loop: counts bytes until the end. */
struct reader {
	struct bed *bed;
	struct channel_watch watch;
	struct loop_source source;
	size_t got;
	ssize_t end;
};

static bool reader_has_work(void *arg)
{
	struct reader *r = arg;

	return r->end == 0 && channel_watch_arm(&r->watch, CHANNEL_READ);
}

static void reader_work(void *arg)
{
	struct reader *r = arg;
	struct iovec pieces[2];
	ssize_t n = channel_peek(r->watch.channel, pieces);

	if (n < 0) {
		r->end = n;
		loop_stop(r->bed->loop);
		return;
	}
	r->got += (size_t)n;
	channel_consume(r->watch.channel, (size_t)n);
	channel_flush(r->watch.channel);
}

static void check_reader(struct bed *bed, struct channel *c)
{
	struct reader r = { .bed = bed };

	assert_int_equal(channel_watch_start(&r.watch, bed->loop, c), 0);
	r.source = (struct loop_source){ .has_work = reader_has_work,
					 .work = reader_work,
					 .arg = &r };
	loop_add_source(bed->loop, &r.source);
	loop_run(bed->loop);
	assert_int_equal(r.end, -EPIPE);
	assert_int_equal(r.got, 300000);
	channel_watch_stop(&r.watch);
	channel_watch_stop(&r.watch);
}

/* Sends from another process, then ends. */
static pid_t send_from_a_child(int fd, bool is_shm)
{
	static uint8_t bytes[300000];
	pid_t pid = fork();
	struct channel *c = NULL;
	int r;

	if (pid != 0)
		return pid;
	r = is_shm ? channel_shm_serve(fd, CHANNEL_MIN_RING_BYTES, &c)
		   : channel_socket_new(fd, &c);
	if (r < 0 || channel_write_all(c, bytes, sizeof(bytes),
				       clock_ms() + LIMIT_MS) < 0)
		_exit(1);
	channel_finish(c, clock_ms() + LIMIT_MS);
	_exit(0);
}

static void check_channel_in_a_loop(struct bed *bed, bool is_shm)
{
	int fd = dup(bed->a);
	pid_t pid = send_from_a_child(bed->b, is_shm);
	struct channel *c = NULL;
	int status;

	assert_true(pid > 0);
	if (is_shm)
		assert_int_equal(
			channel_shm_join(fd, clock_ms() + LIMIT_MS, &c), 0);
	else
		assert_int_equal(channel_socket_new(fd, &c), 0);
	check_reader(bed, c);
	assert_int_equal(channel_end(c), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	channel_free(c);
}

static void a_shm_channel_in_a_loop_is_read_to_its_end(void **state)
{
	check_channel_in_a_loop(*state, true);
}

static void a_socket_channel_in_a_loop_is_read_to_its_end(void **state)
{
	check_channel_in_a_loop(*state, false);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, bed_setup, bed_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_descriptor_is_told_of_what_it_is_watched_for),
		TEST(a_watch_for_nothing_is_silent),
		TEST(a_hang_up_is_told_as_something_to_read),
		TEST(an_edge_is_told_once_and_an_end_with_it),
		TEST(a_watch_may_be_stopped_inside_its_own_callback),
		TEST(what_cannot_be_watched_is_refused),
		TEST(a_timer_fires_at_its_time_and_again),
		TEST(a_timer_that_fired_can_be_set_anew),
		TEST(a_source_with_work_is_not_slept_on),
		TEST(a_busy_source_leaves_descriptors_and_timers_their_turn),
		TEST(an_idle_source_lets_the_loop_sleep),
		TEST(a_signal_is_a_callback_of_the_loop),
		TEST(the_watchdog_ends_a_process_whose_loop_is_held_up),
		TEST(a_freed_loop_takes_its_watchdog_along),
		TEST(a_shm_channel_in_a_loop_is_read_to_its_end),
		TEST(a_socket_channel_in_a_loop_is_read_to_its_end),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
