# SPDX-License-Identifier: Apache-2.0
"""Runs the real xusbip-gateway in a directory of its own and reports TAP.

A test is a function called test_..., whose name is the sentence that is
reported. It gets a Bench: a temporary directory, free ports and gateways, all
cleaned up after it. When it fails, the logs are shown.

    from harness import run

    def test_the_list_shows_the_disk(bench):
        gateway = bench.gateway('zero "zero0" { }')
        with gateway.client() as client:
            assert "zero0" in client.devlist()

    run(globals())
"""

import contextlib
import ctypes
import errno
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

from usbip_client import ST_DEV_BUSY, ST_OK, Refused, UsbipClient

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.environ.get("XUSBIP_BUILD", os.path.join(ROOT, "build"))
GATEWAY = os.path.join(BUILD, "xusbip-gateway")

LIMIT_S = 15.0
SYS_PIDFD_GETFD = 438
# Below those that the kernel gives to whoever asks for none.
PORTS = range(10000, 32768)


class Skip(Exception):
    """Raised by a test that cannot run here; its text says why."""


def wait_until(condition, what, limit_s=LIMIT_S):
    """Waits until condition() is true and returns what it gave."""
    end = time.monotonic() + limit_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"after {limit_s} s still not: {what}")
        time.sleep(0.01)


def process_state(pid):
    """The letter that proc(5) has for it; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def stop_process(pid):
    """It does nothing more, and no signal but SIGKILL ends it: before it has
    stopped, one that is behind the SIGSTOP still may."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", "it has stopped")


def copy_descriptor(pid, ending):
    """The one that a process has open of a file whose name ends so: the very
    same, so its locks are shared."""
    folder = f"/proc/{pid}/fd"
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        numbers = [int(number) for number in os.listdir(folder)
                   if os.readlink(f"{folder}/{number}").endswith(ending)]
    except PermissionError as why:
        raise Skip("may not look into another process") from why
    assert len(numbers) == 1, numbers
    pidfd = os.pidfd_open(pid)
    fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, numbers[0], 0)
    os.close(pidfd)
    if fd >= 0:
        return fd
    if ctypes.get_errno() == errno.EPERM:
        raise Skip("may not look into another process")
    raise OSError(ctypes.get_errno(), "pidfd_getfd")


def is_alive(pid):
    """A zombie has ended; its parent has not looked yet."""
    return process_state(pid) not in (None, "Z")


