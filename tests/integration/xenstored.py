# SPDX-License-Identifier: Apache-2.0
"""A machine with Xen, without Xen: Debian's own xenstored, and libxenvchan,
over a pretended hypervisor (tests/fake/xen).

    with FakeXen() as xen:
        xen.add_domain(5, "guest")
        xen.write("/local/domain/5/data/key", "value", as_domid=5)
        server = xen.start(0, [PROGRAM, ...])
        xen.destroy(5)
        assert xen.counts()[0]["granted"] == 0

Domains are real to xenstored: each has a ring, permissions and quotas of its
own. A program is started in a domain by start(), or by env(), which makes what
it opens that domain's.
"""

import errno
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid as uuids

from harness import BUILD, LIMIT_S, ROOT, stop_process, wait_until

# Debian's package with xenstored, and where it may be: installed, unpacked for
# the guests of tests/xen, or unpacked by us.
PACKAGE = "xen-utils-4.17"
XENSTORED = "usr/lib/xen-4.17/bin/xenstored"
UNPACKED = os.path.join(ROOT, "build", "xen", "xenstored")
ROOTS = ("/", os.path.join(ROOT, "build", "xen", "root"), UNPACKED)
HYPERVISOR = os.path.join(ROOT, "tests", "fake", "xen", "hypervisor.py")

RUNNING, SHUTDOWN, CRASHED = 1, 2, 4
REASONS = {"poweroff": 0, "reboot": 1, "suspend": 2, "crash": 3}

# What libxl's guests may write, below their own node.
GUEST_NODES = ("data", "control/shutdown", "control/feature-poweroff",
               "control/feature-reboot", "control/feature-suspend",
               "control/sysrq", "device/suspend/event-channel", "drivers",
               "feature", "attr", "error")

HEADER = struct.Struct("=4I")
(DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, TRANSACTION_START,
 TRANSACTION_END, INTRODUCE) = range(1, 9)
WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR = range(11, 17)
RESUME = 18


def find_xenstored():
    """Its path; the package is fetched and unpacked, never installed."""
    for root in ROOTS:
        path = os.path.join(root, XENSTORED)
        if os.path.exists(path):
            return path
    os.makedirs(os.path.dirname(UNPACKED), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(UNPACKED)) as work:
        for command in (f"apt-get -q download {PACKAGE}",
                        f"dpkg -x {PACKAGE}_*.deb root"):
            done = subprocess.run(command, shell=True, cwd=work, text=True,
                                  capture_output=True, timeout=120,
                                  check=False)
            if done.returncode:
                raise RuntimeError(f"{command}: {done.stderr.strip()}; "
                                   "apt-get update may help")
        try:
            os.rename(os.path.join(work, "root"), UNPACKED)
        except OSError:
            pass    # another test was first
    return os.path.join(UNPACKED, XENSTORED)


