#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pretends to be Xen's hypervisor for the programs that preload fake_xen.so.

usage: hypervisor.py DIR

Owns the domains, their grants and their event channels, and tells xenstored
(with fake_xenstored.so) which domains live. Listens on DIR/hypervisor; makes
DIR/domN for each domain, where clients of xenstore are that domain. A program
has a connection for each handle that it opened; a connection that ends,
however it ended, is that handle closed. Pages are memfds and ports eventfds,
passed to the programs, which need this process no more until they let go.

A message is a line: "VERB NUMBER..." is answered with "ok NUMBER..." and
descriptors, or with "error ERRNO". The first one on a connection says who
speaks: "domain N", "store" (xenstored) or "control" (a test). A test says

    add N [LIMIT]          a domain with at most LIMIT pages granted; its port
                           for xenstored is the answer
    limit N PAGES          another limit for a domain that is there
    state N FLAGS REASON   as xc_domain_getinfo() will tell it
    destroy N              pages that others map keep it as a zombie
    events 0|1             whether xenstored hears of such changes
    counts                 in JSON, for each domain, what is held now
    pids N                 the processes of a domain

Ends with its standard input.
"""

import errno
import json
import mmap
import os
import selectors
import socket
import sys

from xenbus import Xenbus, peer_pid

PAGE = mmap.PAGESIZE
NONE = 0xffffffff
RUNNING, SHUTDOWN, CRASHED, DYING = 1, 2, 4, 8
GRANT_LIMIT = 1024      # xen_gntalloc's own default
XENSTORE_GRANT = 1
MAX_MESSAGE = 65536


def fail(number):
    raise OSError(number, os.strerror(number))


class Descriptor:
    """Closed when nothing refers to it any more."""

    def __init__(self, fd):
        self.fd = fd

    def __del__(self):
        os.close(self.fd)


def new_event():
    return Descriptor(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))


class Loop:
    def __init__(self):
        self.selector = selectors.DefaultSelector()

    def want(self, source, callback, is_writing=False):
        events = selectors.EVENT_READ
        if is_writing:
            events |= selectors.EVENT_WRITE
        key = self.selector.get_map().get(source)
        if key is None:
            self.selector.register(source, events, callback)
        elif key.events != events:
            self.selector.modify(source, events, callback)

    def forget(self, source):
        self.selector.unregister(source)

    def run(self):
        while True:
            for key, _ in self.selector.select():
                if self.selector.get_map().get(key.fd) is key:
                    key.data()


class Port:
    """An event channel's end; a pending unmap notification keeps it."""

    def __init__(self, domain, remote, wake, other):
        self.domain = domain
        self.remote = remote
        self.wake = wake
        self.other = other
        self.peer = None
        self.holders = 1
        domain.last_port += 1
        self.number = domain.last_port
        domain.ports[self.number] = self

    def notify(self):
        os.eventfd_write(self.other.fd, 1)

    def drain(self):
        try:
            os.eventfd_read(self.wake.fd)
        except BlockingIOError:
            pass

    def release(self):
        self.holders -= 1
        if self.holders == 0:
            self.close()

    def close(self):
        self.domain.ports.pop(self.number, None)
        if self.peer:
            self.peer.peer = None
            self.peer = None


class Notify:
    """What happens when pages are let go: UNMAP_NOTIFY_*."""

    def __init__(self, domain, offset, port):
        self.offset = offset
        self.port = None
        if port != NONE:
            self.port = domain.ports.get(port) or fail(errno.EINVAL)
            self.port.holders += 1

    def fire(self, memory, first_page):
        if self.offset != NONE:
            os.pwrite(memory.fd, b"\0", first_page * PAGE + self.offset)
        if self.port:
            self.port.notify()
            self.port.release()


class Share:
    """Pages granted to a domain; not free before they are mapped nowhere."""

    def __init__(self, domain, grantee, count, is_writable, notify):
        self.domain = domain
        self.grantee = grantee
        self.first = domain.last_grant + 1
        self.count = count
        self.is_writable = is_writable
        self.notify = notify
        self.memory = Descriptor(os.memfd_create("grant"))
        os.ftruncate(self.memory.fd, count * PAGE)
        self.mapped = 0
        self.is_held = True
        domain.last_grant += count
        domain.granted += count
        domain.shares.append(self)

    def let_go(self, is_alive=True):
        self.is_held = False
        if is_alive:
            self.notify.fire(self.memory, 0)
        self.free_if_unused()

    def free_if_unused(self):
        if not self.is_held and not self.mapped:
            self.domain.shares.remove(self)
            self.domain.granted -= self.count


