#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A hostile guest on the gateway's sockets: whatever it sends is refused with a
reason in the log or is one URB's error, memory stays bounded, and the guest
next to it reads and writes on."""

import random
import socket
import struct
import time

from fuzzer import Fuzzer
from harness import run, wait_until
from shm_peer import (CONSUMED, IS_ENDED, PRODUCED, TO_CLIENT, TO_SERVER,
                      ShmPeer)
from usbip_client import (IN, OUT, REP_IMPORT, REQ_DEVLIST,
                          REQ_IMPORT, RET_UNLINK, ST_NODEV, Closed, IsoPacket,
                          Refused, UsbipClient, pack_packets, pack_submit,
                          pack_unlink, setup_packet)
from watch import Meter, Witness, assert_no_fault

CONFIG = 'zero "witness" { }\nzero "target" { }\n'
MAX_LENGTH = 16 << 20
ECONNRESET, EPIPE, ENOMEM, EINVAL = 104, 32, 12, 22
LOOPBACK_CONFIGURATION = 2
OPERATION_LIMIT_S = 10
STUCK_LIMIT_S = 16
# A session: its program, 8 MiB of data in flight, and as much rounded up.
MEMORY_KIB = 32 << 10
FUZZ_PDUS = 100_000


def attach_witness(gateway):
    """An honest guest at work on the other device."""
    client = gateway.client()
    client.import_("witness")
    assert client.set_configuration(LOOPBACK_CONFIGURATION).status == 0

    def exchange(data):
        assert client.bulk_out(1, data).actual_length == len(data)
        assert client.control_out(0x40, 0x5b, 0, 0, data).status == 0
        assert client.control_in(0xc0, 0x5c, 0, 0, len(data)).data == data
        return client.bulk_in(1, len(data)).data
    return Witness(exchange)


class Scene:
    """A gateway, an honest guest on it, and its processes' memory."""

    def __init__(self, bench, config=""):
        self.gateway = bench.gateway(config + CONFIG)
        self.meter = Meter(self.gateway.process.pid)
        self.witness = attach_witness(self.gateway)

    def join(self):
        """A client over shared memory."""
        return UsbipClient(sock=ShmPeer.join(self.gateway.socket))

    def import_target(self, connect=None):
        """A client with the device, which the last one may just give back."""
        def attempt():
            client = (connect or self.gateway.client)()
            try:
                client.import_("target")
                return client
            except Refused:
                client.close()
                return None
        return wait_until(attempt, "the target is free")

    def assert_refused(self, client, reason):
        """The session ends, and the log says why."""
        pid = self.gateway.session_of(client)
        assert client.is_at_end(), reason
        self.gateway.wait_log(rf"session {pid}: .*{reason}")
        client.close()

    def end(self):
        self.witness.end()
        self.meter.assert_below(MEMORY_KIB)
        assert_no_fault(self.gateway.log())


def iso(*packets):
    return [IsoPacket(offset, length) for offset, length in packets]


def submit(devid, /, *, seqnum=1, direction=IN, endpoint=1, data=b"", packets=(),
           **options):
    """The bytes of a CMD_SUBMIT; packets follow if there are any."""
    num_packets = options.pop("num_packets", len(packets))
    return pack_submit(seqnum, options.pop("devid", devid), direction,
                       endpoint, options.pop("length", len(data)), num_packets,
                       **options) + data + pack_packets(packets)


# Operations


def test_operations_that_do_not_exist_are_refused(bench):
    scene = Scene(bench)
    cases = {
        "an older version": struct.pack(">HHI", 0x0106, REQ_DEVLIST, 0),
        "no version": bytes(8),
        "a reply": struct.pack(">HHI", 0x0111, REP_IMPORT, 0),
        "an unknown code": struct.pack(">HHI", 0x0111, 0x8001, 0),
        "an URB before the import": submit(1 << 16),
        "all ones": b"\xff" * 48,
    }
    for name, data in cases.items():
        client = scene.gateway.client()
        client.send_raw(data)
        version, code = struct.unpack(">HH", data[:4])
        scene.assert_refused(client, "refused: version "
                             f"{version:04x}, code {code:04x}")
        assert name
    scene.end()


