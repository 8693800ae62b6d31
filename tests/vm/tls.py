# SPDX-License-Identifier: Apache-2.0
"""Who is who between hosts, for guests: certificates by xusbip-ca, and stunnel
as the other end of a TLS connection. The authority is on this machine, in the
guest's share; a guest gets copies of what it issues."""

import os
import subprocess

from guest import TREE

XUSBIP_CA = os.path.join(TREE, 'certs', 'xusbip-ca')
DEFAULT_DIR = '/etc/xusbip/tls'
CIPHERSUITE = 'TLS_AES_128_GCM_SHA256'
LIMIT_S = 30


def _run(*words):
    subprocess.run([XUSBIP_CA, *words], check=True, timeout=LIMIT_S,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def issue(guest, folder, role, name, *addresses):
    """Puts a certificate, its key and the authority's into a folder of the
    guest. `role` is 'gateway' or 'client'; a folder may hold one of each."""
    authority = os.path.join(guest.share, 'ca')
    if not os.path.exists(authority):
        _run('--dir', authority, 'init')
    _run('--dir', authority, 'issue', role, name, *addresses)
    guest.check(f'umask 077; mkdir -p {folder}; '
                f'cp /share/ca/{role}/{name}/* {folder}')


def start_stunnel(guest, role, folder, accept, connect):
    """A Job of stunnel that has TLS on one side, with a folder that issue()
    filled: 'gateway' takes TLS connections, 'client' makes them."""
    name = accept.replace(':', '-')
    guest.check(f'''cat > /run/stunnel-{name}.conf <<'END'
foreground = yes
pid =
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[usbip]
client = {'yes' if role == 'client' else 'no'}
accept = {accept}
connect = {connect}
cert = {folder}/{role}.pem
key = {folder}/{role}.key
CAfile = {folder}/ca.pem
verifyChain = yes
sslVersion = TLSv1.3
ciphersuites = {CIPHERSUITE}
END''')
    return guest.spawn(f'stunnel4 /run/stunnel-{name}.conf')
