#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many clients that want the same device: it has one owner at a time, also
when the manager is killed and started anew meanwhile, and when the session of
the one who has it does what it can to have another one beside it."""

import fcntl
import os
import threading
import time

from harness import copy_descriptor, run, wait_until
from remote_bed import GIVE_ALL, pass_on
from usbip_client import ST_DEV_BUSY, ST_ERROR, Closed, Refused

CLIENTS = 64
ROUNDS = 500
CONTEST_S = 10
CONFIG = f"""max_sessions = 900
max_sessions_per_peer = {2 * CLIENTS}
zero "zero0" {{ }}
"""


class Contest:
    """Clients that take the device, use it once and let go, over and over."""

    def __init__(self, gateway, refusals=(ST_DEV_BUSY,)):
        self.gateway = gateway
        self.refusals = refusals
        self.lock = threading.Lock()
        self.end = time.monotonic() + CONTEST_S
        self.owners = set()
        self.wins = [0] * CLIENTS
        self.faults = []
        self.threads = [threading.Thread(target=self.compete, args=(i,))
                        for i in range(CLIENTS)]

    def is_over(self):
        return (sum(self.wins) >= ROUNDS or self.faults
                or time.monotonic() > self.end)

    def own(self, number, client):
        with self.lock:
            self.owners.add(number)
            if len(self.owners) > 1:
                self.faults.append(f"owners at once: {self.owners}")
        try:
            reply = client.get_descriptor(1)
            if reply.status or reply.data[8:12] != b"\x25\x05\xa0\xa4":
                self.faults.append(f"{number} does not have it: {reply}")
        finally:
            with self.lock:
                self.owners.discard(number)
                self.wins[number] += 1

    def compete(self, number):
        while not self.is_over():
            try:
                with self.gateway.client(timeout=30) as client:
                    client.import_("zero0")
                    self.own(number, client)
            except Refused as refused:
                if refused.status not in self.refusals:
                    self.faults.append(f"refused with {refused.status}")
            except (Closed, OSError):
                pass    # the manager was killed meanwhile
            except Exception as error:  # pylint: disable=broad-except
                self.faults.append(repr(error))

    def run(self, meanwhile):
        for thread in self.threads:
            thread.start()
        while not self.is_over():
            meanwhile(self)
        for thread in self.threads:
            thread.join()
        print(f"# {sum(self.wins)} owners, {sum(map(bool, self.wins))} of "
              f"{CLIENTS} clients")
        assert not self.faults, self.faults[:5]
        assert sum(self.wins) > 0


def wait_wins(contest, more):
    wins = sum(contest.wins)
    wait_until(lambda: contest.is_over() or sum(contest.wins) >= wins + more,
               "the device is given to others", 2 * CONTEST_S)


def test_a_device_that_all_want_has_one_owner_at_a_time(bench):
    gateway = bench.gateway(CONFIG)

    Contest(gateway).run(lambda contest: wait_wins(contest, ROUNDS))

    gateway.import_when_free("zero0").close()
    wait_until(gateway.has_settled, "all sessions have ended")
    assert "Sanitizer" not in gateway.log()


def test_a_device_has_one_owner_while_managers_are_killed(bench):
    gateway = bench.gateway(CONFIG)

    def restart(contest):
        wait_wins(contest, 10)
        gateway.kill()
        gateway.start()

    # A session whose manager is gone cannot ask for a device.
    Contest(gateway, (ST_DEV_BUSY, ST_ERROR)).run(restart)

    gateway.import_when_free("zero0").close()
    wait_until(lambda: not gateway.sessions(), "all sessions have ended")
    assert "Sanitizer" not in gateway.log()


def unlock_claim(pid):
    """Does for a session what it could do itself, had it been taken over."""
    fd = copy_descriptor(pid, ".lock")
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def is_locked(gateway, busid):
    with open(os.path.join(gateway.runtime_dir, f"{busid}.lock"),
              encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True


def keep_without_a_lock(gateway, busid):
    with gateway.client() as owner:
        owner.import_(busid)
        unlock_claim(gateway.session_of(owner))
        assert not is_locked(gateway, busid)

        assert gateway.import_status(busid) == ST_DEV_BUSY
        gateway.kill()
        gateway.start()
        assert gateway.import_status(busid) == ST_DEV_BUSY

        assert gateway.count(f"{busid} is refused: a session has it") == 2
        assert not is_locked(gateway, busid)
        assert owner.get_descriptor(1, length=18).actual_length == 18
    gateway.import_when_free(busid).close()
    wait_until(lambda: not gateway.sessions(), "all sessions have ended")
    assert gateway.stop() == 0
    assert not [name for name in os.listdir(gateway.runtime_dir)
                if name.endswith((".lock", ".session"))]


def test_a_session_that_unlocks_its_device_is_its_only_owner(bench):
    image = bench.file("image", bytes(1 << 20))
    for busid, config in (("zero0", 'zero "zero0" { }\n'),
                          ("disk0", f'disk "disk0" {{ image = "{image}" }}\n')):
        keep_without_a_lock(bench.gateway(config), busid)


def test_a_session_that_unlocks_another_gateways_device_is_its_only_owner(
        bench):
    keep_without_a_lock(pass_on(bench, bench.gateway('zero "zero0" { }\n'),
                                config=GIVE_ALL), "zero0@a")


def test_a_session_that_unlocks_its_device_is_ended_by_the_next_manager(bench):
    gateway = bench.gateway('zero "zero0" { }\n')
    with gateway.client() as owner:
        owner.import_("zero0")
        unlock_claim(gateway.session_of(owner))
        gateway.kill()
        gateway.start()
        assert not is_locked(gateway, "zero0")

        assert gateway.stop() == 0
        assert owner.is_at_end()
    assert not gateway.sessions()


if __name__ == "__main__":
    run(globals())
