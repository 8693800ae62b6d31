#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""xusbip-ca, judged by the real openssl."""

import base64
import hashlib
import json
import os
import re
import resource
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

from ca import (ALREADY_THERE, FAILED, NO_SUCH_NAME, NOT_ALLOWED, PROGRAM,
                USAGE, Ca, openssl, start_and_stop, tool_before)
from harness import LIMIT_S, run

NOBODY = 65534


def test_init_makes_a_ca_that_only_its_owner_can_read(bench):
    ca = Ca(bench, is_made=False)

    said = ca.do("init", "--name", "Lab (a) CA")

    assert f"Whoever has {ca.dir}/ca.key can let anybody in" in said
    assert stat.S_IMODE(os.stat(ca.dir).st_mode) == 0o700
    assert {name: mode for name, (mode, _) in ca.tree().items()} == dict.fromkeys(
        ("ca.key", "ca.pem", "crl.pem", "crlnumber", "index.txt"), 0o600)
    text = openssl("x509", "-noout", "-text", "-in", ca.path("ca.pem"))
    for part in ("Subject: CN = Lab (a) CA", "NIST CURVE: P-256",
                 "ecdsa-with-SHA256", "Basic Constraints: critical\n"
                 "                CA:TRUE, pathlen:0\n",
                 "Key Usage: critical\n"
                 "                Certificate Sign, CRL Sign\n",
                 "Subject Key Identifier"):
        assert part in text, part
    assert openssl("verify", "-CAfile", ca.path("ca.pem"),
                   ca.path("ca.pem")).endswith(": OK\n")


def test_an_empty_folder_becomes_a_ca_and_is_closed_to_others(bench):
    ca = Ca(bench, is_made=False)
    os.mkdir(ca.dir, 0o755)

    ca.do("init")

    assert stat.S_IMODE(os.stat(ca.dir).st_mode) == 0o700


def test_init_leaves_what_is_there_alone(bench):
    ca = Ca(bench)
    other = Ca(bench, "other", is_made=False)
    os.mkdir(other.dir, 0o755)
    with open(other.path("letter"), "w", encoding="ascii") as file:
        file.write("dear")
    for each in (ca, other):
        before = each.tree()

        each.refuse(ALREADY_THERE, "init")

        assert each.tree() == before
    assert stat.S_IMODE(os.stat(other.dir).st_mode) == 0o755


def test_a_gateway_gets_a_folder_with_all_that_it_needs(bench):
    ca = Ca(bench)

    said = ca.do("issue", "gateway", "lab.example", "192.0.2.1",
                 "2001:db8::1", "usb.lab.example")

    folder = ca.path("gateway", "lab.example")
    assert f"tar -C {folder} -c . | ssh root@lab.example" in said
    assert "xusbip-gateway" in said
    assert ca.verify("gateway", "lab.example", "sslserver").endswith("OK\n")
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    modes = {name: stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
             for name in os.listdir(folder)}
    assert modes == dict.fromkeys(
        ("ca.pem", "crl.pem", "gateway.pem", "gateway.key"), 0o600)
    text = ca.text("gateway", "lab.example")
    for part in ("Subject: CN = lab.example\n", "ecdsa-with-SHA256",
                 "Basic Constraints: critical\n                CA:FALSE\n",
                 "Key Usage: critical\n                Digital Signature\n",
                 "Extended Key Usage: \n"
                 "                TLS Web Server Authentication\n",
                 "Alternative Name: \n                DNS:lab.example, "
                 "IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1, "
                 "DNS:usb.lab.example\n",
                 "Subject Key Identifier", "Authority Key Identifier"):
        assert part in text, part
    key = f"{folder}/gateway.key"
    with open(key, encoding="ascii") as file:
        assert file.readline() == "-----BEGIN PRIVATE KEY-----\n"
    assert openssl("pkey", "-in", key, "-pubout") == openssl(
        "x509", "-in", f"{folder}/gateway.pem", "-noout", "-pubkey")


