#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs in a guest: sends one request to a USB device and prints its answers.

    bulk.py BUSID REQUEST NUM_ANSWERS

REQUEST (hexadecimal) goes to the device's first bulk OUT endpoint; each answer,
a line in hexadecimal, comes from its first bulk IN endpoint. Neither libusb nor
a driver is needed, only usbfs.
"""

import ctypes
import fcntl
import struct
import sys

USBDEVFS_BULK = 0xc0185502
USBDEVFS_CLAIMINTERFACE = 0x8004550f
DESCRIPTOR_INTERFACE = 4
DESCRIPTOR_ENDPOINT = 5
BULK = 2
ANSWER_BYTES = 4096
TIMEOUT_MS = 5000


def read_number(busid, name):
    with open(f'/sys/bus/usb/devices/{busid}/{name}', encoding='ascii') as f:
        return int(f.read())


def find_endpoints(busid):
    """(interface, OUT endpoint, IN endpoint) of the first with both."""
    with open(f'/sys/bus/usb/devices/{busid}/descriptors', 'rb') as f:
        data = f.read()
    found = {}
    while data:
        if data[1] == DESCRIPTOR_INTERFACE:
            interface, found = data[2], {}
        if data[1] == DESCRIPTOR_ENDPOINT and data[3] & 3 == BULK:
            found.setdefault(data[2] & 0x80, data[2])
        if len(found) == 2:
            return interface, found[0], found[0x80]
        data = data[data[0]:]
    raise SystemExit(f'{busid} has no interface with bulk IN and OUT')


def transfer(device, endpoint, memory):
    """The number of bytes that went to or came from `memory`."""
    request = bytearray(struct.pack('IIIxxxxP', endpoint, len(memory),
                                    TIMEOUT_MS, ctypes.addressof(memory)))
    return fcntl.ioctl(device, USBDEVFS_BULK, request)


def main(busid, request, num_answers):
    interface, out_endpoint, in_endpoint = find_endpoints(busid)
    path = '/dev/bus/usb/%03d/%03d' % (read_number(busid, 'busnum'),
                                       read_number(busid, 'devnum'))
    with open(path, 'r+b', buffering=0) as device:
        fcntl.ioctl(device, USBDEVFS_CLAIMINTERFACE,
                    struct.pack('I', interface))
        data = bytes.fromhex(request)
        # Exactly as long: a NUL at the end would be sent as well.
        transfer(device, out_endpoint,
                 (ctypes.c_char * len(data)).from_buffer_copy(data))
        answer = ctypes.create_string_buffer(ANSWER_BYTES)
        for _ in range(int(num_answers)):
            length = transfer(device, in_endpoint, answer)
            print(answer.raw[:length].hex())


main(*sys.argv[1:])
