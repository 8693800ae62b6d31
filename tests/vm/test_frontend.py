#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""xusbip and xusbip-frontend with a real vhci_hcd, against the stock usbipd and
usbip-host, whose device is an emulated memory stick: attaching and detaching
with our tool and with the stock one, and what is left when something dies."""

import json
import os
import re

import bed
import helpers
from guest import Guest

XUSBIP = '/xusbip/build/xusbip'
AGENT = '/xusbip/build/xusbip-frontend'
GATEWAY = '/xusbip/build/xusbip-gateway'
AGENT_PORT = 3250
RECORDS = '/var/run/vhci_hcd'
STICK_ID = '46f4:0001'
STICK_BYTES = 8 << 20
PROCESSES = ('xusbip-link', 'xusbip-keeper', 'xusbip-standby',
             'xusbip-serve')

EXIT_NO_DEVICE, EXIT_CANNOT_REACH, EXIT_NO_PORT, EXIT_TIMEOUT = 3, 5, 8, 11

# Answers an import like a gateway that has the device, and then no URB.
SILENT_GATEWAY = '''
import socket, struct
listener = socket.create_server(("127.0.0.1", 3260))
held = []
while True:
    peer, _ = listener.accept()
    busid = peer.recv(40, socket.MSG_WAITALL)[8:]
    peer.sendall(struct.pack(">HHI256s32sIIIHHHBBBBBB", 0x111, 3, 0, b"/dev",
                             busid, 1, 2, 3, 1, 2, 3, 0, 0, 0, 1, 1, 1))
    held.append(peer)
'''


def plug_stick(guest):
    """Plugs the stick and gives it to usbip-host; its bus id there."""
    path = os.path.join(guest.share, 'stick.img')
    if not os.path.exists(path):
        with open(path, 'wb') as image:
            image.write(os.urandom(STICK_BYTES))
    guest.add_drive('stick', path)
    guest.plug('usb-storage', 'stick', drive='stick')
    busid = helpers.find_usb(guest, STICK_ID)
    helpers.block_device(guest, busid)
    guest.check(f'usbip bind -b {busid}')
    return busid


def unplug_stick(guest):
    guest.unplug('stick')
    guest.remove_drive('stick')


def exported(guest):
    """The bus id of the stick at usbipd, which offers it again."""
    def probe():
        found = guest.run(f'{XUSBIP} list -p -r 127.0.0.1').output
        return re.findall(rf'busid=(\S+)#usbid={STICK_ID}#', found)
    return helpers.wait_for('usbipd exports the stick', probe)[0]


def assert_nothing_is_left(guest, limit=3):
    """No port, no process, no record."""
    helpers.wait_vhci_ports_free(guest, limit)
    helpers.wait_for(
        'the processes of the attachment have ended',
        lambda: not [pid for name in PROCESSES
                     for pid in helpers.pids(guest, name)], limit)
    helpers.wait_until(guest, f'! [ -e {RECORDS} ]', limit)


def attach(guest, tool=f'{XUSBIP} attach -r 127.0.0.1'):
    """Attaches the stick; its port."""
    guest.check(f'{tool} -b {exported(guest)}')
    # The stock tool returns before the kernel has given the device a name.
    helpers.wait_for('the device has its address', lambda: [
        port for port in helpers.used_vhci_ports(guest)
        if port.status == helpers.VHCI_PORT_USED])
    port, = helpers.used_vhci_ports(guest)
    return port


def read_stick(guest, busid):
    """Reads all of the attached stick and compares it with the image."""
    disk = helpers.block_device(guest, busid)
    guest.check(f'cmp -n {STICK_BYTES} /dev/{disk} /share/stick.img')


def in_use(guest):
    """A reader of the stick that never ends, to have URBs in flight."""
    port = attach(guest)
    disk = helpers.block_device(guest, port.busid)
    job = guest.spawn(f"bash -c 'while cat /dev/{disk}; do :; done > /dev/null'")
    return port, job


@bed.setup
def start_the_stock_server(guest):
    guest.check('modprobe -a vhci-hcd usbip-host usb-storage')
    guest.spawn('busybox syslogd -n -O /tmp/syslog')
    guest.spawn('usbipd')
    plug_stick(guest)
    exported(guest)


@bed.test
def lists_are_those_of_the_stock_tool(guest):
    ours = guest.check(f'{XUSBIP} list -r 127.0.0.1')
    stock = guest.check('usbip list -r 127.0.0.1')
    assert ours == stock, ours + stock

    assert (guest.check(f'{XUSBIP} list -l') == guest.check('usbip list -l'))
    assert (guest.check(f'{XUSBIP} list -p -l').splitlines() ==
            guest.check('usbip list -p -l').split())


@bed.test
def attach_returns_when_the_device_works(guest):
    busid = exported(guest)
    said = guest.check(f'{XUSBIP} attach -r 127.0.0.1 -b {busid}')
    port, = helpers.used_vhci_ports(guest)

    assert said == (f'attached {busid} of 127.0.0.1 as {port.busid} at port '
                    f'{port.port:02}\n')
    assert port.hub == 'ss' and port.status == helpers.VHCI_PORT_USED
    guest.check(f'grep -x 1 /sys/bus/usb/devices/{port.busid}/'
                'bConfigurationValue')
    read_stick(guest, port.busid)


@bed.test
def both_tools_show_the_same_port(guest):
    ours = guest.check(f'{XUSBIP} port')
    stock = guest.check('usbip port')
    assert ours == stock, ours + stock
    assert 'usbip://127.0.0.1:3240/' in ours

    shown, = json.loads(guest.check(f'{XUSBIP} port --json'))['ports']
    assert shown['remote']['host'] == '127.0.0.1'
    assert shown['device']['vendor'] == '46f4'
    assert guest.check(f'stat -c %a {RECORDS}') == '700\n'


@bed.test
def a_device_in_use_elsewhere_is_not_given_again(guest):
    port, = helpers.used_vhci_ports(guest)
    record = guest.check(f'cat {RECORDS}/port{port.port}').split()
    status, said = guest.run(
        f'{XUSBIP} attach -r 127.0.0.1 -b {record[2]}')

    assert status not in (0, 1) and len(said.splitlines()) == 1, said
    assert helpers.used_vhci_ports(guest) == [port]


@bed.test
def detach_returns_when_the_port_is_free(guest):
    port, = helpers.used_vhci_ports(guest)
    said = guest.check(f'{XUSBIP} detach -p {port.port:02}')

    assert said == f'detached port {port.port:02}\n'
    assert not helpers.used_vhci_ports(guest)
    assert_nothing_is_left(guest)
    assert guest.run(f'{XUSBIP} detach -p {port.port}').status == EXIT_NO_PORT


@bed.test
def the_stock_tool_detaches_what_ours_attached(guest):
    port = attach(guest)
    guest.check(f'usbip detach -p {port.port}')
    assert_nothing_is_left(guest)


@bed.test
def ours_detaches_what_the_stock_tool_attached(guest):
    port = attach(guest, 'usbip attach -r 127.0.0.1')
    helpers.block_device(guest, port.busid)
    guest.check(f'{XUSBIP} detach -p {port.port}')
    assert_nothing_is_left(guest)


@bed.test
def the_result_of_attach_is_there_as_json(guest):
    result = json.loads(guest.check(f'{XUSBIP} attach --json -r 127.0.0.1 '
                                    f'-b {exported(guest)}'))
    port, = helpers.used_vhci_ports(guest)

    assert (result['port'], result['busid']) == (port.port, port.busid)
    said = guest.check(f'{XUSBIP} detach --json -p {port.port}')
    assert json.loads(said) == {'port': port.port}
    assert_nothing_is_left(guest)


@bed.test
def what_cannot_be_attached_has_its_exit_status(guest):
    for args, expected in (('-r 127.0.0.1 -b 9-9', None),
                           ('-r 127.0.0.1:1 -b 1-1', EXIT_CANNOT_REACH),
                           ('-r unix:/tmp/none -b 1-1', EXIT_CANNOT_REACH)):
        status, said = guest.run(f'{XUSBIP} attach {args}')
        assert status == expected or (expected is None and status), said
        assert len(said.splitlines()) == 1, said
    assert_nothing_is_left(guest)


@bed.test(limit=120)
def killing_the_link_frees_everything(guest):
    port, reader = in_use(guest)
    guest.check('pkill -KILL -x xusbip-link')
    assert_nothing_is_left(guest)
    helpers.wait_usb_gone(guest, port.busid)
    reader.wait()
    read_stick(guest, attach(guest).busid)
    guest.check(f'{XUSBIP} detach -p {port.port}')
    assert_nothing_is_left(guest)


@bed.test(limit=120)
def killing_keeper_or_standby_leaves_the_attachment_and_later_nothing(guest):
    for victim in ('xusbip-keeper', 'xusbip-standby'):
        port = attach(guest)
        guest.check(f'pkill -KILL -x {victim}')
        read_stick(guest, port.busid)
        guest.check('pkill -KILL -x xusbip-link')
        assert_nothing_is_left(guest)


@bed.test(limit=120)
def an_unplugged_device_leaves_nothing_and_can_come_again(guest):
    _, reader = in_use(guest)
    unplug_stick(guest)
    assert_nothing_is_left(guest, 5)
    reader.wait()
    plug_stick(guest)
    port = attach(guest)
    read_stick(guest, port.busid)
    guest.check(f'{XUSBIP} detach -p {port.port}')
    assert_nothing_is_left(guest)


@bed.test(limit=120)
def the_end_of_the_server_leaves_nothing(guest):
    attach(guest)
    busid = exported_busid_on_host(guest)
    guest.check(f'usbip unbind -b {busid}')
    assert_nothing_is_left(guest, 5)
    guest.check(f'usbip bind -b {busid}')


def exported_busid_on_host(guest):
    """The stick's bus id at its own controller."""
    return [device.busid for device in helpers.usb_devices(guest)
            if device.id == STICK_ID and 'vhci_hcd' not in device.path][0]


