#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What make install puts in place, in a guest whose first process is systemd:
the gateway and the agent are its services, in all of their units' sandboxes. A
memory stick of the machine and an image are used through them."""

import os
import subprocess

import bed
import helpers
import tls
from guest import TREE, Guest

STICK_ID = '46f4:0001'
BYTES = 1 << 20
GATEWAY, AGENT = 'xusbip-gateway', 'xusbip-frontend'
UNITS = (GATEWAY, AGENT, 'xusbip-manager')
SOCKET = 'unix:/run/xusbip/gateway.sock'
ATTACH = f'xusbip attach -r {SOCKET}'
STOCK_ATTACH = 'usbip attach -r 127.0.0.1'
IMAGE = '/var/lib/xusbip/disk0.img'
STICK_IMAGE = '/share/stick.img'
CONFIG = f'''
export {{ vendor = "46f4" }}
disk "disk0" {{ image = "{IMAGE}" }}
'''
KEPT = f'attach "kept" {{ gateway = "{SOCKET}" busid = "disk0" }}'
MISTAKE = 'exprot { }'
EXIT_CONFIG = 9
INSTALL_LIMIT_S = 60
RESTART_LIMIT_S = 15


def install(guest):
    """As an administrator does, but for the daemons' configuration."""
    root = os.path.join(guest.share, 'root')
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(('MAKE', 'MFLAGS'))}
    subprocess.run(['make', '-s', '-C', TREE, 'install', f'DESTDIR={root}',
                    'PREFIX=/usr'], check=True, env=env,
                   timeout=INSTALL_LIMIT_S)
    guest.check('cp -r /share/root/. /; systemctl daemon-reload', timeout=60)


def write_config(unit, config):
    """The words that write what a daemon reads."""
    name = unit.removeprefix('xusbip-')
    return f"cat > /etc/xusbip/{name}.conf <<'END'\n{config}\nEND\n"


def configure(guest, unit, config):
    guest.check(write_config(unit, config))


def plug_stick(guest):
    path = os.path.join(guest.share, os.path.basename(STICK_IMAGE))
    with open(path, 'wb') as image:
        image.write(os.urandom(BYTES))
    guest.add_drive('stick', path)
    guest.plug('usb-storage', 'stick', drive='stick')
    return helpers.find_usb(guest, STICK_ID)


@bed.setup
def install_and_plug(guest):
    install(guest)
    guest.check(f'mkdir -p /var/lib/xusbip; '
                f'head -c {BYTES} /dev/urandom > {IMAGE}; '
                'modprobe -a usb-storage vhci-hcd')
    tls.issue(guest, tls.DEFAULT_DIR, 'gateway', 'here', '127.0.0.1')
    tls.issue(guest, tls.DEFAULT_DIR, 'client', 'client')
    guest.stick = plug_stick(guest)


def start(guest, config=CONFIG):
    """Both services run anew, with this configuration."""
    guest.check(write_config(GATEWAY, config) + write_config(AGENT, '') +
                f'systemctl restart {GATEWAY} {AGENT}')


def wait_nothing_left(guest):
    helpers.wait_nothing_left(guest, 10, gateways=('xusbip',))


def processes(guest, unit):
    """The names of those in the unit's control group, of which there is none
    when there are no processes."""
    return guest.check('cd /sys/fs/cgroup/system.slice; '
                       f'[ ! -e {unit}.service ] || '
                       f'xargs -r ps -o comm= -p < {unit}.service/cgroup.procs'
                       ).split()


def wait_journal(guest, unit, words):
    helpers.wait_until(guest, f'journalctl -q -u {unit} | grep -F "{words}"')


def wait_port(guest, known=()):
    """The VhciPort that is used and not known, when its device has its
    address."""
    port, = helpers.wait_for('the device has its address', lambda: [
        port for port in helpers.used_vhci_ports(guest)
        if port not in known and port.status == helpers.VHCI_PORT_USED], 20)
    return port


