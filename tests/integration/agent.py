# SPDX-License-Identifier: Apache-2.0
"""A running xusbip-frontend with its configuration and log, for tests."""

import os
import re
import signal
import subprocess

from harness import BUILD, LIMIT_S, is_alive, wait_until
from usbip_client import UsbipClient

AGENT = os.path.join(BUILD, "xusbip-frontend")


class Agent:
    def __init__(self, bench, gateways, more=""):
        self.port = bench.free_port()
        self.log_path = bench.file(f"agent{self.port}.log")
        self.config_path = os.path.join(bench.dir, f"agent{self.port}.conf")
        self.write_config(gateways, more)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [AGENT, "-c", self.config_path, "--debug"], stdout=log,
                stderr=log, stdin=subprocess.DEVNULL)
        wait_until(lambda: self.has_logged("ready"), "the agent is ready")

    def write_config(self, gateways, more=""):
        addresses = ", ".join(f'"{address}"' for address in gateways)
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(f'listen = {{ "127.0.0.1:{self.port}" }}\n'
                       f"gateways = {{ {addresses} }}\n{more}")

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error:
            print(*("#   " + line for line in self.log().splitlines()),
                  sep="\n")
        for pid in [*self.children(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        if not error:
            assert "Sanitizer" not in self.log(), self.log()

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()

    def has_logged(self, pattern):
        return re.search(pattern, self.log())

    def wait_log(self, pattern):
        wait_until(lambda: self.has_logged(pattern), f"{pattern!r} in the log")

    def children(self):
        """Processes of connections that live."""
        pids = re.findall(r"served by process (\d+)", self.log())
        return [int(pid) for pid in pids if is_alive(pid)]

    def wait_no_children(self, limit_s=LIMIT_S):
        wait_until(lambda: not self.children(), "connections have ended",
                   limit_s)

    def client(self):
        return UsbipClient(self.port)
