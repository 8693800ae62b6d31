#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What users do, on real Xen: guests with Debian's kernel use devices of the
dom0, emulated hardware and virtual ones, with xusbip and with the stock usbip;
and get what a rule gives them, nothing else."""

import json
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import bed  # noqa: E402
import events  # noqa: E402
import helpers  # noqa: E402
import parts  # noqa: E402
import tls  # noqa: E402
from parts import REMOTE, check_refused, check_xusbip, xusbip  # noqa: E402
from xen import DOMU_WORDS, Xen  # noqa: E402

TABLET = '0627:0001'
UUID = '5b1d3a52-93a8-4bd8-a1a1-7a3a11d0c0de'
ALL_CASES = set(range(30))
ALL_ENDPOINTS = 1  # the setting of zero that has them
PORTS_OF_A_HUB = 15
MANY = [f'{speed}{number}' for speed in ('high', 'super')
        for number in range(PORTS_OF_A_HUB)]
MANY_BYTES = 64 << 10
EXIT_NO_DEVICE, EXIT_CANNOT_REACH, EXIT_BUSY = 3, 5, 7
CONFIG = f'''
export {{ vendor = "{parts.STICK[:4]}" domains = {{ "u1" }} }}
export {{ vendor = "{TABLET[:4]}" domains = {{ "u1" }} }}
zero "zero0" {{ domains = {{ "u1" }} }}
disk "shared" {{ image = "/share/shared.img" domains = {{ "u1", "{UUID}" }} }}
''' + ''.join(f'''
disk "{name}" {{
	image = "/share/{name}.img"
	high_speed = {'true' if name.startswith('high') else 'false'}
	domains = {{ "u1" }}
}}''' for name in MANY)


@bed.setup
def start_the_gateway(xen):
    xen.check('modprobe -a usb-storage usbhid')
    parts.make_image(xen, 'stick.img', parts.STICK_BYTES)
    for name in ('small.img', 'shared.img'):
        parts.make_image(xen, name, parts.SMALL_BYTES)
    for name in MANY:
        parts.make_image(xen, f'{name}.img', MANY_BYTES)
    xen.gateway = parts.start_gateway(xen, CONFIG)


def get(xen, name='u1', **options):
    """The guest of this name, which tests share while it lives."""
    for domain in xen.inner_guests():
        if domain.name == name:
            return domain
    # usbtest retries an unlink without end or sleep: what would bring the
    # answer runs on the one CPU only if it may interrupt that.
    domain = xen.create(name, extra_config={
        'extra': DOMU_WORDS + ' preempt=full', **options})
    domain.check('dmesg -n 1; modprobe -a vhci-hcd usb-storage usbhid evdev')
    domain.spawn('syslogd -n -O /proc/self/fd/1')
    return domain


def get_user(xen):
    return get(xen, memory=320)


def listed(domain):
    said = check_xusbip(domain, f'list -p -r {REMOTE}')
    return {line.split('#')[0].removeprefix('busid=')
            for line in said.splitlines()}


def detach(domain, port):
    helpers.detach(domain, port)
    helpers.wait_nothing_left(domain, limit=15)


def wait_driver(domain, busid, driver):
    helpers.wait_for(
        f'{busid} has the driver {driver}',
        lambda: helpers.interface_drivers(domain, busid) == [driver], 15)


@bed.test(limit=300)
def a_stick_of_the_dom0_keeps_what_a_guest_writes(xen):
    u1 = get_user(xen)
    busid = parts.plug_stick(xen, 'stick.img')
    before = xen.leftovers()

    port = helpers.attach(u1, busid, REMOTE)
    disk = helpers.block_device(u1, port.busid)
    assert port.hub == 'ss'
    assert u1.check(f'cat /sys/bus/usb/devices/{port.busid}/speed') == '5000\n'
    assert f'usbip://{REMOTE}:' in check_xusbip(u1, 'port')
    assert helpers.interface_drivers(xen, busid) == ['usbfs']
    image = parts.image_path(xen, 'stick.img')
    parts.rewrite(u1, disk, image)

    detach(u1, port)
    disk = helpers.block_device(xen, busid)
    assert parts.digest_within(xen, f'/dev/{disk}') == parts.digest(image)
    xen.check_no_leftovers(before)
    parts.unplug_stick(xen, busid)


@bed.test(limit=300)
def the_stock_commands_of_a_guest_need_no_configuration(xen):
    u1 = get_user(xen)
    busid = parts.plug_stick(xen)
    agent = parts.start_agent(u1)
    images = {busid: 'small.img', 'shared': 'shared.img'}

    shown = u1.check('usbip list -r 127.0.0.1')
    assert all(f'{name}: ' in shown for name in images), shown
    for name in images:
        u1.check(f'usbip attach -r 127.0.0.1 -b {name}')
    ports = helpers.wait_for('both have a port', lambda: [
        ports for ports in [helpers.used_vhci_ports(u1)] if len(ports) == 2 and
        all(port.status == helpers.VHCI_PORT_USED for port in ports)])[0]
    shown = u1.check('usbip port')
    for port in ports:
        name, = [name for name in images if
                 f'{port.busid} -> usbip://127.0.0.1:3240/{name}\n' in shown]
        parts.rewrite(u1, helpers.block_device(u1, port.busid),
                      parts.image_path(xen, images[name]))

    for port in ports:
        u1.check(f'usbip detach -p {port.port:02}')
    helpers.wait_nothing_left(u1, limit=15)
    wait_driver(xen, busid, 'usb-storage')
    assert agent.is_alive() and agent.stop() == 0
    parts.unplug_stick(xen, busid)


@bed.test(limit=200)
def every_movement_on_a_tablet_reaches_the_guest(xen):
    u1 = get_user(xen)
    xen.plug('usb-tablet', 'tablet')
    busid = helpers.find_usb(xen, TABLET)
    wait_driver(xen, busid, 'usbhid')
    port = helpers.attach(u1, busid, REMOTE)
    wait_driver(u1, port.busid, 'usbhid')
    points = events.Events(u1, port.busid, 'points')

    events.check_points(xen, points)

    points.stop()
    detach(u1, port)
    xen.unplug('tablet')
    helpers.wait_usb_gone(xen, busid)


@bed.test(limit=420)
def zero_passes_every_case_of_the_kernels_usbtest(xen):
    u1 = get_user(xen)
    u1.check(f'modprobe usbtest alt={ALL_ENDPOINTS}')
    port = helpers.attach(u1, 'zero0', REMOTE)
    wait_driver(u1, port.busid, 'usbtest')

    verdicts = helpers.usbtest(u1, port.busid)

    assert verdicts == {case: 'ok' for case in ALL_CASES}, verdicts
    detach(u1, port)


@bed.test(limit=200)
def a_list_that_is_watched_changes_as_devices_come_and_go(xen):
    u1 = get_user(xen)
    job = u1.spawn(f'{helpers.XUSBIP} list -r {REMOTE} --json --watch')

    def shown():
        return [{device['busid'] for device in json.loads(line)['devices']}
                for line in job.log().split('\n')[:-1]]
    virtual = helpers.wait_for('the first list', shown, 20)[0]
    assert virtual == {'zero0', 'shared', *MANY}

    busid = parts.plug_stick(xen)
    helpers.wait_for('it is there', lambda: shown()[-1] == virtual | {busid})
    parts.unplug_stick(xen, busid)
    helpers.wait_for('it is gone', lambda: shown()[-1] == virtual)

    assert job.is_alive()
    job.stop()


@bed.test(limit=200)
def a_device_unplugged_while_it_is_used_is_detached_and_comes_again(xen):
    u1 = get_user(xen)
    busid = parts.plug_stick(xen)
    before = xen.leftovers()['grants']
    port = helpers.attach(u1, busid, REMOTE)
    disk = helpers.block_device(u1, port.busid)
    reader = u1.spawn(f'dd if=/dev/{disk} of=/dev/null bs=4k iflag=direct')
    helpers.wait_until(
        u1, f"[ $(awk '{{ print $1 }}' /sys/block/{disk}/stat) -gt 50 ]", 20)

    parts.unplug_stick(xen, busid)

    helpers.wait_nothing_left(u1, limit=15)
    helpers.wait_usb_gone(u1, port.busid)
    assert reader.wait() != 0
    assert busid not in listed(u1)
    helpers.wait_for('its memory is given back',
                     lambda: xen.leftovers()['grants'] == before)
    busid = parts.plug_stick(xen)
    assert busid in listed(u1)
    port = helpers.attach(u1, busid, REMOTE)
    disk = helpers.block_device(u1, port.busid)
    assert parts.digest_within(u1, f'/dev/{disk}') == parts.digest(
        parts.image_path(xen, 'small.img'))
    detach(u1, port)
    parts.unplug_stick(xen, busid)


@bed.test(limit=240)
def a_guest_gets_what_a_rule_gives_it_and_nothing_else(xen):
    u1 = get_user(xen)
    u2 = get(xen, 'u2', uuid=UUID)
    assert listed(u2) == {'shared'}
    check_refused(u2, f'attach -r {REMOTE} -b zero0', EXIT_NO_DEVICE, 'zero0',
                  'no such device')

    port = helpers.attach(u2, 'shared', REMOTE)
    check_refused(u1, f'attach -r {REMOTE} -b shared', EXIT_BUSY, 'shared',
                  'in use')

    detach(u2, port)
    detach(u1, helpers.attach(u1, 'shared', REMOTE))
    u2.destroy()


@bed.test(limit=240)
def a_guest_that_no_rule_names_is_told_nothing(xen):
    before = xen.leftovers()
    with get(xen, 'stranger') as stranger:
        for words in (f'list -r {REMOTE}', f'attach -r {REMOTE} -b shared'):
            check_refused(stranger, words, EXIT_CANNOT_REACH,
                          'offers nothing to this domain')
        assert stranger.run('xenstore-ls data/xusbip').status != 0
    xen.check_no_leftovers(before)


def attach_all(u1):
    """Starts an attachment of each at the same moment."""
    said = u1.check('''
for name in %s; do
	%s attach -r %s -b $name > /tmp/$name.out 2>&1 || echo "$name: $?" &
done
wait
cat /tmp/*.out''' % (' '.join(MANY), helpers.XUSBIP, REMOTE), timeout=180)
    lines = said.splitlines()
    assert len(lines) == len(MANY), said
    assert all(line.startswith('attached ') for line in lines), said


def check_first_sectors(xen, u1, ports):
    """Each disk is the one that its port's record names."""
    records = u1.check('cd /var/run/vhci_hcd; for f in port*; do '
                       'echo $f $(cat $f); done')
    names = {int(words[0].removeprefix('port')): words[3]
             for words in map(str.split, records.splitlines())}
    assert sorted(names.values()) == sorted(MANY)
    for port in ports:
        name = names[port.port]
        assert name.startswith('high' if port.hub == 'hs' else 'super')
        disk = helpers.block_device(u1, port.busid, limit=40)
        assert parts.digest_within(u1, f'/dev/{disk}') == parts.digest(
            parts.image_path(xen, f'{name}.img')), name