@bed.test(limit=120)
def an_attachment_that_does_not_come_up_is_undone(guest):
    gateway = guest.spawn(f"python3 -c '{SILENT_GATEWAY}'")
    helpers.wait_until(guest, 'ss -ltn | grep -q :3260')
    status, said = guest.run(
        f'{XUSBIP} attach -r 127.0.0.1:3260 -b 1-1', timeout=40)

    assert status == EXIT_TIMEOUT and 'did not set the device up' in said, said
    assert_nothing_is_left(guest, 5)

    attaching = guest.spawn(f'{XUSBIP} attach -r 127.0.0.1:3260 -b 1-1')
    helpers.wait_for('the port is taken',
                     lambda: helpers.used_vhci_ports(guest))
    attaching.kill('KILL')
    attaching.wait()
    assert_nothing_is_left(guest, 5)
    gateway.stop('KILL')


@bed.test
def a_stale_record_is_swept_by_the_next_attach(guest):
    guest.check(f'mkdir -m 700 {RECORDS}; echo host 1 1-1 > {RECORDS}/port5; '
                f'touch -d "1 minute ago" {RECORDS}/port5')
    port = attach(guest)
    assert guest.check(f'ls {RECORDS}') == f'port{port.port}\n'
    guest.check(f'{XUSBIP} detach -p {port.port}')
    assert_nothing_is_left(guest)