def test_bus_ids_without_end_or_sense_are_not_found_and_escaped(bench):
    scene = Scene(bench)
    for busid in (b"x" * 32, b"target" + b"x" * 26, b"\x1b[2J\n\xff\0hidden",
                  b"", b"\0target", b"../target", b"target\n"):
        client = scene.gateway.client()
        client.send_op(REQ_IMPORT, busid.ljust(32, b"\0"))
        assert client.recv_op(REP_IMPORT) == ST_NODEV, busid
        scene.assert_refused(client, "is refused: ")
    log = scene.gateway.log()
    assert all(char == "\n" or " " <= char <= "~" for char in log)
    scene.end()


def test_a_request_cut_short_ends_its_session(bench):
    scene = Scene(bench)
    whole = struct.pack(">HHI", 0x0111, REQ_IMPORT, 0) + b"target".ljust(32)
    for num_bytes in (0, 1, 7, 8, 9, 39):
        client = scene.gateway.client()
        client.send_raw(whole[:num_bytes])
        client.sock.shutdown(socket.SHUT_WR)
        scene.assert_refused(client, "no request: closed by the peer")
    scene.end()


def test_who_asks_too_slowly_is_let_go_within_the_limit(bench):
    scene = Scene(bench)
    silent = scene.gateway.client(timeout=OPERATION_LIMIT_S + 5)
    slow = scene.gateway.client(timeout=OPERATION_LIMIT_S + 5)
    began = time.monotonic()

    for byte in struct.pack(">HHI", 0x0111, REQ_IMPORT, 0) + b"t" * 32:
        try:
            slow.send_raw(bytes([byte]))
            slow.sock.settimeout(1)
            slow.recv_raw(1)
        except TimeoutError:
            continue
        except Closed:
            break
    took_s = time.monotonic() - began

    assert OPERATION_LIMIT_S - 2 < took_s < OPERATION_LIMIT_S + 4, took_s
    scene.assert_refused(slow, "no request: Connection timed out")
    scene.assert_refused(silent, "no request: Connection timed out")
    scene.end()


def test_a_list_that_nobody_reads_does_not_keep_its_session(bench):
    names = "".join(f'zero "z{i}" {{ }}\n' for i in range(60))
    scene = Scene(bench, names)
    client = scene.gateway.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send_op(REQ_DEVLIST, b"garbage" * 1000)
    pid = scene.gateway.session_of(client)
    scene.gateway.wait_log(rf"session {pid} .*: ended", OPERATION_LIMIT_S + 5)
    client.close()
    scene.end()


def test_a_thousand_callers_leave_room_for_another_machine(bench):
    scene = Scene(bench)
    gateway = scene.gateway
    callers = [gateway.client(timeout=OPERATION_LIMIT_S + 15)
               for _ in range(1000)]
    gateway.wait_log("connection refused: max_sessions_per_peer is reached")

    elsewhere = socket.create_connection(("127.0.0.1", gateway.port), 10,
                                         ("127.0.0.2", 0))
    with UsbipClient(sock=elsewhere) as other:
        assert set(other.devlist()) == {"target", "witness"}
    assert len(gateway.sessions()) <= 41
    assert gateway.count("connection refused") < 100
    for caller in callers:
        assert caller.is_at_end()
        caller.close()

    wait_until(lambda: len(gateway.sessions()) == 1, "only the witness")
    with gateway.client() as client:
        assert "target" in client.devlist()
    scene.end()


# URBs that break the protocol


