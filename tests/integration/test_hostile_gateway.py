#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A hostile gateway, over TCP and over shared memory: what it sends against the
rules is refused with a reason and never reaches vhci, whose place a socket of
the test has, and the attachment next to it reads and writes on."""

import os
import random
import socket
import struct
import subprocess
import time

from agent import Agent
from fake_gateway import FakeGateway, describe, op, recv_exactly
from harness import BUILD, LIMIT_S, run, wait_until
from shm_peer import (CONSUMED, CONTROL_BYTES, PRODUCED, RING_BYTES, SEALS,
                      TO_CLIENT, TO_SERVER, Offer, ShmPeer, make_bell,
                      make_memory)
from usbip_client import (HEADER, IN, OUT, REP_IMPORT, RET, RET_SUBMIT,
                          RET_UNLINK, ST_ERROR, Closed, IsoPacket, Refused,
                          pack_packets, setup_packet)
from watch import Meter, Witness, assert_no_fault

XUSBIP = os.path.join(BUILD, "xusbip")
ECONNRESET = 104
MAX_U32 = (1 << 32) - 1
NOT_ISO = MAX_U32
IMPORT_LIMIT_S = 10
STUCK_LIMIT_S = 16
MEMORY_KIB = 16 << 10
FUZZ_STREAMS = 60

BAD_COMMAND = "a command that it may not send"
BAD_ACTUAL = "an actual length that cannot be"
BAD_COUNT = "a wrong number of isochronous packets"
BAD_PACKET = "an isochronous packet outside its buffer"
BAD_STATUS = "a status that is neither 0 nor an error"
UNASKED = "an answer to nothing that was asked"


def reply(seqnum, status=0, actual=0, num_packets=0, **more):
    """The 48 bytes of a RET_SUBMIT, or whatever `command` says."""
    return HEADER.pack(more.get("command", RET_SUBMIT), seqnum,
                       more.get("devid", 0), more.get("direction", 0),
                       more.get("endpoint", 0)) + RET.pack(
        status, actual, more.get("start_frame", 0), num_packets,
        more.get("error_count", 0))


def unlinked(seqnum, status):
    return HEADER.pack(RET_UNLINK, seqnum, 0, 0, 0) + struct.pack(
        ">i24x", status)


def serve_honestly(connection, busid):
    """An honest device: what came in on endpoint 2 goes out on endpoint 1."""
    connection.sendall(op(REP_IMPORT) + describe(busid))
    stored = b""
    while True:
        header = recv_exactly(connection, 48)
        _, seqnum, _, direction, _ = HEADER.unpack(header[:20])
        length, = struct.unpack(">I", header[24:28])
        if direction == OUT:
            stored = recv_exactly(connection, length)
            connection.sendall(reply(seqnum, actual=length))
        else:
            connection.sendall(reply(seqnum, actual=length) + stored[:length])


class Scene:
    """An agent, an honest attachment through it, and a hostile gateway."""

    def __init__(self, bench, gateway=None):
        self.hostile = gateway or FakeGateway({"1-1": describe("1-1")})
        honest = FakeGateway({"2-1": describe("2-1")})
        honest.on_import = serve_honestly
        self.agent = Agent(bench, [honest.address, self.hostile.address])
        honest.devices.clear()
        self.meter = Meter(self.agent.process.pid)
        self.client = None
        refuse = honest.on_import

        def answer(connection, busid):
            if busid == "2-1":
                refuse(connection, busid)
            else:
                honest.answer_import(connection, busid)
        honest.on_import = answer
        witness = self.agent.client()
        witness.import_("2-1")

        def exchange(data):
            witness.bulk_out(2, data)
            return witness.bulk_in(1, len(data)).data
        self.witness = Witness(exchange)

    def attach(self):
        """The ends of an attachment: vhci's and the hostile gateway's."""
        number = len(self.hostile.connections)
        self.client = self.agent.client()
        self.client.import_("1-1")
        return self.client, self.hostile.wait_connection(number)

    def assert_ends(self, reason, arrived=b""):
        """vhci's side gets these bytes and no more, and the log the reason."""
        got = bytearray()
        try:
            while len(got) <= len(arrived) + 48:
                got += self.client.recv_raw(1)
        except Closed:
            pass
        assert bytes(got) == arrived, (reason, len(got), bytes(got[:48]))
        self.client.close()
        # Lines of other attachments are there too: each ends one line.
        count = self.count(reason)
        wait_until(lambda: self.count(reason) > self.seen.get(reason, 0),
                   f"{reason!r} in the log, which has it {count} times")
        self.seen[reason] = self.count(reason)

    seen = {}

    def count(self, reason):
        return self.agent.log().count(f"1-1: detached: the gateway {reason}")

    def __enter__(self):
        self.seen = {}
        self.agent.__enter__()
        return self

    def __exit__(self, error, *more):
        try:
            if not error:
                self.witness.end()
                self.meter.assert_below(MEMORY_KIB)
                assert_no_fault(self.agent.log())
        finally:
            self.agent.__exit__(error, *more)
            self.hostile.close()


