#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The bed itself: what the other files of tests on Xen take for granted."""

import os
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import bed  # noqa: E402
import helpers  # noqa: E402
from guest import CommandError  # noqa: E402
from xen import DomainError, Xen  # noqa: E402

NUM_GUESTS = 4


def get(xen, name='u1'):
    """The guest of this name, which tests share while it lives."""
    for domain in xen.inner_guests():
        if domain.name == name:
            return domain
    domain = xen.create(name)
    print(f'# domain {name} answers {domain.boot_s:.1f} s after its creation',
          flush=True)
    return domain


@bed.test
def the_hypervisor_is_the_one_of_the_distribution(xen):
    info = xen.check('xl info')

    assert 'xen_major              : 4' in info, info
    assert 'xen_minor              : 17' in info, info
    assert [domain.name for domain in xen.domains()] == ['Domain-0']


@bed.test
def a_device_plugged_into_the_machine_is_the_dom0s(xen):
    xen.plug('usb-tablet', 'tablet')
    busid = helpers.find_usb(xen, '0627:0001')

    xen.unplug('tablet')

    helpers.wait_usb_gone(xen, busid)


@bed.test
def guests_run_commands_at_the_same_time(xen):
    first, second = get(xen, 'u1'), get(xen, 'u2')

    jobs = [domain.spawn(f'sh -c "echo {domain.name}; sleep 1; exit {number}"')
            for number in range(4) for domain in (first, second)]

    assert [job.wait() for job in jobs] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [job.log() for job in jobs] == ['u1\n', 'u2\n'] * 4
    assert first.uuid != second.uuid


@bed.test
def guests_that_share_a_processor_keep_their_registers(xen):
    program = ("'BEGIN { for (n = 0; n < 100000; n++) s += n * 0.5; "
               "print s }'")
    expected = xen.check(f'busybox awk {program}')

    jobs = [domain.spawn(f'awk {program}') for _ in range(3)
            for domain in (get(xen, 'u1'), get(xen, 'u2'))]

    assert [job.wait(60) for job in jobs] == [0] * len(jobs)
    assert [job.log() for job in jobs] == [expected] * len(jobs)


@bed.test
def status_and_output_of_a_guests_command_come_back(xen):
    u1 = get(xen)

    assert u1.run('echo out; echo err >&2; exit 3') == (3, 'out\nerr\n')
    assert u1.run('printf "no end of line"') == (0, 'no end of line')
    assert u1.run('kill -9 $$').status == 128 + 9


@bed.test
def a_long_output_and_a_long_command_come_through_whole(xen):
    u1 = get(xen)
    text = ''.join(f'{number}\n' for number in range(10000))

    assert u1.check('seq 0 9999') == text
    assert u1.check(f"cat <<'END'\n{text}END") == text


@bed.test
def many_messages_of_the_guests_kernel_do_no_harm(xen):
    u1 = get(xen)
    noise = u1.spawn('sh -c "while echo \'<0>noise\' > /dev/kmsg; do '
                     'sleep 0.05; done"')

    answers = [u1.run('seq 100') for _ in range(10)]

    noise.stop()
    expected = ''.join(f'{number}\n' for number in range(1, 101))
    assert answers == [(0, expected)] * 10
    assert 'noise' in u1.console_tail()


@bed.test
def a_guests_command_that_takes_too_long_is_ended_with_its_children(xen):
    u1 = get(xen)

    status, output = u1.run('echo begun; sleep 1234 & sleep 1234', timeout=2)

    assert (status, output) == (124, 'begun\n')
    helpers.wait_for('its children are gone',
                     lambda: u1.run('pgrep -x sleep').status != 0)


@bed.test
def a_guest_has_what_xusbip_needs(xen):
    u1 = get(xen)

    u1.check('modprobe -a vhci-hcd usbtest usb-storage usbhid')
    u1.check('ls /dev/xen/evtchn /dev/xen/gntalloc /dev/xen/gntdev '
             '/dev/xen/xenbus')
    assert 'Imported USB devices' in u1.check('usbip port')
    assert u1.check('xenstore-read name') == 'u1\n'
    for program in (helpers.XUSBIP, helpers.GATEWAY, helpers.AGENT):
        assert 'xusbip' in u1.run(f'{program} --help').output
    u1.check('rmmod vhci_hcd')


