#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The bed itself: what the other files of tests take for granted."""

import os
import socket
import subprocess
import sys
import time

import bed
import helpers
from guest import CommandError, Guest, GuestError


@bed.test
def the_kernel_is_the_one_of_the_distribution(guest):
    release = guest.check('uname -r').strip()

    assert release.endswith('-amd64') and 'cloud' not in release, release
    guest.check(f'test -d /lib/modules/{release}/kernel')


@bed.test
def the_modules_that_usbip_needs_load(guest):
    guest.check('modprobe -a vhci-hcd usbip-host usbtest dummy_hcd')


@bed.test
def the_host_file_system_is_not_changed_by_a_guest(guest):
    name = f'/etc/xusbip-bed-{os.getpid()}'

    guest.check(f'echo x > {name}; cat {name}')
    status, _ = guest.run('touch /xusbip/README')

    assert not os.path.exists(name)
    assert status != 0


@bed.test
def status_and_output_of_a_command_come_back(guest):
    assert guest.run('echo out; echo err >&2; exit 3') == (3, 'out\nerr\n')
    assert guest.run('kill -9 $$').status == 128 + 9


@bed.test
def a_command_that_takes_too_long_is_ended_with_its_children(guest):
    began = time.monotonic()
    status, output = guest.run('echo begun; sleep 1234 & sleep 1234',
                               timeout=2)

    assert (status, output) == (124, 'begun\n')
    assert time.monotonic() - began < 12
    helpers.wait_for('its children are gone',
                     lambda: not helpers.pids(guest, 'sleep'))


@bed.test
def a_job_goes_on_while_commands_run_and_tells_its_end(guest):
    job = guest.spawn('sh -c "trap \'echo bye; exit 7\' TERM; echo up; '
                      'while :; do sleep 0.1; done"')
    helpers.wait_for('the job says up', lambda: job.log() == 'up\n')

    guest.check(f'kill -0 {job.pid}')

    assert job.is_alive()
    assert job.stop() == 7
    assert job.log() == 'up\nbye\n'


@bed.test
def a_daemon_survives_the_command_that_started_it(guest):
    guest.check('setsid sleep 4321 < /dev/null & echo $! > /tmp/daemon')

    guest.check('kill -0 $(cat /tmp/daemon); kill $(cat /tmp/daemon)')


@bed.test
def many_commands_run_at_once(guest):
    jobs = [guest.spawn(f'sh -c "sleep 1; exit {number}"')
            for number in range(8)]

    assert [job.wait() for job in jobs] == list(range(8))


@bed.test
def a_failed_command_is_told_with_its_output(guest):
    try:
        guest.check('echo why; false')
    except CommandError as error:
        assert 'status 1' in str(error) and 'why' in str(error)
    else:
        raise AssertionError('check() accepted a failure')


@bed.test
def a_plugged_device_is_listed_and_an_unplugged_one_is_not(guest):
    guest.plug('usb-kbd', 'kbd')
    busid = helpers.find_usb(guest, '0627:0001')
    helpers.wait_until(guest, 'lsusb -d 0627:0001 && ls /dev/input/by-id')
    assert helpers.interface_drivers(guest, busid) == ['usbhid']

    guest.unplug('kbd')

    helpers.wait_usb_gone(guest, busid)
    assert guest.run('lsusb -d 0627:0001').status != 0


@bed.test
def injected_keys_reach_the_guest(guest):
    guest.plug('usb-kbd', 'kbd')
    busid = helpers.find_usb(guest, '0627:0001')
    node = '/dev/input/by-id/usb-*-event-kbd'
    helpers.wait_until(guest, f'test -e {node}')
    job = guest.spawn(f'timeout 20 head -c 48 {node}')
    helpers.wait_until(guest, 'ls -l /proc/$(pgrep -x head)/fd | grep event')

    guest.press('a')

    assert job.wait() == 0
    guest.unplug('kbd')
    helpers.wait_usb_gone(guest, busid)