# What a gateway may answer to one URB


ISO_LENGTHS = [(0, 32), (32, 32)]


def ask(client, kind):
    """Sends one URB of 64 bytes; its number, and its bytes on the wire."""
    if kind == "in":
        return client.submit(1, IN, length=64), 48
    if kind == "out":
        return client.submit(2, OUT, bytes(64)), 48 + 64
    packets = [IsoPacket(*packet) for packet in ISO_LENGTHS]
    direction = IN if kind == "iso in" else OUT
    data = b"" if direction == IN else bytes(64)
    seqnum = client.submit(3, direction, data, 64, packets=packets)
    return seqnum, 48 + len(data) + 32


def packets(*changes, actual=32):
    """The descriptors of a right answer, with some fields changed."""
    values = [IsoPacket(offset, length, actual)
              for offset, length in ISO_LENGTHS]
    for index, field, value in changes:
        setattr(values[index], field, value)
    return pack_packets(values)


def lies_about(kind, s):
    """(reason, what the gateway sends, what of it may arrive)"""
    data = bytes(range(64))
    for command in (0, 1, 2, 5, MAX_U32):
        yield BAD_COMMAND, reply(s, command=command), b""
    for seqnum in (s + 1, 0, MAX_U32):
        yield UNASKED, reply(seqnum), b""
    yield UNASKED, unlinked(s, -ECONNRESET), b""
    for status in (1, (1 << 31) - 1, -4096, -(1 << 31)):
        yield BAD_STATUS, reply(s, status,
                                num_packets=2 * kind.startswith("iso")), b""
    for actual in (65, 1 << 31, MAX_U32):
        yield BAD_ACTUAL, reply(s, actual=actual, num_packets=2 *
                                kind.startswith("iso")) + data, b""
    counts = (0, 1, 3, NOT_ISO) if kind.startswith("iso") else (1, 1024)
    for count in counts:
        yield BAD_COUNT, reply(s, actual=64, num_packets=count) + data, b""


def lies_about_data(s):
    """The same for what follows a header of an URB that is not isochronous."""
    data = bytes(64)
    yield "in", UNASKED, 2 * (reply(s, actual=4) + b"data"), \
        reply(s, actual=4) + b"data"
    yield "in", BAD_COMMAND, reply(s, actual=4) + data, \
        reply(s, actual=4) + bytes(4)
    yield "out", BAD_COMMAND, reply(s, actual=64) + data, reply(s, actual=64)


def lies_about_packets(s):
    """Wrong descriptors: the header and data before them were right."""
    head = reply(s, actual=64, num_packets=2)
    cases = [
        (BAD_PACKET, packets((0, "offset", 1))),
        (BAD_PACKET, packets((1, "offset", 400))),
        (BAD_PACKET, packets((1, "offset", MAX_U32))),
        (BAD_PACKET, packets((0, "length", 33))),
        (BAD_PACKET, packets((1, "length", 0))),
        (BAD_ACTUAL, packets((0, "actual_length", 33))),
        (BAD_ACTUAL, packets((0, "actual_length", MAX_U32))),
        (BAD_ACTUAL, packets((0, "actual_length", 31))),
        (BAD_STATUS, packets((1, "status", 1))),
    ]
    for reason, descriptors in cases:
        yield "iso in", reason, head + bytes(64) + descriptors, \
            head + bytes(64)
        yield "iso out", reason, head + descriptors, head


