# SPDX-License-Identifier: Apache-2.0
"""Either end of a shared-memory channel (docs/protocol.md, "The shm channel"),
for tests: honest by default, and able to scribble on all that it shares.

    client = UsbipClient(sock=ShmPeer.join("/run/xusbip/gateway.sock"))
    ShmPeer.offer(accepted_socket, Offer(magic=0))

A ShmPeer has the methods of a socket that UsbipClient and FakeGateway use.
"""

import array
import fcntl
import mmap
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field

MAGIC, VERSION = 0x6d687362, 1
CONTROL_BYTES = 4096
RING_BYTES = 64 << 10
OFFER = struct.Struct("=IIII")

# In the control page: the ring to the client, then the one to the server.
TO_CLIENT, TO_SERVER = 0, 256
PRODUCED, IS_ENDED, CONSUMED, READER_WAITS, WRITER_WAITS = 0, 4, 64, 128, 192

SEALS = 0x0001 | 0x0002 | 0x0004  # no more seals, no shrinking, no growing
EFD_NONBLOCK = os.O_NONBLOCK
EFD_CLOEXEC = os.O_CLOEXEC
BELL_MAX = (1 << 64) - 2
WRAP = 1 << 32


def make_memory(num_bytes, seals=SEALS):
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, num_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def make_bell(flags=EFD_NONBLOCK | EFD_CLOEXEC):
    return os.eventfd(0, flags)


@dataclass
class Offer:
    """What a server sends; the default is a good one."""
    magic: int = MAGIC
    version: int = VERSION
    ring_bytes: int = RING_BYTES
    more: bytes = b""
    fds: list = field(default_factory=lambda: [
        make_memory(CONTROL_BYTES + 2 * RING_BYTES), make_bell(), make_bell()])

    def send(self, sock):
        text = OFFER.pack(self.magic, self.version, self.ring_bytes, 0)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                   array.array("i", self.fds))] if self.fds else []
        sock.sendmsg([text + self.more], rights)


class ShmPeer:
    family = socket.AF_UNIX

    def __init__(self, sock, ring_bytes, fds, is_server):
        memory, server_bell, client_bell = fds
        self.sock = sock
        self.ring_bytes = ring_bytes
        self.bell, self.peer_bell = ((server_bell, client_bell) if is_server
                                     else (client_bell, server_bell))
        self.memory = mmap.mmap(memory, CONTROL_BYTES + 2 * ring_bytes)
        os.close(memory)
        self.incoming, self.outgoing = ((TO_SERVER, TO_CLIENT) if is_server
                                        else (TO_CLIENT, TO_SERVER))
        self.timeout = 10.0

    @classmethod
    def join(cls, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(path)
        text, fds, _, _ = socket.recv_fds(sock, OFFER.size, 3)
        magic, version, ring_bytes, _ = OFFER.unpack(text)
        assert (magic, version, len(fds)) == (MAGIC, VERSION, 3)
        return cls(sock, ring_bytes, fds, is_server=False)

    @classmethod
    def offer(cls, sock, offer=None):
        offer = offer or Offer()
        offer.send(sock)
        return cls(sock, offer.ring_bytes, offer.fds, is_server=True)

    # The control page.

    def get(self, ring, word):
        return struct.unpack_from("=I", self.memory, ring + word)[0]

    def put(self, ring, word, value):
        struct.pack_into("=I", self.memory, ring + word, value % WRAP)

    def ring_bell(self):
        os.eventfd_write(self.peer_bell, 1)

    def block_bell(self, bell):
        """Whoever rings this bell waits: it is full, and all ask for it."""
        flags = fcntl.fcntl(bell, fcntl.F_GETFL)
        fcntl.fcntl(bell, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
        os.eventfd_write(bell, BELL_MAX)
        for ring in (TO_CLIENT, TO_SERVER):
            for word in (READER_WAITS, WRITER_WAITS):
                self.put(ring, word, 1)

    def data_start(self, ring):
        return CONTROL_BYTES + (0 if ring == TO_SERVER else self.ring_bytes)

    # As a socket.

    def settimeout(self, timeout):
        self.timeout = timeout

    def getsockname(self):
        return self.sock.getsockname()

    def shutdown(self, _how):
        self.put(self.outgoing, IS_ENDED, 1)
        self.ring_bell()

    def close(self):
        if self.memory.closed:
            return
        self.memory.close()
        self.sock.close()
        os.close(self.bell)
        os.close(self.peer_bell)

    def _wait(self, condition):
        """False when the peer is gone before the condition holds."""
        end = time.monotonic() + self.timeout
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("the peer did nothing in time")
            ready, _, _ = select.select([self.bell, self.sock], [], [],
                                        min(left, 0.01))
            if self.bell in ready:
                os.eventfd_read(self.bell)
            if self.sock in ready:
                return condition()
        return True

    def _used(self, ring):
        return (self.get(ring, PRODUCED) - self.get(ring, CONSUMED)) % WRAP

    def _copy(self, ring, index, num_bytes):
        """The slices of the memory, and their lengths, from that index on."""
        start = index % self.ring_bytes
        first = min(num_bytes, self.ring_bytes - start)
        at = self.data_start(ring)
        return [(at + start, first), (at, num_bytes - first)]

    def recv(self, cap):
        ring = self.incoming
        self.put(ring, READER_WAITS, 1)
        if not self._wait(lambda: self._used(ring) or
                          self.get(ring, IS_ENDED)):
            raise ConnectionResetError("the peer is gone")
        num_bytes = min(cap, self._used(ring))
        index = self.get(ring, CONSUMED)
        data = b"".join(self.memory[at:at + length] for at, length
                        in self._copy(ring, index, num_bytes))
        self.put(ring, CONSUMED, index + num_bytes)
        self.ring_bell()
        return data

    def sendall(self, data):
        ring = self.outgoing
        data = memoryview(data)
        while data:
            self.put(ring, WRITER_WAITS, 1)
            if not self._wait(lambda: self._used(ring) < self.ring_bytes):
                raise ConnectionResetError("the peer is gone")
            index = self.get(ring, PRODUCED)
            piece = data[:self.ring_bytes - self._used(ring)]
            done = 0
            for at, length in self._copy(ring, index, len(piece)):
                self.memory[at:at + length] = piece[done:done + length]
                done += length
            self.put(ring, PRODUCED, index + len(piece))
            self.ring_bell()
            data = data[len(piece):]
