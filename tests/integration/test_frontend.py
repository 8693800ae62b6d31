#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""xusbip and xusbip-frontend on a machine without vhci_hcd: the gateways are
played by the test, and so is a stock client, whose socket stands for vhci."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import time

from agent import AGENT, Agent
from fake_gateway import FakeGateway, describe, op, recv_exactly, reply_submit
from harness import BUILD, LIMIT_S, ROOT, Skip, run, wait_until
from usbip_client import (IN, REP_DEVLIST, REP_IMPORT, REQ_IMPORT, ST_DEV_BUSY,
                          ST_ERROR, ST_NA, ST_NODEV, Closed, Refused)

XUSBIP = os.path.join(BUILD, "xusbip")

(EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NO_DEVICE, EXIT_NOT_ALLOWED,
 EXIT_CANNOT_REACH, EXIT_NO_VHCI, EXIT_BUSY, EXIT_NO_PORT, EXIT_CONFIG,
 EXIT_PROTOCOL, EXIT_TIMEOUT) = range(12)


def xusbip(*args):
    return subprocess.run([XUSBIP, *args], capture_output=True, timeout=LIMIT_S,
                          text=True, stdin=subprocess.DEVNULL, check=False)


def listed(gateway, *args):
    return xusbip("list", "-r", gateway.address, *args)


def assert_fails(result, status, words):
    """One line on stderr with these words, nothing on stdout."""
    assert result.returncode == status, (result.returncode, result.stderr)
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert words in result.stderr, result.stderr
    assert result.stdout == "", result.stdout


# xusbip list

def test_a_list_has_the_shape_of_the_stock_tool(_):
    gateway = FakeGateway({"1-1.2": describe("1-1.2")})
    result = listed(gateway)

    assert result.returncode == EXIT_OK, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "Exportable USB devices"
    assert lines[1] == "======================"
    assert lines[2] == f" - {gateway.address}"
    assert re.fullmatch(r"      1-1\.2: .* : .* \(1234:5678\)", lines[3])
    assert lines[4] == "           : /sys/devices/fake"
    assert lines[5] == "           : (Defined at Interface level) (00/00/00)"
    assert re.fullmatch(r"           :  0 - .* / .* / .* \(08/06/50\)",
                        lines[6])
    assert lines[7] == ""


def test_a_list_can_be_parsed(_):
    gateway = FakeGateway({"1-1": describe("1-1"), "2-1": describe("2-1")})

    assert listed(gateway, "-p").stdout == (
        "busid=1-1#usbid=1234:5678#\nbusid=2-1#usbid=1234:5678#\n")
    found = json.loads(listed(gateway, "--json").stdout)
    assert found["remote"] == gateway.address
    assert [device["busid"] for device in found["devices"]] == ["1-1", "2-1"]
    assert found["devices"][0]["vendor"] == "1234"
    assert found["devices"][0]["speed"] == "high"
    assert found["devices"][0]["interfaces"] == [
        {"class": "08", "subclass": "06", "protocol": "50"}]


def test_an_empty_list_is_no_failure(_):
    gateway = FakeGateway()

    assert listed(gateway).returncode == EXIT_OK
    assert json.loads(listed(gateway, "--json").stdout)["devices"] == []


def test_what_a_gateway_sends_is_printed_escaped(_):
    device = describe("\x1b[2J\xff", path=b"/\x1b[2J\xff")
    gateway = FakeGateway({"evil": device})

    for args in ([], ["-p"], ["--json"]):
        result = subprocess.run([XUSBIP, "list", "-r", gateway.address, *args],
                                capture_output=True, timeout=LIMIT_S,
                                check=True)
        assert all(byte == 10 or 32 <= byte < 127 for byte in result.stdout)
        assert b"x1b[2J" in result.stdout


def test_a_gateway_that_is_not_there_is_told(bench):
    assert_fails(xusbip("list", "-r", f"127.0.0.1:{bench.free_port()}"),
                 EXIT_CANNOT_REACH, "Connection refused")
    assert_fails(xusbip("list", "-r", "unix:/nonexistent"), EXIT_CANNOT_REACH,
                 "No such file")


def test_the_port_of_all_addresses_can_be_given_once(_):
    gateway = FakeGateway()
    result = xusbip("--tcp-port", str(gateway.port), "list", "-r", "127.0.0.1",
                    "--json")
    assert result.returncode == EXIT_OK, result.stderr


