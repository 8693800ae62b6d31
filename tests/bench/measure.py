# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks measure, and how: operations on one SuperSpeed
usb-storage device of QEMU's, in a guest whose clock counts instructions."""

import os

import helpers

BUILD = '/xusbip/build'
BENCH = f'{BUILD}/tests/bench/bench_io'
DISK = '46f4:0001'
DISK_BYTES = 64 << 20
OPERATIONS = [  # name, arguments, times
    ('read 64K', 'read 65536', 200),
    ('write 64K', 'write 65536', 200),
    ('read 1M', 'read 1048576', 60),
    ('write 1M', 'write 1048576', 60),
    ('read 4K', 'read 4096', 400),
    ('GET_DESCRIPTOR', 'control', 400),
]


def plug_disk(guest):
    """Its busid in the guest that has the controller."""
    image = os.path.join(guest.share, 'disk.img')
    with open(image, 'wb') as f:
        f.truncate(DISK_BYTES)
    guest.add_drive('bench', image)
    guest.plug('usb-storage', 'bench', drive='bench')
    return helpers.find_usb(guest, DISK, limit=60)


def measure(guest, busid):
    """Thousand instructions for each operation on the device `busid`."""
    disk = helpers.block_device(guest, busid)
    node = guest.check(f'cd /sys/bus/usb/devices/{busid}; '
                       'printf /dev/bus/usb/%03d/%03d $(cat busnum devnum)')
    # udev, where there is one, and the kernel look at a new disk first.
    guest.check('! command -v udevadm || udevadm settle', timeout=120)
    figures = {}
    for name, arguments, times in OPERATIONS:
        what = f'{arguments} {times} /dev/{disk}'
        if arguments == 'control':
            what = f'control {times} {node}'
        nanoseconds = int(guest.check(f'{BENCH} {what}', timeout=300))
        figures[name] = nanoseconds / 1000
    return figures


def measure_imported(guest):
    busid = helpers.find_usb(guest, DISK, controller='vhci_hcd', limit=60)
    return measure(guest, busid)


def detach(guest, command):
    port = helpers.used_vhci_ports(guest)[0].port
    guest.check(f'{command} detach -p {port}', timeout=60)
    helpers.wait_vhci_ports_free(guest, 60)


def print_table(columns, theirs=('usbip',)):
    """`columns` is {name: figures}; the ratio is that of the last one, ours, to
    the least of `theirs`."""
    *_, ours = columns.values()
    print(f'{"thousand instructions":24}' +
          ''.join(f'{name:>10}' for name in [*columns, 'ratio']))
    for name, _, _ in OPERATIONS:
        least = min(columns[each][name] for each in theirs)
        print(f'{name:24}' +
              ''.join(f'{figures[name]:10.0f}' for figures in columns.values())
              + f'{ours[name] / least:10.2f}')