def test_a_client_gets_a_certificate_that_is_no_gateways(bench):
    ca = Ca(bench)

    said = ca.do("issue", "client", "anna")
    ca.do("issue", "gateway", "lab")

    assert f"tar -C {ca.path('client', 'anna')} -c ." in said
    assert sorted(os.listdir(ca.path("client", "anna"))) == [
        "ca.pem", "client.key", "client.pem", "crl.pem"]
    assert ca.verify("client", "anna", "sslclient").endswith("OK\n")
    for role, name, purpose in (("client", "anna", "sslserver"),
                                ("gateway", "lab", "sslclient")):
        assert "unsuitable certificate purpose" in ca.verify(
            role, name, purpose, status=2)
    assert "DNS:anna\n" in ca.text("client", "anna")


def test_the_line_that_is_printed_brings_a_host_its_folder(bench):
    ca = Ca(bench, "c a")
    said = ca.do("issue", "gateway", "lab") + ca.do("issue", "client", "anna")
    tls = os.path.join(bench.dir, "etc", "tls")
    env = tool_before(bench, "ssh", 'shift; exec sh -c "umask 022; $*"')

    for line in re.findall("^Copy it: (.*)$", said, re.M):
        subprocess.run(line.replace("/etc/xusbip/tls", tls), shell=True,
                       env=env, check=True, timeout=LIMIT_S)

    assert sorted(os.listdir(tls)) == [
        "ca.pem", "client.key", "client.pem", "crl.pem", "gateway.key",
        "gateway.pem"]
    for path in (tls, *(os.path.join(tls, name) for name in os.listdir(tls))):
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0, path


def test_a_gateway_named_by_an_address_is_reached_by_it(bench):
    ca = Ca(bench)

    ca.do("issue", "gateway", "192.0.2.1")

    assert "Name: \n                IP Address:192.0.2.1\n" in ca.text(
        "gateway", "192.0.2.1")


def test_no_key_is_ever_printed(bench):
    ca = Ca(bench, is_made=False)
    said = [ca.do("init"), ca.do("issue", "client", "anna"), ca.do("list"),
            ca.do("show", "anna"), ca.do("show", "anna", "--json"),
            ca.do("renew", "anna"), ca.do("revoke", "anna")]

    assert not any("PRIVATE" in text or "BEGIN" in text for text in said)


def test_a_name_is_issued_once_over_gateways_and_clients(bench):
    ca = Ca(bench)
    ca.do("issue", "client", "anna")
    before = ca.tree()

    for role in ("client", "gateway"):
        assert "renew anna" in ca.refuse(ALREADY_THERE, "issue", role, "anna")

    assert ca.tree() == before


def test_names_and_addresses_that_are_none_are_refused(bench):
    ca = Ca(bench)
    before = ca.tree()

    for name in ("", ".", "..", "-a", "_a", "a/b", "../a", "a b", "a,DNS:b",
                 "a\nb", "a" * 64, "ä", "a$b", "a=b", "*.example"):
        ca.refuse(USAGE, "issue", "client", "--", name)
    assert "lower case" in ca.refuse(USAGE, "issue", "client", "Anna")
    for address in ("", "256.0.0.1", "1.2.3", "01.2.3.4", "1.2.3.4.5", "::g",
                    "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
                    "1:2:3:4:5:6:7::8:9", ":1", "fe80::1%eth0", "a..b", ".a",
                    "a.", "*.lab", "Lab", "lab,IP:::1", "a" * 64,
                    ".".join(["a" * 49] * 6)):
        ca.refuse(USAGE, "issue", "gateway", "lab", address)
    assert ca.tree() == before

    ca.do("issue", "client", "a" * 63)
    ca.do("issue", "gateway", "0.a_b-c", "::", "::1", "1::", "1:2:3:4:5:6:7:8",
          "FE80::A", "255.255.255.255", "host_1", ".".join(["a" * 49] * 5))