@bed.test(limit=240)
def a_guest_without_a_network_uses_a_device_of_another_host(xen):
    u1 = get_user(xen)
    tls.issue(xen, '/run/lab', 'gateway', 'lab', '127.0.0.1')
    tls.issue(xen, '/run/dom0', 'client', 'dom0')
    xen.check(f'''cat > /run/lab.conf <<'END'
listen = {{ "tls:127.0.0.1" }}
runtime_dir = "/run/lab/xusbip"
tls_dir = "/run/lab"
disk "far" {{ image = "/share/small.img" peers = {{ "dom0" }} }}
END
cp /run/gateway.conf /run/gateway.conf.before
cat >> /run/gateway.conf <<'END'
remote "lab" {{ address = "tls:127.0.0.1" tls_dir = "/run/dom0" }}
export {{ remote = "lab" domains = {{ "u1" }} }}
END''')
    lab = xen.spawn(f'{helpers.GATEWAY} -c /run/lab.conf')
    helpers.wait_for_line(lab, 'ready')
    parts.reload(xen, xen.gateway)

    assert 'far@lab' in listed(u1)
    port = helpers.attach(u1, 'far@lab', REMOTE)
    parts.rewrite(u1, helpers.block_device(u1, port.busid),
                  parts.image_path(xen, 'small.img'))

    lab.stop()
    helpers.wait_nothing_left(u1, limit=20)
    xen.check('mv /run/gateway.conf.before /run/gateway.conf')
    parts.reload(xen, xen.gateway)


