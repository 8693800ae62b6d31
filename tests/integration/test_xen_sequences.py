#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the sequences of a gateway's link, whose own lines are the report, on the
real xenstored over a pretended Xen."""

import os
import subprocess
import sys

from harness import BUILD, Skip
from xenstored import FakeXen

PROGRAM = os.path.join(BUILD, "tests", "integration", "xen_sequences")
LIMIT_S = 240


def main():
    try:
        with FakeXen() as xen:
            xen.add_domain(5)
            is_good = subprocess.run([PROGRAM], env=xen.env(0), check=False,
                                     timeout=LIMIT_S).returncode == 0
    except Skip as why:
        print(f"ok 1 - sequences of a link # skip {why}")
        is_good = True
    sys.exit(0 if is_good else 1)


main()
