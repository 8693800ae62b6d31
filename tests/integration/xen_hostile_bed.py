# SPDX-License-Identifier: Apache-2.0
"""What the tests of hostile sides in xenstore work with: a gateway in a driver
domain, a guest of its, a domain that has nothing to do with them, and lists.

    with driver_bed(bench) as (xen, gateway, _):
        assert_lists(xen, GUEST, DRIVER)
"""

import contextlib
import os
import subprocess

from harness import LIMIT_S
from xen_gateway_bed import CONFIG, XUSBIP
from xenstore_relay import Relay
from xenstored import FakeXen

GUEST = 5
DRIVER = 9
EPOCH = "00000000000000aa"


def folder(owner, peer):
    return f"/local/domain/{owner}/data/xusbip/{peer}"


def lists(xen, domid=5, gateway=0, env=None):
    """A list of the real guest's: how it ended, and its one line of why."""
    process = subprocess.Popen(
        [XUSBIP, "list", "-r", f"xen:{gateway}"], env=env or xen.env(domid),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    xen.processes.setdefault(domid, []).append(process)
    out, err = process.communicate(timeout=2 * LIMIT_S)
    assert (process.returncode == 0) == ("zero0" in out), (out, err)
    if process.returncode:
        assert process.returncode > 0 and len(err.splitlines()) == 1, err
    return process.returncode, err


def assert_lists(xen, domid=5, gateway=0):
    status, err = lists(xen, domid, gateway)
    assert status == 0, err


def log_lines(gateway):
    """What it would have logged without --debug."""
    return [line for line in gateway.log().splitlines() if "debug:" not in line]


@contextlib.contextmanager
def driver_bed(bench, options=(), relay_of=None, more=""):
    """A guest, a driver domain with the gateway, and a third domain; pairs
    are made by the manager in dom0, or with a relay by the test."""
    with FakeXen(options) as xen, contextlib.ExitStack() as stack:
        for domid, name in ((GUEST, "u5"), (6, "u6"), (DRIVER, "usbvm")):
            xen.add_domain(domid, name, limit=1 << 16)
        relay = None
        if relay_of is None:
            bench.gateway('gateway "usbvm" { domains = { "u5" } }',
                          ["--manager"], xen.env(0))
        else:
            relay = stack.enter_context(Relay(xen, relay_of))
        env = relay.env() if relay_of == DRIVER else xen.env(DRIVER)
        gateway = bench.gateway(CONFIG.format('"u5"', more), ["--debug"], env)
        try:
            yield xen, gateway, relay
        finally:
            gateway.clean_up()


def make_pair(xen):
    """As the manager does it, which is not here."""
    mine, guests = folder(DRIVER, GUEST), folder(GUEST, DRIVER)
    xen.make_node(guests, "", f"n{GUEST}", f"r{DRIVER}")
    xen.make_node(guests + "/name", "usbvm", "n0", f"r{GUEST}")
    xen.make_node(mine, "", f"n{DRIVER}", f"r{GUEST}")
    xen.make_node(mine + "/peer", f"{xen.uuids[GUEST]} u5", "n0", f"r{DRIVER}")