@bed.test(limit=240)
def attaching_many_times_leaves_nothing_behind(guest):
    for _ in range(20):
        guest.check(f'{XUSBIP} attach -r 127.0.0.1 -b {exported(guest)}')
        port, = helpers.used_vhci_ports(guest)
        guest.check(f'{XUSBIP} detach -p {port.port}')
    assert_nothing_is_left(guest)


# Our own gateway, over shared memory

GATEWAY_ADDRESS = 'unix:/run/xusbip-test/gateway.sock'


def start_gateway(guest):
    """Ours, with the stick's image as its disk0."""
    guest.check(f'''mkdir -p /run/xusbip-test
[ -e /tmp/disk.img ] || cp /share/stick.img /tmp/disk.img
cat > /tmp/gateway.conf <<'END'
listen = {{ "{GATEWAY_ADDRESS}" }}
runtime_dir = "/run/xusbip-test"
disk "disk0" {{ image = "/tmp/disk.img" }}
END''')
    gateway = guest.spawn(f'{GATEWAY} -c /tmp/gateway.conf')
    helpers.wait_for('the gateway is ready', lambda: 'ready' in gateway.log())
    return gateway


def stop_gateway(guest, gateway):
    """Its sessions too."""
    gateway.stop()
    guest.run('pkill -KILL -f -- --session')


