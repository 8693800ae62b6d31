/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_file.h - a configuration file as libconfuse is to read it, which two
 * of its habits make necessary: behind a comment it miscounts the lines, and a
 * section that is open at the end of the file it takes for a closed one.
 */
#ifndef CONFIG_FILE_H
#define CONFIG_FILE_H

#include <stdio.h>

#define CONFIG_FILE_MAX_BYTES (1u << 20)

/*
 * The whole file, without what stands behind a #, and with a word of ours at
 * its end: what sees the word at top level has seen a file that is whole. 0;
 * -ENOTSUP: it is not a file; -EFBIG; -ENOENT and the like. Text and stream are
 * the caller's, to be closed before it is freed.
 */
int config_file_read(const char *path, const char *last_word, char **ret_text,
		     FILE **ret_stream);

#endif