def test_the_command_line_is_checked_before_anything_is_done(bench):
    ca = Ca(bench)
    before = ca.tree()

    for args in ((), ("frob",), ("init", "here"), ("issue",),
                 ("issue", "client"), ("issue", "server", "lab"),
                 ("issue", "client", "anna", "192.0.2.1"), ("list", "anna"),
                 ("show",), ("show", "anna", "otto"), ("renew",), ("revoke",),
                 ("list", "--days", "1"), ("issue", "client", "a", "--json"),
                 ("list", "--frob"), ("list", "--days"), ("list", "--new-key"),
                 ("issue", "client", "a", "--name", "b"),
                 ("show", "../client/anna"), ("renew", "Anna"),
                 ("list", "-d", "")):
        ca.refuse(USAGE, *args)
    for days in ("0", "-1", "7301", "1e3", "99999", "", "010"):
        ca.refuse(USAGE, "issue", "client", "anna", f"--days={days}")
    for name in ("", " a", "a/b", "a\nb", "a" * 65, '"', "$a"):
        Ca(bench, "new", is_made=False).refuse(USAGE, "init", f"--name={name}")

    assert ca.tree() == before
    assert not os.path.exists(os.path.join(bench.dir, "new"))


def test_help_and_version_need_no_ca(bench):
    ca = Ca(bench, is_made=False)

    assert ca.do("--help").startswith("usage: xusbip-ca ")
    assert ca.do("-h") == ca.do("--help")
    assert re.fullmatch(r"xusbip-ca \d+\.\d+\n", ca.do("--version"))


def test_a_folder_without_a_ca_is_no_ca(bench):
    missing, empty = (Ca(bench, name, is_made=False)
                      for name in ("missing", "empty"))
    os.mkdir(empty.dir)
    a_file = Ca(bench, "file", is_made=False)
    bench.file("file")

    for ca in (missing, empty):
        for args in (("issue", "client", "anna"), ("list",), ("show", "anna"),
                     ("renew", "anna"), ("revoke", "anna")):
            assert "there is no CA; make one with: " in ca.refuse(FAILED, *args)
    assert "Not a directory" in a_file.refuse(FAILED, "list")
    assert not os.path.exists(missing.dir) and not os.listdir(empty.dir)


def test_who_may_not_read_and_write_the_folder_is_told_so(bench):
    ca = Ca(bench)
    ca.program = bench.for_everybody(ca.program)
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    before = ca.tree()

    for args in (("list",), ("issue", "client", "anna"), ("init",)):
        assert "not permitted" in ca.refuse(NOT_ALLOWED, *args, **user)
    os.chmod(ca.dir, 0o755)
    assert "not permitted" in ca.refuse(NOT_ALLOWED, "list", **user)
    ca.dir = os.path.join(bench.dir, "new")
    assert "Permission denied" in ca.refuse(NOT_ALLOWED, "init", **user)
    ca.dir = os.path.join(bench.dir, "ca")

    assert ca.tree() == before


def test_serial_numbers_are_random_and_fit_into_127_bits(bench):
    ca = Ca(bench)
    for name in ("anna", "otto", "emil"):
        ca.do("issue", "client", name)

    serials = [int(entry["serial"], 16) for entry in ca.certificates()]

    assert len(set(serials)) == 3
    assert all(2 ** 126 <= serial < 2 ** 127 for serial in serials)
    assert max(serials) - min(serials) > 2 ** 64


def test_a_certificate_is_valid_for_a_year_or_as_long_as_asked(bench):
    ca = Ca(bench)
    ca.do("issue", "client", "anna")
    ca.do("issue", "client", "otto", "--days", "31")

    for name, days in (("anna", 365), ("otto", 31)):
        path = ca.path("client", name, "client.pem")
        openssl("x509", "-in", path, "-noout", "-checkend",
                str(days * 86400 - 600))
        openssl("x509", "-in", path, "-noout", "-checkend",
                str(days * 86400 + 600), status=1)
    assert "fewer --days" in ca.refuse(
        FAILED, "issue", "client", "emil", "--days", "3650")
    assert sorted(ca.states()) == ["anna", "otto"]