@bed.test(limit=120)
def over_shared_memory_it_is_the_same(guest):
    gateway = start_gateway(guest)

    for end in ('pkill -KILL -x xusbip-link', f'{XUSBIP} detach -p $port',
                'usbip detach -p $port', 'pkill -KILL -f -- --session'):
        guest.check(f'{XUSBIP} attach -r {GATEWAY_ADDRESS} -b disk0')
        port, = helpers.used_vhci_ports(guest)
        read_stick(guest, port.busid)
        assert (f'usbip://{GATEWAY_ADDRESS}:3240/disk0' in
                guest.check('usbip port'))
        guest.check(f'port={port.port}; {end}')
        assert_nothing_is_left(guest)
    gateway.stop()


# The agent, in front of the stock server

def start_agent(guest, more=''):
    guest.check(f'''cat > /tmp/frontend.conf <<'END'
listen = {{ "127.0.0.1:{AGENT_PORT}" }}
gateways = {{ "127.0.0.1:1", "127.0.0.1" }}
{more}
END''')
    agent = guest.spawn(f'{AGENT} --debug -c /tmp/frontend.conf')
    helpers.wait_for('the agent is ready', lambda: 'ready' in agent.log())
    return agent


def attach_by_agent(guest):
    return attach(guest, f'usbip --tcp-port {AGENT_PORT} attach -r 127.0.0.1')


@bed.test(limit=120)
def the_stock_tool_works_through_the_agent(guest):
    agent = start_agent(guest)
    direct = guest.check('usbip list -r 127.0.0.1')
    assert direct == guest.check(
        f'usbip --tcp-port {AGENT_PORT} list -r 127.0.0.1 2> /dev/null')

    port = attach_by_agent(guest)
    read_stick(guest, port.busid)
    assert f'usbip://127.0.0.1:{AGENT_PORT}/' in guest.check('usbip port')
    assert guest.check('usbip port') == guest.check(f'{XUSBIP} port')
    guest.check(f'usbip detach -p {port.port}')
    assert_nothing_is_left(guest)
    agent.stop()


@bed.test(limit=120)
def the_agent_removes_the_record_of_what_was_lost(guest):
    agent = start_agent(guest)
    attach_by_agent(guest)
    guest.check('pkill -KILL -x xusbip-link')
    assert_nothing_is_left(guest, 4)

    attach_by_agent(guest)
    unplug_stick(guest)
    assert_nothing_is_left(guest, 5)
    plug_stick(guest)
    agent.stop()


@bed.test(limit=120)
def attachments_outlive_the_agent_and_are_cleaned_up_by_the_next(guest):
    agent = start_agent(guest)
    port = attach_by_agent(guest)
    agent.stop('KILL')
    read_stick(guest, port.busid)

    agent = start_agent(guest)
    read_stick(guest, port.busid)
    guest.check('pkill -KILL -x xusbip-link')
    assert_nothing_is_left(guest, 4)
    agent.stop()


# Devices that stay attached

DISK = f'attach "disk" {{ gateway = "{GATEWAY_ADDRESS}" busid = "disk0" }}'
STICK = ('attach "stick" { gateway = "127.0.0.1" vendor = "46f4" '
         'product = "0001" }')


def wait_attached(guest, limit=15):
    """The port of the one device, which works."""
    port, = helpers.wait_for('it is attached', lambda: [
        port for port in helpers.used_vhci_ports(guest)
        if port.status == helpers.VHCI_PORT_USED], limit)
    read_stick(guest, port.busid)
    return port


def wait_shown(guest, line):
    """`xusbip port` shows it below the ports."""
    helpers.wait_until(guest, f'{XUSBIP} port | grep "^{line}"')


