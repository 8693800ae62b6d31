#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A gateway's TLS port: who is served there, who is refused and with which
words, and what takes back what was given. The peers are Python's ssl module,
the openssl command, stunnel, and sockets that speak something else."""

import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

from ca import Ca, openssl
from harness import BUILD, LIMIT_S, run, wait_until
from tls_files import ALPN, DAY_S, NAME, Lab, TlsClient
from usbip_client import (Closed, Refused, UsbipClient, REP_DEVLIST,
                          REQ_DEVLIST, ST_NA, ST_NODEV, VERSION)

EXIT_NOT_ALLOWED, EXIT_NOT_TRUSTED = 4, 12
XUSBIP = os.path.join(BUILD, "xusbip")
IS_SANITIZED = "san" in os.path.basename(BUILD)

ANNA = 'zero "zero0" { peers = { "anna" } }\n'
DEVLIST_REQUEST = struct.pack(">HHI", VERSION, REQ_DEVLIST, 0)
NO_DEVICES = struct.pack(">HHII", VERSION, REP_DEVLIST, 0, 0)

# In Python's exceptions: "[SSL: ...] tlsv13 alert certificate required (...)".
ALERT = re.compile(r" alert ([a-z ]+[a-z])")


def alert_of(connect):
    """The alert with which a handshake, or the first read, was refused."""
    try:
        with connect() as sock:
            sock.sendall(DEVLIST_REQUEST)
            got = sock.recv(1)
            raise AssertionError(f"it was served: {got}")
    except ssl.SSLError as error:
        return ALERT.search(str(error))[1]


def refused_with(lab, folder, **options):
    return alert_of(lambda: lab.wrap(lab.context(folder, **options)))


def xusbip(folder, *args):
    return subprocess.run([XUSBIP, "--tls-dir", folder, *args], text=True,
                          capture_output=True, timeout=2 * LIMIT_S,
                          check=False,
                          stdin=subprocess.DEVNULL)


def fds_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1])


# Who is served.


def test_a_device_is_listed_and_used_by_whom_a_rule_names(bench):
    lab = Lab(bench, ANNA + 'zero "zero1" { peers = { "berta" } }\n')
    with lab.client() as client:
        assert list(client.devlist()) == ["zero0"]
    with lab.client() as client:
        assert client.sock.version() == "TLSv1.3"
        assert client.sock.selected_alpn_protocol() == ALPN
        client.import_("zero0")
        reply = client.get_descriptor(1, length=18)
        assert reply.actual_length == 18 and reply.data[1] == 1
    lab.gateway.wait_log(
        r"anna \(127\.0\.0\.1:\d+\): zero0 attached, tls channel")
    lab.gateway.wait_log(
        r"session \d+ \(anna \(127\.0\.0\.1:\d+\), zero0\): ended")


def test_a_peer_is_known_by_the_pin_of_its_key_too(bench):
    lab = Lab(bench, "")
    pin = re.search(r"sha256:[0-9a-f]{64}",
                    lab.ca.do("show", "anna") if lab.issue("anna") else "")[0]
    lab.write_config(f'zero "zero0" {{ peers = {{ "{pin}" }} }}\n')
    lab.gateway.signal(signal.SIGHUP)
    lab.gateway.wait_log("configuration reloaded")
    with lab.client() as client:
        assert list(client.devlist()) == ["zero0"]
    with lab.client("berta") as client:
        assert client.devlist() == {}


def test_a_refusal_has_its_reason_where_both_ends_are_ours(bench):
    lab = Lab(bench, ANNA)
    for name, busid in (("anna", "nothing"), ("berta", "zero0")):
        with lab.client(name) as client:
            try:
                client.import_(busid)
                raise AssertionError("it was given")
            except Refused as refused:
                assert refused.status == ST_NODEV
                assert refused.reason == "there is no such device"
    with lab.client("berta", alpn=None) as client:
        try:
            client.import_("zero0")
            raise AssertionError("it was given")
        except Refused as refused:
            assert refused.status == ST_NODEV
        assert client.is_at_end()
    lab.gateway.wait_log(r"berta \(127.*\): zero0 is refused: ")


def test_each_certificate_has_so_many_sessions(bench):
    lab = Lab(bench, "max_sessions_per_peer = 2\n" + ANNA)
    held = [lab.client() for _ in range(2)]
    wait_until(lambda: lab.gateway.count("): certificate ") == 2,
               "both are known")
    with lab.client() as third:
        try:
            third.devlist()
            raise AssertionError("it was served")
        except Refused as refused:
            assert refused.status == ST_NA
            assert "too many connections" in refused.reason
    result = xusbip(lab.issue("anna"), "list", "-r", lab.address)
    assert "too many connections" in result.stderr, result
    with lab.client("berta") as other:
        assert other.devlist() == {}
    lab.gateway.wait_log("max_sessions_per_peer is reached")
    for client in held:
        client.close()


def test_one_byte_in_a_record_is_a_handshake_too(bench):
    """The first flight, in records of one byte each."""
    lab = Lab(bench, ANNA)
    to_us, from_us = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = lab.context(lab.issue("anna")).wrap_bio(
        to_us, from_us, server_hostname="127.0.0.1")
    with lab.connect() as sock:
        is_first = True
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flight = from_us.read()
                if is_first:
                    head, body = flight[:3] + b"\0\1", flight[5:]
                    flight = b"".join(head + bytes([b]) for b in body)
                is_first = False
                sock.sendall(flight)
                to_us.write(sock.recv(65536))
        tls.write(DEVLIST_REQUEST)
        sock.sendall(from_us.read())
        while True:
            try:
                assert tls.read(8)[:4] == NO_DEVICES[:4]
                break
            except ssl.SSLWantReadError:
                to_us.write(sock.recv(65536))


# Who is refused.


def test_who_is_not_accepted_reads_why_and_so_does_the_log(bench):
    lab = Lab(bench, ANNA)
    lab.issue("carla")
    lab.ca.do("revoke", "carla")
    refusals = [  # folder, alert, in the log, of xusbip
        (lab.forge("stranger", ca=Ca(bench, "other")), "unknown ca",
         "of another CA", "of another CA"),
        (lab.forge("old", end_s=-60), "certificate expired", "has expired",
         "has expired"),
        (lab.forge("early", start_s=DAY_S, end_s=2 * DAY_S),
         "certificate expired", "is not yet valid", "not yet valid"),
        (lab.issue("carla"), "certificate revoked", "is revoked",
         "is revoked"),
        (lab.forge("server", usage="serverAuth"), "unsupported certificate",
         "not for clients", "for another use"),
    ]
    for folder, alert, logged, told in refusals:
        assert refused_with(lab, folder) == alert, logged
        result = xusbip(folder, "list", "-r", lab.address)
        assert result.returncode == EXIT_NOT_ALLOWED, result
        assert re.search(f"not accept this host's certificate: .*{told}",
                         result.stderr), result
        wait_until(lambda: len(re.findall(
            rf"127\.0\.0\.1:\d+: refused: .*{logged}",
            lab.gateway.log())) == 2, logged)
    assert refused_with(lab, None) == "certificate required"
    lab.gateway.wait_log("refused: it has shown no certificate")
    assert refused_with(lab, lab.issue("anna"), alpn="h2") == (
        "no application protocol")
    with lab.client() as client:
        assert "zero0" in client.devlist()


def test_a_gateway_of_another_name_reads_why_it_is_left(bench):
    lab = Lab(bench, ANNA)
    result = xusbip(lab.issue("anna"), "list", "-r",
                    f"tls:localhost:{lab.port}")
    assert result.returncode == EXIT_NOT_TRUSTED, result
    assert "for lab.example, not for localhost" in result.stderr
    lab.gateway.wait_log("it does not accept this gateway's certificate")


def test_an_older_tls_is_refused(bench):
    lab = Lab(bench, ANNA)
    context = lab.context(lab.issue("anna"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert alert_of(lambda: lab.wrap(context)) == "protocol version"
    lab.gateway.wait_log(r"refused: .*older TLS")


def test_usbip_without_tls_is_refused_before_it_is_read(bench):
    lab = Lab(bench, ANNA)
    with UsbipClient(lab.port) as client:
        client.send_raw(DEVLIST_REQUEST)
        assert client.is_at_end()
    lab.gateway.wait_log("refused: it speaks USB/IP without TLS")


def test_tls_on_the_plain_port_is_refused(bench):
    lab = Lab(bench, ANNA)
    context = lab.context(lab.issue("anna"))
    sock = socket.create_connection(("127.0.0.1", lab.gateway.port), LIMIT_S)
    with sock:
        try:
            context.wrap_socket(sock, server_hostname="127.0.0.1")
            raise AssertionError("it was served")
        except (ssl.SSLError, ConnectionResetError):
            pass
    lab.gateway.wait_log("is no USB/IP 1.1.1 request")


def test_garbage_ends_its_own_session_only(bench):
    lab = Lab(bench, ANNA)
    with lab.client() as good:
        good.import_("zero0")
        for garbage in (b"GET / HTTP/1.0\r\n\r\n" * 100, bytes(70000),
                        b"\x16\x03\x01\xff\xff" + bytes(70000),
                        b"\x16\x03\x01\0\x04\x01\xff\xff\xff" * 9000,
                        os.urandom(70000)):
            with UsbipClient(lab.port) as bad:
                try:
                    bad.send_raw(garbage)
                except Closed:
                    pass
                assert bad.is_at_end()
        assert good.get_descriptor(1, length=18).actual_length == 18


def test_who_never_finishes_a_handshake_is_cut_off_at_its_limit(bench):
    lab = Lab(bench, ANNA)
    silent, slow = lab.connect(timeout=20), lab.connect(timeout=20)
    with silent, slow:
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
        began_s = time.monotonic()
        slow.settimeout(0.2)
        for byte in hello:
            try:
                slow.send(bytes([byte]))
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                pass
            except ConnectionError:
                break
        assert 4 < time.monotonic() - began_s < 20
        assert silent.recv(1) == b""
    wait_until(lambda: lab.gateway.count("not done in time") == 2, "both")
    wait_until(lab.gateway.has_settled, "both sessions ended")
    assert lab.gateway.count("the peer did not answer in time") == 2


def test_a_long_chain_of_certificates_is_bounded(bench):
    lab = Lab(bench, ANNA)
    folder = lab.issue("anna")
    with open(f"{folder}/client.pem", encoding="ascii") as file:
        leaf = file.read()
    with open(f"{folder}/ca.pem", encoding="ascii") as file:
        issuer = file.read()
    with open(f"{folder}/client.pem", "w", encoding="ascii") as file:
        file.write(leaf + issuer * (16384 // 400))
    with lab.client() as client:
        assert "zero0" in client.devlist()
    with open(f"{folder}/client.pem", "w", encoding="ascii") as file:
        file.write(leaf + issuer * (4 * 65536 // 400))
    try:
        with lab.client() as client:
            client.devlist()
        raise AssertionError("it was served")
    except (Closed, OSError):
        pass
    lab.gateway.wait_log(r"refused: .*(too long|large)")
    with lab.client("berta") as client:
        assert client.devlist() == {}


# What is not offered.


def test_no_session_is_resumed(bench):
    lab = Lab(bench, ANNA)
    context = lab.context(lab.issue("anna"))
    with TlsClient(lab.wrap(context)) as client:
        client.devlist()
        session = client.sock.session
        assert session is None or not session.has_ticket
    with lab.wrap(context, session=session) as sock:
        assert not sock.session_reused
    assert refused_with(lab, None) == "certificate required"


def s_client(lab, *args, stderr=subprocess.DEVNULL):
    folder = lab.issue("anna")
    return subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{lab.port}",
         "-verify_return_error", "-CAfile", lab.ca.path("ca.pem"), "-cert",
         f"{folder}/client.pem", "-key", f"{folder}/client.key", *args],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)


def read_until(pipe, words):
    """What a process prints up to these words."""
    got = b""
    while words not in got:
        piece = os.read(pipe.fileno(), 65536)
        assert piece, got
        got += piece
    return got


def test_a_storm_of_new_keys_ends_its_session(bench):
    lab = Lab(bench, ANNA)
    storm = s_client(lab, stderr=subprocess.STDOUT)
    try:
        read_until(storm.stdout, b"Verify return code: 0")
        while not lab.gateway.has_settled():
            storm.stdin.write(b"K\n")
            storm.stdin.flush()
            read_until(storm.stdout, b"KEYUPDATE")
    except (BrokenPipeError, AssertionError):
        pass
    finally:
        storm.kill()
        storm.communicate()
    wait_until(lab.gateway.has_settled, "its session ended")
    assert lab.gateway.count("TLS messages without data") == 1
    assert lab.gateway.count("ended: the peer broke the protocol") == 1


# Other programs.


def test_s_client_is_served(bench):
    lab = Lab(bench, ANNA)
    client = s_client(lab, "-quiet", "-alpn", ALPN)
    try:
        client.stdin.write(DEVLIST_REQUEST)
        client.stdin.flush()
        assert read_until(client.stdout, b"zero0").startswith(
            NO_DEVICES[:8] + b"\0\0\0\1")
    finally:
        client.kill()
        client.communicate()


def test_xusbip_uses_what_s_server_passes_on(bench):
    lab = Lab(bench, "")
    port = bench.free_port()
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-Verify", "1",
         "-verify_return_error", "-CAfile", lab.ca.path("ca.pem"), "-cert",
         f"{lab.tls_dir}/gateway.pem", "-key", f"{lab.tls_dir}/gateway.key",
         "-quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_open(port), "s_server listens")

        def answer():
            read_until(server.stdout, DEVLIST_REQUEST)
            server.stdin.write(NO_DEVICES)
            server.stdin.close()
        thread = threading.Thread(target=answer)
        thread.start()
        result = xusbip(lab.issue("anna"), "list", "-r",
                        f"tls:127.0.0.1:{port}")
        thread.join()
        assert result.returncode == 0, result
    finally:
        server.kill()
        server.wait()


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stunnel(bench, name, config):
    """A running stunnel, and the log that it writes."""
    log = os.path.join(bench.dir, f"{name}.log")
    path = bench.file(f"{name}.conf", (
        f"foreground = yes\npid =\noutput = {log}\n[{name}]\n"
        + config).encode())
    process = subprocess.Popen(["stunnel", path], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)

    def is_ready():
        assert process.poll() is None, "stunnel ended"
        with open(log, encoding="utf-8") as file:
            return "Configuration successful" in file.read()
    wait_until(lambda: os.path.exists(log) and is_ready(), "stunnel serves")
    return process


def stop(process):
    process.terminate()
    process.wait(LIMIT_S)


def test_plain_usbip_comes_in_through_stunnel(bench):
    lab = Lab(bench, ANNA)
    folder = lab.issue("anna")
    port = bench.free_port()
    tunnel = stunnel(bench, "in", (
        f"client = yes\naccept = 127.0.0.1:{port}\n"
        f"connect = 127.0.0.1:{lab.port}\nCAfile = {lab.ca.path('ca.pem')}\n"
        f"verifyChain = yes\ncheckIP = 127.0.0.1\n"
        f"cert = {folder}/client.pem\nkey = {folder}/client.key\n"))
    try:
        with UsbipClient(port) as client:
            assert list(client.devlist()) == ["zero0"]
        with UsbipClient(port) as client:
            client.import_("zero0")
            assert client.get_descriptor(1, length=18).actual_length == 18
    finally:
        stop(tunnel)


def test_xusbip_goes_through_stunnel_to_a_plain_gateway(bench):
    lab = Lab(bench, 'zero "zero0" { }\n')
    port = bench.free_port()
    tunnel = stunnel(bench, "out", (
        f"accept = 127.0.0.1:{port}\n"
        f"connect = 127.0.0.1:{lab.gateway.port}\n"
        f"CAfile = {lab.ca.path('ca.pem')}\nverifyChain = yes\n"
        f"cert = {lab.tls_dir}/gateway.pem\n"
        f"key = {lab.tls_dir}/gateway.key\n"))
    try:
        result = xusbip(lab.issue("anna"), "list", "-r",
                        f"tls:127.0.0.1:{port}")
        assert result.returncode == 0 and "zero0: " in result.stdout, result
    finally:
        stop(tunnel)


# What takes back what was given.


def test_a_revoked_certificate_ends_what_it_has(bench):
    lab = Lab(bench, ANNA + 'zero "zero1" { peers = { "berta" } }\n')
    with lab.client() as anna, lab.client("berta") as berta:
        anna.import_("zero0")
        berta.import_("zero1")

        lab.ca.do("revoke", "anna")
        lab.gateway.signal(signal.SIGHUP)

        assert anna.is_at_end()
        lab.gateway.wait_log(r"anna \(.*zero0\): is ended: its certificate "
                             "is revoked")
        assert berta.get_descriptor(1, length=18).actual_length == 18
        wait_until(lambda: len(lab.gateway.sessions()) == 1, "one is left")
    assert refused_with(lab, lab.issue("anna")) == "certificate revoked"
    assert lab.gateway.count("killed") == 0


def test_a_rule_that_is_gone_ends_what_it_gave(bench):
    lab = Lab(bench, ANNA + 'zero "zero1" { peers = { "anna" } }\n')
    with lab.client() as first, lab.client() as second:
        first.import_("zero0")
        second.import_("zero1")

        lab.write_config('zero "zero0" { peers = { "berta" } }\n'
                         'zero "zero1" { peers = { "*" } }\n')
        lab.gateway.signal(signal.SIGHUP)

        assert first.is_at_end()
        lab.gateway.wait_log("zero0.: is ended: no rule gives it")
        assert second.get_descriptor(1, length=18).actual_length == 18


def test_a_broken_revocation_list_changes_nothing(bench):
    lab = Lab(bench, ANNA)
    with lab.client() as client:
        client.import_("zero0")
        path = os.path.join(lab.tls_dir, "crl.pem")
        with open(path, encoding="ascii") as file:
            good = file.read()
        with open(path, "w", encoding="ascii") as file:
            file.write("-----BEGIN X509 CRL-----\nnonsense\n")
        lab.write_config('zero "other" { peers = { "anna" } }\n')
        lab.gateway.signal(signal.SIGHUP)
        lab.gateway.wait_log(r"not reloaded, the old one stays: .*crl\.pem")
        assert client.get_descriptor(1, length=18).actual_length == 18
        with open(path, "w", encoding="ascii") as file:
            file.write(good)
        with lab.client() as other:
            assert list(other.devlist()) == ["zero0"]


def test_a_renewed_certificate_needs_no_reload(bench):
    lab = Lab(bench, ANNA)
    lab.ca.do("renew", NAME)
    serial = openssl("x509", "-noout", "-serial", "-in",
                     f"{lab.tls_dir}/gateway.pem").strip().split("=")[1]
    with lab.client() as client:
        assert client.sock.getpeercert()["serialNumber"] == serial
        assert "zero0" in client.devlist()


def test_two_hundred_reloads_with_traffic_leave_nothing_behind(bench):
    lab = Lab(bench, ANNA)
    pid = lab.gateway.process.pid
    with lab.client() as client:
        client.import_("zero0")
        wait_until(lambda: lab.gateway.count(": certificate ") == 1, "it is known")
        before = fds_of(pid)
        for number in range(1, 201):
            lab.gateway.signal(signal.SIGHUP)
            assert client.get_descriptor(1, length=18).actual_length == 18
            wait_until(lambda n=number: lab.gateway.count(
                "configuration reloaded") >= n, "it is reloaded")
        # Sessions are judged behind the last line, which opens their notes.
        wait_until(lambda: fds_of(pid) == before, "it has opened nothing more")
    assert lab.gateway.count("is ended") == 0


# Many.


def test_thousands_of_handshakes_leave_the_manager_as_it_was(bench):
    lab = Lab(bench, "max_sessions = 900\nmax_sessions_per_peer = 900\n"
              + ANNA)
    pid = lab.gateway.process.pid
    context = lab.context()

    def fail(times):
        for _ in range(times):
            assert alert_of(lambda: lab.wrap(context)) == (
                "certificate required")

    def storm(num):
        threads = [threading.Thread(target=fail, args=(num // 4,))
                   for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lab.gateway.has_settled, "all sessions ended", 60)

    storm(200)
    before_kib, before_fds = rss_kib(pid), fds_of(pid)
    storm(400 if IS_SANITIZED else 10000)
    print(f"# {rss_kib(pid) - before_kib} KiB more")
    # A sanitizer keeps freed memory from being used again for a while.
    assert IS_SANITIZED or rss_kib(pid) < before_kib + 1024
    assert fds_of(pid) == before_fds
    assert not lab.gateway.sessions()
    with lab.client() as client:
        assert "zero0" in client.devlist()


if __name__ == "__main__":
    run(globals())
