# SPDX-License-Identifier: Apache-2.0
"""Hosts of a network within one guest: each is a network namespace of its own,
and has links to others. The kernel is everybody's, and with it vhci_hcd: who
attaches takes a free port, whichever namespace it is in."""

import shlex

from guest import Commands


class Host(Commands):
    """A network namespace of a guest, with nothing but its loopback interface
    at first. Commands in it have the guest's files and processes."""

    def __init__(self, guest, name):
        self._guest = guest
        self.name = name
        guest.check(f'ip netns add {name}; ip -n {name} link set lo up')

    def _inside(self, command):
        return f'nsenter --net=/run/netns/{self.name} {command}'

    def run(self, command, timeout=30):
        return self._guest.run(
            self._inside(f'bash -c {shlex.quote(command)}'), timeout)

    def spawn(self, command, timeout=20):
        return self._guest.spawn(self._inside(command), timeout)

    def kill_all(self):
        """All its processes, at once."""
        self._guest.check(f'kill -KILL $(ip netns pids {self.name})')


class Link:
    """A cable between two hosts, A and B: 10.0.NUMBER.1 and 10.0.NUMBER.2. At
    each end the interface has the name of the host at the other one."""

    def __init__(self, guest, number, a, b):
        self.a_address = f'10.0.{number}.1'
        self.b_address = f'10.0.{number}.2'
        self._guest = guest
        self._ends = ((a, b.name), (b, a.name))
        guest.check(f'ip link add {b.name} netns {a.name} type veth '
                    f'peer name {a.name} netns {b.name}')
        for (host, interface), address in zip(
                self._ends, (self.a_address, self.b_address)):
            host.check(f'ip addr add {address}/24 dev {interface}; '
                       f'ip link set {interface} up')

    def _tc(self, verb, how=''):
        return '; '.join(f'tc -n {host.name} qdisc {verb} dev {interface} root '
                         f'{how}' for host, interface in self._ends)

    def impair(self, how):
        """What happens from now on to packets on their way, in both directions:
        words of tc-netem(8)."""
        self._guest.check(self._tc('replace', f'netem {how}'))

    def restore(self):
        """Packets arrive again as they were sent."""
        self._guest.check(self._tc('del'))

    def cut_until(self, condition, limit=10):
        """No packet arrives until the shell `condition` in the guest succeeds,
        and then all do again."""
        self._guest.check(f'''{self._tc('replace', 'netem loss 100%')}
until {condition}; do
[ "$SECONDS" -lt {limit} ] || exit 1
sleep 0.1
done
{self._tc('del')}''')
