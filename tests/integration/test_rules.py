#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who is given what: the rules of a real gateway, what "xusbip explain" says of
them, and every way to get them wrong. Devices of this machine are pretended:
umockdev shows the gateway folders of the bench in place of /sys and /dev."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess

from ca import Ca
from harness import BUILD, LIMIT_S, Skip, run, wait_until
from usbip_client import Refused, ST_NODEV, ST_OK

XUSBIP = os.path.join(BUILD, "xusbip")
PRELOAD = "libumockdev-preload.so.0"
NOBODY = 65534
(EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NO_DEVICE, EXIT_NOT_ALLOWED,
 EXIT_CONFIG) = 0, 1, 2, 3, 4, 9

HID_KEYBOARD, HID_MOUSE = (3, 1, 1), (3, 1, 2)
STORAGE, VIDEO, ETHERNET, HUB = (8, 6, 80), (14, 1, 0), (2, 6, 0), (9, 0, 0)


def descriptors(vendor, product, *interfaces):
    """A device with one configuration of these interfaces."""
    device = bytes([18, 1, 0, 2, 0, 0, 0, 64]) + vendor.to_bytes(
        2, "little") + product.to_bytes(2, "little") + bytes(
        [0, 1, 0, 0, 0, 1])
    body = b"".join(bytes([9, 4, number, 0, 0, *triple, 0])
                    for number, triple in enumerate(interfaces))
    return device + bytes([9, 2, 9 + len(body), 0, len(interfaces), 1, 0,
                           0x80, 50]) + body


MACHINE = {
    "3-1": descriptors(0x046d, 0xc077, HID_MOUSE),
    "3-2": descriptors(0x046d, 0xc31c, HID_KEYBOARD, HID_MOUSE),
    "3-3": descriptors(0x0781, 0x5567, STORAGE),
    "3-4": descriptors(0x0781, 0x5568, STORAGE, HID_MOUSE),
    "3-5": descriptors(0x0bda, 0x8153, ETHERNET),
    "3-6": descriptors(0x046d, 0x0825, VIDEO),
    "3-7": descriptors(0x05e3, 0x0610, HUB),
}


def pretend(bench, machine=None):
    """An environment in which a program sees these devices."""
    root = os.path.join(bench.dir, "machine")
    folder = os.path.join(root, "sys/devices/pci0000:00/usb3")
    links = os.path.join(root, "sys/bus/usb/devices")
    nodes = os.path.join(root, "dev/bus/usb/003")
    for path in (folder, links, nodes):
        os.makedirs(path)
    for number, (busid, data) in enumerate((machine or MACHINE).items(), 1):
        node = f"bus/usb/003/{number:03}"
        files = {"busnum": "3\n", "devnum": f"{number}\n", "speed": "480\n",
                 "bConfigurationValue": "1\n", "serial": f"S{number}\n",
                 "uevent": f"DEVTYPE=usb_device\nDEVNAME={node}\n"}
        os.mkdir(os.path.join(folder, busid))
        for name, text in files.items():
            with open(os.path.join(folder, busid, name), "w",
                      encoding="ascii") as file:
                file.write(text)
        for path in (os.path.join(folder, busid, "descriptors"),
                     os.path.join(root, "dev", node)):
            with open(path, "wb") as file:
                file.write(data)
        os.symlink("../../../../bus/usb",
                   os.path.join(folder, busid, "subsystem"))
        os.symlink(f"../../../devices/pci0000:00/usb3/{busid}",
                   os.path.join(links, busid))
    env = dict(os.environ, UMOCKDEV_DIR=root, LD_PRELOAD=PRELOAD)
    seen = subprocess.run(["ls", "/sys/bus/usb/devices"], env=env, text=True,
                          capture_output=True, check=False)
    if seen.stdout.split() != sorted(machine or MACHINE):
        raise Skip(f"umockdev does not pretend here: {seen.stderr}")
    # A sanitizer's runtime is not the first library then.
    env["ASAN_OPTIONS"] = "verify_asan_link_order=0"
    return env


def listed(gateway):
    with gateway.client() as client:
        return sorted(client.devlist())


def list_as(gateway, uid):
    """What a user of this machine is shown over the Unix socket."""
    done = subprocess.run(
        [gateway.bench.for_everybody(XUSBIP), "list", "-r", f"unix:{gateway.socket}", "--json"],
        user=uid, group=uid, extra_groups=[], capture_output=True, text=True,
        timeout=LIMIT_S, check=False)
    assert done.returncode == EXIT_OK, done
    return sorted(device["busid"]
                  for device in json.loads(done.stdout)["devices"])


