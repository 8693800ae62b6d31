#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Passing on over TLS: a gateway is the client of another one, with a
certificate of its own."""

import os
import signal

from ca import Ca
from harness import run, wait_until
from remote_bed import GIVE_ALL, dialers, pass_on, remote
from usbip_client import ST_DEV_ERR, ST_NA, ST_NODEV

LAB, ANNEX = "lab.example", "annex.example"


def at(name):
    """As what a gateway is a client of others."""
    return f"at.{name}"


class Hosts:
    """Gateways on TLS ports of this machine, and a CA that all believe."""

    def __init__(self, bench):
        self.bench = bench
        self.ca = Ca(bench)

    def prepare(self, name, config):
        """Its folder has what it needs as a gateway and as a client."""
        self.ca.do("issue", "gateway", name, "127.0.0.1")
        self.ca.do("issue", "client", at(name))
        folder = self.ca.path("gateway", name)
        for file in ("client.pem", "client.key"):
            os.rename(self.ca.path("client", at(name), file),
                      os.path.join(folder, file))
        gateway = self.bench.prepare()
        port = self.bench.free_port()
        gateway.address = f"tls:127.0.0.1:{port}"
        gateway.head = (f'listen = {{ "tcp:127.0.0.1:{gateway.port}", '
                        f'"{gateway.address}" }}\ntls_dir = "{folder}"\n')
        gateway.write_config(gateway.head + config)
        return gateway

    def gateway(self, name, config):
        return self.prepare(name, config).start()


def given_to(*names):
    peers = ", ".join(f'"{name}"' for name in names)
    return f"peers = {{ {peers} }}"


def test_a_device_of_another_host_is_used_by_who_has_no_certificate(bench):
    hosts = Hosts(bench)
    lab = hosts.gateway(LAB, f'zero "zero0" {{ {given_to(at(ANNEX))} }}\n'
                             'zero "zero1" { peers = { "nobody" } }\n')
    annex = hosts.gateway(ANNEX, GIVE_ALL + remote("lab", lab.address))
    with annex.client() as client:
        assert list(client.devlist()) == ["zero0@lab"]
    with annex.client() as client:
        client.import_("zero0@lab")
        client.set_configuration(2)
        data = os.urandom(100000)
        for i in range(0, len(data), 50000):
            client.bulk_out(1, data[i:i + 50000])
            assert client.bulk_in(1, 50000).data == data[i:i + 50000]
        lab.wait_log(rf"{at(ANNEX)} \(127.0.0.1:\d+\): zero0 attached")
    wait_until(lambda: not dialers(lab) and not lab.sessions(),
               "all has ended")
    assert annex.import_status("zero1@lab") == ST_NODEV


def test_the_other_gateway_has_to_be_who_it_is_said_to_be(bench):
    hosts = Hosts(bench)
    lab = hosts.gateway(LAB, f'zero "zero0" {{ {given_to("*")} }}\n')
    pin = 'pin = "sha256:' + 64 * "0" + '"'
    annex = hosts.gateway(ANNEX, GIVE_ALL +
                          remote("lab", lab.address, pin))
    with annex.client() as client:
        assert client.devlist() == {}
    annex.wait_log("remote lab: its devices are not listed: .*pin|key")
    assert annex.import_status("zero0@lab") == ST_DEV_ERR


def test_a_certificate_that_is_revoked_takes_the_device_away(bench):
    hosts = Hosts(bench)
    lab = hosts.gateway(LAB, f'zero "zero0" {{ {given_to("*")} }}\n')
    annex = hosts.gateway(ANNEX, GIVE_ALL + remote("lab", lab.address))
    with annex.client() as client:
        client.import_("zero0@lab")
        hosts.ca.do("revoke", at(ANNEX))
        lab.signal(signal.SIGHUP)
        assert client.is_at_end()
    wait_until(lambda: not dialers(lab), "nothing is carried")
    assert annex.import_status("zero0@lab") == ST_NA
    annex.wait_log("zero0@lab is not opened: .*revoked")


def test_a_list_goes_through_four_gateways_and_no_more(bench):
    hosts = Hosts(bench)
    lab = hosts.prepare(LAB, "")
    annex = hosts.prepare(ANNEX, "")
    for here, there in ((lab, annex), (annex, lab)):
        here.write_config(here.head + 'zero "z" { peers = { "*" } }\n'
                          'zero "own" { }\n'
                          'export { remote = "*" peers = { "*" } }\n' +
                          GIVE_ALL + remote("r", there.address))
        here.start()
    with lab.client() as client:
        devices = sorted(client.devlist())
    assert devices == ["own", "z@r", "z@r@r", "z@r@r@r", "z@r@r@r@r"], devices
    assert (lab.count(": started"), annex.count(": started")) == (3, 2)


def test_a_device_that_came_back_to_where_it_is_can_be_used(bench):
    hosts = Hosts(bench)
    lab = hosts.prepare(LAB, "")
    annex = hosts.gateway(ANNEX, 'export { remote = "*" peers = { "*" } }\n' +
                          remote("r", lab.address))
    lab.write_config(lab.head + 'zero "z" { peers = { "*" } }\n' + GIVE_ALL +
                     remote("r", annex.address))
    lab.start()
    with lab.client() as client:
        client.import_("z@r@r")
        assert client.get_descriptor(3, 1).status == 0
    wait_until(lambda: not lab.sessions() and not annex.sessions(),
               "all has ended")


run(globals())
