#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""xusbip-xl, with an xl and an xusbip that only note how they were called."""

import os
import subprocess

from harness import LIMIT_S, ROOT, run

WRAPPER = os.path.join(ROOT, "etc", "xen", "xusbip-xl")

# A domain "u1" with number 5, which xl restore makes again as "u2", 6.
TOOL = """#!/bin/sh
calls={dir}/calls
echo "${{0##*/}} $*" >>$calls
case "${{0##*/}} $1" in
"xl list")
	number=5 name=u1
	grep -q "^xl restore" $calls && number=6 name=u2
	case ${{2:-$name}} in
	u1 | u2 | 5)
		grep -q "^xl migrate.*away" $calls && exit 1
		echo "Name ID Mem"; echo "$name $number 512" ;;
	*) exit 1 ;;
	esac ;;
"xl vm-list") echo "UUID ID name"; echo "uuid-of-u1 5 u1" ;;
"xl "*) exit $XL_STATUS ;;
"xusbip quiesce") exit $QUIESCE_STATUS ;;
esac
"""


def called(bench, *args, xl_status=0, quiesce_status=0):
    """The wrapper's exit status, and what it called but for looking."""
    for name in ("xl", "xusbip"):
        path = bench.file(name, TOOL.format(dir=bench.dir).encode())
        os.chmod(path, 0o755)
    calls = bench.file("calls")
    env = {**os.environ, "PATH": f"{bench.dir}:{os.environ['PATH']}",
           "XL_STATUS": str(xl_status), "QUIESCE_STATUS": str(quiesce_status)}
    result = subprocess.run([WRAPPER, *args], env=env, timeout=LIMIT_S,
                            capture_output=True, text=True, check=False)
    with open(calls, encoding="utf-8") as file:
        lines = file.read().splitlines()
    return result.returncode, [line for line in lines
                               if not line.startswith(("xl list", "xl vm-list"))]


def test_a_domain_is_quiesced_before_it_is_saved_and_resumed_after(bench):
    status, calls = called(bench, "save", "-c", "5", "/tmp/file")

    assert status == 0
    assert calls == ["xusbip quiesce u1", "xl save -c 5 /tmp/file",
                     "xusbip resume u1"]


def test_a_domain_that_could_not_be_saved_is_resumed(bench):
    status, calls = called(bench, "migrate", "-s", "ssh -p 2", "u1", "host",
                           xl_status=3)

    assert status == 3
    assert calls == ["xusbip quiesce u1", "xl migrate -s ssh -p 2 u1 host",
                     "xusbip resume u1"]


def test_a_domain_that_went_away_is_not_held_if_it_comes_back(bench):
    status, calls = called(bench, "migrate", "u1", "away")

    assert status == 0
    assert calls == ["xusbip quiesce u1", "xl migrate u1 away",
                     "xusbip resume uuid-of-u1"]


def test_a_domain_that_cannot_be_quiesced_is_not_saved(bench):
    status, calls = called(bench, "save", "u1", "file", quiesce_status=11)

    assert status == 11
    assert calls == ["xusbip quiesce u1", "xusbip resume u1"]


def test_a_domain_without_devices_of_ours_is_just_saved(bench):
    status, calls = called(bench, "save", "u1", "file", quiesce_status=5)

    assert status == 0
    assert calls == ["xusbip quiesce u1", "xl save u1 file"]


def test_a_suspended_domain_is_resumed_with_xl(bench):
    assert called(bench, "suspend", "u1") == (
        0, ["xusbip quiesce u1", "xl suspend u1"])
    assert called(bench, "resume", "u1") == (
        0, ["xl resume u1", "xusbip resume u1"])


def test_the_domain_that_a_restore_made_is_resumed(bench):
    assert called(bench, "restore", "-p", "file") == (
        0, ["xl restore -p file", "xusbip resume u2"])
    assert called(bench, "restore", "file", xl_status=1) == (
        1, ["xl restore file"])


def test_what_needs_no_wrapping_is_refused(bench):
    for args in ([], ["destroy", "u1"], ["save"], ["save", "u9", "file"]):
        assert called(bench, *args) == (2, []), args


if __name__ == "__main__":
    run(globals())
