/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a device that another gateway has. A dialer takes it there and reports
 * its descriptors; the rules judge those, and only then the dialer gets one end
 * of a socket and the session the other. The first bytes that the session finds
 * in it are the descriptors that were judged: they are written before anybody
 * else has an end.
 */
#include "gateway/remotes_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/claim.h"
#include "gateway/registry_usb.h"
#include "vchan-transport/log.h"

/* A session waits for 10 s, and each hop has less. */
#define OPEN_LIMIT_MS     8000
#define OPEN_LIMIT_HOP_MS 1000
/* The dialer ends first, with its own words. */
#define DIALER_EARLY_MS 500

static unsigned limit_ms(const struct remotes_question *q)
{
	return OPEN_LIMIT_MS - q->asked.hops * OPEN_LIMIT_HOP_MS;
}

/* ---- the answer ---- */

static void refuse(struct remotes_question *q, enum usbip_status status,
		   const char *why)
{
	struct ipc_answer answer = { .type = IPC_REFUSED, .status = status };
	remotes_answer_cb *on_answer = q->on_answer;
	void *arg = q->arg;

	memcpy(answer.device.busid, q->asked.busid,
	       sizeof(answer.device.busid));
	/* A claim that its session may be about to give back. */
	answer.is_returning = status == USBIP_ST_DEV_BUSY && q->lock_fd < 0;
	(void)snprintf(answer.reason, sizeof(answer.reason), "%s", why);
	remotes_drop(q);
	on_answer(arg, &answer, -1, -1);
}

/* What the session and its peer are told; the log has been told more. */
static void refuse_as(struct remotes_question *q, enum exit_status status)
{
	switch (status) {
	case EXIT_NO_DEVICE:
		refuse(q, USBIP_ST_NODEV,
		       "the gateway that it comes from has "
		       "no such device, or does not give it");
		return;
	case EXIT_NOT_ALLOWED:
		refuse(q, USBIP_ST_NA,
		       "the gateway that has it does not allow it");
		return;
	case EXIT_BUSY:
		refuse(q, USBIP_ST_DEV_BUSY,
		       "the gateway that has it says that it is in use");
		return;
	case EXIT_CANNOT_REACH:
	case EXIT_TIMEOUT:
		refuse(q, USBIP_ST_DEV_ERR,
		       "the gateway that has it cannot be reached");
		return;
	default:
		refuse(q, USBIP_ST_DEV_ERR,
		       "the gateway that has it cannot be used: see the log of "
		       "the one that passes it on");
		return;
	}
}

static void fail(struct remotes_question *q, const struct remote *remote,
		 enum exit_status status, const char *why)
{
	log_warn("remote %s: %s is not opened: %s", remote->config.name,
		 q->asked.busid, why);
	refuse_as(q, status);
}

/* ---- what the dialer reports ---- */

/* As rules see it, and as a client would: what the device itself says. */
static int describe(struct remote_call *call, const struct dial_packet *packet,
		    struct ipc_answer *answer)
{
	const struct dial_report *report = &packet->report;
	struct policy_device *policy = &call->policy;
	struct descriptors d;
	int r = descriptors_parse(&d, packet->descriptors,
				  report->num_descriptor_bytes);

	if (r < 0)
		return r;
	remotes_show(&answer->device, &report->device);
	registry_describe(&answer->device, answer->interfaces, &d);
	answer->next_seqnum = report->next_seqnum;
	answer->num_descriptor_bytes = report->num_descriptor_bytes;
	memcpy(policy->serial, report->serial, sizeof(policy->serial));
	memcpy(policy->remote, call->remote->config.name,
	       sizeof(policy->remote));
	return registry_judge_by(policy, &d);
}

/* The socket, with the descriptors in it, to the dialer: our end, or -errno. */
static int connect_dialer(struct remote_call *call,
			  const struct dial_packet *packet)
{
	const size_t bytes = packet->report.num_descriptor_bytes;
	int fds[2];
	int r = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	if (send(fds[1], packet->descriptors, bytes,
		 MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)bytes)
		r = -EMSGSIZE;
	if (r == 0)
		r = dialers_go(call->dialer, fds[1]);
	(void)close(fds[1]);
	if (r == 0)
		return fds[0];
	(void)close(fds[0]);
	return r;
}

static void hand_out(struct remote_call *call, const struct ipc_answer *answer,
		     int fd)
{
	const struct remotes_options *o = &call->remotes->options;
	struct remotes_question *q = call->question;
	remotes_answer_cb *on_answer = q->on_answer;
	void *arg = q->arg;
	int lock_fd = q->lock_fd;

	/* From here on it is the session's, and ends with that. */
	call->question = NULL;
	q->lock_fd = -1;
	remotes_drop(q);
	on_answer(arg, answer, fd, lock_fd);
	(void)close(fd);
	(void)close(lock_fd);
	o->on_change(o->arg);
}

