#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent of a Xen guest at the words of its gateways, which the test plays,
on a machine without vhci_hcd: what it attaches and holds is for tests/xen."""

import contextlib
import itertools
import os
import signal
import subprocess
import threading

from agent import AGENT, Agent
from fake_gateway import FakeGateway, describe
from harness import BUILD, LIMIT_S, Skip, run, stop_process, wait_until
from xenstore_relay import Relay
from xenstored import READ, RM, FakeXen

XUSBIP = os.path.join(BUILD, "xusbip")
GUEST = 5
NO_VHCI = "6 vhci_hcd is not loaded; load it with: modprobe vhci-hcd"
numbers = itertools.count(1)


def epoch():
    return f"{next(numbers):016x}"


class GuestAgent(Agent):
    """An agent that runs in a domain."""

    def __init__(self, bench, xen, more=""):  # pylint: disable=super-init-not-called
        if os.path.exists("/sys/devices/platform/vhci_hcd.0"):
            raise Skip("vhci_hcd is loaded here")
        self.xen = xen
        self.bench = bench
        self.port = bench.free_port()
        self.log_path = bench.file(f"agent{self.port}.log")
        self.config_path = os.path.join(bench.dir, f"agent{self.port}.conf")
        self.write_config([], more)
        with open(self.log_path, "ab") as log:
            self.process = xen.start(GUEST, [AGENT, "-c", self.config_path,
                                             "--debug"],
                                     stdout=log, stderr=log,
                                     stdin=subprocess.DEVNULL)
        wait_until(lambda: self.has_logged("ready"), "the agent is ready")

    def count(self, text):
        return self.log().count(text)


class Pair:
    """A gateway's side of the two folders that it has with the guest."""

    def __init__(self, xen, gateway=0):
        self.xen = xen
        self.gateway = gateway
        self.mine = f"/local/domain/{gateway}/data/xusbip/{GUEST}"
        self.guests = f"/local/domain/{GUEST}/data/xusbip/{gateway}"
        xen.make_node(self.mine, "", f"n{gateway}", f"r{GUEST}")
        xen.make_node(self.guests, "", f"n{GUEST}", f"r{gateway}")
        self.write("devices", 1)

    def write(self, name, value):
        self.xen.write(f"{self.mine}/{name}", value, as_domid=self.gateway)

    def rm(self, name):
        self.xen.rm(f"{self.mine}/{name}", as_domid=self.gateway)

    def answer(self, name):
        """What the guest says there, or None."""
        try:
            return self.xen.read(f"{self.guests}/{name}",
                                 as_domid=self.gateway)
        except FileNotFoundError:
            return None

    def wait_answer(self, name, answer, limit_s=LIMIT_S):
        wait_until(lambda: self.answer(name) == answer,
                   f"{name} is answered with {answer!r}, not "
                   f"{self.answer(name)!r}", limit_s)

    def want(self, number, busid):
        word = epoch()
        self.write(f"want/{number}", f"{word} attach {busid}")
        return word

    def say(self, verb):
        """A hold or resume; its answer's epoch."""
        word = epoch()
        self.write("hold", f"{word} {verb}")
        return word

    def refuse_asks(self):
        """Closes what the guest asks for; always false."""
        for name in self.xen.ls(self.guests):
            word = self.answer(name) if name.isdigit() else None
            if word and " ask " in word:
                self.write(name, f"{word.split()[0]} closed 4 not for you")
        return False


@contextlib.contextmanager
def bed():
    """A pretended Xen with the guest in it."""
    with FakeXen() as xen:
        xen.add_domain(GUEST)
        yield xen


def guest_runs(xen, *args):
    return subprocess.run([XUSBIP, *args], env=xen.env(GUEST),
                          capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, check=False)


def test_a_want_that_cannot_be_attached_is_answered_with_the_reason(bench):
    with bed() as xen:
        pair = Pair(xen)
        first = pair.want(0, "1-1")
        with GuestAgent(bench, xen):
            second = pair.want(63, "usb-stick")

            pair.wait_answer("want/0", f"{first} failed {NO_VHCI}")
            pair.wait_answer("want/63", f"{second} failed {NO_VHCI}")