def test_a_host_with_a_slow_clock_accepts_what_is_made_now(bench):
    ca = Ca(bench)
    ca.do("issue", "client", "anna")
    folder = ca.path("client", "anna")
    with open(os.path.join(folder, "crl.pem"), "rb") as file:
        made = os.fstat(file.fileno()).st_mtime

    assert openssl("verify", "-CAfile", f"{folder}/ca.pem", "-CRLfile",
                   f"{folder}/crl.pem", "-crl_check", "-attime",
                   str(int(made) - 1800),
                   f"{folder}/client.pem").endswith("OK\n")


def test_revoking_a_name_revokes_all_of_its_certificates_everywhere(bench):
    ca = Ca(bench)
    ca.do("issue", "gateway", "lab.example")
    ca.do("issue", "client", "anna")
    ca.do("issue", "client", "otto")
    ca.do("renew", "anna")
    serials = [entry["serial"] for entry in ca.certificates()
               if entry["name"] == "anna"]

    said = ca.do("revoke", "anna")

    assert f"for host in lab.example; do scp {ca.dir}/crl.pem root@$host:" in said
    assert "systemctl reload xusbip-gateway" in said
    for path in ((), ("gateway", "lab.example"), ("client", "anna"),
                 ("client", "otto")):
        text = openssl("crl", "-noout", "-text", "-in",
                       ca.path(*path, "crl.pem"))
        assert sorted(re.findall(r"Serial Number: (\S+)", text)) == sorted(serials)
    assert "certificate revoked" in ca.verify("client", "anna", "sslclient",
                                              status=2)
    assert ca.verify("client", "otto", "sslclient").endswith("OK\n")
    assert ca.states() == {"anna": ["revoked", "revoked"], "otto": ["valid"],
                           "lab.example": ["valid"]}
    assert "already" in ca.refuse(ALREADY_THERE, "revoke", "anna")
    ca.refuse(NO_SUCH_NAME, "revoke", "emil")


def test_revoking_a_serial_number_revokes_that_certificate_alone(bench):
    ca = Ca(bench)
    ca.do("issue", "gateway", "lab.example")
    old = ca.certificates()[0]["serial"]
    ca.do("renew", "lab.example")

    said = ca.do("revoke", old.lower())

    assert "gateway's clients" in said
    assert ca.states() == {"lab.example": ["valid", "revoked"]}
    assert ca.verify("gateway", "lab.example", "sslserver").endswith("OK\n")
    ca.refuse(ALREADY_THERE, "revoke", old)


def test_renewing_keeps_the_key_and_leaves_the_old_certificate_valid(bench):
    ca = Ca(bench)
    names = ("192.0.2.1", "2001:db8::1", "other.example")
    ca.do("issue", "gateway", "lab.example", *names)
    old = ca.tree()
    pin = ca.pin("lab.example")
    serial = ca.certificates()[0]["serial"]

    said = ca.do("renew", "lab.example")

    assert f"revoke {serial}" in said and "ssh root@lab.example" in said
    assert "a new certificate for the same key is in " in said
    key, pem = (f"gateway/lab.example/gateway.{end}" for end in ("key", "pem"))
    new = ca.tree()
    assert new[key] == old[key] and new[key][0] == new[pem][0] == 0o600
    assert new[pem] != old[pem]
    assert ca.pin("lab.example") == pin
    assert ca.verify("gateway", "lab.example", "sslserver").endswith("OK\n")
    assert openssl("verify", "-CAfile", ca.path("ca.pem"), "-CRLfile",
                   ca.path("crl.pem"), "-crl_check",
                   ca.path("issued", "gateway", f"{serial}.pem")
                   ).endswith("OK\n")
    assert ("DNS:lab.example, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:"
            "0:0:1, DNS:other.example\n" in ca.text("gateway", "lab.example"))
    assert [(entry["state"], entry["replaced"]) for entry in ca.certificates()
            ] == [("valid", False), ("valid", True)]
    ca.refuse(NO_SUCH_NAME, "renew", "emil")


def test_a_new_key_is_made_where_that_is_wanted(bench):
    ca = Ca(bench)
    ca.do("issue", "client", "anna")
    pin = ca.pin("anna")
    os.remove(ca.path("client", "anna", "client.key"))

    assert "--new-key" in ca.refuse(FAILED, "renew", "anna")
    said = ca.do("renew", "anna", "--new-key")

    assert re.search(r"a new key .*\n.*pin .*: .* show anna\n", said), said
    assert ca.pin("anna") != pin