def attach(guest, busid, tool=ATTACH):
    """Attaches it; its VhciPort, and its name in /dev."""
    known = helpers.used_vhci_ports(guest)
    guest.check(f'{tool} -b {busid}', timeout=40)
    port = wait_port(guest, known)
    return port, helpers.block_device(guest, port.busid)


def rewrite(guest, name, image):
    """What is read is in the image, and what is written gets there."""
    guest.check(f'''set -e
cmp -n {BYTES} /dev/{name} {image}
head -c {BYTES} /dev/urandom > /run/new
dd if=/run/new of=/dev/{name} bs=256k oflag=direct status=none
cmp /run/new {image}
blockdev --flushbufs /dev/{name}
cmp -n {BYTES} /dev/{name} /run/new''', timeout=60)


# Installing

@bed.test
def the_units_and_the_folder_are_as_systemd_wants_them(guest):
    units = ' '.join(f'/usr/lib/systemd/system/{unit}.service'
                     for unit in UNITS)
    assert guest.check(f'systemd-analyze verify --man=no {units}') == ''

    guest.check('rm -rf /run/xusbip; systemd-tmpfiles --create xusbip.conf')
    assert guest.check("stat -c '%A %U %G' /run/xusbip").split() == [
        'drwxr-xr-x', 'root', 'root']


@bed.test
def the_services_are_ready_when_systemctl_returns(guest):
    guest.check('rm -rf /run/xusbip')
    configure(guest, GATEWAY, CONFIG)
    said = guest.check(f'''systemctl enable --now {GATEWAY} {AGENT} 2>&1
systemctl is-active {GATEWAY} {AGENT}
stat -c '%a %n' /run/xusbip /run/xusbip/gateway.sock
usbip list -r 127.0.0.1''')
    assert 'active\nactive\n' in said, said
    assert '755 /run/xusbip\n600 /run/xusbip/gateway.sock\n' in said, said
    assert 'disk0: ' in said and f'{guest.stick}: ' in said, said

    for unit in (GATEWAY, AGENT):
        wait_journal(guest, unit, 'ready: ')
    assert guest.check('systemctl --failed --quiet') == ''


@bed.test(limit=90)
def devices_are_used_in_the_units_sandbox(guest):
    start(guest)
    ports = {}
    for busid, tool, image in (('disk0', ATTACH, IMAGE),
                               (guest.stick, STOCK_ATTACH, STICK_IMAGE)):
        ports[busid], name = attach(guest, busid, tool)
        rewrite(guest, name, image)
    assert processes(guest, GATEWAY).count('xusbip-session') == 2
    assert 'xusbip-link' in processes(guest, AGENT)

    for port in ports.values():
        guest.check(f'usbip detach -p {port.port}')
    wait_nothing_left(guest)
    assert processes(guest, GATEWAY) == [GATEWAY]
    assert processes(guest, AGENT) == [AGENT]


# Configurations

@bed.test
def a_reload_takes_a_new_rule_and_refuses_a_mistake(guest):
    start(guest)
    configure(guest, GATEWAY, CONFIG + 'zero "zero0" { }')
    guest.check(f'systemctl reload {GATEWAY}')
    wait_journal(guest, GATEWAY, 'configuration reloaded: ')
    for unit in (GATEWAY, AGENT):
        configure(guest, unit, MISTAKE)
        assert guest.run(f'systemctl reload {unit}').status == 1
        wait_journal(guest, unit, "no such option 'exprot'")
    assert 'zero0: ' in guest.check(f'systemctl is-active {GATEWAY} {AGENT} && '
                                    'usbip list -r 127.0.0.1')


@bed.test
def a_start_with_a_mistake_fails_once_and_says_the_line(guest):
    guest.check(f'systemctl stop {GATEWAY} {AGENT}')
    for unit in (GATEWAY, AGENT):
        configure(guest, unit, '\n\n' + MISTAKE)
        assert guest.run(f'systemctl start {unit}').status == 1
        wait_journal(guest, unit, "3: no such option 'exprot'")
        said = guest.check('systemctl show -p SubState -p NRestarts '
                           f'-p ExecMainStatus {unit}')
        assert set(said.split()) == {'SubState=failed', 'NRestarts=0',
                                     f'ExecMainStatus={EXIT_CONFIG}'}, said


