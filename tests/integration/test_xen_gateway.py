#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Guests and their channels at the real gateway, on the real xenstored and the
real libxenvchan over a pretended Xen: every order of words, of deaths and of new
starts. The guest is played by the test."""

import itertools
import os
import random
import re
import signal
import subprocess
import time

from fake_xen_guest import FakeXenGuest
from harness import (LIMIT_S, copy_descriptor, is_alive, run, stop_process,
                     wait_until)
from xen_gateway_bed import (BY_EVENT_S, CONFIG, EXIT_BUSY, EXIT_CANNOT_REACH,
                             EXIT_FAILED, EXIT_TIMEOUT, GRANT_LIMIT, XUSBIP,
                             GuestAgent, bed)
from xenstore_relay import Relay
from xenstored import FakeXen

IS_INTRODUCED = 17  # of xenstored's requests
UNHEARD_S = 30


def flags_of(pid, fd):
    """How a process has opened a descriptor of its own."""
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
        return int(re.search(r"^flags:\s+(\d+)", file.read(), re.M)[1], 8)


# A life.

def test_a_guest_lists_its_devices_and_leaves_nothing_behind(bench):
    with bed(bench) as (b, _):
        for _ in range(3):
            done = b.xen.start(5, [XUSBIP, "list", "-r", "xen:0"],
                               stdout=subprocess.PIPE, text=True)
            out, _ = done.communicate(timeout=LIMIT_S)
            assert done.returncode == 0 and "zero0" in out, out
            b.wait_clean()


def test_a_channel_lives_from_ask_to_nothing(bench):
    with bed(bench) as (b, guest):
        epoch, client = guest.open(7)
        assert b.words()["/local/domain/0/data/xusbip/5/7"] == f"{epoch} open"
        assert len(b.locks()) == len(b.gateway.sessions()) == 1
        guest.let_go(7, client)
        b.wait_clean()


# Every order of words.

def play(guest, channel, sequence, epochs):
    """One step of a sequence, or its end."""
    step = sequence.pop(0) if sequence else "leave"
    if step == "ask":
        epochs[channel] = guest.ask(channel)
    elif step == "up":
        guest.say(channel, epochs.get(channel, "00000000000000ff") + " up")
    elif step == "lost":
        guest.say(channel, "00000000000000fe up")
    elif step == "garbage":
        guest.say(channel, "../../0")
    else:
        guest.unsay(channel)


def test_after_words_in_every_order_nothing_is_left(bench):
    steps = ("ask", "up", "lost", "garbage", "leave")
    sequences = [list(s) for s in itertools.product(steps, repeat=3)]
    random.shuffle(sequences)
    domids = range(5, 10)
    with bed(bench, domids) as (b, *guests):
        seats = {(guest, channel): sequences.pop()
                 for guest in guests for channel in range(25)}
        epochs = {guest: {} for guest in guests}
        for _ in range(4):
            for (guest, channel), sequence in seats.items():
                play(guest, channel, sequence, epochs[guest])
        b.wait_clean(30)
        for guest in guests:
            assert not [name for name in b.xen.ls(guest.folder)
                        if name.isdigit()]


def test_an_ask_that_is_replaced_is_served_behind_the_first(bench):
    with bed(bench) as (b, guest):
        first, client = guest.open(0)
        second = guest.ask(0)
        guest.wait_open(0, second)
        assert first != second
        client.kill()
        client.wait()
        guest.unsay(0)
        b.wait_clean()


def test_an_up_that_nobody_serves_is_closed_with_its_epoch(bench):
    with bed(bench) as (b, guest):
        guest.say(3, "00000000000000aa up")
        status, _ = guest.wait_closed(3, "00000000000000aa")
        assert status == EXIT_CANNOT_REACH
        guest.unsay(3)
        b.wait_clean()


def test_a_gateway_without_pages_to_grant_tells_the_guest_so(bench):
    with bed(bench) as (b, guest):
        b.xen.order("limit", 0, 2)
        done = b.xen.start(5, [XUSBIP, "list", "-r", "xen:0"],
                           stderr=subprocess.PIPE, text=True)
        _, err = done.communicate(timeout=LIMIT_S)
        assert done.returncode == EXIT_BUSY, err
        assert "no memory to share left (the limit of xen_gntalloc" in err, err
        assert len(err.splitlines()) == 1, err
        b.gateway.wait_log("no 3 pages left to grant: raise the limit in")

        b.xen.order("limit", 0, GRANT_LIMIT)
        # Channel 0 is that one's until its warden has ended.
        _, client = guest.open(1)
        guest.let_go(1, client)
        b.wait_clean()


def test_a_session_cannot_write_down_who_it_is(bench):
    with bed(bench) as (b, guest):
        _, client = guest.open(0)
        [pid], [lock] = b.gateway.sessions(), b.locks()
        flags = [flags_of(pid, fd) for fd in os.listdir(f"/proc/{pid}/fd")
                 if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(lock)]
        assert [mode & os.O_ACCMODE for mode in flags] == [os.O_RDONLY], flags
        guest.let_go(0, client)
        b.wait_clean()


def test_a_lock_that_is_held_when_its_channel_ends_goes_when_it_is_free(bench):
    with bed(bench) as (b, guest):
        _, client = guest.open(0)
        copy = copy_descriptor(b.gateway.sessions()[0], ".channel")
        b.restart()
        guest.let_go(0, client)
        b.gateway.wait_log(r"channel 0: \w+ \+ LEFT -> IDLE")
        assert b.locks()

        os.close(copy)

        b.wait_clean(25)


def test_a_session_that_does_not_end_is_killed(bench):
    with bed(bench) as (b, guest):
        _, client = guest.open(0)
        pid = b.gateway.sessions()[0]
        stop_process(pid)
        since = time.monotonic()
        guest.let_go(0, client)
        wait_until(lambda: not is_alive(pid), "the session has ended")
        assert time.monotonic() - since > 2.5
        b.wait_clean()


# Sudden ends of sessions and managers.

def test_a_killed_session_is_told_to_the_guest_at_once(bench):
    with bed(bench) as (b, guest):
        for is_mapped in (False, True):
            epoch = guest.ask(0)
            guest.wait_open(0, epoch)
            client = guest.map(0) if is_mapped else None
            os.kill(b.gateway.sessions()[0], signal.SIGKILL)
            status, _ = guest.wait_closed(0, epoch)
            assert status == EXIT_FAILED
            assert not b.xen.exists(f"{guest.gateways_folder}/0/ring-ref")
            if client:
                client.kill()
        # And the channel is used again.
        epoch, client = guest.open(0)
        guest.let_go(0, client)
        b.wait_clean()


def test_a_session_outlives_its_manager_and_is_served_on(bench):
    with bed(bench) as (b, guest):
        epoch, client = guest.open(0)
        pids = b.gateway.sessions()
        b.restart()
        assert b.gateway.sessions() == pids
        guest.say(0, f"{epoch} up")
        assert guest.word(0) == f"{epoch} open"
        # The others of the guest's are served too, up to what it may have.
        second, other = guest.open(1)
        assert guest.word(1) == f"{second} open"
        guest.let_go(1, other)
        guest.let_go(0, client)
        b.wait_clean()


def test_a_guest_that_left_while_there_was_no_manager_is_let_go(bench):
    with bed(bench) as (b, guest):
        _, client = guest.open(0)
        b.gateway.kill()
        client.kill()
        client.wait()
        guest.unsay(0)
        b.gateway.start()
        b.wait_clean()


def test_manager_and_session_killed_the_guest_is_told_at_the_next_start(bench):
    with bed(bench) as (b, guest):
        epoch, client = guest.open(0)
        b.gateway.kill()
        os.kill(b.gateway.sessions()[0], signal.SIGKILL)
        b.gateway.start()
        status, _ = guest.wait_closed(0, epoch)
        assert status == EXIT_CANNOT_REACH
        guest.let_go(0, client)
        b.wait_clean()


def test_a_manager_killed_at_any_moment_leaves_no_ask_unanswered(bench):
    seed = random.randrange(1 << 32)
    print(f"# seed {seed}")
    chance = random.Random(seed)
    with bed(bench) as (b, guest):
        for _ in range(12):
            epochs = [guest.ask(channel) for channel in range(3)]
            time.sleep(chance.uniform(0, 0.06))
            b.restart()
            for channel, epoch in enumerate(epochs):
                guest.wait_answer(channel, epoch)
            time.sleep(chance.uniform(0, 0.06))
            for channel in range(3):
                guest.unsay(channel)
            if chance.random() < 0.5:
                b.restart()
            b.wait_clean(25)


def test_a_gateway_that_stops_says_so_to_its_guests(bench):
    with bed(bench) as (b, guest):
        epoch, _ = guest.open(0)
        b.gateway.process.terminate()
        # Its folder goes behind the word.
        guest.wait(lambda: guest.word(0) in (
            None, f"{epoch} closed {EXIT_CANNOT_REACH} the gateway stops"),
                   "the guest is told")
        assert b.gateway.wait_exit() == 0
        assert not b.gateway.sessions()


# The end of a domain.

def wait_gone(b, domid, limit_s):
    wait_until(lambda: not b.gateway.sessions(), "its sessions have ended",
               limit_s)
    wait_until(lambda: domid not in b.xen.counts(), "it is no zombie", limit_s)
    wait_until(lambda: not b.xen.exists(f"/local/domain/0/data/xusbip/{domid}"),
               "its folder is gone", limit_s)
    assert not b.xen.exists(f"/local/domain/{domid}")
    b.wait_clean(limit_s)


def test_a_domain_that_is_destroyed_frees_everything_at_once(bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        kept, client = other.open(0)
        for channel in range(10):
            guest.open(channel)
        pid = int(b.gateway.wait_log(r"session (\d+) \(domain 6 ")[1])
        b.xen.destroy(5)
        wait_until(lambda: b.gateway.sessions() == [pid], "its sessions ended",
                   BY_EVENT_S)
        assert other.word(0) == f"{kept} open"
        other.let_go(0, client)
        wait_gone(b, 5, 15)


def test_a_domain_that_is_being_destroyed_keeps_its_rings_until_it_is_dead(
        bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        epoch, _ = guest.open(0)
        b.xen.remove_nodes(5)
        b.gateway.wait_log(r"channel 0: OPEN \+ HIDDEN -> WAITING")
        # The manager has looked when it makes this one.
        b.xen.rm(other.gateways_folder)
        b.xen.write("/local/domain/6/name", "u6")
        other.wait(lambda: other.word("devices"), "it is served again")
        assert b.gateway.count(": ended") == 0
        assert guest.word(0) == f"{epoch} open"
        assert b.xen.counts()[0]["granted"]
        b.xen.destroy(5)
        wait_until(lambda: not b.gateway.sessions(), "it has ended", BY_EVENT_S)
        assert "WAITING + DEAD -> KILLING" in b.gateway.log()
        wait_gone(b, 5, 15)


def test_what_is_revoked_keeps_its_rings_until_its_dying_domain_is_dead(
        bench):
    with bed(bench, (5, 6)) as (b, guest, other):
        guest.open(0)
        b.xen.remove_nodes(5)
        b.gateway.wait_log(r"channel 0: OPEN \+ HIDDEN -> WAITING")
        b.reload(names='"u6"')
        b.gateway.wait_log(r"channel 0: WAITING \+ REVOKE -> REVOKED")
        # The manager has looked when it serves this one.
        epoch, client = other.open(0)
        assert b.gateway.count(": ended") == 0
        assert b.xen.counts()[0]["granted"] and epoch

        b.xen.destroy(5)

        b.gateway.wait_log(r"channel 0: REVOKED \+ DEAD -> KILLING")
        other.let_go(0, client)
        wait_gone(b, 5, 15)


def test_who_is_not_to_be_seen_is_let_go_in_the_end(bench):
    with bed(bench) as (b, _):
        with GuestAgent(bench, b.xen, 5) as agent, agent.client() as client:
            client.import_("zero0")
            b.xen.remove_nodes(5)
            since = time.monotonic()
            wait_until(lambda: any(f" closed {EXIT_TIMEOUT} " in word
                                   for word in b.words().values()),
                       "it is told", 40)
            assert time.monotonic() - since > 14
            b.xen.destroy(5)
            wait_gone(b, 5, 15)


def make_disk(bench):
    """A section for guests 5 and 6."""
    path = bench.file("disk.img", bytes(65536))
    return f'disk "disk0" {{ image = "{path}" domains = {{ "u5", "u6" }} }}\n'


def check_dies_unheard(xen, gateway, relays, agent):
    """Neither the gateway nor xenstored hears anything from now on, and yet
    what its guest 5 had is free in time."""
    claim = os.path.join(gateway.runtime_dir, "disk0.lock")
    with agent, agent.client() as client:
        client.import_("disk0")
        assert os.path.exists(claim)
        for relay in relays:
            relay.loses_events = True
        xen.drop_release_events()
        since = time.monotonic()
        xen.destroy(5)
        wait_until(lambda: not os.path.exists(claim), "it is free", UNHEARD_S)
        print(f"# free after {time.monotonic() - since:.1f} s")
    wait_until(lambda: not gateway.sessions(), "its sessions have ended")
    wait_until(lambda: 5 not in xen.counts(), "it is no zombie")


def test_a_death_of_which_every_event_is_lost_frees_its_device_in_time(bench):
    with bed(bench, (5, 6), make_disk(bench), has_relay=True) as (b, *_):
        with GuestAgent(bench, b.xen, 6) as agent:
            check_dies_unheard(b.xen, b.gateway, [b.relay],
                               GuestAgent(bench, b.xen, 5))
            wait_gone(b, 5, 15)
            b.relay.loses_events = False
            with agent.client() as client:
                client.import_("disk0")


def test_a_domain_that_dies_while_there_is_no_manager_leaves_nothing(bench):
    with bed(bench) as (b, guest):
        guest.open(0)
        b.gateway.kill()
        b.xen.destroy(5)
        b.gateway.start()
        wait_gone(b, 5, 30)


def test_a_number_that_is_used_again_is_another_domain(bench):
    for is_killed in (False, True):
        with bed(bench) as (b, guest):
            guest.open(0)
            old = b.gateway.sessions()
            if is_killed:
                b.gateway.kill()
            else:
                b.xen.freeze(b.gateway)
            b.xen.destroy(5)
            # The dead one's pages go with the sessions that granted them.
            wait_until(lambda: 5 not in b.xen.counts(), "it is no zombie")
            wait_until(lambda: b.xen.store(0).ask(IS_INTRODUCED, "5\0") ==
                       b"F\0", "xenstored has let it go")
            b.xen.add_domain(5, "u5")
            if is_killed:
                b.gateway.start()
            else:
                b.gateway.signal(signal.SIGCONT)
            new = FakeXenGuest(b.xen, 5)
            epoch, client = new.open(0)
            assert new.word(0) == f"{epoch} open"
            wait_until(lambda: not any(map(is_alive, old)),
                       "the old sessions have ended")
            new.let_go(0, client)
            b.wait_clean()


# A driver domain.

def test_a_driver_domain_that_hears_of_no_death_frees_its_device_too(bench):
    os.environ["XUSBIP_XEN_DIR"] = os.path.join(bench.dir, "locks")
    with (FakeXen() as xen, Relay(xen, 0) as managers,
          Relay(xen, 9) as gateways):
        xen.add_domain(5, "u5")
        xen.add_domain(9, "usbvm")
        bench.gateway('gateway "usbvm" { domains = { "u5" } }',
                      ["--manager"], managers.env())
        gateway = bench.gateway(CONFIG.format('"u5"', make_disk(bench)),
                                ["--debug"], gateways.env())
        FakeXenGuest(xen, 5, gateway=9)
        check_dies_unheard(xen, gateway, [managers, gateways],
                           GuestAgent(bench, xen, 5, gateway=9))
        wait_until(lambda: not xen.exists("/local/domain/9/data/xusbip/5"),
                   "its folder is gone")
        gateway.clean_up()


def test_a_gateway_in_a_domain_without_rights_serves_and_lets_go(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u5")
        xen.add_domain(9, "usbvm")
        bench.gateway('gateway "usbvm" { domains = { "u5" } }',
                      ["--manager"], xen.env(0))
        gateway = bench.gateway(CONFIG.format('"u5"', ""), ["--debug"],
                                xen.env(9))
        guest = FakeXenGuest(xen, 5, gateway=9)
        done = xen.start(5, [XUSBIP, "list", "-r", "xen:9"],
                         stdout=subprocess.PIPE, text=True)
        out, _ = done.communicate(timeout=LIMIT_S)
        assert done.returncode == 0 and "zero0" in out, out
        # Channel 0 is that one's until its warden has ended.
        epoch, _ = guest.open(1)
        gateway.kill()
        gateway.start()
        assert guest.word(1) == f"{epoch} open"
        xen.remove_nodes(5)
        gateway.wait_log(r"channel 1: OPEN \+ HIDDEN -> WAITING")
        xen.destroy(5)
        wait_until(lambda: not gateway.sessions(), "its sessions have ended",
                   BY_EVENT_S)
        assert "channel 1: WAITING + DEAD -> KILLING" in gateway.log()
        wait_until(lambda: not xen.counts()[9]["granted"], "nothing is granted")
        wait_until(lambda: not xen.exists("/local/domain/9/data/xusbip/5"),
                   "its folder is gone")
        gateway.clean_up()


run(globals())
