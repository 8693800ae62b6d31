/* SPDX-License-Identifier: Apache-2.0 */
/* What a gateway says in xenstore: see xen_gateway_private.h. */
#include "frontend/xen_gateway_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vchan-transport/import.h"

/* ---- what the gateway says ---- */

/* Not there, not for this domain, or too much for a word: that is known. */
static bool is_no_word(int r)
{
	return r == -ENOENT || r == -EACCES || r == -EMSGSIZE || r == -EBADMSG;
}

int xen_gateway_read_word(struct store *store, const char *path,
			  struct handshake_word *ret_word)
{
	char text[HANDSHAKE_WORD_BYTES];
	int r = store_read(store, path, text, sizeof(text));

	if (r < 0 && !is_no_word(r))
		return r;
	*ret_word = (struct handshake_word){ 0 };
	if (r >= 0)
		(void)handshake_parse(text, ret_word);
	return 0;
}

/* Attached by an agent before this one, and still there? */
static int adopt(struct xen_gateway *g, struct task *want, bool *ret_is_found)
{
	char path[HANDSHAKE_PATH_BYTES];
	struct handshake_word word;
	struct record record;
	int r;

	handshake_want_path(path, g->own, g->domid, task_number(g, want));
	r = xen_gateway_read_word(g->store, path, &word);
	if (r < 0 || word.verb != HANDSHAKE_ATTACHED ||
	    word.epoch != want->epoch ||
	    record_read(RECORD_DIR, word.port, &record) < 0 ||
	    strcmp(record.host, g->address) != 0 ||
	    strcmp(record.busid, want->note.busid) != 0 ||
	    record_identify(RECORD_DIR, word.port, &want->record) < 0)
		return r;
	want->port = word.port;
	*ret_is_found = true;
	return 0;
}

static int begin_want(struct xen_gateway *g, struct task *want,
		      const struct handshake_word *word)
{
	bool is_found = false;
	int r;

	want->epoch = word->epoch;
	memcpy(want->note.busid, word->busid, sizeof(word->busid));
	r = adopt(g, want, &is_found);
	if (r == 0)
		task_feed(g, want, is_found ? TASK_ON_FOUND : TASK_ON_WANTED);
	return r;
}

static int look_at_want(struct xen_gateway *g, const char *name)
{
	char path[HANDSHAKE_PATH_BYTES];
	struct handshake_word word;
	struct task *want;
	uint32_t number;
	int r;

	if (!handshake_parse_number(name, MAX_TASKS - 1, &number))
		return 0;
	want = &g->wants[number];
	handshake_want_path(path, g->domid, g->own, number);
	r = xen_gateway_read_word(g->store, path, &word);
	if (r < 0 || word.verb != HANDSHAKE_ATTACH ||
	    !import_is_busid(word.busid))
		return r;
	if (want->state == TASK_ABSENT)
		r = begin_want(g, want, &word);
	/* Another one waits until this one has gone. */
	want->is_seen = want->epoch == word.epoch &&
			strcmp(want->note.busid, word.busid) == 0;
	return r;
}

static int look_at_wants(struct xen_gateway *g)
{
	char names[MAX_TASKS][STORE_NAME_BYTES];
	char path[HANDSHAKE_PATH_BYTES];
	int count;
	int r = 0;

	handshake_name_path(path, g->domid, g->own, "want");
	count = store_list(g->store, path, names, MAX_TASKS);
	if (count < 0 && !is_no_word(count))
		return count;
	for (size_t i = 0; i < MAX_TASKS; i++)
		g->wants[i].is_seen = false;
	for (int i = 0; i < count && r == 0; i++)
		r = look_at_want(g, names[i]);
	for (size_t i = 0; i < MAX_TASKS && r == 0; i++) {
		struct task *want = &g->wants[i];

		if (!want->is_seen && g->hold != HOLD_HOLDING)
			task_feed(g, want, TASK_ON_UNWANTED);
	}
	return r;
}

/* Answers to wants that went while no agent was there. */
static void remove_stale_answers(struct xen_gateway *g)
{
	char names[MAX_TASKS][STORE_NAME_BYTES];
	char path[HANDSHAKE_PATH_BYTES];
	int count;

	handshake_name_path(path, g->own, g->domid, "want");
	count = store_list(g->store, path, names, MAX_TASKS);
	for (int i = 0; i < count; i++) {
		uint32_t number;

		if (handshake_parse_number(names[i], MAX_TASKS - 1, &number) &&
		    g->wants[number].state == TASK_ABSENT) {
			handshake_want_path(path, g->own, g->domid, number);
			(void)store_remove(g->store, path);
		}
	}
}

static int look_at_devices(struct xen_gateway *g)
{
	char path[HANDSHAKE_PATH_BYTES];
	char text[sizeof(g->devices)] = "";
	int r;

	handshake_name_path(path, g->domid, g->own, "devices");
	r = store_read(g->store, path, text, sizeof(text));
	if (r < 0 && !is_no_word(r))
		return r;
	g->has_devices = r >= 0;
	if (strcmp(text, g->devices) == 0)
		return 0;
	memcpy(g->devices, text, sizeof(text));
	g->has_news = true;
	for (size_t i = 0; i < MAX_TASKS; i++) {
		if (g->wants[i].state == TASK_WAITING)
			task_feed(g, &g->wants[i], TASK_ON_WANTED);
		if (g->taken[i].state == TASK_WAITING)
			task_feed(g, &g->taken[i], TASK_ON_WANTED);
	}
	return 0;
}

static int look_at_hold(struct xen_gateway *g)
{
	char path[HANDSHAKE_PATH_BYTES];
	struct handshake_word word;
	uint32_t domid;
	int r;

	handshake_name_path(path, g->domid, g->own, "hold");
	r = xen_gateway_read_word(g->store, path, &word);
	if (r < 0)
		return r;
	if (word.verb != HANDSHAKE_HOLD && word.verb != HANDSHAKE_RESUME)
		word = (struct handshake_word){ 0 };
	g->word = word;
	handshake_name_path(path, g->own, g->domid, "name");
	r = store_read(g->store, path, g->name, sizeof(g->name));
	if (r < 0 && !is_no_word(r))
		return r;
	/* What is a number is never a name: it would be another domain's. */
	if (r < 0 ||
	    handshake_parse_number(g->name, HANDSHAKE_MAX_DOMID, &domid))
		g->name[0] = '\0';
	return 0;
}

int xen_gateway_look(struct xen_gateway *g)
{
	int r;

	g->needs_look = false;
	r = look_at_wants(g);
	if (r == 0)
		r = look_at_devices(g);
	if (r == 0)
		r = look_at_hold(g);
	if (r < 0) {
		g->needs_look = true;
		return r;
	}
	if (!g->has_looked)
		remove_stale_answers(g);
	g->has_looked = true;
	return 0;
}
