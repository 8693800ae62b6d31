#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The guest's side of the handshake over a pretended Xen: the real xusbip and
xusbip-frontend ask, and a gateway of the test's answers, honestly or not."""

import contextlib
import os
import signal
import subprocess
import time

from fake_xen_gateway import CHANNELS, FakeXenGateway
from harness import BUILD, LIMIT_S, is_alive, run, stop_process, wait_until
from xenstore_relay import Relay
from xenstored import READ, FakeXen

XUSBIP = os.path.join(BUILD, "xusbip")
VCHAN = os.path.join(BUILD, "tests", "integration", "xen_vchan")
GUEST = 5

(EXIT_FAILED, EXIT_NOT_ALLOWED, EXIT_CANNOT_REACH, EXIT_BUSY, EXIT_PROTOCOL,
 EXIT_TIMEOUT) = (1, 4, 5, 7, 10, 11)

# Of the gateway's at each state: nothing of these is an answer to an ask.
NO_WORDS = ["", " ", "x", "open", "{epoch}", "{epoch} ", "{epoch} open ",
            "{epoch} OPEN", "{epoch} open 1", "{epoch} closed",
            "{epoch} closed 4", "{epoch} closed 999 x", "{epoch} closed -1 x",
            "{epoch} closed 04 x", "{epoch} closed 4 \x1b[2J",
            "{epoch} closed 4 " + "x" * 160, "{epoch} up", "{epoch} ask 0",
            "{epoch} hold", " {epoch} open", "{epoch} open\n",
            "{epoch} open\0", "0000000000000000 open",
            "0000000000000000 closed 4 x", "fedcba9876543210 open",
            "fedcba9876543210 closed 4 x", "{epoch}0 open", "x" * 255,
            "x" * 256, "x" * 3072, "{epoch} open" + " " * 3000,
            "\0" * 100, "\xff" * 100]


@contextlib.contextmanager
def bed(offers=True):
    """A Xen with one guest, to which dom0 offers something."""
    with FakeXen() as xen:
        xen.add_domain(GUEST, "guest")
        yield xen, FakeXenGateway(xen, GUEST) if offers else None


