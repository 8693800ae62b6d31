#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Life and death on real Xen at random times, and across one another, while the
devices are read and written: after each both sides settle by themselves, and at
the end nothing is left. XUSBIP_SEED, a number or "any", gives other events than
the usual ones."""

import concurrent.futures
import itertools
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

# Of any of them. The look that needs no event is every 10 s.
FREED_LIMIT_MS = 8000
SLACK_SLAB_KIB = 6000
SEED = 4711
# How often each comes, of the first two 50 together; the order is by chance.
# What was kept from happening by another one that crossed it comes again, of
# those two.
LIVES = {'kill_manager': 6, 'kill_session': 8, 'kill_link': 7,
         'kill_warden': 6, 'kill_agent': 6, 'kill_keeper': 3,
         'kill_standby': 2, 'destroy': 2, 'reboot': 3, 'save_and_restore': 4}
ALONE = {'destroy_and_measure': life.DEATHS}
OTHERS = {'end_gateway': 2, 'end_agent': 2, 'detach_in_guest': 3,
          'detach_from_dom0': 3, 'replug_stick': 3, 'pause': 3, 'shutdown': 1}
AT_ONCE = (1, 2, 3, 3)  # one of these is how many cross one another


@bed.setup
def make_images(xen):
    life.set_up(xen)
    xen.slab_kib = slab_kib(xen)


def slab_kib(xen):
    xen.check('sync; echo 3 > /proc/sys/vm/drop_caches')
    return int(re.search(r'^SUnreclaim:\s+(\d+) kB',
                         xen.check('cat /proc/meminfo'), re.M)[1])


def deal(deck):
    return [name for name, times in deck.items() for _ in range(times)]


def plan(seed):
    """Rounds of events that cross: [(seconds to wait, event, guest, pick)]"""
    rng = random.Random(seed)
    events = deal(LIVES) + deal(OTHERS)
    rng.shuffle(events)
    rounds = [[name] for name in deal(ALONE)]
    while events:
        number = min(rng.choice(AT_ONCE), len(events))
        rounds.append([events.pop() for _ in range(number)])
    rng.shuffle(rounds)
    return [[(rng.random() * (0.5 if nth else 1.5), name,
              rng.choice(('u1', 'u2')), rng.random())
             for nth, name in enumerate(names)] for names in rounds]


def do_event(world, event):
    """None, or what kept it from happening."""
    wait_s, name, guest, pick = event
    time.sleep(wait_s)
    try:
        getattr(world, name)(guest, pick)
    except (CommandError, DomainError) as error:
        return error
    return None


def do_round(world, number, events):
    """Those that did not happen; of one that was alone it is an error."""
    print(f'# round {number}: ' + ', '.join(
        f'{name} {guest} {wait_s:.2f} {pick:.2f}'
        for wait_s, name, guest, pick in events), flush=True)
    with concurrent.futures.ThreadPoolExecutor(len(events)) as pool:
        errors = list(pool.map(lambda event: do_event(world, event), events))
    missed = []
    for event, error in zip(events, errors):
        if error and len(events) == 1:
            raise error
        if error:
            print(f'# did not happen: {event[1]}: '
                  f'{str(error).splitlines()[0]}', flush=True)
            missed.append(event)
    world.settle()
    return missed


def do_all(world, rounds):
    """How many rounds there were. Each event of LIVES has happened then."""
    numbers = itertools.count(1)
    missed = []
    for events in rounds:
        missed += do_round(world, next(numbers), events)
    for event in missed:
        if event[1] in LIVES:
            do_round(world, next(numbers), [event])
    return next(numbers) - 1


@bed.test(limit=360)
def whatever_happens_at_random_times_both_sides_settle_by_themselves(xen):
    seed = os.environ.get('XUSBIP_SEED', SEED)
    seed = random.randrange(1 << 32) if seed == 'any' else int(seed)
    print(f'# XUSBIP_SEED={seed}', flush=True)
    began = time.monotonic()
    world = life.Life(xen)
    world.settle()
    rounds = plan(seed)

    number = do_all(world, rounds)

    world.end()
    lives = [name for events in rounds for _, name, *_ in events
             if name not in OTHERS]
    deaths = sorted(world.deaths_ms)
    print(f'# {len(lives)} kills, destroys, reboots and saves, and '
          f'{sum(map(len, rounds)) - len(lives)} other events, took {number} '
          f'rounds and {time.monotonic() - began:.0f} s; at most '
          f'{world.slowest_s:.1f} s until both sides agreed; all devices were '
          f'free {deaths} ms after the death of their guest', flush=True)
    assert deaths and deaths[-1] <= FREED_LIMIT_MS
    xen.check_no_leftovers(xen.before, limit=30)
    slab = slab_kib(xen)
    print(f"# the kernel's memory: {xen.slab_kib} KiB, then {slab} KiB")
    assert slab <= xen.slab_kib + SLACK_SLAB_KIB


if __name__ == '__main__':
    bed.main(Xen('random'))
