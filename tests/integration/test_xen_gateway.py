#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Guests and their channels at the real gateway, on the real xenstored and the
real libxenvchan over a pretended Xen: every order of words, of deaths and of new
starts, and what a hostile guest may write. The guest is played by the test."""

import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import threading
import time

from agent import AGENT, Agent
from fake_xen_guest import FakeXenGuest
from harness import BUILD, LIMIT_S, is_alive, run, wait_until
from xenstored import FakeXen, Store

XUSBIP = os.path.join(BUILD, "xusbip")
(EXIT_OK, EXIT_FAILED, EXIT_NOT_ALLOWED, EXIT_CANNOT_REACH, EXIT_BUSY,
 EXIT_TIMEOUT) = (0, 1, 4, 5, 7, 11)

CONFIG = ("listen = {{ }}\nxen = true\nmax_sessions = 900\n"
          'zero "zero0" {{ domains = {{ {} }} }}\n{}')


class Bed:
    """A Xen with guests u5, u6, … and a gateway in dom0 for them."""

    def __init__(self, bench, xen, guests, more):
        self.xen = xen
        self.names = ", ".join(f'"u{domid}"' for domid in guests)
        self.more = more
        for domid in guests:
            xen.add_domain(domid, f"u{domid}")
        self.gateway = bench.gateway(self.config(), ["--debug"], xen.env(0))
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
        assert "cannot happen" not in self.gateway.log()

    def words(self):
        return {path: value for path, value in
                self.xen.tree("/local/domain/0/data/xusbip").items()
                if re.search(r"/\d+/\d+(/|$)", path)}

    def locks(self):
        return [name for name in os.listdir(self.gateway.runtime_dir)
                if re.fullmatch(r"xen-.*\.lock", name)]


@contextlib.contextmanager
def bed(bench, guests=(5,), more=""):
    os.environ["XUSBIP_XEN_DIR"] = os.path.join(bench.dir, "locks")
    with FakeXen() as xen:
        b = Bed(bench, xen, guests, more)
        try:
            yield b, *b.guests
        finally:
            # Sessions are of the gateway's domain, which does not end.
            b.gateway.clean_up()


class GuestAgent(Agent):
    """An agent in a domain, for the stock tools' port."""

    def __init__(self, bench, xen, domid):  # pylint: disable=super-init-not-called
        self.port = bench.free_port()
        self.log_path = bench.file(f"agent{domid}.log")
        self.config_path = os.path.join(bench.dir, f"agent{domid}.conf")
        self.write_config(["xen:0"])
        with open(self.log_path, "ab") as log:
            self.process = xen.start(domid, [AGENT, "-c", self.config_path,
                                             "--debug"],
                                     stdout=log, stderr=log,
                                     stdin=subprocess.DEVNULL)
        wait_until(lambda: self.has_logged("ready"), "the agent is ready")


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


def test_a_session_that_does_not_end_is_killed(bench):
    with bed(bench) as (b, guest):
        _, client = guest.open(0)
        pid = b.gateway.sessions()[0]
        os.kill(pid, signal.SIGSTOP)
        since = time.monotonic()
        guest.let_go(0, client)
        wait_until(lambda: not is_alive(pid), "the session has ended")
        assert 2.5 < time.monotonic() - since < 5
        b.wait_clean()


# Sudden ends of sessions and managers.

def test_a_killed_session_is_told_to_the_guest_at_once(bench):
    with bed(bench) as (b, guest):
        for is_mapped in (False, True):
            epoch = guest.ask(0)
            guest.wait_open(0, epoch)
            client = guest.map(0) if is_mapped else None
            os.kill(b.gateway.sessions()[0], signal.SIGKILL)
            status, _ = guest.wait_closed(0, epoch, 2)
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
    wait_until(lambda: domid not in b.xen.counts(), "it is no zombie", 5)
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
                   2)
        assert other.word(0) == f"{kept} open"
        other.let_go(0, client)
        wait_gone(b, 5, 15)


def test_a_death_without_any_event_is_found_by_looking(bench):
    with bed(bench) as (b, guest):
        guest.open(0)
        b.gateway.signal(signal.SIGSTOP)
        b.xen.drop_release_events()
        b.xen.destroy(5)
        b.gateway.signal(signal.SIGCONT)
        wait_gone(b, 5, 30)


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
                b.gateway.signal(signal.SIGSTOP)
            b.xen.destroy(5)
            # The dead one's pages go with the sessions that granted them.
            wait_until(lambda: 5 not in b.xen.counts(), "it is no zombie")
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
        wait_until(lambda: len(b.gateway.sessions()) == 1, "one is left")
        assert other.word(0) == f"{kept} open"
        # Its folder goes with the rule, perhaps before it can read why.
        assert guest.word(0) in (None, f"{epoch} closed 4 no rule of the "
                                       "gateway names this domain any more")


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
                agent.process.send_signal(signal.SIGSTOP)
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
        guest.wait_nothing(0)
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
        assert took < 10, took
        guest.unsay(0)
        b.wait_clean()


# A device.

def test_a_device_is_free_within_a_second_of_its_domains_end(bench):
    with bed(bench, (5, 6)) as (b, *_):
        with (GuestAgent(bench, b.xen, 5) as agent,
              GuestAgent(bench, b.xen, 6) as other):
            with agent.client() as client:
                client.import_("zero0")
                b.xen.destroy(5)
                since = time.monotonic()
                wait_until(lambda: not [
                    name for name in os.listdir(b.gateway.runtime_dir)
                    if name == "zero0.lock"], "the device is free", 5)
                assert time.monotonic() - since < 1
            with other.client() as client:
                client.import_("zero0")


def test_a_device_of_a_session_that_outlived_its_manager_can_be_taken(bench):
    with bed(bench) as (b, _):
        with GuestAgent(bench, b.xen, 5) as agent:
            with agent.client() as client:
                client.import_("zero0")
                b.restart()
                done = b.admin("detach", "--from", "u5", "-b", "zero0")
                _, err = done.communicate(timeout=LIMIT_S)
                assert done.returncode == EXIT_OK, err
                assert client.is_at_end()
            b.wait_clean()


# A driver domain.

def test_a_gateway_in_a_domain_without_rights_serves_and_lets_go(bench):
    os.environ["XUSBIP_XEN_DIR"] = os.path.join(bench.dir, "locks")
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
        epoch, _ = guest.open(0)
        gateway.kill()
        gateway.start()
        assert guest.word(0) == f"{epoch} open"
        xen.destroy(5)
        wait_until(lambda: not gateway.sessions(), "its sessions have ended",
                   5)
        wait_until(lambda: not xen.counts()[9]["granted"], "nothing is granted")
        wait_until(lambda: not xen.exists("/local/domain/9/data/xusbip/5"),
                   "its folder is gone")
        gateway.clean_up()


run(globals())
