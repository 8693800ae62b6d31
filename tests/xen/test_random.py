#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Life and death on real Xen at random times, and across one another, while the
devices are read: after each both sides settle by themselves, and at the end
nothing is left. XUSBIP_SEED, a number or "any", gives other events than the
usual ones, XUSBIP_EVENTS takes only so many of them."""

import concurrent.futures
import os
import random
import re
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import bed  # noqa: E402
import life  # noqa: E402
from guest import CommandError  # noqa: E402
from xen import DomainError, Xen  # noqa: E402

# By the clock of an emulated machine, which others make slow.
FREED_LIMIT_MS = 1000 * Xen.patience
SLACK_SLAB_KIB = 6000
SEED = 4711
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
    life.set_up(xen)
    xen.slab_kib = slab_kib(xen)


def slab_kib(xen):
    xen.check('sync; echo 3 > /proc/sys/vm/drop_caches')
    return int(re.search(r'^SUnreclaim:\s+(\d+) kB',
                         xen.check('cat /proc/meminfo'), re.M)[1])


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
    seed = os.environ.get('XUSBIP_SEED', SEED)
    seed = random.randrange(1 << 32) if seed == 'any' else int(seed)
    print(f'# XUSBIP_SEED={seed}', flush=True)
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
    bed.main(Xen('random'))
