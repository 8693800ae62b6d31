# SPDX-License-Identifier: Apache-2.0
"""Random commands to Gadget Zero's twin from one seed, mostly right ones, and a
judge of every reply: each command is answered once, by RET_SUBMIT or by the
RET_UNLINK that took it back."""

import random

from usbip_client import (IN, OUT, RET_UNLINK, Closed, IsoPacket,
                          setup_packet)

ECONNRESET = 104


class Fuzzer:
    """Streams of commands that are mostly right, from one seed."""

    def __init__(self, attach, seed):
        self.attach = attach
        self.chance = random.Random(seed)
        self.sent = 0

    def setup(self):
        chance = self.chance
        if chance.random() < 0.5:
            return chance.randbytes(8)
        return setup_packet(chance.choice((0x80, 0x00, 0x01, 0x02, 0xc0, 0x40,
                                           0x21, 0x82)),
                            chance.choice((0, 1, 3, 5, 6, 8, 9, 10, 11, 0x5b,
                                           0x5c)),
                            chance.choice((0, 1, 2, 3, 0x100, 0x200, 0x301)),
                            chance.choice((0, 1, 2, 0x81, 0x82)),
                            chance.choice((0, 1, 18, 64, 4096, 65535)))

    def length(self):
        return int(self.chance.paretovariate(0.5)) % 20_000

    def packets(self):
        packets = []
        offset = 0
        for _ in range(self.chance.randrange(1, 12)):
            packets.append(IsoPacket(offset, self.chance.randrange(1100)))
            offset += packets[-1].length
        return packets, offset

    def submit(self, client):
        chance = self.chance
        endpoint = chance.choice((0, 0, 1, 1, 1, 2, 3, chance.randrange(16)))
        direction = chance.choice((IN, OUT))
        options = {"flags": chance.choice((0, 1, 2, 0x40, 0x40000, 1 << 31)),
                   "interval": chance.randrange(256)}
        length = self.length()
        if endpoint == 0:
            options["setup"] = self.setup()
            # A setting that halts isochronous URBs would end this stream.
            if options["setup"][:2] in (b"\0\x09", b"\x01\x0b"):
                options["setup"] = bytes(8)
        elif endpoint == 2:
            options["packets"], length = self.packets()
        data = chance.randbytes(length) if direction == OUT else b""
        client.submit(endpoint, direction, data, length, **options)

    def command(self, client):
        chance = self.chance
        what = chance.random()
        if what < 0.002:
            client.send_raw(chance.randbytes(chance.randrange(1, 200)))
        elif what < 0.25 and client.pending:
            oldest = max(0, client.next_seqnum - 300)
            client.unlink(chance.randrange(oldest, client.next_seqnum + 2))
        else:
            self.submit(client)
        self.sent += 1

    def drain(self, client, most_pending):
        """Judges replies until no more than so many are open."""
        while len(client.pending) > most_pending:
            reply = client.recv()
            if reply.command == RET_UNLINK and reply.status != 0:
                assert reply.status == -ECONNRESET, reply
                del client.pending[client.targets.pop(reply.seqnum)]

    def stream(self):
        """One attachment, to its end by a violation or by our own."""
        client = self.attach()
        client.control_out(0x01, 11, 1, 0)
        client.targets = {}
        unlink = client.unlink

        def noted_unlink(target):
            seqnum = unlink(target)
            client.targets[seqnum] = target
        client.unlink = noted_unlink
        try:
            for _ in range(3000):
                self.command(client)
                self.drain(client, 200)
            for seqnum, pending in list(client.pending.items()):
                if not pending.is_unlink:
                    client.unlink(seqnum)
            self.drain(client, 0)
        except Closed:
            pass
        client.close()
