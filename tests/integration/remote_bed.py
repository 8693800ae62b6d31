# SPDX-License-Identifier: Apache-2.0
"""Gateways that pass devices of others on: how one is configured, which dialers
it has, and a gateway of the test's own with a device that says what it is told
to.
"""

import os
import struct

from fake_gateway import FakeGateway, describe, op, recv_exactly, reply_submit
from harness import is_alive
from usbip_client import (CMD_SUBMIT, HEADER, IN, ISO, REP_IMPORT, ST_NODEV,
                          SUBMIT)

GIVE_ALL = 'export { remote = "*" }\n'

CONFIGURATION = bytes((9, 2, 39, 0, 1, 1, 0, 0x80, 50,
                       9, 4, 0, 0, 3, 0xff, 0, 0, 0,
                       7, 5, 0x81, 2, 0, 2, 0,
                       7, 5, 0x02, 2, 0, 2, 0,
                       7, 5, 0x83, 1, 0, 1, 1))


def device_descriptor(**changes):
    """Of what fake_gateway.describe() describes."""
    values = {"usb": 0x200, "class": 0, "subclass": 0, "protocol": 0,
              "packet": 64, "vendor": 0x1234, "product": 0x5678,
              "release": 0x100, "manufacturer": 0, "name": 0, "serial": 0,
              "configurations": 1}
    values.update(changes)
    return bytes((18, 1)) + struct.pack("<HBBBBHHHBBBB", *values.values())


def string(text):
    data = text.encode("utf-16-le")
    return bytes((2 + len(data), 3)) + data


def remote(name, address, more=""):
    return f'remote "{name}" {{ address = "{address}" {more} }}\n'


def pass_on(bench, *gateways, config=GIVE_ALL):
    """A gateway that passes on what these have, named a, b, ..."""
    for name, gateway in zip("abcd", gateways):
        address = getattr(gateway, "address", f"tcp:127.0.0.1:{gateway.port}")
        config += remote(name, address)
    return bench.gateway(config)


def dialers(gateway):
    """Process ids of those that ask this gateway, or carry a device of it."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or not is_alive(int(name)):
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        address = getattr(gateway, "address", str(gateway.port))
        if len(words) > 7 and words[1] == b"--dial" and \
                address.encode() in words[7]:
            found.append(int(name))
    return found


class Command:
    """A CMD_SUBMIT, or an unlink, as it came over a connection."""

    def __init__(self, connection):
        head = recv_exactly(connection, 48)
        (self.command, self.seqnum, self.devid, self.direction,
         self.endpoint) = HEADER.unpack(head[:20])
        self.data, self.packets = b"", b""
        self.setup, self.length, self.num_packets = bytes(8), 0, 0
        if self.command != CMD_SUBMIT:
            return
        (self.flags, self.length, _, self.num_packets, self.interval,
         self.setup) = SUBMIT.unpack(head[20:])
        if self.direction != IN:
            self.data = recv_exactly(connection, self.length)
        self.packets = recv_exactly(connection, self.num_packets * ISO.size)


class FakeDevice(FakeGateway):
    """A gateway with one device, "1-1". What the dialer asks of it is answered
    from `descriptors` (by wValue), what comes later by on_command."""

    def __init__(self, record=None, descriptors=None):
        self.descriptors = {0x100: device_descriptor(), 0x200: CONFIGURATION}
        self.descriptors.update(descriptors or {})
        self.commands = []
        self.on_command = lambda connection, command: connection.sendall(
            reply_submit(command.seqnum, bytes(command.length)
                         if command.direction == IN else b"",
                         actual_length=command.length))
        super().__init__({"1-1": record or describe("1-1")})

    def answer_import(self, connection, busid):
        if busid not in self.devices:
            connection.sendall(op(REP_IMPORT, ST_NODEV))
            return
        connection.sendall(op(REP_IMPORT) + self.devices[busid])
        while True:
            command = Command(connection)
            value = struct.unpack("<H", command.setup[2:4])[0]
            if command.setup[:2] != b"\x80\x06" or command.endpoint:
                self.commands.append(command)
                self.on_command(connection, command)
                continue
            data = self.descriptors.get(value, b"")[:command.length]
            status = 0 if value in self.descriptors else -32
            connection.sendall(reply_submit(command.seqnum, data, status))