@bed.test(limit=180)
def what_a_section_names_is_attached_and_comes_back_with_its_gateway(guest):
    gateway = start_gateway(guest)
    agent = start_agent(guest, DISK)
    wait_attached(guest)
    assert 'Waiting' not in guest.check(f'{XUSBIP} port')

    stop_gateway(guest, gateway)
    assert_nothing_is_left(guest, 5)
    wait_shown(guest, f'Waiting: disk: {GATEWAY_ADDRESS} disk0: .*cannot')

    gateway = start_gateway(guest)
    port = wait_attached(guest, 30)

    agent.stop()
    agent = start_agent(guest, DISK)
    helpers.wait_for('the next agent has found it',
                     lambda: 'attached at port' in agent.log())
    assert helpers.used_vhci_ports(guest) == [port]

    agent.stop()
    guest.check(f'{XUSBIP} detach -p {port.port}')
    assert_nothing_is_left(guest)
    gateway.stop()


@bed.test(limit=180)
def what_was_unplugged_is_attached_when_it_is_plugged_again(guest):
    agent = start_agent(guest, STICK)
    wait_attached(guest)

    unplug_stick(guest)
    assert_nothing_is_left(guest, 5)
    wait_shown(guest, 'Waiting: stick: .* 46f4:0001: it has no such device')
    plug_stick(guest)
    port = wait_attached(guest, 30)

    agent.stop()
    guest.check(f'usbip detach -p {port.port}')
    assert_nothing_is_left(guest)


@bed.test(limit=180)
def what_a_section_names_stays_detached_until_the_configuration_is_read(guest):
    gateway = start_gateway(guest)
    agent = start_agent(guest, DISK)
    for detach in ('usbip detach', f'{XUSBIP} detach'):
        port = wait_attached(guest)
        guest.check(f'{detach} -p {port.port}')
        wait_shown(guest, 'Detached: disk: ')
        assert_nothing_is_left(guest)
        agent.kill('HUP')
    port = wait_attached(guest)

    agent.stop()
    guest.check(f'{XUSBIP} detach -p {port.port}')
    gateway.stop()


@bed.test(limit=240)
def what_is_attached_to_persist_comes_back_until_it_is_detached(guest):
    gateway = start_gateway(guest)
    persist = f'{XUSBIP} attach --persist -r {GATEWAY_ADDRESS} -b disk0'
    said = guest.check(f'{persist} 2>&1')
    assert 'start xusbip-frontend' in said, said

    agent = start_agent(guest)
    for detach in (f'{XUSBIP} detach', 'usbip detach'):
        wait_attached(guest)
        guest.check('pkill -KILL -x xusbip-link')
        helpers.wait_vhci_ports_free(guest)
        port = wait_attached(guest, 30)

        guest.check(f'{detach} -p {port.port}')
        helpers.wait_until(guest, '! ls /var/lib/xusbip/attach | grep .')
        assert_nothing_is_left(guest)
        assert 'Waiting' not in guest.check(f'{XUSBIP} port')
        said = guest.check(f'{persist} 2>&1')
        assert 'start xusbip-frontend' not in said, said

    guest.check(f'{XUSBIP} detach -p {wait_attached(guest).port}')
    assert_nothing_is_left(guest)
    agent.stop()
    gateway.stop()


@bed.test(limit=120)
def a_list_without_an_address_shows_what_is_configured(guest):
    gateway = start_gateway(guest)
    guest.check(f'''mkdir -p /etc/xusbip
cat > /etc/xusbip/frontend.conf <<'END'
gateways = {{ "127.0.0.1", "127.0.0.1:1" }}
{DISK}
END''')
    status, said = guest.run(f'{XUSBIP} list')
    assert status == 0, said
    assert f' - {GATEWAY_ADDRESS}' in said and 'disk0: ' in said, said
    assert ' - tcp:127.0.0.1:3240' in said and '46f4:0001' in said, said
    assert said.count('Connection refused') == 1, said
    guest.check('rm /etc/xusbip/frontend.conf')
    gateway.stop()


if __name__ == '__main__':
    bed.main(Guest('frontend'))