def try_lie(scene, kind, reason, make):
    """One attachment, one URB, one lie about it."""
    client, connection = scene.attach()
    seqnum, num_bytes = ask(client, kind)
    recv_exactly(connection, num_bytes)
    sent, arrived = make(seqnum)
    connection.sendall(sent)
    scene.assert_ends("sent " + reason, arrived)
    connection.close()


def test_answers_that_lie_never_reach_vhci(bench):
    with Scene(bench) as scene:
        for kind in ("in", "out", "iso in"):
            number = len(list(lies_about(kind, 1)))
            for i in range(number):
                reason = list(lies_about(kind, 1))[i][0]
                try_lie(scene, kind, reason,
                        lambda s, k=kind, n=i: list(lies_about(k, s))[n][1:])


def test_what_follows_a_right_header_is_judged_too(bench):
    with Scene(bench) as scene:
        for lies in (lies_about_data, lies_about_packets):
            for i, (kind, reason, _, _) in enumerate(lies(1)):
                try_lie(scene, kind, reason,
                        lambda s, f=lies, n=i: list(f(s))[n][2:])


def test_answers_to_unlinks_that_lie_are_refused(bench):
    def lies(s, u):
        yield BAD_STATUS, unlinked(u, 1), b""
        yield UNASKED, reply(u), b""
        yield UNASKED, unlinked(s, 0), b""
        yield UNASKED, unlinked(u, -ECONNRESET) + reply(s), \
            unlinked(u, -ECONNRESET)
        yield UNASKED, unlinked(u, 0) + reply(s), unlinked(u, 0)
        yield UNASKED, 2 * unlinked(u, -ECONNRESET), unlinked(u, -ECONNRESET)

    with Scene(bench) as scene:
        for i in range(len(list(lies(1, 2)))):
            client, connection = scene.attach()
            target = client.submit(1, IN, length=64)
            unlink = client.unlink(target)
            recv_exactly(connection, 96)
            reason, sent, arrived = list(lies(target, unlink))[i]
            connection.sendall(sent)
            scene.assert_ends("sent " + reason, arrived)
            connection.close()


def test_a_device_that_becomes_another_one_is_not_shown(bench):
    def device_descriptor(vendor=0x1234, product=0x5678, device_class=0):
        return struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x200, device_class, 0, 0,
                           64, vendor, product, 0x100, 0, 0, 0, 1)

    right = device_descriptor()
    others = (device_descriptor(vendor=0x0bad), device_descriptor(product=1),
              device_descriptor(device_class=3))
    with Scene(bench) as scene:
        for other in others:
            client, connection = scene.attach()
            for sent in (right, other):
                seqnum = client.submit(0, IN, length=18, setup=setup_packet(
                    0x80, 6, 0x100, 0, 18))
                recv_exactly(connection, 48)
                connection.sendall(reply(seqnum, actual=18) + sent)
                if sent == right:
                    assert client.wait(seqnum).data == right
            scene.assert_ends("sent the descriptor of another device")
            connection.close()


def test_fields_that_mean_nothing_arrive_as_they_must_be(bench):
    with Scene(bench) as scene:
        client, connection = scene.attach()
        seqnum, _ = ask(client, "in")
        recv_exactly(connection, 48)
        connection.sendall(reply(seqnum, actual=4, num_packets=NOT_ISO,
                                 devid=77, direction=5, endpoint=99,
                                 error_count=MAX_U32) + b"good")
        assert client.recv_raw(52) == reply(seqnum, actual=4) + b"good"
        connection.close()


def test_answers_cut_short_end_the_attachment(bench):
    cases = [
        ("in", lambda s: reply(s, actual=64)[:20], b""),
        ("in", lambda s: reply(s, actual=64), None),
        ("in", lambda s: reply(s, actual=64) + bytes(63), None),
        ("iso in", lambda s: reply(s, actual=64, num_packets=2) + bytes(64) +
         packets()[:31], -31),
    ]
    with Scene(bench) as scene:
        for kind, make, arrived in cases:
            client, connection = scene.attach()
            seqnum, num_bytes = ask(client, kind)
            recv_exactly(connection, num_bytes)
            sent = make(seqnum)
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            if arrived is None:
                arrived = sent
            elif arrived == -31:
                arrived = sent[:-31]
            scene.assert_ends("is gone", arrived)
            connection.close()


