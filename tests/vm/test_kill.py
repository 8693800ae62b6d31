#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sudden death, and what many attachments leave behind. While fio writes and
verifies, each process in turn gets SIGKILL: at worst the attachment ends, and
within three seconds of the guest's clock everything that it held is free: the
port of vhci_hcd, the processes, the record, the gateway's claim, and the
device, which is back with its driver. What is not in the path of the data may
die without it."""

import os
import re

import bed
import helpers
from guest import Guest

STICK = '46f4:0001'
STICK_DRIVER = 'usb-storage'
STICK_BYTES = 64 << 20
LIMIT_MS = 3000
CONFIG = '''
export { vendor = "46f4" }
zero "zero0" { }'''
EXIT_BUSY = 7
STOCK_ATTACH = 'usbip attach -r 127.0.0.1'

CYCLES_ZERO = 145
CYCLES_STICK = 50
CYCLES_AGENT = 5
WARM_UP = 3
SLACK_FREE_KIB = 8000
SLACK_SLAB_KIB = 3000
SLACK_RSS_KIB = 256


@bed.setup
def start_everything(guest):
    guest.check('dmesg -n 1; modprobe vhci-hcd')
    guest.check('modprobe usb-storage delay_use=0')
    guest.spawn('busybox syslogd -n -O /tmp/syslog')
    path = os.path.join(guest.share, 'stick.img')
    with open(path, 'wb') as image:
        image.truncate(STICK_BYTES)
    guest.add_drive('stick', path)
    guest.plug('usb-storage', 'stick', drive='stick')
    guest.stick = helpers.find_usb(guest, STICK)
    helpers.block_device(guest, guest.stick)
    guest.gateway = helpers.start_gateway(guest, CONFIG)
    guest.agent = helpers.start_agent(guest)


def attach(guest):
    return helpers.attach(guest, guest.stick)


def attach_by_agent(guest):
    """The stock tool, through the agent's port; a VhciPort."""
    guest.check(f'{STOCK_ATTACH} -b {guest.stick}')
    return helpers.wait_for('the device is there', lambda: [
        port for port in helpers.used_vhci_ports(guest)
        if port.status == helpers.VHCI_PORT_USED])[0]


def wait_for_writes(guest, disk, number):
    """Returns when so many more writes are done."""
    writes = f"$(awk '{{ print $5 }}' /sys/block/{disk}/stat)"
    goal = int(guest.check(f'echo {writes}')) + number
    helpers.wait_until(guest, f'[ {writes} -ge {goal} ]', 90)


def start_io(guest, port):
    """fio on the attached stick, under way; it verifies what it wrote."""
    disk = helpers.block_device(guest, port.busid)
    job = guest.spawn(
        f'nice -n 19 fio --name=io --filename=/dev/{disk} --direct=1 '
        '--ioengine=libaio --iodepth=8 --thread --rw=randwrite --bs=32k '
        '--size=32m --verify=crc32c --verify_fatal=1 --verify_backlog=32 '
        '--verify_state_save=0 --time_based --runtime=100')
    wait_for_writes(guest, disk, 50)
    return job


def check_io_goes_on(guest, job, port):
    """More than the queue held is written and verified; ends the job."""
    wait_for_writes(guest, helpers.block_device(guest, port.busid), 100)
    assert job.is_alive(), job.log()
    job.stop('INT', 30)
    assert 'error' not in job.log(), job.log()


def victim(guest, name):
    """The pid of the one process of this name."""
    found = helpers.pids(guest, name)
    assert len(found) == 1, (name, found)
    return found[0]


def kill_all(guest, limit_ms, *victims):
    """Kills at once; when what was let go, in ms, within the limit."""
    said = guest.check(
        f'tests/vm/kill.py {limit_ms} {helpers.GATEWAY_DIR} {guest.stick} '
        f'{STICK_DRIVER} {" ".join(map(str, victims))}')
    return re.findall(r'^(\w+) (\d+)$', said, re.M)


