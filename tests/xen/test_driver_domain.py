#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A gateway in a driver domain, on real Xen: "usbvm" is an unprivileged guest
with virtual devices, the dom0 has nothing but the manager, and the devices go to
third domains."""

import json
import os
import signal
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import bed  # noqa: E402
import helpers  # noqa: E402
import life  # noqa: E402
import parts  # noqa: E402
from parts import (check_refused, check_xusbip, wait_busids,  # noqa: E402
                   xusbip)
from xen import DOMU_WORDS, Xen  # noqa: E402

DRIVER = 'usbvm'
REMOTE = f'xen:{DRIVER}'
DISK_BYTES = 2 << 20
BUSY = '/tmp/busy'
SAVED = '/tmp/saved'
NUM_MANY = 18
BATCH = 3
MANY = [f'many{number}' for number in range(NUM_MANY)]
CASES = ('1-4', '10', '15-16', '25')
ALL_ENDPOINTS = 1  # the setting of zero that has them
EXIT_NO_DEVICE, EXIT_NOT_ALLOWED, EXIT_CANNOT_REACH = 3, 4, 5
EXIT_TIMEOUT, EXIT_NO_DOMAIN = 11, 13
# The stock command has 1 for everything.
RETRIED = (1, EXIT_CANNOT_REACH, EXIT_TIMEOUT)
GATEWAY_CONFIG = '/run/gateway.conf'
MANAGER_CONFIG = '/run/manager.conf'
EXPORTS = '''
disk "disk" { image = "/tmp/disk" domains = { "u1" } }
disk "other" { image = "/tmp/other" domains = { "u1", "u2" } }
zero "zero" { domains = { "u1" } }
''' + ''.join(f'''
disk "{name}" {{
	image = "/tmp/{name}"
	high_speed = {'true' if number % 2 else 'false'}
	domains = {{ "u1" }}
}}''' for number, name in enumerate(MANY))
DOM0_DISK = 'disk "near" { image = "/share/dom0.img" domains = { "u1" } }'
PAIRS = f'gateway "{DRIVER}" {{ domains = {{ "u1", "u2" }} }}\n'


@bed.setup
def start_the_domains(xen):
    xen.fresh = xen.leftovers()
    start_manager(xen)
    start_driver(xen)
    # usbtest retries an unlink without end or sleep.
    u1 = start_guest(xen, 'u1', extra=DOMU_WORDS + ' preempt=full')
    u1.check(f'modprobe usbtest alt={ALL_ENDPOINTS}')


def start_manager(xen, config=PAIRS):
    write(xen, MANAGER_CONFIG, config)
    xen.manager = xen.spawn(f'{helpers.GATEWAY} --manager --debug '
                            f'-c {MANAGER_CONFIG}')
    helpers.wait_for_line(xen.manager, 'ready', 20)


def start_driver(xen):
    """The driver domain, with a gateway."""
    usbvm = xen.create(DRIVER, memory=256)
    usbvm.check(f'''
for name in disk other; do
	head -c {DISK_BYTES} /dev/urandom > /tmp/$name || exit
done
for name in {' '.join(MANY)}; do
	head -c 64k /dev/urandom > /tmp/$name || exit
done''')
    start_gateway(usbvm)


def start_gateway(usbvm):
    usbvm.gateway = parts.start_gateway(usbvm, EXPORTS)


def start_guest(xen, name, **options):
    guest = xen.create(name, memory=224, extra_config=options)
    guest.check('modprobe -a vhci-hcd usb-storage')
    return guest


def find(xen, name):
    """The living domain of this name, or None."""
    return next((domain for domain in xen.inner_guests()
                 if domain.name == name), None)


def get_second(xen):
    return find(xen, 'u2') or start_guest(xen, 'u2')


def write(domain, path, text):
    domain.check(f"cat > {path} <<'END'\n{text}\nEND")


def kill(domain, job):
    domain.check(f'kill -KILL {job.pid}')
    assert job.wait() == 128 + signal.SIGKILL


def change_rules(usbvm, expression):
    usbvm.check(f"sed -i '{expression}' {GATEWAY_CONFIG}")
    parts.reload(usbvm, usbvm.gateway)


def change_pairs(xen, config):
    write(xen, MANAGER_CONFIG, config)
    parts.reload(xen, xen.manager)


def until_it_succeeds(domain, command):
    """The gateway may not be told of yet, or a loaded machine be too slow."""
    def probe():
        result = domain.run(command, timeout=60)
        assert result.status in (0, *RETRIED), result
        return result if result.status == 0 else None
    return helpers.wait_for(command, probe, 60).output


def attach(domain, busid):
    """Its port and its disk."""
    said = until_it_succeeds(
        domain, f'{helpers.XUSBIP} attach --json -r {REMOTE} -b {busid}')
    return find_disk(domain, json.loads(said)['port'])


def attach_stock(domain, busid):
    known = {port.port for port in helpers.used_vhci_ports(domain)}
    until_it_succeeds(domain, f'usbip attach -r 127.0.0.1 -b {busid}')
    new, = {port.port for port in helpers.used_vhci_ports(domain)} - known
    return find_disk(domain, new)


def find_disk(domain, number):
    """(VhciPort, disk) of a port, when its device is there."""
    port = helpers.wait_for(f'port {number} has its device', lambda: [
        port for port in helpers.used_vhci_ports(domain)
        if port.port == number and
        port.status == helpers.VHCI_PORT_USED], 20)[0]
    return port, helpers.block_device(domain, port.busid)


def check_same(domain, disk, holder, path):
    """A guest's disk is the file in the domain that has it."""
    domain.check('echo 3 > /proc/sys/vm/drop_caches')
    assert (parts.digest_within(domain, f'/dev/{disk}') ==
            parts.digest_within(holder, path)), path


