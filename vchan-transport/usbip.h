/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usbip.h - the USB/IP 1.1.1 wire format: numbers, and decoders and encoders
 * between bytes and structs in host order.
 *
 * Pure: no descriptor, clock, allocation or log.  A decoder reads each byte of
 * its input once, so it may be pointed at memory that a peer can change, and
 * what it returns is a private copy.  It does not judge: see urb_check.h.
 *
 * Source: Documentation/usb/usbip_protocol.rst, drivers/usb/usbip and
 * tools/usb/usbip of Linux; where they differ, what the code does.
 */
#ifndef USBIP_H
#define USBIP_H

#include <stddef.h>
#include <stdint.h>

#define USBIP_VERSION      0x0111
#define USBIP_DEFAULT_PORT 3240

/* Sizes on the wire, in bytes. */
#define USBIP_OP_BYTES        8   /* version, code, status */
#define USBIP_BUSID_BYTES     32  /* NUL-padded; 31 characters */
#define USBIP_PATH_BYTES      256 /* NUL-padded */
#define USBIP_DEVICE_BYTES    312
#define USBIP_INTERFACE_BYTES 4
#define USBIP_HEADER_BYTES    48
#define USBIP_ISO_BYTES       16

#define USBIP_MAX_ISO_PACKETS 1024
/* OP_REP_DEVLIST announces its length; more than this is refused. */
#define USBIP_MAX_DEVICES    1024
#define USBIP_MAX_INTERFACES 32

enum usbip_op_code {
	USBIP_REQ_IMPORT = 0x8003,
	USBIP_REP_IMPORT = 0x0003,
	USBIP_REQ_DEVLIST = 0x8005,
	USBIP_REP_DEVLIST = 0x0005,
};

/* Status in an operation's reply. */
enum usbip_status {
	USBIP_ST_OK = 0,
	USBIP_ST_NA = 1,       /* refused */
	USBIP_ST_DEV_BUSY = 2, /* somebody else has it */
	USBIP_ST_DEV_ERR = 3,  /* the device does not work */
	USBIP_ST_NODEV = 4,    /* no such device */
	USBIP_ST_ERROR = 5,
};

/* enum usb_device_speed of Linux; 4 is wireless and never used here. */
enum usbip_speed {
	USBIP_SPEED_UNKNOWN = 0,
	USBIP_SPEED_LOW = 1,
	USBIP_SPEED_FULL = 2,
	USBIP_SPEED_HIGH = 3,
	USBIP_SPEED_SUPER = 5,
	USBIP_SPEED_SUPER_PLUS = 6,
};

enum usbip_command {
	USBIP_CMD_SUBMIT = 1,
	USBIP_CMD_UNLINK = 2,
	USBIP_RET_SUBMIT = 3,
	USBIP_RET_UNLINK = 4,
};

enum usbip_direction {
	USBIP_DIR_OUT = 0,
	USBIP_DIR_IN = 1,
};

/* transfer_flags of Linux that mean something to a server. */
#define USBIP_URB_SHORT_NOT_OK 0x0001
#define USBIP_URB_ISO_ASAP     0x0002
#define USBIP_URB_ZERO_PACKET  0x0040

/* What a Windows client writes where Linux writes 0: not isochronous. */
#define USBIP_NOT_ISO 0xffffffffu

struct usbip_op {
	uint16_t version;
	uint16_t code;
	uint32_t status;
};

/* A device as OP_REP_DEVLIST and OP_REP_IMPORT describe it. */
struct usbip_device {
	char path[USBIP_PATH_BYTES];   /* always NUL-terminated here */
	char busid[USBIP_BUSID_BYTES]; /* always NUL-terminated here */
	uint32_t busnum;
	uint32_t devnum;
	uint32_t speed; /* enum usbip_speed */
	uint16_t vendor;
	uint16_t product;
	uint16_t release; /* bcdDevice */
	uint8_t class;
	uint8_t subclass;
	uint8_t protocol;
	uint8_t configuration; /* bConfigurationValue */
	uint8_t num_configurations;
	uint8_t num_interfaces;
};

struct usbip_interface {
	uint8_t class;
	uint8_t subclass;
	uint8_t protocol;
};

struct usbip_submit {
	uint32_t flags;
	uint32_t length; /* transfer_buffer_length, bytes */
	uint32_t start_frame;
	uint32_t num_packets;
	uint32_t interval;
	uint8_t setup[8];
};

struct usbip_ret_submit {
	int32_t status; /* 0 or a negative errno of Linux */
	uint32_t actual_length;
	uint32_t start_frame;
	uint32_t num_packets;
	uint32_t error_count;
};

struct usbip_header {
	uint32_t command; /* enum usbip_command: chooses the member below */
	uint32_t seqnum;
	uint32_t devid; /* busnum << 16 | devnum; 0 in replies */
	uint32_t direction;
	uint32_t endpoint; /* number, without the direction bit */
	union {
		struct usbip_submit submit;
		struct usbip_ret_submit ret_submit;
		uint32_t unlink_seqnum; /* CMD_UNLINK: its target */
		int32_t unlink_status;  /* RET_UNLINK */
	};
};

struct usbip_iso_packet {
	uint32_t offset;
	uint32_t length;
	uint32_t actual_length;
	int32_t status;
};

static inline uint32_t usbip_devid(const struct usbip_device *d)
{
	return d->busnum << 16 | (d->devnum & 0xffff);
}

void usbip_op_decode(struct usbip_op *ret_op, const uint8_t in[USBIP_OP_BYTES]);
void usbip_op_encode(uint8_t out[USBIP_OP_BYTES], uint16_t code,
		     enum usbip_status status);

/* A bus id from the wire; the result always ends with a NUL. */
void usbip_busid_decode(char ret_busid[USBIP_BUSID_BYTES],
			const uint8_t in[USBIP_BUSID_BYTES]);
void usbip_busid_encode(uint8_t out[USBIP_BUSID_BYTES], const char *busid);

void usbip_device_decode(struct usbip_device *ret_device,
			 const uint8_t in[USBIP_DEVICE_BYTES]);
void usbip_device_encode(uint8_t out[USBIP_DEVICE_BYTES],
			 const struct usbip_device *device);

void usbip_interface_decode(struct usbip_interface *ret_interface,
			    const uint8_t in[USBIP_INTERFACE_BYTES]);
void usbip_interface_encode(uint8_t out[USBIP_INTERFACE_BYTES],
			    const struct usbip_interface *interface);

/*
 * An unknown command decodes its base fields and leaves the union zero.
 * Encoding writes all 48 bytes; what a command does not use is 0.
 */
void usbip_header_decode(struct usbip_header *ret_header,
			 const uint8_t in[USBIP_HEADER_BYTES]);
void usbip_header_encode(uint8_t out[USBIP_HEADER_BYTES],
			 const struct usbip_header *header);

void usbip_iso_decode(struct usbip_iso_packet *ret_packet,
		      const uint8_t in[USBIP_ISO_BYTES]);
void usbip_iso_encode(uint8_t out[USBIP_ISO_BYTES],
		      const struct usbip_iso_packet *packet);

/* "no such device" for USBIP_ST_NODEV, …; never NULL. */
const char *usbip_status_sentence(uint32_t status);

#endif
