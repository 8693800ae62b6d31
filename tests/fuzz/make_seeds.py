#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of the fuzz targets next to it, corpus_X for fuzz_X.

A seed is an exchange that a person can read here; the files are what the
targets take. Run it after a change: files that it does not know (old
findings) stay as they are.
"""
import os
import struct

DEVID = 0x00010002
OUT, IN = 0, 1
NOT_ISO = 0xffffffff
HERE = os.path.dirname(os.path.abspath(__file__))


def base(command, seqnum, devid=DEVID, direction=OUT, endpoint=0):
    return struct.pack(">5I", command, seqnum, devid, direction, endpoint)


def submit(seqnum, direction, endpoint, length, packets=0, setup=bytes(8),
           flags=0, devid=DEVID):
    fields = struct.pack(">5I", flags, length, 0, packets, 0)
    return base(1, seqnum, devid, direction, endpoint) + fields + setup


def unlink(seqnum, target):
    return base(2, seqnum) + struct.pack(">I", target) + bytes(24)


def ret_submit(seqnum, actual, packets=0, status=0, errors=0):
    fields = struct.pack(">i4I", status, actual, 0, packets, errors)
    return base(3, seqnum, 0) + fields + bytes(8)


def ret_unlink(seqnum, status):
    return base(4, seqnum, 0) + struct.pack(">i", status) + bytes(24)


def packet(offset, length, actual=0, status=0):
    return struct.pack(">3Ii", offset, length, actual, status)


GET_DEVICE = bytes([0x80, 6, 0, 1, 0, 0, 18, 0])
ISO_IN = submit(7, IN, 3, 392, 2) + packet(0, 196) + packet(196, 196)

COMMAND = {
    "control_in": submit(1, IN, 0, 18, setup=GET_DEVICE),
    "control_in_said_to_be_out":
        submit(1, OUT, 0, 2, setup=GET_DEVICE) + b"ab",
    "bulk_out": submit(1, OUT, 2, 31, flags=0x40040) + b"USBC" + bytes(27),
    "bulk_in_of_windows": submit(1, IN, 1, 512, NOT_ISO),
    "iso_in": ISO_IN,
    "iso_out": submit(1, OUT, 3, 16, 2) + bytes(16) + packet(0, 8)
        + packet(8, 8),
    "iso_without_packets": submit(1, IN, 3, 0, 0),
    "unlink": submit(1, IN, 1, 64) + unlink(2, 1),
    "seqnum_wraps": submit(0xffffffff, IN, 1, 64) + submit(0, IN, 1, 64),
    "seqnum_twice": submit(5, IN, 1, 64) + submit(5, IN, 1, 64),
    "endpoint_16": submit(1, IN, 16, 64),
    "endpoint_largest": submit(1, IN, 0xffffffff, 64),
    "direction_2": submit(1, 2, 1, 64),
    "another_device": submit(1, IN, 1, 64, devid=DEVID + 1),
    "length_at_limit": submit(1, IN, 1, 16 << 20),
    "length_beyond_limit": submit(1, IN, 1, (16 << 20) + 1),
    "length_negative": submit(1, OUT, 1, 0x80000000),
    "packets_1025": submit(1, IN, 3, 0, 1025),
    "packets_negative": submit(1, IN, 3, 0, 0x80000000),
    "packet_behind_buffer": submit(1, IN, 3, 392, 1) + packet(400, 8),
    "packet_wraps": submit(1, IN, 3, 392, 1) + packet(0xfffffff0, 32),
    "packets_sum_wraps":
        submit(1, IN, 3, 1 << 24, 4) + packet(0, 1 << 24) * 4,
    "reply": ret_submit(1, 0),
}

REPLY = {
    "bulk_in": submit(1, IN, 1, 8) + ret_submit(1, 8) + bytes(8),
    "bulk_in_short": submit(1, IN, 1, 8) + ret_submit(1, 3) + bytes(3),
    "bulk_in_stalled": submit(1, IN, 1, 8) + ret_submit(1, 0, status=-32),
    "bulk_out": submit(1, OUT, 2, 31) + ret_submit(1, 31),
    "answered_as_windows_does":
        submit(1, OUT, 2, 0) + ret_submit(1, 0, NOT_ISO),
    "iso_in": ISO_IN + ret_submit(7, 150, 2) + bytes(150)
        + packet(0, 196, 100) + packet(196, 196, 50),
    "iso_in_failed": ISO_IN + ret_submit(7, 0, 2, errors=2)
        + packet(0, 196, 0, -18) + packet(196, 196, 0, -18),
    "unlinked": submit(1, IN, 1, 8) + unlink(2, 1) + ret_unlink(2, -104),
    "unlinked_too_late": submit(1, OUT, 1, 8) + unlink(2, 1)
        + ret_submit(1, 8) + ret_unlink(2, 0),
    "unlinked_then_answered": submit(1, OUT, 1, 8) + unlink(2, 1)
        + ret_unlink(2, -104) + ret_submit(1, 8),
    "unlink_of_an_unlink": submit(1, OUT, 1, 8) + unlink(2, 1) + unlink(3, 2)
        + ret_unlink(3, 0) + ret_unlink(2, 0),
    "unlink_of_nothing": unlink(2, 1) + ret_unlink(2, 0),
    "answered_twice": submit(1, OUT, 1, 8) + ret_submit(1, 8) * 2,
    "answered_unasked": ret_submit(1, 0) + ret_unlink(2, 0),
    "unlink_answered_as_submit": unlink(2, 1) + ret_submit(2, 0),
    "status_positive": submit(1, OUT, 1, 8) + ret_submit(1, 8, status=1),
    # Linux believed these three: CVE-2016-3955 and the two of 2026.
    "attack_more_data_than_asked":
        submit(1, IN, 1, 8) + ret_submit(1, 64) + bytes(64),
    "attack_more_packets_than_submitted": ISO_IN + ret_submit(7, 0, 3)
        + packet(0, 196) + packet(196, 196) + packet(392, 196),
    "attack_packet_offset_400_of_392": ISO_IN + ret_submit(7, 2, 2) + bytes(2)
        + packet(0, 196, 1) + packet(400, 196, 1),
    "attack_packet_sum_wraps": ISO_IN + ret_submit(7, 0, 2)
        + packet(0, 196, 0x80000000) + packet(196, 196, 0x80000000),
    "attack_unknown_command": base(0x7fffffff, 1) + bytes(28),
}


def op(code, status=0, version=0x0111):
    return struct.pack(">HHI", version, code, status)


def field(text, size):
    return text.encode().ljust(size, b"\0")


DEVICE = (field("/sys/devices/pci0000:00/usb1/1-1", 256) + field("1-1", 32)
          + struct.pack(">3I3H6B", 1, 2, 5, 0x0951, 0x1666, 0x0110,
                        0, 0, 0, 1, 1, 1))

OP = {
    "req_devlist": op(0x8005),
    "req_import": op(0x8003) + field("1-1", 32),
    "req_import_without_nul": op(0x8003) + b"x" * 32,
    "rep_import_refused": op(0x0003, 4),
    "rep_import": op(0x0003) + DEVICE,
    "rep_devlist":
        op(0x0005) + struct.pack(">I", 1) + DEVICE + bytes([8, 6, 0x50, 0]),
    "device": DEVICE,
    "device_without_nul": b"\xa5" * 312,
    "header": submit(1, IN, 1, 64),
    "header_reply": ret_submit(1, 64, 1, -32, 1),
}


def device(num_configs=1):
    return bytes([18, 1, 0, 3, 0, 0, 0, 9, 0x51, 9, 0x66, 0x16, 0, 1,
                  1, 2, 3, num_configs])


def config(value, body, total=None):
    total = 9 + len(body) if total is None else total
    return (bytes([9, 2]) + struct.pack("<H", total)
            + bytes([1, value, 0, 0x80, 50]) + body)


def interface(number, alternate=0, num_endpoints=0, usb_class=8):
    return bytes([9, 4, number, alternate, num_endpoints, usb_class, 6, 80, 0])


def endpoint(address, attributes=2, max_packet=512, interval=0):
    return (bytes([7, 5, address, attributes])
            + struct.pack("<H", max_packet) + bytes([interval]))


STICK = interface(0, 0, 2) + endpoint(0x81) + endpoint(0x02)

DESCRIPTORS = {
    "stick": device() + config(1, STICK),
    "alternates": device() + config(
        1, interface(0) + interface(0, 1, 1) + endpoint(0x81, 5, 0x1400, 1)),
    "two_configurations": device(2) + config(1, STICK) + config(2, STICK),
    "many_configurations": device(255) + config(1, b"") * 40,
    "device_only": device(1),
    "number_255": device() + config(1, interface(255, 0, 1) + endpoint(0x81)),
    "total_too_much": device() + config(1, STICK, 0xffff),
    "total_too_little": device() + config(1, STICK, 8),
    "length_0": device() + config(1, bytes([0, 4]) + STICK),
    "length_beyond_end": device() + config(1, interface(0) + bytes([255, 5])),
    # Both crashed libusb in 2026.
    "attack_endpoints_missing":
        device() + config(1, interface(0, 0, 30) + bytes([2, 0x0b])),
    "attack_association_cut": device() + config(1, bytes([8])),
}

EPOCH = b"0123456789abcdef "

HANDSHAKE = {
    "ask": EPOCH + b"ask 16384",
    "up": EPOCH + b"up",
    "open": EPOCH + b"open",
    "closed": EPOCH + b"closed 4 the rules forbid it",
    "hold": EPOCH + b"hold",
    "attach": EPOCH + b"attach 1-1.2",
    "attached": EPOCH + b"attached 7",
    "failed": EPOCH + b"failed 6 vhci_hcd is not loaded",
    "number": b"63",
    "epoch_0": b"0" * 16 + b" up",
    "closed_without_a_reason": EPOCH + b"closed 1",
    "ask_beyond_limit": EPOCH + b"ask 4294967296",
    "ask_not_as_we_write_it": EPOCH + b"ask 016384",
    "attach_path": EPOCH + b"attach ../../../../5/data",
    "escape": EPOCH + b"closed 1 \x1b[2J",
}


def write(name, seeds):
    folder = os.path.join(HERE, "corpus_" + name)
    os.makedirs(folder, exist_ok=True)
    for title, seed in seeds.items():
        with open(os.path.join(folder, title), "wb") as out:
            out.write(seed)


def main():
    write("command", COMMAND)
    write("reply", REPLY)
    write("op", OP)
    write("descriptors", DESCRIPTORS)
    write("handshake", HANDSHAKE)


if __name__ == "__main__":
    main()