def start_writer(domain, disk):
    """A Job that writes all of the disk again and again, and is at it."""
    job = domain.spawn(
        f"bash -c 'touch {BUSY}; while dd if=/dev/urandom of=/dev/{disk} "
        f'bs=64k count={DISK_BYTES >> 16} conv=fsync status=none; do '
        f"[ -e {BUSY} ] || exit 0; done; exit 1'")
    helpers.wait_until(
        domain, f"[ $(awk '{{ print $5 }}' /sys/block/{disk}/stat) -gt 1 ]", 30)
    return job


def finish(domain, *writers):
    """It was at it all the time, and nothing failed."""
    assert all(writer.is_alive() for writer in writers)
    domain.check(f'rm {BUSY}')
    for writer in writers:
        assert writer.wait(90) == 0, writer.log()


def wait_sessions(usbvm, number):
    helpers.wait_for(f'{number} sessions serve', lambda: len(
        helpers.pids(usbvm, 'xusbip-session')) == number, 20)


def end(xen, before):
    """Nothing is attached, nothing is left; the manager may be another one."""
    usbvm = find(xen, DRIVER)
    wait_sessions(usbvm, 0)
    helpers.wait_until(usbvm, parts.NOTHING_HELD)
    for guest in xen.inner_guests():
        if guest is not usbvm:
            helpers.wait_nothing_left(guest, limit=15)
    xen.check_no_leftovers(
        {**before, 'processes': [f'{xen.manager.pid} xusbip-gateway']})


@bed.test(limit=180)
def a_guest_uses_the_devices_of_a_driver_domain(xen):
    u1, usbvm = find(xen, 'u1'), find(xen, DRIVER)
    before = xen.leftovers()

    port, disk = attach(u1, 'disk')
    check_same(u1, disk, usbvm, '/tmp/disk')
    finish(u1, start_writer(u1, disk))
    check_same(u1, disk, usbvm, '/tmp/disk')
    assert f'usbip://{REMOTE}:' in check_xusbip(u1, 'port')
    shown = check_xusbip(u1, f'list -r {REMOTE}')
    assert all(f'{name}: ' in shown for name in ('zero', *MANY)), shown
    helpers.detach(u1, port)

    zero = helpers.attach(u1, 'zero', REMOTE)
    helpers.wait_for('usbtest drives it', lambda: helpers.interface_drivers(
        u1, zero.busid) == ['usbtest'], 15)
    for cases in CASES:
        verdicts = helpers.usbtest(u1, zero.busid, cases)
        assert set(verdicts.values()) == {'ok'}, verdicts
    helpers.detach(u1, zero)
    end(xen, before)