def test_a_wrong_command_line_is_refused_in_one_line(_):
    for args in (["list", "-p"], ["list", "-r"], ["list", "-l", "-r", "x"],
                 ["list", "--colour"], ["attach", "-r", "x"],
                 ["attach", "-r", "x", "-b", "a b"],
                 ["attach", "-r", "x", "-b", "1" * 32],
                 ["attach", "-r", "tcp:", "-b", "1-1"],
                 ["detach"], ["detach", "-p", "x"], ["port", "1"],
                 ["paint"], ["--tcp-port", "0", "list", "-l"]):
        assert_fails(xusbip(*args), EXIT_USAGE, "xusbip: error: ")


def test_lists_that_lie_are_refused(_):
    list_head = op(REP_DEVLIST)
    cases = {
        "nothing": b"",
        "half a head": list_head[:4],
        "another version": op(REP_DEVLIST, version=0x0106) + bytes(4),
        "another operation": op(REP_IMPORT) + bytes(4),
        "no count": list_head,
        "too many": list_head + struct.pack(">I", 1025),
        "far too many": list_head + b"\xff" * 4,
        "fewer than it says": list_head + struct.pack(">I", 2) +
                              describe("1-1", num_interfaces=0),
        "a cut device": list_head + struct.pack(">I", 1) + describe("1")[:200],
        "too many interfaces": list_head + struct.pack(">I", 1) +
                               describe("1", num_interfaces=33) + bytes(132),
    }
    for name, answer in cases.items():
        gateway = FakeGateway()
        gateway.on_devlist = (
            lambda connection, bytes_=answer: connection.sendall(bytes_))
        result = listed(gateway)
        assert result.returncode == EXIT_PROTOCOL, (name, result.stderr)
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_an_endless_list_is_cut_by_the_limit(_):
    gateway = FakeGateway()

    def drip(connection):
        connection.sendall(op(REP_DEVLIST) + struct.pack(">I", 1024))
        while True:
            connection.sendall(b"x")
            time.sleep(0.1)
    gateway.on_devlist = drip
    began = time.monotonic()

    assert_fails(listed(gateway), EXIT_TIMEOUT, "in time")
    assert time.monotonic() - began < 13


def test_attach_needs_vhci(_):
    if os.path.exists("/sys/devices/platform/vhci_hcd.0"):
        raise Skip("this machine has vhci_hcd")
    assert_fails(xusbip("attach", "-r", "127.0.0.1", "-b", "1-1"),
                 EXIT_NO_VHCI, "modprobe vhci-hcd")
    assert_fails(xusbip("port"), EXIT_NO_VHCI, "modprobe vhci-hcd")
    assert_fails(xusbip("detach", "-p", "0"), EXIT_NO_VHCI, "vhci_hcd")


# The agent

def test_the_lists_of_all_gateways_are_merged(bench):
    first = FakeGateway({"1-1": describe("1-1", vendor=1),
                         "1-2": describe("1-2", num_interfaces=3)})
    second = FakeGateway({"1-1": describe("1-1", vendor=2),
                          "2-1": describe("2-1")})
    with Agent(bench, [first.address, second.address]) as agent:
        with agent.client() as client:
            devices = client.devlist()
            assert client.is_at_end()

        assert list(devices) == ["1-1", "1-2", "2-1"]
        assert devices["1-1"].vendor == 1
        assert len(devices["1-2"].interfaces) == 3
        agent.wait_no_children()


def test_a_gateway_that_fails_does_not_hide_the_others(bench):
    hostile = FakeGateway()
    hostile.on_devlist = lambda c: c.sendall(op(REP_DEVLIST) + b"\xff" * 4)
    silent = FakeGateway()
    silent.on_devlist = lambda c: recv_exactly(c, 1)
    good = FakeGateway({"1-1": describe("1-1")})
    with Agent(bench, [f"127.0.0.1:{bench.free_port()}", hostile.address,
                       silent.address, good.address]) as agent:
        with agent.client() as client:
            assert list(client.devlist()) == ["1-1"]
        assert agent.has_logged("Connection refused")
        assert agent.has_logged("too many devices")
        assert agent.has_logged("did not answer in time")


def test_an_import_goes_to_the_gateway_that_has_the_device(bench):
    first = FakeGateway({"1-1": describe("1-1", vendor=1)})
    second = FakeGateway({"2-1": describe("2-1", vendor=2)})
    gone = f"127.0.0.1:{bench.free_port()}"
    with Agent(bench, [gone, first.address, second.address]) as agent:
        with agent.client() as client:
            assert client.import_("2-1").vendor == 2
        agent.wait_no_children()


