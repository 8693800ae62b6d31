#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hostile sides in xenstore: who may write what the other reads, whatever is
written there, and quotas; and in the rings behind it. The real gateway, agent and
xusbip on the real xenstored and libxenvchan, over a pretended Xen."""

import contextlib
import os
import random
import re
import signal
import threading
import time

from fake_xen_gateway import FakeXenGateway
from fake_xen_guest import FakeXenGuest
from harness import LIMIT_S, run, wait_until
from test_xen_agent import NO_VHCI, Pair
from test_xen_agent import GuestAgent as PlayedAgent
from xen_gateway_bed import (CONFIG, EXIT_BUSY, GRANT_LIMIT, GuestAgent,
                             bed)
from xen_hostile_bed import (DRIVER, EPOCH, GUEST, assert_lists, driver_bed,
                             folder, lists, log_lines)
from xenstored import WRITE, FakeXen, Store

# Of a channel of the default size; and what max_sessions_per_peer is by default.
PAGES = 129
MAX_CHANNELS = 40

# A value of 3,072 bytes is refused to a guest by default, so it never gets to
# us; here it does.
LARGE_VALUES = ["-S", "4096"]

NO_NUMBERS = ["", " ", "-1", "+7", "007", "7 ", " 7", "7x", "0x7", "1e3", "\xb2",
              "4294967295", "4294967296", "18446744073709551616", "9" * 200,
              "-9223372036854775808", "%n%s", "../0", "/local/domain/0"]
NO_WORDS = ["x", "\n", "../../../0/data/xusbip/6/0", "\0", "a\0b", "\xff" * 8,
            "\x1b[2J", "\x80" * 255, "x" * 255, "x" * 256, "x" * 2047,
            "x" * 3072, f"{EPOCH} ask 0".ljust(3072), "0" * 16 + " ask 0",
            f"{EPOCH} ask", f"{EPOCH} ask +7", f"{EPOCH} ask 007",
            f"{EPOCH} ask -1", f"{EPOCH} ask 4294967296", f"{EPOCH}  ask 0",
            f"{EPOCH} ask 0\0", f"{EPOCH} ask 0\n", f"{EPOCH[:15]} ask 0",
            f"{EPOCH.upper()} ask 0", f"{EPOCH} open", f"{EPOCH} closed 0 x",
            f"{EPOCH} done", f"{EPOCH} resumed", f"{EPOCH} attached 0",
            f"{EPOCH} attached 007", f"{EPOCH} failed 1 {'y' * 300}",
            f"{EPOCH} failed 1 \x1b[31mred", f"{EPOCH} attach ../../1-1",
            f"{EPOCH} hold", f"{EPOCH} resume"]
VALUES = [value.encode("latin-1") for value in NO_NUMBERS + NO_WORDS]


def outside(tree, *folders):
    """Of a tree, what is not below these, or of the store itself."""
    return {path: value for path, value in tree.items()
            if not path.startswith((*folders, "/tool"))}


# Who may write what: every node that one of us reads. dom0 may write all.

OWNERS = {
    f"/local/domain/{GUEST}/name": (),
    f"/local/domain/{GUEST}/vm": (),
    f"/local/domain/{GUEST}/domid": (),
    f"/local/domain/{GUEST}/data/xusbip/hold": (GUEST,),
    f"/local/domain/{GUEST}/data/xusbip/held": (GUEST,),
    folder(GUEST, DRIVER): (GUEST,),
    folder(GUEST, DRIVER) + "/name": (),
    folder(GUEST, DRIVER) + "/7": (GUEST,),
    folder(GUEST, DRIVER) + "/hold": (GUEST,),
    folder(GUEST, DRIVER) + "/want": (GUEST,),
    folder(GUEST, DRIVER) + "/want/0": (GUEST,),
    folder(DRIVER, GUEST): (DRIVER,),
    folder(DRIVER, GUEST) + "/peer": (),
    folder(DRIVER, GUEST) + "/devices": (DRIVER,),
    folder(DRIVER, GUEST) + "/7": (DRIVER,),
    folder(DRIVER, GUEST) + "/7/ring-ref": (DRIVER,),
    folder(DRIVER, GUEST) + "/7/event-channel": (DRIVER,),
    folder(DRIVER, GUEST) + "/hold": (DRIVER,),
    folder(DRIVER, GUEST) + "/want": (DRIVER,),
    folder(DRIVER, GUEST) + "/want/0": (DRIVER,),
}


def is_allowed(store, what, path, *args):
    try:
        what(store, path, *args)
    except OSError as error:
        assert isinstance(error, (PermissionError, FileNotFoundError)), error
        return False
    return True


def test_each_node_that_is_read_is_written_by_its_owner_alone(bench):
    with driver_bed(bench) as (xen, *_):
        guest = FakeXenGuest(xen, GUEST, DRIVER)
        guest.open(7)
        for name in ("hold", "want/0"):
            guest.say(name, "")
            xen.write(f"{guest.gateways_folder}/{name}", "", as_domid=DRIVER)
        for name in ("hold", "held"):
            xen.write(f"data/xusbip/{name}", "", as_domid=GUEST)
        known = {path for path in xen.tree("/local/domain")
                 if re.search(r"/xusbip/(5|9)(/|$)", path)}
        assert known <= set(OWNERS), known - set(OWNERS)
        for path, owners in OWNERS.items():
            value = xen.read(path)
            for domid in (GUEST, 6, DRIVER):
                store = xen.store(domid)
                assert is_allowed(store, Store.write, path, value) == (
                    domid in owners), (path, domid)
                if domid not in owners:
                    for what, *args in ((Store.rm,), (Store.chmod, f"n{domid}"),
                                        (Store.write, "x")):
                        if domid != GUEST or not path.startswith(
                                f"/local/domain/{GUEST}/data"):
                            assert not is_allowed(store, what, path, *args), (
                                path, domid, what)


def test_a_third_domain_reads_and_hears_nothing_of_a_pair(bench):
    with driver_bed(bench) as (xen, *_):
        guest = FakeXenGuest(xen, GUEST, DRIVER)
        with xen.connect(6) as third:
            for path in (folder(GUEST, DRIVER), folder(DRIVER, GUEST),
                         "/local/domain/6/data"):
                third.watch(path)
                third.event()
            guest.open(7)
            paths = [path for path in xen.tree("/local/domain")
                     if "/xusbip" in path]
            assert folder(DRIVER, GUEST) + "/7/ring-ref" in paths
            for path in paths:
                for what in (Store.read, Store.ls, Store.perms):
                    assert not is_allowed(third, what, path), path
            xen.write("/local/domain/6/data/mine", "", as_domid=6)
            assert third.event()[0] == "/local/domain/6/data/mine"


# Values.

def say_all(xen, domid, path, names, values=None):
    """Every value, in all these nodes at once."""
    for value in values or VALUES:
        for name in names:
            xen.store(domid).ask(WRITE, f"{path}/{name}\0", value)
        yield value


GUESTS_NODES = ["0", "1", "63", "64", "00", "7_", "-1", "007", "hold", "want/0",
                "want/007", "want/64", "held", "peer", "devices", "0/ring-ref",
                "x" * 200]


def test_no_value_of_a_guests_does_anything_outside_its_own_folder(bench):
    with FakeXen(LARGE_VALUES) as xen:
        xen.add_domain(5, "u5")
        xen.add_domain(6, "u6")
        gateway = bench.gateway(CONFIG.format('"u5", "u6"', ""), ["--debug"],
                                xen.env(0))
        guest, other = FakeXenGuest(xen, 5), FakeXenGuest(xen, 6)
        before = outside(xen.tree(), guest.folder, guest.gateways_folder)
        words = set()
        for number, _ in enumerate(say_all(xen, 5, guest.folder,
                                           GUESTS_NODES)):
            for name in xen.ls(guest.gateways_folder):
                words.add((name, guest.word(name)))
            if number % 10 == 0:
                epoch = other.ask(0)
                other.wait_open(0, epoch)
                other.unsay(0)
                other.wait_nothing(0)
        # It may be that a word was looked at, but then it was answered.
        for name, word in words:
            assert name in ("peer", "devices", "0", "1", "63"), name
            assert name in ("peer", "devices") or not word or re.fullmatch(
                "[0-9a-f]{16} (open|closed [0-9]+ [ -~]+)", word), word
        for name in GUESTS_NODES:
            guest.unsay(name)
        wait_until(lambda: not gateway.sessions(), "no session is left")
        guest.wait_nothing(0)
        assert outside(xen.tree(), guest.folder,
                       guest.gateways_folder) == before
        assert xen.ls(guest.gateways_folder) == xen.ls(other.gateways_folder)
        assert len(log_lines(gateway)) < 60, log_lines(gateway)
        assert not re.search("[^\n -~]", gateway.log())
        guest.wait_open(0, guest.ask(0))
        gateway.clean_up()


def test_no_value_but_the_answer_answers_a_want(bench):
    with bed(bench) as (b, guest):
        attach = b.admin("attach", "--to", "u5", "-b", "zero0")
        guest.wait(lambda: guest.word("want/0"), "it is to take a device")
        epoch = guest.word("want/0")[:16]
        wrong = [f"{epoch} {rest}".encode() for rest in (
            "attached", "attached +7", "attached 007", "attached -1",
            "attached 4294967296", "failed", "failed 1", "failed 256 x",
            "failed -1 x", "failed 1 \x1b[2J", "done", "attach zero0")]
        small = [value for value in VALUES if len(value) <= 1900]
        for _ in say_all(b.xen, 5, guest.folder, ["want/0"], small + wrong):
            assert attach.poll() is None
        guest.say("want/0", f"{epoch} failed 6 not today")
        out, err = attach.communicate(timeout=LIMIT_S)
        assert attach.returncode == 6 and "not today" in err, (out, err)
        guest.wait_nothing("want/0")


def serve_badly(gateway, xen, ring_ref, event_channel):
    ask = gateway.wait_ask()
    path = f"{gateway.folder}/{ask.channel}"
    gateway.say(ask.channel, "")
    for name, value in (("ring-ref", ring_ref),
                        ("event-channel", event_channel)):
        xen.make_node(f"{path}/{name}", "", f"n{gateway.domid}",
                      f"r{gateway.guest}")
        xen.store(0).ask(WRITE, f"{path}/{name}\0", value)
    gateway.say(ask.channel, f"{ask.epoch} open")
    return ask


def test_no_ring_ref_and_no_event_channel_harm_a_guest(bench):
    values = [v.encode("latin-1") for v in [*NO_NUMBERS, "\0", "x" * 3072,
                                            "\xff" * 100, "1", "12345"]]
    with FakeXen() as xen:
        xen.add_domain(5, "guest")
        gateway = FakeXenGateway(xen, 5)
        before = outside(xen.tree(), gateway.folder, gateway.guest_folder)
        for value in values:
            for pair in ((value, b"1"), (b"1", value)):
                results = []
                thread = threading.Thread(
                    target=lambda found=results: found.append(lists(xen)))
                thread.start()
                ask = serve_badly(gateway, xen, *pair)
                thread.join()
                assert results and results[0][0] in (1, 5, 11), (pair, results)
                gateway.wait_silence()
                gateway.unsay(ask.channel)
        wait_until(lambda: xen.is_idle(5), "the guest has let go")
        assert outside(xen.tree(), gateway.folder,
                       gateway.guest_folder) == before


GATEWAYS_NODES = ["devices", "hold", "want/0", "want/007", "want/-1", "0", "63",
                  "name", "peer"]


def test_no_value_of_a_gateways_moves_an_agent_or_another_gateway(bench):
    with FakeXen(LARGE_VALUES) as xen:
        xen.add_domain(GUEST)
        xen.add_domain(7)
        hostile, pair = Pair(xen, 7), Pair(xen)
        with PlayedAgent(bench, xen) as agent:
            words = ("hold", "resume", "attach")
            values = [v for v in VALUES
                      if not v[len(EPOCH):].strip().startswith(
                          tuple(word.encode() for word in words))]
            before = outside(xen.tree(), hostile.mine, hostile.guests,
                             pair.mine, pair.guests)
            for number, _ in enumerate(say_all(xen, 7, hostile.mine,
                                               GATEWAYS_NODES, values)):
                if number % 10 == 0:
                    word = pair.want(0, "1-1")
                    pair.wait_answer("want/0", f"{word} failed {NO_VHCI}")
            # What dom0 itself writes there is read with as little trust.
            for value in VALUES:
                xen.store(0).ask(WRITE, f"{hostile.guests}/name\0", value)
            word = pair.want(0, "1-1")
            pair.wait_answer("want/0", f"{word} failed {NO_VHCI}")
            assert xen.ls(hostile.guests) == ["name"]
            assert outside(xen.tree(), hostile.mine, hostile.guests,
                           pair.mine, pair.guests) == before
            assert agent.count("xen:7: ") < 5, agent.log()
            assert not re.search("[^\n -~]", agent.log())


# Quotas.

HALF = ["-E", "500", "-S", "1024", "-W", "64", "-t", "5", "-A", "3",
        "-Q", "transaction-nodes=512", "-Q", "memory=1280000",
        "-Q", "outstanding=10"]


def attach_thirty(bench, options):
    more = "max_sessions_per_peer = 64\n" + "".join(
        f'zero "z{i}" {{ domains = {{ "u5" }} }}\n' for i in range(30))
    with driver_bed(bench, options, more=more) as (xen, gateway, _):
        guest = FakeXenGuest(xen, GUEST, DRIVER)
        guest.wait(lambda: guest.word("devices"), "it is served")
        with GuestAgent(bench, xen, GUEST) as agent:
            agent.write_config([f"xen:{DRIVER}"])
            agent.process.send_signal(signal.SIGHUP)
            agent.wait_log("1 gateway")
            clients = [agent.client() for _ in range(30)]
            threads = [threading.Thread(target=client.import_, args=(f"z{i}",))
                       for i, client in enumerate(clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for client in clients:
                assert client.get_descriptor(1).actual_length == 18
            assert len(gateway.sessions()) == 30
            assert_lists(xen, GUEST, DRIVER)
            for client in clients:
                client.close()
            wait_until(lambda: not gateway.sessions(), "they have ended", 30)
        guest.wait(lambda: not [name for name in xen.ls(guest.folder)
                                if name.isdigit()], "nothing is said")


def test_thirty_attachments_at_once_fit_into_default_quotas(bench):
    attach_thirty(bench, [])


def test_thirty_attachments_at_once_fit_into_half_of_each_quota(bench):
    attach_thirty(bench, HALF)


def fill_nodes(xen, domid):
    """All the nodes that it may have; what takes them away again."""
    path = f"/local/domain/{domid}/data/fill"
    with contextlib.suppress(OSError):
        for number in range(2000):
            xen.write(f"{path}/{number // 100}/{number}", "", as_domid=domid)
        raise AssertionError("there is no quota of nodes")
    return lambda: xen.rm(path, as_domid=domid)


def fill_watches(xen, domid):
    store = xen.connect(domid)
    with contextlib.suppress(OSError):
        for number in range(200):
            store.watch(f"/local/domain/{domid}/data/{number}")
        raise AssertionError("there is no quota of watches")
    return store.close


def fill_transactions(xen, domid):
    store = xen.connect(domid)
    with contextlib.suppress(OSError):
        for _ in range(20):
            store.transaction()
        raise AssertionError("there is no quota of transactions")
    return store.close


def test_a_domain_without_quota_left_is_told_and_goes_on_later(bench):
    with driver_bed(bench) as (xen, gateway, _):
        guest = FakeXenGuest(xen, GUEST, DRIVER)
        assert_lists(xen, GUEST, DRIVER)
        for domid in (GUEST, DRIVER):
            for fill in (fill_nodes, fill_watches, fill_transactions):
                free = fill(xen, domid)
                status, err = lists(xen, GUEST, DRIVER)
                print(f"# domain {domid}, {fill.__name__}: {status} {err}",
                      end="" if err else "\n")
                free()
                wait_until(lambda: lists(xen, GUEST, DRIVER)[0] == 0,
                           "it goes on")
                wait_until(lambda: not gateway.sessions(), "it has ended")
                guest.wait_nothing(0)
        assert len(log_lines(gateway)) < 100, log_lines(gateway)


# Rings.

def test_a_guest_that_maps_and_leaves_a_thousand_times_holds_up_nobody(bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        served, slowest, began = 0, 0, time.monotonic()
        for number in range(1000):
            epoch = guest.ask(0)
            guest.wait_answer(0, epoch)
            if guest.word(0) == f"{epoch} open":
                served += 1
                process = guest.map(0)
                guest.say(0, f"{epoch} up")
                process.kill()
                process.wait()
                process.stdin.close()
                process.stdout.close()
                b.xen.processes[5].remove(process)
            guest.unsay(0)
            if number % 100 == 99:
                since = time.monotonic()
                epoch, client = other.open(0)
                other.let_go(0, client)
                other.wait_nothing(0)
                slowest = max(slowest, time.monotonic() - since)
        print(f"# {served} of 1000 served, slowest of others {slowest:.2f} s")
        # 128 in a row, then one a second
        assert 128 <= served <= 130 + time.monotonic() - began
        assert len(log_lines(b.gateway)) < 3 * served + 100
        b.wait_clean(30)


def hoard(xen, guest, channel):
    """Says that it lets go of a channel and keeps it mapped: why it gets no
    more, or None."""
    epoch = guest.ask(channel, 0)
    guest.wait_answer(channel, epoch)
    why = None
    if guest.word(channel) == f"{epoch} open":
        guest.map(channel)
        guest.say(channel, f"{epoch} up")
    else:
        status, why = guest.wait_closed(channel, epoch)
        assert status == EXIT_BUSY, (status, why)
    guest.unsay(channel)
    guest.wait_nothing(channel)
    return why


def hoard_until_refused(b, guest):
    """How many channels it got, of which it keeps all mapped; and why no more."""
    number = 0
    while not (why := hoard(b.xen, guest, number % 8)):
        number += 1
    return number, why


def most_for(since):
    """Pages: half, and what is forgiven of it in an hour; and the part of a
    page that was left over before."""
    return GRANT_LIMIT // 2 * (1 + (time.monotonic() - since) / 3600) + 1


def check_others_get_theirs(b, guest, other, since):
    """As many channels as one peer may have, the first 9 of them with the
    largest rings; while the other guest goes on: the pages of each."""
    kept, pages = [], []
    hoarded = b.xen.counts()[0]["granted"]
    for channel in range(MAX_CHANNELS):
        hoard(b.xen, guest, 0)
        before = b.xen.counts()[0]["granted"]
        epoch = other.ask(channel, 0)
        other.wait_open(channel, epoch)
        pages.append(b.xen.counts()[0]["granted"] - before)
        kept.append((channel, other.map(channel)))
        other.say(channel, f"{epoch} up")
    hoarded_now = b.xen.counts()[0]["granted"] - sum(pages)
    assert hoarded <= hoarded_now <= most_for(since), hoarded_now
    for channel, client in kept:
        other.let_go(channel, client)
    assert_lists(b.xen, 6)
    # What it has kept is free with its death, not before.
    wait_until(lambda: b.xen.counts()[0]["granted"] == hoarded_now,
               "the others have let go")
    b.xen.destroy(5)
    b.wait_clean(30)
    return pages


def test_a_guest_that_keeps_all_rings_mapped_leaves_half_of_the_pages(bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        since = time.monotonic()
        number, why = hoard_until_refused(b, guest)
        assert number >= 128 and "in a short time" in why, (number, why)
        granted = b.xen.counts()[0]["granted"]
        print(f"# {granted} of {GRANT_LIMIT} pages in {number} channels")
        pages = check_others_get_theirs(b, guest, other, since)
        assert pages == [PAGES] * 33 + [PAGES // 2 + 1] * 7, pages


def test_a_guest_that_has_all_of_its_half_is_told_and_leaves_the_other(bench):
    # Rings so large that it has its half before it has to wait for its turn.
    more = "vchan_ring_bytes = 1048576\n"
    with bed(bench, (5, 6), more) as (b, guest, other):
        since = time.monotonic()
        number, why = hoard_until_refused(b, guest)
        assert "its share, half of xen_gntalloc's limit" in why, why
        granted = b.xen.counts()[0]["granted"]
        print(f"# {granted} of {GRANT_LIMIT} pages in {number} channels")
        assert GRANT_LIMIT // 2 - 3 < granted <= most_for(since), granted
        b.gateway.wait_log(r"domain 5 .*: channel refused: .* share")
        pages = check_others_get_theirs(b, guest, other, since)
        assert pages[:9] == [513] * 9 and min(pages) >= 17, pages


def test_rings_that_are_scribbled_over_end_their_own_session_alone(bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        seed = random.randrange(1 << 31)
        print(f"# seed {seed}")
        reasons = set()
        kept, kept_client = other.open(0)
        for number in range(30):
            epoch, client = guest.open(0)
            client.stdin.write(f"scribble {seed + number}\n".encode())
            client.stdin.flush()
            while client.stdout.readline() != b"scribbled\n":
                assert client.poll() is None
            _, why = guest.wait_closed(0, epoch)
            reasons.add(why)
            guest.let_go(0, client)
            guest.wait_nothing(0)
        assert other.word(0) == f"{kept} open"
        other.let_go(0, kept_client)
        assert_lists(b.xen, 6)
        b.wait_clean()
        print(f"# {reasons}")
        assert not re.search("signal (6|7|8|11) ", b.gateway.log())


run(globals())