static void on_taken(struct remote_call *call, const struct dial_packet *packet)
{
	struct remotes_question *q = call->question;
	struct ipc_answer answer = { .type = IPC_OPENED,
				     .kind = IPC_KIND_REMOTE };
	char why[POLICY_SENTENCE_BYTES];
	struct policy_verdict verdict;
	int r;

	memcpy(answer.device.busid, q->asked.busid,
	       sizeof(answer.device.busid));
	r = describe(call, packet, &answer);
	if (r < 0) {
		fail(q, call->remote, EXIT_PROTOCOL,
		     "its descriptors are none");
		return;
	}
	verdict = remotes_judge(q->remotes, &call->policy, &q->asked.peer);
	if (verdict.outcome != POLICY_EXPORTED) {
		policy_verdict_sentence(&verdict, why);
		refuse(q, USBIP_ST_NODEV, why);
		return;
	}
	r = connect_dialer(call, packet);
	if (r < 0)
		fail(q, call->remote, EXIT_FAILED, strerror(-r));
	else
		hand_out(call, &answer, r);
}

static void on_packet(void *arg, const struct dial_packet *packet)
{
	struct remote_call *call = arg;
	struct remotes_question *q = call->question;

	if (!packet)
		call->dialer = NULL;
	if (!q) { /* it carries, and has nothing more to say */
		remotes_end_call(call);
		return;
	}
	if (!packet)
		fail(q, call->remote, EXIT_FAILED,
		     "its dialer ended without a word");
	else if (packet->report.type == DIAL_TAKEN)
		on_taken(call, packet);
	else if (packet->report.type == DIAL_FAILED)
		fail(q, call->remote, (enum exit_status)packet->report.status,
		     packet->report.why);
	else
		fail(q, call->remote, EXIT_FAILED,
		     "its dialer reports what it was not asked for");
}

/* ---- asking ---- */

static void on_limit(void *arg)
{
	struct remotes_question *q = arg;

	log_warn("%s is not opened: its gateway did not answer in time",
		 q->asked.busid);
	refuse_as(q, EXIT_TIMEOUT);
}

/* The gateway that the name names; its bus id there in `there`. */
static struct remote *find(const struct remotes *remotes, const char *busid,
			   char there[static USBIP_BUSID_BYTES])
{
	struct remote *remote = remotes->remotes;
	const char *name;

	if (!remote_name_split(busid, there, &name))
		return NULL;
	while (remote &&
	       (remote->is_retired || strcmp(remote->config.name, name) != 0))
		remote = remote->next;
	return remote;
}

static struct remote_call *call_of(const struct remotes_question *q)
{
	struct remote_call *c = q->remotes->calls;

	while (c->question != q)
		c = c->next;
	return c;
}

static void open_at(struct remotes_question *q, struct remote *remote,
		    const char *there)
{
	const struct dialers_call call = {
		.remote = &remote->config,
		.busid = there,
		.hops = q->asked.hops + 1,
		.limit_ms = limit_ms(q) - DIALER_EARLY_MS,
	};
	int r = claim_take(q->remotes->options.config->runtime_dir,
			   q->asked.busid, &q->lock_fd);

	if (r == -EBUSY) {
		refuse(q, USBIP_ST_DEV_BUSY, "a session has it already");
		return;
	}
	if (r == 0)
		r = remotes_set_limit(q, limit_ms(q), on_limit);
	if (r == 0)
		r = remotes_call(q, remote, &call, on_packet);
	if (r < 0) {
		fail(q, remote, EXIT_FAILED,
		     r == -EAGAIN ? "too many devices of other gateways are in "
				    "use"
				  : strerror(-r));
		return;
	}
	(void)snprintf(call_of(q)->policy.busid, USBIP_BUSID_BYTES, "%s",
		       there);
}

int remotes_open(struct remotes *remotes, const struct remotes_asked *asked,
		 remotes_answer_cb *on_answer, void *arg,
		 struct remotes_question **ret_question)
{
	char there[USBIP_BUSID_BYTES];
	struct remote *remote = find(remotes, asked->busid, there);
	struct remotes_question *q;
	int r = remotes_ask(remotes, asked, on_answer, arg, ret_question);

	if (r < 0)
		return r;
	q = *ret_question;
	if (!remote)
		refuse(q, USBIP_ST_NODEV, "there is no such gateway");
	else if (!remotes_may_give(remotes, remote, &asked->peer))
		refuse(q, USBIP_ST_NODEV,
		       "no export rule gives this peer anything of that "
		       "gateway");
	else if (asked->hops >= REMOTES_MAX_HOPS)
		refuse(q, USBIP_ST_NODEV, "it is too many gateways away");
	else
		open_at(q, remote, there);
	return 0;
}
