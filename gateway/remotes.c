/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/remotes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/remotes_private.h"
#include "vchan-transport/loop.h"

/* ---- rules ---- */

bool remotes_may_give(const struct remotes *remotes,
		      const struct remote *remote,
		      const struct policy_peer *peer)
{
	const struct config *config = remotes->options.config;

	for (size_t i = 0; i < config->num_rules; i++) {
		const struct policy_rule *rule = &config->rules[i];

		if (!rule->is_deny && policy_is_given_to(&rule->to, peer) &&
		    (strcmp(rule->remote, "*") == 0 ||
		     strcmp(rule->remote, remote->config.name) == 0))
			return true;
	}
	return false;
}

struct policy_verdict remotes_judge(const struct remotes *remotes,
				    const struct policy_device *device,
				    const struct policy_peer *peer)
{
	const struct config *config = remotes->options.config;

	return policy_judge(config->rules, config->num_rules, device, peer);
}

bool remotes_is_given(const struct remotes *remotes, const char *busid,
		      const struct policy_peer *peer)
{
	char there[USBIP_BUSID_BYTES];
	const char *name;

	if (!remote_name_split(busid, there, &name))
		return true;
	for (const struct remote_call *c = remotes->calls; c; c = c->next) {
		if (c->question || strcmp(c->policy.busid, there) != 0 ||
		    strcmp(c->policy.remote, name) != 0)
			continue;
		return !c->remote->is_retired &&
		       remotes_judge(remotes, &c->policy, peer).outcome ==
			       POLICY_EXPORTED;
	}
	return true;
}

void remotes_show(struct usbip_device *device,
		  const struct usbip_device *reported)
{
	char busid[USBIP_BUSID_BYTES];

	memcpy(busid, device->busid, sizeof(busid));
	*device = *reported;
	memcpy(device->busid, busid, sizeof(busid));
	memset(device->path, 0, sizeof(device->path));
	(void)snprintf(device->path, sizeof(device->path), "/xusbip/%s", busid);
}

/* ---- calls ---- */

void remotes_free_list(struct remotes_list *list)
{
	free(list->entries);
	*list = (struct remotes_list){ 0 };
}

static void free_remote(struct remote *remote)
{
	remotes_free_list(&remote->list);
	free(remote);
}

static bool is_called(const struct remotes *remotes,
		      const struct remote *remote)
{
	for (const struct remote_call *c = remotes->calls; c; c = c->next) {
		if (c->remote == remote)
			return true;
	}
	return false;
}

/* Frees those that the configuration has no more and that nobody asks. */
static void sweep_remotes(struct remotes *remotes)
{
	struct remote **at = &remotes->remotes;

	while (*at) {
		struct remote *remote = *at;

		if (!remote->is_retired || is_called(remotes, remote)) {
			at = &remote->next;
			continue;
		}
		*at = remote->next;
		free_remote(remote);
	}
}

int remotes_call(struct remotes_question *q, struct remote *remote,
		 const struct dialers_call *call, dialers_cb *on_packet)
{
	struct remotes *remotes = q->remotes;
	struct remote_call *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	r = dialers_start(remotes->dialers, call, on_packet, c, &c->dialer);
	if (r < 0) {
		free(c);
		return r;
	}
	c->remotes = remotes;
	c->remote = remote;
	c->question = q;
	q->num_waiting++;
	remote->num_listing += q->is_list;
	c->next = remotes->calls;
	remotes->calls = c;
	return 0;
}

void remotes_end_call(struct remote_call *c)
{
	struct remotes *remotes = c->remotes;
	struct remote_call **at = &remotes->calls;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	if (c->question) {
		c->question->num_waiting--;
		c->remote->num_listing -= c->question->is_list;
	}
	dialers_stop(c->dialer);
	remotes_free_list(&c->list);
	free(c);
	sweep_remotes(remotes);
}

/* ---- questions ---- */

