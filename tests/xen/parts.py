# SPDX-License-Identifier: Apache-2.0
"""What the tests of xusbip on Xen have in common: a gateway in the dom0, images
that are compared here, a memory stick, and how to ask for attachments."""

import hashlib
import os

import helpers

STICK = '46f4:0001'
STICK_BYTES = 18 << 20
SMALL_BYTES = 2 << 20
REMOTE = 'xen:0'
# What etc/modprobe.d brings at an installation.
GNTALLOC_LIMIT = 16512
GNTALLOC_PATH = '/sys/module/xen_gntalloc/parameters/limit'
AGENT_CONFIG = '/run/frontend.conf'
# Neither a device nor a channel.
NOTHING_HELD = f'! ls {helpers.GATEWAY_DIR} | grep -qE "[.](lock|channel)$"'
ADMIN = f'XUSBIP_ADMIN={helpers.GATEWAY_DIR}/admin.sock'
WRAPPER = f'{ADMIN} XUSBIP={helpers.XUSBIP} sh /xusbip/etc/xen/xusbip-xl'
# Neither is at a boundary of a page, nor of a transfer.
WRITE_AT = 12345
BLOCK_BYTES = 257 * 512


def start_gateway(xen, config, gntalloc_limit=GNTALLOC_LIMIT):
    """A Job of the dom0's gateway, which is ready."""
    xen.check(f'echo {gntalloc_limit} > {GNTALLOC_PATH}')
    return helpers.start_gateway(xen, 'xen = true\n' + config, listen=())


def reload(domain, job):
    """Returns when the daemon has read its configuration anew."""
    words = 'configuration reloaded'
    known = job.log().count(words)
    domain.check(f'kill -HUP {job.pid}')
    helpers.wait_for(words, lambda: job.log().count(words) > known)


def start_agent(domain):
    """A Job of the guest's agent, which is ready; its configuration is empty."""
    domain.check(f': > {AGENT_CONFIG}')
    agent = domain.spawn(f'{helpers.AGENT} --debug -c {AGENT_CONFIG}')
    helpers.wait_for_line(agent, 'ready', limit=20)
    return agent


def xusbip(domain, words, timeout=90):
    """Result of our command in a guest, or in the dom0."""
    return domain.run(f'{ADMIN} {helpers.XUSBIP} {words}', timeout=timeout)


def check_xusbip(domain, words, timeout=90):
    return domain.check(f'{ADMIN} {helpers.XUSBIP} {words}', timeout=timeout)


def check_refused(domain, words, status, *reasons):
    """The command fails with this status, and says why in one line."""
    result = xusbip(domain, words)
    assert result.status == status, result
    assert len(result.output.splitlines()) == 1, result.output
    for reason in reasons:
        assert reason in result.output, result.output


def wait_busids(domain, *expected, limit=60):
    """Returns when exactly these devices of gateways are attached."""
    def probe():
        shown = domain.check('cat /var/run/vhci_hcd/port* 2> /dev/null || :')
        ports = [port for port in helpers.used_vhci_ports(domain)
                 if port.status == helpers.VHCI_PORT_USED]
        return (sorted(line.split()[2] for line in shown.splitlines()) ==
                sorted(expected) and len(ports) == len(expected))
    helpers.wait_for(f'{expected} are attached', probe, limit)


# Images

def image_path(xen, name):
    """A path on this machine; /share/NAME in the dom0."""
    return os.path.join(xen.share, name)


def make_image(xen, name, num_bytes):
    with open(image_path(xen, name), 'wb') as f:
        f.write(os.urandom(num_bytes))
    return image_path(xen, name)


def digest(path, start=0, count=-1):
    with open(path, 'rb') as f:
        f.seek(start)
        return hashlib.sha256(f.read(count)).hexdigest()


def digest_within(domain, path):
    return domain.check(f'sha256sum {path}', timeout=120).split()[0]


def rewrite(domain, disk, image):
    """Reads all of a guest's disk, writes most of it anew, and compares both
    times with the image, whose ends stay."""
    end = os.path.getsize(image) - WRITE_AT + 1
    count = end - WRITE_AT
    ends = digest(image, 0, WRITE_AT), digest(image, end)
    assert digest_within(domain, f'/dev/{disk}') == digest(image)

    domain.check(f'''set -e
head -c {count} /dev/urandom > /tmp/data
dd if=/tmp/data of=/dev/{disk} bs=100003 oflag=seek_bytes seek={WRITE_AT} \
conv=notrunc,fsync status=none''', timeout=120)
    assert digest(image, WRITE_AT, count) == digest_within(domain, '/tmp/data')
    said = domain.check(
        f'rm /tmp/data; dd if=/dev/{disk} iflag=direct bs={BLOCK_BYTES} '
        'status=none | sha256sum', timeout=120)
    assert said.split()[0] == digest(image)
    assert (digest(image, 0, WRITE_AT), digest(image, end)) == ends


# A memory stick of the machine

def insert_stick(xen):
    """Plugs it where it was before, so that it has the same bus id."""
    xen.plug('usb-storage', 'stick', drive='stick', port='8')


def plug_stick(xen, image='small.img'):
    """Its bus id in the dom0, whose driver has it."""
    xen.add_drive('stick', image_path(xen, image))
    insert_stick(xen)
    busid = helpers.find_usb(xen, STICK)
    helpers.block_device(xen, busid)
    return busid


def unplug_stick(xen, busid):
    xen.unplug('stick')
    xen.remove_drive('stick')
    helpers.wait_usb_gone(xen, busid)
