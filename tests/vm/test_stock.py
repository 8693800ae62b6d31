#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The distribution's own usbip command, with our gateway: through the agent and
shared memory, and straight to the gateway over TCP. (test_frontend.py has our
side with the stock server.) And vsock, which only our own command knows."""

import os

import bed
import helpers
from guest import Guest

AGENT_PORT = 3240
GATEWAY_PORT = 3241
VSOCK_CID_LOCAL = 1
STICK = '46f4:0001'
STICK_BYTES = 8 << 20
DISK_BYTES = 4 << 20
VIRTUAL_DISK = 'disk0'
CONFIG = f'''
export {{ vendor = "46f4" }}
disk "{VIRTUAL_DISK}" {{ image = "/share/disk.img" }}
'''
# Bus id at the gateway: its image, and the image's size
images = {VIRTUAL_DISK: ('/share/disk.img', DISK_BYTES)}


def make_image(guest, name, num_bytes):
    path = os.path.join(guest.share, name)
    with open(path, 'wb') as image:
        image.write(os.urandom(num_bytes))
    return path


@bed.setup
def start_gateway_and_agent(guest):
    guest.check('modprobe -a vhci-hcd usb-storage vsock_loopback')
    make_image(guest, 'disk.img', DISK_BYTES)
    guest.add_drive('stick', make_image(guest, 'stick.img', STICK_BYTES))
    guest.plug('usb-storage', 'stick', drive='stick')
    guest.stick = helpers.find_usb(guest, STICK)
    helpers.block_device(guest, guest.stick)
    images[guest.stick] = ('/share/stick.img', STICK_BYTES)
    helpers.start_gateway(guest, CONFIG, (helpers.GATEWAY_ADDRESS,
                                          f'tcp:127.0.0.1:{GATEWAY_PORT}',
                                          'vsock:any'))
    helpers.start_agent(guest, listen=f'127.0.0.1:{AGENT_PORT}')


def usbip(tcp_port, words):
    """The command line; 3240 is what the tool takes by itself."""
    option = '' if tcp_port == 3240 else f'--tcp-port {tcp_port} '
    return f'usbip {option}{words}'


def attach(guest, tcp_port, busid):
    """The VhciPort of a device that the stock tool attaches."""
    before = helpers.used_vhci_ports(guest)
    guest.check(usbip(tcp_port, f'attach -r 127.0.0.1 -b {busid}'))

    def probe():
        return [port for port in helpers.used_vhci_ports(guest)
                if port.status == helpers.VHCI_PORT_USED and
                port.port not in {used.port for used in before}]
    return helpers.wait_for(f'{busid} has a port', probe)[0]


def rewrite(guest, disk, busid):
    """Reads all of a disk, writes all of it, and compares both times."""
    image, num_bytes = images[busid]
    guest.check(f'''set -e
cmp -n {num_bytes} /dev/{disk} {image}
head -c {num_bytes} /dev/urandom > /tmp/{busid}
dd if=/tmp/{busid} of=/dev/{disk} bs=256k oflag=direct status=none
dd if=/dev/{disk} bs=64k iflag=direct status=none | cmp - /tmp/{busid}
blockdev --flushbufs /dev/{disk}''', timeout=60)


def devices_of(listed):
    """What stands below the line with the host, which each writes its way."""
    lines = listed.splitlines()
    host, = [line for line in lines if line.startswith(' - ')]
    return lines[lines.index(host) + 1:]


def check_use(guest, tcp_port):
    """Both devices at once, from list to detach."""
    listed = guest.check(usbip(tcp_port, 'list -r 127.0.0.1'))
    ours = guest.check(f'{helpers.XUSBIP} list -r 127.0.0.1:{tcp_port}')
    assert devices_of(listed) == devices_of(ours), listed + ours

    ports = {}
    for busid in images:
        assert f'{busid}: ' in listed, listed
        ports[busid] = attach(guest, tcp_port, busid)
    for busid, port in ports.items():
        rewrite(guest, helpers.block_device(guest, port.busid), busid)

    shown = guest.check('usbip port')
    assert shown == guest.check(f'{helpers.XUSBIP} port')
    for busid, port in ports.items():
        assert f'Port {port.port:02}: <Port in Use>' in shown, shown
        assert f'usbip://127.0.0.1:{tcp_port}/{busid}' in shown, shown

    for busid, port in ports.items():
        guest.check(f'usbip detach -p {port.port:02}')
    helpers.wait_nothing_left(guest)
    helpers.wait_for(
        'the stick has its driver',
        lambda: helpers.interface_drivers(guest, guest.stick) ==
        ['usb-storage'])
    for busid, (image, _) in images.items():
        guest.check(f'cmp /tmp/{busid} {image}')


@bed.test(limit=150)
def stock_tools_use_devices_through_the_agent(guest):
    check_use(guest, AGENT_PORT)


@bed.test(limit=150)
def stock_tools_use_devices_of_the_gateway_over_tcp(guest):
    check_use(guest, GATEWAY_PORT)


def check_refusals(guest, tcp_port):
    for busid, reason in (('9-9', 'Device not found'),
                          (VIRTUAL_DISK, 'Device busy')):
        status, said = guest.run(
            usbip(tcp_port, f'attach -r 127.0.0.1 -b {busid}'))
        assert status != 0 and reason in said, said


@bed.test(limit=120)
def stock_tools_are_told_why_a_device_is_not_given(guest):
    port = helpers.attach(guest, VIRTUAL_DISK)

    check_refusals(guest, AGENT_PORT)
    check_refusals(guest, GATEWAY_PORT)

    assert helpers.used_vhci_ports(guest) == [port]
    image, num_bytes = images[VIRTUAL_DISK]
    disk = helpers.block_device(guest, port.busid)
    guest.check(f'cmp -n {num_bytes} /dev/{disk} {image}')
    helpers.detach(guest, port)
    helpers.wait_nothing_left(guest)


@bed.test(limit=120)
def our_command_uses_a_device_over_vsock(guest):
    port = helpers.attach(guest, VIRTUAL_DISK, f'vsock:{VSOCK_CID_LOCAL}')

    rewrite(guest, helpers.block_device(guest, port.busid), VIRTUAL_DISK)
    helpers.detach(guest, port)

    helpers.wait_nothing_left(guest)
    guest.check(f'cmp /tmp/{VIRTUAL_DISK} {images[VIRTUAL_DISK][0]}')


if __name__ == '__main__':
    bed.main(Guest('stock'))
