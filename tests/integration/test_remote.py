#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Passing on: a client uses, at a gateway, the devices that another one has."""

import os
import signal
import struct

from fake_gateway import FakeGateway, describe, op, reply_submit
from harness import run, wait_until
from remote_bed import (CONFIGURATION, GIVE_ALL, FakeDevice,
                        device_descriptor, dialers, pass_on, remote, string)
from usbip_client import (IN, OUT, REP_DEVLIST, REP_IMPORT, REQ_DEVLIST,
                          REQ_IMPORT, RET_UNLINK, ST_DEV_BUSY, ST_DEV_ERR,
                          ST_NODEV, ST_OK, Closed, IsoPacket)

ZERO = 'zero "zero0" { }\n'
EPIPE, ECONNRESET = 32, 104
SECTOR = 512


def disk(bench, name, content):
    path = bench.file(name, content)
    return f'disk "{name}" {{ image = "{path}" high_speed = true }}\n'


def answers(client):
    """Does the device itself answer? Strings are not known here."""
    return client.get_descriptor(3, 1).status == 0


def say_nothing(connection):
    """Until the other side has had enough."""
    connection.recv(1)


def has_nothing_left(passing, having):
    """No session, dialer or claim of either."""
    return (not passing.sessions() and not having.sessions()
            and not dialers(having)
            and not [name for gateway in (passing, having)
                     for name in os.listdir(gateway.runtime_dir)
                     if name.endswith(".lock")])


def scsi(client, command, data=b"", length=0):
    """A command of the bulk-only transport: what was read, and its status."""
    size = len(data) or length
    client.bulk_out(2, struct.pack("<4sIIBBB16s", b"USBC", 7, size,
                                   0x80 if length else 0, 0, len(command),
                                   command))
    got = client.bulk_in(1, length).data if length else b""
    if data:
        assert client.bulk_out(2, data).actual_length == len(data)
    status = client.bulk_in(1, 13).data
    assert status[:8] == struct.pack("<4sI", b"USBS", 7), status
    return got, status[12]


def transfer(code, at, count):
    return struct.pack(">BBIBHB", code, 0, at, 0, count, 0)


# What is there.


def test_the_list_shows_devices_of_another_gateway_by_its_name(bench):
    a = bench.gateway(ZERO + disk(bench, "disk0", bytes(1 << 20)))
    b = pass_on(bench, a, config=GIVE_ALL + 'zero "own" { }\n')
    with a.client() as client:
        there = client.devlist()
    with b.client() as client:
        here = client.devlist()
    assert sorted(here) == ["disk0@a", "own", "zero0@a"], here
    for busid in there:
        device = here[f"{busid}@a"]
        assert (device.vendor, device.interfaces) == (
            there[busid].vendor, there[busid].interfaces)


def test_a_name_that_is_too_long_or_no_name_is_left_out_of_the_list(bench):
    names = ["1-1", "x" * 29, "x" * 30, "../1-1", "1-1/2", "a b", "@1"]
    a = FakeGateway({name: describe(name) for name in names})
    b = pass_on(bench, a)
    with b.client() as client:
        assert sorted(client.devlist()) == ["1-1@a", "x" * 29 + "@a"]
    for name in names[2:]:
        b.wait_log(r"its device .*" + name.replace(".", r"\.") +
                   " is left out")
    a.close()