def test_who_was_revoked_comes_back_by_renewing_with_a_new_key(bench):
    ca = Ca(bench)
    ca.do("issue", "client", "anna")
    pin = ca.pin("anna")
    ca.do("revoke", "anna")

    assert "revoke" not in ca.do("renew", "anna")

    assert ca.pin("anna") != pin
    assert ca.verify("client", "anna", "sslclient").endswith("OK\n")
    assert ca.states() == {"anna": ["valid", "revoked"]}


def test_list_warns_of_what_expires_within_30_days(bench):
    ca = Ca(bench, is_made=False)
    ca.do("init", "--days", "20")
    ca.do("issue", "client", "anna", "--days", "1")

    result = ca.run("list")

    assert result.returncode == 0
    assert re.search(r"^anna +client +[0-9A-F]{32}  \d{4}-\d\d-\d\d  "
                     r"expires soon$", result.stdout, re.M), result.stdout
    assert "within 30 days: anna; for each: " in result.stderr
    assert "the CA ends on" in result.stderr
    assert ca.states() == {"anna": ["expires soon"]}


def test_list_warns_of_a_revocation_list_that_runs_out(bench):
    ca = Ca(bench)
    env = tool_before(bench, "openssl", '[ "$2" != -gencrl ] || '
                      'set -- "$@" -crldays 29')
    ca.do("issue", "client", "anna", env=env)

    assert "the revocation list ends on" in ca.run("list").stderr

    ca.do("renew", "anna")
    assert ca.run("list").stderr == ""


def test_an_expired_certificate_is_listed_as_such(bench):
    ca = Ca(bench)
    env = tool_before(bench, "openssl", 'case "$*" in *" -days "*) set -- "$@" '
                      "-enddate 20260102000000Z -startdate 20260101000000Z;; "
                      "esac")
    ca.do("issue", "client", "anna", env=env)

    assert ca.states() == {"anna": ["expired"]}
    assert "expired" in ca.do("list")
    assert "valid until" not in ca.do("renew", "anna")
    assert ca.states() == {"anna": ["valid", "expired"]}


def test_show_says_what_rules_and_pins_need(bench):
    ca = Ca(bench)
    ca.do("issue", "gateway", "lab.example", "192.0.2.1")
    certificate = ca.path("gateway", "lab.example", "gateway.pem")
    key = openssl("x509", "-in", certificate, "-noout", "-pubkey")
    lines = key.splitlines()[1:-1]
    digest = hashlib.sha256(base64.b64decode("".join(lines))).hexdigest()

    shown = json.loads(ca.do("show", "--json", "lab.example"))

    assert shown["name"] == "lab.example" and shown["role"] == "gateway"
    assert shown["state"] == "valid"
    assert shown["names"] == ["DNS:lab.example", "IP:192.0.2.1"]
    assert shown["pin"] == f"sha256:{digest}"
    assert shown["serial"] == ca.certificates()[0]["serial"]
    assert shown["not_after"] == ca.certificates()[0]["not_after"]
    text = ca.do("show", "lab.example")
    for value in (shown["pin"], shown["serial"], shown["not_before"],
                  ca.path("gateway", "lab.example")):
        assert value in text, value
    ca.refuse(NO_SUCH_NAME, "show", "anna")


def test_json_is_json_however_little_there_is_to_say(bench):
    ca = Ca(bench)

    listed = json.loads(ca.do("list", "--json"))

    assert listed["certificates"] == []
    for end in (listed["ca"]["not_after"], listed["crl"]["next_update"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", end)


def test_a_folder_may_have_any_name(bench):
    ca = Ca(bench, "a $b #c 'd\\")
    relative = [PROGRAM, "-d", "-"]

    assert "a\\ \\$b" in ca.do("issue", "client", "anna")

    for command in (["init"], ["issue", "client", "anna"], ["list"]):
        subprocess.run(relative + command, cwd=ca.dir, timeout=LIMIT_S,
                       check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "CDPATH": "/", "OLDPWD": "/"})
    assert os.path.exists(ca.path("-", "client", "anna", "client.key"))


def test_commands_at_the_same_time_wait_for_each_other(bench):
    ca = Ca(bench)
    names = [f"client{i}" for i in range(5)]

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: ca.do("issue", "client", name), names))
        twice = list(pool.map(lambda _: ca.run(
            "issue", "gateway", "lab").returncode, range(2)))

    assert sorted(twice) == [0, ALREADY_THERE]
    assert ca.states() == {name: ["valid"] for name in names + ["lab"]}
    for name in names:
        assert ca.verify("client", name, "sslclient").endswith("OK\n")


