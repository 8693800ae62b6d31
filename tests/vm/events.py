# SPDX-License-Identifier: Apache-2.0
"""What an input device reports, counted event by event, against what QEMU was
told to send."""

import base64
import struct

import helpers

NUM_POINTS = 20
INPUT_EVENT = struct.Struct('llHHi')
EV_KEY, EV_ABS = 1, 3


class Events:
    """Records what an attached input device reports."""

    def __init__(self, guest, busid, name):
        pattern = f'/sys/bus/usb/devices/{busid}:1.0/*/input/input*/event*'
        helpers.wait_until(guest, f'ls -d {pattern}')
        node = guest.check(f'basename {pattern}').strip()
        self._guest = guest
        self._path = f'/run/{name}'
        self._reader = guest.spawn(
            f"sh -c 'exec cat /dev/input/{node} > {self._path}'")
        helpers.wait_until(
            guest, f'ls -l /proc/{self._reader.pid}/fd | grep {node}')

    def read(self, kind):
        """[(code, value)] so far, without the kernel's own repeats."""
        data = base64.b64decode(self._guest.check(f'base64 {self._path}'))
        data = data[:len(data) // INPUT_EVENT.size * INPUT_EVENT.size]
        return [(code, value) for _, _, what, code, value
                in INPUT_EVENT.iter_unpack(data)
                if what == kind and not (kind == EV_KEY and value == 2)]

    def wait(self, kind, count):
        helpers.wait_for(f'{count} events came',
                         lambda: len(self.read(kind)) >= count)

    def stop(self):
        self._reader.stop()


def check_points(machine, events):
    """One point after the other: the device reports its last one only."""
    expected = []
    for number in range(NUM_POINTS):
        x, y = 1000 + 1500 * number, 32000 - 1500 * number
        machine.point(x, y)
        expected += [(0, x), (1, y)]
        events.wait(EV_ABS, len(expected))
    assert events.read(EV_ABS) == expected
