/* SPDX-License-Identifier: Apache-2.0 */
/* See wants.h. */
#include "gateway/wants.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vchan-transport/handshake.h"
#include "vchan-transport/log.h"
#include "vchan-transport/store.h"

/* Of all guests: a driver domain has a quota of nodes. */
#define MAX_WANTS  HANDSHAKE_CHANNELS
#define PATH_BYTES 160

/* Owned by the table; its place is used again. */
struct want {
	bool is_used;
	bool persists;
	bool is_answered; /* what the answer was is told */
	struct xen_guest guest;
	uint32_t number; /* of its node */
	uint64_t epoch;
	char busid[USBIP_BUSID_BYTES];
	xen_done_cb *on_done; /* NULL: nobody waits for the answer */
	void *arg;
};

struct wants {
	struct store *store;
	unsigned domid; /* of this gateway */
	char dir[80];
	struct want table[MAX_WANTS];
};

/* ---- the nodes ---- */

static struct want *find(struct wants *w, unsigned domid, const char *busid)
{
	for (size_t i = 0; i < MAX_WANTS; i++) {
		struct want *want = &w->table[i];

		if (want->is_used && want->guest.domid == domid &&
		    strcmp(want->busid, busid) == 0)
			return want;
	}
	return NULL;
}

static bool is_number_used(const struct wants *w, unsigned domid,
			   uint32_t number)
{
	for (size_t i = 0; i < MAX_WANTS; i++) {
		const struct want *want = &w->table[i];

		if (want->is_used && want->guest.domid == domid &&
		    want->number == number)
			return true;
	}
	return false;
}

/* The table is as large as a guest has numbers, so one is free. */
static uint32_t find_number(const struct wants *w, unsigned domid)
{
	uint32_t number = 0;

	while (is_number_used(w, domid, number))
		number++;
	return number;
}

static struct want *take_place(struct wants *w, const struct xen_guest *guest,
			       const char *busid)
{
	for (size_t i = 0; i < MAX_WANTS; i++) {
		struct want *want = &w->table[i];

		if (want->is_used)
			continue;
		*want = (struct want){ .guest = *guest };
		(void)snprintf(want->busid, sizeof(want->busid), "%s", busid);
		want->number = find_number(w, guest->domid);
		want->is_used = true;
		return want;
	}
	return NULL;
}

static int write_node(struct wants *w, const struct want *want)
{
	struct handshake_word word = { .verb = HANDSHAKE_ATTACH,
				       .epoch = want->epoch };
	char text[HANDSHAKE_WORD_BYTES];
	char guard[HANDSHAKE_PATH_BYTES];
	char path[HANDSHAKE_PATH_BYTES];

	memcpy(word.busid, want->busid, sizeof(word.busid));
	handshake_format(text, &word);
	handshake_name_path(guard, w->domid, want->guest.domid, "peer");
	handshake_want_path(path, w->domid, want->guest.domid, want->number);
	return store_write_under(w->store, guard, path, text);
}

static void remove_want(struct wants *w, struct want *want)
{
	char path[HANDSHAKE_PATH_BYTES];
	int r;

	handshake_want_path(path, w->domid, want->guest.domid, want->number);
	r = store_remove(w->store, path);
	if (r < 0)
		log_warn("domain %u (%s): cannot take back that it is to have "
			 "%s: %s",
			 want->guest.domid, want->guest.name, want->busid,
			 strerror(-r));
	want->is_used = false;
}

/* 0, or -errno and the place is free again. */
static int write_new(struct wants *w, struct want *want)
{
	int r = 0;

	want->epoch = handshake_new_epoch();
	if (want->epoch == 0)
		r = -EIO;
	if (r == 0)
		r = write_node(w, want);
	if (r < 0)
		want->is_used = false;
	return r;
}

/* ---- what persists: a file for each guest, one bus id in a line ---- */

static bool is_uuid(const char *text)
{
	return strlen(text) == 36 &&
	       strspn(text, "0123456789abcdefABCDEF-") == 36;
}

