/* SPDX-License-Identifier: Apache-2.0 */
/* See wants.h. */
#include "gateway/wants.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/want_note.h"
#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"
#include "vchan-transport/steady_watch.h"
#include "vchan-transport/store.h"

#define WHY_BYTES (HANDSHAKE_WHY_BYTES + 240)

/* Owned by its guest; its place is used again. */
struct want {
	bool is_used;
	bool persists;
	bool is_told;     /* its node is written */
	bool is_answered; /* what the answer was is told */
	uint32_t number;  /* of its node */
	uint64_t epoch;
	char busid[USBIP_BUSID_BYTES];
	xen_done_cb *on_done; /* NULL: nobody waits for the answer */
	void *arg;
};

/* A guest that is served. Owned by the wants. */
struct want_guest {
	struct want_guest *next;
	struct xen_guest id;
	struct want table[WANTS_MAX];
};

struct wants {
	struct store *store;
	unsigned domid; /* of this gateway */
	char dir[80];
	struct want_guest *guests;
};

/* ---- the nodes ---- */

static struct want_guest *find_guest(const struct wants *w, unsigned domid)
{
	struct want_guest *g = w->guests;

	while (g && g->id.domid != domid)
		g = g->next;
	return g;
}

static struct want *find(struct want_guest *g, const char *busid)
{
	for (size_t i = 0; i < WANTS_MAX; i++) {
		struct want *want = &g->table[i];

		if (want->is_used && strcmp(want->busid, busid) == 0)
			return want;
	}
	return NULL;
}

static bool is_number_used(const struct want_guest *g, uint32_t number)
{
	for (size_t i = 0; i < WANTS_MAX; i++)
		if (g->table[i].is_used && g->table[i].number == number)
			return true;
	return false;
}

/* The table is as large as a guest has numbers, so one is free. */
static uint32_t find_number(const struct want_guest *g)
{
	uint32_t number = 0;

	while (is_number_used(g, number))
		number++;
	return number;
}

/* NULL: it has as many as there can be. */
static struct want *take_place(struct want_guest *g, const char *busid)
{
	for (size_t i = 0; i < WANTS_MAX; i++) {
		struct want *want = &g->table[i];

		if (want->is_used)
			continue;
		*want = (struct want){ .number = find_number(g) };
		(void)snprintf(want->busid, sizeof(want->busid), "%s", busid);
		want->is_used = true;
		return want;
	}
	return NULL;
}

static int write_node(const struct wants *w, const struct want_guest *g,
		      struct want *want)
{
	struct handshake_word word = { .verb = HANDSHAKE_ATTACH };
	char text[HANDSHAKE_WORD_BYTES];
	char guard[HANDSHAKE_PATH_BYTES];
	char path[HANDSHAKE_PATH_BYTES];
	int r;

	word.epoch = handshake_new_epoch();
	if (word.epoch == 0)
		return -EIO;
	memcpy(word.busid, want->busid, sizeof(word.busid));
	handshake_format(text, &word);
	handshake_name_path(guard, w->domid, g->id.domid, "peer");
	handshake_want_path(path, w->domid, g->id.domid, want->number);
	r = store_write_under(w->store, guard, path, text);
	want->is_told = r == 0;
	want->epoch = word.epoch;
	return r;
}

static void remove_want(const struct wants *w, const struct want_guest *g,
			struct want *want)
{
	char path[HANDSHAKE_PATH_BYTES];
	int r;

	handshake_want_path(path, w->domid, g->id.domid, want->number);
	r = store_remove(w->store, path);
	if (r < 0)
		log_warn("domain %u (%s): cannot take back that it is to have "
			 "%s: %s",
			 g->id.domid, g->id.name, want->busid, strerror(-r));
	want->is_used = false;
}

/* ---- what persists ---- */

/* Of one file. */
struct load {
	const struct wants *wants;
	struct want_guest *guest;
	unsigned num_left_out;
};

static void load_one(void *arg, const char *busid)
{
	struct load *load = arg;
	struct want_guest *g = load->guest;
	struct want *want = find(g, busid);
	int r;

	if (want) { /* its node has outlived the manager before */
		want->persists = true;
		return;
	}
	want = take_place(g, busid);
	if (!want) {
		load->num_left_out++;
		return;
	}
	want->persists = true;
	r = write_node(load->wants, g, want);
	if (r < 0)
		log_warn("domain %u (%s): cannot be told to take %s: %s; it is "
			 "tried again",
			 g->id.domid, g->id.name, busid, steady_watch_why(r));
}