@bed.test(limit=540)
def all_ports_of_a_guest_are_attached_and_detached_at_the_same_moment(xen):
    u1 = get_user(xen)
    before = xen.leftovers()

    attach_all(u1)
    ports = helpers.used_vhci_ports(u1)
    assert len(ports) == len(MANY)
    assert {port.status for port in ports} == {helpers.VHCI_PORT_USED}
    check_first_sectors(xen, u1, ports)

    numbers = ' '.join(str(port.port) for port in ports)
    u1.check(f'for port in {numbers}; do {helpers.XUSBIP} detach -p $port & '
             'jobs="$jobs $!"; done; for job in $jobs; do wait $job || exit; '
             'done', timeout=120)
    assert not helpers.used_vhci_ports(u1)
    helpers.wait_nothing_left(u1, limit=30)
    xen.check_no_leftovers(before, limit=30)


@bed.test(limit=300)
def too_few_pages_to_grant_are_told_on_both_sides(xen):
    u1 = get_user(xen)
    before = xen.leftovers()['grants']
    xen.gateway.stop()

    poor = parts.start_gateway(xen, CONFIG, gntalloc_limit=400)
    helpers.wait_for_line(poor, 'xen_gntalloc grants 400 pages, enough for 3 '
                                'attachments, of which one guest gets half: ')
    zero = helpers.attach(u1, 'zero0', REMOTE)
    # It has had 129 of its 200 pages, so half of the ring is what is left.
    shared = helpers.attach(u1, 'shared', REMOTE)
    helpers.wait_for_line(poor, 'gets smaller rings')
    parts.rewrite(u1, helpers.block_device(u1, shared.busid),
                  parts.image_path(xen, 'shared.img'))
    lists = [xusbip(u1, f'list -r {REMOTE}').status for _ in range(6)]
    assert lists[0] == 0 and lists[-1] == EXIT_BUSY, lists
    check_refused(u1, f'attach -r {REMOTE} -b high0', EXIT_BUSY,
                  "its share, half of xen_gntalloc's limit")
    helpers.wait_for_line(poor, 'channel refused: this domain has had its '
                                'share')
    # Together, so that nothing is left of the one while the other goes.
    helpers.detach(u1, zero)
    detach(u1, shared)
    poor.stop()

    xen.gateway = parts.start_gateway(xen, CONFIG)
    detach(u1, helpers.attach(u1, 'shared', REMOTE))
    helpers.wait_for('nothing is granted',
                     lambda: xen.leftovers()['grants'] == before)


if __name__ == '__main__':
    bed.main(Xen('usb', mem=2304))
