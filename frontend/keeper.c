/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "frontend/standing_note.h"
#include "frontend/vhci.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"
#include "vchan-transport/process.h"

/* vhci_hcd frees a port by itself when its socket ends; then it is asked to. */
#define FREE_LIMIT_MS 2500
#define CHECK_MS      10
#define FOREVER_MS    UINT64_MAX

#define FD_NONE       (-1)

struct watch {
	int life_fd;
	int asker_fd; /* FD_NONE: not asked, or answered */
	int link_pidfd;
	bool has_claim;
	struct keeper_claim claim;
};

/* Takes one look at the port: false when there is no more to do about it. */
static bool is_left(const struct keeper_claim *claim)
{
	/* No record, or another: somebody else has ended or taken the port. */
	if (!record_is(RECORD_DIR, claim->port, &claim->record))
		return false;
	if (vhci_is_free(VHCI_DIR, claim->port) == 0)
		return true;
	record_remove(RECORD_DIR, claim->port);
	return false;
}

static bool is_left_after(const struct keeper_claim *claim, unsigned limit_ms)
{
	uint64_t deadline_ms = clock_ms() + limit_ms;

	while (is_left(claim)) {
		if (clock_ms() >= deadline_ms)
			return true;
		(void)poll(NULL, 0, CHECK_MS);
	}
	return false;
}

static void clean_up(const struct keeper_claim *claim)
{
	int r;

	if (claim->wish[0] != '\0' &&
	    !record_is(RECORD_DIR, claim->port, &claim->record))
		standing_note_detached(claim->wish);
	if (!is_left_after(claim, FREE_LIMIT_MS))
		return;
	log_warn("port %02u: vhci_hcd has not freed it after its link's end; "
		 "detaching it",
		 claim->port);
	r = vhci_detach(VHCI_DIR, claim->port);
	if (is_left_after(claim, FREE_LIMIT_MS))
		log_error("port %02u: stays in use though its link has ended: "
			  "%s; the kernel's log may say more",
			  claim->port,
			  r < 0 ? strerror(-r) : "no reason given");
}

/* The asker has said something, or has ended. */
static void hear_asker(struct watch *w)
{
	char byte;
	int r = process_receive(w->asker_fd, &byte, 1, 0);

	if (r == -ETIMEDOUT)
		return;
	if (r != 1)
		(void)pidfd_send_signal(w->link_pidfd, SIGTERM, NULL, 0);
	(void)close(w->asker_fd);
	w->asker_fd = FD_NONE;
}

/* False when the link has ended. */
static bool hear_link(struct watch *w)
{
	int r = process_receive(w->life_fd, &w->claim, sizeof(w->claim), 0);

	if (r == 1)
		w->has_claim = true;
	return r == 1 || r == -ETIMEDOUT;
}

static void watch_link(struct watch *w)
{
	bool is_alive = true;

	while (is_alive) {
		struct pollfd polled[] = {
			{ .fd = w->life_fd, .events = POLLIN },
			{ .fd = w->asker_fd, .events = POLLIN },
		};

		(void)poll(polled, 2, -1);
		if (polled[1].revents)
			hear_asker(w);
		if (polled[0].revents)
			is_alive = hear_link(w);
	}
}

_Noreturn static void run_keeper(int life_fd, int asker_fd, int done_fd,
				 int link_pidfd)
{
	struct watch w = { .life_fd = life_fd,
			   .asker_fd = asker_fd,
			   .link_pidfd = link_pidfd };
	int keep[] = { life_fd, asker_fd, done_fd, link_pidfd };

	process_detach("xusbip-keeper", keep, 4);
	log_to_syslog();
	watch_link(&w);
	if (w.has_claim)
		clean_up(&w.claim);
	(void)process_send(done_fd, "", 1);
	_exit(EXIT_SUCCESS);
}

_Noreturn static void run_standby(int life_fd, int done_fd)
{
	struct watch w = { .life_fd = life_fd,
			   .asker_fd = FD_NONE,
			   .link_pidfd = FD_NONE };
	int keep[] = { life_fd, done_fd };
	char byte;

	process_detach("xusbip-standby", keep, 2);
	log_to_syslog();
	watch_link(&w);
	if (process_receive(done_fd, &byte, 1, FOREVER_MS) != 1 && w.has_claim)
		clean_up(&w.claim);
	_exit(EXIT_SUCCESS);
}

static int open_pipes(int pipes[3][2])
{
	for (size_t i = 0; i < 3; i++) {
		if (pipe2(pipes[i], O_CLOEXEC) < 0)
			return -errno;
	}
	return 0;
}

static int fork_both(int pipes[3][2], int asker_fd, int link_pidfd)
{
	pid_t pid = fork();

	if (pid == 0)
		run_keeper(pipes[0][0], asker_fd, pipes[2][1], link_pidfd);
	if (pid > 0)
		pid = fork();
	if (pid == 0)
		run_standby(pipes[1][0], pipes[2][0]);
	return pid < 0 ? -errno : 0;
}

int keeper_start(struct keeper *ret_keeper, int asker_fd)
{
	int pipes[3][2] = { { FD_NONE } };
	int pidfd = pidfd_open(getpid(), 0);
	int r = pidfd < 0 ? -errno : 0;

	if (r == 0)
		r = open_pipes(pipes);
	if (r == 0)
		r = fork_both(pipes, asker_fd, pidfd);
	/* On failure the caller ends, and with it whatever was started. */
	if (r < 0)
		return r;
	ret_keeper->life_fd[0] = pipes[0][1];
	ret_keeper->life_fd[1] = pipes[1][1];
	(void)close(pipes[0][0]);
	(void)close(pipes[1][0]);
	(void)close(pipes[2][0]);
	(void)close(pipes[2][1]);
	(void)close(pidfd);
	return 0;
}

int keeper_tell(const struct keeper *keeper, const struct keeper_claim *claim)
{
	int first = process_send(keeper->life_fd[0], claim, sizeof(*claim));
	int second = process_send(keeper->life_fd[1], claim, sizeof(*claim));

	/* One of them is enough; the other may have been killed. */
	return first < 0 && second < 0 ? first : 0;
}
