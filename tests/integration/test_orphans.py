#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sessions whose manager was killed, and what the next one does with them."""

import os
import signal
import struct
import subprocess
import time

from harness import run, wait_until
from tls_files import Lab
from usbip_client import ST_OK

ANNA = 'zero "zero0" { peers = { "anna" } }\n'
BERTA = 'zero "zero1" { peers = { "berta" } }\n'


def answers(client):
    return client.get_descriptor(1, length=18).actual_length == 18


def is_clock_after(note):
    """Whether a process that starts now starts at another tick of the clock
    than the one that is noted: numbers are never used again that soon."""
    (started_at,) = struct.unpack_from("=Q", note, 8)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return int(now * os.sysconf("SC_CLK_TCK")) > started_at


def notes(gateway):
    return sorted(name for name in os.listdir(gateway.runtime_dir)
                  if name.endswith(".session"))


def test_an_orphan_is_judged_at_a_reload(bench):
    lab = Lab(bench, ANNA + BERTA)
    with lab.client() as anna, lab.client("berta") as berta:
        anna.import_("zero0")
        berta.import_("zero1")
        lab.gateway.kill()
        lab.gateway.start()
        assert answers(anna) and answers(berta)
        assert notes(lab.gateway) == ["zero0.session", "zero1.session"]

        lab.ca.do("revoke", "anna")
        lab.gateway.signal(signal.SIGHUP)
        lab.gateway.wait_log(r"\(anna \(.*zero0\): of an earlier manager: is "
                             "killed: its certificate is revoked")
        assert anna.is_at_end() and answers(berta)

        lab.write_config('zero "zero1" { peers = { "emil" } }\n')
        lab.gateway.signal(signal.SIGHUP)
        lab.gateway.wait_log(r"\(berta \(.*zero1\): of an earlier manager: is "
                             "killed: no rule gives it this device any more")
        assert berta.is_at_end()
    wait_until(lambda: not notes(lab.gateway), "nothing is noted")


def test_an_orphan_is_judged_when_the_next_manager_starts(bench):
    lab = Lab(bench, ANNA + BERTA)
    with lab.client() as anna, lab.client("berta") as berta:
        anna.import_("zero0")
        berta.import_("zero1")
        lab.gateway.kill()
        lab.ca.do("revoke", "anna")
        lab.gateway.start()
        assert anna.is_at_end() and answers(berta)
        assert lab.gateway.count("of an earlier manager") == 1
    wait_until(lambda: not notes(lab.gateway), "nothing is noted")


def test_who_has_no_name_is_judged_by_the_rules_of_today(bench):
    gateway = bench.gateway('zero "zero0" { }\n')
    with gateway.client() as client:
        client.import_("zero0")
        gateway.kill()
        gateway.start()
        gateway.signal(signal.SIGHUP)
        gateway.wait_log("configuration reloaded")
        assert answers(client)
        gateway.write_config('zero "zero0" { users = { "4711" } }\n')
        gateway.signal(signal.SIGHUP)
        assert client.is_at_end()


def test_nobody_else_is_taken_for_an_orphan(bench):
    gateway = bench.gateway('zero "zero0" { }\n')
    with gateway.client() as client:
        client.import_("zero0")
        wait_until(lambda: notes(gateway), "it is noted")
        path = os.path.join(gateway.runtime_dir, "zero0.session")
        with open(path, "rb") as file:
            note = file.read()
        gateway.kill()
        wait_until(lambda: is_clock_after(note), "the clock has gone on")
        other = subprocess.Popen(["sleep", "60"])
        try:
            # Its number is the session's now; and half a note, and none.
            for name, content in (
                    ("zero0", note[:4] + struct.pack("=i", other.pid) + note[8:]),
                    ("zero8", note[:40]), ("zero9", b"")):
                path = os.path.join(gateway.runtime_dir, f"{name}.session")
                with open(path, "wb") as file:
                    file.write(content)
            gateway.write_config('zero "zero1" { }\n')
            gateway.start()
            assert gateway.import_status("zero1") == ST_OK
            assert answers(client) and other.poll() is None
        finally:
            other.kill()
            other.wait()
    assert gateway.count("of an earlier manager") == 0


def test_a_device_that_is_used_again_is_noted_as_its_new_users(bench):
    lab = Lab(bench, 'zero "zero0" { peers = { "anna", "berta" } }\n')
    with lab.client() as anna:
        anna.import_("zero0")
    wait_until(lambda: not notes(lab.gateway), "nothing is noted")
    with lab.client("berta") as berta:
        berta.import_("zero0")
        lab.gateway.kill()
        lab.ca.do("revoke", "anna")
        lab.gateway.start()
        assert answers(berta)
        lab.ca.do("revoke", "berta")
        lab.gateway.signal(signal.SIGHUP)
        assert berta.is_at_end()


run(globals())