@bed.test(limit=180)
def a_guest_gets_what_the_dom0_and_the_driver_domain_both_give_it(xen):
    usbvm, u2 = find(xen, DRIVER), get_second(xen)
    before = xen.leftovers()

    change_pairs(xen, PAIRS.replace(', "u2"', ''))
    helpers.wait_until(u2, f'! xenstore-exists data/xusbip/{usbvm.domid}')
    check_refused(u2, f'attach -r {REMOTE} -b other', EXIT_CANNOT_REACH,
                  'no domain of this name offers anything to this domain')
    check_refused(u2, f'attach -r xen:{usbvm.domid} -b other',
                  EXIT_CANNOT_REACH, 'offers nothing to this domain')

    change_rules(usbvm, 's/, "u2" }/ }/')
    change_pairs(xen, PAIRS)
    helpers.wait_until(u2, f'xenstore-exists data/xusbip/{usbvm.domid}/name')
    check_refused(u2, f'attach -r {REMOTE} -b other', EXIT_NOT_ALLOWED,
                  'no rule of the gateway names this domain')

    change_rules(usbvm, '/"other"/s/ }/, "u2" }/')
    port, _ = attach(u2, 'other')
    check_refused(u2, f'attach -r {REMOTE} -b disk', EXIT_NO_DEVICE,
                  'no such device')
    helpers.detach(u2, port)
    end(xen, before)


def destroy_and_measure(xen, u2, usbvm):
    """How many ms after "xl destroy" the driver domain had its device back."""
    attach(u2, 'other')
    lock = f'{helpers.GATEWAY_DIR}/other.lock'
    usbvm.check(f'[ -e {lock} ]')
    usbvm.spawn(f"bash -c 'while [ -e {lock} ]; do sleep 0.05; done; "
                "xenstore-write data/freed 1'")
    # The manager has looked now, and without an event does not for 10 s.
    parts.reload(xen, xen.manager)

    freed_ms = int(xen.check(f'''
xl destroy {u2.domid}
began=${{EPOCHREALTIME/./}}
until xenstore-exists /local/domain/{usbvm.domid}/data/freed; do
	[ $SECONDS -lt 30 ] || break
	sleep 0.02
done
echo $(((${{EPOCHREALTIME/./}} - began) / 1000))''', timeout=60))
    print(f'# freed {freed_ms} ms after "xl destroy"', flush=True)
    u2.wait_gone()
    usbvm.check('xenstore-rm data/freed')
    helpers.wait_until(xen, '! xenstore-exists /local/domain/'
                       f'{usbvm.domid}/data/xusbip/{u2.domid}')
    return freed_ms


@bed.test(limit=240)
def a_destroyed_guest_frees_its_device_at_once_and_others_go_on(xen):
    u1, usbvm = find(xen, 'u1'), find(xen, DRIVER)
    port, disk = attach(u1, 'disk')
    writer = start_writer(u1, disk)

    deaths = []
    while not deaths or (deaths[-1] > life.FREED_MS and
                         len(deaths) < life.DEATHS):
        deaths.append(destroy_and_measure(xen, get_second(xen), usbvm))

    assert deaths[-1] <= life.FREED_MS, deaths
    finish(u1, writer)
    check_same(u1, disk, usbvm, '/tmp/disk')
    helpers.detach(u1, port)
    helpers.wait_nothing_left(u1, limit=15)


