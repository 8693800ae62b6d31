#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hostile sides in xenstore, in time: who writes without end, events that say
nothing, none that say something, and folders that go at any moment. The real
gateway and xusbip on the real xenstored, over a pretended Xen."""

import contextlib
import itertools
import os
import re
import subprocess
import time

from fake_xen_guest import FakeXenGuest
from harness import LIMIT_S, is_alive, run, wait_until
from xen_gateway_bed import XUSBIP, GuestAgent, bed
from xen_hostile_bed import (DRIVER, EPOCH, GUEST, assert_lists, driver_bed,
                             folder, lists, log_lines, make_pair)
from xen_flood import (IS_SANITIZED, MOST_KIB, cpu_s, flooding, most_looks,
                       rss_kib, wait_more)
from xenstored import DIRECTORY

STORM_S = 10
# Of one guest's channels (docs/protocol.md, "Guests"): so many in a row, then
# one a second; and one line a second about those that are refused.
BURST = 128


# Writing without end.

FLOOD = [f"{EPOCH} up", "garbage", f"{EPOCH} ask 0", "x" * 200, ""]


def attach_once(b, agent):
    assert_lists(b.xen, 6)
    with agent.client() as client:
        client.import_("zero0")
        assert client.get_descriptor(1).actual_length == 18
    claim = os.path.join(b.gateway.runtime_dir, "zero0.lock")
    wait_until(lambda: not os.path.exists(claim), "it is free")


def lines_about(gateway, domid):
    return [line for line in log_lines(gateway) if f"domain {domid} " in line]


def test_another_guest_lists_and_attaches_while_one_writes_for_ever(bench):
    with bed(bench, (5, 6)) as (b, guest, _):
        pid = b.gateway.process.pid
        nodes = [f"{guest.folder}/{name}" for name in (
            *range(8), "hold", "want/0", "63", "mine", "")]
        with GuestAgent(bench, b.xen, 6) as agent:
            attach_once(b, agent)
            rss, cpu, since = rss_kib(pid), cpu_s(pid), time.monotonic()
            slowest = 0
            with flooding(b.xen, 5, nodes, FLOOD) as total:
                for _ in range(20):
                    wait_more(total)
                    began = time.monotonic()
                    attach_once(b, agent)
                    slowest = max(slowest, time.monotonic() - began)
            lines = len(lines_about(b.gateway, 5))
            took = time.monotonic() - since
            used, grown = (cpu_s(pid) - cpu) / took, rss_kib(pid) - rss
        print(f"# {total.value / took:.0f} writes/s, {used:.2f} of a CPU, "
              f"{grown} KiB more, {lines} lines, slowest {slowest:.2f} s")
        # Three of each session: it starts, has failed, and has ended.
        assert lines < 3 * (BURST + took) + took + 20
        assert IS_SANITIZED or grown < MOST_KIB
        for name in nodes[:-1]:
            guest.unsay(name.rsplit("/", 1)[1])
        guest.unsay("want")
        b.wait_clean(30)


def test_a_guest_that_writes_without_end_is_looked_at_twenty_times_a_s(bench):
    with driver_bed(bench, relay_of=DRIVER) as (xen, _, relay):
        make_pair(xen)
        guest = FakeXenGuest(xen, GUEST, DRIVER)
        guest.wait(lambda: guest.word("devices"), "it is served")
        nodes = [f"{guest.folder}/{name}" for name in ("0", "hold", "x")]
        before, since = len(relay.requests), time.monotonic()

        def looks():
            return relay.requests[before:].count((DIRECTORY, guest.folder))
        with flooding(xen, GUEST, nodes, (f"{EPOCH} up", "garbage")) as total:
            wait_until(lambda: looks() > 40, "it is looked at")
            wait_more(total)
        seen, most = looks(), most_looks(total, time.monotonic() - since)
        assert seen <= most, (seen, most)


def test_a_gateway_that_writes_without_end_is_listed_once_a_s(bench):
    with bed(bench, (5, 6)) as (b, *_):
        path = f"{folder(0, 6)}/devices"

        def lists_of_6():
            return len(re.findall(r"domain 6 .*: started", b.gateway.log()))
        watching = b.xen.start(6, [XUSBIP, "list", "-r", "xen:0", "--watch"],
                               stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        b.gateway.wait_log(r"domain 6 .*: ended: ")
        before, since = lists_of_6(), time.monotonic()
        with flooding(b.xen, 0, [path], ("1", "2", "../3")):
            assert_lists(b.xen, 5)
            wait_until(lambda: lists_of_6() > before + 2, "it lists again")
        count, took = lists_of_6() - before, time.monotonic() - since
        assert count <= took + 2, (count, took)
        watching.terminate()
        watching.wait()
        b.wait_clean()


def test_a_guest_that_opens_and_shuts_its_folder_fills_no_log(bench):
    with driver_bed(bench) as (xen, gateway, _):
        guest = FakeXenGuest(xen, GUEST, DRIVER)
        guest.wait(lambda: guest.word("devices"), "it is served")
        for _ in range(500):
            for right in (f"r{DRIVER}", f"n{DRIVER}"):
                xen.chmod(guest.folder, f"n{GUEST}", right, as_domid=GUEST)
                guest.say("hold", "")
        xen.chmod(guest.folder, f"n{GUEST}", f"r{DRIVER}", as_domid=GUEST)
        guest.wait_open(0, guest.ask(0))
        assert len(log_lines(gateway)) < 15, log_lines(gateway)


# Raising a channel's event without end.

def cpu_of(pids):
    return [cpu_s(pid) for pid in pids]


def take(b, guest):
    """The process of a guest that has a device in channel 0, and the session
    that serves it."""
    _, client = guest.open(0)
    pid, = b.gateway.sessions()
    client.stdin.write(b"import mine\n")
    client.stdin.flush()
    claim = os.path.join(b.gateway.runtime_dir, "mine.lock")
    wait_until(lambda: os.path.exists(claim), "it has its device")
    return client, pid


def test_a_storm_of_events_costs_its_session_alone_which_can_be_ended(bench):
    more = 'zero "mine" { domains = { "u5" } }\n'
    with bed(bench, (5, 6), more) as (b, guest, _):
        with GuestAgent(bench, b.xen, 6) as agent:
            client, session = take(b, guest)
            pids = session, b.gateway.process.pid
            before = cpu_of(pids)
            client.stdin.write(b"storm\n")
            client.stdin.flush()
            end = time.monotonic() + STORM_S
            rounds = 0
            # Two channels each, and an honest guest, too, has so many in a
            # row and no more.
            while time.monotonic() < end and rounds < 20:
                attach_once(b, agent)
                rounds += 1
            used = [now - then for now, then in zip(cpu_of(pids), before)]
            done = b.admin("detach", "--from", "u5", "-b", "mine")
            _, err = done.communicate(timeout=LIMIT_S)
            assert done.returncode == 0, err
            wait_until(lambda: not is_alive(session), "the session has ended")
            assert client.poll() is None
            client.stdin.close()
            said = re.search(rb"stormed (\d+)", client.stdout.read())
            client.wait()
            guest.unsay(0)
            print(f"# {said[1].decode()} events: {used[0]:.1f} s of a CPU for "
                  f"the session, {used[1]:.1f} for the manager; {rounds} "
                  "attachments meanwhile")
            assert used[1] < used[0]
            attach_once(b, agent)
        b.wait_clean()


# Events that say nothing, and none that say something.

def test_a_hundred_thousand_events_of_nothing_cost_twenty_looks_a_s(bench):
    with driver_bed(bench, relay_of=DRIVER) as (xen, gateway, relay):
        make_pair(xen)
        guest = FakeXenGuest(xen, GUEST, DRIVER)
        guest.wait(lambda: guest.word("devices"), "it is served")
        epoch, _ = guest.open(0)
        root = os.path.dirname(folder(DRIVER, GUEST))
        before, since = len(relay.requests), time.monotonic()
        events = (("@releaseDomain", "xen:release"), (root, "xen:folder"),
                  (guest.folder, f"xen:{GUEST}"), ("nothing", "xen:77"),
                  ("nothing", "xen:-1"), ("nothing", ""), ("", "x" * 900))
        for _ in range(20):
            for path, token in events:
                relay.tell(path, token, 1000)
        second, _ = guest.open(1)
        took = time.monotonic() - since
        done = relay.requests[before:]
        for path in (root, guest.folder):
            assert done.count((DIRECTORY, path)) <= 21 * took + 2, took
        assert guest.word(0) == f"{epoch} open"
        assert guest.word(1) == f"{second} open"
        assert not re.search("gone|Sanitizer", gateway.log())


def test_a_domain_whose_end_is_told_early_and_never_again_is_let_go(bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        epoch, _ = guest.open(0)
        released = b.xen.connect()
        released.watch("@releaseDomain")
        released.event()
        b.xen.shutdown(5)
        assert released.event()
        released.close()
        _, client = other.open(1)
        other.let_go(1, client)
        assert guest.word(0) == f"{epoch} open"
        b.xen.drop_release_events()
        b.xen.destroy(5)
        wait_until(lambda: 5 not in b.xen.counts(), "it is no zombie", 30)
        wait_until(lambda: not b.xen.exists(folder(0, 5)), "its folder is gone",
                   30)
        _, client = other.open(0)
        other.let_go(0, client)
        b.wait_clean()


# Folders that go at any moment.

def remove_pair(xen):
    for path in (folder(DRIVER, GUEST), folder(GUEST, DRIVER)):
        xen.rm(path)


def has_settled(gateway):
    """Has it seen that what it served is gone?"""
    return gateway.count("-> ABSENT") == gateway.count("ABSENT + OFFERED")


def is_served_anew(xen):
    """As the manager, makes the pair until nobody has removed it again."""
    mine = folder(DRIVER, GUEST)
    if not xen.exists(mine + "/peer"):
        with contextlib.suppress(FileNotFoundError):
            make_pair(xen)
    return xen.exists(mine + "/devices")


def check_removals(bench, relay_of, step):
    """Before each request in a list's life, in turn."""
    with driver_bed(bench, relay_of=relay_of) as (xen, gateway, relay):
        env = relay.env() if relay_of == GUEST else None
        roots = [os.path.dirname(folder(*pair))
                 for pair in ((DRIVER, GUEST), (GUEST, DRIVER))]
        for root, owner in zip(roots, (DRIVER, GUEST)):
            xen.make_node(root, "", f"n{owner}")
        for number in itertools.count(1, step):
            wait_until(lambda: is_served_anew(xen), "the guest is served")
            relay.before(number, lambda: remove_pair(xen))
            status, err = lists(xen, GUEST, DRIVER, env)
            wait_until(lambda: not gateway.sessions(), f"{number}: it has ended")
            if relay.forget():
                break
            wait_until(lambda: has_settled(gateway), f"{number}: seen", 30)
            for root in roots:
                wait_until(lambda: not xen.ls(root), f"{number}: gone", 30)
            wait_until(lambda: not xen.counts()[DRIVER]["granted"], "nothing")
            assert status in (0, 1, 4, 5, 11), (number, status, err)
        assert number > 15
        print(f"# {number} requests")
        assert status == 0, (number, status, err)


def test_folders_that_go_before_any_request_of_the_guests_stay_gone(bench):
    check_removals(bench, GUEST, 1)


def test_folders_that_go_before_any_request_of_the_gateways_stay_gone(bench):
    check_removals(bench, DRIVER, 1)


run(globals())