class Store:
    """A connection to xenstored; whose, its socket decides."""

    def __init__(self, path):
        self.events = []
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def fileno(self):
        return self.sock.fileno()

    def receive(self):
        head = self.sock.recv(HEADER.size, socket.MSG_WAITALL)
        if len(head) < HEADER.size:
            raise ConnectionResetError("xenstored closed the connection")
        kind, _, _, length = HEADER.unpack(head)
        payload = b""
        while len(payload) < length:
            payload += self.sock.recv(length - len(payload))
        return kind, payload

    def ask(self, kind, *words, transaction=0):
        """The payload of the answer; OSError if it is an error."""
        payload = b"".join(word.encode() if isinstance(word, str) else word
                           for word in words)
        self.sock.sendall(HEADER.pack(kind, 1, transaction, len(payload))
                          + payload)
        while True:
            answer, payload = self.receive()
            if answer == WATCH_EVENT:
                self.keep_event(payload)
            elif answer == ERROR:
                name = payload.rstrip(b"\0").decode()
                number = getattr(errno, name)
                raise OSError(number, f"{name} from xenstored", words[0])
            else:
                return payload

    def keep_event(self, payload):
        path, token, _ = payload.decode().split("\0")
        self.events.append((path, token))

    def read(self, path, transaction=0):
        return self.ask(READ, path + "\0", transaction=transaction).decode()

    def write(self, path, value, transaction=0):
        self.ask(WRITE, path + "\0", str(value), transaction=transaction)

    def rm(self, path, transaction=0):
        self.ask(RM, path + "\0", transaction=transaction)

    def mkdir(self, path):
        self.ask(MKDIR, path + "\0")

    def ls(self, path):
        return self.ask(DIRECTORY, path + "\0").decode().split("\0")[:-1]

    def perms(self, path):
        return self.ask(GET_PERMS, path + "\0").decode().split("\0")[:-1]

    def chmod(self, path, *perms):
        """As in chmod(path, "n0", "r5"); the first is the owner's."""
        self.ask(SET_PERMS, path + "\0", *(perm + "\0" for perm in perms))

    def exists(self, path):
        try:
            self.read(path)
            return True
        except FileNotFoundError:
            return False

    def watch(self, path, token="token"):
        """Fires once at once, as every watch does."""
        self.ask(WATCH, path + "\0", token + "\0")

    def unwatch(self, path, token="token"):
        self.ask(UNWATCH, path + "\0", token + "\0")

    def event(self, limit_s=LIMIT_S):
        """The next watch event, (path, token); None if none comes."""
        if not self.events:
            self.sock.settimeout(limit_s)
            try:
                self.keep_event(self.receive()[1])
            except TimeoutError:
                return None
            finally:
                self.sock.settimeout(LIMIT_S)
        return self.events.pop(0)

    def transaction(self):
        return int(self.ask(TRANSACTION_START, "\0").rstrip(b"\0"))

    def end(self, transaction, is_good=True):
        self.ask(TRANSACTION_END, "T\0" if is_good else "F\0",
                 transaction=transaction)