def kill_and_measure(guest, *victims):
    """Kills at once; all is let go in time, and the times are printed."""
    times = kill_all(guest, LIMIT_MS, *victims)
    print('# ms until free: ' +
          ', '.join(f'{what} {time}' for what, time in times), flush=True)


def check_next_attach(guest):
    """The device can be had again, works, and goes back."""
    port = attach(guest)
    disk = helpers.block_device(guest, port.busid)
    guest.check(f'dd if=/dev/{disk} of=/dev/null bs=1M count=4 iflag=direct')
    helpers.detach(guest, port)
    check_all_is_back(guest)


def check_all_is_back(guest):
    kill_all(guest, 2 * LIMIT_MS)


def check_end(guest, name, attach_it):
    """The attachment ends with the process `name`, in time."""
    port = attach_it(guest)
    job = start_io(guest, port)

    kill_and_measure(guest, victim(guest, name))

    assert job.wait(20) != 0
    check_next_attach(guest)


def check_survival(guest, name):
    """Nothing is lost with the process `name`; the end is orderly."""
    port = attach(guest)
    job = start_io(guest, port)

    guest.check(f'kill -KILL {victim(guest, name)}')

    check_io_goes_on(guest, job, port)
    helpers.detach(guest, port)
    check_all_is_back(guest)


@bed.test(limit=120)
def a_killed_session_ends_its_attachment_and_leaves_nothing(guest):
    check_end(guest, 'xusbip-session', attach)


@bed.test(limit=120)
def a_killed_link_ends_its_attachment_and_leaves_nothing(guest):
    check_end(guest, 'xusbip-link', attach)


@bed.test(limit=120)
def a_killed_keeper_costs_nothing(guest):
    check_survival(guest, 'xusbip-keeper')


@bed.test(limit=120)
def a_killed_standby_costs_nothing(guest):
    check_survival(guest, 'xusbip-standby')


@bed.test(limit=120)
def all_of_one_side_killed_at_once_leaves_nothing(guest):
    job = start_io(guest, attach(guest))
    kill_and_measure(guest, victim(guest, 'xusbip-link'),
                     victim(guest, 'xusbip-keeper'))
    job.wait(20)

    job = start_io(guest, attach(guest))
    kill_and_measure(guest, victim(guest, 'xusbip-link'),
                     victim(guest, 'xusbip-session'))
    job.wait(20)
    check_next_attach(guest)


@bed.test(limit=120)
def a_killed_link_of_the_agent_ends_its_attachment_and_leaves_nothing(guest):
    check_end(guest, 'xusbip-link', attach_by_agent)


@bed.test(limit=120)
def a_killed_session_ends_an_attachment_of_the_agent(guest):
    check_end(guest, 'xusbip-session', attach_by_agent)


@bed.test(limit=120)
def a_killed_agent_costs_nothing_and_a_new_one_goes_on(guest):
    port = attach_by_agent(guest)
    job = start_io(guest, port)

    guest.agent.stop('KILL')
    check_io_goes_on(guest, job, port)
    guest.agent = helpers.start_agent(guest)

    guest.check(f'usbip detach -p {port.port}')
    check_all_is_back(guest)
    check_end(guest, 'xusbip-link', attach_by_agent)


@bed.test(limit=180)
def an_attachment_outlives_the_manager_and_is_known_to_the_next(guest):
    port = attach(guest)
    job = start_io(guest, port)

    guest.gateway.stop('KILL')
    guest.gateway = helpers.start_gateway(guest, CONFIG)
    status, said = guest.run(f'{helpers.XUSBIP} attach -r '
                             f'{helpers.GATEWAY_ADDRESS} -b {guest.stick}')

    assert status == EXIT_BUSY and len(said.splitlines()) == 1, said
    check_io_goes_on(guest, job, port)
    helpers.detach(guest, port)
    check_all_is_back(guest)
    check_next_attach(guest)


