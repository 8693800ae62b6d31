#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A side of a channel between two domains that takes nothing for long, as a
guest that is paused: what it holds, and what it does not hold up."""

import os
import re

from harness import is_alive, run, stop_process, wait_until
from usbip_client import IN, OUT, Refused
from xen_gateway_bed import GuestAgent, bed

MIB = 1 << 20
BUDGET = 8 * MIB
# As docs/protocol.md says: twice the budget, and 24 MiB.
MOST_BYTES = 2 * BUDGET + 24 * MIB
PIECE = 128 * 1024
RING_BYTES = 256 * 1024
MORE = f"""budget_bytes = {BUDGET}
zero "zero1" {{ domains = {{ "u6" }} }}
"""
WORD = "/local/domain/5/data/xusbip/0/0"


def agent_of(bench, xen, domid):
    """Each domain has a folder of its own."""
    os.environ["XUSBIP_XEN_DIR"] = os.path.join(bench.dir, f"xen{domid}")
    return GuestAgent(bench, xen, domid)


def own_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        found = re.search(r"RssAnon:\s+(\d+) kB", status.read())
    return int(found[1]) * 1024


def attach(b, agent):
    """A client that has zero0, and its session."""
    client = agent.client()
    client.import_("zero0")
    return client, b.gateway.sessions()[0]


def fill(client):
    """Asks for as much as the budget is, and sends until nobody takes it;
    what was asked for."""
    asked = [client.submit(1, IN, length=PIECE)
             for _ in range(BUDGET // PIECE)]
    client.sock.settimeout(1)
    try:
        while True:
            client.submit(2, OUT, bytes(PIECE))
    except TimeoutError:
        return asked


def stall(b, agent):
    """As attach, with much in flight; then the guest is paused."""
    client, pid = attach(b, agent)
    asked = fill(client)
    b.xen.pause(5)
    return client, pid, asked


def check_others(other):
    with other.client() as client:
        client.import_("zero1")
        for _ in range(20):
            assert client.bulk_in(1, PIECE).actual_length == PIECE


def takes(agent, busid):
    with agent.client() as client:
        try:
            return client.import_(busid)
        except Refused:
            return None


def test_a_paused_guest_keeps_its_devices_and_costs_others_nothing(bench):
    with bed(bench, (5, 6), MORE) as (b, _, _), \
         agent_of(bench, b.xen, 5) as agent, \
         agent_of(bench, b.xen, 6) as other:
        client, pid, asked = stall(b, agent)

        check_others(other)
        assert not takes(other, "zero0")
        held = own_bytes(pid)
        print(f"# the session of a paused guest holds {held >> 10} KiB")
        assert held < MOST_BYTES

        b.xen.unpause(5)
        client.sock.settimeout(10)
        for seqnum in asked:
            assert client.wait(seqnum).actual_length == PIECE
        assert b.gateway.sessions() == [pid]
        client.close()
        b.wait_clean()


def test_what_a_paused_guest_has_is_taken_from_it_by_the_administrator(bench):
    with bed(bench, (5, 6), MORE) as (b, _, _), \
         agent_of(bench, b.xen, 5) as agent, \
         agent_of(bench, b.xen, 6) as other:
        client, pid, _ = stall(b, agent)

        command = b.admin("detach", "--from", "u5", "-b", "zero0")
        _, err = command.communicate(timeout=10)
        assert command.returncode == 0, err

        wait_until(lambda: takes(other, "zero0"), "zero0 is free")
        assert not is_alive(pid)
        assert not re.search(r"domain 5 .*KILLING", b.gateway.log())
        b.xen.unpause(5)
        client.close()
        b.wait_clean()


def test_what_a_paused_guest_has_is_taken_from_it_by_a_rule(bench):
    with bed(bench, (5, 6), MORE) as (b, _, _), \
         agent_of(bench, b.xen, 5) as agent, \
         agent_of(bench, b.xen, 6) as other:
        client, pid, _ = stall(b, agent)

        b.reload(names='"u6"')

        wait_until(lambda: takes(other, "zero0"), "zero0 is free")
        assert not is_alive(pid)
        b.xen.unpause(5)
        client.close()
        b.wait_clean()


def test_a_gateway_that_takes_nothing_holds_up_no_detach(bench):
    with bed(bench, (5,)) as (b, _), agent_of(bench, b.xen, 5) as agent:
        client, pid = attach(b, agent)
        stop_process(pid)
        # More than the ring takes; the end must not be stuck behind it.
        for _ in range(3):
            client.submit(2, OUT, bytes(RING_BYTES // 3 + 8192))

        client.close()

        wait_until(lambda: not b.xen.exists(WORD), "the guest has let go")
        agent.wait_no_children()
        assert "KILLING" not in b.gateway.log()
        b.wait_clean()


if __name__ == "__main__":
    run(globals())
