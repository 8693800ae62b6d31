# SPDX-License-Identifier: Apache-2.0
"""A gateway with a TLS port, the certificates around it, and peers for it.

    lab = Lab(bench, 'zero "zero0" { peers = { "anna" } }')
    with lab.client("anna") as client:
        client.import_("zero0")
"""

import os
import shutil
import socket
import ssl
import time

from ca import Ca, openssl
from usbip_client import Refused, UsbipClient

NAME = "lab.example"
ALPN = "xusbip/1"
REASON_BYTES = 128

DAY_S = 86400

CONFIG = """\
[ca]
default_ca = ca
[ca]
database = {dir}/index.txt
new_certs_dir = {dir}
rand_serial = yes
default_md = sha256
policy = dn
unique_subject = no
[dn]
commonName = supplied
[host]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = {usage}
subjectAltName = DNS:{name}
authorityKeyIdentifier = keyid
"""


def time_text(when_s):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(when_s))


class Lab:
    """A gateway that serves TLS, TCP and its Unix socket, with a CA."""

    def __init__(self, bench, config, args=(), tls_dir=None):
        self.bench = bench
        self.ca = Ca(bench)
        self.ca.do("issue", "gateway", NAME, "127.0.0.1")
        self.tls_dir = tls_dir or self.ca.path("gateway", NAME)
        self.config = config
        self.gateway = bench.prepare("", args)
        self.port = bench.free_port()
        self.address = f"tls:127.0.0.1:{self.port}"
        self.write_config(config)
        self.gateway.start()

    def write_config(self, config):
        gateway = self.gateway
        gateway.write_config(
            f'listen = {{ "tls:127.0.0.1:{self.port}", '
            f'"tcp:127.0.0.1:{gateway.port}", "unix:{gateway.socket}" }}\n'
            f'tls_dir = "{self.tls_dir}"\n' + config)

    # Certificates: each a folder with client.pem, client.key and ca.pem.

    def issue(self, name):
        """A client's folder, as xusbip-ca makes it; the same each time."""
        folder = self.ca.path("client", name)
        if not os.path.exists(folder):
            self.ca.do("issue", "client", name)
        return folder

    def forge(self, name, ca=None, usage="clientAuth", start_s=-DAY_S,
              end_s=DAY_S):
        """What xusbip-ca would not make; times are seconds from now."""
        ca = ca or self.ca
        folder = os.path.join(self.bench.dir, f"forged-{name}")
        os.mkdir(folder)
        config = self.bench.file(f"forged-{name}/config", CONFIG.format(
            dir=folder, usage=usage, name=name).encode())
        self.bench.file(f"forged-{name}/index.txt")
        key, pem = (os.path.join(folder, f"client.{end}")
                    for end in ("key", "pem"))
        openssl("req", "-new", "-config", config, "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:P-256", "-noenc", "-subj", f"/CN={name}",
                "-keyout", key, "-out", f"{folder}/request")
        now_s = time.time()
        openssl("ca", "-batch", "-notext", "-config", config, "-extensions",
                "host", "-keyfile", ca.path("ca.key"), "-cert",
                ca.path("ca.pem"), "-startdate", time_text(now_s + start_s),
                "-enddate", time_text(now_s + end_s), "-in",
                f"{folder}/request", "-out", pem)
        shutil.copy(self.ca.path("ca.pem"), folder)
        return folder

    # Peers.

    def context(self, folder=None, alpn=ALPN):
        """Of a client with that folder's certificate, or with none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca.path("ca.pem"))
        if folder:
            context.load_cert_chain(f"{folder}/client.pem",
                                    f"{folder}/client.key")
        if alpn:
            context.set_alpn_protocols([alpn])
        return context

    def connect(self, timeout=10.0):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def wrap(self, context, **options):
        """A TLS connection; the gateway may still refuse it."""
        sock = self.connect()
        try:
            return context.wrap_socket(sock, server_hostname="127.0.0.1",
                                       **options)
        except OSError:
            sock.close()
            raise

    def client(self, name="anna", **options):
        return TlsClient(self.wrap(self.context(self.issue(name), **options)))


class TlsClient(UsbipClient):
    """As UsbipClient, with the reason of a refusal where one is told."""

    def __init__(self, sock):
        super().__init__(sock=sock)

    def with_reason(self, operation, *args):
        try:
            return operation(*args)
        except Refused as refused:
            refused.reason = None
            if self.sock.selected_alpn_protocol():
                refused.reason = self.recv_raw(REASON_BYTES).rstrip(
                    b"\0").decode("ascii")
            raise

    def devlist(self):
        return self.with_reason(super().devlist)

    def import_(self, busid):
        return self.with_reason(super().import_, busid)
