#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Devices between hosts over TLS, with a real vhci_hcd at one end: a network
that is slow, loses packets or is cut; the stock tools behind stunnel; a gateway
that passes on what another one has.

The hosts are network namespaces of one guest. `lab` has the devices, `mid`
passes them on, `client` uses them, and `island` is linked to nobody."""

import os

import bed
import helpers
import tls
from guest import Guest
from hosts import Host, Link
from tls import DEFAULT_DIR as CLIENT_DIR

DISK_BYTES = 2 << 20
LAB_DIR, MID_DIR = '/run/tls/lab', '/run/tls/mid'
MID_SOCKET = 'unix:/run/mid/gateway.sock'
PORT, STOCK_PORT, STUNNEL_PORT = 3241, 3240, 3250
STICK = '46f4:0001'
EXIT_NO_DEVICE = 3
PEER_TIMEOUT_S = 5  # at lab
CLIENT_TIMEOUT_S = 15  # what xusbip always has, and a gateway unless told
SLACK_S = 5
SLOW = 'delay 20ms 1ms loss 1% reorder 5% 50%'
CUT = 'loss 100%'
LAB_CONFIG = f'''
peer_timeout = {PEER_TIMEOUT_S}
tls_dir = "{LAB_DIR}"
disk "disk0" {{ image = "/run/disk0.img" peers = {{ "client", "mid" }} }}
disk "disk1" {{ image = "/run/disk1.img" peers = {{ "client", "mid" }} }}
disk "disk2" {{ image = "/run/disk2.img" peers = {{ "client" }} }}
'''
MID_CONFIG = f'''
tls_dir = "{MID_DIR}"
remote "lab" {{ address = "tls:10.0.3.2" }}
export {{ remote = "lab" busid = "disk1" deny = true }}
export {{ remote = "lab" peers = {{ "client" }} users = {{ "root" }} }}
'''


def make_network(guest):
    """The hosts and their links, and who is who."""
    guest.check('modprobe -a veth sch_netem')
    guest.lab, guest.mid, guest.client, guest.island = (
        Host(guest, name) for name in ('lab', 'mid', 'client', 'island'))
    guest.link = Link(guest, 1, guest.client, guest.lab)
    guest.link_to_mid = Link(guest, 2, guest.client, guest.mid)
    to_lab = Link(guest, 3, guest.mid, guest.lab)
    guest.lab_address = f'tls:{guest.link.b_address}'
    guest.mid_address = f'tls:{guest.link_to_mid.b_address}'
    tls.issue(guest, LAB_DIR, 'gateway', 'lab', guest.link.b_address,
              to_lab.b_address)
    tls.issue(guest, MID_DIR, 'gateway', 'middle', guest.link_to_mid.b_address)
    tls.issue(guest, MID_DIR, 'client', 'mid')
    tls.issue(guest, CLIENT_DIR, 'client', 'client')


def start_lab(guest):
    """A Job."""
    return helpers.start_gateway(guest.lab, LAB_CONFIG, ('tls:0.0.0.0',), 'lab')


def start_mid(guest):
    """A Job."""
    return helpers.start_gateway(guest.mid, MID_CONFIG,
                                 ('tls:0.0.0.0', MID_SOCKET), 'mid')


@bed.setup
def start_the_gateways(guest):
    guest.check('modprobe -a vhci-hcd usb-storage')
    make_network(guest)
    for disk in ('disk0', 'disk1', 'disk2'):
        guest.check(f'head -c {DISK_BYTES} /dev/urandom > /run/{disk}.img')
    guest.gateways = {'lab': start_lab(guest), 'mid': start_mid(guest)}


def wait_used_port(guest, limit=30):
    """The only VhciPort in use, whose device has its address."""
    port, = helpers.wait_for('the device has its address', lambda: [
        port for port in helpers.used_vhci_ports(guest)
        if port.status == helpers.VHCI_PORT_USED], limit)
    return port


def attach(guest, disk, host=None, address=None):
    """Attaches a disk, lab's to client unless told; its VhciPort, and its name
    in /dev."""
    port = helpers.attach(host or guest.client, disk,
                          address or guest.lab_address)
    return port, helpers.block_device(guest, port.busid)


def check_disk(guest, name, disk):
    """The disk NAME has what is in the image of it."""
    guest.check(f'dd if=/dev/{name} bs=256k iflag=direct status=none | '
                f'cmp - /run/{disk}.img')


def rewrite_disk(guest, name, disk, num_bytes=DISK_BYTES):
    """What is written to the disk NAME is read again, and is in its image."""
    guest.check(f'''set -e
head -c {num_bytes} /dev/urandom > /run/new
dd if=/run/new of=/dev/{name} bs=256k oflag=direct status=none
dd if=/dev/{name} bs=256k count={num_bytes}B iflag=direct status=none |
	cmp - /run/new
blockdev --flushbufs /dev/{name}
cmp -n {num_bytes} /run/new /run/{disk}.img''', timeout=60)


def read_without_end(guest, name):
    """A Job that reads a disk until that fails."""
    return guest.spawn(f"bash -c 'while dd if=/dev/{name} of=/dev/null bs=1M "
                       "iflag=direct status=none; do :; done'")


def wait_nothing_left(guest, limit=5):
    helpers.wait_nothing_left(guest, limit, gateways=('lab', 'mid'))


def detach(guest, port):
    helpers.detach(guest, port)
    wait_nothing_left(guest)


# The network

@bed.test(limit=90)
def storage_is_verified_over_a_network_with_delay_loss_and_reordering(guest):
    guest.link.impair(SLOW)
    port, name = attach(guest, 'disk0')
    rewrite_disk(guest, name, 'disk0', DISK_BYTES // 2)
    guest.link.restore()
    detach(guest, port)


@bed.test(limit=90)
def a_link_that_is_cut_for_a_moment_loses_nothing(guest):
    port, name = attach(guest, 'disk0@lab', address=guest.mid_address)
    reader = read_without_end(guest, name)
    guest.link_to_mid.cut_until(f'ss -N client -Htno dport = :{PORT} | '
                                r'grep -qE "timer:\(on,[^,]*,[2-9]\)" || '
                                f'ss -N mid -Htno sport = :{PORT} | '
                                r'grep -qE "timer:\(on,[^,]*,[2-9]\)"')

    check_disk(guest, name, 'disk0')
    assert reader.is_alive()
    assert helpers.used_vhci_ports(guest) == [port]
    reader.stop()
    detach(guest, port)


@bed.test(limit=120)
def a_link_that_is_cut_detaches_in_time_and_what_is_kept_comes_back(guest):
    agent = helpers.start_agent(
        guest.client, guest.lab_address, config='attach "kept" '
        f'{{ gateway = "{guest.lab_address}" busid = "disk1" }}')
    name = helpers.block_device(guest, wait_used_port(guest).busid)
    attach(guest, 'disk0')
    guest.link.impair('rate 4mbit')
    reader = read_without_end(guest, name)
    helpers.wait_until(guest.lab, f'ss -Htn sport = :{PORT} | '
                       "awk '{ bytes += $3 } END { exit bytes < 100000 }'")
    guest.link.impair(CUT)

    # One connection is idle, in the other data waits for the peer.
    helpers.wait_claims_gone(guest, 'lab', PEER_TIMEOUT_S + SLACK_S)
    wait_nothing_left(guest, CLIENT_TIMEOUT_S - PEER_TIMEOUT_S + SLACK_S)
    reader.wait()
    helpers.wait_until(guest, f'{helpers.XUSBIP} port | grep "Waiting: kept:"')

    guest.link.restore()
    port = wait_used_port(guest)
    check_disk(guest, helpers.block_device(guest, port.busid), 'disk1')
    agent.stop()
    detach(guest, port)


# Stock tools, which speak no TLS themselves

def start_stunnel(host, role, folder, accept, connect):
    stunnel = tls.start_stunnel(host, role, folder, accept, connect)
    helpers.wait_until(host, f'ss -Hltn | grep -F {accept}')
    return stunnel


@bed.test(limit=90)
def the_stock_tool_uses_a_device_through_stunnel(guest):
    stunnel = start_stunnel(guest.client, 'client', CLIENT_DIR,
                            f'127.0.0.1:{STOCK_PORT}',
                            f'{guest.link.b_address}:{PORT}')
    assert 'disk1: ' in guest.client.check('usbip list -r 127.0.0.1')
    guest.client.check('usbip attach -r 127.0.0.1 -b disk1')
    port = wait_used_port(guest)
    rewrite_disk(guest, helpers.block_device(guest, port.busid), 'disk1')
    guest.check(f'usbip detach -p {port.port}')
    wait_nothing_left(guest)
    stunnel.stop()


def plug_stick(guest):
    """Plugs a stick and gives it to usbip-host; its bus id there."""
    path = os.path.join(guest.share, 'stick.img')
    with open(path, 'wb') as image:
        image.write(os.urandom(DISK_BYTES))
    guest.add_drive('stick', path)
    guest.plug('usb-storage', 'stick', drive='stick')
    busid = helpers.find_usb(guest, STICK)
    helpers.block_device(guest, busid)
    guest.check(f'modprobe usbip-host; usbip bind -b {busid}')
    return busid


@bed.test(limit=90)
def the_stock_server_gives_a_device_through_stunnel(guest):
    busid = plug_stick(guest)
    server = guest.lab.spawn('usbipd -4')
    stunnel = start_stunnel(guest.lab, 'gateway', LAB_DIR,
                            f'{guest.link.b_address}:{STUNNEL_PORT}',
                            f'127.0.0.1:{STOCK_PORT}')
    port, name = attach(guest, busid,
                        address=f'{guest.lab_address}:{STUNNEL_PORT}')
    guest.check(f'cmp -n {DISK_BYTES} /dev/{name} /share/stick.img')
    detach(guest, port)
    stunnel.stop()
    server.stop()
    guest.unplug('stick')
    guest.remove_drive('stick')


# Passing on

@bed.test(limit=90)
def a_device_is_used_through_a_gateway_between(guest):
    port, name = attach(guest, 'disk0@lab', address=guest.mid_address)
    rewrite_disk(guest, name, 'disk0')
    detach(guest, port)


@bed.test(limit=90)
def a_host_without_a_network_uses_a_device_of_another_host(guest):
    assert guest.island.check('ls /proc/sys/net/ipv4/conf') == \
        'all\ndefault\nlo\n'
    port, name = attach(guest, 'disk0@lab', guest.island, MID_SOCKET)
    rewrite_disk(guest, name, 'disk0')
    detach(guest, port)


@bed.test
def each_gateway_on_the_way_can_refuse(guest):
    listed = guest.client.check(f'{helpers.XUSBIP} list -r {guest.mid_address}')
    assert 'disk0@lab: ' in listed and 'disk1' not in listed, listed
    for busid, host, refusal in (('disk1@lab', 'mid', 'disk1@lab is refused'),
                                 ('disk2@lab', 'lab', 'disk2 is refused')):
        status, said = guest.client.run(
            f'{helpers.XUSBIP} attach -r {guest.mid_address} -b {busid}')
        assert status == EXIT_NO_DEVICE, said
        assert len(said.splitlines()) == 1, said
        assert refusal in guest.gateways[host].log()
    wait_nothing_left(guest)


@bed.test(limit=120)
def the_death_of_a_gateway_on_the_way_ends_it_cleanly(guest):
    for host, start in ((guest.mid, start_mid), (guest.lab, start_lab)):
        _, name = attach(guest, 'disk0@lab', address=guest.mid_address)
        reader = read_without_end(guest, name)
        host.kill_all()
        helpers.wait_vhci_ports_free(guest)
        reader.wait()
        guest.gateways[host.name] = start(guest)
        wait_nothing_left(guest)


if __name__ == '__main__':
    bed.main(Guest('network'))