static int save(const struct wants *w, const struct xen_guest *guest)
{
	char path[PATH_BYTES];
	char temporary[PATH_BYTES + 4];
	size_t count = 0;
	int r = 0;
	FILE *file;

	if (!is_uuid(guest->uuid))
		return -EINVAL;
	(void)snprintf(path, sizeof(path), "%s/want-%s", w->dir, guest->uuid);
	(void)snprintf(temporary, sizeof(temporary), "%s.new", path);
	file = fopen(temporary, "we");
	if (!file)
		return -errno;
	for (size_t i = 0; i < MAX_WANTS; i++) {
		const struct want *want = &w->table[i];

		if (want->is_used && want->persists &&
		    want->guest.domid == guest->domid) {
			(void)fprintf(file, "%s\n", want->busid);
			count++;
		}
	}
	if (ferror(file))
		r = -EIO;
	if (fclose(file) != 0)
		r = -errno;
	if (r == 0 && count > 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0 || count == 0)
		(void)unlink(temporary);
	if (r == 0 && count == 0)
		(void)unlink(path);
	return r;
}

static void save_or_warn(const struct wants *w, const struct xen_guest *guest)
{
	int r = save(w, guest);

	if (r < 0)
		log_warn("domain %u (%s): cannot note in %s what it is to have "
			 "always: %s",
			 guest->domid, guest->name, w->dir, strerror(-r));
}

static void load_line(struct wants *w, const struct xen_guest *guest,
		      const char *busid)
{
	struct want *want = find(w, guest->domid, busid);
	int r = -ENOSPC;

	if (want) { /* its node has outlived the manager before */
		want->persists = true;
		return;
	}
	want = take_place(w, guest, busid);
	if (want) {
		want->persists = true;
		r = write_new(w, want);
	}
	if (r < 0)
		log_warn("domain %u (%s): cannot be told to take %s: %s",
			 guest->domid, guest->name, busid, strerror(-r));
}

static void load(struct wants *w, const struct xen_guest *guest)
{
	char path[PATH_BYTES];
	char line[USBIP_BUSID_BYTES + 1];
	FILE *file;

	if (!is_uuid(guest->uuid))
		return;
	(void)snprintf(path, sizeof(path), "%s/want-%s", w->dir, guest->uuid);
	file = fopen(path, "re");
	if (!file)
		return;
	for (size_t i = 0; i < MAX_WANTS && fgets(line, sizeof(line), file);
	     i++) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] != '\0')
			load_line(w, guest, line);
	}
	(void)fclose(file);
}

/* ---- of a manager before this one ---- */

static void adopt(struct wants *w, const struct xen_guest *guest,
		  const char *name)
{
	char path[HANDSHAKE_PATH_BYTES];
	char text[HANDSHAKE_WORD_BYTES];
	struct handshake_word word;
	struct want *want = NULL;
	uint32_t number;

	if (!handshake_parse_number(name, HANDSHAKE_CHANNELS - 1, &number))
		return;
	handshake_want_path(path, w->domid, guest->domid, number);
	if (store_read(w->store, path, text, sizeof(text)) >= 0 &&
	    handshake_parse(text, &word) && word.verb == HANDSHAKE_ATTACH &&
	    !find(w, guest->domid, word.busid))
		want = take_place(w, guest, word.busid);
	if (!want) {
		(void)store_remove(w->store, path);
		return;
	}
	want->number = number;
	want->epoch = word.epoch;
}

static void adopt_all(struct wants *w, const struct xen_guest *guest)
{
	char(*names)[STORE_NAME_BYTES];
	char path[HANDSHAKE_PATH_BYTES];
	int count;

	names = calloc(HANDSHAKE_CHANNELS, sizeof(*names));
	if (!names)
		return;
	handshake_name_path(path, w->domid, guest->domid, "want");
	count = store_list(w->store, path, names, HANDSHAKE_CHANNELS);
	for (int i = 0; i < count; i++)
		adopt(w, guest, names[i]);
	free(names);
}

/* ---- guests ---- */

int wants_new(struct store *store, const char *runtime_dir,
	      unsigned gateway_domid, struct wants **ret_wants)
{
	struct wants *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->store = store;
	w->domid = gateway_domid;
	(void)snprintf(w->dir, sizeof(w->dir), "%s", runtime_dir);
	*ret_wants = w;
	return 0;
}