def violations(devid):
    """{the log's words: [streams of bytes that earn them]}"""
    return {
        "a command that it may not send": [
            submit(devid, command=command)
            for command in (0, 3, 4, 5, 1 << 31, (1 << 32) - 1)
        ] + [struct.pack(">HHI", 0x0111, REQ_IMPORT, 0) + b"target" * 8],
        "a command for another device": [
            submit(devid, devid=devid + 1),
            submit(devid, devid=0),
            submit(devid, devid=(1 << 32) - 1),
            pack_unlink(1, devid ^ 1 << 16, 1),
        ],
        "a direction that is neither in nor out": [
            submit(devid, direction=direction)
            for direction in (2, 0x80, (1 << 32) - 1)],
        "an endpoint number above 15": [
            submit(devid, endpoint=endpoint)
            for endpoint in (16, 0x81, 255, 1 << 31, (1 << 32) - 1)],
        "a transfer longer than 16 MiB": [
            submit(devid, direction=direction, length=length)
            for length in (MAX_LENGTH + 1, (1 << 31) - 1, 1 << 31,
                           (1 << 32) - 1)
            for direction in (IN, OUT)],
        "a wrong number of isochronous packets": [
            submit(devid, endpoint=2, num_packets=1025),
            submit(devid, endpoint=2, num_packets=1 << 31),
            submit(devid, endpoint=2, num_packets=(1 << 32) - 2),
            submit(devid, endpoint=0, num_packets=1),
            submit(devid, endpoint=1, num_packets=1),
        ],
        "an isochronous packet outside its buffer": [
            submit(devid, endpoint=2, length=100, packets=iso(*packets))
            for packets in ([(0, 101)], [(101, 0)], [(100, 1)],
                            [((1 << 32) - 1, 2)], [(50, (1 << 32) - 1)],
                            [(0, 60), (0, 60)], [(0, 100)] * 1024)],
        "a sequence number that is in flight already": [
            submit(devid, length=100) + submit(devid, length=100)],
    }


def test_what_breaks_the_protocol_ends_the_attachment_with_a_reason(bench):
    scene = Scene(bench)
    devid = scene.gateway.client().devlist()["target"].devid
    for reason, streams in violations(devid).items():
        for stream in streams:
            client = scene.import_target()
            client.set_configuration(LOOPBACK_CONFIGURATION)
            if "isochronous" in reason:
                client.set_configuration(3)
                client.control_out(0x01, 11, 1, 0)
            client.send_raw(stream)
            scene.assert_refused(client, reason)
    scene.end()


def test_urbs_cut_short_end_the_attachment(bench):
    scene = Scene(bench)
    for endpoint, packets in ((1, []), (2, iso((0, 50), (50, 50)))):
        whole = submit(scene.gateway.client().devlist()["target"].devid,
                       direction=OUT, endpoint=endpoint, data=bytes(100),
                       packets=packets)
        for num_bytes in (1, 47, 48, 49, 147, len(whole) - 1):
            if num_bytes >= len(whole):
                continue
            client = scene.import_target()
            client.control_out(0x01, 11, 1, 0)
            client.send_raw(whole[:num_bytes])
            client.sock.shutdown(socket.SHUT_WR)
            scene.assert_refused(client, "detached: peer is gone")
    scene.end()


# URBs that fail, and the attachment goes on


def test_urbs_that_cannot_be_done_fail_alone(bench):
    scene = Scene(bench)
    client = scene.import_target()
    cases = [
        # endpoint, direction, length, options, status
        (5, IN, 512, {}, -EPIPE),
        (5, OUT, 70_000, {}, -EPIPE),
        (15, IN, 0, {}, -EPIPE),
        (2, IN, 100, {"packets": iso((0, 100))}, -EPIPE),
        (2, OUT, 100, {"packets": iso((0, 100))}, -EPIPE),
        (1, IN, MAX_LENGTH, {}, -ENOMEM),
        (1, OUT, MAX_LENGTH, {}, -ENOMEM),
        (0, IN, 4097, {"setup": setup_packet(0xc0, 0x5c, 0, 0, 4097)},
         -EINVAL),
        (0, OUT, 65535, {"setup": setup_packet(0x40, 0x5b, 0, 0, 65535)},
         -EINVAL),
        (0, IN, 18, {"setup": b"\xff" * 8}, -EINVAL),
        (0, IN, 18, {"setup": setup_packet(0x80, 6, 0xff00, 9, 18)}, -EPIPE),
        (0, OUT, 0, {"setup": setup_packet(0x00, 9, 77, 0, 0)}, None),
        (0, OUT, 0, {"setup": setup_packet(0x01, 11, 9, 9, 0)}, None),
        (0, OUT, 0, {"setup": setup_packet(0x02, 1, 0, 0x8f, 0)}, None),
    ]
    for endpoint, direction, length, options, status in cases:
        data = bytes(length) if direction == OUT else b""
        reply = client.wait(client.submit(endpoint, direction, data,
                                          length, **options))
        assert reply.status < 0, (endpoint, direction, length, reply)
        assert status in (None, reply.status), (endpoint, length, reply)
        assert not reply.data
    assert client.get_descriptor(1, length=18).actual_length == 18
    client.close()
    scene.end()