@bed.test(limit=240)
def attachments_outlive_the_manager_and_the_gateway_that_began_them(xen):
    u1, usbvm = find(xen, 'u1'), find(xen, DRIVER)
    u2 = get_second(xen)
    before = xen.leftovers()
    port, disk = attach(u1, 'disk')
    writer = start_writer(u1, disk)

    kill(xen, xen.manager)
    other, _ = attach(u2, 'other')
    start_manager(xen)
    kill(usbvm, usbvm.gateway)
    start_gateway(usbvm)
    assert xen.manager.stop() == 0
    helpers.detach(u2, other)
    start_manager(xen)
    other, _ = attach(u2, 'other')

    finish(u1, writer)
    check_same(u1, disk, usbvm, '/tmp/disk')
    helpers.detach(u1, port)
    helpers.detach(u2, other)
    end(xen, before)


@bed.test(limit=180)
def a_guest_that_dies_without_the_manager_is_freed_when_there_is_one(xen):
    u2, usbvm = get_second(xen), find(xen, DRIVER)
    attach(u2, 'other')
    kill(xen, xen.manager)

    u2.destroy()
    start_manager(xen)

    wait_sessions(usbvm, 0)
    helpers.wait_until(xen, '! xenstore-exists /local/domain/'
                       f'{usbvm.domid}/data/xusbip/{u2.domid}')


@bed.test(limit=240)
def several_gateways_serve_several_guests_at_once(xen):
    u1, usbvm = find(xen, 'u1'), find(xen, DRIVER)
    u2 = get_second(xen)
    before = xen.leftovers()
    assert xen.manager.stop() == 0
    parts.make_image(xen, 'dom0.img', DISK_BYTES)
    gateway = parts.start_gateway(xen, PAIRS + DOM0_DISK)
    agent = parts.start_agent(u1)

    used = [(u1, attach_stock(u1, 'near'), xen, '/share/dom0.img'),
            (u1, attach_stock(u1, 'disk'), usbvm, '/tmp/disk'),
            (u2, attach(u2, 'other'), usbvm, '/tmp/other')]
    shown = u1.check('usbip list -r 127.0.0.1')
    assert all(f'{name}: ' in shown for name in ('zero', *MANY)), shown
    writers = [start_writer(guest, disk) for guest, (_, disk), _, _ in used]
    finish(u1, *writers[:2])
    finish(u2, writers[2])
    for guest, (_, disk), holder, path in used:
        check_same(guest, disk, holder, path)

    for guest, (port, _), _, _ in used:
        helpers.detach(guest, port)
    assert agent.stop() == 0 and gateway.stop() == 0
    start_manager(xen)
    end(xen, before)


def in_batches(domain, commands):
    """Some at a time: this is not about how fast they begin."""
    for start in range(0, len(commands), BATCH):
        jobs = [domain.spawn(command)
                for command in commands[start:start + BATCH]]
        for job in jobs:
            assert job.wait(60) == 0, job.log()


def digests(domain, pattern):
    said = domain.check(f'sha256sum {pattern}', timeout=90)
    return sorted(line.split()[0] for line in said.splitlines())


@bed.test(limit=300)
def the_quotas_of_xenstore_let_a_driver_domain_serve_many_devices(xen):
    u1, usbvm = find(xen, 'u1'), find(xen, DRIVER)
    before = xen.leftovers()

    in_batches(u1, [f'{helpers.XUSBIP} attach -r {REMOTE} -b {name}'
                    for name in MANY])
    ports = helpers.used_vhci_ports(u1)
    assert len(ports) == NUM_MANY
    wait_sessions(usbvm, NUM_MANY)
    for port in ports:
        helpers.block_device(u1, port.busid, limit=40)
    assert digests(u1, '/dev/sd?') == digests(usbvm, '/tmp/many*')

    in_batches(u1, [f'{helpers.XUSBIP} detach -p {port.port}'
                    for port in ports])
    end(xen, before)


