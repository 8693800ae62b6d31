/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.h - URBs between one channel and one device: reads and checks commands,
 * lends each URB to the device, answers each exactly once.
 *
 * Whatever an URB meets - no memory, a stall, a bad endpoint - is that URB's
 * result; only a broken rule of the protocol, or the end of either side, ends
 * the conversation.  A peer that does not read its answers is not read from.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include <stddef.h>
#include <stdint.h>

struct channel;
struct engine;
struct loop;
struct usb_device;

enum engine_end {
	ENGINE_RUNNING,
	ENGINE_PEER_ENDED,  /* in order: detached */
	ENGINE_PEER_LOST,   /* its process, host or network is gone */
	ENGINE_BAD_CHANNEL, /* it broke the channel's own rules */
	ENGINE_VIOLATION,   /* it broke the protocol */
	ENGINE_DEVICE_GONE, /* unplugged */
	ENGINE_STOPPED,     /* engine_stop */
	ENGINE_STUCK,       /* the device kept URBs beyond the limit */
};

struct engine_options {
	struct loop *loop; /* borrowed, like the next two */
	struct channel *channel;
	struct usb_device *device;
	uint32_t devid;
	size_t budget_bytes; /* URB data in flight */
	const char *who;     /* for the log: peer and device */
};

int engine_new(const struct engine_options *options,
	       struct engine **ret_engine);

/* Begins an end of our own: answers what is done, cancels the rest. */
void engine_stop(struct engine *engine);

/*
 * How it ended, once loop_run has returned: the engine stops its loop when the
 * conversation is over and the device has given every URB back (but for
 * ENGINE_STUCK: then nothing of it may be freed, and the process should exit).
 */
enum engine_end engine_end(const struct engine *engine);
const char *engine_end_sentence(const struct engine *engine);

void engine_free(struct engine *engine);

#endif