def test_setup_packets_that_contradict_their_urb_move_no_foreign_bytes(bench):
    scene = Scene(bench)
    client = scene.import_target()
    write = setup_packet(0x40, 0x5b, 0, 0, 16)
    read = setup_packet(0xc0, 0x5c, 0, 0, 16)
    cases = [
        # direction, data or length, setup, what may come back at most
        (IN, 16, write, 0),
        (OUT, bytes(16), read, 16),
        (OUT, b"", write, 16),
        (OUT, bytes(64), write, 64),
        (IN, 4, read, 4),
        (IN, 0, read, 0),
        (IN, 4096, read, 16),
        (IN, 4096, setup_packet(0xc0, 0x5c, 0, 0, 0), 0),
    ]
    for direction, what, setup, most in cases:
        data = what if direction == OUT else b""
        length = len(data) if direction == OUT else what
        reply = client.wait(client.submit(0, direction, data, length,
                                          setup=setup))
        assert reply.actual_length <= most, (direction, what, reply)
        assert reply.data == bytes(len(reply.data)), reply
    client.close()
    scene.end()


def test_unlinks_of_anything_are_answered_once(bench):
    scene = Scene(bench)
    client = scene.import_target()
    client.set_configuration(LOOPBACK_CONFIGURATION)
    waiting = client.submit(1, IN, length=64)
    unknown = client.unlink(77)
    itself = client.unlink(client.next_seqnum)
    of_unlink = client.unlink(unknown)
    right = client.unlink(waiting)
    again = client.unlink(waiting)

    answers = {reply.seqnum: (reply.command, reply.status) for reply in
               (client.recv() for _ in range(5))}

    assert answers == {unknown: (RET_UNLINK, 0), itself: (RET_UNLINK, 0),
                       of_unlink: (RET_UNLINK, 0), again: (RET_UNLINK, 0),
                       right: (RET_UNLINK, -ECONNRESET)}
    del client.pending[waiting]
    assert client.get_descriptor(1, length=18).status == 0
    client.close()
    scene.end()


# Floods


def send_until_stuck(client, stream):
    """How many bytes went before the peer took no more for a second."""
    stream = memoryview(stream)
    client.sock.settimeout(1)
    sent = 0
    try:
        while sent < len(stream):
            sent += client.sock.send(stream[sent:sent + (1 << 20)])
    except TimeoutError:
        pass
    client.sock.settimeout(10)
    return sent


def repeat(urb, first, count):
    """The same CMD_SUBMIT again and again, numbered."""
    return b"".join(urb[:4] + struct.pack(">I", seqnum) + urb[8:]
                    for seqnum in range(first, first + count))


def test_a_guest_that_never_reads_is_not_read_from(bench):
    scene = Scene(bench)
    client = scene.import_target()
    stream = repeat(submit(client.device.devid, length=2000), 1, 500_000)

    assert send_until_stuck(client, stream) < len(stream)

    done = []
    while len(done) < 5000:
        header = client.recv_raw(48)
        seqnum, = struct.unpack(">I", header[4:8])
        status, actual_length = struct.unpack(">iI", header[20:28])
        client.recv_raw(actual_length)
        assert (status, actual_length) in ((0, 2000), (-ENOMEM, 0))
        if status == 0:
            done.append(seqnum)
    assert done == sorted(done)
    client.close()
    scene.end()