@bed.test
def a_plugged_disk_holds_what_the_host_wrote(guest):
    image = os.path.join(guest.share, 'disk.img')
    with open(image, 'wb') as f:
        f.write(b'written by the host'.ljust(1 << 20, b'\0'))
    guest.add_drive('stick', image)
    guest.plug('usb-storage', 'disk', drive='stick')

    disk = helpers.block_device(guest, helpers.find_usb(guest, '46f4:0001'))

    assert guest.check(f'head -c 19 /dev/{disk}') == 'written by the host'
    guest.unplug('disk')
    guest.remove_drive('stick')


def check_drivers(guest, ident, drivers):
    busid = helpers.find_usb(guest, ident)
    helpers.wait_for(
        f'{ident} is bound to {drivers}',
        lambda: helpers.interface_drivers(guest, busid) == drivers)


@bed.test(limit=120)
def each_kind_of_emulated_device_gets_its_driver(guest):
    guest.qmp('chardev-add', id='line',
              backend={'type': 'null', 'data': {}})
    guest.plug('usb-serial', 'serial', chardev='line', always_plugged=True)
    guest.plug('usb-audio', 'audio', audiodev='sound', buffer=262144)
    guest.plug('usb-ccid', 'ccid')
    guest.plug('usb-mtp', 'mtp', rootdir=guest.share)
    # SCSI over USB waits to be attached until its disks are in their place.
    guest.qmp('blockdev-add', driver='null-co', node_name='empty', size=1 << 20)
    guest.plug('usb-uas', 'uas')
    guest.plug('scsi-hd', 'scsi', bus='uas.0', drive='empty')
    guest.qmp('qom-set', path='/machine/peripheral/uas', property='attached',
              value=True)

    check_drivers(guest, '0403:6001', ['ftdi_sio'])
    check_drivers(guest, '46f4:0002', ['snd-usb-audio'] * 2)
    check_drivers(guest, '08e6:4433', [''])
    check_drivers(guest, '46f4:0004', [''])
    check_drivers(guest, '46f4:0003', ['uas'])

    for device in ('serial', 'audio', 'ccid', 'mtp', 'uas'):
        guest.unplug(device)
    helpers.wait_for('no device is left',
                     lambda: not helpers.usb_devices(guest))
    guest.qmp('chardev-remove', id='line')
    guest.remove_drive('empty')


@bed.test
def stock_usbip_lists_local_devices_and_ports(guest):
    guest.check('modprobe -a usbip-host vhci-hcd')
    guest.plug('usb-tablet', 'tablet')
    busid = helpers.find_usb(guest, '0627:0001')

    assert f'busid {busid} (0627:0001)' in guest.check('usbip list -l')
    assert 'Imported USB devices' in guest.check('usbip port')
    assert helpers.vhci_ports(guest)
    assert not helpers.used_vhci_ports(guest)
    guest.unplug('tablet')
    helpers.wait_usb_gone(guest, busid)


@bed.test(limit=120)
def stock_usbip_attaches_over_loopback(guest):
    guest.check('modprobe -a usbip-host vhci-hcd')
    guest.plug('usb-tablet', 'tablet')
    busid = helpers.find_usb(guest, '0627:0001', '0000:00')
    server = guest.spawn('usbipd')
    helpers.wait_until(guest, 'usbip list -r 127.0.0.1')
    guest.check(f'usbip bind -b {busid}')

    guest.check(f'usbip attach -r 127.0.0.1 -b {busid}')
    imported = helpers.find_usb(guest, '0627:0001', 'vhci_hcd')

    assert [port.busid for port in helpers.used_vhci_ports(guest)] == [imported]
    guest.check('usbip detach -p 00')
    helpers.wait_vhci_ports_free(guest)
    guest.check(f'usbip unbind -b {busid}')
    server.stop()
    guest.unplug('tablet')


