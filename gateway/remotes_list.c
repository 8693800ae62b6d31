/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of other gateways. All are asked at once, and answered is when the last
 * one has, or at the limit. What one has listed serves for a moment whoever
 * asks next, so that many who ask do not become many connections; and so does
 * that it did not answer.
 *
 * A list that was made for somebody with few hops behind shows more than one
 * for somebody with many: it serves only those with as many, or more.
 */
#include "gateway/remotes_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

/* Each hop has less, so that one that does not answer costs only its own. */
#define LIST_LIMIT_MS     4000
#define LIST_LIMIT_HOP_MS 800
/* The dialer ends first, with its own words. */
#define DIALER_EARLY_MS 300
#define LIST_FRESH_MS   2000
/* Calls for the list of one gateway at once. */
#define MAX_LISTING 8

static unsigned limit_ms(const struct remotes_question *q)
{
	return LIST_LIMIT_MS - q->asked.hops * LIST_LIMIT_HOP_MS;
}

static bool is_fresh(const struct remote *remote,
		     const struct remotes_question *q)
{
	return remote->has_listed &&
	       remote->listed_ms + LIST_FRESH_MS >= q->asked_ms &&
	       remote->listed_hops <= q->asked.hops;
}

/* ---- what the rules give ---- */

static void fill_policy(struct policy_device *policy,
			const struct remote *remote,
			const struct import_entry *entry)
{
	*policy = (struct policy_device){ .num_classes = 0 };
	memcpy(policy->busid, entry->device.busid, sizeof(policy->busid));
	memcpy(policy->remote, remote->config.name, sizeof(policy->remote));
	policy_describe_listed(policy, &entry->device, entry->interfaces);
}

/* Tells of one device, if the rules give it. */
static void tell_device(struct remotes_question *q, const struct remote *remote,
			const struct import_entry *entry)
{
	struct ipc_answer answer = { .type = IPC_DEVICE,
				     .kind = IPC_KIND_REMOTE };
	struct policy_device policy;

	fill_policy(&policy, remote, entry);
	if (q->asked.room == 0 ||
	    remotes_judge(q->remotes, &policy, &q->asked.peer).outcome !=
		    POLICY_EXPORTED ||
	    !remote_name_join(answer.device.busid, entry->device.busid,
			      remote->config.name))
		return;
	q->asked.room--;
	remotes_show(&answer.device, &entry->device);
	memcpy(answer.interfaces, entry->interfaces, sizeof(answer.interfaces));
	q->on_answer(q->arg, &answer, -1, -1);
}

static void finish(struct remotes_question *q)
{
	const struct ipc_answer end = { .type = IPC_END };
	remotes_answer_cb *on_answer = q->on_answer;
	void *arg = q->arg;

	for (const struct remote *r = q->remotes->remotes; r; r = r->next) {
		if (r->is_retired || !is_fresh(r, q))
			continue;
		for (size_t i = 0; i < r->list.num; i++)
			tell_device(q, r, &r->list.entries[i]);
	}
	remotes_drop(q);
	on_answer(arg, &end, -1, -1);
}

/* ---- what a gateway lists ---- */

static bool is_same_list(const struct remotes_list *a,
			 const struct remotes_list *b)
{
	return a->num == b->num &&
	       (a->num == 0 || memcmp(a->entries, b->entries,
				      a->num * sizeof(*a->entries)) == 0);
}

static void log_left_out(const struct remote *remote)
{
	const struct remotes_list *list = &remote->list;
	char name[USBIP_BUSID_BYTES];

	for (size_t i = 0; i < list->num; i++) {
		if (!remote_name_join(name, list->entries[i].device.busid,
				      remote->config.name))
			log_warn("remote %s: its device %s is left out: with "
				 "@%s behind it is no bus id of at most %d "
				 "characters",
				 remote->config.name,
				 list->entries[i].device.busid,
				 remote->config.name, USBIP_BUSID_BYTES - 1);
	}
	if (list->is_cut)
		log_warn("remote %s: it lists more than %d devices: the others "
			 "are left out",
			 remote->config.name, REMOTES_MAX_DEVICES);
}

/* Takes the list over; empty: there was no answer. */
static void keep(struct remotes_question *q, struct remote *remote,
		 struct remotes_list *list)
{
	const struct remotes_options *o = &q->remotes->options;
	bool is_same = is_same_list(&remote->list, list);

