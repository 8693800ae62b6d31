#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Life and death on real Xen: whoever dies, in whatever order, the devices are
free again, both sides settle by themselves, and nothing is left behind. First
one thing at a time, then many at random times and across one another, while the
devices are read; XUSBIP_SEED repeats the events of an earlier run, and
XUSBIP_EVENTS takes only so many of them."""

import concurrent.futures
import contextlib
import os
import random
import re
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import bed  # noqa: E402
import helpers  # noqa: E402
import life  # noqa: E402
import parts  # noqa: E402
from guest import CommandError  # noqa: E402
from parts import REMOTE, check_refused, check_xusbip  # noqa: E402
from xen import DomainError, Xen  # noqa: E402

EXIT_CANNOT_REACH = 5
# By the clock of an emulated machine, which others make slow.
FREED_LIMIT_MS = 1000 * Xen.patience
SLACK_SLAB_KIB = 6000
SLACK_RSS_KIB = 512
LINK = 'xusbip-link'
SESSION = 'xusbip-session'
WARDEN = 'xusbip-warden'
# How often each comes; the order is by chance.
DECK = {'kill_manager': 4, 'kill_session': 5, 'kill_link': 5,
        'kill_warden': 4, 'kill_agent': 4, 'kill_keeper': 2,
        'kill_standby': 1, 'end_gateway': 4, 'end_agent': 3,
        'detach_in_guest': 4, 'detach_from_dom0': 4, 'replug_stick': 4,
        'pause': 4, 'destroy': 4, 'shutdown': 2, 'reboot': 2,
        'save_and_restore': 3}
CROSSING = 0.7  # of the events have the next one beside them


@bed.setup
def make_images(xen):
    xen.check('modprobe usb-storage delay_use=0')
    life.make_images(xen)
    xen.before = xen.leftovers()
    assert xen.before['domains'] == ['Domain-0 0 '], xen.before
    xen.slab_kib = slab_kib(xen)


def slab_kib(xen):
    xen.check('sync; echo 3 > /proc/sys/vm/drop_caches')
    return int(re.search(r'^SUnreclaim:\s+(\d+) kB',
                         xen.check('cat /proc/meminfo'), re.M)[1])


def get(xen):
    """The guest of these tests, which share it while it lives."""
    for domain in xen.inner_guests():
        return domain
    return life.create(xen, 'u1')


@contextlib.contextmanager
def gateway_that_leaves_nothing(xen):
    """Within it a gateway runs, behind it nothing is left of what happened; the
    guest may have gone. Yields the Job, in a list, so that it can be another."""
    jobs = [parts.start_gateway(xen, life.CONFIG)]
    yield jobs
    for domain in xen.inner_guests():
        helpers.wait_nothing_left(domain, limit=15)
        domain.destroy()
    jobs[0].stop(timeout=30)
    xen.check_no_leftovers(xen.before)


def victim(domain, name):
    """The pid of the one process of this name."""
    found = helpers.wait_for(f'{name} runs',
                             lambda: helpers.pids(domain, name))
    assert len(found) == 1, (name, found)
    return found[0]


def check_works(xen, u1):
    """disk1 can be had, is read, and goes back."""
    port = helpers.attach(u1, 'disk1', REMOTE)
    check_read(xen, u1, port)
    helpers.detach(u1, port)
    wait_freed(xen, u1)


def check_read(xen, u1, port):
    disk = helpers.block_device(u1, port.busid)
    assert parts.digest_within(u1, f'/dev/{disk}') == parts.digest(
        parts.image_path(xen, 'disk1.img'))


def wait_freed(xen, u1, limit=20):
    """Both sides have let go of everything."""
    if not u1.is_gone:
        helpers.wait_nothing_left(u1, limit)
        helpers.wait_for('the wardens have ended',
                         lambda: not helpers.pids(u1, WARDEN), limit)
    helpers.wait_for('the sessions have ended',
                     lambda: not helpers.pids(xen, SESSION), limit)
    helpers.wait_until(xen, f'! ls {helpers.GATEWAY_DIR}/*.lock', limit)


@bed.test(limit=120)
def a_guest_that_was_there_first_is_served_when_the_gateway_comes(xen):
    u1 = get(xen)
    check_refused(u1, f'attach -r {REMOTE} -b disk1', EXIT_CANNOT_REACH,
                  'offers nothing to this domain')

    with gateway_that_leaves_nothing(xen):
        helpers.wait_until(u1, 'xenstore-exists data/xusbip/0/name')
        check_works(xen, u1)


@bed.test(limit=120)
def a_guest_that_came_later_is_served_at_once(xen):
    with gateway_that_leaves_nothing(xen):
        check_works(xen, get(xen))


@bed.test(limit=150)
def an_attachment_outlives_a_killed_gateway_and_ends_with_an_orderly_one(xen):
    u1 = get(xen)
    with gateway_that_leaves_nothing(xen) as jobs:
        port = helpers.attach(u1, 'disk1', REMOTE)

        jobs[0] = life.restart_gateway(jobs[0], xen, 'KILL', life.CONFIG)
        check_read(xen, u1, port)

        jobs[0].stop(timeout=30)
        helpers.wait_nothing_left(u1, limit=15)
        jobs[0] = parts.start_gateway(xen, life.CONFIG)
        check_works(xen, u1)


@bed.test(limit=150)
def an_attachment_outlives_its_guests_agent_and_is_known_to_the_next(xen):
    u1 = get(xen)
    with gateway_that_leaves_nothing(xen):
        u1.check('usbip attach -r 127.0.0.1 -b disk1', timeout=60)
        port, = helpers.wait_for('it is there', lambda: [
            port for port in helpers.used_vhci_ports(u1)
            if port.status == helpers.VHCI_PORT_USED], 20)

        for signal in ('KILL', 'TERM'):
            u1.agent.stop(signal)
            check_read(xen, u1, port)
            u1.agent = parts.start_agent(u1)
        check_read(xen, u1, port)

        u1.check(f'usbip detach -p {port.port}')
        wait_freed(xen, u1)


@bed.test(limit=200)
def a_killed_process_costs_its_attachment_and_leaves_nothing(xen):
    u1 = get(xen)
    with gateway_that_leaves_nothing(xen):
        for domain, name in ((u1, LINK), (u1, WARDEN), (xen, SESSION)):
            port = helpers.attach(u1, 'disk1', REMOTE)
            disk = helpers.block_device(u1, port.busid)
            reader = u1.spawn('bash -c "while dd if=/dev/' + disk +
                              ' of=/dev/null iflag=direct bs=64k; do :; done"')

            domain.check(f'kill -KILL {victim(domain, name)}')

            wait_freed(xen, u1)
            reader.wait(30)
        check_works(xen, u1)


@bed.test(limit=120)
def a_guest_destroyed_while_it_asks_leaves_nothing(xen):
    u1 = get(xen)
    with gateway_that_leaves_nothing(xen) as jobs:
        helpers.wait_until(u1, 'xenstore-exists data/xusbip/0/name')
        jobs[0].kill('STOP')
        u1.spawn(f'{helpers.XUSBIP} attach -r {REMOTE} -b disk1')
        helpers.wait_until(
            xen, f'xenstore-ls -f /local/domain/{u1.domid}/data/xusbip | '
            'grep -q " ask "')
        u1.destroy()
        jobs[0].kill('CONT')

        wait_freed(xen, u1)
        check_works(xen, get(xen))


@bed.test(limit=150)
def a_guest_destroyed_while_it_has_a_device_frees_it_within_a_second(xen):
    u1 = get(xen)
    with gateway_that_leaves_nothing(xen):
        helpers.attach(u1, 'disk1', REMOTE)

        said = xen.check(f'tests/xen/death {life.DEATH_LIMIT_MS} '
                         f'{helpers.GATEWAY_DIR} {u1.domid} disk1', timeout=60)
        u1.wait_gone()

        print('# ms after the death: ' + ', '.join(said.splitlines()))
        assert int(re.search(r'^disk1 (-?\d+)$', said, re.M)[1]) <= \
            FREED_LIMIT_MS, said
        wait_freed(xen, u1)
        check_works(xen, get(xen))


@bed.test(limit=120)
def a_guest_destroyed_while_a_device_goes_back_leaves_nothing(xen):
    u1 = get(xen)
    with gateway_that_leaves_nothing(xen):
        port = helpers.attach(u1, 'disk1', REMOTE)
        xen.check(f'kill -STOP {victim(xen, SESSION)}')
        helpers.detach(u1, port)
        u1.destroy()

        wait_freed(xen, u1)
        check_works(xen, get(xen))


@bed.test(limit=150)
def a_guest_destroyed_while_it_is_quiesced_comes_back_held(xen):
    u1 = get(xen)
    with gateway_that_leaves_nothing(xen):
        check_xusbip(xen, 'attach --to u1 -b disk1')
        check_xusbip(xen, 'quiesce u1')
        u1.destroy()
        wait_freed(xen, u1)

        u1 = get(xen)
        helpers.wait_until(xen, 'xenstore-exists '
                           f'/local/domain/0/data/xusbip/{u1.domid}/hold')
        assert parts.xusbip(u1, f'attach -r {REMOTE} -b disk1').status != 0
        check_xusbip(xen, 'resume u1')
        check_works(xen, u1)
        assert xen.run(f'ls {helpers.GATEWAY_DIR}/hold-*').status != 0


def one_life(xen, gateway):
    """Everything that a guest can put a manager to; what that then holds."""
    u1 = life.create(xen, 'u1')
    for domain, name in ((u1, LINK), (xen, SESSION)):
        helpers.attach(u1, 'disk1', REMOTE)
        domain.check(f'kill -KILL {victim(domain, name)}')
        wait_freed(xen, u1)
    check_xusbip(xen, 'attach --to u1 -b disk1')
    check_xusbip(xen, 'quiesce u1')
    check_xusbip(xen, 'resume u1')
    check_xusbip(xen, 'detach --from u1 -b disk1')
    wait_freed(xen, u1)
    check_works(xen, u1)
    helpers.attach(u1, 'disk1', REMOTE)
    u1.destroy()
    wait_freed(xen, u1)
    return (helpers.count_fds(xen, gateway.pid),
            helpers.own_memory_kib(xen, gateway.pid))


@bed.test(limit=200)
def a_manager_holds_no_more_after_two_guests_than_after_one(xen):
    for domain in xen.inner_guests():
        domain.destroy()
    with gateway_that_leaves_nothing(xen) as jobs:
        fds, memory_kib = one_life(xen, jobs[0])
        fds_now, memory_kib_now = one_life(xen, jobs[0])

        print(f"# the manager's descriptors: {fds}, then {fds_now}; memory: "
              f'{memory_kib} KiB, then {memory_kib_now} KiB')
        assert fds_now == fds
        assert memory_kib_now <= memory_kib + SLACK_RSS_KIB


# Random times

def plan(seed):
    """Rounds of one or two events: [(seconds to wait, event, guest, pick)]"""
    rng = random.Random(seed)
    events = [name for name, times in DECK.items() for _ in range(times)]
    rng.shuffle(events)
    events = events[:int(os.environ.get('XUSBIP_EVENTS', len(events)))]
    rounds = []
    while events:
        number = 2 if len(events) > 1 and rng.random() < CROSSING else 1
        rounds.append([(rng.random() * (0.5 if nth else 1.5), events.pop(),
                        rng.choice(('u1', 'u2')), rng.random())
                       for nth in range(number)])
    return rounds


def do_event(world, event, may_fail):
    """None, or what went wrong with one that another one crossed."""
    wait_s, name, guest, pick = event
    if name == 'destroy' and not may_fail:
        name = 'destroy_and_measure'
    time.sleep(wait_s)
    try:
        getattr(world, name)(guest, pick)
    except (CommandError, DomainError) as error:
        if not may_fail:
            raise
        return f'{name}: {str(error).splitlines()[0]}'
    return None


def do_round(world, number, events):
    print(f'# round {number}: ' + ', '.join(
        f'{name} {guest} {wait_s:.2f} {pick:.2f}'
        for wait_s, name, guest, pick in events), flush=True)
    with concurrent.futures.ThreadPoolExecutor(len(events)) as pool:
        remarks = list(pool.map(
            lambda event: do_event(world, event, len(events) > 1), events))
    for remark in remarks:
        if remark:
            print(f'# crossed by the other one: {remark}', flush=True)
    world.settle()


@bed.test(limit=360)
def whatever_happens_at_random_times_both_sides_settle_by_themselves(xen):
    seed = int(os.environ.get('XUSBIP_SEED', random.randrange(1 << 32)))
    print(f'# XUSBIP_SEED={seed}', flush=True)
    for domain in xen.inner_guests():
        domain.destroy()
    began = time.monotonic()
    world = life.Life(xen)
    world.settle()
    rounds = plan(seed)

    for number, events in enumerate(rounds, 1):
        do_round(world, number, events)

    world.end()
    deaths = sorted(world.deaths_ms)
    print(f'# {sum(map(len, rounds))} events in {len(rounds)} rounds took '
          f'{time.monotonic() - began:.0f} s; at most {world.slowest_s:.1f} s '
          f'until both sides agreed; devices were free {deaths} ms after the '
          'death of their guest', flush=True)
    assert not deaths or deaths[-1] <= FREED_LIMIT_MS
    xen.check_no_leftovers(xen.before, limit=30)
    slab = slab_kib(xen)
    print(f"# the kernel's memory: {xen.slab_kib} KiB, then {slab} KiB")
    assert slab <= xen.slab_kib + SLACK_SLAB_KIB


if __name__ == '__main__':
    bed.main(Xen('life'))
