# SPDX-License-Identifier: Apache-2.0
"""What a guest's kernel does for xenstore, for a domain without a kernel.

The clients of one Unix socket share the domain's xenstore ring, as the users
of a guest's /dev/xen/xenbus do: xenstored sees one domain, with that domain's
permissions and quotas. Requests and the tokens of watches are numbered anew on
the ring; what a client leaves behind when it goes is taken back.
"""

import os
import socket
import struct

WATCH, UNWATCH, TRANSACTION_START, TRANSACTION_END = 4, 5, 6, 7
WATCH_EVENT, ERROR = 15, 16
HEADER = struct.Struct("=4I")
MAX_PAYLOAD = 4096

RING_BYTES = 1024
# Where in the page the two rings are, and which of its words count for them.
REQUESTS, REQ_CONS, REQ_PROD = 0, 512, 513
RESPONSES, RSP_CONS, RSP_PROD = 1024, 514, 515


class Ring:
    """The guest's side of a xenstore ring."""

    def __init__(self, page):
        self.page = page
        self.words = memoryview(page).cast("I")

    def write(self, data):
        """Puts in what fits; how much that was."""
        words = self.words
        done = 0
        while done < len(data):
            prod = words[REQ_PROD]
            at = prod % RING_BYTES
            space = RING_BYTES - ((prod - words[REQ_CONS]) & 0xffffffff)
            n = min(len(data) - done, space, RING_BYTES - at)
            if n <= 0:
                break
            self.page[REQUESTS + at:REQUESTS + at + n] = data[done:done + n]
            words[REQ_PROD] = (prod + n) & 0xffffffff
            done += n
        return done

    def read(self):
        """Takes out what there is."""
        words = self.words
        data = b""
        while words[RSP_CONS] != words[RSP_PROD]:
            cons = words[RSP_CONS]
            at = cons % RING_BYTES
            n = min((words[RSP_PROD] - cons) & 0xffffffff, RING_BYTES - at)
            data += self.page[RESPONSES + at:RESPONSES + at + n]
            words[RSP_CONS] = (cons + n) & 0xffffffff
        return data


def peer_pid(sock):
    """The process that connected this Unix socket."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return struct.unpack("3i", credentials)[0]


def take_message(buffer):
    """The first whole message of a buffer, taken out of it, or None."""
    if len(buffer) < HEADER.size:
        return None
    *head, length = HEADER.unpack_from(buffer)
    end = HEADER.size + length
    if length <= MAX_PAYLOAD and len(buffer) < end:
        return None
    payload = bytes(buffer[HEADER.size:end])
    del buffer[:end]
    return (*head, payload)


class Client:
    """A connection to a domain's socket."""

    def __init__(self, bus, sock):
        self.bus = bus
        self.sock = sock
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.transactions = set()

    def on_ready(self):
        self.flush()
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self.bus.drop(self)
            return
        self.inbox += data
        while message := take_message(self.inbox):
            if len(message[3]) > MAX_PAYLOAD:
                self.bus.drop(self)
                return
            self.bus.request(self, *message)

    def send(self, kind, request, transaction, payload):
        self.outbox += HEADER.pack(kind, request, transaction, len(payload))
        self.outbox += payload
        self.flush()

    def flush(self):
        try:
            while self.outbox:
                del self.outbox[:self.sock.send(self.outbox)]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self.outbox.clear()
        self.bus.loop.want(self.sock, self.on_ready, bool(self.outbox))


class Xenbus:
    """A domain's clients and its ring."""

    def __init__(self, loop, port, page, path):
        self.loop = loop
        self.port = port
        self.ring = Ring(page)
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.clients = set()
        self.pending = {}
        self.watches = {}
        self.last_number = 0
        self.listener = None
        loop.want(port.wake.fd, self.on_event)
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen(64)
            loop.want(self.listener, self.on_accept)

    def close(self):
        """The domain is no more; xenstored hears nothing from it."""
        self.loop.forget(self.port.wake.fd)
        if self.listener:
            os.unlink(self.listener.getsockname())
            for sock in [self.listener, *(c.sock for c in self.clients)]:
                self.loop.forget(sock)
                sock.close()

    def pids(self):
        return {peer_pid(client.sock) for client in self.clients}

    def on_accept(self):
        client = Client(self, self.listener.accept()[0])
        client.sock.setblocking(False)
        self.clients.add(client)
        self.loop.want(client.sock, client.on_ready)

    def drop(self, client):
        self.loop.forget(client.sock)
        client.sock.close()
        self.clients.discard(client)
        for number, (owner, path, token) in list(self.watches.items()):
            if owner is client:
                self.request(client, UNWATCH, 0, 0, path + b"\0" + token + b"\0")
        for transaction in list(client.transactions):
            self.request(client, TRANSACTION_END, 0, transaction, b"F\0")

    def number(self):
        self.last_number += 1
        return self.last_number

    def request(self, client, kind, request, transaction, payload):
        """Passes on what a client asks."""
        changed = None
        if kind in (WATCH, UNWATCH) and payload.count(b"\0") == 2:
            path, token, _ = payload.split(b"\0")
            watch = self.find_watch(client, path, token)
            if kind == UNWATCH:
                changed = watch
            elif watch is None:
                watch = changed = self.number()
                self.watches[watch] = (client, path, token)
            payload = path + b"\0%d\0" % (watch or 0)
        number = self.number() & 0xffffffff
        self.pending[number] = (client, kind, request, transaction, changed)
        self.outbox += HEADER.pack(kind, number, transaction, len(payload))
        self.outbox += payload
        self.on_event()

    def find_watch(self, *wanted):
        return next((number for number, watch in self.watches.items()
                     if watch == wanted), None)

    def on_event(self):
        """Moves what can be moved, in both directions."""
        self.port.drain()
        sent = self.ring.write(self.outbox)
        del self.outbox[:sent]
        received = self.ring.read()
        if sent or received:
            self.port.notify()
        self.inbox += received
        while message := take_message(self.inbox):
            self.on_message(*message)

    def on_message(self, kind, number, transaction, payload):
        if kind == WATCH_EVENT:
            path, token, _ = payload.split(b"\0")
            client, _, token = self.watches.get(int(token), (None, 0, b""))
            if client in self.clients:
                client.send(kind, 0, 0, path + b"\0" + token + b"\0")
            return
        client, asked, request, of, changed = self.pending.pop(number)
        if (asked, kind) in ((UNWATCH, UNWATCH), (WATCH, ERROR)):
            self.watches.pop(changed, None)
        if asked == TRANSACTION_END:
            client.transactions.discard(of)
        if kind == TRANSACTION_START:
            client.transactions.add(int(payload.rstrip(b"\0")))
        if client in self.clients:
            client.send(kind, request, transaction, payload)
        elif kind == TRANSACTION_START:
            self.request(client, TRANSACTION_END, 0, int(payload[:-1]), b"F\0")
