/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_store.h - the functions of vchan-transport/store.h over a small table,
 * for unit tests of what is built on them: included by the test, it takes the
 * real ones' place.  Rights and quotas it has none; the tests with the real
 * xenstored are in tests/integration.
 */
#ifndef MEMORY_STORE_H
#define MEMORY_STORE_H

#include "vchan-transport/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MEMORY_NODES 256

static struct memory_node {
	char path[96]; /* empty: not used */
	size_t path_length;
	char value[HANDSHAKE_WORD_BYTES + 8];
} memory_nodes[MEMORY_NODES];
/* None behind so many is used, or was. */
static size_t memory_used;

/* What every call says that would change something, unless it is 0. */
static int memory_error;
/* The same for what writes, and not for what removes. */
static int memory_write_error;
/* The read or list that fails, counted from now and from 1; 0: none. */
static unsigned memory_failing_read;
static int memory_read_error;
static unsigned memory_num_lists;
static int memory_num_watches;
/* Is every domain that is asked about dead? */
static bool memory_is_dead;
/* Whose store it is. */
static int memory_domid;

static struct memory_node *memory_find(const char *path)
{
	size_t length = strlen(path);

	for (size_t i = 0; i < memory_used; i++)
		if (memory_nodes[i].path_length == length &&
		    memcmp(memory_nodes[i].path, path, length) == 0)
			return &memory_nodes[i];
	return NULL;
}

static void memory_clear(void)
{
	memset(memory_nodes, 0, sizeof(memory_nodes));
	memory_used = 0;
	memory_error = 0;
	memory_write_error = 0;
	memory_failing_read = 0;
	memory_num_lists = 0;
	memory_num_watches = 0;
	memory_is_dead = false;
}

/* As snprintf() would, which takes longer; what does not fit is cut. */
static int memory_copy(char *to, size_t cap, const char *text)
{
	size_t length = strlen(text);
	size_t copied = length < cap ? length : cap - 1;

	memcpy(to, text, copied);
	to[copied] = '\0';
	return (int)length;
}

static void memory_put(const char *path, const char *value)
{
	struct memory_node *node = memory_find(path);

	if (!node)
		node = memory_find("");
	if (!node) {
		assert_true(memory_used < MEMORY_NODES);
		node = &memory_nodes[memory_used++];
	}
	(void)memory_copy(node->path, sizeof(node->path), path);
	node->path_length = strlen(node->path);
	(void)memory_copy(node->value, sizeof(node->value), value);
}

/* With what is missing above it, which stays when it goes. */
static void memory_set(const char *path, const char *value)
{
	char above[sizeof(memory_nodes->path)];

	memory_put(path, value);
	(void)memory_copy(above, sizeof(above), path);
	for (;;) {
		char *slash = strrchr(above, '/');

		if (!slash || slash == above)
			return;
		*slash = '\0';
		if (memory_find(above))
			return;
		memory_put(above, "");
	}
}

/* NULL: there is no such node. */
static const char *memory_get(const char *path)
{
	const struct memory_node *node = memory_find(path);

	return node ? node->value : NULL;
}

static bool memory_is_below(const char *path, const char *folder)
{
	size_t length = strlen(folder);

	return strncmp(path, folder, length) == 0 &&
	       (path[length] == '\0' || path[length] == '/');
}

static bool memory_has(const char *path)
{
	return memory_get(path) != NULL;
}

static void memory_remove(const char *path)
{
	for (size_t i = 0; i < memory_used; i++) {
		struct memory_node *node = &memory_nodes[i];

		if (!memory_is_below(node->path, path))
			continue;
		node->path[0] = '\0';
		node->path_length = 0;
	}
}

static bool memory_fails(void)
{
	return memory_failing_read > 0 && --memory_failing_read == 0;
}

/* Nobody opens it, but what is linked with the test would. */
int store_open(struct store **ret_store)
{
	(void)ret_store;
	return -ENODEV;
}

void store_close(struct store *store)
{
	(void)store;
}

int store_fd(struct store *store)
{
	(void)store;
	return -1;
}

int store_next_event(struct store *store, char ret_token[STORE_TOKEN_BYTES])
{
	(void)store;
	ret_token[0] = '\0';
	return 0;
}

int store_read(struct store *store, const char *path, char *value, size_t cap)
{
	const char *found = memory_get(path);

	(void)store;
	if (memory_fails())
		return memory_read_error;
	if (!found)
		return -ENOENT;
	if (strlen(found) >= cap)
		return -EMSGSIZE;
	return memory_copy(value, cap, found);
}

int store_list(struct store *store, const char *path,
	       char (*names)[STORE_NAME_BYTES], size_t cap)
{
	size_t length = strlen(path);
	size_t used = 0;

	(void)store;
	memory_num_lists++;
	if (memory_fails())
		return memory_read_error;
	if (!memory_has(path))
		return -ENOENT;
	for (size_t i = 0; i < memory_used && used < cap; i++) {
		const char *at = memory_nodes[i].path;

		if (memory_is_below(at, path) && at[length] == '/' &&
		    !strchr(at + length + 1, '/'))
			(void)snprintf(names[used++], STORE_NAME_BYTES, "%s",
				       at + length + 1);
	}
	return (int)used;
}

int store_write(struct store *store, const char *path, const char *value)
{
	(void)store;
	if (memory_error < 0)
		return memory_error;
	if (memory_write_error < 0)
		return memory_write_error;
	memory_set(path, value);
	return 0;
}

int store_write_under(struct store *store, const char *guard, const char *path,
		      const char *value)
{
	return memory_get(guard) ? store_write(store, path, value) : -ENOENT;
}

int store_remove(struct store *store, const char *path)
{
	(void)store;
	if (memory_error < 0)
		return memory_error;
	memory_remove(path);
	return 0;
}

int store_watch(struct store *store, const char *path, const char *token)
{
	(void)store;
	(void)path;
	(void)token;
	memory_num_watches++;
	return 0;
}

int store_unwatch(struct store *store, const char *path, const char *token)
{
	(void)store;
	(void)path;
	(void)token;
	memory_num_watches--;
	return 0;
}

int store_is_introduced(struct store *store, unsigned domid)
{
	(void)store;
	(void)domid;
	return !memory_is_dead;
}

int store_domid(struct store *store)
{
	(void)store;
	return memory_domid;
}

#endif
