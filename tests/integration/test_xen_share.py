#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long a guest is served that attaches all the time, and with what rings; and
one that comes when nearly all pages are granted. The real gateway on the real
xenstored and libxenvchan, over a pretended Xen."""

import collections
import random
import time

from harness import run, wait_until
from xen_gateway_bed import EXIT_BUSY, GuestAgent, bed

LOOPBACK_CONFIGURATION, LOOPBACK_BYTES = 2, 64 << 10
FULL = 262144
SMALLEST = 4096
# Before its rings were made smaller it was refused after 64.
MANY = 145
PORTS = 30


def pages_of(ring_bytes):
    return 1 + 2 * ring_bytes // 4096


RINGS = {pages_of(SMALLEST << i): SMALLEST << i for i in range(9)}


def wait_turn(guest, channel):
    """Asks until it is the guest's turn, as an honest one does: its epoch."""
    while True:
        epoch = guest.ask(channel, 0)
        guest.wait_answer(channel, epoch)
        if guest.word(channel) == f"{epoch} open":
            return epoch
        status, why = guest.wait_closed(channel, epoch)
        assert status == EXIT_BUSY and "in a short time" in why, why
        guest.unsay(channel)
        guest.wait_nothing(channel)


def attach_once(b, guest):
    """Uses a channel and lets go of it: what its rings have."""
    epoch = wait_turn(guest, 0)
    ring_bytes = RINGS[b.xen.counts()[0]["granted"]]
    client = guest.map(0)
    guest.say(0, f"{epoch} up")
    guest.let_go(0, client)
    guest.wait_nothing(0)
    wait_until(lambda: not b.xen.counts()[0]["granted"], "it is let go of")
    return ring_bytes


def test_a_guest_that_attaches_145_times_in_a_row_is_served_each_time(bench):
    with bed(bench) as (b, guest):
        began = time.monotonic()
        rings = [attach_once(b, guest) for _ in range(MANY)]
        counts = collections.Counter(rings)
        print(f"# in {time.monotonic() - began:.0f} s:", ", ".join(
            f"{counts[ring]} of {ring}" for ring in sorted(counts)[::-1]))
        assert rings[:PORTS] == [FULL] * PORTS
        # Each step is half of the one before, and lasts.
        first = [rings.index(FULL >> i) for i in range(5)]
        assert first == sorted(first) and all(
            later - before >= 20 for before, later in zip(first, first[1:]))
        told = [line for line in b.gateway.log().splitlines()
                if "gets smaller rings" in line]
        assert len(told) == 1 and "parameters/limit" in told[0], told
        assert "its share, half" not in b.gateway.log()
        b.wait_clean()


def check_data(client):
    """More than a small ring holds, there and back."""
    client.set_configuration(LOOPBACK_CONFIGURATION)
    data = random.randbytes(LOOPBACK_BYTES)
    assert client.bulk_out(1, data).actual_length == len(data)
    assert client.bulk_in(1, len(data)).data == data


def test_rings_are_smaller_when_all_guests_have_nearly_all_pages(bench):
    with bed(bench) as (b, _):
        with GuestAgent(bench, b.xen, 5) as agent:
            for left in sorted(RINGS):
                b.xen.order("limit", 0, left + 1)
                with agent.client() as client:
                    client.import_("zero0")
                    granted = b.xen.counts()[0]["granted"]
                    assert granted == min(left, pages_of(FULL)), granted
                    check_data(client)
                b.wait_clean()
                assert (f"rings of {RINGS[left]} bytes for want of pages"
                        in b.gateway.log()) == (RINGS[left] < FULL), left
        # Which is no matter of its share.
        assert "gets smaller rings" not in b.gateway.log()


run(globals())