int remotes_ask(struct remotes *remotes, const struct remotes_asked *asked,
		remotes_answer_cb *on_answer, void *arg,
		struct remotes_question **ret_question)
{
	struct remotes_question *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	*q = (struct remotes_question){
		.next = remotes->questions,
		.remotes = remotes,
		.asked = *asked,
		.on_answer = on_answer,
		.arg = arg,
		.asked_ms = loop_now_ms(remotes->options.loop),
		.lock_fd = -1,
	};
	remotes->questions = q;
	*ret_question = q;
	return 0;
}

int remotes_set_limit(struct remotes_question *q, unsigned limit_ms,
		      void (*on_limit)(void *arg))
{
	return loop_timer_start(q->remotes->options.loop, limit_ms, 0, on_limit,
				q, &q->limit);
}

static void release_question(struct remotes_question *q)
{
	struct remote_call *next;

	for (struct remote_call *c = q->remotes->calls; c; c = next) {
		next = c->next;
		if (c->question == q)
			remotes_end_call(c);
	}
	loop_timer_stop(q->limit);
	if (q->lock_fd >= 0)
		(void)close(q->lock_fd);
	free(q);
}

void remotes_drop(struct remotes_question *q)
{
	struct remotes_question **at = &q->remotes->questions;

	while (*at != q)
		at = &(*at)->next;
	*at = q->next;
	release_question(q);
}

void remotes_cancel(struct remotes_question *question)
{
	if (question)
		remotes_drop(question);
}

/* ---- life ---- */

static bool is_same(const struct config_remote *a,
		    const struct config_remote *b)
{
	return strcmp(a->name, b->name) == 0 &&
	       a->address.kind == b->address.kind &&
	       a->address.port == b->address.port &&
	       a->address.cid == b->address.cid &&
	       strcmp(a->address.host, b->address.host) == 0 &&
	       strcmp(a->tls_dir, b->tls_dir) == 0 &&
	       a->has_pin == b->has_pin &&
	       memcmp(a->pin, b->pin, sizeof(a->pin)) == 0;
}

static struct remote *find_same(const struct remotes *remotes,
				const struct config_remote *config)
{
	struct remote *remote = remotes->remotes;

	while (remote && !is_same(&remote->config, config))
		remote = remote->next;
	return remote;
}

void remotes_set_config(struct remotes *remotes, const struct config *config)
{
	remotes->options.config = config;
	for (struct remote *r = remotes->remotes; r; r = r->next)
		r->is_retired = true;
	for (size_t i = 0; i < config->num_remotes; i++) {
		struct remote *r = find_same(remotes, &config->remotes[i]);

		if (!r) {
			r = calloc(1, sizeof(*r));
			if (!r)
				continue;
			r->config = config->remotes[i];
			r->next = remotes->remotes;
			remotes->remotes = r;
		}
		r->is_retired = false;
	}
	sweep_remotes(remotes);
}

int remotes_new(const struct remotes_options *options,
		struct remotes **ret_remotes)
{
	struct remotes *remotes = calloc(1, sizeof(*remotes));
	int r;

	if (!remotes)
		return -ENOMEM;
	remotes->options = *options;
	r = dialers_new(options->loop, options->is_debug, &remotes->dialers);
	if (r < 0) {
		free(remotes);
		return r;
	}
	remotes_set_config(remotes, options->config);
	*ret_remotes = remotes;
	return 0;
}

void remotes_free(struct remotes *remotes)
{
	if (!remotes)
		return;
	while (remotes->questions) {
		struct remotes_question *q = remotes->questions;

		remotes->questions = q->next;
		release_question(q);
	}
	while (remotes->calls) {
		struct remote_call *c = remotes->calls;

		remotes->calls = c->next;
		free(c); /* its dialer is only forgotten, below */
	}
	dialers_free(remotes->dialers);
	while (remotes->remotes) {
		struct remote *r = remotes->remotes;

		remotes->remotes = r->next;
		free_remote(r);
	}
	free(remotes);
}
