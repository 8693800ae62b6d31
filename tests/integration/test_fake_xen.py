#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The pretended Xen of tests/fake/xen behaves as the real one: who may read
what, who hears of what, and what is left when one side dies. The real xenstored
and the real libxenvchan run over it."""

import errno
import itertools
import os
import signal
import subprocess

from harness import BUILD, run, wait_until
from xenstored import FakeXen

TOOL = os.path.join(BUILD, "tests", "integration", "xen_vchan")
PATH = "/local/domain/0/data/vchan"
RING_BYTES = 1 << 16
RING_PAGES = 2 * RING_BYTES // 4096 + 1
NOTHING = {"granted": 0, "mapped": 0, "ports": 0, "handles": 0,
           "is_zombie": False}
numbers = itertools.count()


class End:
    """A process with one end of a vchan."""

    def __init__(self, xen, domid, role, peer, path=PATH, ring=RING_BYTES):
        self.log_path = os.path.join(xen.dir, f"{role}{next(numbers)}")
        with open(self.log_path, "wb") as log:
            self.process = xen.start(
                domid, [TOOL, role, str(peer), path, str(ring)],
                stdin=subprocess.PIPE, stdout=log, stderr=log)
        wait_until(lambda: "ready" in self.lines() or self.failure(),
                   f"the {role} is there")

    def lines(self):
        with open(self.log_path, encoding="utf-8") as log:
            return log.read().splitlines()

    def failure(self):
        return next((int(line.split()[1]) for line in self.lines()
                     if line.startswith("failed ")), None)

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def hears(self, line):
        wait_until(lambda: line in self.lines(), f"{line!r} after "
                   f"{self.lines()}")

    def ask(self, command):
        """The line that answers a command."""
        def answers():
            return [line for line in self.lines()
                    if line.split()[0] == command]
        known = len(answers())
        self.say(command)
        return wait_until(lambda: answers()[known:], f"{command} answered")[0]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Lets it go in order; its exit status."""
        self.process.stdin.close()
        return self.process.wait(10)


def pair(xen, guest=5, path=PATH):
    """dom0 serves, a guest is the client."""
    xen.store(0).write(path, "")
    xen.chmod(path, "n0", f"r{guest}")
    server = End(xen, 0, "server", guest, path)
    client = End(xen, guest, "client", 0, path)
    client.hears("is_open 1")
    server.hears("is_open 1")
    return server, client


def errno_of(call, *args, **options):
    try:
        call(*args, **options)
    except OSError as error:
        return error.errno
    return 0


# xenstored.