def explain(gateway, *args, status, env=None):
    """What xusbip explain prints, for the gateway's configuration."""
    done = subprocess.run(
        [XUSBIP, "explain", "-c", gateway.config_path, *args], env=env,
        capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == status, done
    return done.stdout or done.stderr


def line_of(gateway, text):
    """FILE:LINE of the first line with this text."""
    with open(gateway.config_path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if text in line:
                return f"{gateway.config_path}:{number}"
    raise AssertionError(text)


# Who.


def test_a_user_gets_what_names_it_and_what_names_nobody(bench):
    if os.geteuid() != 0:
        raise Skip("only root can be two users")
    gateway = bench.gateway(
        'socket_mode = "0666"\n'
        'zero "all" { }\n'
        'zero "roots" { users = { "root" } }\n'
        'zero "nobodys" { users = { "65534" } }\n'
        'zero "users" { users = { "*" } peers = { "anna" } }\n'
        'zero "tls" { peers = { "*" } }\n'
        'zero "xen" { domains = { "*" } }\n')
    assert list_as(gateway, 0) == ["all", "roots", "users"]
    assert list_as(gateway, NOBODY) == ["all", "nobodys", "users"]
    assert listed(gateway) == ["all"]
    for busid, status in (("all", ST_OK), ("roots", ST_NODEV),
                          ("tls", ST_NODEV)):
        with gateway.client() as client:
            try:
                client.import_(busid)
                assert status == ST_OK, busid
            except Refused as why:
                assert why.status == status, busid
    gateway.wait_log(r"roots is refused: .*does not give it to this peer")


def test_new_rules_hold_from_the_next_list_on(bench):
    env = pretend(bench)
    gateway = bench.gateway('export { busid = "3-1" }\n', env=env)
    assert listed(gateway) == ["3-1"]
    gateway.write_config('export { busid = "3-3" }\n')
    gateway.signal(signal.SIGHUP)
    wait_until(lambda: listed(gateway) == ["3-3"], "the new rule holds")
    gateway.write_config('export { busid = "3-4" }\nexport { }\n')
    gateway.signal(signal.SIGHUP)
    gateway.wait_log(r"not reloaded.*conf:\d+: export: an empty rule")
    assert listed(gateway) == ["3-3"]


# What.


def test_each_attribute_chooses_its_devices(bench):
    env = pretend(bench)
    digest = hashlib.sha256(MACHINE["3-6"]).hexdigest()
    rows = {
        'vendor = "0781"': ["3-3", "3-4"],
        'vendor = "0781" product = "5567"': ["3-3"],
        'serial = "S3"': ["3-3"],
        'serial = "s3"': [],
        'busid = "3-6"': ["3-6"],
        f'descriptors = "sha256:{digest}"': ["3-6"],
        f'descriptors = "sha256:{digest}" busid = "3-1"': [],
        'interfaces_any = { "08" }': ["3-3", "3-4"],
        'interfaces_any = { "08:06:51", "0e" }': ["3-6"],
        'interfaces_all = { "08", "03:01:02" }': ["3-4"],
        'interfaces_only = { "08" }': ["3-3"],
        'interfaces_only = { "08", "03" }': ["3-1", "3-2", "3-3", "3-4"],
        'interfaces_none = { "03" }': ["3-3", "3-6"],
        'interfaces_any = { "09" }': [],
    }
    gateway = bench.gateway('zero "z" { }\n', env=env)
    for attributes, expected in rows.items():
        gateway.write_config(f"export {{ {attributes} }}\n")
        reloads = gateway.count("configuration reloaded")
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: gateway.count("configuration reloaded") > reloads,
                   "it is read")
        assert listed(gateway) == expected, attributes


def test_the_first_match_decides_and_what_is_guarded_must_be_named(bench):
    env = pretend(bench)
    gateway = bench.gateway(
        'export { deny = true busid = "3-3" }\n'
        'export { vendor = "0781" }\n'
        'export { busid = "3-2" }\n'
        'export { busid = "3-5" }\n'
        'export { busid = "3-7" interfaces_any = { "09" } }\n', env=env)
    assert listed(gateway) == ["3-4"]
    for busid, reason in (
            ("3-3", r"denied by the rule at line \d+"),
            ("3-2", r"keyboard \(03:01:01\), .* does not name its class 03"),
            ("3-5", r"network adapter \(02:06:00\), .* its class 02"),
            ("3-7", r"a hub is never exported"),
            ("3-1", r"no export rule matches it")):
        with gateway.client() as client:
            try:
                client.import_(busid)
                raise AssertionError(busid)
            except Refused as why:
                assert why.status == ST_NODEV
        gateway.wait_log(rf"{busid} is refused: .*{reason}")


def test_a_device_that_shows_another_face_when_opened_is_not_given(bench):
    env = pretend(bench)
    gateway = bench.gateway('export { interfaces_only = { "08" } }\n',
                            env=env)
    assert listed(gateway) == ["3-3"]
    root = env["UMOCKDEV_DIR"]
    with open(os.path.join(root, "dev/bus/usb/003/003"), "wb") as file:
        file.write(MACHINE["3-2"])
    os.mkdir(os.path.join(root, "ioctl"))
    with socket.socket(socket.AF_UNIX) as ioctls:
        # Where umockdev asks for the answers of a node that is opened.
        ioctls.bind(os.path.join(root, "ioctl/_default"))
        ioctls.listen()
        with gateway.client() as client:
            try:
                client.import_("3-3")
                raise AssertionError("it was given")
            except Refused as why:
                assert why.status == ST_NODEV
    gateway.wait_log("3-3 is refused: it became another device")


# What explain says.


def test_explain_names_the_rule_that_decides(bench):
    env = pretend(bench)
    gateway = bench.prepare(
        '# rules\n'
        'export { deny = true busid = "3-3" peers = { "bert" } }\n'
        'export {\n'
        '\tinterfaces_only = { "08" }\n'
        '\tpeers = { "anna", "bert" }\n'
        '}\n'
        'export { vendor = "046d" users = { "root" } domains = { "u1" } }\n')

    def says(peer, busid, status):
        return explain(gateway, peer, busid, status=status, env=env)

    given = says("tls:anna", "3-3", EXIT_OK)
    assert given.startswith(
        f"allowed: {line_of(gateway, 'export {' + chr(10))}: "), given
    denied = says("tls:bert", "3-3", EXIT_NOT_ALLOWED)
    assert denied.startswith(f"refused: {line_of(gateway, 'deny')}: ")
    assert "export { deny = true" in denied
    says("user:root", "3-1", EXIT_OK)
    says("user:0", "3-1", EXIT_OK)
    says("xen:u1", "3-6", EXIT_OK)
    assert "gives it to this peer" in says("tcp", "3-1", EXIT_NOT_ALLOWED)
    assert "class 03" in says("xen:u1", "3-2", EXIT_NOT_ALLOWED)
    assert "matches" in says("tls:anna", "3-4", EXIT_NOT_ALLOWED)
    assert "hub" in says("tls:anna", "3-7", EXIT_NOT_ALLOWED)


def test_explain_says_what_each_rule_says(bench):
    env = pretend(bench)
    gateway = bench.prepare(
        'export { vendor = "0781" busid = "3-1" }\n'
        'export { busid = "3-1" peers = { "anna" } }\n'
        'export { busid = "3-1" }\n'
        'export { vendor = "046d" }\n')
    text = explain(gateway, "--verbose", "tcp", "3-1", status=EXIT_OK,
                   env=env)
    assert re.search(r":\d+: vendor differs\n"
                     r".*:\d+: it is not for this peer\n"
                     r".*:\d+: this rule gives it\n$", text), text
    found = json.loads(explain(gateway, "--json", "--verbose", "tcp", "3-1",
                               status=EXIT_OK, env=env))
    assert (found["answer"], len(found["rules"])) == ("allowed", 3)
    assert line_of(gateway, '{ busid = "3-1" }') == (
        f"{found['file']}:{found['line']}")


def test_explain_knows_virtual_devices_and_those_of_remotes(bench):
    gateway = bench.prepare(
        'zero "z" { peers = { "anna" } }\n'
        'remote "lab" { address = "tcp:192.0.2.1" }\n'
        'export { remote = "lab" busid = "1-1" deny = true }\n'
        'export { remote = "lab" vendor = "0403" users = { "*" } }\n'
        'export { remote = "lab" peers = { "*" } }\n')
    assert line_of(gateway, 'zero "z"') in explain(
        gateway, "tls:anna", "z", status=EXIT_OK)
    explain(gateway, "tls:bert", "z", status=EXIT_NOT_ALLOWED)
    explain(gateway, "tls:bert", "1-1@lab", status=EXIT_NOT_ALLOWED)
    assert "keyboard" in explain(gateway, "tls:bert", "1-2@lab",
                                 status=EXIT_OK)
    assert "what lab tells" in explain(gateway, "user:root", "1-2@lab",
                                       status=EXIT_FAILED)
    explain(gateway, "tcp", "1-2@lab", status=EXIT_NOT_ALLOWED)
    for device in ("1-2@far", "none", "99-9"):
        assert "no such device" in explain(gateway, "tcp", device,
                                           status=EXIT_NO_DEVICE)
    for peer in ("anna", "tls:", "user:no such user", "tls:sha256:12"):
        assert "nobody whom rules know" in explain(gateway, peer, "z",
                                                   status=EXIT_USAGE)
    explain(gateway, "tcp", status=EXIT_USAGE)


# What is wrong is said in one line.


def refused(bench, text, status, *words):
    """Checked or started, it ends with this status and says so once."""
    path = bench.file("wrong.conf", text.encode())
    for args in (("--check-config",), ()):
        done = bench.run("-c", path, *args)
        assert done.returncode == status, (text, done)
        line, = done.stderr.splitlines()
        for word in words:
            assert word in line, (word, line)


def test_a_wrong_rule_is_refused_with_its_line(bench):
    rows = (
        ('export { }', 3, "empty rule"),
        ('export { deny = true }', 3, "empty rule"),
        ('export { peers = { "anna" } }', 3, "empty rule"),
        ('export { vendr = "0403" }', 3, "vendr"),
        ('export {\nvendor = "0403"\nusers = { "no such user" } }', 5,
         "no such user"),
        ('export { interfaces_any = { "keyboard" } }', 3, "keyboard"),
        ('export { descriptors = "1234" }', 3, "sha256"),
        ('export { remote = "lab" }', 3, "lab"),
    )
    for text, line, word in rows:
        refused(bench, f"# one\n# two\n{text}\n", EXIT_CONFIG,
                f"wrong.conf:{line}: ", word)


def test_a_file_that_exports_nothing_is_warned_of(bench):
    for text in ("", 'export { deny = true busid = "1-1" }\n'):
        path = bench.file("nothing.conf", text.encode())
        done = bench.run("-c", path, "--check-config")
        assert done.returncode == EXIT_OK, done
        assert f"{path}: exports nothing" in done.stderr
    path = bench.file("some.conf", b'zero "z" { }\n')
    assert not bench.run("-c", path, "--check-config").stderr


def tls_files(ca, bench, name):
    """A folder with a copy of the gateway's files."""
    path = os.path.join(bench.dir, name)
    os.mkdir(path)
    for file in ("ca.pem", "crl.pem", "gateway.pem", "gateway.key"):
        with open(ca.path("gateway", "lab.example", file), "rb") as source:
            bench.file(os.path.join(name, file), source.read())
        os.chmod(os.path.join(path, file), 0o600)
    return path


def test_certificates_and_keys_are_tried_before_anybody_connects(bench):
    ca = Ca(bench)
    ca.do("issue", "gateway", "lab.example")
    ca.do("issue", "gateway", "other.example")

    def config(path):
        return (f'listen = {{ "tls:127.0.0.1:{bench.free_port()}" }}\n'
                f'tls_dir = "{path}"\nzero "z" {{ }}\n')

    good = tls_files(ca, bench, "good")
    path = bench.file("good.conf", config(good).encode())
    assert bench.run("-c", path, "--check-config").returncode == EXIT_OK

    refused(bench, config("/no/such/dir"), EXIT_CONFIG, "/no/such/dir/",
            "no such file")
    folder = tls_files(ca, bench, "missing")
    os.unlink(os.path.join(folder, "ca.pem"))
    refused(bench, config(folder), EXIT_CONFIG, "ca.pem", "no such file")
    folder = tls_files(ca, bench, "readable")
    os.chmod(os.path.join(folder, "gateway.key"), 0o644)
    refused(bench, config(folder), EXIT_CONFIG, "readable/gateway.key")
    folder = tls_files(ca, bench, "mismatch")
    with open(ca.path("gateway", "other.example", "gateway.key"),
              "rb") as key:
        bench.file("mismatch/gateway.key", key.read())
    refused(bench, config(folder), EXIT_CONFIG, "mismatch/gateway.")
    folder = tls_files(ca, bench, "garbage")
    bench.file("garbage/gateway.pem", b"garbage\n")
    refused(bench, config(folder), EXIT_CONFIG, "garbage/gateway.pem")

    refused(bench, 'zero "z" { }\nremote "lab" { address = "tls:127.0.0.1" '
            'tls_dir = "/no/such/dir" }\n', EXIT_CONFIG, 'remote "lab"',
            "/no/such/dir/")


run(globals())