	remotes_free_list(&remote->list);
	remote->list = *list;
	*list = (struct remotes_list){ 0 };
	remote->listed_ms = loop_now_ms(o->loop);
	remote->listed_hops = q->asked.hops;
	remote->has_listed = true;
	if (is_same)
		return;
	log_left_out(remote);
	o->on_change(o->arg);
}

static void end_listing(struct remote_call *call)
{
	struct remotes_question *q = call->question;

	if (!is_fresh(call->remote, q) ||
	    q->asked.hops <= call->remote->listed_hops)
		keep(q, call->remote, &call->list);
	remotes_end_call(call);
	if (q->num_waiting == 0)
		finish(q);
}

static void fail(struct remote_call *call, const char *why)
{
	log_warn("remote %s: its devices are not listed: %s",
		 call->remote->config.name, why);
	remotes_free_list(&call->list);
	end_listing(call);
}

static int add_entry(struct remotes_list *list,
		     const struct dial_report *report)
{
	struct import_entry *entries = list->entries;
	size_t cap = list->cap > 0 ? 2 * list->cap : 8;

	if (list->num == REMOTES_MAX_DEVICES) {
		list->is_cut = true;
		return 0;
	}
	if (list->num == list->cap) {
		entries = realloc(entries, cap * sizeof(*entries));
		if (!entries)
			return -ENOMEM;
		list->entries = entries;
		list->cap = cap;
	}
	entries += list->num++;
	memset(entries, 0, sizeof(*entries));
	entries->device = report->device;
	memcpy(entries->interfaces, report->interfaces,
	       sizeof(entries->interfaces));
	return 0;
}

static void on_packet(void *arg, const struct dial_packet *packet)
{
	struct remote_call *call = arg;

	if (!packet) {
		call->dialer = NULL;
		fail(call, "its dialer ended without a word");
		return;
	}
	switch (packet->report.type) {
	case DIAL_DEVICE:
		if (add_entry(&call->list, &packet->report) < 0)
			fail(call, "no memory");
		return;
	case DIAL_END:
		end_listing(call);
		return;
	case DIAL_FAILED:
		fail(call, packet->report.why);
		return;
	default:
		fail(call, "its dialer reports what it was not asked for");
	}
}

/* ---- asking ---- */

static void on_limit(void *arg)
{
	struct remotes_question *q = arg;
	struct remote_call *next;

	/* The last one to fail answers the question. */
	for (struct remote_call *c = q->remotes->calls; c; c = next) {
		bool is_last = c->question == q && q->num_waiting == 1;

		next = c->next;
		if (c->question == q)
			fail(c, "it did not answer in time");
		if (is_last)
			return;
	}
}

static void list_one(struct remotes_question *q, struct remote *remote)
{
	const struct dialers_call call = {
		.remote = &remote->config,
		.busid = "",
		.hops = q->asked.hops + 1,
		.limit_ms = limit_ms(q) - DIALER_EARLY_MS,
	};
	int r = -EAGAIN;

	if (remote->is_retired || is_fresh(remote, q) ||
	    !remotes_may_give(q->remotes, remote, &q->asked.peer))
		return;
	if (remote->num_listing < MAX_LISTING)
		r = remotes_call(q, remote, &call, on_packet);
	if (r < 0)
		log_warn("remote %s: its devices are not listed: %s",
			 remote->config.name,
			 r == -EAGAIN ? "it is asked by too many at once"
				      : strerror(-r));
}

int remotes_list(struct remotes *remotes, const struct remotes_asked *asked,
		 remotes_answer_cb *on_answer, void *arg,
		 struct remotes_question **ret_question)
{
	struct remotes_question *q;
	int r = remotes_ask(remotes, asked, on_answer, arg, ret_question);

	if (r < 0)
		return r;
	q = *ret_question;
	q->is_list = true;
	if (asked->hops < REMOTES_MAX_HOPS) {
		r = remotes_set_limit(q, limit_ms(q), on_limit);
		for (struct remote *a = remotes->remotes; a && r == 0;
		     a = a->next)
			list_one(q, a);
	}
	if (q->num_waiting == 0)
		finish(q);
	return 0;
}
