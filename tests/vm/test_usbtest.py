#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The kernel's usbtest as the judge of the whole path: gateway, shared memory,
link, vhci_hcd. Its devices are the virtual zero and a SourceSink gadget on
dummy_hcd, which goes through libusb.

usbtest offers a case only where the interface that it was given has endpoints
for it. Setting 1 of zero has all of them, so every case from 0 to 29 is run. A
gadget on dummy_hcd has bulk endpoints alone, as without USB/IP (test_bed.py):
what is about isochronous and interrupt endpoints is not offered there.
"""

import bed
import helpers
from guest import Guest
from helpers import NOT_OFFERED, SOURCESINK_CASES

ALL_CASES = set(range(30))
UNLINK_CASES = '11 12 24'
ANY_SETTING = -1
ALL_ENDPOINTS = 1  # the setting of zero that has them


def load_usbtest(guest, setting):
    guest.check(f'modprobe -r usbtest; modprobe usbtest alt={setting}')


def attach(guest, busid):
    """Attaches; the VhciPort of a device that usbtest has."""
    port = helpers.attach(guest, busid)
    helpers.wait_for(
        f'{busid} is bound to usbtest', lambda:
        helpers.interface_drivers(guest, port.busid) == ['usbtest'])
    return port


def assert_verdicts(guest, busid, offered, cases='0-29', options=''):
    verdicts = helpers.usbtest(guest, busid, cases, options)
    expected = {case: 'ok' if case in offered else NOT_OFFERED
                for case in verdicts}
    assert verdicts == expected, {
        case: verdict for case, verdict in verdicts.items()
        if verdict != expected[case]}
    return set(verdicts)


def detach(guest, port):
    helpers.detach(guest, port)
    helpers.wait_nothing_left(guest)


@bed.setup
def start_a_gateway(guest):
    # usbtest says each retry of an unlink at the console.
    guest.check('dmesg -n 1; modprobe vhci-hcd')
    helpers.start_gateway(guest, '''
zero "zero0" { }
export { vendor = "0525" product = "a4a0" }''')


@bed.test(limit=240)
def zero_passes_every_case_isochronous_and_interrupt_ones_included(guest):
    load_usbtest(guest, ALL_ENDPOINTS)
    port = attach(guest, 'zero0')

    assert assert_verdicts(guest, port.busid, ALL_CASES) == ALL_CASES
    detach(guest, port)


@bed.test(limit=120)
def zero_passes_transfers_that_are_long_and_many(guest):
    load_usbtest(guest, ALL_ENDPOINTS)
    port = attach(guest, 'zero0')

    assert_verdicts(guest, port.busid, ALL_CASES, '1-8 17-20 27 28',
                    '-c 4 -s 65536 -v 4096')
    assert_verdicts(guest, port.busid, ALL_CASES, '15 16 22 23',
                    '-c 4 -s 49152 -g 16')
    detach(guest, port)


def check_gadget(guest, speed):
    load_usbtest(guest, ANY_SETTING)
    real = helpers.gadget_sourcesink(guest, speed=speed)
    port = attach(guest, real)

    assert assert_verdicts(guest, port.busid, SOURCESINK_CASES) == ALL_CASES
    for _ in range(3):
        assert_verdicts(guest, port.busid, SOURCESINK_CASES, UNLINK_CASES)

    detach(guest, port)
    helpers.wait_for(
        'the gadget is back with its driver', lambda:
        helpers.interface_drivers(guest, real) == ['usbtest'])
    helpers.gadget_remove(guest)


@bed.test(limit=240)
def a_high_speed_gadget_passes_what_it_passes_without_usbip(guest):
    check_gadget(guest, 'high')


@bed.test(limit=240)
def a_superspeed_gadget_passes_what_it_passes_without_usbip(guest):
    check_gadget(guest, 'super')


if __name__ == '__main__':
    # usbtest retries an unlink without end or sleep. On one CPU, the processes
    # that would bring the answer run only if they may interrupt it.
    bed.main(Guest('usbtest', append='preempt=full'))