def test_a_domain_may_write_its_data_and_nothing_of_others(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        xen.add_domain(6)
        xen.write("data/mine", "1", as_domid=5)
        assert xen.read("/local/domain/5/data/mine") == "1"
        assert xen.read("name", as_domid=5) == "guest5"
        for path in ("/local/domain/5/name", "/local/domain/6/data/x",
                     "/local/domain/0/x", "/tool"):
            assert errno_of(xen.write, path, "x", as_domid=5) == errno.EACCES


def test_what_is_private_is_read_by_whom_it_is_given_to(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        xen.add_domain(6)
        path = "/local/domain/5/data/key"
        xen.write(path, "value", as_domid=5)
        assert errno_of(xen.read, path, as_domid=6) == errno.EACCES
        xen.chmod(path, "n5", "r6", as_domid=5)
        assert xen.read(path, as_domid=6) == "value"
        assert xen.store(6).perms(path) == ["n5", "r6"]


def test_a_watch_sees_what_another_domain_writes(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        xen.add_domain(6)
        path = "/local/domain/5/data/key"
        xen.write(path, "", as_domid=5)
        xen.chmod(path, "n5", "r6", as_domid=5)
        with xen.connect(6) as watcher, xen.connect(6) as other:
            watcher.watch(path, "mine")
            other.watch(path, "theirs")
            assert watcher.event() == (path, "mine")
            assert other.event() == (path, "theirs")
            xen.write(path, "2", as_domid=5)
            assert watcher.event() == (path, "mine")
            other.unwatch(path, "theirs")
        with xen.connect(5) as relative:
            relative.watch("data")
            assert relative.event() == ("data", "token")
            xen.write("data/new", "", as_domid=5)
            assert relative.event() == ("data/new", "token")


def test_a_client_that_goes_leaves_no_watch_and_no_transaction(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        for _ in range(30):     # 10 transactions and 128 watches are allowed
            with xen.connect(5) as client:
                client.transaction()
                for number in range(10):
                    client.watch("data", str(number))


def test_a_transaction_that_was_crossed_is_tried_again(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        with xen.connect(5) as client:
            transaction = client.transaction()
            assert errno_of(client.read, "data/x", transaction) == errno.ENOENT
            client.write("data/y", "1", transaction)
            xen.write("/local/domain/5/data/x", "1")
            assert errno_of(client.end, transaction) == errno.EAGAIN
            transaction = client.transaction()
            client.write("data/y", "2", transaction)
            client.end(transaction)
        assert xen.read("/local/domain/5/data/y") == "2"


def test_the_default_quotas_hold_for_guests_only(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        long = "x" * 2049
        assert errno_of(xen.write, "data/a", long, as_domid=5) == errno.ENOSPC
        xen.write("/local/domain/5/data/a", long)
        with xen.connect(5) as client:
            # xenstored compares after it counted: one more than it says.
            for number in range(129):
                client.watch("data", str(number))
            assert errno_of(client.watch, "data") == errno.E2BIG
            opened = [client.transaction() for _ in range(11)]
            assert errno_of(client.transaction) == errno.ENOSPC
            for transaction in opened:
                client.end(transaction, is_good=False)
            xen.write("data/a", "y" * 2000, as_domid=5)
            assert client.read("data/a") == "y" * 2000


def test_quotas_are_options_of_xenstored(_bench):
    with FakeXen(["--watch-nb", "2"]) as xen:
        xen.add_domain(5)
        with xen.connect(5) as client:
            for number in range(3):
                client.watch("data", str(number))
            assert errno_of(client.watch, "data", "3") == errno.E2BIG


def test_the_end_of_a_domain_is_told_by_release_domain(_bench):
    with FakeXen() as xen, xen.connect() as watcher:
        xen.add_domain(5)
        xen.add_domain(6)
        guest = xen.store(5)
        xen.write("data/x", "", as_domid=5)
        watcher.watch("@releaseDomain")
        watcher.event()
        xen.destroy(5)
        assert watcher.event() == ("@releaseDomain", "token")
        assert not xen.exists("/local/domain/5")
        assert errno_of(guest.read, "name") != 0
        xen.shutdown(6)
        assert watcher.event() == ("@releaseDomain", "token")
        assert xen.exists("/local/domain/6")
        xen.destroy(6)
        assert watcher.event() == ("@releaseDomain", "token")
        xen.add_domain(5, "another")
        assert xen.read("name", as_domid=5) == "another"
        assert not xen.exists("/local/domain/5/data/x")


def test_events_of_an_end_can_be_lost(_bench):
    with FakeXen() as xen, xen.connect() as watcher:
        xen.add_domain(5)
        xen.add_domain(6)
        watcher.watch("@releaseDomain")
        watcher.event()
        xen.drop_release_events()
        xen.destroy(5)
        watcher.watch("/fence")
        assert watcher.event() == ("/fence", "token")
        xen.drop_release_events(False)
        xen.destroy(6)
        assert watcher.event() == ("@releaseDomain", "token")


def test_a_suspended_domain_is_there_when_it_is_resumed(_bench):
    with FakeXen() as xen, xen.connect() as watcher:
        xen.add_domain(5)
        watcher.watch("@releaseDomain")
        watcher.event()
        for _ in range(2):
            xen.suspend(5)
            assert watcher.event() == ("@releaseDomain", "token")
            xen.resume(5)
        assert xen.read("name", as_domid=5) == "guest5"


# libxenvchan.


def test_a_vchan_carries_data_both_ways_and_leaves_nothing(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        server, client = pair(xen)
        client.say("send there")
        server.hears("got there")
        server.say("send back")
        client.hears("got back")
        held = xen.counts()
        assert held[0] == {**NOTHING, "granted": RING_PAGES, "ports": 1,
                           "handles": 2}
        assert held[5] == {**NOTHING, "mapped": RING_PAGES, "ports": 1,
                           "handles": 2}
        client.say("close")
        client.hears("closed")
        server.hears("is_open 0")
        assert server.end() == 0 and client.end() == 0
        assert xen.counts() == {0: NOTHING, 5: NOTHING}
        assert not xen.exists(PATH)


def test_a_vchan_is_as_quick_as_its_ends_once_in_a_sandbox(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        server, client = pair(xen)
        assert server.ask("sandbox") == client.ask("sandbox") == "sandbox 0"
        client.say("send there")
        server.hears("got there")
        server.say("send back")
        client.hears("got back")
        client.say("close")
        server.hears("is_open 0")


def test_a_killed_client_closes_the_vchan_for_its_server(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        server, client = pair(xen)
        client.kill()
        server.hears("is_open 0")
        wait_until(lambda: xen.counts()[5] == NOTHING, "the guest is idle")
        assert server.end() == 0
        assert xen.is_idle(0)


def test_a_killed_server_closes_the_vchan_for_its_client(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        server, client = pair(xen)
        server.kill()
        client.hears("is_open 0")
        # Pages that the other side maps cannot be taken back.
        wait_until(lambda: xen.counts()[0]["handles"] == 0, "it is gone")
        assert xen.counts()[0]["granted"] == RING_PAGES
        assert sorted(xen.ls(PATH)) == ["event-channel", "ring-ref"]
        client.kill()
        wait_until(lambda: xen.is_idle(0), "the pages are free")


def test_a_destroyed_guest_gives_its_server_no_event(_bench):
    with FakeXen() as xen, xen.connect() as watcher:
        xen.add_domain(5)
        xen.add_domain(6)
        server, client = pair(xen)
        before = server.ask("state")
        watcher.watch("@releaseDomain")
        watcher.event()
        xen.destroy(5)
        assert client.process.returncode == -signal.SIGKILL
        assert watcher.event() == ("@releaseDomain", "token")
        assert server.ask("state") == before
        assert before.startswith("state 1 ")
        assert xen.counts() == {0: {**NOTHING, "granted": RING_PAGES,
                                    "ports": 1, "handles": 2}, 6: NOTHING}
        assert server.end() == 0
        assert xen.is_idle(0)


def test_a_destroyed_granter_is_a_zombie_while_its_pages_are_mapped(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        path = "/local/domain/5/data/vchan"
        xen.write(path, "", as_domid=5)
        server = End(xen, 5, "server", 0, path)
        client = End(xen, 0, "client", 5, path)
        server.hears("is_open 1")
        before = client.ask("state")
        xen.destroy(5)
        assert client.ask("state") == before
        assert xen.counts()[5]["is_zombie"]
        client.kill()
        wait_until(lambda: 5 not in xen.counts(), "the zombie is gone")
        assert xen.is_idle(0)


def test_pages_are_only_granted_up_to_the_limit(_bench):
    with FakeXen() as xen:
        xen.add_domain(5, limit=RING_PAGES)
        xen.add_domain(6, limit=RING_PAGES - 1)
        server = End(xen, 5, "server", 0, "data/vchan")
        assert server.failure() is None
        assert End(xen, 5, "server", 0, "data/two").failure() == errno.ENOSPC
        assert End(xen, 6, "server", 0, "data/one").failure() == errno.ENOSPC
        wait_until(lambda: xen.is_idle(6), "what failed holds nothing")
        assert server.end() == 0
        assert xen.is_idle(5)


def test_pages_and_ports_are_for_the_domain_they_were_given_to(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        xen.add_domain(6)
        xen.write(PATH, "")
        xen.chmod(PATH, "r0")
        server = End(xen, 0, "server", 5)
        for key in ("ring-ref", "event-channel"):
            xen.chmod(f"{PATH}/{key}", "n0", "r5", "r6")
        assert End(xen, 6, "client", 0).failure()
        assert End(xen, 5, "client", 0).failure() is None
        server.hears("is_open 1")


def test_a_paused_guest_answers_when_it_runs_again(_bench):
    with FakeXen() as xen:
        xen.add_domain(5)
        server, client = pair(xen)
        xen.pause(5)
        server.say("send hello")
        server.hears("sent 5")
        assert "got hello" not in client.lines()
        xen.unpause(5)
        client.hears("got hello")


def test_many_short_lives_leave_nothing_behind(_bench):
    with FakeXen() as xen:
        xen.add_domain(1)
        xen.destroy(1)
        before = xen.tree()
        for domid in range(1, 101):
            xen.add_domain(domid)
            xen.write("data/x", "1", as_domid=domid)
            xen.destroy(domid)
        assert xen.tree() == before
        assert xen.counts() == {0: NOTHING}


run(globals())
