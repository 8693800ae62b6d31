/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines for people. One event is one line and one write: to stderr, with
 * the priority in front when stderr is the journal, or to syslog when asked.
 * Every byte that is not printable ASCII leaves as \xNN, so a line is safe to
 * print whatever a peer put into it, and no line can pretend to be two. Only
 * owners (a session, a link, a main) log; what lies below returns an error.
 */
#ifndef XUSBIP_LOG_H
#define XUSBIP_LOG_H

#include <stddef.h>

/* The longest line, its newline included; what is longer is cut. */
#define LOG_LINE_MAX_BYTES 1024

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/*
 * Starts every line with the prefix (who speaks: a program, or
 * "xusbip-gateway session 3"; copied, cut at 63 bytes) and drops lines above
 * the level. May be called again, as a child process does. Without it there
 * is no prefix and the level is info.
 */
void log_init(const char *subject_prefix, enum log_level level);

/*
 * From now on lines go to the system's log, facility daemon, and not to stderr;
 * in the sandbox too. To be called again after the process closed its
 * descriptors.
 */
void log_to_syslog(void);

/*
 * One line each, without a newline at its end: subject first, cause last.
 * errno is left as it was.
 */
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * Copies len bytes of src to dst with every byte that is not printable ASCII
 * as \xNN; a backslash stays as it is, so escaping twice does no harm. Stops
 * before what does not fit whole, always ends dst with a NUL (cap is at least
 * 1) and returns the length without it.
 */
size_t log_escape(char *dst, size_t cap, const char *src, size_t len);

#endif