@bed.test
def a_saved_guest_goes_on_where_it_was(xen):
    u1 = get(xen)
    job = u1.spawn('sh -c "trap \'echo bye; exit 7\' TERM; echo up; '
                   'while :; do sleep 0.1; done"')
    helpers.wait_for('the job says up', lambda: job.log() == 'up\n')
    domid, uuid = u1.domid, u1.uuid

    u1.save('/tmp/u1.save')
    gone = [domain.name for domain in xen.domains()]
    u1.restore('/tmp/u1.save')

    assert 'u1' not in gone
    assert u1.domid != domid and u1.uuid == uuid
    assert job.is_alive()
    assert job.stop() == 7
    assert job.log() == 'up\nbye\n'
    xen.check('rm /tmp/u1.save')


@bed.test
def a_paused_guest_goes_on_when_it_is_unpaused(xen):
    u1 = get(xen)

    u1.pause()
    paused = [domain.name for domain in xen.domains() if 'p' in domain.state]
    u1.unpause()

    assert paused == ['u1']
    u1.check('true')


@bed.test
def a_rebooted_guest_has_a_new_domid_and_the_same_uuid(xen):
    u1 = get(xen)
    domid, uuid = u1.domid, u1.uuid
    u1.check('touch /tmp/mark')

    u1.reboot()

    assert u1.domid != domid and u1.uuid == uuid
    assert u1.run('ls /tmp/mark').status != 0


@bed.test
def a_guest_that_ends_by_itself_is_noticed_at_once(xen):
    u1 = get(xen)
    began = time.monotonic()

    try:
        u1.run('poweroff; sleep 50', timeout=60)
    except DomainError as error:
        assert 'ended during' in str(error)
    else:
        raise AssertionError('a guest answered after its end')

    assert time.monotonic() - began < 30
    u1.wait_gone()


@bed.test
def a_guest_that_crashes_shows_its_last_words(xen):
    u1 = get(xen)

    try:
        u1.run('echo c > /proc/sysrq-trigger', timeout=60)
    except DomainError as error:
        assert 'sysrq' in str(error)
    else:
        raise AssertionError('a guest answered after its crash')

    u1.wait_gone()


@bed.test
def guests_that_end_in_any_way_leave_nothing(xen):
    for domain in xen.inner_guests():
        domain.destroy()
    before = xen.leftovers()
    assert before['domains'] == ['Domain-0 0 '], before
    domains = [xen.create(f'g{number}') for number in range(NUM_GUESTS)]
    assert xen.leftovers() != before

    domains[0].destroy()
    domains[1].shutdown()
    domains[2].save('/tmp/saved')
    with domains[3]:
        pass

    assert [domain.name for domain in xen.domains()] == ['Domain-0']
    xen.check_no_leftovers(before)
    xen.check('rm /tmp/saved')


@bed.test
def what_is_left_behind_is_told(xen):
    before = xen.leftovers()
    xen.check('xenstore-write /local/domain/0/data/xusbip/7/state 1')
    job = xen.spawn('bash -c "exec -a xusbip-fake sleep 100"')

    try:
        xen.check_no_leftovers(before, limit=1)
    except CommandError as error:
        assert 'data/xusbip/7/state' in str(error)
    else:
        raise AssertionError('a node in xenstore was not seen')

    job.stop()
    xen.check('xenstore-rm /local/domain/0/data')
    xen.check_no_leftovers(before)


@bed.test
def a_guest_that_refuses_to_be_saved_goes_on(xen):
    before = xen.leftovers()
    address = xen.bridge()
    xen.check('modprobe usbip-host')
    xen.plug('usb-tablet', 'tablet')
    busid = helpers.find_usb(xen, '0627:0001')
    server = xen.spawn('usbipd')
    xen.check(f'usbip bind -b {busid}')

    with xen.create('net', vif=True) as net:
        net.check('modprobe vhci-hcd')
        helpers.wait_until(net, f'usbip list -r {address}')
        net.check(f'usbip attach -r {address} -b {busid}')
        imported = helpers.find_usb(net, '0627:0001')
        domid = net.domid
        try:
            net.save('/tmp/net.save')
        except CommandError as error:
            assert 'suspend' in str(error), error
        else:
            raise AssertionError('vhci let itself be suspended in use')

        assert net.domid == domid
        assert helpers.find_usb(net, '0627:0001') == imported
        net.check('usbip detach -p 00')
        helpers.wait_vhci_ports_free(net)

    server.stop()
    xen.check(f'rm /tmp/net.save; usbip unbind -b {busid}')
    xen.unplug('tablet')
    xen.check_no_leftovers(before)


@bed.test
def a_pvh_guest_is_a_guest_like_any_other(xen):
    with xen.create('pvh', kind='pvh') as pvh:
        assert 'PVH' in pvh.check('dmesg | grep Booting')


if __name__ == '__main__':
    bed.main(Xen('bed'))