# Silence and floods


def test_a_gateway_silent_at_the_import_is_given_up(bench):
    with Scene(bench) as scene:
        scene.hostile.on_import = lambda connection, _: connection.recv(1)
        client = scene.agent.client()
        client.sock.settimeout(IMPORT_LIMIT_S + 5)
        began = time.monotonic()
        try:
            client.import_("1-1")
            raise AssertionError("was imported")
        except Refused as refused:
            assert refused.status == ST_ERROR
        assert time.monotonic() - began < IMPORT_LIMIT_S + 3
        scene.agent.wait_log("did not answer in time")
        client.close()


def test_a_gateway_that_never_reads_holds_up_its_own_device_only(bench):
    with Scene(bench) as scene:
        client, connection = scene.attach()
        client.sock.settimeout(1)
        sent = 0
        try:
            while sent < 64 << 20:
                client.submit(2, OUT, bytes(64 << 10))
                sent += 64 << 10
        except TimeoutError:
            pass
        assert sent < 64 << 20
        client.close()
        connection.close()
        scene.agent.wait_log("1-1: detached")


def test_bytes_without_end_are_refused_at_the_first(bench):
    with Scene(bench) as scene:
        _, connection = scene.attach()
        try:
            for _ in range(100):
                connection.sendall(b"\xa5" * (1 << 20))
        except OSError:
            pass
        scene.assert_ends("sent " + BAD_COMMAND)


# Chance


def fuzz_stream(chance, scene):
    """Right answers to random URBs, then one with some bits turned."""
    client, connection = scene.attach()
    asked = []
    for _ in range(chance.randrange(1, 20)):
        kind = chance.choice(("in", "out", "iso in", "iso out"))
        seqnum, num_bytes = ask(client, kind)
        recv_exactly(connection, num_bytes)
        asked.append((kind, seqnum))
    chance.shuffle(asked)
    for number, (kind, seqnum) in enumerate(asked):
        is_iso = kind.startswith("iso")
        answer = bytearray(reply(seqnum, actual=64, num_packets=2 * is_iso))
        if kind.endswith("in"):
            answer += bytes(64)
        if is_iso:
            answer += packets()
        if number == len(asked) - 1:
            for _ in range(chance.randrange(1, 4)):
                answer[chance.randrange(len(answer))] ^= 1 << \
                    chance.randrange(8)
        connection.sendall(answer)
    connection.shutdown(socket.SHUT_WR)
    # What vhci's side gets is right, each answer to what was asked.
    try:
        while True:
            got = client.recv()
            assert got.status <= 0 and got.actual_length <= 64, got
            assert sum(p.actual_length for p in got.packets) in (
                0, got.actual_length), got
    except Closed:
        pass
    client.close()
    connection.close()


def test_random_answers_are_right_or_do_not_arrive(bench):
    chance = random.Random(20_260_102)
    with Scene(bench) as scene:
        for _ in range(FUZZ_STREAMS):
            fuzz_stream(chance, scene)


# Shared memory


