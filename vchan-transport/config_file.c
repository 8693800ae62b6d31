/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The end of a quoted text; NULL: there is none, or libconfuse replaces
 * something in it that may have quotes in itself. */
static char *skip_quoted(char *at)
{
	char quote = *at++;

	for (; *at && *at != quote; at++) {
		if (quote == '"' && at[0] == '$' && at[1] == '{')
			return NULL;
		if (at[0] == '\\' && at[1])
			at++;
	}
	return *at ? at + 1 : NULL;
}

/*
 * Comments become blanks. Where it cannot be sure to see what libconfuse sees
 * it stops, so the worst is a wrong number of a line.
 */
static void blank_comments(char *text)
{
	while (text && *text) {
		if (*text == '#') {
			size_t len = strcspn(text, "\n");

			memset(text, ' ', len);
			text += len;
		} else if (*text == '"' || *text == '\'') {
			text = skip_quoted(text);
		} else if ((text[0] == '$' && text[1] == '{') ||
			   (text[0] == '/' &&
			    (text[1] == '/' || text[1] == '*'))) {
			return;
		} else {
			text++;
		}
	}
}

/* Reads to the end: 0 or -errno. */
static int read_whole(const char *path, char *text, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	size_t len = 0;
	ssize_t n = -1;
	int r = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		(void)close(fd);
		return -ENOTSUP;
	}
	while (len < CONFIG_FILE_MAX_BYTES) {
		n = read(fd, text + len, CONFIG_FILE_MAX_BYTES - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	if (n != 0)
		r = n < 0 ? -errno : -EFBIG;
	(void)close(fd);
	*ret_len = len;
	return r;
}

int config_file_read(const char *path, const char *last_word, char **ret_text,
		     FILE **ret_stream)
{
	size_t last_len = strlen(last_word);
	char *text = calloc(1, CONFIG_FILE_MAX_BYTES + 1 + last_len + 1);
	size_t len = 0;
	int r;

	if (!text)
		return -ENOMEM;
	r = read_whole(path, text, &len);
	if (r == 0) {
		/* Up to a NUL, should the file have one. */
		blank_comments(text);
		text[len] = '\n';
		memcpy(text + len + 1, last_word, last_len + 1);
		*ret_stream = fmemopen(text, len + 1 + last_len, "r");
		r = *ret_stream ? 0 : -errno;
	}
	if (r < 0)
		free(text);
	else
		*ret_text = text;
	return r;
}