def test_a_device_two_gateways_away_is_used(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    c = bench.gateway(GIVE_ALL + remote("b", f"unix:{b.socket}"))
    with c.client() as client:
        assert list(client.devlist()) == ["zero0@a@b"]
    with c.import_when_free("zero0@a@b") as client:
        client.set_configuration(2)
        data = os.urandom(5000)
        client.bulk_out(1, data)
        assert client.bulk_in(1, 5000).data == data
    wait_until(lambda: has_nothing_left(c, b) and has_nothing_left(b, a),
               "everything has ended")


def test_gateways_that_pass_on_each_other_answer_a_list(bench):
    a = bench.prepare(ZERO)
    b = bench.prepare('zero "zero1" { }\n')
    a.write_config(ZERO + GIVE_ALL + remote("b", f"tcp:127.0.0.1:{b.port}"))
    b.write_config('zero "zero1" { }\n' + GIVE_ALL +
                   remote("a", f"tcp:127.0.0.1:{a.port}"))
    a.start()
    b.start()

    def is_all_listed():
        """On a busy machine b, which asks a, which asks b, is waited for in
        vain at times."""
        with a.client() as client:
            devices = client.devlist()
        assert "zero0" in devices, devices
        return "zero1@b" in devices
    wait_until(is_all_listed, "what b has is in the list of a")
    wait_until(lambda: has_nothing_left(a, b), "all lists have ended")


# What a device does.


def test_strings_bulk_data_and_settings_pass(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        assert client.get_descriptor(1, length=18).data[8:12] == \
            b"\x25\x05\xa0\xa4"
        assert client.get_descriptor(2, 1).data[5] == 2
        assert client.get_descriptor(2, 2).status == -EPIPE
        assert client.get_descriptor(3, 2).data[2:4] == b"S\0"
        assert client.bulk_in(1, 1 << 20).data == bytes(1 << 20)
        assert client.set_configuration(2).status == 0
        for size in (1, 511, 512, 513, 60000):
            data = os.urandom(size)
            assert client.bulk_out(1, data).actual_length == size
            assert client.bulk_in(1, size).data == data


def test_a_halt_is_seen_and_cleared(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        assert client.bulk_out(1, b"\1\2\3").actual_length == 3
        assert client.bulk_out(1, bytes(3)).status == -EPIPE
        assert client.control_out(0x02, 1, 0, 0x01).status == 0
        assert client.bulk_out(1, bytes(3)).status == 0


def test_the_port_is_reset_there(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        client.control_out(0x01, 11, 1, 0)
        assert client.control_out(0x23, 3, 4, 1).status == 0
        seqnum = client.submit(3, IN, length=8)
        assert client.wait(seqnum).status == -EPIPE


def test_a_disk_is_read_and_written(bench):
    content = os.urandom(1 << 20)
    a = bench.gateway(disk(bench, "disk0", content))
    b = pass_on(bench, a)
    with b.import_when_free("disk0@a") as client:
        got, status = scsi(client, transfer(0x28, 16, 128),
                           length=128 * SECTOR)
        assert status == 0
        assert got == content[16 * SECTOR:][:128 * SECTOR]
        data = os.urandom(64 * SECTOR)
        assert scsi(client, transfer(0x2a, 100, 64), data)[1] == 0
    with open(os.path.join(bench.dir, "disk0"), "rb") as file:
        file.seek(100 * SECTOR)
        assert file.read(64 * SECTOR) == data


def test_a_transfer_that_waits_is_taken_back(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        client.set_configuration(2)
        waiting = [client.submit(1, IN, length=100) for _ in range(3)]
        unlink = client.wait(client.unlink(waiting[1]))
        assert (unlink.command, unlink.status) == (RET_UNLINK, -ECONNRESET)
        client.bulk_out(1, b"x" * 10)
        client.bulk_out(1, b"y" * 10)
        assert client.wait(waiting[0]).data == b"x" * 10
        assert client.wait(waiting[2]).data == b"y" * 10
        assert client.wait(client.unlink(waiting[0])).status == 0


def test_isochronous_packets_keep_their_places(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    packets = [IsoPacket(0, 100), IsoPacket(200, 300), IsoPacket(1000, 1024)]
    with b.import_when_free("zero0@a") as client:
        client.control_out(0x01, 11, 1, 0)
        reply = client.wait(client.submit(2, IN, length=4096,
                                          packets=packets))
        assert reply.status == 0 and reply.data == bytes(1424)
        assert [(p.offset, p.actual_length, p.status)
                for p in reply.packets] == [(0, 100, 0), (200, 300, 0),
                                            (1000, 1024, 0)]
        reply = client.wait(client.submit(2, OUT, bytes(4096),
                                          packets=packets))
        assert reply.actual_length == 1424


def test_packed_data_is_spread_as_the_client_laid_it_out(bench):
    a = FakeDevice()

    def answer(connection, command):
        lengths = (10, 20, 5)
        head = bytearray(reply_submit(command.seqnum, actual_length=35))
        head[32:36] = struct.pack(">I", 3)
        places = [struct.unpack(">IIII", command.packets[i * 16:][:16])
                  for i in range(3)]
        connection.sendall(head + b"a" * 10 + b"b" * 20 + b"c" * 5 + b"".join(
            struct.pack(">IIIi", offset, length, actual, 0)
            for (offset, length, _, _), actual in zip(places, lengths)))

    a.on_command = answer
    b = pass_on(bench, a)
    packets = [IsoPacket(100, 64), IsoPacket(300, 64), IsoPacket(500, 64)]
    with b.import_when_free("1-1@a") as client:
        reply = client.wait(client.submit(3, IN, length=1024,
                                          packets=packets))
        assert reply.data == b"a" * 10 + b"b" * 20 + b"c" * 5, reply
        assert a.commands[0].interval == 1 and a.commands[0].flags & 2
    a.close()


def test_answers_wait_for_a_client_that_does_not_read(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        seqnums = [client.submit(1, IN, length=256 << 10) for _ in range(30)]
        for seqnum in seqnums:
            assert client.wait(seqnum).actual_length == 256 << 10


# Whose it is.


def test_a_device_has_one_user_at_both_gateways(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a"):
        assert b.import_status("zero0@a") == ST_DEV_BUSY
        assert a.import_status("zero0") == ST_DEV_BUSY
    with a.import_when_free("zero0"):
        assert b.import_status("zero0@a") == ST_DEV_BUSY
        b.wait_log("zero0@a is not opened: .*in use")
    b.import_when_free("zero0@a").close()


def test_no_more_than_64_devices_and_questions_are_carried(bench):
    many = "calls_per_second = 1000\nmax_sessions_per_peer = 200\n"
    a = bench.gateway(many + "".join(f'zero "z{i}" {{ }}\n'
                                     for i in range(64)))
    other = bench.gateway(ZERO)
    b = pass_on(bench, a, other, config=many + GIVE_ALL)
    clients = [b.import_when_free(f"z{i}@a") for i in range(64)]
    assert b.import_status("zero0@b") == ST_DEV_ERR
    b.wait_log("zero0@b is not opened: too many devices of other gateways")
    clients.pop().close()
    wait_until(lambda: len(dialers(a)) == 63, "one is free")
    b.import_when_free("zero0@b").close()
    assert all(answers(client) for client in clients)
    for client in clients:
        client.close()
    wait_until(lambda: has_nothing_left(b, a), "all is gone")


def test_without_a_rule_nothing_is_passed_on(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a, config='export { vendor = "0525" }\n')
    with b.client() as client:
        assert client.devlist() == {}
    assert b.import_status("zero0@a") == ST_NODEV
    b.wait_log("zero0@a is refused: no export rule gives this peer anything")
    assert not a.count("started")


def test_rules_judge_by_what_the_device_says(bench):
    a = FakeDevice(descriptors={0x100: device_descriptor(serial=3),
                                0x300: bytes((4, 3, 9, 4)),
                                0x303: string("AB12\u00e9")})
    rule = 'export {{ remote = "a" vendor = "1234" {} }}\n'
    b = pass_on(bench, a, config=rule.format('serial = "AB12\u00e9"'))
    b.import_when_free("1-1@a").close()
    b.write_config(rule.format('serial = "other"') +
                   remote("a", a.address))
    b.signal(signal.SIGHUP)
    b.wait_log("configuration reloaded")
    wait_until(lambda: not dialers(a), "the device is free")
    assert b.import_status("1-1@a") == ST_NODEV
    b.wait_log("1-1@a is refused: no export rule matches")
    wait_until(lambda: not dialers(a), "the device was let go")
    a.close()


def test_a_rule_that_is_gone_takes_the_device_back(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        b.write_config(remote("a", f"tcp:127.0.0.1:{a.port}"))
        b.signal(signal.SIGHUP)
        assert client.is_at_end()
    b.wait_log("no rule gives it this device any more")
    wait_until(lambda: has_nothing_left(b, a), "all is gone")


def test_a_device_that_is_another_one_than_listed_is_not_given(bench):
    keyboard = CONFIGURATION.replace(bytes((9, 4, 0, 0, 3, 0xff, 0, 0)),
                                     bytes((9, 4, 0, 0, 3, 3, 1, 1)))
    a = FakeDevice(descriptors={0x200: keyboard})
    b = pass_on(bench, a)
    with b.client() as client:
        assert list(client.devlist()) == ["1-1@a"]
    assert b.import_status("1-1@a") == ST_NODEV
    b.wait_log("1-1@a is refused: .*keyboard")
    a.close()


def test_what_the_other_gateway_refuses_is_refused_with_its_reason(bench):
    a = bench.gateway(disk(bench, "gone", bytes(SECTOR)))
    b = pass_on(bench, a)
    os.unlink(os.path.join(bench.dir, "gone"))
    assert b.import_status("nothing@a") == ST_NODEV
    b.wait_log("nothing@a is not opened: .*no such device")
    assert b.import_status("gone@a") == ST_DEV_ERR
    b.wait_log("gone@a is not opened: .*the device does not work")


def test_names_of_nothing_are_refused_without_a_question(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    for busid in ("zero0@c", "zero0@", "@a", "../zero0@a", "@@a", "zero0@a@"):
        assert b.import_status(busid) == ST_NODEV, busid
    assert not a.count("started")


# Ends.


def test_each_side_that_is_killed_ends_it_and_nothing_stays(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    victims = {"session at the one that passes on": b.sessions,
               "session at the one that has it": a.sessions,
               "dialer": lambda: dialers(a)}
    for name, find in victims.items():
        with b.import_when_free("zero0@a") as client:
            assert answers(client), name
            pid, = find()
            os.kill(pid, 9)
            assert client.is_at_end(), name
        wait_until(lambda: has_nothing_left(b, a), f"all is gone: {name}")


def test_a_device_in_use_outlives_the_manager_that_passed_it_on(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        b.kill()
        assert answers(client)
        b.start()
        assert answers(client)
        assert b.import_status("zero0@a") == ST_DEV_BUSY
    b.import_when_free("zero0@a").close()
    wait_until(lambda: has_nothing_left(b, a), "all is gone")


def test_a_manager_that_stops_ends_what_it_passes_on(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        assert b.stop() == 0
        assert client.is_at_end()
    wait_until(lambda: not dialers(a) and not a.sessions(), "all is gone")


def test_a_gateway_that_stops_takes_its_devices_away(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        a.stop()
        assert client.is_at_end()
    wait_until(lambda: has_nothing_left(b, a), "all is gone")
    with b.client() as client:
        assert client.devlist() == {}
    assert b.import_status("zero0@a") == ST_DEV_ERR
    a.start()
    b.import_when_free("zero0@a").close()


def test_a_client_that_goes_while_it_waits_leaves_no_dialer(bench):
    a = FakeGateway()
    a.on_import = lambda connection, busid: None
    a.on_devlist = say_nothing
    b = pass_on(bench, a)
    for code, body in ((REQ_IMPORT, b"1-1@a".ljust(32, b"\0")),
                       (REQ_DEVLIST, b"")):
        with b.client() as client:
            client.send_op(code, body)
            wait_until(lambda: dialers(a), "it is asked")
            os.kill(b.session_of(client), 9)
            wait_until(lambda: not dialers(a), "the dialer is gone")
    a.close()


# Others that do not do as they should.


def test_a_list_goes_on_without_a_gateway_that_is_not_there(bench):
    port = bench.free_port()
    b = bench.gateway(ZERO + GIVE_ALL + remote("a", f"tcp:127.0.0.1:{port}"))
    with b.client() as client:
        assert list(client.devlist()) == ["zero0"]
    b.wait_log("remote a: its devices are not listed: cannot connect to "
               f"tcp:127.0.0.1:{port}: Connection refused")


def test_a_list_goes_on_without_a_gateway_that_says_nothing(bench):
    a = bench.gateway(ZERO)
    silent = FakeGateway()
    silent.on_devlist = say_nothing
    b = pass_on(bench, a, silent)
    with b.client() as client:
        assert list(client.devlist()) == ["zero0@a"]
    b.wait_log("remote b: its devices are not listed: .*did not answer in "
               "time")
    wait_until(lambda: not dialers(silent), "its dialer is gone")
    silent.close()


def test_many_lists_at_once_are_few_questions(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.client() as client:
        client.devlist()
    clients = [b.client() for _ in range(20)]
    for client in clients:
        client.send_op(REQ_DEVLIST)
    for client in clients:
        assert client.recv_op(REP_DEVLIST) == ST_OK
        assert struct.unpack(">I", client.recv_raw(4))[0] == 1
        client.close()
    assert a.count(": started") < 10


def test_a_hostile_list_is_refused_and_the_rest_is_shown(bench):
    a = bench.gateway(ZERO)
    bad = {
        "a list of too many devices":
            op(REP_DEVLIST) + struct.pack(">I", 1 << 20),
        "a device with too many interfaces":
            op(REP_DEVLIST) + struct.pack(">I", 1) +
            describe("1-1", num_interfaces=33),
        "another version of USB/IP": op(REP_DEVLIST, version=0x0106),
        "an answer to another question": op(REP_IMPORT),
        "it ended the conversation": op(REP_DEVLIST) + b"\0\0",
    }
    for words, answer in bad.items():
        hostile = FakeGateway()
        hostile.on_devlist = lambda connection, it=answer: connection.sendall(
            it)
        b = pass_on(bench, a, hostile)
        with b.client() as client:
            assert list(client.devlist()) == ["zero0@a"], words
        b.wait_log(f"remote b: its devices are not listed: .*{words}")
        b.stop()
        hostile.close()


def test_more_devices_than_are_listed_are_left_out(bench):
    many = FakeGateway({f"1-{i}": describe(f"1-{i}") for i in range(300)})
    b = pass_on(bench, many)
    with b.client() as client:
        assert len(client.devlist()) == 256
    b.wait_log("remote a: it lists more than 256 devices")
    many.close()


def test_a_device_whose_descriptors_are_wrong_is_not_given(bench):
    long = bytes((9, 2, 0x01, 0x10)) + bytes(5)
    bad = {
        "the descriptor of another device":
            {0x100: device_descriptor(vendor=0x4321)},
        "no device descriptor": {0x100: bytes(10)},
        "too many configurations":
            {0x100: device_descriptor(configurations=9)},
        "no configuration descriptor": {0x200: b""},
        "more than 4096 bytes": {0x200: long},
        "cut short": {0x200: CONFIGURATION[:30]},
    }
    for words, descriptors in bad.items():
        a = FakeDevice(descriptors=descriptors)
        b = pass_on(bench, a)
        assert b.import_status("1-1@a") == ST_DEV_ERR, words
        b.wait_log(f"1-1@a is not opened: .*{words}")
        b.stop()
        a.close()


def test_a_reply_that_was_not_asked_for_ends_the_device_alone(bench):
    other = bench.gateway(ZERO)
    bad = {
        "an answer to nothing that was asked":
            lambda command: reply_submit(command.seqnum + 1000),
        "an actual length that cannot be":
            lambda command: reply_submit(command.seqnum, actual_length=101),
        "a status that is neither 0 nor an error":
            lambda command: reply_submit(command.seqnum, status=1),
        "a command that it may not send":
            lambda command: struct.pack(">II", 1, command.seqnum) + bytes(40),
    }
    for words, answer in bad.items():
        a = FakeDevice()
        a.on_command = lambda connection, command, it=answer: \
            connection.sendall(it(command))
        b = pass_on(bench, a, other)
        with b.import_when_free("zero0@b") as witness, \
                b.import_when_free("1-1@a") as client:
            client.submit(1, IN, length=100)
            assert client.is_at_end(), words
            b.wait_log(f"1-1@a: the gateway that has it is given up: {words}")
            assert answers(witness), words
        b.stop()
        a.close()


def test_a_client_that_breaks_the_protocol_is_refused_here(bench):
    a = bench.gateway(ZERO)
    b = pass_on(bench, a)
    with b.import_when_free("zero0@a") as client:
        client.submit(1, IN, length=10, devid=1)
        assert client.is_at_end()
    b.wait_log("a command for another device")
    wait_until(lambda: has_nothing_left(b, a), "all is gone")
    assert not a.count("another device")
    b.import_when_free("zero0@a").close()


def test_requests_of_a_gateway_that_does_not_answer_have_a_limit(bench):
    a = FakeDevice()
    a.on_command = lambda connection, command: None
    b = pass_on(bench, a)
    with b.import_when_free("1-1@a") as client:
        client.sock.settimeout(15)
        client.submit(0, OUT, setup=bytes((2, 1, 0, 0, 0x81, 0, 0, 0)))
        assert client.is_at_end()
    b.wait_log("a request was not answered in time")
    a.close()


run(globals())
