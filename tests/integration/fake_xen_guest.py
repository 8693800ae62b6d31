# SPDX-License-Identifier: Apache-2.0
"""A guest of a pretended Xen (xenstored.py) of which the test says each word
itself, to a real gateway: what an honest one would say, or anything else.

    guest = FakeXenGuest(xen, 5)
    epoch = guest.ask(0)
    guest.wait_open(0, epoch)
    client = guest.map(0)
    guest.say(0, f"{epoch} up")
"""

import itertools
import os
import re
import subprocess

from harness import BUILD, LIMIT_S, wait_until

VCHAN = os.path.join(BUILD, "tests", "integration", "xen_vchan")
epochs = itertools.count(0xa000000000000001)


class FakeXenGuest:
    def __init__(self, xen, domid, gateway=0):
        self.xen = xen
        self.domid = domid
        self.gateway = gateway
        self.folder = f"/local/domain/{domid}/data/xusbip/{gateway}"
        self.gateways_folder = f"/local/domain/{gateway}/data/xusbip/{domid}"
        self.wait(lambda: xen.exists(f"{self.folder}/name"), "it is served")

    def wait(self, condition, what, limit_s=LIMIT_S):
        return wait_until(condition, f"domain {self.domid}: {what}", limit_s)

    # Its own words.

    def say(self, node, value):
        """Writes a node of the guest's: a channel's number, or a name."""
        self.xen.write(f"{self.folder}/{node}", value, as_domid=self.domid)

    def unsay(self, node):
        try:
            self.xen.rm(f"{self.folder}/{node}", as_domid=self.domid)
        except FileNotFoundError:
            pass

    def ask(self, channel, ring_bytes=4096):
        """Asks with a new epoch, which is returned."""
        epoch = f"{next(epochs):016x}"
        self.say(channel, f"{epoch} ask {ring_bytes}")
        return epoch

    # The gateway's.

    def word(self, node):
        """What the gateway says there to this guest; None if nothing."""
        try:
            return self.xen.read(f"{self.gateways_folder}/{node}",
                                 as_domid=self.domid)
        except (FileNotFoundError, PermissionError):
            return None

    def wait_open(self, channel, epoch, limit_s=LIMIT_S):
        self.wait(lambda: self.word(channel) == f"{epoch} open",
                  f"channel {channel} is open", limit_s)

    def wait_closed(self, channel, epoch, limit_s=LIMIT_S):
        """Its status and why."""
        def match():
            return re.fullmatch(rf"{epoch} closed (\d+) (.+)",
                                self.word(channel) or "")
        found = self.wait(match, f"channel {channel} is closed", limit_s)
        return int(found[1]), found[2]

    def wait_answer(self, channel, epoch, limit_s=LIMIT_S):
        """Whatever it is."""
        self.wait(lambda: (self.word(channel) or "").startswith(epoch),
                  f"channel {channel} is answered", limit_s)

    def wait_nothing(self, channel, limit_s=LIMIT_S):
        self.wait(lambda: self.word(channel) is None,
                  f"nothing is said in channel {channel}", limit_s)

    # Mapping.

    def map(self, channel):
        """A process that has mapped the channel."""
        process = self.xen.start(
            self.domid, [VCHAN, "client", str(self.gateway),
                         f"{self.gateways_folder}/{channel}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        return process

    def open(self, channel):
        """A channel in use: its epoch and the process that has it."""
        epoch = self.ask(channel)
        self.wait_open(channel, epoch)
        process = self.map(channel)
        self.say(channel, f"{epoch} up")
        return epoch, process

    def let_go(self, channel, process):
        process.stdin.close()
        process.wait()
        process.stdout.close()
        self.unsay(channel)
