#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a gateway says of certificates and lists that end soon."""

import os
import re
import shutil
import signal

from ca import openssl
from harness import run
from tls_files import NAME, Lab

EXIT_OK = 0
ENDS = r"warning: \S+/{}\.pem: ends on [-0-9]+ [0-9:]+ UTC, and then nobody .*\n"

CONFIG = """\
[ca]
default_ca = ca
[ca]
database = {dir}/index.txt
default_md = sha256
"""


def check(bench, lab):
    """What --check-config complains of."""
    done = bench.run("-c", lab.gateway.config_path, "--check-config")
    assert done.returncode == EXIT_OK and done.stdout.endswith(": ok\n"), done
    return done.stderr


def shorten_list(lab, folder, days):
    """A revocation list of the lab's CA that ends so soon."""
    config = lab.bench.file("crl.conf", CONFIG.format(dir=lab.ca.dir).encode())
    openssl("ca", "-gencrl", "-config", config, "-keyfile",
            lab.ca.path("ca.key"), "-cert", lab.ca.path("ca.pem"),
            "-crldays", str(days), "-out", os.path.join(folder, "crl.pem"))


def test_a_certificate_that_ends_within_a_week_is_told(bench):
    lab = Lab(bench, "")
    assert "ends on" not in check(bench, lab)
    lab.gateway.signal(signal.SIGHUP)
    lab.gateway.wait_log("configuration reloaded")
    assert "ends on" not in lab.gateway.log()

    lab.ca.do("renew", NAME, "--days", "6")
    lab.gateway.signal(signal.SIGHUP)
    lab.gateway.wait_log(ENDS.format("gateway"))
    assert re.search(ENDS.format("gateway"), check(bench, lab))
    lab.gateway.stop()
    lab.gateway.start()
    assert lab.gateway.count("ends on") == 2


def test_a_list_that_ends_within_a_week_is_told(bench):
    lab = Lab(bench, "")
    shorten_list(lab, lab.tls_dir, 6)
    lab.gateway.signal(signal.SIGHUP)
    lab.gateway.wait_log(ENDS.format("crl"))
    assert re.search(ENDS.format("crl"), check(bench, lab))


def test_a_folder_that_many_need_is_told_of_once(bench):
    lab = Lab(bench, "")
    client = lab.forge("desk", end_s=6 * 86400)
    for name in ("client.pem", "client.key"):
        shutil.copy(os.path.join(client, name), lab.tls_dir)
    other = shutil.copytree(lab.tls_dir, os.path.join(bench.dir, "other"))
    shorten_list(lab, lab.tls_dir, 6)
    remote = 'remote "{}" {{ address = "tls:127.0.0.1" {} }}\n'
    lab.write_config(
        remote.format("one", "") + remote.format("two", "") +
        remote.format("three", f'tls_dir = "{other}"'))

    told = check(bench, lab)
    assert told.count("ends on") == 3, told
    assert told.count(f"{lab.tls_dir}/client.pem: ends on") == 1, told
    assert told.count(f"{lab.tls_dir}/crl.pem: ends on") == 1, told
    assert told.count(f"{other}/client.pem: ends on") == 1, told


run(globals())
