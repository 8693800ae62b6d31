#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Those who write to xenstore without end, and a guest that reads it: the real
agent, xusbip and its wardens on the real xenstored, over a pretended Xen."""

import contextlib
import re
import time

from fake_xen_gateway import FakeXenGateway
from harness import run, wait_until
from test_xen_agent import GUEST, NO_VHCI, GuestAgent, Pair
from test_xen_agent import bed as agent_bed
from test_xen_guest import (EXIT_CANNOT_REACH, EXIT_NOT_ALLOWED, assert_ends,
                            bed, start_list, wait_clean, wardens)
from xen_flood import (IS_SANITIZED, MOST_KIB, flooding, most_looks, rss_kib,
                       wait_more)
from xen_gateway_bed import GuestAgent as PortAgent
from xen_gateway_bed import bed as gateway_bed
from xen_hostile_bed import EPOCH
from xenstore_relay import Relay
from xenstored import DIRECTORY, READ

OTHER = "00000000000000bb"
GARBAGE = ["garbage", "x" * 255, "", f"{EPOCH} up", f"{OTHER} open"]
# Of another domain than dom0: it has quotas.
HOSTILE = 7
ROUNDS = 8
MANY_WRITES = 150000
# Of one that waits in libxenstore, at least.
EVENT_BYTES = 128


@contextlib.contextmanager
def counted(relay, total, request):
    """In the end this request was made no oftener than so many writes in this
    time may make one look."""
    before, since = len(relay.requests), time.monotonic()

    def looks():
        return relay.requests[before:].count(request)
    yield looks
    took = time.monotonic() - since
    seen, most = looks(), most_looks(total, took)
    print(f"# {total.value / took:.0f} writes/s, {seen / took:.1f} looks/s")
    assert seen <= most, (seen, most)


# The agent.

@contextlib.contextmanager
def watched_agent(bench):
    """An agent that serves two gateways, what it asks, and the two."""
    with agent_bed() as xen, Relay(xen, GUEST) as relay:
        xen.add_domain(HOSTILE)
        relay.stand_between()
        with GuestAgent(bench, xen) as agent:
            yield xen, relay, agent, Pair(xen, HOSTILE), Pair(xen)
            assert not re.search("[^\n -~]", agent.log())


def serve(pair, total):
    """What an honest gateway wants is answered, again and again."""
    for number in range(ROUNDS):
        wait_more(total)
        word = pair.want(number, "1-1")
        pair.wait_answer(f"want/{number}", f"{word} failed {NO_VHCI}")


WORDS = [f"{EPOCH} attach 1-1", f"{OTHER} attach 1-2", f"{EPOCH} hold",
         f"{OTHER} resume", "1", *GARBAGE]


def test_an_agent_serves_others_while_a_gateway_writes_its_nodes(bench):
    with watched_agent(bench) as (xen, relay, agent, hostile, pair):
        nodes = [f"{hostile.mine}/{name}" for name in (
            "want/0", "want/63", "devices", "hold", "0", "0/ring-ref",
            "0/event-channel", "want/x", "mine")]
        rss, since = rss_kib(agent.process.pid), time.monotonic()
        with (flooding(xen, HOSTILE, nodes, WORDS) as total,
              counted(relay, total, (DIRECTORY, f"{hostile.mine}/want"))
              as looks):
            serve(pair, total)
            wait_until(lambda: looks() > 60, "it is looked at")
        took = time.monotonic() - since
        grown = rss_kib(agent.process.pid) - rss
        tries = len(re.findall("xen:7: .* was not attached", agent.log()))
        print(f"# {grown} KiB more, {tries} tries")
        # Two wants, each begun at most once a second.
        assert tries <= 2 * (took + 2), (tries, took)
        assert IS_SANITIZED or grown < MOST_KIB


def test_a_gateway_that_says_hold_without_end_is_obeyed_once_a_s(bench):
    with watched_agent(bench) as (xen, relay, agent, hostile, pair):
        path, since = f"{hostile.mine}/hold", time.monotonic()
        words = [f"{EPOCH} hold", f"{OTHER} resume", f"{OTHER} hold"]
        with (flooding(xen, HOSTILE, [path], words) as total,
              counted(relay, total, (READ, path)) as looks):
            serve(pair, total)
            wait_until(lambda: looks() > 60, "it is looked at")
        holds, took = agent.count("xen:7: lets go"), time.monotonic() - since
        print(f"# {holds} holds")
        assert 1 <= holds <= took + 2, (holds, took)


def test_a_driver_domains_hold_takes_nothing_that_dom0_gives(bench):
    driver = f'gateway "usbvm" {{ domains = {{ "u{GUEST}" }} }}\n'
    with gateway_bed(bench, more=driver) as (b, _):
        b.xen.add_domain(HOSTILE, "usbvm")
        folder = f"/local/domain/{HOSTILE}/data/xusbip/{GUEST}"
        wait_until(lambda: b.xen.exists(f"{folder}/peer"), "they may talk")
        with PortAgent(bench, b.xen, GUEST) as agent, agent.client() as client:
            client.import_("zero0")

            b.xen.write(f"{folder}/hold", f"{EPOCH} hold", as_domid=HOSTILE)

            answer = f"/local/domain/{GUEST}/data/xusbip/{HOSTILE}/hold"
            wait_until(lambda: b.xen.exists(answer), "it is answered")
            assert b.xen.read(answer) == f"{EPOCH} done"
            assert client.get_descriptor(1).actual_length == 18
        b.wait_clean()


def test_an_agent_serves_others_while_a_gateways_name_is_written(bench):
    with watched_agent(bench) as (xen, relay, agent, hostile, pair):
        path = f"{hostile.guests}/name"
        # The agent hears nothing of it: what it is for is read when it is.
        with (flooding(xen, 0, [path], GARBAGE) as total,
              counted(relay, total, (READ, path))):
            serve(pair, total)
        assert agent.count("xen:7: ") == 0, agent.log()


def test_an_agent_serves_others_while_its_guests_own_word_is_written(bench):
    with watched_agent(bench) as (xen, relay, _, __, pair):
        path = f"/local/domain/{GUEST}/data/xusbip/hold"
        with (flooding(xen, GUEST, [path], [*GARBAGE, f"{EPOCH} resume"])
              as total, counted(relay, total, (READ, "data/xusbip/hold"))
              as looks):
            serve(pair, total)
            wait_until(lambda: looks() > 0, "it is read")


# Wardens.

def channel_nodes(folder, channel):
    node = f"{folder}/{channel}"
    return [node, f"{node}/ring-ref", f"{node}/event-channel"]


def test_a_channel_lives_on_while_its_gateway_writes_its_word_for_ever(bench):
    with gateway_bed(bench) as (b, _), Relay(b.xen, GUEST) as relay:
        relay.stand_between()
        with PortAgent(bench, b.xen, GUEST) as agent, agent.client() as client:
            client.import_("zero0")
            [pid] = wardens(b.xen)
            nodes = channel_nodes(f"/local/domain/0/data/xusbip/{GUEST}", 0)
            word, rss = b.xen.read(nodes[0]), rss_kib(pid)
            with (flooding(b.xen, 0, nodes, [word]) as total,
                  counted(relay, total, (READ, nodes[0]))):
                wait_until(lambda: total.value > MANY_WRITES, "it is written",
                           60)
                assert client.get_descriptor(1).actual_length == 18
            grown = rss_kib(pid) - rss
            print(f"# {grown} KiB more")
            most = max(MOST_KIB, total.value * EVENT_BYTES // 1024 // 4)
            assert IS_SANITIZED or grown < most, (grown, most)
            relay.wait_quiet()
            assert client.get_descriptor(1).actual_length == 18
        b.wait_clean()


def test_who_asks_hears_the_answer_behind_any_number_of_others(bench):
    with bed() as (xen, gateway), Relay(xen, GUEST) as relay:
        relay.stand_between()
        process = start_list(xen)
        ask = gateway.wait_ask()
        gateway.say(ask.channel, "")
        nodes = channel_nodes(gateway.folder, ask.channel)
        with (flooding(xen, 0, nodes, GARBAGE) as total,
              counted(relay, total, (READ, nodes[0])) as looks):
            wait_until(lambda: looks() > 30, "it looks")

        assert process.poll() is None
        gateway.say(ask.channel, f"{ask.epoch} closed 4 at last")
        assert_ends(process, EXIT_NOT_ALLOWED, "at last")
        wait_clean(xen, gateway)


def test_one_gateway_is_asked_while_another_writes_for_ever(bench):
    with bed() as (xen, gateway):
        xen.add_domain(HOSTILE, "usbvm")
        hostile = FakeXenGateway(xen, GUEST, HOSTILE, "usbvm")
        nodes = [f"{hostile.folder}/{name}" for name in (0, "devices", "hold")]
        with flooding(xen, HOSTILE, nodes, GARBAGE) as total:
            for _ in range(ROUNDS):
                wait_more(total)
                process = start_list(xen)
                ask = gateway.wait_ask()
                gateway.say(ask.channel, f"{ask.epoch} closed 5 not now")
                assert_ends(process, EXIT_CANNOT_REACH, "not now")
                gateway.wait_silence()
                gateway.unsay(ask.channel)


run(globals())