def is_gone(pid):
    """No such process, or only its entry is left for whoever inherited it."""
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii') as f:
            return f.read().rsplit(')', 1)[1].split()[0] == 'Z'
    except FileNotFoundError:
        return True


def check_sourcesink(guest, speed):
    busid = helpers.gadget_sourcesink(guest, speed=speed)

    verdicts = helpers.usbtest(guest, busid)

    failed = {case: verdict for case, verdict in verdicts.items()
              if verdict not in ('ok', helpers.NOT_OFFERED)}
    assert not failed, failed
    passed = {case for case, verdict in verdicts.items() if verdict == 'ok'}
    assert passed == helpers.SOURCESINK_CASES, (
        passed ^ helpers.SOURCESINK_CASES)
    helpers.gadget_remove(guest)


@bed.test(limit=120)
def a_high_speed_gadget_passes_usbtest_locally(guest):
    check_sourcesink(guest, 'high')


@bed.test(limit=120)
def a_superspeed_gadget_passes_usbtest_locally(guest):
    check_sourcesink(guest, 'super')


@bed.test
def processes_and_their_descriptors_are_counted(guest):
    job = guest.spawn('sleep 2345')

    assert helpers.pids(guest, 'sleep') == [job.pid]
    assert helpers.count_fds(guest, job.pid) == 3
    assert 0 < helpers.own_memory_kib(guest, job.pid) < 10000
    job.stop()
    assert helpers.pids(guest, 'sleep') == []


@bed.test
def a_guest_ends_with_the_process_that_started_it(_):
    script = ('import time, guest\n'
              'g = guest.Guest("bed-orphan")\n'
              'print(g.launch().pid, flush=True)\n'
              'time.sleep(60)')
    with subprocess.Popen([sys.executable, '-c', script], text=True,
                          cwd=os.path.dirname(os.path.abspath(__file__)),
                          stdout=subprocess.PIPE) as starter:
        qemu = int(starter.stdout.readline())
        assert os.path.exists(f'/proc/{qemu}')
        starter.kill()

    helpers.wait_for('QEMU has ended', lambda: is_gone(qemu))


@bed.test
def a_name_is_taken_while_its_guest_runs(guest):
    try:
        Guest(guest.name).start()
    except GuestError as error:
        assert 'runs already' in str(error)
    else:
        raise AssertionError('two guests have one name')


@bed.test(limit=120)
def a_guest_with_a_network_reaches_the_host_and_is_reached(guest):
    port = helpers.free_host_port()
    with socket.create_server(('127.0.0.1', 0)) as server, \
            Guest('bed-net', smp=1, hostfwd=[(port, 7)]) as other:
        server.settimeout(20)
        server_port = server.getsockname()[1]
        other.check(f'echo hello > /dev/tcp/10.0.2.2/{server_port}')
        connection, _ = server.accept()
        with connection:
            assert connection.recv(100) == b'hello\n'

        other.spawn('busybox nc -l -p 7 -e echo hello')
        helpers.wait_until(other, 'ss -Htln sport = :7 | grep .')
        with socket.create_connection(('127.0.0.1', port), 20) as connection:
            assert connection.recv(100) == b'hello\n'


@bed.test(kernel_may_complain=True)
def a_complaint_of_the_kernel_is_seen(guest):
    assert not bed.kernel_complaints(guest)

    guest.check('echo "BUG: made up" > /dev/kmsg')

    assert len(bed.kernel_complaints(guest)) == 1


@bed.test
def a_dead_kernel_is_noticed_at_once_with_its_last_words(guest):
    began = time.monotonic()
    try:
        guest.run('echo c > /proc/sysrq-trigger', timeout=60)
    except GuestError as error:
        assert 'sysrq' in str(error)
    else:
        raise AssertionError('the guest survived a crash')
    assert time.monotonic() - began < 20


if __name__ == '__main__':
    bed.main(Guest('bed', devices=[
        '-audiodev', 'none,id=sound,out.mixing-engine=off']))
