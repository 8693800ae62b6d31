/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/job.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vchan-transport/log.h"

/* This program anew, as the agent does it for connections. */
_Noreturn static void exec_job(const char *verb, const char *const *words,
			       int out, bool is_debug)
{
	static char texts[JOB_MAX_WORDS][JOB_TEXT_BYTES];
	char program[] = "xusbip-frontend";
	char debug[] = "--debug";
	char end[] = "--";
	char job[32];
	char *argv[JOB_MAX_WORDS + 5];
	size_t n = 0;

	argv[n++] = program;
	if (is_debug)
		argv[n++] = debug;
	(void)snprintf(job, sizeof(job), "--job=%s", verb);
	argv[n++] = job;
	argv[n++] = end;
	for (size_t i = 0; i < JOB_MAX_WORDS && words[i]; i++) {
		(void)snprintf(texts[i], sizeof(texts[i]), "%s", words[i]);
		argv[n++] = texts[i];
	}
	argv[n] = NULL;
	if (dup2(out, STDOUT_FILENO) >= 0 &&
	    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
		(void)execv("/proc/self/exe", argv);
	log_error("cannot run a job: %s", strerror(errno));
	_exit(EXIT_FAILED);
}

int job_start(struct job *job, const char *verb, const char *const *words,
	      bool is_debug)
{
	int out[2];
	pid_t pid;
	int r;

	if (pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		exec_job(verb, words, out[1], is_debug);
	r = pid < 0 ? -errno : 0;
	(void)close(out[1]);
	if (r < 0) {
		(void)close(out[0]);
		return r;
	}
	*job = (struct job){ .pid = pid, .fd = out[0] };
	return 0;
}

enum exit_status job_end(struct job *job, int status,
			 char ret_text[static JOB_TEXT_BYTES])
{
	ssize_t n = read(job->fd, ret_text, JOB_TEXT_BYTES - 1);
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;

	(void)close(job->fd);
	*job = (struct job){ 0 };
	ret_text[n > 0 ? n : 0] = '\0';
	ret_text[strcspn(ret_text, "\n")] = '\0';
	if (WIFSIGNALED(status))
		(void)snprintf(ret_text, JOB_TEXT_BYTES,
			       "it was ended by signal %d", WTERMSIG(status));
	return code <= EXIT_NOT_TRUSTED ? (enum exit_status)code : EXIT_FAILED;
}

void job_cancel(const struct job *job)
{
	if (job->pid > 0)
		(void)kill(job->pid, SIGTERM);
}

void job_forget(struct job *job)
{
	if (job->pid == 0)
		return;
	(void)kill(job->pid, SIGKILL);
	(void)waitpid(job->pid, NULL, 0);
	(void)close(job->fd);
	*job = (struct job){ 0 };
}
