# SPDX-License-Identifier: Apache-2.0
"""A gateway in a domain of a pretended Xen (xenstored.py), of which the test
says each word itself: what an honest one would say, or anything else.

    gateway = FakeXenGateway(xen, guest=5)
    ask = gateway.wait_ask()
    gateway.say(ask.channel, f"{ask.epoch} closed 4 no")
"""

import collections
import re

from harness import wait_until

Ask = collections.namedtuple("Ask", "channel epoch ring_bytes")

CHANNELS = 64


class FakeXenGateway:
    def __init__(self, xen, guest=5, domid=0, name="Domain-0"):
        self.xen = xen
        self.guest = guest
        self.domid = domid
        self.folder = f"/local/domain/{domid}/data/xusbip/{guest}"
        self.guest_folder = f"/local/domain/{guest}/data/xusbip/{domid}"
        self.offer(name)

    def offer(self, name="Domain-0"):
        """The two folders, as a manager makes them."""
        xen = self.xen
        xen.make_node(self.guest_folder, "", f"n{self.guest}",
                      f"r{self.domid}")
        xen.make_node(self.guest_folder + "/name", name, "n0",
                      f"r{self.guest}")
        xen.make_node(self.folder, "", f"n{self.domid}", f"r{self.guest}")
        self.say("devices", "1")

    def withdraw(self):
        self.xen.rm(self.folder)

    def say(self, node, value):
        """Writes a node of the gateway's: a channel's number, or a name."""
        path = f"{self.folder}/{node}"
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        self.xen.make_node(path, value, f"n{self.domid}", f"r{self.guest}")

    def unsay(self, node):
        self.xen.rm(f"{self.folder}/{node}")

    def word(self, node):
        """What the guest says there; None if nothing."""
        try:
            return self.xen.read(f"{self.guest_folder}/{node}")
        except FileNotFoundError:
            return None

    def channels(self):
        """The channels in which the guest has a word."""
        return sorted(int(node) for node in self.xen.ls(self.guest_folder)
                      if node.isdigit())

    def asks(self):
        """What the guest asks for now."""
        found = []
        for channel in self.channels():
            match = re.fullmatch(r"([0-9a-f]{16}) ask (\d+)",
                                 self.word(channel) or "")
            if match:
                found.append(Ask(channel, match[1], int(match[2])))
        return found

    def wait_ask(self):
        return wait_until(self.asks, "the guest asks")[0]

    def wait_word(self, channel, word):
        wait_until(lambda: self.word(channel) == word,
                   f"the guest says {word!r}")

    def wait_silence(self):
        """Waits until no word of the guest's is left."""
        wait_until(lambda: not self.channels(), "the guest says nothing")