def test_what_cannot_be_signed_leaves_nothing_behind(bench):
    ca = Ca(bench)
    ca.do("issue", "client", "anna")
    other = Ca(bench, "other")
    os.replace(other.path("ca.key"), ca.path("ca.key"))
    before = ca.tree()

    for args in (("issue", "client", "otto"), ("renew", "anna"),
                 ("revoke", "anna")):
        assert "key values mismatch" in ca.refuse(FAILED, *args)

    assert ca.tree() == before


def test_a_full_disk_leaves_nothing_behind(bench):
    ca = Ca(bench)
    ca.do("issue", "client", "anna")
    before = ca.tree()

    for args in (("issue", "client", "otto"), ("revoke", "anna")):
        assert "File too large" in ca.refuse(
            FAILED, *args, restore_signals=False, preexec_fn=lambda:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000)))

    assert ca.tree() == before


def test_what_openssl_has_not_written_to_its_end_is_not_kept(bench):
    ca = Ca(bench)
    ca.do("issue", "client", "anna")
    before = ca.tree()

    for option in ("-keyout", "-out"):
        env = tool_before(bench, "openssl", 'PATH=${PATH#*:} openssl "$@" || '
                          f'exit; for a; do [ "$b" != {option} ] || '
                          'truncate -s 100 "$a"; b=$a; done; exit 0')
        for args in (("issue", "client", "otto"),
                     ("renew", "anna", "--new-key")):
            ca.refuse(FAILED, *args, env=env)
    ca.refuse(FAILED, "revoke", "anna", env=env)

    assert ca.tree() == before


def test_an_interrupted_command_leaves_nothing_behind(bench):
    ca = Ca(bench)
    before = ca.tree()
    new = Ca(bench, "new", is_made=False)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert start_and_stop(ca, ("issue", "client", "anna"), number) in (
            128 + number, -number)
        assert ca.tree() == before, number
    start_and_stop(new, ("init",), signal.SIGTERM)

    assert not os.path.exists(new.dir)


def test_what_a_killed_command_left_is_removed_by_the_next_one(bench):
    ca = Ca(bench)
    before = ca.tree()
    start_and_stop(ca, ("issue", "client", "anna"), signal.SIGKILL)
    new = Ca(bench, "new", is_made=False)
    start_and_stop(new, ("init",), signal.SIGKILL)

    assert ca.states() == {}
    assert ca.tree() == before
    new.do("init")


def test_a_command_killed_while_files_are_moved_is_done_by_the_next(bench):
    ca = Ca(bench)
    # 1 keeps the certificate, 2 the index, 3 is when it counts, then 8 files.
    for number in range(1, 12):
        name = f"client{number}"
        count = bench.file("count")
        env = tool_before(bench, "mv", f'echo >>{count}; [ "$(wc -l <{count})" '
                          f'-ne {number} ] || kill -9 0')

        killed = ca.run("issue", "client", name, env=env,
                        start_new_session=True)
        assert killed.returncode == -signal.SIGKILL
        os.unlink(os.path.join(bench.dir, "tools", "mv"))

        is_there = ca.states().get(name) == ["valid"]
        assert is_there == (number > 3), number
        assert os.path.exists(ca.path("client", name)) == is_there
        if is_there:
            assert ca.verify("client", name, "sslclient").endswith("OK\n")
        assert not [path for path in os.listdir(ca.dir) if path[0] == "."]


if __name__ == "__main__":
    run(globals())
