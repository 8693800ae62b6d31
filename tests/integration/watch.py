# SPDX-License-Identifier: Apache-2.0
"""What the tests of hostile peers look at meanwhile: an honest peer whose data
must stay right, and the memory of every process of a daemon."""

import os
import random
import re
import threading
import time

from harness import BUILD, LIMIT_S, wait_until

# The sanitizers' own memory, and what they keep after it was freed.
IS_SANITIZED = "san-" in os.path.basename(BUILD)
SANITIZER_KIB = 64 << 10
SLOWEST_ROUND_S = 10.0
FAULTS = re.compile(r".*(killed by signal|Sanitizer|runtime error).*")


def peak_kib(pid):
    """The most memory that a process had at any time; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children",
                  encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def assert_no_fault(log):
    """No process crashed or broke its sandbox, no sanitizer has complained."""
    found = FAULTS.search(log)
    assert not found, found[0]


class Repeater:
    """Calls a function again and again in a thread, until its end."""

    def __init__(self, function, pause_s=0.0):
        self.error = None
        self.rounds = 0
        self.slowest_s = 0.0
        self._function = function
        self._pause_s = pause_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._ended.wait(self._pause_s):
            began = time.monotonic()
            try:
                self._function()
            except Exception as error:  # pylint: disable=broad-except
                self.error = error
                return
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.rounds += 1

    def end(self):
        self._ended.set()
        self._thread.join(LIMIT_S)


class Meter:
    """The highest memory of a daemon and of its children, which come and go."""

    def __init__(self, pid):
        self.pid = pid
        self.peaks = {pid: 0}
        self._repeater = Repeater(self._look, 0.01)

    def _look(self):
        for pid in [self.pid, *children(self.pid)]:
            self.peaks[pid] = max(self.peaks.get(pid, 0), peak_kib(pid))

    def assert_below(self, limit_kib):
        """No process of them ever had more."""
        self._look()
        self._repeater.end()
        most = max(self.peaks.values())
        print(f"# at most {most} KiB in each of {len(self.peaks)} processes")
        assert most, "nothing was measured"
        assert most < limit_kib + IS_SANITIZED * SANITIZER_KIB, self.peaks


class Witness:
    """An honest peer that writes and reads back all the time.

    `exchange(bytes)` gives back what the device says these bytes are.
    """

    def __init__(self, exchange):
        self._exchange = exchange
        self._random = random.Random(1)
        self._repeater = Repeater(self._round, 0.001)
        self.assert_undisturbed()

    def _round(self):
        data = self._random.randbytes(4096)
        assert self._exchange(data) == data, "the witness reads other bytes"

    def assert_undisturbed(self):
        """Its data was right and came in time, and still does."""
        repeater = self._repeater
        target = repeater.rounds + 3
        wait_until(lambda: repeater.error or repeater.rounds >= target,
                   "the witness goes on")
        if repeater.error:
            raise AssertionError("the witness was disturbed") \
                from repeater.error
        assert repeater.slowest_s < SLOWEST_ROUND_S, repeater.slowest_s

    def end(self):
        self.assert_undisturbed()
        self._repeater.end()