def test_the_bus_id_comes_back_byte_for_byte(bench):
    gateway = FakeGateway({"1-1": describe("1-1")})
    asked = b"1-1\0and what follows it 12345678"
    assert len(asked) == 32
    with Agent(bench, [gateway.address]) as agent, agent.client() as client:
        client.send_op(REQ_IMPORT, asked)
        assert client.recv_op(REP_IMPORT) == 0
        assert client.recv_raw(312)[256:288] == asked


def test_refusals_are_passed_on(bench):
    for refusal in (ST_NA, ST_DEV_BUSY, ST_NODEV):
        gateway = FakeGateway()
        gateway.on_import = (lambda connection, busid, status=refusal:
                             connection.sendall(op(REP_IMPORT, status)))
        with Agent(bench, [gateway.address]) as agent:
            with agent.client() as client:
                try:
                    client.import_("1-1")
                    raise AssertionError("was not refused")
                except Refused as refused:
                    assert refused.status == refusal
                assert client.is_at_end()
            agent.wait_no_children()


def test_imports_that_lie_are_refused(bench):
    good = op(REP_IMPORT)
    answers = {
        "nothing": b"",
        "a cut device": good + describe("1-1")[:100],
        "another device": good + describe("1-2"),
        "no speed": good + describe("1-1", speed=0),
        "wireless": good + describe("1-1", speed=4),
        "a hub": good + describe("1-1", **{"class": 9}),
        "no number": good + describe("1-1", busnum=0, devnum=0),
        "a number too large": good + describe("1-1", busnum=1 << 16),
        "another version": op(REP_IMPORT, version=0x0106) + describe("1-1"),
        "another operation": op(REP_DEVLIST) + describe("1-1"),
        "an unknown status": op(REP_IMPORT, 77),
    }
    gateway = FakeGateway()
    with Agent(bench, [gateway.address]) as agent:
        for name, answer in answers.items():
            def lie(connection, _, bytes_=answer):
                connection.sendall(bytes_)
                connection.shutdown(socket.SHUT_WR)
            gateway.on_import = lie
            with agent.client() as client:
                try:
                    client.import_("1-1")
                    raise AssertionError(f"{name} was not refused")
                except Refused as refused:
                    assert refused.status == ST_ERROR, name
        agent.wait_no_children()


def take(agent, gateway):
    """An attachment: the client's and the gateway's ends."""
    client = agent.client()
    client.import_("1-1")
    connection = gateway.wait_connection()
    return client, connection


def test_urbs_pass_in_both_directions(bench):
    gateway = FakeGateway({"1-1": describe("1-1")})
    with Agent(bench, [gateway.address]) as agent:
        client, connection = take(agent, gateway)
        sent = os.urandom(300_000)
        out = client.submit(2, 0, sent)
        recv_exactly(connection, 48)
        assert recv_exactly(connection, len(sent)) == sent
        connection.sendall(reply_submit(out, actual_length=len(sent)))
        assert client.wait(out).actual_length == len(sent)

        back = client.submit(1, IN, length=300_000)
        recv_exactly(connection, 48)
        connection.sendall(reply_submit(back, sent))
        assert client.wait(back).data == sent
        client.close()
        agent.wait_no_children()


def test_an_answer_to_nothing_ends_the_attachment(bench):
    gateway = FakeGateway({"1-1": describe("1-1")})
    with Agent(bench, [gateway.address]) as agent:
        client, connection = take(agent, gateway)
        connection.sendall(reply_submit(77, b"data"))
        assert client.is_at_end()
        agent.wait_log(r"1-1: detached: the gateway sent")
        agent.wait_no_children()


def test_an_answer_longer_than_asked_never_reaches_the_client(bench):
    gateway = FakeGateway({"1-1": describe("1-1")})
    with Agent(bench, [gateway.address]) as agent:
        client, connection = take(agent, gateway)
        seqnum = client.submit(1, IN, length=10)
        recv_exactly(connection, 48)
        connection.sendall(reply_submit(seqnum, bytes(11)))
        try:
            client.recv()
            raise AssertionError("the client got the answer")
        except Closed:
            pass
        agent.wait_no_children()


def test_either_ends_death_ends_the_other(bench):
    gateway = FakeGateway({"1-1": describe("1-1")})
    with Agent(bench, [gateway.address]) as agent:
        client, connection = take(agent, gateway)
        connection.close()
        assert client.is_at_end()
        client.close()
        agent.wait_no_children()

        with agent.client() as client:
            client.import_("1-1")
            connection = gateway.wait_connection(1)
        assert connection.recv(1) == b""


