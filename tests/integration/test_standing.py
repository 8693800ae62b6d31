#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the agent keeps attached, as far as it can be seen without vhci_hcd, and
the gateways that `xusbip list` finds. They are played by the test, and what
announces them, too: a script in the place of avahi-browse."""

import json
import os
import re
import signal
import subprocess

from agent import AGENT, Agent
from fake_gateway import FakeGateway, describe
from harness import BUILD, LIMIT_S, Skip, run, wait_until

XUSBIP = os.path.join(BUILD, "xusbip")

EXIT_USAGE, EXIT_CANNOT_REACH, EXIT_CONFIG = 2, 5, 9

LINE = "=;eth0;IPv4;lab;_xusbip._tcp;local;{host};10.0.0.2;{port};\"x=1\"\n"


def xusbip(*args, path=None):
    env = {**os.environ, "PATH": path} if path else None
    return subprocess.run([XUSBIP, *args], capture_output=True, text=True,
                          timeout=4 * LIMIT_S, stdin=subprocess.DEVNULL,
                          check=False, env=env)


def section(name, gateway, device='busid = "1-1"'):
    return f'attach "{name}" {{ gateway = "{gateway}" {device} }}\n'


def write_wish(name, gateway):
    """As `xusbip attach --persist` does it."""
    folder = os.environ["XUSBIP_WISH_DIR"]
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    with open(path + "~", "w", encoding="utf-8") as file:
        file.write(section(name, gateway))
    os.rename(path + "~", path)
    return path


def waiting():
    """What `xusbip port` shows of those that wait, by name."""
    text = xusbip("port", "--json").stdout
    shown = json.loads(text)["waiting"] if text else []
    return {each["name"]: each for each in shown}


def browser(bench, script):
    """A folder for PATH with that shell script as avahi-browse."""
    folder = os.path.join(bench.dir, "bin")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "avahi-browse")
    with open(path, "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\n" + script)
    os.chmod(path, 0o700)
    return folder + ":/usr/bin:/bin"


# The agent

def test_what_a_section_names_waits_for_its_gateway(bench):
    gone = f"tcp:127.0.0.1:{bench.free_port()}"
    with Agent(bench, [], section("stick", gone)) as agent:
        wait_until(lambda: "refused" in waiting().get(
            "stick", {"why": ""})["why"], "it waits")
        shown = waiting()["stick"]
        assert shown["remote"] == gone and shown["device"] == "1-1"
        assert shown["state"] == "waiting" and shown["since_s"] >= 0

        lines = xusbip("port").stdout.splitlines()
        assert lines[:2] == ["Imported USB devices", "=" * 20]
        assert re.fullmatch(rf"Waiting: stick: {gone} 1-1: .*refused.*; "
                            r"since \d+ s(; next try in \d+ s)?", lines[2])

        agent.process.send_signal(signal.SIGTERM)
        agent.process.wait(LIMIT_S)
        assert not waiting()


def test_it_is_tried_again_and_told_once_for_each_reason(bench):
    gateway = FakeGateway()
    with Agent(bench, [], section("stick", gateway.address)) as agent:
        wait_until(lambda: agent.log().count("TRYING + MISSING") > 2,
                   "it is tried three times")
        assert agent.log().count("no such device there") == 1

        gateway.devices["1-1"] = describe("1-1")
        agent.wait_log("warning: stick: not attached: (?!it has no)")


def test_one_of_a_kind_is_looked_for_and_several_are_none(bench):
    gateway = FakeGateway({"1-1": describe("1-1"), "1-2": describe("1-2")})
    device = 'vendor = "1234" product = "5678"'
    with Agent(bench, [], section("stick", gateway.address, device)) as agent:
        agent.wait_log("not just one of that kind")
        del gateway.devices["1-1"]
        agent.wait_log("warning: stick: not attached: (?!it has no)")


def test_a_file_is_heard_of_and_forgotten_when_it_goes(bench):
    gone = f"tcp:127.0.0.1:{bench.free_port()}"
    with Agent(bench, []) as agent:
        path = write_wish("w1", gone)
        wait_until(lambda: "w1" in waiting(), "w1 waits")
        os.unlink(path)
        agent.wait_log("w1: is not kept attached any more")
        assert not waiting()


def test_sections_come_and_go_with_the_configuration(bench):
    gone = f"tcp:127.0.0.1:{bench.free_port()}"
    with Agent(bench, [], section("one", gone)) as agent:
        wait_until(lambda: "one" in waiting(), "one waits")
        agent.write_config([], section("two", gone))
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: list(waiting()) == ["two"], "two waits")

        agent.write_config([], 'attach "three" { }')
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_log("gateway is missing; the configuration stays")
        assert list(waiting()) == ["two"]


def test_a_second_agent_keeps_nothing(bench):
    gone = f"tcp:127.0.0.1:{bench.free_port()}"
    with Agent(bench, [], section("one", gone)) as first:
        first.wait_log("one: not attached")
        with Agent(bench, [], section("one", gone)) as second:
            second.wait_log("another xusbip-frontend keeps what is to stay")
            assert not second.has_logged("one: ")


def test_notes_of_an_agent_that_was_killed_go_with_the_next(bench):
    gone = f"tcp:127.0.0.1:{bench.free_port()}"
    with Agent(bench, [], section("one", gone)) as agent:
        wait_until(lambda: "one" in waiting(), "one waits")
        agent.process.kill()
        agent.process.wait()
    with Agent(bench, []):
        assert not waiting()


def test_jobs_end_with_their_agent(bench):
    silent = FakeGateway()
    asked, ended = [], []

    def wait_for_the_end(connection):
        asked.append(connection)
        if connection.recv(1) == b"":
            ended.append(connection)
    silent.on_devlist = wait_for_the_end
    with Agent(bench, [], section("stick", silent.address)) as agent:
        wait_until(lambda: asked, "a job asks")
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(LIMIT_S) == 0
        wait_until(lambda: ended, "the job has ended")


def test_a_configuration_that_was_named_has_to_be_there(bench):
    result = subprocess.run(
        [AGENT, "-c", os.path.join(bench.dir, "none.conf")], text=True,
        capture_output=True, timeout=LIMIT_S, check=False)
    assert result.returncode == EXIT_CONFIG, result.stderr
    assert "No such file" in result.stderr


def test_the_usual_gateway_is_not_missed_where_it_is_not(bench):
    if os.path.exists("/run/xusbip/gateway.sock"):
        raise Skip("this machine has a gateway")
    with Agent(bench, ["127.0.0.1:1"]) as agent:
        with open(agent.config_path, "w", encoding="utf-8") as file:
            file.write("# all is as usual\n")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_log("anew")
        with agent.client() as client:
            assert client.devlist() == {}
        agent.wait_no_children()
        assert not agent.has_logged("left out of the list")


# xusbip list without an address

def test_all_gateways_are_listed_that_answer(bench):
    first = FakeGateway({"1-1": describe("1-1")})
    second = FakeGateway({"2-1": describe("2-1")})
    gone = f"tcp:127.0.0.1:{bench.free_port()}"
    for name, address in (("a", first.address), ("b", gone),
                          ("c", second.address), ("d", first.address)):
        write_wish(name, address)

    result = xusbip("list", path="/nonexistent")
    assert result.returncode == 0, result.stderr
    assert len(result.stderr.splitlines()) == 1 and gone in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "Exportable USB devices"
    assert lines.count(f" - {first.address}") == 1
    assert lines.count(f" - {second.address}") == 1
    assert lines.count("=" * 22) == 1

    found = json.loads(xusbip("list", "--json").stdout)["gateways"]
    assert {each["remote"]: [device["busid"] for device in each["devices"]]
            for each in found} == {first.address: ["1-1"],
                                   second.address: ["2-1"]}


def test_no_answer_at_all_is_a_failure(bench):
    result = xusbip("list", path="/nonexistent")
    assert result.returncode == EXIT_CANNOT_REACH
    assert "no gateway is known" in result.stderr

    write_wish("a", f"tcp:127.0.0.1:{bench.free_port()}")
    result = xusbip("list", path="/nonexistent")
    assert result.returncode == EXIT_CANNOT_REACH
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


def test_what_goes_only_with_an_address_is_refused_without(bench):
    for args in (["-p"], ["--watch"], ["--pin", "sha256:" + 64 * "0"],
                 ["-l", "--pin", "sha256:" + 64 * "0"],
                 ["-r", "tcp:a", "--pin", "sha256:" + 64 * "0"],
                 ["-r", "tls:a", "--pin", "sha256:0"], ["-l", "-r", "a"]):
        result = xusbip("list", *args)
        assert result.returncode == EXIT_USAGE, (args, result.stderr)
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_what_is_announced_is_asked_over_tls_only(bench):
    gateway = FakeGateway({"1-1": describe("1-1")})
    line = LINE.format(host="127.0.0.1", port=gateway.port)
    path = browser(bench, f"[ \"$*\" = '-rptk _xusbip._tcp' ] || exit 1\n"
                          f"cat << 'END'\n{line}END\n")

    result = xusbip("list", path=path)
    assert f"tls:127.0.0.1:{gateway.port}: " in result.stderr
    assert result.returncode != 0 and result.stdout == ""


def test_hostile_announcements_do_no_harm(bench):
    good = FakeGateway({"1-1": describe("1-1")})
    write_wish("a", good.address)
    scripts = {
        "bytes": r"printf '\033[2J\377\n=;;;;;;\033[2J;;1;\n;;;;;;;;;;\n'",
        "options": r"printf '=;a;b;c;d;e;--help;f;1;\n=;a;b;c;d;e;-;f;1;\n'",
        "without end": "yes '=;a;b;c;d;e;a b;f;1;'",
        "one endless line": "tr '\\0' a < /dev/zero",
        "silent": "exec sleep 60",
        "cut": r"printf '=;a;b;c;d;e;127.0.0.1;f;1;'",
        "failing": "exit 3",
        "names that are long": "printf '=;a;b;c;d;e;%0999d;f;1;\\n' 1",
    }
    for name, script in scripts.items():
        result = xusbip("list", path=browser(bench, script))
        assert result.returncode == 0, (name, result.stderr)
        assert result.stderr == "", (name, result.stderr)
        assert f" - {good.address}" in result.stdout, name


def test_announcements_are_as_many_as_there_is_room_for(bench):
    port = bench.free_port()
    script = (f"i=0; while [ $i -lt 500 ]; do i=$((i + 1)); echo "
              f"\"=;a;b;c;d;e;127.0.$i.1;f;{port};\"; done")
    result = xusbip("list", path=browser(bench, script))
    assert result.returncode != 0
    assert 1 < len(result.stderr.splitlines()) <= 32, result.stderr


run(globals())