def test_an_answer_goes_with_its_want(bench):
    with bed() as xen, GuestAgent(bench, xen):
        pair = Pair(xen)
        word = pair.want(3, "1-1")
        pair.wait_answer("want/3", f"{word} failed {NO_VHCI}")

        pair.rm("want/3")

        pair.wait_answer("want/3", None)


def test_a_want_that_becomes_another_one_is_answered_anew(bench):
    with bed() as xen, GuestAgent(bench, xen):
        pair = Pair(xen)
        word = pair.want(3, "1-1")
        pair.wait_answer("want/3", f"{word} failed {NO_VHCI}")

        word = pair.want(3, "1-2")

        pair.wait_answer("want/3", f"{word} failed {NO_VHCI}")


def test_a_want_is_tried_again_and_soon_when_the_devices_change(bench):
    with bed() as xen, GuestAgent(bench, xen) as agent:
        pair = Pair(xen)
        pair.want(0, "1-1")
        tries = "1-1 was not attached"
        wait_until(lambda: agent.count(tries) >= 4, "it was tried again")
        known = agent.count(tries)

        pair.write("devices", 2)

        # 8 s otherwise
        wait_until(lambda: agent.count(tries) > known, "it was tried", 6)


STICK = 'attach "stick" { gateway = "xen:0" busid = "1-1" }'


def test_what_is_to_stay_is_tried_soon_when_the_devices_change(bench):
    with bed() as xen:
        pair = Pair(xen)
        with GuestAgent(bench, xen, STICK) as agent:
            wait_until(lambda: pair.refuse_asks() or
                       agent.count("TRYING + FAILED") >= 4, "it was tried")
            assert agent.has_logged("stick: not attached: .*not for you")
            tries = agent.count("WAITING + DUE")

            pair.write("devices", 2)

            # 8 s otherwise, or 6 at least
            wait_until(lambda: agent.count("WAITING + DUE") > tries,
                       "it was tried", 5)


def test_what_is_to_stay_is_not_tried_while_the_guest_holds_still(bench):
    with bed() as xen:
        pair = Pair(xen)
        hold = pair.say("hold")
        with GuestAgent(bench, xen, STICK) as agent:
            pair.wait_answer("hold", f"{hold} done")
            tries = agent.count("WAITING + DUE")
            for number in range(2, 5):
                pair.write("devices", number)
                again = pair.say("hold")
                pair.wait_answer("hold", f"{again} done")
            assert agent.count("WAITING + DUE") == tries

            pair.say("resume")

            wait_until(lambda: pair.refuse_asks() or
                       agent.count("TRYING + FAILED") > tries, "it was tried")


DRIVER = 7


def driver_domain(xen):
    xen.add_domain(DRIVER, "usbvm")
    pair = Pair(xen, DRIVER)
    xen.make_node(f"{pair.guests}/name", "usbvm", "n0", f"r{GUEST}")
    return pair


def keeps(name, gateway):
    return f'attach "{name}" {{ gateway = "{gateway}" busid = "1-1" }}\n'


def tries_of(agent, pairs, name):
    """How often that one was tried in vain."""
    for pair in pairs:
        pair.refuse_asks()
    return agent.count(f"{name}: TRYING + ")


def test_a_driver_domain_that_holds_for_ever_holds_only_what_is_its_own(bench):
    elsewhere = FakeGateway({"1-1": describe("1-1")})
    with bed() as xen:
        pair, hostile = Pair(xen), driver_domain(xen)
        hold = hostile.say("hold")
        more = (keeps("one", "xen:0") + keeps("two", elsewhere.address) +
                keeps("three", f"xen:{DRIVER}") + keeps("four", "xen:usbvm"))
        with GuestAgent(bench, xen) as agent:
            hostile.wait_answer("hold", f"{hold} done")
            agent.write_config([], more)
            agent.process.send_signal(signal.SIGHUP)

            for name in ("one", "two"):
                wait_until(lambda name=name: tries_of(
                    agent, (pair, hostile), name) >= 3, f"{name} is tried")

            assert tries_of(agent, (), "three") == 0
            assert tries_of(agent, (), "four") == 0
            hostile.say("resume")
            for name in ("three", "four"):
                wait_until(lambda name=name: tries_of(
                    agent, (pair, hostile), name) > 0, f"{name} is tried")