class FakeXen:
    """A pretended Xen; `options` go to xenstored, for its quotas."""

    def __init__(self, options=()):
        self.options = list(options)
        self.dir = tempfile.mkdtemp(prefix="xusbip-xen.")
        self.hypervisor = None
        self.xenstored = None
        self.control = None
        self.stores = {}
        self.sockets = {}   # of domains that have a relay (xenstore_relay.py)
        self.uuids = {}
        self.processes = {}

    def __enter__(self):
        try:
            self.boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    # Start and end.

    def boot(self):
        self.hypervisor = subprocess.Popen(
            [sys.executable, HYPERVISOR, self.dir], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        assert self.hypervisor.stdout.readline() == b"ready\n"
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(LIMIT_S)
        self.control.connect(os.path.join(self.dir, "hypervisor"))
        self.order("control")
        self.start_xenstored()
        self.make_node("/local/domain/0", "", "n0", "r0")
        self.write("/local/domain/0/domid", 0)
        self.write("/local/domain/0/name", "Domain-0")

    def start_xenstored(self):
        path = os.path.join(self.dir, "dom0")
        env = {**os.environ, "FAKE_XEN_DIR": self.dir,
               "FAKE_XEN_DOMID": "store", "XENSTORED_PATH": path,
               "XENSTORED_RUNDIR": self.dir,
               "LD_PRELOAD": os.path.join(BUILD, "fake_xenstored.so")}
        with open(os.path.join(self.dir, "xenstored.log"), "wb") as log:
            self.xenstored = subprocess.Popen(
                [find_xenstored(), "-N", "-F", os.path.join(self.dir, "pid"),
                 *self.options], env=env, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL)

        def is_up():
            assert self.xenstored.poll() is None, self.log()
            try:
                return self.store(0)
            except (FileNotFoundError, ConnectionRefusedError):
                return None
        wait_until(is_up, "xenstored listens")

    def log(self):
        with open(os.path.join(self.dir, "xenstored.log"), "r",
                  encoding="utf-8") as log:
            return log.read()

    def stop(self):
        if self.control:
            self.kill_everything()
            self.control.close()
        for process in (self.xenstored, self.hypervisor):
            if process:
                process.kill()
                process.wait()
        if self.hypervisor:
            self.hypervisor.stdin.close()
            self.hypervisor.stdout.close()
        for store in self.stores.values():
            store.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def kill_everything(self):
        try:
            for domid, held in self.counts().items():
                if not held["is_zombie"]:
                    self.kill_processes(domid, self.pids(domid))
        except OSError:
            pass    # without a hypervisor nobody else has anything left
        for domid in list(self.processes):
            self.kill_processes(domid)

    def order(self, *words):
        """Tells the hypervisor; what it answers."""
        self.control.send(" ".join(map(str, words)).encode())
        verdict, _, rest = self.control.recv(1 << 20).decode().partition(" ")
        if not verdict:
            raise ConnectionError("the hypervisor of tests/fake/xen has ended")
        if verdict != "ok":
            raise OSError(int(rest), os.strerror(int(rest)), words)
        return rest

    # Domains.

    def add_domain(self, domid, name=None, uuid=None, limit=1024):
        """What xl create leaves behind. At most `limit` pages can be granted
        by it, as xen_gntalloc has it."""
        name = name or f"guest{domid}"
        uuid = uuid or str(uuids.uuid4())
        path = f"/local/domain/{domid}"
        port = self.order("add", domid, limit)
        self.uuids[domid] = uuid
        readable = ("n0", f"r{domid}")
        self.make_node(f"/vm/{uuid}", "", *readable)
        self.write(f"/vm/{uuid}/uuid", uuid)
        self.write(f"/vm/{uuid}/name", name)
        self.make_node(f"/libxl/{domid}", "", "n0")
        self.make_node(path, "", *readable)
        for key, value in (("vm", f"/vm/{uuid}"), ("name", name),
                           ("domid", domid), ("memory/target", 131072),
                           ("memory/static-max", 131072),
                           ("cpu/0/availability", "online"),
                           ("store/port", port), ("store/ring-ref", 1)):
            self.write(f"{path}/{key}", value)
        for key in GUEST_NODES:
            self.make_node(f"{path}/{key}", "", f"n{domid}")
        self.store(0).ask(INTRODUCE, f"{domid}\0", "1\0", f"{port}\0")
        return uuid

    def make_node(self, path, value, *perms):
        self.write(path, value)
        self.chmod(path, *perms)

    def destroy(self, domid):
        """What xl destroy does: its nodes go, then it and all in it, at once
        and without a word."""
        self.remove_nodes(domid)
        del self.uuids[domid]
        pids = self.pids(domid)
        self.order("destroy", domid)
        self.kill_processes(domid, pids)
        if domid in self.stores:
            self.stores.pop(domid).close()

    def remove_nodes(self, domid):
        """The first half of it: what is left is a domain that dies."""
        self.signal(domid, signal.SIGSTOP)
        for path in (f"/vm/{self.uuids[domid]}", f"/local/domain/{domid}",
                     f"/libxl/{domid}"):
            if self.exists(path):
                self.rm(path)

    def shutdown(self, domid, reason="poweroff"):
        """The guest has shut itself down (or crashed); xl has not looked."""
        self.signal(domid, signal.SIGSTOP)
        flags = CRASHED if reason == "crash" else SHUTDOWN
        self.order("state", domid, flags, REASONS[reason])

    def suspend(self, domid):
        self.shutdown(domid, "suspend")

    def resume(self, domid):
        """A suspend that was cancelled, in the same domain."""
        self.order("state", domid, RUNNING, 0)
        self.store(0).ask(RESUME, f"{domid}\0")
        self.unpause(domid)

    def pause(self, domid):
        self.signal(domid, signal.SIGSTOP)

    def unpause(self, domid):
        self.signal(domid, signal.SIGCONT)

    def drop_release_events(self, is_dropping=True):
        """From now on xenstored hears of no end: no @releaseDomain."""
        self.order("events", 0 if is_dropping else 1)

    def freeze(self, program):
        """Stops a program of dom0's (harness.Gateway), but not in the
        middle of a request: xenstored waits for the rest of one, and for that
        alone."""
        def has_stopped():
            stop_process(program.process.pid)
            if self.answers():
                return True
            program.signal(signal.SIGCONT)
            return False
        wait_until(has_stopped, "it has stopped between two requests")

    def answers(self, limit_s=1):
        """Does xenstored?"""
        with self.connect(0) as store:
            store.sock.settimeout(limit_s)
            try:
                return store.exists("/")
            except TimeoutError:
                return False

    def counts(self):
        """For each domain, zombies too, what its programs hold now."""
        counts = json.loads(self.order("counts"))
        return {int(domid): held for domid, held in counts.items()}

    def is_idle(self, domid):
        """Is nothing held by the programs of this domain?"""
        held = self.counts().get(domid, {})
        return not any(held.values())

    # Programs.

    def env(self, domid):
        """The environment of a program that runs in a domain."""
        # What is preloaded allocates nothing before the runtime. A failing
        # libxenvchan_server_init() frees a member that it never set: it is 0
        # on a fresh heap, but not on AddressSanitizer's.
        asan = (os.environ.get("ASAN_OPTIONS", "")
                + ":verify_asan_link_order=0:malloc_fill_byte=0")
        return {**os.environ, "FAKE_XEN_DIR": self.dir,
                "FAKE_XEN_DOMID": str(domid),
                "XENSTORED_PATH": self.sockets.get(
                    domid, os.path.join(self.dir, f"dom{domid}")),
                "LD_PRELOAD": os.path.join(BUILD, "fake_xen.so"),
                "ASAN_OPTIONS": asan}

    def start(self, domid, command, **options):
        """A program in a domain, which ends with it."""
        process = subprocess.Popen(command, env=self.env(domid), **options)
        self.processes.setdefault(domid, []).append(process)
        return process

    def pids(self, domid):
        """Those started here, and those that hold something of Xen's."""
        pids = {int(pid) for pid in self.order("pids", domid).split()}
        pids |= {process.pid for process in self.processes.get(domid, [])
                 if process.poll() is None}
        return pids - {os.getpid()}

    def signal(self, domid, number):
        for pid in self.pids(domid):
            send_signal(pid, number)

    def kill_processes(self, domid, pids=()):
        for pid in pids:
            send_signal(pid, signal.SIGKILL)
        for process in self.processes.pop(domid, []):
            process.kill()
            process.wait()

    # xenstore, as any domain.

    def store(self, domid=0):
        """A connection that stays, for calls by the domain's number."""
        if domid not in self.stores:
            self.stores[domid] = self.connect(domid)
        return self.stores[domid]

    def connect(self, domid=0):
        """A connection of its own, for watches and transactions."""
        return Store(os.path.join(self.dir, f"dom{domid}"))

    def read(self, path, as_domid=0):
        return self.store(as_domid).read(path)

    def write(self, path, value, as_domid=0):
        self.store(as_domid).write(path, value)

    def rm(self, path, as_domid=0):
        self.store(as_domid).rm(path)

    def ls(self, path, as_domid=0):
        return self.store(as_domid).ls(path)

    def chmod(self, path, *perms, as_domid=0):
        self.store(as_domid).chmod(path, *perms)

    def exists(self, path, as_domid=0):
        return self.store(as_domid).exists(path)

    def tree(self, path="/"):
        """Every path below one, with its value, as dom0 sees it; what is not
        there, or goes while it is read, is left out."""
        found = {}
        try:
            names = self.ls(path)
        except FileNotFoundError:
            return found
        for name in names:
            child = f"{path.rstrip('/')}/{name}"
            try:
                found.update({child: self.read(child), **self.tree(child)})
            except FileNotFoundError:
                pass
        return found


def send_signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