def test_a_link_killed_takes_nothing_else_with_it(bench):
    gateway = FakeGateway({"1-1": describe("1-1")})
    with Agent(bench, [gateway.address]) as agent:
        client, connection = take(agent, gateway)
        for pid in agent.children():
            os.kill(pid, signal.SIGKILL)
        assert client.is_at_end()
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass
        agent.wait_log("killed by signal 9")
        with agent.client() as other:
            assert list(other.devlist()) == ["1-1"]


def test_attachments_outlive_the_agent(bench):
    for number in (signal.SIGKILL, signal.SIGTERM):
        gateway = FakeGateway({"1-1": describe("1-1")})
        with Agent(bench, [gateway.address]) as agent:
            client, connection = take(agent, gateway)
            agent.process.send_signal(number)
            agent.process.wait(LIMIT_S)
            seqnum = client.submit(1, IN, length=4)
            recv_exactly(connection, 48)
            connection.sendall(reply_submit(seqnum, b"live"))
            assert client.wait(seqnum).data == b"live"
            client.close()
            agent.wait_no_children()


def test_a_client_that_is_silent_or_wrong_is_let_go(bench):
    with Agent(bench, []) as agent:
        silent = agent.client()
        for bytes_ in (b"\0" * 8, b"\1\6\200\5\0\0\0\0", b"\1\x11\200\7\0\0\0\0",
                       b"\1\x11\200\3\0\0\0\0" + bytes(32),
                       b"\1\x11\200\3\0\0\0\0" + b"\x1b" * 32):
            with agent.client() as client:
                client.send_raw(bytes_)
                assert client.is_at_end()
        silent.sock.settimeout(LIMIT_S)
        assert silent.is_at_end()
        agent.wait_no_children()


def test_connections_are_bounded(bench):
    with Agent(bench, [], "max_connections = 2\n") as agent:
        held = [agent.client(), agent.client()]
        wait_until(lambda: len(agent.children()) == 2, "two are served")
        with agent.client() as third:
            assert third.is_at_end()
        agent.wait_log("max_connections would allow more")
        for client in held:
            client.close()
        agent.wait_no_children()

        def is_served():
            with agent.client() as client:
                try:
                    return client.devlist() == {}
                except Closed:
                    return False
        wait_until(is_served, "a place is free again")


def test_sighup_reads_the_gateways_anew(bench):
    gateway = FakeGateway({"1-1": describe("1-1")})
    with Agent(bench, []) as agent:
        with agent.client() as client:
            assert client.devlist() == {}
        agent.write_config([gateway.address])
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_log("anew: 1 gateway")
        with agent.client() as client:
            assert list(client.devlist()) == ["1-1"]

        agent.write_config([gateway.address], "nonsense = 1\n")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_log("line 3: .*; the configuration stays as it was")
        with agent.client() as client:
            assert list(client.devlist()) == ["1-1"]


def test_a_wrong_configuration_is_refused(bench):
    path = bench.file("wrong.conf", b"gateways = { 5 }\nlistne = 1\n")
    for config in (path, path + ".missing"):
        result = subprocess.run([AGENT, "-c", config], capture_output=True,
                                text=True, timeout=LIMIT_S, check=False)
        assert_fails(result, EXIT_CONFIG, config)
        assert_fails(check_config(config), EXIT_CONFIG, config)


def check_config(path):
    return subprocess.run([AGENT, "-c", path, "--check-config"], text=True,
                          capture_output=True, timeout=LIMIT_S, check=False)


def test_the_example_configuration_is_right(_):
    path = os.path.join(ROOT, "etc", "xusbip-frontend.conf")
    assert check_config(path).returncode == EXIT_OK


def test_a_port_in_use_is_told(bench):
    with Agent(bench, []) as agent:
        result = subprocess.run([AGENT, "-c", agent.config_path], text=True,
                                capture_output=True, timeout=LIMIT_S,
                                check=False)
        assert_fails(result, EXIT_FAILED, "is a usbipd")


def test_the_stock_tool_lists_through_the_agent(bench):
    gateway = FakeGateway({"1-1": describe("1-1"), "2-1": describe("2-1")})
    with Agent(bench, [gateway.address]) as agent:
        result = subprocess.run(
            ["usbip", "--tcp-port", str(agent.port), "list", "-r",
             "127.0.0.1"], capture_output=True, text=True, timeout=LIMIT_S,
            check=False)
        assert result.returncode == 0, result.stderr
        assert "1-1: " in result.stdout and "2-1: " in result.stdout


run(globals())