def check_holds_all(agent, pairs, holders, tell):
    """None of three is tried until the guest goes on, whatever others say; then
    all are."""
    names = ("one", "two", "three")
    known = dict.fromkeys(names, 0)
    for number in range(2, 5):
        for pair in holders:
            pair.write("devices", number)
            hold = pair.say("hold")
            pair.wait_answer("hold", f"{hold} done")
            pair.say("resume")
            tell("hold")
    assert known == {name: agent.count(f"{name}: WAITING + DUE")
                     for name in names}

    tell("resume")

    for name in names:
        wait_until(lambda name=name: tries_of(agent, pairs, name) > known[name],
                   f"{name} is tried")


def three_to_keep(agent, elsewhere):
    agent.write_config([], keeps("one", "xen:0") + keeps("three", "xen:usbvm")
                       + keeps("two", elsewhere.address))
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_log("anew: .* 3 to stay attached")


def test_while_dom0_holds_nothing_is_kept_attached_wherever_it_is(bench):
    elsewhere = FakeGateway({"1-1": describe("1-1")})
    with bed() as xen:
        pair, driver = Pair(xen), driver_domain(xen)

        def tell(verb):
            word = pair.say(verb)
            if verb == "hold":
                pair.wait_answer("hold", f"{word} done")
        with GuestAgent(bench, xen) as agent:
            tell("hold")
            three_to_keep(agent, elsewhere)
            check_holds_all(agent, (pair, driver), (driver,), tell)


def keep_held(gateway, lines):
    """The agent's note of what it has let go of: its path."""
    os.mkdir(os.environ["XUSBIP_XEN_DIR"], 0o700)
    path = os.path.join(os.environ["XUSBIP_XEN_DIR"], f"held-{gateway}")
    with open(path, "wb") as file:
        file.write(lines)
    return path


def jobs_of(agent):
    """The processes that it has started."""
    done = subprocess.run(["pgrep", "-P", str(agent.process.pid)], text=True,
                          capture_output=True, check=False)
    return {int(pid) for pid in done.stdout.split()}


def test_a_hold_of_dom0_is_done_when_driver_domains_are_let_go_of(bench):
    with bed() as xen:
        pair, driver = Pair(xen), driver_domain(xen)
        keep_held(DRIVER, b"1-1 1234:5678\n")
        with GuestAgent(bench, xen) as agent:
            wait_until(lambda: " ask " in (driver.answer("0") or ""), "it asks")
            (job,) = jobs_of(agent)
            stop_process(job)

            hold = pair.say("hold")

            agent.wait_log(f"xen:{DRIVER}: lets go of all its devices")
            agent.wait_log("xen:0: lets go of all its devices")
            wait_until(lambda: jobs_of(agent) == {job}, "dom0's are let go of")
            assert pair.answer("hold") is None
            os.kill(job, signal.SIGCONT)
            pair.wait_answer("hold", f"{hold} done")
            assert driver.answer("hold") is None
            resume = pair.say("resume")
            pair.wait_answer("hold", f"{resume} resumed")
            agent.wait_log(f"xen:{DRIVER}: goes on; takes back 1 device")


def test_while_the_guest_holds_itself_nothing_is_kept_attached(bench):
    elsewhere = FakeGateway({"1-1": describe("1-1")})
    with bed() as xen:
        pairs = Pair(xen), driver_domain(xen)

        def tell(verb):
            done = guest_runs(xen, "quiesce" if verb == "hold" else "resume")
            assert done.returncode == 0, done.stderr
        with GuestAgent(bench, xen) as agent:
            tell("hold")
            three_to_keep(agent, elsewhere)
            check_holds_all(agent, pairs, pairs, tell)


