# SPDX-License-Identifier: Apache-2.0
"""A gateway on a TCP port, in threads of the test: honest by default, and able
to send whatever bytes a hostile one would.

    gateway = FakeGateway({"1-1": describe("1-1")})
    gateway.on_import = lambda connection, busid: connection.sendall(b"junk")

Each connection of an import is in `connections`, so a test can go on talking on
it as the device; the answer to one URB is reply_submit().
"""

import socket
import struct
import threading

from usbip_client import (DEVICE, REP_DEVLIST, REP_IMPORT, REQ_DEVLIST,
                          REQ_IMPORT, RET_SUBMIT, ST_NODEV, VERSION)


def describe(busid, **changes):
    """The 312 bytes of a device: a HighSpeed one with one interface."""
    values = {"path": b"/sys/devices/fake", "busid": busid.encode(),
              "busnum": 1, "devnum": 2, "speed": 3, "vendor": 0x1234,
              "product": 0x5678, "release": 0x100, "class": 0, "subclass": 0,
              "protocol": 0, "configuration": 1, "num_configurations": 1,
              "num_interfaces": 1}
    values.update(changes)
    return DEVICE.pack(*values.values())


def op(code, status=0, version=VERSION):
    return struct.pack(">HHI", version, code, status)


def reply_submit(seqnum, data=b"", status=0, actual_length=None):
    length = len(data) if actual_length is None else actual_length
    return struct.pack(">IIIIIiIIII8x", RET_SUBMIT, seqnum, 0, 0, 0, status,
                       length, 0, 0, 0) + data


def recv_exactly(connection, num_bytes):
    data = b""
    while len(data) < num_bytes:
        piece = connection.recv(num_bytes - len(data))
        if not piece:
            raise EOFError(f"end after {len(data)} of {num_bytes} bytes")
        data += piece
    return data


class FakeGateway:
    def __init__(self, devices=None):
        self.devices = devices or {}
        self.connections = []
        self.changed = threading.Condition()
        self.on_devlist = self.answer_devlist
        self.on_import = self.answer_import
        self.listener, self.address = self.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def listen(self):
        """The listening socket and its address."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        return listener, f"tcp:127.0.0.1:{self.port}"

    def begin(self, connection):
        """What the conversation runs on, on an accepted connection."""
        return connection

    def close(self):
        self.listener.close()
        for connection in self.connections:
            connection.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(15)
            threading.Thread(target=self._serve, args=(connection,),
                             daemon=True).start()

    def _serve(self, connection):
        try:
            connection = self.begin(connection)
            _, code, _ = struct.unpack(">HHI", recv_exactly(connection, 8))
            if code == REQ_DEVLIST:
                self.on_devlist(connection)
                connection.close()
                return
            if code == REQ_IMPORT:
                busid = recv_exactly(connection, 32).split(b"\0")[0].decode()
                self.on_import(connection, busid)
        except (EOFError, OSError):
            connection.close()
        with self.changed:
            self.connections.append(connection)
            self.changed.notify_all()

    def answer_devlist(self, connection):
        answer = op(REP_DEVLIST) + struct.pack(">I", len(self.devices))
        for device in self.devices.values():
            answer += device + bytes((8, 6, 0x50, 0)) * device[-1]
        connection.sendall(answer)

    def answer_import(self, connection, busid):
        device = self.devices.get(busid)
        if device:
            connection.sendall(op(REP_IMPORT) + device)
        else:
            connection.sendall(op(REP_IMPORT, ST_NODEV))

    def wait_connection(self, number=0, limit_s=15):
        """The import of that number, answered."""
        with self.changed:
            assert self.changed.wait_for(
                lambda: len(self.connections) > number, limit_s)
            return self.connections[number]