def is_session(pid):
    """A session that lives; not another process that got its number."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as command:
            return b"\0--session\0" in command.read() and is_alive(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False


class Gateway:
    """A running gateway, with its configuration and its log."""

    def __init__(self, bench, config, args=(), env=None):
        self.bench = bench
        self.env = env
        self.number = len(bench.gateways)
        self.port = bench.free_port()
        self.runtime_dir = os.path.join(bench.dir, f"run{self.number}")
        self.state_dir = os.path.join(bench.dir, f"state{self.number}")
        self.socket = os.path.join(self.runtime_dir, "gateway.sock")
        self.config_path = os.path.join(bench.dir, f"{self.number}.conf")
        self.log_path = os.path.join(bench.dir, f"{self.number}.log")
        self.args = list(args)
        self.process = None
        self.write_config(config)

    def write_config(self, config):
        """The given text below the listeners and directory of this bench."""
        head = ""
        if "listen" not in config:
            head += (f'listen = {{ "tcp:127.0.0.1:{self.port}", '
                     f'"unix:{self.socket}" }}\n')
        if "runtime_dir" not in config:
            head += f'runtime_dir = "{self.runtime_dir}"\n'
        if "state_dir" not in config:
            head += f'state_dir = "{self.state_dir}"\n'
        if "calls_per_second" not in config:
            head += "calls_per_second = 100000\n"
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(head + config)

    def start(self):
        """Starts it, again perhaps, and returns when it serves."""
        ready = self.count(": ready: ")
        self.spawn()
        self.wait_for(lambda: self.count(": ready: ") > ready,
                      "it is ready")
        return self

    def spawn(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [GATEWAY, "--config", self.config_path, *self.args],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log)

    def wait_for(self, condition, what, limit_s=LIMIT_S):
        """As wait_until, but gives up when the gateway has ended."""
        def checked():
            result = condition()
            if not result and self.process.poll() is not None:
                raise AssertionError(
                    f"the gateway ended ({self.process.returncode}) "
                    f"before: {what}")
            return result
        return wait_until(checked, what, limit_s)

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8",
                      errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def count(self, text):
        return self.log().count(text)

    def wait_log(self, pattern, limit_s=LIMIT_S):
        """Waits until a line of the log matches; returns the match."""
        return wait_until(lambda: re.search(pattern, self.log()),
                          f"{pattern!r} in the log", limit_s)

    def sessions(self):
        """Process ids of the sessions that live, started by any manager."""
        pids = re.findall(r"session (\d+) .*: started", self.log())
        return [int(pid) for pid in pids if is_session(pid)]

    def has_settled(self):
        """Does the manager know of each session's end that it started?"""
        log = self.log()
        return log.count(": started") == log.count(": ended: ")

    def import_status(self, busid):
        """What importing is answered with; the connection is closed again."""
        with self.client() as client:
            try:
                client.import_(busid)
                return ST_OK
            except Refused as refused:
                return refused.status

    def import_when_free(self, busid):
        """A client that has the device, once it is free."""
        def attempt():
            client = self.client()
            try:
                client.import_(busid)
                return client
            except Refused as refused:
                client.close()
                assert refused.status == ST_DEV_BUSY, refused.status
                return None
        return wait_until(attempt, f"{busid} is free")

    def session_of(self, client):
        """Process id of the session that serves this TCP client."""
        address, port = client.sock.getsockname()[:2]
        return int(self.wait_log(
            rf"session (\d+) \(\[?{address}\]?:{port}\): started")[1])

    def client(self, **options):
        return UsbipClient(self.port, **options)

    def signal(self, number):
        self.process.send_signal(number)

    def wait_exit(self, limit_s=LIMIT_S):
        """Its exit status."""
        return self.process.wait(limit_s)

    def kill(self):
        """Kills the manager alone, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Ends it in order; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait_exit()

    def clean_up(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.sessions():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Bench:
    """What one test works with."""

    def __init__(self):
        self.temp = tempfile.TemporaryDirectory(prefix="xusbip-test.")
        self.dir = self.temp.name
        self.gateways = []
        self.port_holds = []
        # What is kept on a machine, or in a guest, is kept here.
        for kind in ("standing", "wish", "xen"):
            os.environ[f"XUSBIP_{kind.upper()}_DIR"] = self.path(kind)

    def free_port(self):
        """A TCP port that nobody has, and that nobody else gets from here
        before this test ends: a name of the same namespace is held for it."""
        while True:
            port = random.SystemRandom().choice(PORTS)
            with contextlib.ExitStack() as stack:
                hold = stack.enter_context(socket.socket(socket.AF_UNIX))
                probe = stack.enter_context(socket.socket())
                try:
                    hold.bind(f"\0xusbip-test-port-{port}")
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    assert error.errno == errno.EADDRINUSE, error
                    continue
                self.port_holds.append(hold.dup())
                return port

    def path(self, name):
        return os.path.join(self.dir, name)

    def file(self, name, content=b""):
        """A file in the directory; its path."""
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def for_everybody(self, program):
        """A copy that each user can run: this tree may be in a private
        folder."""
        os.chmod(self.dir, 0o755)
        path = shutil.copy(program, self.dir)
        os.chmod(path, 0o755)
        return path

    def prepare(self, config="", args=(), env=None):
        """A gateway that is not started yet."""
        gateway = Gateway(self, config, args, env)
        self.gateways.append(gateway)
        return gateway

    def gateway(self, config="", args=(), env=None):
        """A gateway that serves; `env` may put it into a pretended domain."""
        return self.prepare(config, args, env).start()

    def run(self, *args):
        """Runs the gateway's program to its end: the finished process."""
        return subprocess.run([GATEWAY, *args], capture_output=True, text=True,
                              timeout=LIMIT_S, check=False)

    def show_logs(self):
        for gateway in self.gateways:
            print(f"# log of gateway {gateway.number}:")
            for line in gateway.log().splitlines():
                print(f"#   {line}")

    def clean_up(self):
        for gateway in self.gateways:
            gateway.clean_up()
        for hold in self.port_holds:
            hold.close()
        self.temp.cleanup()


def run_one(number, function):
    """Runs a test and prints its line; true if it did not fail."""
    name = function.__name__.removeprefix("test_").replace("_", " ")
    bench = Bench()
    began = time.monotonic()
    try:
        function(bench)
    except Skip as why:
        print(f"ok {number} - {name} # skip {why}", flush=True)
        return True
    except Exception:  # pylint: disable=broad-except
        print(f"not ok {number} - {name} ({time.monotonic() - began:.1f} s)")
        for line in traceback.format_exc().splitlines():
            print(f"#   {line}")
        bench.show_logs()
        sys.stdout.flush()
        return False
    finally:
        bench.clean_up()
    print(f"ok {number} - {name} ({time.monotonic() - began:.1f} s)",
          flush=True)
    return True


def run(names):
    """Runs every test_ function, or those named on the command line."""
    chosen = sys.argv[1:]
    tests = [value for name, value in names.items()
             if name.startswith("test_") and callable(value)
             and (not chosen or name in chosen)]
    failed = 0
    for number, function in enumerate(tests, 1):
        failed += not run_one(number, function)
    print(f"1..{len(tests)}")
    print(f"# {len(tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
