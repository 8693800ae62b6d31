# SPDX-License-Identifier: Apache-2.0
"""Stands between a program and xenstored: counts its requests, refuses some, does
something of the test's before one of them, tells it events that never happened,
and loses those that did.

    with Relay(xen, 9) as relay:
        gateway = bench.gateway(CONFIG, env=relay.env())
        relay.before(3, lambda: xen.rm(folder))
"""

import contextlib
import os
import socket
import threading
import time

from harness import wait_until
from xenstored import ERROR, HEADER, WATCH_EVENT


def read_message(file):
    """Header and payload; None at the end."""
    head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    return head, file.read(HEADER.unpack(head)[3])


class Relay:
    def __init__(self, xen, domid):
        self.xen = xen
        self.domid = domid
        self.path = os.path.join(xen.dir, f"relay{domid}")
        self.requests = []    # (kind, first word)
        self.clients = []     # (socket, lock of what is sent to it)
        self.lock = threading.Lock()
        self.left = 0         # requests until there is something to do
        self.act = None
        self.loses_events = False
        self.refused = None   # (path, name of the error, kind of request)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client, _ in self.clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def env(self):
        return {**self.xen.env(self.domid), "XENSTORED_PATH": self.path}

    def stand_between(self):
        """Between xenstored and all that is started in the domain from now."""
        self.xen.sockets[self.domid] = self.path

    def wait_quiet(self):
        """Waits for a second without a request."""
        def is_quiet():
            count = len(self.requests)
            time.sleep(1)
            return len(self.requests) == count
        wait_until(is_quiet, "nothing is asked any more")

    def before(self, number, act):
        """Does it before the request with this number from now, from 1."""
        with self.lock:
            self.left, self.act = number, act

    def forget(self):
        """True if it was not done yet, and now never is."""
        with self.lock:
            is_left, self.act = self.act is not None, None
        return is_left

    def refuse(self, path, error, kind=None):
        """From now on this path cannot be read or written, or is refused to one
        kind of request; None: it is not."""
        self.refused = path and (path, error, kind)

    def tell(self, path, token, times=1):
        """Events that xenstored knows nothing of."""
        payload = f"{path}\0{token}\0".encode()
        message = HEADER.pack(WATCH_EVENT, 0, 0, len(payload)) + payload
        for client, lock in list(self.clients):
            with lock, contextlib.suppress(OSError):
                client.sendall(message * times)

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                server.connect(os.path.join(self.xen.dir,
                                            f"dom{self.domid}"))
                lock = threading.Lock()
                self.clients.append((client, lock))
                for target in (self.pass_requests, self.pass_answers):
                    threading.Thread(target=target, daemon=True,
                                     args=(client, server, lock)).start()

    def note(self, head, payload):
        kind = HEADER.unpack(head)[0]
        word = payload.split(b"\0")[0].decode(errors="replace")
        with self.lock:
            self.requests.append((kind, word))
            self.left -= 1
            if self.left == 0 and self.act:
                self.act()
                self.act = None

    def answer_refused(self, client, lock, head, payload):
        """True if it was one."""
        refused = self.refused
        if not refused or payload.split(b"\0")[0] != refused[0].encode():
            return False
        kind, request, transaction, _ = HEADER.unpack(head)
        if refused[2] not in (None, kind):
            return False
        error = refused[1].encode() + b"\0"
        with lock:
            client.sendall(HEADER.pack(ERROR, request, transaction, len(error))
                           + error)
        return True

    def pass_requests(self, client, server, lock):
        with (contextlib.suppress(OSError), server,
              client.makefile("rb") as file):
            while message := read_message(file):
                self.note(*message)
                if not self.answer_refused(client, lock, *message):
                    server.sendall(b"".join(message))
            server.shutdown(socket.SHUT_RDWR)

    def pass_answers(self, client, server, lock):
        with (contextlib.suppress(OSError), client,
              server.makefile("rb") as file):
            while message := read_message(file):
                kind = HEADER.unpack(message[0])[0]
                if kind == WATCH_EVENT and self.loses_events:
                    continue
                with lock:
                    client.sendall(b"".join(message))
            client.shutdown(socket.SHUT_RDWR)