def test_a_guest_that_goes_on_by_itself_needs_no_word_of_dom0(bench):
    elsewhere = FakeGateway({"1-1": describe("1-1")})
    with bed() as xen:
        pair = Pair(xen)
        with GuestAgent(bench, xen, keeps("two", elsewhere.address)) as agent:
            assert guest_runs(xen, "quiesce").returncode == 0
            pair.rm("devices")
            tries = tries_of(agent, (), "two")

            assert guest_runs(xen, "resume").returncode == 0

            wait_until(lambda: tries_of(agent, (), "two") > tries,
                       "it is tried")


def test_what_is_being_attached_from_elsewhere_is_undone_in_a_hold(bench):
    elsewhere, asked, end = FakeGateway(), threading.Event(), threading.Event()
    elsewhere.on_devlist = lambda _: asked.set() or end.wait(LIMIT_S)
    with bed() as xen:
        more = keeps("two", elsewhere.address)
        with GuestAgent(bench, xen, more) as agent:
            assert asked.wait(LIMIT_S)

            done = guest_runs(xen, "quiesce")

            assert done.returncode == 0, done.stderr
            agent.wait_log("two: not attached: it was ended by signal 15")
            end.set()


def test_an_answer_that_nobody_wants_any_more_goes_when_the_agent_starts(bench):
    with bed() as xen:
        pair = Pair(xen)
        xen.write(f"{pair.guests}/want/7", f"{epoch()} attached 3",
                  as_domid=GUEST)

        with GuestAgent(bench, xen):
            pair.wait_answer("want/7", None)


def test_nothing_is_attached_while_the_guest_holds_still(bench):
    with bed() as xen, GuestAgent(bench, xen) as agent:
        pair = Pair(xen)
        hold = pair.say("hold")
        pair.wait_answer("hold", f"{hold} done")
        want = pair.want(0, "1-1")
        pair.write("devices", 2)
        again = pair.say("hold")
        pair.wait_answer("hold", f"{again} done")
        assert agent.count("was not attached") == 0
        assert pair.answer("want/0") is None

        resume = pair.say("resume")

        pair.wait_answer("hold", f"{resume} resumed")
        pair.wait_answer("want/0", f"{want} failed {NO_VHCI}")


def test_what_was_let_go_of_is_taken_back_by_the_next_agent_too(bench):
    with bed() as xen:
        pair = Pair(xen)
        kept = keep_held(0, b"1-1 1234:5678\n")
        hold = pair.say("hold")
        with GuestAgent(bench, xen) as agent:
            pair.wait_answer("hold", f"{hold} done")
            agent.process.kill()
            agent.process.wait()
        resume = pair.say("resume")
        with GuestAgent(bench, xen) as agent:
            wait_until(lambda: pair.refuse_asks() or
                       pair.answer("hold") == f"{resume} resumed",
                       "it has tried")
            agent.wait_log(r"xen:0: 1-1 was not attached: .*not for you")
            assert os.path.exists(kept)


def test_what_is_wanted_is_not_taken_back_twice(bench):
    with bed() as xen:
        pair = Pair(xen)
        kept = keep_held(0, b"1-1 1234:5678\n")
        word = pair.want(0, "1-1")
        resume = pair.say("resume")

        with GuestAgent(bench, xen):
            pair.wait_answer("hold", f"{resume} resumed")
            pair.wait_answer("want/0", f"{word} failed {NO_VHCI}")
            assert not os.path.exists(kept)


def test_the_guest_itself_can_hold_still_and_go_on(bench):
    with bed() as xen, GuestAgent(bench, xen) as agent:
        pair = Pair(xen)
        driver = 7
        xen.add_domain(driver)
        other = Pair(xen, driver)
        word = other.want(0, "1-1")
        other.wait_answer("want/0", f"{word} failed {NO_VHCI}")

        result = guest_runs(xen, "quiesce", "--json")

        assert result.returncode == 0, result.stderr
        assert '"result": "quiesced"' in result.stdout
        known = agent.count("was not attached")
        want = pair.want(0, "1-2")
        result = guest_runs(xen, "quiesce")
        assert result.stdout == "quiesced this domain\n", result.stderr
        assert agent.count("was not attached") == known
        result = guest_runs(xen, "resume")
        assert result.stdout == "resumed this domain\n", result.stderr
        pair.wait_answer("want/0", f"{want} failed {NO_VHCI}")


