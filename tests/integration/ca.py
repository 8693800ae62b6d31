# SPDX-License-Identifier: Apache-2.0
"""A CA of the real xusbip-ca, for tests that need certificates.

    ca = Ca(bench)
    ca.do("issue", "gateway", "lab.example", "127.0.0.1")
    tls_dir = ca.path("gateway", "lab.example")
"""

import json
import os
import re
import signal
import stat
import subprocess

from harness import LIMIT_S, ROOT, wait_until

PROGRAM = os.path.join(ROOT, "certs", "xusbip-ca")
FAILED, USAGE, NO_SUCH_NAME, NOT_ALLOWED, ALREADY_THERE = 1, 2, 3, 4, 7
ERROR = re.compile(r"xusbip-ca: [^\n]+\n")


def openssl(*args, status=0):
    """What it says."""
    result = subprocess.run(["openssl", *args], capture_output=True, text=True,
                            timeout=LIMIT_S, check=False)
    output = result.stdout + result.stderr
    assert result.returncode == status, output
    return output


class Ca:
    """A CA below the bench's directory."""

    def __init__(self, bench, name="ca", is_made=True):
        self.bench = bench
        self.dir = os.path.join(bench.dir, name)
        self.program = PROGRAM
        if is_made:
            self.do("init")

    def run(self, *args, **options):
        return subprocess.run(
            [self.program, "--dir", self.dir, *args], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=2 * LIMIT_S, check=False,
            **options)

    def do(self, *args, **options):
        """What it prints; it has to succeed."""
        result = self.run(*args, **options)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    def refuse(self, status, *args, **options):
        """The one line with which it fails."""
        result = self.run(*args, **options)
        assert result.returncode == status, result
        assert ERROR.fullmatch(result.stderr) and not result.stdout, result
        return result.stderr

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def tree(self):
        """Each path with its mode, and what a file holds."""
        tree = {}
        for folder, folders, files in os.walk(self.dir):
            for name in folders + files:
                path = os.path.join(folder, name)
                content = None
                if name in files:
                    with open(path, "rb") as file:
                        content = file.read()
                mode = stat.S_IMODE(os.stat(path).st_mode)
                tree[os.path.relpath(path, self.dir)] = (mode, content)
        return tree

    def certificates(self):
        return json.loads(self.do("list", "--json"))["certificates"]

    def pin(self, name):
        return json.loads(self.do("show", name, "--json"))["pin"]

    def states(self):
        """Of each name, newest certificate first."""
        states = {}
        for entry in self.certificates():
            states.setdefault(entry["name"], []).append(entry["state"])
        return states

    def verify(self, role, name, purpose, status=0):
        """With the files of its own folder, as a host would."""
        folder = self.path(role, name)
        return openssl(
            "verify", "-x509_strict", "-CAfile", f"{folder}/ca.pem",
            "-CRLfile", f"{folder}/crl.pem", "-crl_check", "-purpose",
            purpose, f"{folder}/{role}.pem", status=status)

    def text(self, role, name):
        return openssl("x509", "-noout", "-text", "-in",
                       self.path(role, name, f"{role}.pem"))


def tool_before(bench, name, script):
    """An environment in which a script is run in front of a real tool."""
    folder = os.path.join(bench.dir, "tools")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(f'#!/bin/sh\n{script}\nPATH=${{PATH#*:}} exec {name} "$@"\n')
    os.chmod(path, 0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def start_and_stop(ca, args, number):
    """Signals a command that is about to make the revocation list."""
    mark = os.path.join(ca.bench.dir, "mark")
    go_on = os.path.join(ca.bench.dir, "go_on")
    os.mkfifo(go_on)
    env = tool_before(ca.bench, "openssl", f'[ "$2" != -gencrl ] || '
                      f'{{ echo >{mark}; read -r _ <{go_on}; }}')
    # Under nohup it would ignore a hangup, and a shell could not help it.
    process = subprocess.Popen(
        [PROGRAM, "-d", ca.dir, *args], env=env, stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    wait_until(lambda: os.path.exists(mark), "it is that far")
    process.send_signal(number)
    if number == signal.SIGKILL:
        process.wait(LIMIT_S)
    with open(go_on, "w", encoding="ascii") as file:
        file.write("\n")
    status = process.wait(LIMIT_S)
    os.unlink(go_on)
    os.unlink(mark)
    return status