static void load(const struct wants *w, struct want_guest *g)
{
	struct load all = { .wants = w, .guest = g };
	int r = want_note_each(w->dir, g->id.uuid, load_one, &all);

	if (r < 0)
		log_error("domain %u (%s): what it is to have always is not "
			  "known: %s/want-%s: %s",
			  g->id.domid, g->id.name, w->dir, g->id.uuid,
			  strerror(-r));
	if (all.num_left_out > 0)
		log_warn("domain %u (%s): %u of the devices that it is to have "
			 "always are left out: no domain can have more than "
			 "%u; see %s/want-%s",
			 g->id.domid, g->id.name, all.num_left_out, WANTS_MAX,
			 w->dir, g->id.uuid);
}

/* ---- of a manager before this one ---- */

static void adopt(const struct wants *w, struct want_guest *g, const char *name)
{
	char path[HANDSHAKE_PATH_BYTES];
	char text[HANDSHAKE_WORD_BYTES];
	struct handshake_word word;
	struct want *want = NULL;
	uint32_t number;

	if (!handshake_parse_number(name, WANTS_MAX - 1, &number))
		return;
	handshake_want_path(path, w->domid, g->id.domid, number);
	if (store_read(w->store, path, text, sizeof(text)) >= 0 &&
	    handshake_parse(text, &word) && word.verb == HANDSHAKE_ATTACH &&
	    !find(g, word.busid))
		want = take_place(g, word.busid);
	if (!want) {
		(void)store_remove(w->store, path);
		return;
	}
	want->number = number;
	want->epoch = word.epoch;
	want->is_told = true;
}

static void adopt_all(const struct wants *w, struct want_guest *g)
{
	char(*names)[STORE_NAME_BYTES];
	char path[HANDSHAKE_PATH_BYTES];
	int count;

	names = calloc(WANTS_MAX, sizeof(*names));
	if (!names)
		return;
	handshake_name_path(path, w->domid, g->id.domid, "want");
	count = store_list(w->store, path, names, WANTS_MAX);
	for (int i = 0; i < count; i++)
		adopt(w, g, names[i]);
	free(names);
}

/* ---- guests ---- */

int wants_new(struct store *store, const char *state_dir,
	      unsigned gateway_domid, struct wants **ret_wants)
{
	struct wants *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->store = store;
	w->domid = gateway_domid;
	(void)snprintf(w->dir, sizeof(w->dir), "%s", state_dir);
	*ret_wants = w;
	return 0;
}

void wants_free(struct wants *w)
{
	if (!w)
		return;
	while (w->guests) {
		struct want_guest *g = w->guests;

		w->guests = g->next;
		free(g);
	}
	free(w);
}

void wants_guest_came(struct wants *w, const struct xen_guest *guest)
{
	struct want_guest *g;

	wants_guest_left(w, guest->domid);
	g = calloc(1, sizeof(*g));
	if (!g) {
		log_error("domain %u (%s): cannot be told what to take: %s",
			  guest->domid, guest->name, strerror(ENOMEM));
		return;
	}
	g->id = *guest;
	g->next = w->guests;
	w->guests = g;
	adopt_all(w, g);
	load(w, g);
	wants_review(w, guest->domid);
}

static void tell(struct want *want, enum exit_status status, const char *text)
{
	xen_done_cb *on_done = want->on_done;

	want->on_done = NULL;
	if (on_done)
		on_done(want->arg, status, text);
}

void wants_guest_left(struct wants *w, unsigned domid)
{
	struct want_guest *g = find_guest(w, domid);
	struct want_guest **at = &w->guests;

	if (!g)
		return;
	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	for (size_t i = 0; i < WANTS_MAX; i++)
		if (g->table[i].is_used)
			tell(&g->table[i], EXIT_CANNOT_REACH,
			     "the domain is gone");
	free(g);
}

/* ---- answers ---- */

static void on_attached(const struct want_guest *g, struct want *want,
			uint32_t port)
{
	char text[160];

	(void)snprintf(text, sizeof(text), "attached %s to %s at its port %02u",
		       want->busid, g->id.name, port);
	log_info("domain %u (%s): has attached %s", g->id.domid, g->id.name,
		 want->busid);
	tell(want, EXIT_OK, text);
}

static void on_failed(const struct wants *w, const struct want_guest *g,
		      struct want *want, const struct handshake_word *word)
{
	enum exit_status status = EXIT_FAILED;
	char text[WHY_BYTES];

	if (word->status > EXIT_OK && word->status <= EXIT_NOT_TRUSTED)
		status = word->status;
	(void)snprintf(text, sizeof(text), "%s did not attach %s: %s%s",
		       g->id.name, want->busid, word->why,
		       want->persists ? "; it tries again" : "");
	log_warn("domain %u: %s", g->id.domid, text);
	if (!want->persists)
		remove_want(w, g, want);
	tell(want, status, text);
}

static void review(const struct wants *w, const struct want_guest *g,
		   struct want *want)
{
	char path[HANDSHAKE_PATH_BYTES];
	char text[HANDSHAKE_WORD_BYTES];
	struct handshake_word word;