@bed.test(limit=180)
def what_died_with_the_manager_is_put_back_by_the_next(guest):
    job = start_io(guest, attach(guest))
    guest.check(f'kill -KILL {guest.gateway.pid} '
                f'{victim(guest, "xusbip-session")}')
    job.wait(20)
    helpers.wait_vhci_ports_free(guest)

    guest.gateway = helpers.start_gateway(guest, CONFIG)
    kill_and_measure(guest)
    check_next_attach(guest)

    # The session of an attachment that the new manager did not start.
    job = start_io(guest, attach(guest))
    guest.gateway.stop('KILL')
    guest.gateway = helpers.start_gateway(guest, CONFIG)
    kill_and_measure(guest, victim(guest, 'xusbip-session'))
    job.wait(20)
    check_next_attach(guest)


# Many attachments

CYCLES = f'''
cycle() {{
	for _ in $(seq $2); do
		start=${{EPOCHREALTIME/./}}
		said=$({helpers.XUSBIP} attach -r {helpers.GATEWAY_ADDRESS} -b $1) ||
			exit
		attached=${{EPOCHREALTIME/./}}
		{helpers.XUSBIP} detach -p ${{said##* }} > /dev/null || exit
		end=${{EPOCHREALTIME/./}}
		echo $(((attached - start) / 1000)) $(((end - attached) / 1000))
	done
}}
'''


def run_cycles(guest, num_zero, num_stick):
    """Attaches and detaches without a pause, two devices at once; (attach,
    detach) in ms."""
    said = guest.check(f'''{CYCLES}
cycle zero0 {num_zero} & zero=$!
cycle {guest.stick} {num_stick} & stick=$!
wait $zero && wait $stick''', timeout=600)
    times = re.findall(r'^(\d+) (\d+)$', said, re.M)
    assert len(times) == num_zero + num_stick, said
    return [(int(attach_ms), int(detach_ms)) for attach_ms, detach_ms in times]


def run_agent_cycles(guest, number):
    for _ in range(number):
        port = attach_by_agent(guest)
        guest.check(f'usbip detach -p {port.port}')
        check_all_is_back(guest)


def slab_kib(guest):
    return int(re.search(r'^SUnreclaim:\s+(\d+) kB',
                         guest.check('cat /proc/meminfo'), re.M)[1])


def holdings(guest):
    """What must not grow: {what: how much}, and by how much it may."""
    check_all_is_back(guest)
    # udev's workers linger, and are as many as there was to do.
    helpers.wait_until(guest, '! pgrep udev-worker', 30)
    free_kib = helpers.free_memory_kib(guest)
    return {
        "the manager's descriptors":
            (helpers.count_fds(guest, guest.gateway.pid), 0),
        "the agent's descriptors":
            (helpers.count_fds(guest, guest.agent.pid), 0),
        "the manager's memory, KiB":
            (helpers.own_memory_kib(guest, guest.gateway.pid), SLACK_RSS_KIB),
        "the agent's memory, KiB":
            (helpers.own_memory_kib(guest, guest.agent.pid), SLACK_RSS_KIB),
        'programs of ours':
            (int(guest.check("pgrep -c '^xusbip'")), 0),
        "the kernel's memory, KiB": (slab_kib(guest), SLACK_SLAB_KIB),
        'available memory, KiB': (-free_kib, SLACK_FREE_KIB),
    }


def median(numbers):
    return sorted(numbers)[len(numbers) // 2]


@bed.test(limit=600)
def two_hundred_cycles_leave_everything_as_it_was(guest):
    run_cycles(guest, WARM_UP, WARM_UP)
    run_agent_cycles(guest, 1)
    before = holdings(guest)

    times = run_cycles(guest, CYCLES_ZERO, CYCLES_STICK)
    run_agent_cycles(guest, CYCLES_AGENT)

    after = holdings(guest)
    print(f'# median of an attach {median([t[0] for t in times])} ms, '
          f'of a detach {median([t[1] for t in times])} ms')
    for what, (amount, slack) in after.items():
        print(f'# {what}: {abs(before[what][0])}, then {abs(amount)}')
        assert amount <= before[what][0] + slack, what


if __name__ == '__main__':
    bed.main(Guest('kill'))
