#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the real gateway gives a guest and what not: how much it may have, holding
still, devices, and what a hostile one may write. As in test_xen_gateway.py the
guest is played by the test."""

import os
import threading
import time

from fake_xen_guest import FakeXenGuest
from harness import LIMIT_S, run, stop_process, wait_until
from xen_gateway_bed import (BY_EVENT_S, EXIT_BUSY, EXIT_OK, EXIT_TIMEOUT,
                             GuestAgent, bed)
from xenstored import Store


# How much a guest may have.

def test_a_guest_has_all_its_channels_at_once(bench):
    with bed(bench, more="max_sessions_per_peer = 64\n") as (b, guest):
        epochs = {channel: guest.ask(channel) for channel in range(64)}
        for channel, epoch in epochs.items():
            guest.wait_open(channel, epoch, 30)
        guest.say(64, "00000000000000aa ask 4096")
        for channel in epochs:
            guest.unsay(channel)
        guest.unsay(64)
        b.wait_clean(30)


def test_one_channel_more_than_it_may_is_refused_with_words(bench):
    with bed(bench, (5, 6), "max_sessions_per_peer = 2\n") as (b, guest,
                                                               other):
        for channel in range(2):
            guest.wait_open(channel, guest.ask(channel))
        status, why = guest.wait_closed(2, guest.ask(2))
        assert status == EXIT_BUSY and "max_sessions_per_peer" in why, why
        # It is each guest's own.
        other.wait_open(0, other.ask(0))
        guest.unsay(0)
        guest.wait_nothing(0)
        guest.wait_open(2, guest.ask(2))


def test_a_guest_that_no_rule_names_any_more_loses_its_channels(bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        epoch, _ = guest.open(0)
        kept, _ = other.open(0)
        b.reload(names='"u6"')
        # Its folder goes with the rule, perhaps before it can read why.
        guest.wait(lambda: guest.word(0) in (
            None, f"{epoch} closed 4 no rule of the gateway names this "
            "domain any more"), "its channel is closed")
        wait_until(lambda: len(b.gateway.sessions()) == 1, "one is left")
        assert other.word(0) == f"{kept} open"


def test_a_reload_takes_a_passed_on_device_only_if_no_rule_gives_it(bench):
    lab = bench.gateway('zero "zero0" { }')
    remote = f'remote "lab" {{ address = "unix:{lab.socket}" }}\n'
    give = 'export {{ remote = "lab" domains = {{ "{}" }} }}\n'
    with bed(bench, (5, 6), remote + give.format("u5")) as (b, *_):
        with GuestAgent(bench, b.xen, 5) as agent, agent.client() as client:
            client.import_("zero0@lab")

            b.reload()
            b.gateway.wait_log("configuration reloaded")

            assert client.get_descriptor(1).actual_length == 18
            b.reload(more=remote + give.format("u6"))
            wait_until(lambda: not b.gateway.sessions(), "it is taken")


def test_the_number_of_the_list_changes_with_the_list(bench):
    with bed(bench) as (b, guest):
        before = guest.word("devices")
        assert before.isdigit()
        b.reload(more='zero "zero1" { domains = { "u5" } }\n')
        guest.wait(lambda: guest.word("devices") != before,
                   "the list has changed")


# Holding still.

def answer_hold(guest, verb):
    epoch = guest.word("hold")[:16]
    guest.say("hold", f"{epoch} {verb}")


def test_a_held_guest_gets_nothing_until_it_goes_on(bench):
    with bed(bench) as (b, guest):
        _, client = guest.open(0)
        quiesce = b.admin("quiesce", "u5")
        guest.wait(lambda: (guest.word("hold") or "").endswith(" hold"),
                   "it is asked to hold")
        # An answer to another hold is none.
        guest.say("hold", "00000000000000aa done")
        guest.say("hold", "done")
        guest.let_go(0, client)
        b.wait_clean()
        assert quiesce.poll() is None
        answer_hold(guest, "done")
        out, err = quiesce.communicate(timeout=LIMIT_S)
        assert quiesce.returncode == EXIT_OK, (out, err)
        status, why = guest.wait_closed(1, guest.ask(1))
        assert status == EXIT_BUSY and "xusbip resume" in why, why
        # Neither a new manager nor a new domain of the same UUID changes it.
        b.restart()
        status, _ = guest.wait_closed(1, guest.ask(1))
        assert status == EXIT_BUSY
        uuid = b.xen.uuids[5]
        b.xen.destroy(5)
        b.xen.add_domain(8, "u5", uuid)
        guest = FakeXenGuest(b.xen, 8)
        guest.wait(lambda: (guest.word("hold") or "").endswith(" hold"),
                   "it is asked to hold")
        status, _ = guest.wait_closed(1, guest.ask(1))
        assert status == EXIT_BUSY
        resume = b.admin("resume", "u5")
        guest.wait(lambda: guest.word("hold").endswith(" resume"),
                   "it may go on")
        answer_hold(guest, "resumed")
        out, err = resume.communicate(timeout=LIMIT_S)
        assert resume.returncode == EXIT_OK, (out, err)
        guest.wait_open(1, guest.ask(1))


def test_an_agent_that_does_not_answer_loses_its_devices_after_20_s(bench):
    with bed(bench) as (b, guest):
        with GuestAgent(bench, b.xen, 5) as agent:
            with agent.client() as client:
                client.import_("zero0")
                # It cannot answer; its attachment goes on.
                stop_process(agent.process.pid)
                quiesce = b.admin("quiesce", "5")
                _, err = quiesce.communicate(timeout=30)
                assert quiesce.returncode == EXIT_TIMEOUT, err
                assert "did not answer" in err, err
                assert not b.gateway.sessions()
                status, why = guest.wait_closed(1, guest.ask(1))
                assert status == EXIT_BUSY and "xusbip resume" in why, why


# A hostile guest.

GARBAGE = ["", " ", "x", "../../../0", "/local/domain/0", "-1", "+7", "007",
           "\x00", "a\x00b", "\x1b[2J", "\xff" * 8, "x" * 255, "x" * 256,
           "x" * 1900, "0000000000000000 ask 0", "00000000000000aa ask",
           "00000000000000aa ask 99999999999", "00000000000000aa open",
           "00000000000000aa closed 0 x", "00000000000000AA ask 0",
           "%s%n%s%n", "00000000000000aa done", "00000000000000aa attached 0",
           "00000000000000aa failed 1 " + "y" * 300]


def test_garbage_in_any_node_harms_nobody(bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        _, client = other.open(0)
        nodes = ["0", "63", "64", "00", "hold", "want", "want/0", "peer",
                 "devices", "name2", "0/ring-ref", "want/0/x"]
        for value in GARBAGE:
            for node in nodes:
                guest.say(node, value.encode("latin-1").decode("latin-1"))
        epoch = other.ask(1)
        other.wait_open(1, epoch)
        for node in nodes:
            guest.unsay(node)
        guest.wait_open(0, guest.ask(0))
        guest.unsay(0)
        other.unsay(1)
        other.let_go(0, client)
        b.wait_clean()


def test_a_folder_that_the_guest_removes_is_its_own_loss(bench):
    with bed(bench) as (b, guest):
        _, client = guest.open(0)
        b.xen.rm(guest.folder, as_domid=5)
        # It is made again, and with it the gateway's, within 10 s.
        guest.wait_nothing(0, 30)
        client.kill()
        b.wait_clean()


def write_for_ever(path, xen, stop, counts):
    with Store(os.path.join(xen.dir, "dom5")) as store:
        number = 0
        while not stop.is_set():
            number += 1
            store.write(path, f"{number:016x} up")
        counts.append(number)


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def test_a_guest_that_writes_without_end_holds_up_nobody(bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        stop, counts = threading.Event(), []
        writer = threading.Thread(target=write_for_ever, args=(
            f"{guest.folder}/0", b.xen, stop, counts))
        before = cpu_s(b.gateway.process.pid)
        since = time.monotonic()
        writer.start()
        try:
            for channel in range(5):
                _, client = other.open(channel)
                other.let_go(channel, client)
        finally:
            took = time.monotonic() - since
            stop.set()
            writer.join()
        used = cpu_s(b.gateway.process.pid) - before
        print(f"# {sum(counts) / took:.0f} writes/s, {used / took:.2f} of a "
              "CPU")
        guest.unsay(0)
        b.wait_clean()


# A device.

def test_a_device_is_free_at_its_domains_end(bench):
    with bed(bench, (5, 6)) as (b, *_):
        with (GuestAgent(bench, b.xen, 5) as agent,
              GuestAgent(bench, b.xen, 6) as other):
            with agent.client() as client:
                client.import_("zero0")
                b.xen.destroy(5)
                since = time.monotonic()
                wait_until(lambda: not [
                    name for name in os.listdir(b.gateway.runtime_dir)
                    if name == "zero0.lock"], "the device is free",
                    BY_EVENT_S)
                print(f"# after {time.monotonic() - since:.2f} s")
            with other.client() as client:
                client.import_("zero0")


def test_a_device_of_a_session_that_outlived_its_manager_can_be_taken(bench):
    with bed(bench) as (b, _):
        with GuestAgent(bench, b.xen, 5) as agent:
            with agent.client() as client:
                client.import_("zero0")
                wait_until(lambda: b.has_note("zero0"), "it is noted")
                b.restart()
                done = b.admin("detach", "--from", "u5", "-b", "zero0")
                _, err = done.communicate(timeout=LIMIT_S)
                assert done.returncode == EXIT_OK, err
                assert client.is_at_end()
            b.wait_clean()


run(globals())