class Mapping:
    def __init__(self, handle, share, page, count, notify):
        self.handle = handle
        self.share = share
        self.page = page
        self.count = count
        self.notify = notify
        if not handle.is_store:
            share.mapped += count

    def let_go(self, is_alive=True):
        if is_alive:
            self.notify.fire(self.share.memory, self.page)
        if not self.handle.is_store:
            self.share.mapped -= self.count
            self.share.free_if_unused()


class Domain:
    def __init__(self, domid, limit):
        self.domid = domid
        self.limit = limit
        self.flags = RUNNING
        self.reason = 0
        self.shares = []
        self.granted = 0
        self.ports = {}
        self.handles = set()
        self.last_port = 0
        self.last_grant = 0
        self.bus = None
        self.xenstore_port = None

    def is_used(self):
        return any(share.mapped for share in self.shares)

    def counts(self):
        mappings = [m for h in self.handles if not h.is_store
                    for m in h.mappings.values()]
        return {"granted": self.granted - 1,
                "mapped": sum(mapping.count for mapping in mappings),
                "ports": sum(len(handle.ports) for handle in self.handles
                             if not handle.is_store),
                "handles": sum(not h.is_store for h in self.handles),
                "is_zombie": bool(self.flags & DYING)}


class Handle:
    """A connection: one of a program's open handles, or a test."""

    def __init__(self, xen, sock):
        self.xen = xen
        self.sock = sock
        self.domain = None
        self.is_store = False
        self.shares = {}
        self.mappings = {}
        self.ports = {}
        self.last_mapping = 0
        xen.loop.want(sock, self.on_ready)

    def on_ready(self):
        try:
            message = self.sock.recv(MAX_MESSAGE).decode()
        except ConnectionResetError:
            message = ""
        if not message:
            self.close()
            return
        verb, *numbers = message.split()
        fds = []
        try:
            method = getattr(self, "do_" + verb)
            answer = method(fds, *(int(number) for number in numbers))
            answer = f"ok {'' if answer is None else answer}"
        except OSError as error:
            answer = f"error {error.errno}"
        try:
            socket.send_fds(self.sock, [answer.encode()],
                            [descriptor.fd for descriptor in fds])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def release(self, is_alive=True):
        """Lets go of everything; a dead domain notifies nobody."""
        held = [*self.mappings.values(), *self.shares.values()]
        ports = list(self.ports.values())
        for table in (self.mappings, self.shares, self.ports):
            table.clear()
        for pages in held:
            pages.let_go(is_alive)
        for port in ports:
            port.release()

    def close(self, is_alive=True):
        self.xen.loop.forget(self.sock)
        self.sock.close()
        self.release(is_alive)
        if self.domain:
            self.domain.handles.discard(self)
        self.xen.bury_zombies()

    # Who speaks.

    def do_domain(self, _fds, domid):
        self.domain = self.xen.domains.get(domid) or fail(errno.ENODEV)
        self.domain.handles.add(self)

    def do_store(self, _fds):
        self.is_store = True
        self.do_domain(_fds, 0)

    def do_control(self, _fds):
        pass

    def do_release(self, _fds):
        self.release()
        self.xen.bury_zombies()

    # Grants.

    def do_share(self, fds, grantee, count, is_writable, offset, port):
        if self.domain.granted - 1 + count > self.domain.limit:
            fail(errno.ENOSPC)
        share = Share(self.domain, grantee, count, is_writable,
                      Notify(self.domain, offset, port))
        self.shares[share.first] = share
        fds.append(share.memory)
        return share.first

    def do_unshare(self, _fds, first):
        (self.shares.pop(first, None) or fail(errno.EINVAL)).let_go()

    def do_map(self, fds, domid, first, count, is_writing, offset, port):
        owner = self.xen.domains.get(domid) or fail(errno.EINVAL)
        share = next((s for s in owner.shares if s.first <= first
                      and first + count <= s.first + s.count), None)
        if not share or share.grantee != self.domain.domid or (
                is_writing and not share.is_writable):
            fail(errno.EINVAL)
        self.last_mapping += 1
        page = first - share.first
        self.mappings[self.last_mapping] = Mapping(
            self, share, page, count, Notify(self.domain, offset, port))
        fds.append(share.memory)
        return f"{self.last_mapping} {page}"

    def do_unmap(self, _fds, number):
        (self.mappings.pop(number, None) or fail(errno.EINVAL)).let_go()
        self.xen.bury_zombies()

    # Event channels.

    def add_port(self, fds, port):
        self.ports[port.number] = port
        fds += [port.wake, port.other]
        return port.number

    def do_bind_unbound(self, fds, remote):
        return self.add_port(fds, Port(self.domain, remote, new_event(),
                                       new_event()))

    def do_bind_interdomain(self, fds, domid, number):
        remote = self.xen.domains.get(domid) or fail(errno.ESRCH)
        peer = remote.ports.get(number)
        if not peer or peer.peer or peer.remote != self.domain.domid:
            fail(errno.EINVAL)
        port = Port(self.domain, domid, peer.other, peer.wake)
        port.peer, peer.peer = peer, port
        # Always pending once: it may have been raised before it was bound.
        port.drain()
        os.eventfd_write(port.wake.fd, 1)
        return self.add_port(fds, port)

    def do_bind_virq(self, fds):
        port = Port(self.domain, NONE, new_event(), new_event())
        self.xen.virqs.append(port)
        return self.add_port(fds, port)

    def do_unbind(self, _fds, number):
        (self.ports.pop(number, None) or fail(errno.EINVAL)).release()

    # What xenstored asks, and what tests say.

    def do_info(self, _fds, first):
        known = {**self.xen.zombies, **self.xen.domains}
        domid = min((domid for domid in known if domid >= first), default=None)
        if domid is None:
            fail(errno.ESRCH)
        return f"{domid} {known[domid].flags} {known[domid].reason}"

    def do_store_port(self, _fds):
        return self.xen.domains[0].xenstore_port.number

    def do_add(self, _fds, domid, limit=GRANT_LIMIT):
        return self.xen.add(domid, limit).xenstore_port.number

    def do_limit(self, _fds, domid, limit):
        domain = self.xen.domains.get(domid) or fail(errno.ESRCH)
        domain.limit = limit

    def do_state(self, _fds, domid, flags, reason):
        domain = self.xen.domains.get(domid) or fail(errno.ESRCH)
        domain.flags, domain.reason = flags, reason
        self.xen.raise_virq()

    def do_destroy(self, _fds, domid):
        self.xen.destroy(domid)

    def do_events(self, _fds, has_events):
        self.xen.has_events = has_events

    def do_counts(self, _fds):
        known = {**self.xen.zombies, **self.xen.domains}
        return json.dumps({n: domain.counts() for n, domain in known.items()})

    def do_pids(self, _fds, domid):
        domain = self.xen.domains.get(domid) or fail(errno.ESRCH)
        pids = {peer_pid(handle.sock) for handle in domain.handles
                if not handle.is_store}
        return " ".join(map(str, pids | domain.bus.pids()))


