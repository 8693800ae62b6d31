#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Life and death on real Xen, one thing at a time: whoever comes first, whoever
dies, the devices are free again and nothing is left behind. test_random.py has
many at a time."""

import contextlib
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import bed  # noqa: E402
import helpers  # noqa: E402
import life  # noqa: E402
import parts  # noqa: E402
from parts import REMOTE, check_refused  # noqa: E402
from xen import Xen  # noqa: E402

EXIT_CANNOT_REACH = 5
LINK = 'xusbip-link'
SESSION = 'xusbip-session'
WARDEN = 'xusbip-warden'


@bed.setup
def make_images(xen):
    life.set_up(xen)


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
    helpers.wait_until(xen, parts.NOTHING_HELD, limit)


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


@bed.test(limit=240)
def a_guest_destroyed_while_it_has_a_device_frees_it_at_once(xen):
    deaths = []
    # The look that needs no event comes 10 s after a gateway's start, and so
    # later than this each time.
    while not deaths or (deaths[-1] > life.FREED_MS and
                         len(deaths) < life.DEATHS):
        u1 = get(xen)
        with gateway_that_leaves_nothing(xen):
            helpers.attach(u1, 'disk1', REMOTE)
            deaths.append(life.destroy_and_measure(u1, ['disk1']))
            wait_freed(xen, u1)
            check_works(xen, get(xen))
    assert deaths[-1] <= life.FREED_MS, deaths


if __name__ == '__main__':
    bed.main(Xen('life'))
