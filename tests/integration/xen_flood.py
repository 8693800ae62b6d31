# SPDX-License-Identifier: Apache-2.0
"""Somebody who writes to xenstore without end, as fast as it takes it.

    with flooding(xen, 7, [path, other], ("1", "garbage")) as total:
        wait_more(total)
"""

import contextlib
import itertools
import multiprocessing
import os
import re

from harness import wait_until
from xenstored import HEADER, WRITE, Store

IS_SANITIZED = "san" in os.environ.get("XUSBIP_BUILD", "")
# Holds the channels of a guest and the events that wait; a flood has more.
MOST_KIB = 8192
PIPELINE = 16   # requests of one domain that wait: below its quota
# Looks in this time: 20 a second, and what comes before it is calm.
LOOKS_A_S = 20
LOOKS_AT_ONCE = 20


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def flood(path, nodes, values, is_over, total):
    """Writes as fast as xenstored takes it, in a process of its own."""
    rounds = itertools.cycle([(n, v) for v in values for n in nodes])
    with Store(path) as store:
        while not is_over.value:
            messages = []
            for node, value in itertools.islice(rounds, PIPELINE):
                payload = f"{node}\0{value}".encode()
                messages.append(HEADER.pack(WRITE, 1, 0, len(payload))
                                + payload)
            store.sock.sendall(b"".join(messages))
            for _ in messages:
                store.receive()
            total.value += len(messages)


@contextlib.contextmanager
def flooding(xen, domid, nodes, values):
    """Yields the count of what was written, and is still."""
    total = multiprocessing.Value("Q", 0, lock=False)
    is_over = multiprocessing.Value("b", False, lock=False)
    writer = multiprocessing.Process(target=flood, args=(
        os.path.join(xen.dir, f"dom{domid}"), nodes, values, is_over, total))
    writer.start()
    try:
        yield total
    finally:
        is_over.value = True
        writer.join()


def wait_more(total):
    """Waits until the writer has written: it goes on."""
    before = total.value
    wait_until(lambda: total.value > before, "it is written to")


def most_looks(total, took):
    """How often somebody may look because of so many writes in so long."""
    return min(total.value / 10, LOOKS_A_S * 1.05 * took) + LOOKS_AT_ONCE
