/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See log.h. The state is per process and written by log_init() and
 * log_to_syslog() alone: each of our processes has one thread that logs.
 */
#include "vchan-transport/log.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#define SYSLOG_PATH "/dev/log"

enum log_sink {
	SINK_STDERR,
	SINK_JOURNAL,
	SINK_SYSLOG,
};

static const struct {
	int priority;
	const char *word;
} levels[] = {
	[LOG_LEVEL_ERROR] = { LOG_ERR, "error: " },
	[LOG_LEVEL_WARN] = { LOG_WARNING, "warning: " },
	[LOG_LEVEL_INFO] = { LOG_INFO, "" },
	[LOG_LEVEL_DEBUG] = { LOG_DEBUG, "debug: " },
};

static char log_prefix[64];
static enum log_level log_level = LOG_LEVEL_INFO;
static enum log_sink log_sink = SINK_STDERR;
static int syslog_fd = -1;

/*
 * The variable is inherited by children whose stderr may be something else,
 * so it counts only while it names the file that stderr is.
 */
static bool is_stderr_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char ours[64];
	struct stat st;

	if (!stream || fstat(STDERR_FILENO, &st) < 0)
		return false;
	(void)snprintf(ours, sizeof(ours), "%ju:%ju", (uintmax_t)st.st_dev,
		       (uintmax_t)st.st_ino);
	return strcmp(stream, ours) == 0;
}

void log_init(const char *subject_prefix, enum log_level level)
{
	(void)snprintf(log_prefix, sizeof(log_prefix), "%s", subject_prefix);
	log_level = level;
	if (log_sink != SINK_SYSLOG)
		log_sink = is_stderr_journal() ? SINK_JOURNAL : SINK_STDERR;
}

/* The socket of an earlier call may be closed, and its number another's. */
void log_to_syslog(void)
{
	syslog_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	log_sink = SINK_SYSLOG;
}

size_t log_escape(char *dst, size_t cap, const char *src, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	size_t used = 0;

	assert(cap > 0);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)src[i];
		bool is_plain = c >= 0x20 && c <= 0x7e;

		if ((is_plain ? 1U : 4U) > cap - 1 - used)
			break;
		if (is_plain) {
			dst[used++] = (char)c;
			continue;
		}
		dst[used++] = '\\';
		dst[used++] = 'x';
		dst[used++] = hex[c >> 4];
		dst[used++] = hex[c & 0xf];
	}
	dst[used] = '\0';
	return used;
}

/* The line for stderr: "<3>prefix: message" or "prefix: error: message". */
static void write_line(enum log_level level, const char *message)
{
	char raw[LOG_LINE_MAX_BYTES + sizeof(log_prefix) + 32];
	char line[LOG_LINE_MAX_BYTES];
	char tag[8] = "";
	ssize_t written;
	size_t used;

	if (log_sink == SINK_JOURNAL)
		(void)snprintf(tag, sizeof(tag), "<%d>",
			       levels[level].priority);
	(void)snprintf(raw, sizeof(raw), "%s%s%s%s%s", tag, log_prefix,
		       log_prefix[0] ? ": " : "",
		       log_sink == SINK_JOURNAL ? "" : levels[level].word,
		       message);
	used = log_escape(line, sizeof(line) - 1, raw, strlen(raw));
	line[used++] = '\n';

	/* A log that cannot be written has nowhere to be complained about. */
	written = write(STDERR_FILENO, line, used);
	(void)written;
}

/*
 * Not syslog(3): that opens the time zone's file, and a socket when the daemon
 * was restarted, which a process in the sandbox must not. The daemon knows the
 * time.
 */
static void send_to_syslog(enum log_level level, const char *message)
{
	static const struct sockaddr_un to = { .sun_family = AF_UNIX,
					       .sun_path = SYSLOG_PATH };
	char escaped[LOG_LINE_MAX_BYTES];
	char line[LOG_LINE_MAX_BYTES + sizeof(log_prefix) + 32];
	int len;

	(void)log_escape(escaped, sizeof(escaped), message, strlen(message));
	len = snprintf(line, sizeof(line), "<%d>%s[%d]: %s",
		       LOG_DAEMON | levels[level].priority, log_prefix,
		       (int)getpid(), escaped);
	(void)sendto(syslog_fd, line, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL,
		     (const struct sockaddr *)&to, sizeof(to));
}

__attribute__((format(printf, 2, 0))) static void
log_message(enum log_level level, const char *fmt, va_list args)
{
	char message[LOG_LINE_MAX_BYTES];
	int saved_errno = errno;

	if (level > log_level)
		return;
	if (vsnprintf(message, sizeof(message), fmt, args) < 0)
		(void)snprintf(message, sizeof(message), "%s", fmt);
	if (log_sink == SINK_SYSLOG)
		send_to_syslog(level, message);
	else
		write_line(level, message);
	errno = saved_errno;
}

void log_error(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_message(LOG_LEVEL_ERROR, fmt, args);
	va_end(args);
}

void log_warn(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_message(LOG_LEVEL_WARN, fmt, args);
	va_end(args);
}

void log_info(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_message(LOG_LEVEL_INFO, fmt, args);
	va_end(args);
}

void log_debug(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_message(LOG_LEVEL_DEBUG, fmt, args);
	va_end(args);
}
