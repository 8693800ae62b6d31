# SPDX-License-Identifier: Apache-2.0
"""What the tests of the real gateway among domains work with: a pretended Xen
with guests, the gateway in its dom0, and what is to be left in the end.

    with bed(bench, guests=(5, 6)) as (b, guest, other):
        epoch, client = guest.open(0)
        guest.let_go(0, client)
        b.wait_clean()
"""

import contextlib
import os
import re
import signal
import subprocess

from agent import AGENT, Agent
from fake_xen_guest import FakeXenGuest
from harness import BUILD, LIMIT_S, wait_until
from xenstore_relay import Relay
from xenstored import FakeXen

XUSBIP = os.path.join(BUILD, "xusbip")
(EXIT_OK, EXIT_FAILED, EXIT_NOT_ALLOWED, EXIT_CANNOT_REACH, EXIT_BUSY,
 EXIT_TIMEOUT) = (0, 1, 4, 5, 7, 11)

# Pages that dom0 can grant; what the installation sets, and the gateway takes
# for granted where the kernel, being no Xen's, says nothing.
GRANT_LIMIT = 16512

# The gateway looks every 10 s without one.
BY_EVENT_S = 8

CONFIG = ("listen = {{ }}\nxen = true\nmax_sessions = 900\n"
          'zero "zero0" {{ domains = {{ {} }} }}\n{}')


class Bed:
    """A Xen with guests u5, u6, … and a gateway in dom0 for them."""

    def __init__(self, bench, xen, guests, more, relay):
        self.xen = xen
        self.relay = relay
        self.names = ", ".join(f'"u{domid}"' for domid in guests)
        self.more = more
        for domid in guests:
            xen.add_domain(domid, f"u{domid}")
        env = relay.env() if relay else xen.env(0)
        self.gateway = bench.gateway(self.config(), ["--debug"], env)
        self.guests = [FakeXenGuest(xen, domid) for domid in guests]

    def config(self, names=None, more=None):
        return CONFIG.format(self.names if names is None else names,
                             self.more if more is None else more)

    def reload(self, **changes):
        self.gateway.write_config(self.config(**changes))
        self.gateway.signal(signal.SIGHUP)

    def restart(self):
        """Its manager is killed, and started anew."""
        self.gateway.kill()
        self.gateway.start()

    def admin(self, *args):
        """A command of the administrator's, which runs."""
        env = {**self.xen.env(0),
               "XUSBIP_ADMIN": f"{self.gateway.runtime_dir}/admin.sock"}
        return subprocess.Popen([XUSBIP, *args], env=env, text=True,
                                stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_clean(self, limit_s=LIMIT_S):
        """No session, nothing granted, no word and no lock is left."""
        wait_until(lambda: not self.gateway.sessions(), "no session is left",
                   limit_s)
        wait_until(lambda: not self.xen.counts()[0]["granted"],
                   "nothing is granted", limit_s)
        wait_until(lambda: not self.words(), "nothing is said", limit_s)
        wait_until(lambda: not self.locks(), "no lock is left", limit_s)
        assert "Sanitizer" not in self.gateway.log()

    def words(self):
        """What the gateway says in channels, by its path."""
        tree = self.xen.tree("/local/domain/0/data/xusbip")
        return {path: value for path, value in tree.items()
                if re.search(r"/\d+/\d+(/|$)", path)}

    def locks(self):
        return [name for name in os.listdir(self.gateway.runtime_dir)
                if re.fullmatch(r"xen-.*\.channel", name)]

    def has_note(self, busid):
        """Does a lock file say that its session has this device?"""
        for name in self.locks():
            # One may go while it is looked at.
            with contextlib.suppress(FileNotFoundError):
                with open(os.path.join(self.gateway.runtime_dir, name),
                          encoding="ascii") as note:
                    if busid in note.read():
                        return True
        return False


@contextlib.contextmanager
def bed(bench, guests=(5,), more="", has_relay=False):
    with FakeXen() as xen, contextlib.ExitStack() as stack:
        xen.order("limit", 0, GRANT_LIMIT)
        relay = stack.enter_context(Relay(xen, 0)) if has_relay else None
        b = Bed(bench, xen, guests, more, relay)
        try:
            yield b, *b.guests
        finally:
            # Sessions are of the gateway's domain, which does not end.
            b.gateway.clean_up()


class GuestAgent(Agent):
    """An agent in a domain, for the stock tools' port."""

    # pylint: disable-next=super-init-not-called
    def __init__(self, bench, xen, domid, gateway=0):
        self.port = bench.free_port()
        self.log_path = bench.file(f"agent{domid}.log")
        self.config_path = os.path.join(bench.dir, f"agent{domid}.conf")
        self.write_config([f"xen:{gateway}"])
        with open(self.log_path, "ab") as log:
            self.process = xen.start(domid, [AGENT, "-c", self.config_path,
                                             "--debug"],
                                     stdout=log, stderr=log,
                                     stdin=subprocess.DEVNULL)
        wait_until(lambda: self.has_logged("ready"), "the agent is ready")
