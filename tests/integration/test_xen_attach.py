#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real gateway in dom0 and the real frontend in a guest of a pretended Xen:
lists, attachments, and why there are none."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from unittest import mock

from agent import Agent
from harness import BUILD, LIMIT_S, run, wait_until
from usbip_client import ST_NODEV, Refused
from xenstored import FakeXen

XUSBIP = os.path.join(BUILD, "xusbip")
GUEST = 5
EXIT_OK = 0
ZERO = 'zero "{}" {{ domains = {{ "guest" }} }}\n'


@contextlib.contextmanager
def bed(bench, *devices):
    """A guest that dom0 serves with these devices."""
    with FakeXen() as xen:
        xen.add_domain(GUEST, "guest")
        gateway = bench.gateway(config(*devices), env=xen.env(0))
        wait_until(lambda: xen.exists(folder(0, GUEST) + "/devices"),
                   "the guest is served")
        yield xen, gateway
        gateway.stop()


def config(*devices):
    return "listen = { }\nxen = true\n" + "".join(map(ZERO.format, devices))


def folder(owner, peer):
    return f"/local/domain/{owner}/data/xusbip/{peer}"


def agent_in(xen, bench, gateways=()):
    with mock.patch.dict(os.environ, xen.env(GUEST)):
        return Agent(bench, gateways)


def xusbip(xen, *args):
    return subprocess.run([XUSBIP, *args], env=xen.env(GUEST), text=True,
                          capture_output=True, timeout=LIMIT_S, check=False,
                          stdin=subprocess.DEVNULL)


def listed(xen, address="xen:0"):
    result = xusbip(xen, "list", "-r", address, "--json")
    assert result.returncode == EXIT_OK, result.stderr
    return [device["busid"] for device in json.loads(result.stdout)["devices"]]


def channels(xen):
    return [node for owner, peer in ((0, GUEST), (GUEST, 0))
            for node in xen.ls(folder(owner, peer)) if node.isdigit()]


def wait_quiet(xen):
    """Nothing is left of any channel, on both sides."""
    wait_until(lambda: not channels(xen), "no word is left of a channel")
    wait_until(lambda: xen.is_idle(GUEST), "the guest has let go")
    wait_until(lambda: not xen.counts()[0]["granted"], "nothing is granted")


def test_a_guest_lists_its_devices_by_number_and_by_name(bench):
    with bed(bench, "z1", "z2") as (xen, _):
        assert listed(xen) == ["z1", "z2"]
        assert listed(xen, "xen:Domain-0") == ["z1", "z2"]
        wait_quiet(xen)


def test_many_lists_at_once_fit_into_the_quotas(bench):
    with bed(bench, "z1") as (xen, _):
        found = []
        threads = [threading.Thread(target=lambda: found.append(listed(xen)))
                   for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [["z1"]] * 30
        wait_quiet(xen)


def test_a_list_is_shown_again_when_it_changes(bench):
    with bed(bench, "z1") as (xen, gateway):
        process = xen.start(GUEST, [XUSBIP, "list", "-r", "xen:0", "--watch",
                                    "--json"],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)

        def next_list():
            line = json.loads(process.stdout.readline())
            return [device["busid"] for device in line["devices"]]

        assert next_list() == ["z1"]
        gateway.write_config(config("z1", "z2"))
        gateway.signal(signal.SIGHUP)
        assert next_list() == ["z1", "z2"]
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == -signal.SIGINT
        wait_quiet(xen)


def test_only_a_domain_can_be_watched(bench):
    for args in (["-r", "tcp:127.0.0.1"], ["-l"]):
        result = subprocess.run([XUSBIP, "list", *args, "--watch"], text=True,
                                capture_output=True, timeout=LIMIT_S,
                                check=False, cwd=bench.dir)
        assert result.returncode == 2, result.stderr


def test_the_agent_of_a_guest_serves_its_gateways_unasked(bench):
    with bed(bench, "z1") as (xen, _), agent_in(xen, bench) as agent:
        with agent.client() as client:
            assert list(client.devlist()) == ["z1"]
        agent.wait_no_children()
        wait_quiet(xen)


def test_a_gateway_that_is_also_configured_is_asked_once(bench):
    with bed(bench, "z1") as (xen, _), \
            agent_in(xen, bench, ["xen:0"]) as agent:
        with agent.client() as client:
            assert list(client.devlist()) == ["z1"]
        agent.wait_no_children()
        assert not agent.has_logged("left out")


def test_an_attached_device_works_and_leaves_nothing(bench):
    with bed(bench, "z1") as (xen, _), agent_in(xen, bench) as agent:
        with agent.client() as client:
            client.import_("z1")
            client.bulk_out(2, b"x" * 70000)
            assert len(client.bulk_in(1, 70000).data) == 70000
        agent.wait_no_children()
        wait_quiet(xen)


def test_why_a_device_is_refused_is_told_in_the_guests_log(bench):
    with bed(bench, "z1") as (xen, _), agent_in(xen, bench) as agent:
        with agent.client() as client:
            try:
                client.import_("1-1")
                raise AssertionError("was attached")
            except Refused as refused:
                assert refused.status == ST_NODEV
        agent.wait_log("import of 1-1: xen:0: it does not give 1-1: ")
        wait_quiet(xen)


def test_a_gateway_that_is_killed_is_noticed_by_the_link(bench):
    with bed(bench, "z1") as (xen, gateway), agent_in(xen, bench) as agent:
        with agent.client() as client:
            client.import_("z1")
            for pid in gateway.sessions():
                os.kill(pid, signal.SIGKILL)
            assert client.is_at_end()
        agent.wait_no_children()
        wait_quiet(xen)


def test_a_killed_agent_is_swept_up_after_by_the_next(bench):
    with bed(bench, "z1") as (xen, _):
        stale = f"{folder(GUEST, 0)}/9"
        xen.write(stale, "0123456789abcdef up", as_domid=GUEST)
        with agent_in(xen, bench):
            wait_until(lambda: not xen.exists(stale), "it is swept")


run(globals())
