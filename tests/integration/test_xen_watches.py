#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A domain whose watches in xenstore are used up: the real agent, gateway and
manager look by themselves, and watch again as soon as they can."""

import contextlib
import itertools

from fake_xen_guest import FakeXenGuest
from harness import run, wait_until
from test_xen_agent import GUEST, NO_VHCI, GuestAgent, Pair
from test_xen_pairs import folder, manager, wait_pair, wait_read
from xen_gateway_bed import CONFIG
from xenstore_relay import Relay
from xenstored import WATCH, FakeXen

QUOTA = 4
DRIVER = 9
REFUSED = "cannot be watched: this domain has used up its quota in xenstore"
# It looks every 10 s without a watch.
BY_LOOK_S = 20


class Others:
    """Programs of a domain that have all the watches that it may have."""

    def __init__(self, xen, domid):
        self.store = xen.connect(domid)
        self.tokens = []
        with contextlib.suppress(OSError):
            for number in itertools.count():
                self.store.watch("data", f"token{number}")
                self.tokens.append(f"token{number}")
        assert self.tokens

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.store.close()

    def give_up(self):
        for token in self.tokens:
            self.store.unwatch("data", token)


def check_told_once(log, paths):
    """A line when each was refused, and one when it was not any more."""
    for path in paths:
        assert log.count(f"{path} {REFUSED}") == 1, log
        assert log.count(f"{path} is watched now") == 1, log


def test_an_agent_without_watches_looks_and_watches_when_it_can(bench):
    with FakeXen(["--watch-nb", str(QUOTA)]) as xen:
        xen.add_domain(GUEST)
        with Others(xen, GUEST) as others:
            with GuestAgent(bench, xen) as agent:
                pair = Pair(xen)
                word = pair.want(0, "1-1")
                pair.wait_answer("want/0", f"{word} failed {NO_VHCI}",
                                 BY_LOOK_S)
                assert not agent.has_logged("is watched now")

                others.give_up()

                paths = "domid", "data/xusbip", pair.mine
                for path in paths:
                    wait_until(lambda path=path: agent.has_logged(
                        f"{path} is watched now"), f"{path} is watched",
                        BY_LOOK_S)
                # By an event: it would be 10 s otherwise.
                for _ in range(2):
                    word = pair.want(0, "1-1")
                    pair.wait_answer("want/0", f"{word} failed {NO_VHCI}", 4)
                check_told_once(agent.log(), paths)


def test_a_gateway_without_watches_looks_and_watches_when_it_can(bench):
    with FakeXen(["--watch-nb", str(QUOTA)]) as xen:
        xen.add_domain(5, "u5")
        xen.add_domain(DRIVER, "usbvm")
        with Others(xen, DRIVER) as others:
            manager(bench, xen, 'gateway "usbvm" { domains = { "u5" } }')
            gateway = bench.gateway(CONFIG.format('"u5"', ""), ["--debug"],
                                    xen.env(DRIVER))
            guest = FakeXenGuest(xen, 5, gateway=DRIVER)
            guest.wait_open(0, guest.ask(0), BY_LOOK_S)
            assert "is watched now" not in gateway.log()

            others.give_up()

            paths = f"/local/domain/{DRIVER}/data/xusbip", guest.folder
            for path in paths:
                wait_until(lambda path=path: f"{path} is watched now"
                           in gateway.log(), f"{path} is watched", BY_LOOK_S)
            for channel in (1, 2):
                guest.wait_open(channel, guest.ask(channel), 4)
            check_told_once(gateway.log(), paths)
        gateway.clean_up()


def test_a_manager_watches_a_domains_name_when_it_can(bench):
    path = "/local/domain/5/name"
    with FakeXen() as xen, Relay(xen, 0) as relay:
        relay.refuse(path, "ENOSPC", WATCH)
        gateway = bench.gateway('gateway "usbvm" { domains = { "*" } }',
                                ["--manager"], relay.env())
        xen.add_domain(DRIVER, "usbvm")
        xen.add_domain(5, "u5")
        wait_pair(xen, DRIVER, 5)
        tries = relay.requests.count((WATCH, path))
        wait_until(lambda: relay.requests.count((WATCH, path)) > tries,
                   "it is tried again", BY_LOOK_S)

        relay.refuse(None, None)

        wait_until(lambda: f"{path} is watched now" in gateway.log(),
                   "its name is watched", BY_LOOK_S)
        xen.write(path, "u6")
        wait_read(xen, folder(DRIVER, 5) + "/peer", f"{xen.uuids[5]} u6")
        check_told_once(gateway.log(), [path])


run(globals())
