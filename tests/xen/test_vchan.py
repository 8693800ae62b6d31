#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The vchan channel between a dom0 and a guest, each end in its sandbox."""

import itertools
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import bed  # noqa: E402
import helpers  # noqa: E402
from xen import Xen  # noqa: E402

TOOL = '/xusbip/build/tests/xen/vchan_end'
RING_BYTES = 262144
LIMIT = '/sys/module/xen_gntalloc/parameters/limit'
numbers = itertools.count()


def get(xen):
    """The guest, which tests share."""
    for domain in xen.inner_guests():
        return domain
    return xen.create('u1')


def serve(xen, domid, ring=RING_BYTES):
    """A server that is ready, and its path as a guest writes it."""
    path = f'data/xusbip/{domid}/{next(numbers)}'
    job = xen.spawn(f'{TOOL} serve {domid} {path} {ring}')
    helpers.wait_for_line(job, 'ready')
    return job, f'/local/domain/0/{path}'


def join(guest, path, count):
    job = guest.spawn(f'{TOOL} join 0 {path} {count}')
    helpers.wait_for_line(job, 'ready')
    return job


def forget_nodes(xen):
    """The channels' nodes are for a manager to remove; here there is none."""
    xen.check('xenstore-rm /local/domain/0/data/xusbip')


@bed.test(limit=300)
def bytes_come_back_whole_through_rings_of_any_size(xen):
    u1 = get(xen)
    before = xen.leftovers()
    for ring in (4096, 65536, 262144, 1048576):
        server, path = serve(xen, u1.domid, ring)

        client = join(u1, path, 240)

        assert client.wait(timeout=60) == 0, client.log()
        assert server.wait() == 0, server.log()
        print(f'# ring {ring}: {client.log().splitlines()[1]}', flush=True)
        assert 'ended: in order' in client.log() + server.log()
    forget_nodes(xen)
    xen.check_no_leftovers(before)


@bed.test(limit=120)
def a_killed_end_is_noticed_by_the_other(xen):
    u1 = get(xen)
    before = xen.leftovers()
    server, path = serve(xen, u1.domid)
    client = join(u1, path, 0)
    u1.check('kill -9 $(pgrep -x vchan_end)')
    assert server.wait() == 1
    assert 'ended: Connection reset by peer' in server.log()
    assert client.wait() != 0

    server, path = serve(xen, u1.domid)
    client = join(u1, path, 0)
    xen.check('kill -9 $(pgrep -x vchan_end)')
    assert client.wait() == 1
    assert 'ended: Connection reset by peer' in client.log()
    assert server.wait() != 0
    forget_nodes(xen)
    xen.check_no_leftovers(before)


@bed.test
def pages_beyond_the_kernels_limit_are_refused_in_words(xen):
    u1 = get(xen)
    limit = xen.check(f'cat {LIMIT}').strip()
    xen.check(f'echo 100 > {LIMIT}')

    status, output = xen.run(f'{TOOL} serve {u1.domid} '
                             f'data/xusbip/{u1.domid}/0 {RING_BYTES}')

    assert status == 1
    assert output == ('no channel: no 129 pages left to grant: raise the '
                      f'limit in {LIMIT}\n'), output
    xen.check(f'echo {limit} > {LIMIT}')


if __name__ == '__main__':
    bed.main(Xen('vchan'))