class Hypervisor:
    def __init__(self, folder):
        self.folder = folder
        self.loop = Loop()
        self.domains = {}
        self.zombies = {}
        self.virqs = []
        self.has_events = True
        self.add(0, GRANT_LIMIT)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(os.path.join(folder, "hypervisor"))
        self.listener.listen(256)
        self.loop.want(self.listener, self.on_accept)
        self.loop.want(sys.stdin, self.on_end)

    def on_accept(self):
        Handle(self, self.listener.accept()[0])

    def on_end(self):
        sys.exit(0)

    def raise_virq(self):
        if self.has_events:
            for port in self.virqs:
                os.eventfd_write(port.wake.fd, 1)

    def add(self, domid, limit):
        if domid in self.domains or domid in self.zombies:
            fail(errno.EEXIST)
        domain = Domain(domid, limit)
        ring = Share(domain, 0, 1, True, Notify(domain, NONE, NONE))
        assert ring.first == XENSTORE_GRANT
        port = Port(domain, 0, new_event(), new_event())
        domain.xenstore_port = port
        # dom0's programs speak to xenstored's own socket.
        path = os.path.join(self.folder, f"dom{domid}") if domid else None
        page = mmap.mmap(ring.memory.fd, PAGE)
        domain.bus = Xenbus(self.loop, port, page, path)
        self.domains[domid] = domain
        return domain

    def destroy(self, domid):
        domain = self.domains.pop(domid, None) or fail(errno.ESRCH)
        domain.bus.close()
        domain.flags = DYING
        self.zombies[domid] = domain
        for handle in list(domain.handles):
            handle.close(is_alive=False)
        for port in list(domain.ports.values()):
            port.close()
        self.bury_zombies()
        self.raise_virq()

    def bury_zombies(self):
        for domid, domain in list(self.zombies.items()):
            if not domain.is_used():
                del self.zombies[domid]
                self.raise_virq()


def main():
    os.set_inheritable(0, False)
    xen = Hypervisor(sys.argv[1])
    print("ready", flush=True)
    xen.loop.run()


if __name__ == "__main__":
    main()