@bed.test(limit=300)
def a_guest_is_saved_and_restored_with_what_a_driver_domain_gives_it(xen):
    u1, usbvm = find(xen, 'u1'), find(xen, DRIVER)
    agent = parts.start_agent(u1)
    check_xusbip(usbvm, 'attach --to u1 -b disk --persist')
    attach(u1, 'other')

    check_xusbip(usbvm, 'quiesce u1')
    u1.save(SAVED)
    u1.restore(SAVED)
    helpers.wait_for('the gateway knows it again', lambda: xusbip(
        usbvm, 'resume u1').status != EXIT_NO_DOMAIN, 30)

    wait_busids(u1, 'disk', 'other')
    disks = {parts.digest_within(
        u1, f'/dev/{helpers.block_device(u1, port.busid)}')
             for port in helpers.used_vhci_ports(u1)}
    assert disks == set(digests(usbvm, '/tmp/disk /tmp/other'))
    for busid in ('disk', 'other'):
        check_xusbip(usbvm, f'detach --from u1 -b {busid}')
    wait_busids(u1)
    assert agent.stop() == 0
    wait_sessions(usbvm, 0)
    helpers.wait_nothing_left(u1, limit=15)
    xen.check(f'rm {SAVED}')


@bed.test(limit=400)
def a_guest_is_saved_by_dom0_whatever_domain_gave_it_devices(xen):
    u1, usbvm = find(xen, 'u1'), find(xen, DRIVER)
    assert xen.manager.stop() == 0
    parts.make_image(xen, 'dom0.img', DISK_BYTES)
    gateway = parts.start_gateway(xen, PAIRS + DOM0_DISK)
    agent = parts.start_agent(u1)
    attach_stock(u1, 'near')
    attach(u1, 'disk')
    check_xusbip(usbvm, 'attach --to u1 -b other --persist')

    xen.check(f'{parts.WRAPPER} save u1 {SAVED}', timeout=150)
    u1.wait_gone()
    xen.check(f'{parts.WRAPPER} restore {SAVED}', timeout=150)
    u1.reopen()

    wait_busids(u1, 'disk', 'near', 'other')
    check_xusbip(usbvm, 'detach --from u1 -b other')
    check_xusbip(usbvm, 'detach --from u1 -b disk')
    check_xusbip(xen, 'detach --from u1 -b near')
    wait_busids(u1)
    assert agent.stop() == 0 and gateway.stop() == 0
    start_manager(xen)
    wait_sessions(usbvm, 0)
    helpers.wait_nothing_left(u1, limit=15)
    xen.check(f'rm {SAVED}')


def check_driver_ends(xen, ending):
    """Its guest lets go of what it has, so that no zombie stays."""
    u1, usbvm = find(xen, 'u1'), find(xen, DRIVER)
    _, disk = attach(u1, 'disk')
    attach_stock(u1, 'other')
    reader = u1.spawn(f"bash -c 'while dd if=/dev/{disk} of=/dev/null bs=64k "
                      "iflag=direct status=none; do :; done'")

    ending(usbvm)

    assert '(null)' not in [domain.name for domain in xen.domains()]
    helpers.wait_nothing_left(u1, limit=15)
    reader.wait(20)


def shut_down_without_manager(usbvm):
    kill(usbvm.xen, usbvm.xen.manager)
    usbvm.shutdown()


@bed.test(limit=360)
def a_driver_domain_that_ends_leaves_no_zombie_and_serves_when_it_is_back(xen):
    u1 = find(xen, 'u1')
    agent = parts.start_agent(u1)

    check_driver_ends(xen, lambda usbvm: usbvm.destroy())
    start_driver(xen)
    check_driver_ends(xen, shut_down_without_manager)
    start_manager(xen)
    start_driver(xen)

    port, disk = attach(u1, 'disk')
    check_same(u1, disk, find(xen, DRIVER), '/tmp/disk')
    helpers.detach(u1, port)
    assert agent.stop() == 0


@bed.test(limit=180)
def nothing_is_left_of_all_this(xen):
    attach(find(xen, 'u1'), 'disk')

    for domain in xen.inner_guests():
        domain.destroy()
    assert xen.manager.stop() == 0

    xen.check_no_leftovers(xen.fresh)


if __name__ == '__main__':
    bed.main(Xen('driver', mem=2304))