def start(xen, *args):
    return xen.start(GUEST, [XUSBIP, *args], stdin=subprocess.DEVNULL,
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_list(xen, address="xen:0"):
    return start(xen, "list", "-r", address)


def assert_ends(process, status, words, limit_s=LIMIT_S):
    out, err = process.communicate(timeout=limit_s)
    assert process.returncode == status, (process.returncode, err)
    assert len(err.splitlines()) == 1, err
    assert words in err, err
    assert out == "", out


def wardens(xen):
    """Processes that look after channels of this Xen's guests."""
    mine = f"FAKE_XEN_DIR={xen.dir}\0".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/comm", encoding="ascii") as comm:
                if comm.read() != "xusbip-warden\n":
                    continue
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if mine in environ.read() and is_alive(pid):
                    found.append(int(pid))
    return found


def wait_clean(xen, gateway):
    """Nothing is left of a channel, on whatever way it went."""
    gateway.wait_silence()
    wait_until(lambda: not wardens(xen), "the warden has ended")
    wait_until(lambda: xen.is_idle(GUEST), "the guest has let go")


class Served:
    """A channel in use: xusbip awaits a list in it, and gets none."""

    def __init__(self, xen, gateway):
        self.gateway = gateway
        self.process = start_list(xen)
        ask = gateway.wait_ask()
        self.channel, self.epoch, ring_bytes = ask
        gateway.say(self.channel, "")
        self.server = xen.start(
            0, [VCHAN, "server", str(GUEST),
                f"{gateway.folder}/{self.channel}", str(ring_bytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.server.stdout.readline() == b"ready\n"
        self.say("open")
        gateway.wait_word(self.channel, f"{self.epoch} up")

    def say(self, rest):
        # As one write: the rights are those of the node that is there.
        self.gateway.xen.write(f"{self.gateway.folder}/{self.channel}",
                               f"{self.epoch} {rest}")


# Asking.

def test_a_domain_that_offers_nothing_is_told_with_the_remedy(bench):
    with bed(offers=False) as (xen, _):
        for address in ("xen:0", "xen:7", f"xen:{GUEST}"):
            assert_ends(start_list(xen, address), EXIT_CANNOT_REACH,
                        "offers nothing to this domain: is xusbip-gateway "
                        "running there")
        assert_ends(start_list(xen, "xen:nobody"), EXIT_CANNOT_REACH,
                    "no domain of this name")


def test_a_machine_without_xen_is_told_so(_):
    env = {**os.environ, "XENSTORED_PATH": "/nonexistent"}
    result = subprocess.run([XUSBIP, "list", "-r", "xen:0"], env=env,
                            capture_output=True, text=True, timeout=10,
                            check=False)
    assert result.returncode == EXIT_CANNOT_REACH
    assert "no Xen domain" in result.stderr, result.stderr


def test_a_list_asks_for_small_rings(bench):
    with bed() as (xen, gateway):
        start_list(xen)
        assert gateway.wait_ask().ring_bytes == 16384


def test_a_gateway_is_found_by_the_name_of_its_domain(bench):
    with bed() as (xen, gateway):
        process = start_list(xen, "xen:Domain-0")
        ask = gateway.wait_ask()
        gateway.say(ask.channel, f"{ask.epoch} closed 4 found by name")
        assert_ends(process, EXIT_NOT_ALLOWED, "found by name")


def test_a_refusal_is_shown_with_its_reason_and_status(bench):
    with bed() as (xen, gateway):
        for told, status in ((4, EXIT_NOT_ALLOWED), (7, EXIT_BUSY),
                             (10, EXIT_PROTOCOL), (11, EXIT_TIMEOUT),
                             (1, EXIT_CANNOT_REACH), (0, EXIT_CANNOT_REACH),
                             (255, EXIT_CANNOT_REACH)):
            process = start_list(xen)
            ask = gateway.wait_ask()
            gateway.say(ask.channel, f"{ask.epoch} closed {told} why {told}")
            assert_ends(process, status, f"why {told}")
            wait_clean(xen, gateway)
            gateway.unsay(ask.channel)


def test_an_answer_to_somebody_else_is_none(bench):
    with bed() as (xen, gateway):
        process = start_list(xen)
        ask = gateway.wait_ask()
        for text in NO_WORDS:
            gateway.say(ask.channel, text.format(epoch=ask.epoch))
        gateway.unsay(ask.channel)
        assert gateway.asks() == [ask]
        assert process.poll() is None
        gateway.say(ask.channel, f"{ask.epoch} closed 4 at last")
        assert_ends(process, EXIT_NOT_ALLOWED, "at last")


def test_a_gateway_that_says_nothing_has_ten_seconds(bench):
    with bed() as (xen, gateway):
        begin = time.monotonic()
        process = start_list(xen)
        assert_ends(process, EXIT_TIMEOUT, "not answer", 30)
        assert time.monotonic() - begin > 9
        wait_clean(xen, gateway)


def test_a_gateway_that_goes_while_it_is_asked_is_noticed(bench):
    with bed() as (xen, gateway):
        for folder in (gateway.folder, gateway.guest_folder):
            process = start_list(xen)
            gateway.wait_ask()
            xen.rm(folder)
            assert_ends(process, EXIT_CANNOT_REACH, "offers nothing")
            wait_until(lambda: not wardens(xen), "the warden has ended")
            # What somebody removed does not come back.
            assert not xen.exists(folder)
            gateway.offer()


def test_a_word_without_rings_is_no_channel(bench):
    with bed() as (xen, gateway):
        process = start_list(xen)
        ask = gateway.wait_ask()
        gateway.say(ask.channel, f"{ask.epoch} open")
        assert_ends(process, EXIT_CANNOT_REACH, "cannot connect to xen:0")
        wait_clean(xen, gateway)


def test_a_channel_that_the_gateway_has_not_cleaned_up_is_left_alone(bench):
    with bed() as (xen, gateway):
        gateway.say(0, "0123456789abcdef closed 1 held by the kernel")
        process = start_list(xen)
        assert gateway.wait_ask().channel == 1
        process.kill()
        gateway.wait_silence()
        for channel in range(CHANNELS):
            gateway.say(channel, "0123456789abcdef closed 1 held")
        process = start_list(xen)
        assert gateway.wait_ask().channel == 0


def test_many_at_once_fit_into_the_quotas_of_a_guest(bench):
    with bed() as (xen, gateway):
        processes = [start_list(xen) for _ in range(30)]
        asks = wait_until(lambda: (a := gateway.asks()) and len(a) == 30 and a,
                          "all of them ask")
        assert len({ask.epoch for ask in asks}) == 30
        for ask in asks:
            gateway.say(ask.channel, f"{ask.epoch} closed 4 {ask.channel}.")
        for process in processes:
            assert_ends(process, EXIT_NOT_ALLOWED, ".")
        wait_clean(xen, gateway)


# In use.

def test_a_channel_is_mapped_and_let_go_of(bench):
    with bed() as (xen, gateway):
        served = Served(xen, gateway)
        assert xen.counts()[GUEST]["mapped"] > 0
        served.process.terminate()
        wait_clean(xen, gateway)


def test_the_reason_for_the_end_of_a_conversation_is_shown(bench):
    with bed() as (xen, gateway):
        served = Served(xen, gateway)
        served.say("closed 4 the rules have changed")
        assert_ends(served.process, EXIT_NOT_ALLOWED, "the rules have changed")
        wait_clean(xen, gateway)


def test_whatever_the_gateway_says_in_the_middle_the_guest_lets_go(bench):
    def garbage(served):
        gateway.say(served.channel, "x" * 3072)

    def another(served):
        gateway.say(served.channel, "fedcba9876543210 open")

    def silence(served):
        gateway.unsay(served.channel)

    def withdrawal(_):
        gateway.withdraw()

    def both_folders(_):
        xen.rm(gateway.guest_folder)
        gateway.withdraw()

    with bed() as (xen, gateway):
        for ends in (garbage, another, silence, withdrawal, both_folders):
            served = Served(xen, gateway)
            ends(served)
            served.process.wait(LIMIT_S)
            assert served.process.returncode == EXIT_CANNOT_REACH, ends
            wait_until(lambda: not wardens(xen), "the warden has ended")
            wait_until(lambda: xen.is_idle(GUEST), "the guest has let go")
            served.server.kill()
            gateway.offer()
            gateway.wait_silence()
            gateway.unsay(served.channel)


def test_who_does_not_let_go_is_killed(bench):
    with bed() as (xen, gateway):
        served = Served(xen, gateway)
        stop_process(served.process.pid)
        begin = time.monotonic()
        served.say("closed 1 over")
        assert served.process.wait(LIMIT_S) == -signal.SIGKILL
        assert time.monotonic() - begin > 1.5
        wait_clean(xen, gateway)


def test_who_does_not_map_is_killed(bench):
    with bed() as (xen, gateway):
        process = start_list(xen)
        ask = gateway.wait_ask()
        stop_process(process.pid)
        gateway.say(ask.channel, f"{ask.epoch} open")
        assert process.wait(LIMIT_S) == -signal.SIGKILL
        wait_clean(xen, gateway)


def test_a_killed_process_leaves_nothing(bench):
    with bed() as (xen, gateway):
        process = start_list(xen)
        gateway.wait_ask()
        process.kill()
        wait_clean(xen, gateway)
        served = Served(xen, gateway)
        served.process.kill()
        wait_clean(xen, gateway)


def test_a_killed_warden_takes_its_channel_with_it(bench):
    with bed() as (xen, gateway):
        served = Served(xen, gateway)
        for pid in wardens(xen):
            os.kill(pid, signal.SIGKILL)
        served.process.wait(LIMIT_S)
        assert served.process.returncode == EXIT_PROTOCOL
        assert gateway.word(served.channel) == f"{served.epoch} up"

        # Whoever comes next sweeps it.
        process = start_list(xen)
        ask = gateway.wait_ask()
        gateway.say(ask.channel, f"{ask.epoch} closed 4 bye")
        assert_ends(process, EXIT_NOT_ALLOWED, "bye")
        wait_clean(xen, gateway)


def test_events_of_nothing_leave_a_channel_at_rest(bench):
    with bed(bench) as (xen, gateway), Relay(xen, GUEST) as relay:
        relay.stand_between()
        served = Served(xen, gateway)
        node = f"{gateway.folder}/{served.channel}"

        def looks():
            return relay.requests.count((READ, node))
        for _ in range(20):
            before = looks()
            relay.tell(node, "channel")
            wait_until(lambda known=before: looks() > known, "it looks")

        relay.wait_quiet()

        assert served.process.poll() is None


def test_a_guest_that_was_restored_lets_go_of_what_it_had(bench):
    with bed() as (xen, gateway):
        served = Served(xen, gateway)
        xen.write(f"/local/domain/{GUEST}/domid", GUEST + 1)
        served.say("open")
        assert_ends(served.process, EXIT_CANNOT_REACH, "restored")


if __name__ == "__main__":
    run(globals())