def test_a_machine_without_xenstore_cannot_hold_still(_):
    env = {**os.environ, "XENSTORED_PATH": "/nonexistent"}
    result = subprocess.run([XUSBIP, "quiesce"], env=env, capture_output=True,
                            text=True, timeout=LIMIT_S, check=False)

    assert result.returncode == 1
    assert "this machine has no xenstore" in result.stderr, result.stderr


HOSTILE = ["", "attach", "0" * 16 + " attach 1-1", "x" * 3072,
           "1" * 16 + " attach", "1" * 16 + " attach ",
           "1" * 16 + " attach 1 1",
           "1" * 16 + " attach " + "9" * 200, "1" * 16 + " attach 1-1\n",
           "1" * 16 + " attached 3", "1" * 16 + " hold 1", "1" * 16 + " held",
           "-" * 16 + " hold", "\x01" * 100, "1" * 16 + " resume now"]


def test_what_is_no_word_is_no_want_and_no_hold(bench):
    with bed() as xen, GuestAgent(bench, xen) as agent:
        xen.add_domain(7)
        hostile = Pair(xen, 7)
        pair = Pair(xen)
        for number, value in enumerate(HOSTILE[:12]):
            if len(value) <= 2048:
                hostile.write(f"want/{number}", value)
        for name in ("64", "-1", "01", "x", "peer"):
            hostile.write(f"want/{name}", f"{epoch()} attach 1-1")
        for value in HOSTILE:
            try:
                hostile.write("hold", value)
            except OSError:
                assert len(value) > 2048
            word = pair.want(0, "1-1")
            pair.wait_answer("want/0", f"{word} failed {NO_VHCI}")

        assert hostile.answer("hold") is None
        assert not xen.exists(f"{hostile.guests}/want")
        assert agent.count("xen:7") == 0, agent.log()


def test_a_want_that_cannot_be_read_for_a_while_is_kept_and_read_again(bench):
    with bed() as xen, Relay(xen, GUEST) as relay:
        relay.stand_between()
        with GuestAgent(bench, xen) as agent:
            pair = Pair(xen)
            word = pair.want(0, "1-1")
            pair.wait_answer("want/0", f"{word} failed {NO_VHCI}")
            path = f"{pair.mine}/want/0"
            relay.refuse(path, "ENOMEM")

            def reads():
                return relay.requests.count((READ, path))
            before = reads()
            pair.write("devices", 2)
            wait_until(lambda: reads() > before + 1, "it is read again")
            word = pair.want(0, "1-2")
            relay.refuse(None, None)

            pair.wait_answer("want/0", f"{word} failed {NO_VHCI}")

            assert agent.count("cannot read xenstore: Cannot allocate") == 1
            # Of the want that was read at last.
            assert relay.requests.count((RM, f"{pair.guests}/want/0")) == 1


def test_gateways_come_and_go(bench):
    with bed() as xen, GuestAgent(bench, xen):
        for _ in range(3):
            pair = Pair(xen)
            word = pair.want(0, "1-1")
            pair.wait_answer("want/0", f"{word} failed {NO_VHCI}")
            xen.rm(pair.guests)
            xen.rm(pair.mine)


def test_a_domain_with_a_new_number_reads_everything_anew(bench):
    with bed() as xen, GuestAgent(bench, xen) as agent:
        pair = Pair(xen)
        word = pair.want(0, "1-1")
        pair.wait_answer("want/0", f"{word} failed {NO_VHCI}")
        anew = f"/local/domain/0/data/xusbip/{GUEST + 1}"
        xen.make_node(anew, "", "n0", f"r{GUEST}")
        xen.write(f"{anew}/devices", 1)
        xen.write(f"{anew}/want/0", f"{epoch()} attach 1-2")

        xen.write(f"/local/domain/{GUEST}/domid", GUEST + 1)

        agent.wait_log(rf"this domain is number {GUEST + 1} now")
        agent.wait_log(r"xen:0: 1-2 was not attached")


if __name__ == "__main__":
    run(globals())
