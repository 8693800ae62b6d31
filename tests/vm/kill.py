#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs in a guest: kills processes, and tells by the guest's own clock when
each thing that their attachment held was let go.

    kill.py LIMIT_MS CLAIMS BUSID DRIVER PID...

CLAIMS is the gateway's folder of locks; BUSID is the device at the gateway,
whose interfaces shall have DRIVER again ("-": nothing is to come back). The
exit status is 1 if something is left at the limit.
"""

import glob
import os
import signal
import sys
import time

PORTS = '/sys/devices/platform/vhci_hcd.0/status*'
PORT_FREE = '004'
RECORDS = '/var/run/vhci_hcd'
PROCESSES = ('xusbip-session', 'xusbip-link', 'xusbip-keeper',
             'xusbip-standby', 'xusbip-serve')
POLL_S = 0.01


def read(path):
    try:
        with open(path, encoding='ascii', errors='replace') as f:
            return f.read()
    except (FileNotFoundError, ProcessLookupError):
        return ''


def ports():
    rows = [line.split() for path in glob.glob(PORTS)
            for line in read(path).splitlines()]
    return [row for row in rows
            if row[0] in ('hs', 'ss') and row[2] != PORT_FREE]


def processes():
    left = []
    for path in glob.glob('/proc/[0-9]*/stat'):
        _, _, rest = read(path).partition('(')
        name, _, rest = rest.rpartition(') ')
        if name in PROCESSES and not rest.startswith('Z'):
            left.append(name)
    return left


def records():
    return glob.glob(RECORDS + '*')


def claims(folder):
    return glob.glob(folder + '/*.lock')


def foreign_drivers(busid, driver):
    """The drivers that are not the one that shall be there."""
    if driver == '-':
        return []
    found = []
    for interface in glob.glob(f'/sys/bus/usb/devices/{busid}:*'):
        try:
            name = os.path.basename(os.readlink(interface + '/driver'))
        except FileNotFoundError:
            name = 'none'
        found.append(name)
    return [name for name in found or ['no device'] if name != driver]


def main():
    limit_ms, folder, busid, driver, *victims = sys.argv[1:]
    probes = {'port': ports, 'processes': processes, 'record': records,
              'claim': lambda: claims(folder),
              'driver': lambda: foreign_drivers(busid, driver)}
    began = time.monotonic()
    for victim in victims:
        os.kill(int(victim), signal.SIGKILL)
    left = dict(probes)
    now_ms = 0
    while left and now_ms <= int(limit_ms):
        for name in list(left):
            left[name] = probes[name]()
            now_ms = int((time.monotonic() - began) * 1000)
            if not left[name]:
                print(f'{name} {now_ms}')
                del left[name]
        time.sleep(POLL_S)
    for name, what in left.items():
        print(f'{name} is left after {now_ms} ms: {what}')
    return 1 if left else 0


if __name__ == '__main__':
    sys.exit(main())
