#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""xusbip-xl, with an xl and an xusbip that only note how they were called."""

import os
import subprocess

from harness import LIMIT_S, ROOT, run

DONE = ("quiesce", "resume", "save", "migrate", "suspend", "restore")
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
"xl domid") echo 5 ;;
"xl vm-list") echo "UUID ID name"; echo "uuid-of-u1 5 u1" ;;
"xl "*) exit $XL_STATUS ;;
"xusbip quiesce") exit $QUIESCE_STATUS ;;
"xusbip resume")
	tries=$(grep -c "^xusbip resume" $calls)
	[ "$tries" -gt "$UNSEEN" ] || exit 13
	exit $RESUME_STATUS ;;
"xenstore-ls -f") cat {dir}/store ;;
esac
"""


STORE = """/local/domain/5/data/xusbip/0 = ""
/local/domain/5/data/xusbip/0/0 = "00000000000000a1 up"
/local/domain/5/data/xusbip/9 = ""
/local/domain/5/data/xusbip/9/name = "usbvm"
/local/domain/5/data/xusbip/9/1 = "00000000000000a2 ask 0"
"""


def called(bench, *args, words=None, store="", **numbers):
    """The wrapper's exit status, and what it called but for looking; `words`
    are in its errors, and if they are empty there are none."""
    for name in ("xl", "xusbip", "xenstore-ls", "sleep"):
        path = bench.file(name, TOOL.format(dir=bench.dir).encode())
        os.chmod(path, 0o755)
    calls = bench.file("calls")
    bench.file("store", store.encode())
    env = {**os.environ, "PATH": f"{bench.dir}:{os.environ['PATH']}"}
    for name in ("xl_status", "quiesce_status", "resume_status", "unseen"):
        env[name.upper()] = str(numbers.get(name, 0))
    result = subprocess.run([WRAPPER, *args], env=env, timeout=LIMIT_S,
                            capture_output=True, text=True, check=False)
    if words is not None:
        assert words in result.stderr and bool(words) == bool(result.stderr), (
            result)
    with open(calls, encoding="utf-8") as file:
        lines = file.read().splitlines()
    return result.returncode, [line for line in lines
                               if line.split()[1] in DONE]


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


def test_a_domain_that_came_to_this_host_is_waited_for_and_resumed(bench):
    status, calls = called(bench, "migrate", "u1", "here", unseen=2)

    assert status == 0
    assert calls == ["xusbip quiesce u1", "xl migrate u1 here",
                     *3 * ["xusbip resume u1"]]


def test_a_domain_that_cannot_be_quiesced_is_not_saved(bench):
    status, calls = called(bench, "save", "u1", "file", quiesce_status=11)

    assert status == 11
    assert calls == ["xusbip quiesce u1", "xusbip resume u1"]


def test_a_domain_without_devices_of_ours_is_just_saved(bench):
    status, calls = called(bench, "save", "u1", "file", quiesce_status=13)

    assert status == 0
    assert calls == ["xusbip quiesce u1", "xl save u1 file"]


def test_a_domain_is_not_saved_if_no_gateway_can_be_asked(bench):
    status, calls = called(bench, "save", "u1", "file", quiesce_status=5,
                           words="u1 cannot be quiesced, so it was left alone")

    assert status == 5
    assert calls == ["xusbip quiesce u1", "xusbip resume u1"]


def test_a_domain_that_is_here_and_was_not_resumed_is_a_failure(bench):
    assert called(bench, "save", "-c", "u1", "file", resume_status=11) == (
        11, ["xusbip quiesce u1", "xl save -c u1 file", "xusbip resume u1"])
    assert called(bench, "save", "-c", "u1", "file", xl_status=3,
                  resume_status=11)[0] == 3
    assert called(bench, "resume", "u1", resume_status=11)[0] == 11
    assert called(bench, "resume", "u1", resume_status=13)[0] == 0


def test_devices_of_a_driver_domain_are_warned_of_if_none_is_asked(bench):
    words = "u1 uses devices of domain 9, which only itself can let go of"
    has_one = STORE + '/local/domain/5/data/xusbip/9/3 = "00000000a3 up"\n'

    assert called(bench, "save", "u1", "file", store=has_one, words=words,
                  quiesce_status=13)[0] == 0
    assert called(bench, "save", "u1", "file", store=STORE, words="",
                  quiesce_status=13)[0] == 0
    assert called(bench, "save", "u1", "file", store=has_one, words="")[0] == 0


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


def test_a_restored_domain_that_was_not_resumed_is_a_failure(bench):
    for status in (1, 5, 11):
        assert called(bench, "restore", "file", resume_status=status) == (
            status, ["xl restore file", "xusbip resume u2"])


def test_a_restored_domain_is_waited_for_until_the_gateway_serves_it(bench):
    assert called(bench, "restore", "file", unseen=3, words="") == (
        0, ["xl restore file"] + 4 * ["xusbip resume u2"])
    # One that it does not serve has nothing to take back.
    assert called(bench, "restore", "file", unseen=99, words="") == (
        0, ["xl restore file"] + 10 * ["xusbip resume u2"])


def test_what_needs_no_wrapping_is_refused(bench):
    for args in ([], ["destroy", "u1"], ["save"], ["save", "u9", "file"]):
        assert called(bench, *args) == (2, []), args


if __name__ == "__main__":
    run(globals())
