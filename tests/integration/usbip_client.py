# SPDX-License-Identifier: Apache-2.0
"""A USB/IP 1.1.1 client on a socket, for tests: honest by default, and able to
send whatever bytes a hostile one would.

Every wait has a limit: a read that gets nothing within `timeout` raises
TimeoutError. The peer's orderly or sudden end raises Closed.
"""

import socket
import struct
from dataclasses import dataclass, field

VERSION = 0x0111
REQ_DEVLIST, REP_DEVLIST = 0x8005, 0x0005
REQ_IMPORT, REP_IMPORT = 0x8003, 0x0003
ST_OK, ST_NA, ST_DEV_BUSY, ST_DEV_ERR, ST_NODEV, ST_ERROR = range(6)
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
OUT, IN = 0, 1

DEVICE = struct.Struct(">256s32sIIIHHHBBBBBB")
HEADER = struct.Struct(">IIIII")
SUBMIT = struct.Struct(">IIIII8s")
RET = struct.Struct(">iIIII8x")
ISO = struct.Struct(">IIIi")


class Closed(Exception):
    """The peer ended the connection."""


class Refused(Exception):
    """The peer answered an operation with a status that is not ST_OK."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


@dataclass
class Device:
    path: str
    busid: str
    busnum: int
    devnum: int
    speed: int
    vendor: int
    product: int
    release: int
    device_class: int
    subclass: int
    protocol: int
    configuration: int
    num_configurations: int
    num_interfaces: int
    interfaces: list = field(default_factory=list)  # (class, sub, protocol)

    @property
    def devid(self):
        return self.busnum << 16 | self.devnum

    @classmethod
    def decode(cls, data):
        fields = list(DEVICE.unpack(data))
        fields[0] = fields[0].split(b"\0")[0].decode()
        fields[1] = fields[1].split(b"\0")[0].decode()
        return cls(*fields)


@dataclass
class IsoPacket:
    offset: int
    length: int
    actual_length: int = 0
    status: int = 0


@dataclass
class Reply:
    """A RET_SUBMIT or RET_UNLINK; of an unlink only seqnum and status."""
    command: int
    seqnum: int
    status: int
    actual_length: int = 0
    start_frame: int = 0
    error_count: int = 0
    data: bytes = b""
    packets: list = field(default_factory=list)


@dataclass
class Pending:
    direction: int
    num_packets: int
    is_unlink: bool = False


def setup_packet(request_type, request, value, index, length):
    return struct.pack("<BBHHH", request_type, request, value, index, length)


def pack_submit(seqnum, devid, direction, endpoint, length=0, num_packets=0, /,
                **options):
    """The 48 bytes of a CMD_SUBMIT, whatever they say."""
    return HEADER.pack(options.get("command", CMD_SUBMIT), seqnum, devid,
                       direction, endpoint) + SUBMIT.pack(
        options.get("flags", 0), length, options.get("start_frame", 0),
        num_packets, options.get("interval", 0),
        options.get("setup", bytes(8)))


def pack_unlink(seqnum, devid, target):
    return HEADER.pack(CMD_UNLINK, seqnum, devid, 0, 0) + struct.pack(
        ">I24x", target)


def pack_packets(packets):
    return b"".join(ISO.pack(p.offset, p.length, p.actual_length, p.status)
                    for p in packets)


class UsbipClient:
    def __init__(self, port=3240, host="127.0.0.1", timeout=10.0, sock=None):
        self.sock = sock or socket.create_connection((host, port), timeout)
        self.sock.settimeout(timeout)
        if self.sock.family in (socket.AF_INET, socket.AF_INET6):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.device = None
        self.pending = {}
        self.early = []
        self.next_seqnum = 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    # Bytes.

    def send_raw(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def recv_raw(self, num_bytes):
        data = bytearray()
        while len(data) < num_bytes:
            try:
                piece = self.sock.recv(num_bytes - len(data))
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not piece:
                raise Closed(f"end after {len(data)} of {num_bytes} bytes")
            data += piece
        return bytes(data)

    def is_at_end(self):
        """Reads and drops until the peer's end, which must come in time."""
        try:
            while True:
                self.recv_raw(1)
        except Closed:
            return True

    # Operations.

    def send_op(self, code, body=b"", version=VERSION, status=0):
        self.send_raw(struct.pack(">HHI", version, code, status) + body)

    def recv_op(self, code):
        """Returns the status of a reply that must have this code."""
        version, got, status = struct.unpack(">HHI", self.recv_raw(8))
        if (version, got) != (VERSION, code):
            raise AssertionError(f"reply {version:#x} {got:#x}")
        return status

    def devlist(self):
        """The exported devices by bus id."""
        self.send_op(REQ_DEVLIST)
        status = self.recv_op(REP_DEVLIST)
        if status != ST_OK:
            raise Refused(status)
        devices = {}
        for _ in range(struct.unpack(">I", self.recv_raw(4))[0]):
            device = Device.decode(self.recv_raw(DEVICE.size))
            for _ in range(device.num_interfaces):
                record = struct.unpack("4B", self.recv_raw(4))
                device.interfaces.append(record[:3])
            devices[device.busid] = device
        return devices

    def import_(self, busid):
        """Takes the device; raises Refused with the status otherwise."""
        raw = busid if isinstance(busid, bytes) else busid.encode()
        self.send_op(REQ_IMPORT, raw.ljust(32, b"\0"))
        status = self.recv_op(REP_IMPORT)
        if status != ST_OK:
            raise Refused(status)
        self.device = Device.decode(self.recv_raw(DEVICE.size))
        return self.device

    # URBs. Endpoints are numbers without the direction bit.

    def submit(self, endpoint, direction, data=b"", length=None, **options):
        """Sends CMD_SUBMIT and returns its sequence number.

        Options: setup (8 bytes), flags, interval, start_frame, packets (list
        of IsoPacket), seqnum and devid in place of the right ones.
        """
        packets = options.get("packets", [])
        seqnum = options.get("seqnum", self.next_seqnum)
        devid = options.get("devid", self.device.devid if self.device else 0)
        self.next_seqnum = max(self.next_seqnum, seqnum + 1)
        header = pack_submit(seqnum, devid, direction, endpoint,
                             len(data) if length is None else length,
                             len(packets), **options)
        self.pending[seqnum] = Pending(direction, len(packets))
        self.send_raw(header + (data if direction == OUT else b"")
                      + pack_packets(packets))
        return seqnum

    def unlink(self, target, seqnum=None, devid=None):
        """Sends CMD_UNLINK for a sequence number and returns its own."""
        seqnum = seqnum or self.next_seqnum
        self.next_seqnum = max(self.next_seqnum, seqnum + 1)
        if devid is None:
            devid = self.device.devid
        self.pending[seqnum] = Pending(OUT, 0, is_unlink=True)
        self.send_raw(pack_unlink(seqnum, devid, target))
        return seqnum

    def recv(self):
        """The next reply, whichever it is."""
        if self.early:
            return self.early.pop(0)
        return self._recv_reply()

    def _recv_reply(self):
        raw = self.recv_raw(48)
        command, seqnum, devid, direction, endpoint = HEADER.unpack(raw[:20])
        if command not in (RET_SUBMIT, RET_UNLINK):
            raise AssertionError(f"command {command} is not a reply")
        if (devid, direction, endpoint) != (0, 0, 0):
            raise AssertionError("a reply names a device or an endpoint")
        asked = self.pending.pop(seqnum, None)
        if not asked or asked.is_unlink != (command == RET_UNLINK):
            raise AssertionError(f"reply {command} to unasked {seqnum}")
        if command == RET_UNLINK:
            status = struct.unpack(">i", raw[20:24])[0]
            return Reply(command, seqnum, status)

        status, actual, frame, packets, errors = RET.unpack(raw[20:])
        if asked.num_packets and packets != asked.num_packets:
            raise AssertionError(f"{packets} packets for {asked.num_packets}")
        reply = Reply(command, seqnum, status, actual, frame, errors)
        if asked.direction == IN:
            reply.data = self.recv_raw(actual)
        for _ in range(asked.num_packets):
            reply.packets.append(IsoPacket(*ISO.unpack(self.recv_raw(16))))
        return reply

    def wait(self, seqnum):
        """The reply to this one; others are kept for recv()."""
        for i, reply in enumerate(self.early):
            if reply.seqnum == seqnum:
                return self.early.pop(i)
        while True:
            reply = self._recv_reply()
            if reply.seqnum == seqnum:
                return reply
            self.early.append(reply)

    # One question at a time.

    def control_in(self, request_type, request, value, index, length):
        setup = setup_packet(request_type, request, value, index, length)
        return self.wait(self.submit(0, IN, length=length, setup=setup))

    def control_out(self, request_type, request, value, index, data=b""):
        setup = setup_packet(request_type, request, value, index, len(data))
        return self.wait(self.submit(0, OUT, data, setup=setup))

    def get_descriptor(self, kind, index=0, length=255):
        return self.control_in(0x80, 6, kind << 8 | index, 0, length)

    def set_configuration(self, value):
        return self.control_out(0x00, 9, value, 0)

    def bulk_in(self, endpoint, length):
        return self.wait(self.submit(endpoint, IN, length=length))

    def bulk_out(self, endpoint, data):
        return self.wait(self.submit(endpoint, OUT, data))
