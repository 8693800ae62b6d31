#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The administrator's side, on real Xen: devices that are given to a guest and
stay with it whatever ends in between, and guests that are held still, saved and
restored with their data."""

import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import bed  # noqa: E402
import helpers  # noqa: E402
import parts  # noqa: E402
from guest import CommandError  # noqa: E402
from parts import (REMOTE, check_refused, check_xusbip,  # noqa: E402
                   wait_busids, xusbip)
from xen import Xen  # noqa: E402

DISK_BYTES = 4 << 20
SAVED = '/tmp/saved'
SLEEP_HOOK = os.path.join(HERE, '..', '..', 'etc', 'systemd-sleep', 'xusbip')
EXIT_NO_DEVICE, EXIT_BUSY, EXIT_TIMEOUT, EXIT_NO_DOMAIN = 3, 7, 11, 13
CONFIG = f'''
export {{ vendor = "{parts.STICK[:4]}" domains = {{ "u1" }} }}
disk "disk" {{ image = "/share/disk.img" domains = {{ "u1" }} }}
zero "zero" {{ domains = {{ "u1" }} }}
'''


@bed.setup
def start_gateway_and_agent(xen):
    xen.check('modprobe usb-storage')
    parts.make_image(xen, 'small.img', DISK_BYTES)
    parts.make_image(xen, 'disk.img', DISK_BYTES)
    xen.gateway = parts.start_gateway(xen, CONFIG)
    xen.create('u1', memory=256)
    prepare(xen)


def prepare(xen):
    """A guest that has just booted."""
    u1, = xen.guests
    u1.check('modprobe -a vhci-hcd usb-storage')
    u1.agent = parts.start_agent(u1)


def give(xen, busid, options=''):
    said = check_xusbip(xen, f'attach --to u1 -b {busid} {options}')
    assert said.startswith(f'attached {busid} to u1 at its port '), said


def take(xen, busid):
    said = check_xusbip(xen, f'detach --from u1 -b {busid}')
    assert said == f'detached {busid} from u1\n', said


def end(xen, before):
    """Nothing is attached, nothing is left."""
    u1, = xen.guests
    wait_busids(u1)
    helpers.wait_nothing_left(u1, limit=15)
    helpers.wait_for('the pages are given back', lambda: (
        xen.leftovers()['gntalloc_pages'] == before['gntalloc_pages']), 20)
    wanted = xen.run('xenstore-ls -f | grep data/xusbip/.*/want/').output
    assert not wanted, wanted


def disk_of(domain, remote_busid):
    """The name of the disk that this device of the gateway is in the guest."""
    number = domain.check(f'cd /var/run/vhci_hcd; grep -l " {remote_busid}$" '
                          'port*').strip().removeprefix('port')
    port, = [port for port in helpers.used_vhci_ports(domain)
             if port.port == int(number)]
    return helpers.block_device(domain, port.busid)


def check_disk(xen, name='disk', busid='disk'):
    u1, = xen.guests
    disk = disk_of(u1, busid)
    assert parts.digest_within(u1, f'/dev/{disk}') == parts.digest(
        parts.image_path(xen, f'{name}.img'))


def write_disk(xen):
    """Writes all of it anew."""
    u1, = xen.guests
    u1.check(f'dd if=/dev/urandom of=/dev/{disk_of(u1, "disk")} bs=256k '
             f'count={DISK_BYTES >> 18} conv=fsync status=none', timeout=90)
    check_disk(xen)


@bed.test(limit=240)
def what_a_guest_is_told_to_take_and_cannot_is_said_with_the_reason(xen):
    for words, status, reason in (
            ('attach --to nobody -b disk', EXIT_NO_DOMAIN,
             'no domain nobody is served by this gateway; u1 ('),
            ('attach --to u1 -b 9-9', EXIT_NO_DEVICE,
             'u1 did not attach 9-9: '),
            ('detach --from u1 -b disk', EXIT_NO_DEVICE,
             'u1 has no device disk of this gateway')):
        check_refused(xen, words, status, reason)


@bed.test(limit=300)
def what_persists_comes_back_with_the_device_and_with_each_daemon(xen):
    u1, = xen.guests
    before = xen.leftovers()
    busid = parts.plug_stick(xen)
    give(xen, busid, '--persist')
    check_refused(xen, f'attach --to u1 -b {busid}', EXIT_BUSY,
                  'has been told to take')

    xen.unplug('stick')
    wait_busids(u1)
    helpers.wait_usb_gone(xen, busid)
    parts.insert_stick(xen)
    wait_busids(u1, busid)

    u1.agent.stop()
    u1.agent = parts.start_agent(u1)
    xen.gateway.stop()
    xen.gateway = parts.start_gateway(xen, CONFIG)
    wait_busids(u1, busid)
    check_disk(xen, 'small', busid)
    xen.check('pkill -KILL -x xusbip-session')
    helpers.wait_for_line(u1.agent, f'{busid} was lost', 20)
    wait_busids(u1, busid)

    take(xen, busid)
    parts.unplug_stick(xen, busid)
    end(xen, before)


@bed.test(limit=300)
def what_persists_comes_back_with_a_rebooted_guest_and_the_rest_does_not(xen):
    u1, = xen.guests
    before = xen.leftovers()
    give(xen, 'disk', '--persist')
    give(xen, 'zero')

    u1.reboot()
    prepare(xen)

    wait_busids(u1, 'disk')
    check_disk(xen)
    take(xen, 'disk')
    end(xen, before)
    assert xen.run(f'ls {helpers.STATE_DIR}/want-*').status != 0


@bed.test(limit=400)
def a_guest_is_saved_and_restored_by_the_wrapper_with_its_devices(xen):
    u1, = xen.guests
    before = xen.leftovers()
    give(xen, 'disk', '--persist')
    check_xusbip(u1, f'attach -r {REMOTE} -b zero')
    write_disk(xen)
    domid = u1.domid

    xen.check(f'{parts.WRAPPER} save u1 {SAVED}', timeout=150)
    u1.wait_gone()
    held = xen.check(f'ls {helpers.STATE_DIR}/hold-*')
    assert u1.uuid in held, held
    xen.check(f'{parts.WRAPPER} restore {SAVED}', timeout=150)
    u1.reopen()

    assert u1.domid != domid
    wait_busids(u1, 'disk', 'zero')
    write_disk(xen)
    take(xen, 'disk')
    take(xen, 'zero')
    end(xen, before)
    assert xen.run(f'ls {helpers.STATE_DIR}/hold-*').status != 0
    xen.check(f'rm {SAVED}')


@bed.test(limit=240)
def a_guest_held_still_gets_no_device_until_it_is_resumed(xen):
    u1, = xen.guests
    before = xen.leftovers()
    give(xen, 'disk')

    said = check_xusbip(xen, 'quiesce u1')
    assert said == 'u1: it has let go of its devices\n', said
    assert not helpers.used_vhci_ports(u1)
    check_refused(u1, f'attach -r {REMOTE} -b zero', EXIT_BUSY,
                  'the gateway holds this domain still', 'xusbip resume')
    check_refused(xen, 'attach --to u1 -b zero', EXIT_BUSY,
                  'u1 is quiesced; first: xusbip resume u1')

    check_xusbip(xen, 'resume u1')
    wait_busids(u1, 'disk')
    check_disk(xen)
    assert check_xusbip(xen, 'resume u1') == 'u1: it was not held\n'
    wait_busids(u1, 'disk')
    take(xen, 'disk')
    end(xen, before)


def run_sleep_hook(domain, when):
    """As systemd-sleep does, of which a guest here has nothing else."""
    with open(SLEEP_HOOK, encoding='ascii') as hook:
        domain.check(f'''mkdir -p /run/hook; cd /run/hook
cat > sleep <<'END'
{hook.read()}
END
printf '#!/bin/sh\n[ "$*" = "--quiet is-active xusbip-frontend.service" ]\n' \
	> systemctl
chmod +x systemctl; ln -sf {helpers.XUSBIP} xusbip
PATH=/run/hook:$PATH sh sleep {when} suspend''', timeout=60)


@bed.test(limit=240)
def the_sleep_hook_takes_a_guests_devices_away_and_back(xen):
    u1, = xen.guests
    before = xen.leftovers()
    give(xen, 'disk', '--persist')
    check_xusbip(u1, f'attach -r {REMOTE} -b zero')

    run_sleep_hook(u1, 'pre')
    helpers.wait_nothing_left(u1, limit=1)

    run_sleep_hook(u1, 'post')
    wait_busids(u1, 'disk', 'zero')
    check_disk(xen)
    take(xen, 'disk')
    take(xen, 'zero')
    end(xen, before)


@bed.test(limit=300)
def a_guest_without_an_agent_is_held_still_when_its_time_is_over(xen):
    u1, = xen.guests
    before = xen.leftovers()
    u1.agent.stop()
    check_xusbip(u1, f'attach -r {REMOTE} -b disk')

    check_refused(xen, 'quiesce u1', EXIT_TIMEOUT, 'u1: it is held, but '
                  'its agent did not answer: what it had was taken from it')
    helpers.wait_nothing_left(u1, limit=15)
    u1.save(SAVED)
    u1.restore(SAVED)

    helpers.wait_for('the gateway knows it again', lambda: xusbip(
        xen, 'resume u1').status != EXIT_NO_DOMAIN, 30)
    check_xusbip(u1, f'attach -r {REMOTE} -b disk')
    check_disk(xen)
    take(xen, 'disk')
    u1.agent = parts.start_agent(u1)
    end(xen, before)
    xen.check(f'rm {SAVED}')


@bed.test(limit=300)
def a_guest_that_is_not_quiesced_does_not_let_itself_be_saved(xen):
    u1, = xen.guests
    before = xen.leftovers()
    give(xen, 'disk')
    domid = u1.domid
    # Linux waits for drivers that are being loaded, and says so at length.
    disk_of(u1, 'disk')

    try:
        u1.save(SAVED)
    except CommandError:
        pass
    else:
        raise AssertionError('it was saved')

    assert u1.domid == domid
    wait_busids(u1, 'disk')
    write_disk(xen)
    take(xen, 'disk')
    end(xen, before)


@bed.test(limit=240)
def a_guest_paused_in_the_middle_of_io_goes_on(xen):
    u1, = xen.guests
    before = xen.leftovers()
    give(xen, 'disk')
    disk = disk_of(u1, 'disk')
    writer = u1.spawn(
        f"bash -c 'for n in 1 2 3; do dd if=/dev/urandom of=/dev/{disk} "
        f"bs=64k count={DISK_BYTES >> 16} conv=fsync status=none || exit; "
        "done'")
    helpers.wait_until(
        u1, f"[ $(awk '{{ print $5 }}' /sys/block/{disk}/stat) -gt 5 ]", 20)

    for _ in range(3):
        u1.pause()
        # The gateway looks after all of its guests, this one too.
        check_refused(xen, 'detach --from u1 -b zero', EXIT_NO_DEVICE)
        u1.unpause()
        u1.check('true')

    assert writer.wait(90) == 0, writer.log()
    check_disk(xen)
    take(xen, 'disk')
    end(xen, before)


if __name__ == '__main__':
    bed.main(Xen('push'))
