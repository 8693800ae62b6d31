#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""xusbip and the agent over TLS, as users have it: certificates of the real
xusbip-ca, and a gateway of the test's own behind Python's OpenSSL."""

import os
import re
import signal
import ssl
import subprocess

from agent import AGENT, Agent
from ca import Ca
from fake_gateway import FakeGateway, describe
from harness import BUILD, LIMIT_S, run, wait_until

XUSBIP = os.path.join(BUILD, "xusbip")

EXIT_OK, EXIT_NOT_ALLOWED, EXIT_CONFIG, EXIT_NOT_TRUSTED = 0, 4, 9, 12


class TlsGateway(FakeGateway):
    """Lets in who has a certificate of the CA."""

    def __init__(self, ca, name, devices=None):
        folder = ca.path("gateway", name)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_verify_locations(os.path.join(folder, "ca.pem"))
        self.context.load_cert_chain(os.path.join(folder, "gateway.pem"),
                                     os.path.join(folder, "gateway.key"))
        super().__init__(devices)

    def listen(self):
        listener, _ = super().listen()
        return listener, f"tls:127.0.0.1:{self.port}"

    def begin(self, connection):
        return self.context.wrap_socket(connection, server_side=True)


class Hosts:
    """A CA, a client's folder, and gateways with a device."""

    def __init__(self, bench):
        self.bench = bench
        self.ca = Ca(bench)
        self.ca.do("issue", "client", "desk")
        self.tls_dir = self.ca.path("client", "desk")

    def gateway(self, name="lab", *addresses):
        self.ca.do("issue", "gateway", name, *addresses)
        return TlsGateway(self.ca, name, {"1-1": describe("1-1")})

    def xusbip(self, *args, tls_dir=None, path=os.environ["PATH"]):
        env = {**os.environ, "PATH": path}
        return subprocess.run(
            [XUSBIP, "--tls-dir", tls_dir or self.tls_dir, *args], text=True,
            capture_output=True, timeout=2 * LIMIT_S, check=False, env=env,
            stdin=subprocess.DEVNULL)


def assert_fails(result, status, words):
    assert result.returncode == status, (result.returncode, result.stderr)
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert re.search(words, result.stderr), result.stderr


def test_a_list_comes_over_tls(bench):
    hosts = Hosts(bench)
    gateway = hosts.gateway("lab", "127.0.0.1")
    result = hosts.xusbip("list", "-p", "-r", gateway.address)
    assert result.stdout == "busid=1-1#usbid=1234:5678#\n", result.stderr


def test_another_name_is_not_trusted_but_a_pin_is(bench):
    hosts = Hosts(bench)
    gateway = hosts.gateway("elsewhere")
    other = "sha256:" + 64 * "0"

    assert_fails(hosts.xusbip("list", "-r", gateway.address),
                 EXIT_NOT_TRUSTED, "127.0.0.1")
    assert_fails(hosts.xusbip("list", "-r", gateway.address, "--pin", other),
                 EXIT_NOT_TRUSTED, "pin|key")
    result = hosts.xusbip("list", "-r", gateway.address, "--pin",
                          hosts.ca.pin("elsewhere"))
    assert result.returncode == EXIT_OK and "1-1: " in result.stdout, \
        result.stderr


def test_a_folder_without_certificates_is_told(bench):
    hosts = Hosts(bench)
    gateway = hosts.gateway("lab", "127.0.0.1")
    assert_fails(hosts.xusbip("list", "-r", gateway.address,
                              tls_dir=bench.dir),
                 EXIT_CONFIG, re.escape(bench.dir))


def test_a_client_of_another_ca_is_told_that_it_is_not_accepted(bench):
    hosts = Hosts(bench)
    gateway = hosts.gateway("lab", "127.0.0.1")
    other = Ca(bench, "other")
    other.do("issue", "client", "desk")
    folder = other.path("client", "desk")
    with open(hosts.ca.path("client", "desk", "ca.pem"), "rb") as mine, \
            open(os.path.join(folder, "ca.pem"), "ab") as theirs:
        theirs.write(mine.read())

    result = hosts.xusbip("list", "-r", gateway.address, tls_dir=folder)
    assert result.returncode in (EXIT_NOT_ALLOWED, EXIT_NOT_TRUSTED), result


