#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway's manager: its start and end, its configuration, its limits, and
devices that are free again whatever dies."""

import os
import re
import signal
import socket
import stat

from harness import ROOT, is_alive, run, wait_until
from usbip_client import (Closed, Refused, UsbipClient, IN, ST_DEV_BUSY,
                          ST_DEV_ERR, ST_NODEV, ST_OK)

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CONFIG = 0, 1, 2, 9

ZERO = 'zero "zero0" { }\n'


def disk(bench, options=""):
    path = bench.file("stick.img", bytes(1 << 20))
    return f'disk "stick" {{ image = "{path}" {options} }}\n'


def answers(client):
    """Does the imported device answer?"""
    return client.get_descriptor(1, length=18).actual_length == 18


# Start and end.


def test_help_and_version_are_printed(bench):
    done = bench.run("--help")
    assert done.returncode == EXIT_OK and "--check-config" in done.stdout
    done = bench.run("--version")
    assert done.returncode == EXIT_OK
    assert done.stdout.startswith("xusbip-gateway ")


def test_an_unknown_option_or_word_is_refused(bench):
    assert bench.run("--nonsense").returncode == EXIT_USAGE
    done = bench.run("nonsense")
    assert done.returncode == EXIT_USAGE and "nonsense" in done.stderr


def test_a_good_configuration_is_checked_without_serving(bench):
    gateway = bench.prepare(ZERO)
    done = bench.run("-c", gateway.config_path, "--check-config")
    assert done.returncode == EXIT_OK and "ok" in done.stdout
    assert not os.path.exists(gateway.runtime_dir)


def test_the_example_configuration_is_good_with_everything_in_it(bench):
    path = os.path.join(ROOT, "etc", "xusbip-gateway.conf")
    assert bench.run("-c", path, "--check-config").returncode == EXIT_OK
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"^#(?=[a-z\t}])", "", file.read(), flags=re.M)
    assert text.count("\nexport {") == 9 and '\n\timage = "' in text
    for stands, here in (('"plugdev"', '"root"'), ('"anna"', '"root"'),
                         ('"tls:lab', '"tcp:lab')):
        assert stands in text
        text = text.replace(stands, here)
    done = bench.run("-c", bench.file("all.conf", text.encode()),
                     "--check-config")
    assert done.returncode == EXIT_OK, done.stderr


def test_a_bad_configuration_is_refused_with_its_line(bench):
    bad = {
        "\n\nlisten = { \"xen:3\" }": (3, "say xen = true"),
        "max_sessions = 0": (1, "max_sessions"),
        "unknown = 1": (1, "unknown"),
        ZERO + ZERO: (2, "zero0"),
        "export { }": (1, "exports nothing"),
        "disk \"d\" { }": (1, "image"),
    }
    for text, (line, reason) in bad.items():
        path = bench.file("bad.conf", text.encode())
        for args in (("--check-config",), ()):
            done = bench.run("-c", path, *args)
            assert done.returncode == EXIT_CONFIG, (text, done)
            assert f"{path}:{line}: " in done.stderr, (text, done.stderr)
            assert reason in done.stderr, (text, done.stderr)
            assert len(done.stderr.splitlines()) == 1


def test_a_missing_configuration_is_named(bench):
    done = bench.run("-c", "/no/such/file")
    assert done.returncode == EXIT_CONFIG
    assert "/no/such/file: No such file" in done.stderr


def test_sigterm_ends_it_with_status_0_and_leaves_nothing(bench):
    gateway = bench.gateway(ZERO)
    with gateway.client() as client:
        client.import_("zero0")
        pids = gateway.sessions()
        assert len(pids) == 1

        assert gateway.stop() == EXIT_OK

        assert client.is_at_end()
    assert not any(is_alive(pid) for pid in pids)
    assert os.listdir(gateway.runtime_dir) == ["manager.pid"]
    assert "stopped" in gateway.log()


def test_ready_is_told_to_the_service_manager(bench):
    path = os.path.join(bench.dir, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(10)
        os.environ["NOTIFY_SOCKET"] = path
        try:
            bench.gateway(ZERO)
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert notify.recv(100) == b"READY=1"


# Listeners.


def test_every_listener_is_logged_with_its_address(bench):
    gateway = bench.gateway(ZERO)
    log = gateway.log()
    assert f"listening on tcp:127.0.0.1:{gateway.port}" in log
    assert f"listening on unix:{gateway.socket}" in log


def test_ipv6_callers_are_served_and_named(bench):
    port = bench.free_port()
    gateway = bench.gateway(f'listen = {{ "tcp:[::1]:{port}" }}\n' + ZERO)
    with UsbipClient(port, "::1") as client:
        assert "zero0" in client.devlist()
    gateway.wait_log(r"session \d+ \(\[::1\]:\d+\): started")


def test_a_port_that_is_taken_is_one_clear_line(bench):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "tcp:127.0.0.1:%d" % taken.getsockname()[1]
        gateway = bench.prepare(f'listen = {{ "{address}" }}\n' + ZERO)
        done = bench.run("-c", gateway.config_path)
    assert done.returncode == EXIT_FAILED
    line, = done.stderr.splitlines()
    assert address in line and "Address already in use" in line


def test_a_second_gateway_on_the_same_directory_is_refused(bench):
    first = bench.gateway(ZERO)
    second = bench.prepare(f'runtime_dir = "{first.runtime_dir}"\n')
    done = bench.run("-c", second.config_path)
    assert done.returncode == EXIT_FAILED
    assert "another xusbip-gateway uses it" in done.stderr
    assert first.import_status("zero0") == ST_OK


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(bench):
    gateway = bench.gateway(ZERO)
    other = bench.prepare(f'listen = {{ "unix:{gateway.socket}" }}\n')
    done = bench.run("-c", other.config_path)
    assert done.returncode == EXIT_FAILED
    assert gateway.socket in done.stderr
    assert os.path.exists(gateway.socket)

    gateway.kill()
    assert os.path.exists(gateway.socket)
    gateway.start()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(gateway.socket)


def test_a_file_in_the_place_of_the_socket_is_not_removed(bench):
    path = bench.file("precious", b"data")
    gateway = bench.prepare(f'listen = {{ "unix:{path}" }}\n')
    done = bench.run("-c", gateway.config_path)
    assert done.returncode == EXIT_FAILED and path in done.stderr
    with open(path, "rb") as file:
        assert file.read() == b"data"


def test_the_socket_has_the_mode_that_was_asked_for(bench):
    gateway = bench.gateway(ZERO)
    assert stat.S_IMODE(os.stat(gateway.socket).st_mode) == 0o600
    gateway = bench.gateway('socket_mode = "0660"\n' + ZERO)
    assert stat.S_IMODE(os.stat(gateway.socket).st_mode) == 0o660


def test_a_unix_caller_is_named_by_its_credentials(bench):
    gateway = bench.gateway(ZERO)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(gateway.socket)
        gateway.wait_log(rf"session \d+ \(uid {os.getuid()} "
                         rf"pid {os.getpid()}\): started")


# Devices.


def test_the_list_shows_the_virtual_devices(bench):
    gateway = bench.gateway(disk(bench) + ZERO)
    with gateway.client() as client:
        devices = client.devlist()
    assert list(devices) == ["stick", "zero0"]
    assert devices["stick"].path == "/xusbip/stick"
    assert devices["stick"].interfaces[0] == (8, 6, 80)
    assert devices["stick"].speed == 5
    assert devices["zero0"].vendor == 0x0525
    assert devices["zero0"].devid != 0


def test_without_exports_the_list_is_empty(bench):
    with bench.gateway().client() as client:
        assert client.devlist() == {}


def test_a_device_that_is_not_there_is_answered_with_nodev(bench):
    gateway = bench.gateway(ZERO)
    for busid in ("nothing", "", "1-1", "usb1", "../zero0", b"x" * 32,
                  b"\xff\n\x1b[2J"):
        assert gateway.import_status(busid) == ST_NODEV, busid
    assert gateway.import_status("zero0") == ST_OK


def test_a_device_with_a_missing_image_is_answered_with_an_error(bench):
    gateway = bench.gateway('disk "stick" { image = "/no/such/image" }\n')
    assert gateway.import_status("stick") == ST_DEV_ERR
    gateway.wait_log("stick is refused: .*No such file")


def test_an_imported_device_answers_and_a_second_import_is_busy(bench):
    gateway = bench.gateway(ZERO)
    with gateway.client() as client:
        client.import_("zero0")
        assert gateway.import_status("zero0") == ST_DEV_BUSY
        assert answers(client)
    gateway.import_when_free("zero0").close()


def test_a_session_that_is_killed_frees_its_device_at_once(bench):
    gateway = bench.gateway(disk(bench))
    with gateway.client() as client:
        client.import_("stick")
        client.submit(1, IN, length=512)
        pid = gateway.session_of(client)

        os.kill(pid, signal.SIGKILL)

        assert client.is_at_end()
    with gateway.import_when_free("stick") as client:
        assert answers(client)
    gateway.wait_log(rf"session {pid} .*killed by signal 9")


def test_one_session_that_is_killed_leaves_the_others_alone(bench):
    gateway = bench.gateway(disk(bench) + ZERO)
    with gateway.client() as first, gateway.client() as second:
        first.import_("stick")
        second.import_("zero0")
        os.kill(gateway.session_of(first), signal.SIGKILL)
        assert first.is_at_end()
        assert answers(second)


def test_sessions_live_on_when_the_manager_is_killed(bench):
    gateway = bench.gateway(ZERO)
    with gateway.client() as client:
        client.import_("zero0")

        gateway.kill()

        assert answers(client)
        gateway.start()
        assert gateway.import_status("zero0") == ST_DEV_BUSY
        with gateway.client() as other:
            assert "zero0" in other.devlist()
        assert answers(client)
    gateway.import_when_free("zero0").close()


def test_the_next_manager_ends_them_when_it_is_stopped(bench):
    gateway = bench.gateway(ZERO)
    with gateway.client() as client:
        client.import_("zero0")
        gateway.kill()
        gateway.start()

        assert gateway.stop() == 0
        assert client.is_at_end()
    assert not os.path.exists(os.path.join(gateway.runtime_dir, "zero0.lock"))


def test_what_a_session_writes_into_its_claim_ends_nobody_elses(bench):
    gateway, other = bench.gateway(ZERO), bench.gateway(ZERO)
    with gateway.client() as client, other.client() as bystander:
        client.import_("zero0")
        bystander.import_("zero0")
        pid = other.session_of(bystander)
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            started_at = file.read().split()[21]
        path = os.path.join(gateway.runtime_dir, "zero0.lock")
        with open(path, "w", encoding="ascii") as claim:
            claim.write(f"0 0 by {pid} {started_at}\n")

        assert gateway.stop() == 0
        assert answers(bystander)


def test_an_orphan_that_is_killed_frees_its_device_for_the_next_manager(bench):
    gateway = bench.gateway(ZERO)
    with gateway.client() as client:
        client.import_("zero0")
        pid = gateway.session_of(client)
        gateway.kill()
        gateway.start()
        os.kill(pid, signal.SIGKILL)
        assert client.is_at_end()
    gateway.import_when_free("zero0").close()
    lock = os.path.join(gateway.runtime_dir, "zero0.lock")
    wait_until(lambda: not os.path.exists(lock), "its lock file is removed")


def test_a_lock_that_a_dead_session_left_is_removed_at_the_start(bench):
    gateway = bench.prepare(ZERO)
    os.mkdir(gateway.runtime_dir, 0o755)
    for name, note in (("zero0", ""), ("99-9", "5 1\n")):
        with open(os.path.join(gateway.runtime_dir, name + ".lock"), "w",
                  encoding="ascii") as file:
            file.write(note)
    gateway.start()
    wait_until(lambda: not [name for name in os.listdir(gateway.runtime_dir)
                            if name.endswith(".lock")],
               "the lock files are removed")


def test_a_hundred_attachments_leave_nothing_behind(bench):
    gateway = bench.gateway(ZERO)
    count = f"/proc/{gateway.process.pid}/fd"
    gateway.import_when_free("zero0").close()
    wait_until(gateway.has_settled, "no session")
    before = len(os.listdir(count))
    for _ in range(100):
        gateway.import_when_free("zero0").close()
    wait_until(gateway.has_settled, "no session")
    wait_until(lambda: len(os.listdir(count)) == before,
               "as many descriptors as before")


# Limits.


def test_connections_above_the_limit_are_closed_and_the_rest_served(bench):
    gateway = bench.gateway("max_sessions = 3\n" + ZERO)
    held = [gateway.client() for _ in range(3)]
    wait_until(lambda: len(gateway.sessions()) == 3, "three sessions")
    with gateway.client() as fourth:
        assert fourth.is_at_end()
    gateway.wait_log("connection refused: max_sessions is reached")
    with held[0] as client:
        assert "zero0" in client.devlist()
    for client in held:
        client.close()
    wait_until(gateway.has_settled, "the manager knows that all have ended")
    with gateway.client() as client:
        assert "zero0" in client.devlist()


def test_one_peer_cannot_take_all_sessions(bench):
    gateway = bench.gateway("max_sessions = 5\nmax_sessions_per_peer = 2\n"
                            + ZERO)
    held = [gateway.client() for _ in range(2)]
    wait_until(lambda: len(gateway.sessions()) == 2, "two sessions")
    with gateway.client() as third:
        assert third.is_at_end()
    gateway.wait_log("max_sessions_per_peer is reached")

    with socket.socket(socket.AF_UNIX) as other:
        other.connect(gateway.socket)
        wait_until(lambda: len(gateway.sessions()) == 3, "the other peer's")
    for client in held:
        client.close()


def test_a_caller_without_end_does_not_fill_the_log(bench):
    gateway = bench.gateway("max_sessions = 1\n" + ZERO)
    with gateway.client():
        wait_until(lambda: len(gateway.sessions()) == 1, "one session")
        for _ in range(300):
            with gateway.client() as refused:
                assert refused.is_at_end()
        assert gateway.count("connection refused") < 100


def calls_are_served(gateway):
    with gateway.client() as client:
        try:
            return "zero0" in client.devlist()
        except Closed:
            return False


def test_who_calls_too_often_is_not_served_until_it_has_paused(bench):
    gateway = bench.gateway("calls_per_second = 1\n" + ZERO)
    callers = [gateway.client() for _ in range(50)]
    gateway.wait_log("connection refused: calls_per_second is reached")
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(gateway.socket)
        gateway.wait_log(r"\(uid \d+ pid \d+\): started")
    for caller in callers:
        caller.close()
    wait_until(lambda: calls_are_served(gateway), "it may call again")


def test_thirty_devices_can_be_attached_by_one_peer(bench):
    names = [f"z{i}" for i in range(30)]
    gateway = bench.gateway("".join(f'zero "{n}" {{ }}\n' for n in names))
    clients = []
    for name in names:
        clients.append(gateway.client())
        clients[-1].import_(name)
    assert all(answers(client) for client in clients)
    for client in clients:
        client.close()


def test_a_list_of_many_devices_arrives_whole(bench):
    names = [f"z{i}" for i in range(64)]
    gateway = bench.gateway("".join(f'zero "{n}" {{ }}\n' for n in names))
    with gateway.client() as client:
        assert sorted(client.devlist()) == sorted(names)


# Reloading.


def test_sighup_reads_rules_and_virtual_devices_again(bench):
    gateway = bench.gateway(ZERO + 'zero "other" { }\n')
    with gateway.client() as client, gateway.client() as loser:
        client.import_("other")
        loser.import_("zero0")
        gateway.write_config('zero "other" { }\n')
        gateway.signal(signal.SIGHUP)
        gateway.wait_log("configuration reloaded")

        with gateway.client() as lister:
            assert list(lister.devlist()) == ["other"]
        assert gateway.import_status("zero0") == ST_NODEV
        assert loser.is_at_end()
        assert answers(client)


def test_a_bad_file_at_sighup_keeps_the_old_configuration(bench):
    gateway = bench.gateway(ZERO)
    gateway.write_config("nonsense = 1\n")
    gateway.signal(signal.SIGHUP)
    gateway.wait_log(r"not reloaded.*\.conf:\d+: .*nonsense")
    assert gateway.import_status("zero0") == ST_OK


def test_changed_listeners_at_sighup_wait_for_a_restart(bench):
    gateway = bench.gateway(ZERO)
    gateway.write_config(
        f'listen = {{ "tcp:127.0.0.1:{bench.free_port()}" }}\n' + ZERO)
    gateway.signal(signal.SIGHUP)
    gateway.wait_log("apply when the gateway is restarted")
    assert gateway.import_status("zero0") == ST_OK


# Peers that say nothing, or nonsense.


def test_nonsense_ends_its_own_session_only(bench):
    gateway = bench.gateway(ZERO)
    with gateway.client() as good:
        good.import_("zero0")
        with gateway.client() as bad:
            bad.send_raw(b"GET / HTTP/1.0\r\n\r\n" * 100)
            assert bad.is_at_end()
        assert answers(good)


def test_a_peer_that_leaves_in_the_middle_of_a_request_ends_its_session(bench):
    gateway = bench.gateway(ZERO)
    with gateway.client() as client:
        client.send_raw(b"\x01\x11\x80")
        wait_until(lambda: len(gateway.sessions()) == 1, "its session")
    wait_until(lambda: not gateway.sessions(), "the session ended")


def test_a_session_holds_only_what_it_was_given(bench):
    gateway = bench.gateway(ZERO)
    with gateway.client() as client:
        client.import_("zero0")
        pid = gateway.session_of(client)
        held = [os.readlink(f"/proc/{pid}/fd/{fd}")
                for fd in os.listdir(f"/proc/{pid}/fd")]
        assert sum(name.startswith("socket:") for name in held) == 2, held
        files = {name for name in held if name.startswith("/")}
        lock = os.path.join(gateway.runtime_dir, "zero0.lock")
        assert files == {"/dev/null", gateway.log_path, lock}, files
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            status = dict(line.split(":\t", 1) for line in file
                          if ":\t" in line)
        assert status["CapEff"].strip("0\n") == ""
        assert status["Seccomp"] == "2\n"
        assert answers(client)


def test_a_peer_is_not_told_whether_a_device_is_there(bench):
    gateway = bench.gateway('zero "zero0" { }\n')
    for busid in ("1-1", "nothing"):
        with gateway.client() as client:
            try:
                client.import_(busid)
                raise AssertionError("imported")
            except Refused as refused:
                assert refused.status == ST_NODEV
            try:
                client.recv_raw(1)
                raise AssertionError("more than the status came")
            except Closed:
                pass


if __name__ == "__main__":
    run(globals())
