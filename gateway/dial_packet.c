/* SPDX-License-Identifier: Apache-2.0 */
/* What a dialer and its manager say to each other; see dial.h. */
#include "gateway/dial.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "vchan-transport/fdpass.h"

int dial_send(int sock, const struct dial_packet *packet)
{
	size_t bytes = offsetof(struct dial_packet, descriptors) +
		       packet->report.num_descriptor_bytes;

	return send(sock, packet, bytes, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int dial_go(int sock, int data_fd)
{
	return fdpass_send(sock, "", 1, &data_fd, 1);
}

static bool is_text(const char *text, size_t cap)
{
	return memchr(text, '\0', cap) != NULL;
}

/* What is in the texts is for others to judge; that they end is ours. */
static bool is_report(const struct dial_report *r)
{
	if (!is_text(r->device.busid, sizeof(r->device.busid)) ||
	    !is_text(r->device.path, sizeof(r->device.path)) ||
	    !is_text(r->serial, sizeof(r->serial)) ||
	    !is_text(r->why, sizeof(r->why)) ||
	    r->device.num_interfaces > USBIP_MAX_INTERFACES)
		return false;
	switch (r->type) {
	case DIAL_DEVICE:
	case DIAL_END:
		return r->num_descriptor_bytes == 0;
	case DIAL_TAKEN:
		return r->num_descriptor_bytes >= URB_DEVICE_DESCRIPTOR_BYTES;
	case DIAL_FAILED:
		return r->num_descriptor_bytes == 0 && r->status != EXIT_OK &&
		       r->status <= EXIT_NOT_TRUSTED;
	default:
		return false;
	}
}

int dial_receive(int sock, struct dial_packet *ret_packet)
{
	const size_t head = offsetof(struct dial_packet, descriptors);
	ssize_t n = recv(sock, ret_packet, sizeof(*ret_packet),
			 MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0)
		return -errno;
	if (n == 0)
		return 0;
	if ((size_t)n < head || (size_t)n > sizeof(*ret_packet) ||
	    (size_t)n - head != ret_packet->report.num_descriptor_bytes ||
	    !is_report(&ret_packet->report))
		return -EBADMSG;
	return 1;
}