def test_the_agent_takes_lists_and_devices_over_tls(bench):
    hosts = Hosts(bench)
    gateway = hosts.gateway("lab", "127.0.0.1")
    with Agent(bench, [gateway.address],
               f'tls_dir = "{hosts.tls_dir}"') as agent:
        with agent.client() as client:
            assert list(client.devlist()) == ["1-1"]
        with agent.client() as client:
            assert client.import_("1-1").vendor == 0x1234
        agent.wait_no_children()


def test_the_agent_looks_over_tls_for_what_is_to_stay_attached(bench):
    hosts = Hosts(bench)
    gateway = hosts.gateway("elsewhere")
    wish = (f'attach "{{}}" {{{{ gateway = "{gateway.address}" '
            'busid = "9-9" {} }}\n')
    more = (f'tls_dir = "{hosts.tls_dir}"\n' + wish.format("one", "") +
            wish.format("two", f'pin = "{hosts.ca.pin("elsewhere")}"'))
    with Agent(bench, [], more) as agent:
        agent.wait_log("warning: two: not attached: it has no such device")
        agent.wait_log("warning: one: not attached: cannot connect")
        assert not agent.has_logged("one: not attached: it has no")


def test_who_announces_itself_is_believed_by_its_certificate_only(bench):
    hosts = Hosts(bench)
    known = hosts.gateway("lab", "127.0.0.1")
    unknown = TlsGateway(hosts.ca, "lab", {"2-2": describe("2-2")})
    other = Ca(bench, "other")
    other.do("issue", "gateway", "lab", "127.0.0.1")
    impostor = TlsGateway(other, "lab", {"3-3": describe("3-3")})
    folder = os.path.join(bench.dir, "bin")
    os.mkdir(folder)
    lines = "".join(f"=;lo;IPv4;x;_xusbip._tcp;local;127.0.0.1;;{each.port};\n"
                    for each in (known, impostor, unknown))
    with open(os.path.join(folder, "avahi-browse"), "w",
              encoding="utf-8") as script:
        script.write(f"#!/bin/sh\ncat << 'END'\n{lines}END\n")
    os.chmod(script.name, 0o700)

    result = hosts.xusbip("list", path=f"{folder}:/usr/bin:/bin")
    assert result.returncode == EXIT_OK, result.stderr
    assert "1-1: " in result.stdout and "2-2: " in result.stdout
    assert "3-3" not in result.stdout
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert str(impostor.port) in result.stderr


def test_a_certificate_that_ends_within_a_week_is_told(bench):
    hosts = Hosts(bench)
    gateway = hosts.gateway("lab", "127.0.0.1")
    words = (r"warning: \S+client/desk/client\.pem: ends on "
             r"[-0-9]+ [0-9:]+ UTC, and then nobody accepts it: .*\n")
    more = f'tls_dir = "{hosts.tls_dir}"'
    assert not hosts.xusbip("list", "-r", gateway.address).stderr
    with Agent(bench, [gateway.address], more) as agent:
        hosts.ca.do("renew", "desk", "--days", "6")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_log(words)

    result = hosts.xusbip("list", "-r", gateway.address)
    assert result.returncode == EXIT_OK and "1-1: " in result.stdout, result
    assert re.fullmatch("xusbip: " + words, result.stderr), result.stderr
    with Agent(bench, [gateway.address], more) as agent:
        agent.wait_log(words)
        done = subprocess.run([AGENT, "-c", agent.config_path, "--check-config"],
                              text=True, capture_output=True, check=False,
                              timeout=LIMIT_S)
        assert done.returncode == EXIT_OK, done
        assert re.search(words, done.stderr), done.stderr


run(globals())