	handshake_want_path(path, g->id.domid, w->domid, want->number);
	if (store_read(w->store, path, text, sizeof(text)) < 0 ||
	    !handshake_parse(text, &word) || word.epoch != want->epoch)
		return;
	want->is_answered = true;
	if (word.verb == HANDSHAKE_ATTACHED)
		on_attached(g, want, word.port);
	else if (word.verb == HANDSHAKE_FAILED)
		on_failed(w, g, want, &word);
	else
		want->is_answered = false;
}

void wants_review(struct wants *w, unsigned domid)
{
	struct want_guest *g = find_guest(w, domid);

	for (size_t i = 0; g && i < WANTS_MAX; i++) {
		struct want *want = &g->table[i];

		if (want->is_used && !want->is_told)
			(void)write_node(w, g, want);
		if (want->is_used && !want->is_answered)
			review(w, g, want);
	}
}

void wants_session_ended(struct wants *w, unsigned domid, const char *busid)
{
	struct want_guest *g = find_guest(w, domid);
	struct want *want = g ? find(g, busid) : NULL;

	/* Until it is answered the guest may still be trying. */
	if (want && !want->persists && want->is_answered)
		remove_want(w, g, want);
}

/* ---- the administrator ---- */

static enum exit_status refuse(char why[static WHY_BYTES],
			       enum exit_status status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static enum exit_status refuse(char why[static WHY_BYTES],
			       enum exit_status status, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(why, WHY_BYTES, fmt, args);
	va_end(args);
	return status;
}

/* Notes it first: what is asked for and not noted would be forgotten. */
static enum exit_status begin(const struct wants *w, const struct want_guest *g,
			      struct want *want, char why[static WHY_BYTES])
{
	const char *uuid = g->id.uuid;
	int r = want->persists ? want_note_add(w->dir, uuid, want->busid) : 0;

	if (r < 0)
		return refuse(why, EXIT_FAILED,
			      "cannot note in %s that %s is to have %s always: "
			      "%s; see state_dir in xusbip-gateway.conf(5)",
			      w->dir, g->id.name, want->busid, strerror(-r));
	r = write_node(w, g, want);
	if (r == 0)
		return EXIT_OK;
	if (want->persists)
		(void)want_note_remove(w->dir, uuid, want->busid);
	return refuse(why, EXIT_FAILED, "cannot tell %s to take %s: %s",
		      g->id.name, want->busid, steady_watch_why(r));
}

static enum exit_status place(struct want_guest *g, const char *busid,
			      struct want **ret_want,
			      char why[static WHY_BYTES])
{
	if (find(g, busid))
		return refuse(why, EXIT_BUSY,
			      "%s has been told to take %s already; first: "
			      "xusbip detach --from %s -b %s",
			      g->id.name, busid, g->id.name, busid);
	*ret_want = take_place(g, busid);
	if (!*ret_want)
		return refuse(why, EXIT_BUSY,
			      "%s has been told to take %u devices, and no "
			      "domain can be told more; first: xusbip detach "
			      "--from %s -b BUSID",
			      g->id.name, WANTS_MAX, g->id.name);
	return EXIT_OK;
}

void wants_add(struct wants *w, const struct xen_guest *guest,
	       const char *busid, bool persists, xen_done_cb *on_done,
	       void *arg)
{
	struct want_guest *g = find_guest(w, guest->domid);
	enum exit_status status = EXIT_FAILED;
	struct want *want = NULL;
	char why[WHY_BYTES] = "the gateway has no memory left";

	if (g) {
		g->id = *guest; /* it may have another name by now */
		status = place(g, busid, &want, why);
	}
	if (want) {
		want->persists = persists;
		status = begin(w, g, want, why);
		want->is_used = status == EXIT_OK;
		want->on_done = status == EXIT_OK ? on_done : NULL;
		want->arg = arg;
	}
	if (status != EXIT_OK)
		on_done(arg, status, why);
}

int wants_remove(struct wants *w, const struct xen_guest *guest,
		 const char *busid)
{
	struct want_guest *g = find_guest(w, guest->domid);
	struct want *want = g ? find(g, busid) : NULL;
	int r = want_note_remove(w->dir, guest->uuid, busid);

	if (want) {
		remove_want(w, g, want);
		tell(want, EXIT_FAILED, "it was taken back meanwhile");
	}
	if (r < 0 && r != -ENOENT)
		return r;
	return want || r == 0;
}

void wants_forget_asker(struct wants *w, void *arg)
{
	for (struct want_guest *g = w->guests; g; g = g->next) {
		for (size_t i = 0; i < WANTS_MAX; i++) {
			struct want *want = &g->table[i];

			if (!want->is_used || !want->on_done ||
			    want->arg != arg)
				continue;
			want->on_done = NULL;
			if (!want->persists)
				remove_want(w, g, want);
		}
	}
}
