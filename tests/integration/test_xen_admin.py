#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the administrator asks of guests, with xusbip on the gateway's machine:
the real gateway and the real agent, over a pretended Xen. This machine has no
vhci_hcd, so an attachment gets as far as that."""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess

from agent import AGENT, Agent
from harness import BUILD, LIMIT_S, Skip, run, wait_until
from xenstored import FakeXen

XUSBIP = os.path.join(BUILD, "xusbip")
GUEST = 5
CONFIG = "listen = { }\nxen = true\n"
REQUEST = struct.Struct("=III64s32s")
(EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NO_DEVICE, EXIT_CANNOT_REACH,
 EXIT_NO_VHCI, EXIT_BUSY, EXIT_PROTOCOL, EXIT_NO_DOMAIN) = (
     0, 1, 2, 3, 5, 6, 7, 10, 13)
WANTS = f"/local/domain/0/data/xusbip/{GUEST}/want"
ANSWERS = f"/local/domain/{GUEST}/data/xusbip/0/want"


class GuestAgent(Agent):
    """An agent that runs in a domain."""

    def __init__(self, bed):  # pylint: disable=super-init-not-called
        self.port = bed.bench.free_port()
        self.log_path = bed.bench.file(f"agent{self.port}.log")
        self.config_path = os.path.join(bed.bench.dir,
                                        f"agent{self.port}.conf")
        self.write_config([])
        with open(self.log_path, "ab") as log:
            self.process = bed.xen.start(
                bed.domid, [AGENT, "-c", self.config_path, "--debug"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(lambda: self.has_logged("ready"), "the agent is ready")


class Bed:
    """A pretended Xen with a gateway in dom0 and a guest."""

    def __init__(self, bench, xen, zeros):
        if os.path.exists("/sys/devices/platform/vhci_hcd.0"):
            raise Skip("vhci_hcd is loaded here")
        self.bench = bench
        self.xen = xen
        self.domid = GUEST
        self.uuid = xen.add_domain(GUEST)
        self.gateway = bench.gateway(
            CONFIG + "".join(f'zero "{busid}" {{ domains = {{ "guest5" }} }}\n'
                             for busid in zeros), env=xen.env(0))
        self.socket = os.path.join(self.gateway.runtime_dir, "admin.sock")
        self.kept = os.path.join(self.gateway.state_dir,
                                 f"want-{self.uuid}")
        self.wait_served()

    def wait_served(self, domid=GUEST):
        wait_until(lambda: self.xen.exists(
            f"/local/domain/0/data/xusbip/{domid}/devices"), "it is served")

    def start(self, *args):
        return subprocess.Popen(
            [XUSBIP, *args], env={**os.environ, "XUSBIP_ADMIN": self.socket},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)

    def asks(self, *args):
        process = self.start(*args)
        process.stdout_text, process.stderr_text = process.communicate(
            timeout=90)
        return process

    def fails(self, status, words, *args):
        process = self.asks(*args)
        assert process.returncode == status, process.stderr_text
        assert words in process.stderr_text, process.stderr_text
        assert len(process.stderr_text.splitlines()) == 1, process.stderr_text
        assert process.stdout_text == ""

    def works(self, words, *args):
        process = self.asks(*args)
        assert process.returncode == 0, process.stderr_text
        assert words in process.stdout_text, process.stdout_text

    def wants(self, domid=GUEST):
        path = f"/local/domain/0/data/xusbip/{domid}/want"
        try:
            return {name: self.xen.read(f"{path}/{name}")
                    for name in self.xen.ls(path)}
        except FileNotFoundError:
            return {}

    def attach(self, busid, *more):
        return ["attach", "--to", f"guest{GUEST}", "-b", busid, *more]

    def detach(self, busid):
        return ["detach", "--from", str(GUEST), "-b", busid]


@contextlib.contextmanager
def new_bed(bench, zeros=("zero0", "zero1")):
    with FakeXen() as xen:
        yield Bed(bench, xen, zeros)


def test_the_reason_why_a_guest_did_not_attach_reaches_the_administrator(bench):
    with new_bed(bench) as bed, GuestAgent(bed):
        bed.fails(EXIT_NO_VHCI, "guest5 did not attach zero0: vhci_hcd is not "
                  "loaded", *bed.attach("zero0"))

        assert bed.wants() == {}
        wait_until(lambda: not bed.xen.exists(f"{ANSWERS}/0"),
                   "the answer is gone")


def test_what_a_guest_attached_is_told_with_its_port(bench):
    with new_bed(bench) as bed:
        process = bed.start(*bed.attach("zero0", "--json"))
        wait_until(bed.wants, "the guest is told")
        number, word = next(iter(bed.wants().items()))
        assert word.endswith(" attach zero0")

        bed.xen.write(f"{ANSWERS}/{number}", f"{word.split()[0]} attached 3",
                      as_domid=GUEST)

        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, err
        assert '"result": "attached zero0 to guest5 at its port 03"' in out
        assert bed.wants() == {number: word}
        bed.works("detached zero0 from guest5", *bed.detach("zero0"))
        assert bed.wants() == {}


def test_who_does_not_wait_for_an_attachment_does_not_want_it(bench):
    with new_bed(bench) as bed:
        process = bed.start(*bed.attach("zero0"))
        wait_until(bed.wants, "the guest is told")

        process.kill()
        process.communicate()

        wait_until(lambda: not bed.wants(), "it is taken back")
        assert not os.path.exists(bed.kept)


def test_a_device_that_persists_outlives_the_manager_and_the_domain(bench):
    with new_bed(bench) as bed, GuestAgent(bed) as agent:
        bed.fails(EXIT_NO_VHCI, "; it tries again",
                  *bed.attach("zero0", "--persist"))
        wanted = bed.wants()
        assert len(wanted) == 1 and os.path.exists(bed.kept)
        bed.fails(EXIT_BUSY, "has been told to take zero0 already",
                  *bed.attach("zero0"))

        bed.gateway.kill()
        bed.gateway.start()
        bed.wait_served()
        assert bed.wants() == wanted
        agent.process.kill()
        agent.process.wait()
        bed.xen.destroy(GUEST)
        bed.xen.add_domain(6, "guest5", bed.uuid)
        bed.wait_served(6)
        wait_until(lambda: bed.wants(6), "the next domain is told")
        assert bed.wants(6)["0"].endswith(" attach zero0")

        bed.works("detached zero0", "detach", "--from", bed.uuid, "-b",
                  "zero0")
        assert bed.wants(6) == {} and not os.path.exists(bed.kept)


def test_a_device_that_persists_outlives_a_new_start_of_the_machine(bench):
    with new_bed(bench) as bed, GuestAgent(bed):
        bed.fails(EXIT_NO_VHCI, "; it tries again",
                  *bed.attach("zero0", "--persist"))
        bed.gateway.kill()
    shutil.rmtree(bed.gateway.runtime_dir)

    with FakeXen() as xen:
        xen.add_domain(9, "guest5", bed.uuid)
        bed.xen = xen
        bed.gateway.env = xen.env(0)
        bed.gateway.start()
        bed.wait_served(9)

        wait_until(lambda: bed.wants(9), "the domain is told")
        assert bed.wants(9)["0"].endswith(" attach zero0")


def test_what_cannot_be_noted_is_refused_rather_than_forgotten(bench):
    with new_bed(bench) as bed:
        bench.file(os.path.basename(bed.gateway.state_dir))

        bed.fails(EXIT_FAILED, "cannot note in", *bed.attach("zero0",
                                                             "--persist"))

        assert bed.wants() == {}


def test_a_domain_that_is_not_served_is_answered_with_those_that_are(bench):
    with new_bed(bench) as bed:
        words = "no domain u9 is served by this gateway; guest5 (5) is"
        for command in (["attach", "--to", "u9", "-b", "zero0"],
                        ["detach", "--from", "u9", "-b", "zero0"],
                        ["quiesce", "u9"], ["resume", "u9"]):
            bed.fails(EXIT_NO_DOMAIN, words, *command)


def test_a_device_that_a_guest_does_not_have_cannot_be_taken(bench):
    with new_bed(bench) as bed:
        bed.fails(EXIT_NO_DEVICE, "guest5 has no device zero0 of this gateway",
                  *bed.detach("zero0"))


def test_a_device_that_a_guest_took_by_itself_is_taken_from_it(bench):
    with new_bed(bench) as bed, GuestAgent(bed) as agent:
        client = agent.client()
        client.import_("zero0")

        bed.works("detached zero0 from guest5", *bed.detach("zero0"))

        agent.wait_log("xen:0 zero0: detached")
        assert client.is_at_end()
        wait_until(bed.gateway.has_settled, "its session has ended")


def test_a_quiesced_guest_has_nothing_and_gets_nothing_until_it_resumes(bench):
    with new_bed(bench) as bed, GuestAgent(bed) as agent:
        client = agent.client()
        client.import_("zero0")

        bed.works("", "quiesce", "guest5")

        agent.wait_log("xen:0 zero0: detached")
        with open(os.path.join(os.environ["XUSBIP_XEN_DIR"], "held-0"),
                  encoding="utf-8") as file:
            assert file.read().split()[0] == "zero0"
        bed.fails(EXIT_BUSY, "guest5 is quiesced; first: xusbip resume",
                  *bed.attach("zero1"))
        bed.works("", "quiesce", "guest5")
        bed.works("taken its devices back", "resume", "guest5")
        agent.wait_log("xen:0: zero0 was not attached: vhci_hcd")
        bed.fails(EXIT_NO_VHCI, "vhci_hcd is not loaded",
                  *bed.attach("zero1"))


def test_a_domain_that_went_elsewhere_is_held_no_more(bench):
    with new_bed(bench) as bed, GuestAgent(bed):
        bed.works("", "quiesce", "guest5")
        bed.xen.destroy(GUEST)
        bed.gateway.wait_log("gone")

        bed.works("is not here, and is not held any more", "resume", bed.uuid)
        bed.fails(EXIT_NO_DOMAIN, "no domain", "resume", bed.uuid)
        bed.fails(EXIT_NO_DOMAIN, "no domain", "resume", "../x")


def test_a_guest_that_is_saved_is_held_after_a_new_start_of_the_machine(bench):
    with new_bed(bench) as bed:
        with GuestAgent(bed):
            bed.works("", "quiesce", "guest5")
        bed.xen.destroy(GUEST)
        bed.gateway.wait_log("gone")
        bed.gateway.kill()
    shutil.rmtree(bed.gateway.runtime_dir)

    with FakeXen() as xen:
        xen.add_domain(9, "guest5", bed.uuid)
        bed.xen, bed.domid = xen, 9
        bed.gateway.env = xen.env(0)
        bed.gateway.start()
        bed.wait_served(9)

        bed.fails(EXIT_BUSY, "guest5 is quiesced; first: xusbip resume",
                  *bed.attach("zero0"))
        with GuestAgent(bed):
            bed.works("taken its devices back", "resume", "guest5")
            bed.fails(EXIT_NO_VHCI, "vhci_hcd is not loaded",
                      *bed.attach("zero0"))
    assert os.listdir(bed.gateway.state_dir) == []


def test_a_gateway_that_is_not_there_cannot_be_asked(bench):
    result = subprocess.run(
        [XUSBIP, "quiesce", "guest5"], timeout=LIMIT_S, capture_output=True,
        env={**os.environ, "XUSBIP_ADMIN": bench.dir + "/none"}, text=True,
        check=False)

    assert result.returncode == EXIT_CANNOT_REACH
    assert "is xusbip-gateway running here" in result.stderr, result.stderr


def test_the_socket_is_roots(bench):
    with new_bed(bench) as bed:
        assert os.stat(bed.socket).st_mode & 0o777 == 0o600


def call(bed):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(LIMIT_S)
    sock.connect(bed.socket)
    return sock


def test_a_request_of_another_shape_is_answered_so(bench):
    with new_bed(bench) as bed:
        for request in (b"x", b"\0" * 4096,
                        REQUEST.pack(2, 0, 0, b"guest5", b"zero0"),
                        REQUEST.pack(1, 9, 0, b"guest5", b"zero0"),
                        REQUEST.pack(1, 0, 0, b"g" * 64, b"zero0"),
                        REQUEST.pack(1, 0, 0, b"guest5", b"z" * 32),
                        REQUEST.pack(1, 0, 0, b"guest5", b"../zero0"),
                        REQUEST.pack(1, 0, 0, b"guest5", b"")):
            with call(bed) as sock:
                sock.send(request)
                answer = sock.recv(4096)

                assert struct.unpack_from("=I", answer)[0] == EXIT_PROTOCOL
                assert sock.recv(4096) == b""


def test_thirty_pushes_at_the_same_moment_are_all_answered(bench):
    zeros = [f"zero{i}" for i in range(30)]
    with new_bed(bench, zeros) as bed, GuestAgent(bed):
        pushes = {busid: bed.start(*bed.attach(busid)) for busid in zeros}

        for busid, push in pushes.items():
            out, err = push.communicate(timeout=90)
            assert push.returncode == EXIT_NO_VHCI, (busid, out, err)
            assert f"guest5 did not attach {busid}: vhci_hcd is" in err, err
        assert bed.wants() == {}


def test_who_asks_when_there_is_no_place_waits_for_one(bench):
    request = REQUEST.pack(1, 1, 0, b"guest5", b"zero0")
    with new_bed(bench) as bed:
        waiting = bed.start(*bed.attach("zero0"))
        wait_until(bed.wants, "the guest is told")
        askers = [call(bed) for _ in range(80)]
        gone = call(bed)
        gone.send(REQUEST.pack(1, 0, 1, b"guest5", b"zero1"))
        gone.close()
        last = call(bed)
        last.send(request)
        last.settimeout(1)
        try:
            assert not last.recv(1), "it is not accepted"
        except TimeoutError:
            pass

        for sock in askers:
            sock.close()

        last.settimeout(LIMIT_S)
        assert struct.unpack_from("=I", last.recv(4096))[0] == EXIT_OK
        last.close()
        assert "was taken back" in waiting.communicate(timeout=LIMIT_S)[1]
        assert bed.wants() == {} and not os.path.exists(bed.kept)


def test_the_command_line_is_judged_before_anybody_is_asked(_):
    for args in (["attach", "--to", "a", "-r", "xen:0", "-b", "1-1"],
                 ["attach", "--to", "a"], ["attach", "--persist", "-b", "1-1"],
                 ["detach", "--from", "a"], ["detach", "-p", "1", "-b", "1-1"],
                 ["detach", "-p", "1", "--from", "a"],
                 ["detach", "--from", "a", "-b", "a b"],
                 ["quiesce", "a", "b"], ["resume", "--to"]):
        result = subprocess.run([XUSBIP, *args], capture_output=True,
                                text=True, timeout=LIMIT_S, check=False)

        assert result.returncode == EXIT_USAGE, (args, result.stderr)
        assert len(result.stderr.splitlines()) == 1


def test_the_socket_goes_with_the_gateway(bench):
    with new_bed(bench) as bed:
        bed.gateway.signal(signal.SIGTERM)
        bed.gateway.wait_exit()

        assert not os.path.exists(bed.socket)


if __name__ == "__main__":
    run(globals())