def test_urbs_without_end_stay_within_their_number(bench):
    scene = Scene(bench)
    client = scene.import_target()
    client.set_configuration(LOOPBACK_CONFIGURATION)
    more = 200
    client.send_raw(repeat(submit(client.device.devid, length=1), 100,
                           4096 + more))
    for _ in range(more):
        header = client.recv_raw(48)
        assert struct.unpack(">i", header[20:24])[0] == -ENOMEM
    client.close()
    scene.end()


def test_isochronous_packet_lists_are_bounded_as_data_is(bench):
    scene = Scene(bench)
    client = scene.import_target()
    client.control_out(0x01, 11, 1, 0)
    urb = submit(client.device.devid, endpoint=2, length=1024,
                 packets=iso(*[(i, 1) for i in range(1024)]))
    send_until_stuck(client, repeat(urb, 100, 4800))
    client.close()
    scene.end()


# Shared memory


def test_an_honest_client_is_served_over_shared_memory(bench):
    scene = Scene(bench)
    client = scene.import_target(scene.join)
    client.set_configuration(LOOPBACK_CONFIGURATION)
    data = random.Random(2).randbytes(60_000)
    assert client.bulk_out(1, data).actual_length == len(data)
    assert client.bulk_in(1, len(data)).data == data
    client.close()
    scene.end()


def test_rings_that_are_scribbled_on_end_only_their_own_attachment(bench):
    scene = Scene(bench)
    scribbles = [
        (TO_SERVER, PRODUCED, 0xffffffff),
        (TO_SERVER, PRODUCED, 0x80000000),
        (TO_CLIENT, CONSUMED, 0x80000000),
        (TO_CLIENT, CONSUMED, 0xdeadbeef),
    ]
    for ring, word, value in scribbles:
        gateway = scene.gateway
        seen = gateway.count("target detached")
        client = scene.import_target(scene.join)
        client.sock.put(ring, word, value)
        client.sock.ring_bell()
        if ring == TO_CLIENT:
            client.submit(0, IN, length=18,
                          setup=setup_packet(0x80, 6, 0x100, 0, 18))
        wait_until(lambda: gateway.count("target detached") > seen,
                   f"the attachment ends at {word} {value:#x}")
        client.close()
    scene.gateway.wait_log("target detached: peer broke the channel")
    scene.end()


def test_rings_that_change_all_the_time_harm_nobody(bench):
    scene = Scene(bench)
    gateway = scene.gateway
    chance = random.Random(3)
    for _ in range(20):
        seen = gateway.count("target detached")
        client = scene.import_target(scene.join)
        peer = client.sock
        for _ in range(2000):
            at = 4 * chance.randrange(128)
            peer.memory[at:at + 4] = chance.randbytes(4)
            peer.ring_bell()
        peer.put(TO_SERVER, IS_ENDED, 1)
        client.close()
        wait_until(lambda: gateway.count("target detached") > seen,
                   "the attachment ends")
    scene.end()


def test_a_bell_that_blocks_who_rings_it_does_so_for_a_limited_time(bench):
    scene = Scene(bench)
    peer = ShmPeer.join(scene.gateway.socket)
    peer.block_bell(peer.bell)
    UsbipClient(sock=peer).send_op(REQ_DEVLIST)
    scene.gateway.wait_log("ended: killed by signal 14", STUCK_LIMIT_S)
    peer.close()
    scene.witness.end()


# Chance


def test_a_hundred_thousand_random_commands_are_answered_or_refused(bench):
    scene = Scene(bench)
    fuzzer = Fuzzer(scene.import_target, 20_260_101)
    while fuzzer.sent < FUZZ_PDUS:
        fuzzer.stream()
    scene.end()


if __name__ == "__main__":
    run(globals())