# Deaths

def kill_main(guest, unit):
    """Returns when systemd has started it again, and nothing else has ended."""
    before = processes(guest, unit)
    guest.check(f'systemctl kill -s KILL --kill-who=main {unit}')
    helpers.wait_until(guest, f'systemctl is-active {unit} && [ "$(systemctl '
                       f'show -P NRestarts {unit})" = 1 ]', RESTART_LIMIT_S)
    assert sorted(processes(guest, unit)) == sorted(before), before


@bed.test(limit=90)
def attachments_outlive_a_killed_manager_and_end_when_it_is_stopped(guest):
    start(guest)
    _, name = attach(guest, 'disk0', STOCK_ATTACH)
    kill_main(guest, GATEWAY)
    rewrite(guest, name, IMAGE)

    attach(guest, guest.stick)
    guest.check(f'systemctl stop {GATEWAY}')
    assert processes(guest, GATEWAY) == []
    wait_nothing_left(guest)
    helpers.block_device(guest, guest.stick)


def link_pid(guest):
    """Of the only attachment; None if there is none, or one more."""
    pids = helpers.pids(guest, 'xusbip-link')
    return pids[0] if len(pids) == 1 else None


@bed.test(limit=120)
def attachments_outlive_the_agent_and_what_is_kept_the_gateway(guest):
    start(guest)
    configure(guest, AGENT, KEPT)
    guest.check(f'systemctl reload {AGENT}')
    port = wait_port(guest)
    name = helpers.block_device(guest, port.busid)
    kill_main(guest, AGENT)
    guest.check(f'systemctl restart {AGENT}')
    rewrite(guest, name, IMAGE)

    before = link_pid(guest)
    guest.check(f'systemctl restart {GATEWAY}')
    helpers.wait_for('it is attached anew', lambda: link_pid(guest) not in (
        None, before), 20)
    guest.check(f'systemctl stop {AGENT}')
    port = wait_port(guest)
    rewrite(guest, helpers.block_device(guest, port.busid), IMAGE)
    helpers.detach(guest, port)
    guest.check(f'systemctl start {AGENT}')


@bed.test(limit=120)
def a_suspend_detaches_and_what_is_kept_comes_back(guest):
    start(guest)
    configure(guest, AGENT, KEPT)
    guest.check(f'systemctl reload {AGENT}')
    name = helpers.block_device(guest, wait_port(guest).busid)
    guest.check(f'echo cached > /dev/{name}')
    # The freezer alone: the devices that the guest lives on would not return.
    guest.check('''echo freezer > /sys/power/pm_test
echo 0 > /sys/module/suspend/parameters/pm_test_delay
systemctl start systemd-suspend.service''', timeout=60)
    said = guest.check('dmesg | grep -o "USB disconnect\\|PM: suspend entry"')
    assert said.split('\n')[-3:-1] == ['USB disconnect', 'PM: suspend entry']

    port = wait_port(guest)
    rewrite(guest, helpers.block_device(guest, port.busid), IMAGE)
    guest.check(f'systemctl stop {AGENT}')
    helpers.detach(guest, port)


# Other hosts

@bed.test(limit=120)
def certificates_are_read_and_a_device_passed_on_in_the_sandbox(guest):
    start(guest, f'''
listen = {{ "{SOCKET}", "tls:127.0.0.1" }}
disk "disk0" {{ image = "{IMAGE}" peers = {{ "client" }} }}
remote "here" {{ address = "tls:127.0.0.1" }}
export {{ remote = "here" }}
''')
    port, name = attach(guest, 'disk0@here', STOCK_ATTACH)
    rewrite(guest, name, IMAGE)
    helpers.detach(guest, port)
    wait_nothing_left(guest)


if __name__ == '__main__':
    bed.main(Guest('systemd', append='bed.systemd'))