void wants_free(struct wants *w)
{
	free(w);
}

void wants_guest_came(struct wants *w, const struct xen_guest *guest)
{
	wants_guest_left(w, guest->domid);
	adopt_all(w, guest);
	load(w, guest);
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
	for (size_t i = 0; i < MAX_WANTS; i++) {
		struct want *want = &w->table[i];

		if (!want->is_used || want->guest.domid != domid)
			continue;
		want->is_used = false;
		tell(want, EXIT_CANNOT_REACH, "the domain is gone");
	}
}

/* ---- answers ---- */

static void on_attached(struct want *want, uint32_t port)
{
	char text[160];

	(void)snprintf(text, sizeof(text), "attached %s to %s at its port %02u",
		       want->busid, want->guest.name, port);
	log_info("domain %u (%s): has attached %s", want->guest.domid,
		 want->guest.name, want->busid);
	tell(want, EXIT_OK, text);
}

static void on_failed(struct wants *w, struct want *want,
		      const struct handshake_word *word)
{
	enum exit_status status = EXIT_FAILED;
	char text[HANDSHAKE_WHY_BYTES + 160];

	if (word->status > EXIT_OK && word->status <= EXIT_NOT_TRUSTED)
		status = word->status;
	(void)snprintf(text, sizeof(text), "%s did not attach %s: %s%s",
		       want->guest.name, want->busid, word->why,
		       want->persists ? "; it tries again" : "");
	log_warn("domain %u: %s", want->guest.domid, text);
	if (!want->persists)
		remove_want(w, want);
	tell(want, status, text);
}

static void review(struct wants *w, struct want *want)
{
	char path[HANDSHAKE_PATH_BYTES];
	char text[HANDSHAKE_WORD_BYTES];
	struct handshake_word word;

	handshake_want_path(path, want->guest.domid, w->domid, want->number);
	if (store_read(w->store, path, text, sizeof(text)) < 0 ||
	    !handshake_parse(text, &word) || word.epoch != want->epoch)
		return;
	want->is_answered = true;
	if (word.verb == HANDSHAKE_ATTACHED)
		on_attached(want, word.port);
	else if (word.verb == HANDSHAKE_FAILED)
		on_failed(w, want, &word);
	else
		want->is_answered = false;
}

void wants_review(struct wants *w, unsigned domid)
{
	for (size_t i = 0; i < MAX_WANTS; i++) {
		struct want *want = &w->table[i];

		if (want->is_used && want->guest.domid == domid &&
		    !want->is_answered)
			review(w, want);
	}
}

void wants_session_ended(struct wants *w, unsigned domid, const char *busid)
{
	struct want *want = find(w, domid, busid);

	/* Until it is answered the guest may still be trying. */
	if (want && !want->persists && want->is_answered)
		remove_want(w, want);
}

/* ---- the administrator ---- */

int wants_add(struct wants *w, const struct xen_guest *guest, const char *busid,
	      bool persists, xen_done_cb *on_done, void *arg)
{
	struct want *want = find(w, guest->domid, busid);
	int r;

	if (want)
		return -EEXIST;
	want = take_place(w, guest, busid);
	if (!want)
		return -ENOSPC;
	want->persists = persists;
	r = write_new(w, want);
	if (r < 0)
		return r;
	want->on_done = on_done;
	want->arg = arg;
	if (persists)
		save_or_warn(w, guest);
	return 0;
}

bool wants_remove(struct wants *w, const struct xen_guest *guest,
		  const char *busid)
{
	struct want *want = find(w, guest->domid, busid);

	if (!want)
		return false;
	remove_want(w, want);
	if (want->persists)
		save_or_warn(w, guest);
	tell(want, EXIT_FAILED, "it was taken back meanwhile");
	return true;
}

void wants_forget_asker(struct wants *w, void *arg)
{
	for (size_t i = 0; i < MAX_WANTS; i++) {
		struct want *want = &w->table[i];

		if (!want->is_used || !want->on_done || want->arg != arg)
			continue;
		want->on_done = NULL;
		if (!want->persists)
			remove_want(w, want);
	}
}
