#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Devices that the administrator gives to guests, on real Xen: the agent in a
guest attaches what it is told to, lets go of everything before a save, and takes
it back after it."""

import json
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import bed  # noqa: E402
import helpers  # noqa: E402
from guest import CommandError  # noqa: E402
from xen import Xen  # noqa: E402

XUSBIP = helpers.XUSBIP
CONFIG = '''listen = { }
xen = true
runtime_dir = "/run/xusbip"
zero "zero0" { domains = { "u1" } }
zero "zero1" { domains = { "u1" } }
'''


def start(xen):
    """A guest with an agent, and a gateway in dom0: (u1, agent, gateway)."""
    xen.check(f"cat > /run/gateway.conf <<'END'\n{CONFIG}END")
    gateway = xen.spawn(f'{helpers.GATEWAY} --debug -c /run/gateway.conf')
    helpers.wait_for_line(gateway, 'ready')
    u1 = xen.create('u1')
    u1.check('modprobe vhci-hcd; ip link set lo up; '
             'echo "gateways = { }" > /run/frontend.conf')
    agent = u1.spawn(f'{helpers.AGENT} --debug -c /run/frontend.conf')
    helpers.wait_for_line(agent, 'ready')
    return u1, agent, gateway


def busids(u1):
    """The bus ids, in dom0, of what is attached."""
    ports = json.loads(u1.check(f'{XUSBIP} port --json'))['ports']
    return sorted(port['remote'].get('busid', '?') for port in ports)


def wait_busids(u1, *expected, limit=30):
    helpers.wait_for(f'{expected} are attached',
                     lambda: busids(u1) == sorted(expected), limit)


def end(xen, *jobs):
    for domain in xen.inner_guests():
        domain.destroy()
    for job in jobs:
        job.stop()


@bed.test(limit=300)
def a_device_given_to_a_guest_is_attached_by_its_agent_until_taken(xen):
    u1, _, gateway = start(xen)

    said = xen.check(f'{XUSBIP} attach --to u1 -b zero0', timeout=70)
    assert 'attached zero0 to u1 at its port' in said, said
    wait_busids(u1, 'zero0')
    assert xen.check(f'{XUSBIP} detach --from u1 -b zero0').startswith(
        'detached zero0')
    wait_busids(u1)
    helpers.wait_vhci_ports_free(u1)

    end(xen, gateway)


@bed.test(limit=300)
def what_persists_is_attached_again_when_it_was_lost_and_others_are_not(xen):
    u1, _, gateway = start(xen)
    xen.check(f'{XUSBIP} attach --to u1 -b zero0 --persist', timeout=70)
    xen.check(f'{XUSBIP} attach --to u1 -b zero1', timeout=70)
    wait_busids(u1, 'zero0', 'zero1')

    xen.check('pkill -KILL -x xusbip-session')

    wait_busids(u1)
    wait_busids(u1, 'zero0')
    helpers.wait_for('the other is not wanted any more', lambda: xen.run(
        f'xenstore-ls /local/domain/0/data/xusbip/{u1.domid}/want | '
        'grep -q zero1').status)
    xen.check(f'{XUSBIP} detach --from u1 -b zero0')
    wait_busids(u1)

    end(xen, gateway)


@bed.test(limit=400)
def a_guest_is_quiesced_saved_restored_and_has_its_devices_again(xen):
    u1, agent, gateway = start(xen)
    u1.check(f'{XUSBIP} attach -r xen:0 -b zero0', timeout=60)
    u1.check('usbip attach -r 127.0.0.1 -b zero1', timeout=60)
    helpers.wait_for('both are there',
                     lambda: len(helpers.used_vhci_ports(u1)) == 2)
    wait_busids(u1, 'zero0', 'zero1')

    xen.check(f'{XUSBIP} quiesce u1', timeout=70)
    helpers.wait_vhci_ports_free(u1)
    u1.save('/tmp/u1.save')
    u1.restore('/tmp/u1.save')
    helpers.wait_for_line(agent, f'this domain is number {u1.domid} now')
    helpers.wait_until(xen, 'xenstore-exists '
                       f'/local/domain/0/data/xusbip/{u1.domid}/hold')
    assert helpers.used_vhci_ports(u1) == []
    xen.check(f'{XUSBIP} resume u1', timeout=70)

    wait_busids(u1, 'zero0', 'zero1')
    assert xen.run('ls /run/xusbip/hold-*').status != 0
    end(xen, gateway)


@bed.test(limit=300)
def a_guest_that_has_devices_does_not_let_itself_be_saved_and_keeps_them(xen):
    u1, _, gateway = start(xen)
    xen.check(f'{XUSBIP} attach --to u1 -b zero0', timeout=70)

    try:
        u1.save('/tmp/u1.save')
    except CommandError:
        pass
    else:
        raise AssertionError('it was saved')

    wait_busids(u1, 'zero0')
    u1.check(f'{XUSBIP} quiesce', timeout=60)
    wait_busids(u1)
    u1.check(f'{XUSBIP} resume', timeout=60)
    wait_busids(u1, 'zero0')
    end(xen, gateway)


if __name__ == '__main__':
    bed.main(Xen('agent'))