class ShmGateway(FakeGateway):
    """A gateway on a Unix socket that makes an offer to each caller."""

    def __init__(self, bench, make_offer=Offer):
        self.path = os.path.join(bench.dir, f"hostile{bench.free_port()}")
        self.make_offer = make_offer
        super().__init__({"1-1": describe("1-1")})

    def listen(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(64)
        return listener, "unix:" + self.path

    def begin(self, connection):
        return ShmPeer.offer(connection, self.make_offer())


def list_devices(address):
    return subprocess.run([XUSBIP, "list", "-r", address], text=True,
                          capture_output=True, timeout=2 * LIMIT_S,
                          stdin=subprocess.DEVNULL, check=False)


def fds(memory=None, server_bell=None, client_bell=None):
    return [make_memory(CONTROL_BYTES + 2 * RING_BYTES)
            if memory is None else memory,
            make_bell() if server_bell is None else server_bell,
            make_bell() if client_bell is None else client_bell]


def bad_offers():
    size = CONTROL_BYTES + 2 * RING_BYTES
    yield "another magic", Offer(magic=1)
    yield "another version", Offer(version=2)
    for ring_bytes in (0, 1, 4096, RING_BYTES + 1, 3 << 16, 32 << 20, 1 << 31,
                       MAX_U32):
        yield f"rings of {ring_bytes}", Offer(ring_bytes=ring_bytes)
    yield "larger rings than there is memory", Offer(ring_bytes=1 << 20)
    yield "more memory than rings", Offer(fds=fds(make_memory(size + 4096)))
    yield "no memory", Offer(fds=fds(make_memory(0)))
    for seals in (0, SEALS & ~1, SEALS & ~2, SEALS & ~4):
        yield f"seals {seals}", Offer(fds=fds(make_memory(size, seals)))
    yield "a file as memory", Offer(fds=fds(os.open(__file__, os.O_RDONLY)))
    yield "memory as a bell", Offer(fds=fds(server_bell=make_memory(8)))
    yield "a pipe as a bell", Offer(fds=fds(client_bell=os.pipe()[0]))
    yield "no descriptors", Offer(fds=[])
    yield "two descriptors", Offer(fds=fds()[:2])
    yield "four descriptors", Offer(fds=fds() + [make_bell()])
    yield "a longer message", Offer(more=b"more")


def test_offers_that_lie_are_refused_in_one_line(bench):
    for name, offer in bad_offers():
        gateway = ShmGateway(bench)

        def send(connection, bad=offer):
            bad.send(connection)
            connection.recv(1)
            raise EOFError
        gateway.begin = send
        began = time.monotonic()
        result = list_devices(gateway.address)
        assert result.returncode not in (0, 1) or "cannot" in result.stderr
        assert result.returncode > 0, (name, result)
        assert len(result.stderr.splitlines()) == 1, (name, result)
        assert time.monotonic() - began < 5, name
        gateway.close()


def test_an_honest_offer_is_taken(bench):
    with Scene(bench, ShmGateway(bench)) as scene:
        assert " 1-1: " in list_devices(scene.hostile.address).stdout
        client, connection = scene.attach()
        seqnum, _ = ask(client, "in")
        recv_exactly(connection, 48)
        connection.sendall(reply(seqnum, actual=4) + b"good")
        assert client.wait(seqnum).data == b"good"
        connection.close()


def test_rings_that_are_scribbled_on_end_their_attachment(bench):
    with Scene(bench, ShmGateway(bench)) as scene:
        for ring, word, value in ((TO_CLIENT, PRODUCED, MAX_U32),
                                  (TO_CLIENT, PRODUCED, 1 << 31),
                                  (TO_SERVER, CONSUMED, 0xdeadbeef)):
            _, connection = scene.attach()
            connection.put(ring, word, value)
            connection.ring_bell()
            if ring == TO_SERVER:
                scene.client.submit(1, IN, length=64)
            scene.assert_ends("broke the channel")
            connection.close()


def test_lies_through_shared_memory_never_reach_vhci(bench):
    with Scene(bench, ShmGateway(bench)) as scene:
        client, connection = scene.attach()
        seqnum, _ = ask(client, "in")
        recv_exactly(connection, 48)
        connection.sendall(reply(seqnum, actual=65) + bytes(65))
        scene.assert_ends("sent " + BAD_ACTUAL)
        connection.close()


def test_a_bell_that_blocks_who_rings_it_does_so_for_a_limited_time(bench):
    def begin(connection):
        peer = ShmPeer.offer(connection, Offer(fds=fds()))
        peer.block_bell(peer.bell)
        connection.recv(1)
        raise EOFError

    gateway = ShmGateway(bench)
    gateway.begin = begin
    began = time.monotonic()
    result = list_devices(gateway.address)
    assert result.returncode > 0, result
    assert len(result.stderr.splitlines()) == 1, result
    assert time.monotonic() - began < STUCK_LIMIT_S
    gateway.close()


if __name__ == "__main__":
    run(globals())
