# SPDX-License-Identifier: Apache-2.0
"""What tests in guests ask for again and again: waiting for a condition, the
USB devices and the vhci ports as the guest's kernel shows them, gadgets on
dummy_hcd, cases of usbtest, and what a process holds."""

import collections
import json
import re
import shlex
import socket
import time

from guest import CommandError

VHCI = '/sys/devices/platform/vhci_hcd.0'
VHCI_PORT_FREE = 4
VHCI_PORT_USED = 6
XUSBIP = '/xusbip/build/xusbip'
GATEWAY = '/xusbip/build/xusbip-gateway'
AGENT = '/xusbip/build/xusbip-frontend'
GATEWAY_ADDRESS = 'unix:/run/gateway.sock'
GATEWAY_DIR = '/run/gateway'
STATE_DIR = '/var/lib/xusbip'
RECORDS = '/var/run/vhci_hcd'
PROCESSES = ('xusbip-session', 'xusbip-dialer', 'xusbip-link', 'xusbip-keeper',
             'xusbip-standby', 'xusbip-serve')
USBTEST = '/xusbip/build/tests/vm/usbtest'
# What a SourceSink gadget on dummy_hcd passes without USB/IP. Isochronous and
# interrupt cases (15, 16, 22, 23, 25, 26) are not offered there.
SOURCESINK_CASES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 18,
                    19, 20, 21, 24, 27, 28, 29}
NOT_OFFERED = 'not offered (EOPNOTSUPP)'
GADGETS = '/sys/kernel/config/usb_gadget'
POLL_S = 0.1

# `path` is the real folder in sysfs, so it tells the controller; `drivers` has
# one name for each interface, '' for none.
UsbDevice = collections.namedtuple('UsbDevice', 'busid id speed path drivers')
VhciPort = collections.namedtuple('VhciPort',
                                  'hub port status speed devid sockfd busid')


def wait_until(guest, condition, limit=30):
    """Returns when the shell `condition` in the guest succeeds.

    CommandError, with the last output of the condition, if it does not within
    `limit` seconds.
    """
    status, output = guest.run(
        f'until said=$(eval {shlex.quote(condition)} 2>&1); do\n'
        f'[ "$SECONDS" -lt {limit} ] || {{ echo "$said"; exit 1; }}\n'
        f'sleep {POLL_S}\ndone', timeout=limit + 10)
    if status:
        raise CommandError(f'not within {limit} s: {condition}:\n{output}')


def wait_for(what, probe, limit=30):
    """The first true value of probe(); CommandError after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise CommandError(f'not within {limit} s: {what}')
        time.sleep(POLL_S)


# USB devices

def usb_devices(guest):
    """All UsbDevices but root hubs."""
    output = guest.check('''
cd /sys/bus/usb/devices
for device in *; do
	case "$device" in usb*|*:*) continue ;; esac
	read -r vendor < "$device/idVendor" || continue
	read -r product < "$device/idProduct"
	read -r speed < "$device/speed"
	drivers=
	for interface in "$device":*; do
		driver=$(readlink "$interface/driver")
		drivers="$drivers,${driver##*/}"
	done
	echo "$device|$vendor:$product|$speed|$(readlink -f "$device")|$drivers"
done 2> /dev/null''')
    devices = []
    for line in output.splitlines():
        busid, ident, speed, path, drivers = line.split('|')
        devices.append(UsbDevice(busid, ident, speed, path,
                                 drivers.split(',')[1:]))
    return devices


def find_usb(guest, ident, controller='', limit=15):
    """The busid of the device VID:PID, waited for.

    `controller` is a part of its path in sysfs: 'vhci_hcd', 'dummy_hcd', ….
    """
    def probe():
        return [device.busid for device in usb_devices(guest)
                if device.id == ident and controller in device.path]
    return wait_for(f'USB device {ident} {controller}', probe, limit)[0]


def wait_usb_gone(guest, busid, limit=15):
    wait_until(guest, f'! [ -e /sys/bus/usb/devices/{busid} ]', limit)


def interface_drivers(guest, busid):
    """The drivers of a device's interfaces, in order; '' for none."""
    return [device.drivers for device in usb_devices(guest)
            if device.busid == busid][0]


def block_device(guest, busid, limit=20):
    """The name (sda) of the disk that a USB device gives, waited for with its
    node in /dev, which comes later than the one in sysfs."""
    pattern = f'/sys/bus/usb/devices/{busid}:*/host*/target*/*:*/block/*'
    wait_until(guest, f'[ -b /dev/$(basename {pattern}) ]', limit)
    return guest.check(f'basename {pattern}').strip()


# vhci

def vhci_ports(guest):
    """All VhciPorts of all the hub's status files."""
    ports = []
    output = guest.check(f'cat {VHCI}/status*')
    for line in output.splitlines():
        words = line.split()
        if len(words) == 7 and words[0] in ('hs', 'ss'):
            hub, port, status, speed, devid, sockfd, busid = words
            ports.append(VhciPort(hub, int(port), int(status), int(speed),
                                  int(devid, 16), int(sockfd), busid))
    return ports


def used_vhci_ports(guest):
    return [port for port in vhci_ports(guest)
            if port.status != VHCI_PORT_FREE]


def wait_vhci_ports_free(guest, limit=30):
    wait_for('all vhci ports are free',
             lambda: not used_vhci_ports(guest), limit)


# Gateway and frontend

def start_gateway(guest, config, listen=(GATEWAY_ADDRESS,), name='gateway'):
    """A Job of xusbip-gateway, which is ready. `config` is what it exports.
    /run/NAME.conf and the folder /run/NAME are its own."""
    addresses = ', '.join(f'"{address}"' for address in listen)
    guest.check(f'''cat > /run/{name}.conf <<'END'
listen = {{ {addresses} }}
runtime_dir = "/run/{name}"
{config}
END''')
    gateway = guest.spawn(f'{GATEWAY} --debug -c /run/{name}.conf')
    wait_for_line(gateway, 'ready')
    return gateway


def start_agent(guest, gateway=GATEWAY_ADDRESS, listen='127.0.0.1:3240',
                config=''):
    """A Job of xusbip-frontend, which is ready. `config` is what is to stay
    attached."""
    guest.check(f'''cat > /run/frontend.conf <<'END'
listen = {{ "{listen}" }}
gateways = {{ "{gateway}" }}
{config}
END''')
    agent = guest.spawn(f'{AGENT} --debug -c /run/frontend.conf')
    wait_for_line(agent, 'ready')
    return agent


def wait_for_line(job, words, limit=30):
    """Returns when the job has logged `words`."""
    wait_for(f'"{words}" in the log of {job.command}',
             lambda: words in job.log(), limit)


def attach(guest, busid, remote=GATEWAY_ADDRESS):
    """Attaches with xusbip; the VhciPort, whose busid is that in the guest."""
    said = guest.check(f'{XUSBIP} attach --json -r {remote} -b {busid}',
                       timeout=40)
    number = json.loads(said)['port']
    return [port for port in vhci_ports(guest) if port.port == number][0]


def detach(guest, port):
    """Detaches a VhciPort with xusbip."""
    guest.check(f'{XUSBIP} detach -p {port.port}')


def wait_nothing_left(guest, limit=15, gateways=('gateway',)):
    """All attachments have ended: no port, process, record or claim is left.

    The gateways, of which the names are given, and the agent go on.
    """
    wait_vhci_ports_free(guest, limit)
    wait_until(guest, f'! pgrep -x -r R,S,D,T "{"|".join(PROCESSES)}"', limit)
    wait_until(guest, f'! [ -e {RECORDS} ]', limit)
    for name in gateways:
        wait_claims_gone(guest, name, limit)


def wait_claims_gone(guest, gateway='gateway', limit=15):
    """All devices of a gateway are free."""
    wait_until(guest, f'! ls /run/{gateway}/*.lock', limit)


# Gadgets

def gadget_sourcesink(guest, name='sourcesink', speed='high'):
    """Makes Gadget Zero's SourceSink on dummy_hcd; the device's busid.

    `speed` is 'high' or 'super'. One gadget at a time.
    """
    is_super = 'Y' if speed == 'super' else 'N'
    guest.check(f'''
modprobe -r dummy_hcd 2> /dev/null
modprobe dummy_hcd is_super_speed={is_super}
modprobe libcomposite
set -e
mkdir {GADGETS}/{name}
cd {GADGETS}/{name}
echo 0x0525 > idVendor
echo 0xa4a0 > idProduct
mkdir strings/0x409 configs/c.1 functions/SourceSink.0
echo xusbip > strings/0x409/manufacturer
echo {name} > strings/0x409/product
echo 0001 > strings/0x409/serialnumber
ln -s functions/SourceSink.0 configs/c.1
echo dummy_udc.0 > UDC''')
    return find_usb(guest, '0525:a4a0', 'dummy_hcd')


def gadget_remove(guest, name='sourcesink'):
    """Unplugs and removes a gadget, so that another one can be made."""
    guest.check(f'''
cd {GADGETS}/{name}
echo > UDC
rm configs/c.1/*.0
rmdir configs/c.1 functions/* strings/*
cd ..
rmdir {name}''')


def usbtest(guest, busid, cases='0-29', options='', timeout=300):
    """{case: 'ok', NOT_OFFERED or 'failed: ...'}."""
    status, output = guest.run(f'{USBTEST} {options} {busid} {cases}', timeout)
    verdicts = {int(case): verdict for case, verdict
                in re.findall(r'^case (\d+): (.*)$', output, re.M)}
    if status not in (0, 1) or not verdicts:
        raise CommandError(f'usbtest {busid} {cases}: status {status}, after '
                           f'{len(verdicts)} cases:\n{output}')
    return verdicts


# Processes

def pids(guest, name):
    """The processes whose program has this name (not zombies)."""
    output = guest.run(f'pgrep -x -r R,S,D,T {shlex.quote(name[:15])}').output
    return [int(pid) for pid in output.split()]


def count_fds(guest, pid):
    return int(guest.check(f'ls /proc/{pid}/fd | wc -l'))


def own_memory_kib(guest, pid):
    """What a process has for itself: pages of its program come and go."""
    output = guest.check(f'cat /proc/{pid}/status')
    return int(re.search(r'^RssAnon:\s+(\d+) kB', output, re.M)[1])


def free_memory_kib(guest):
    """Memory that the guest could give, after it dropped its caches.

    Each CPU keeps free pages for itself, tens of MiB of them, which the kernel
    does not count as free.
    """
    output = guest.check('sync; echo 3 > /proc/sys/vm/drop_caches; '
                         'cat /proc/meminfo /proc/zoneinfo; getconf PAGESIZE')
    page_kib = int(output.split()[-1]) // 1024
    kept = sum(map(int, re.findall(r'^ +count: +(\d+)$', output, re.M)))
    available = re.search(r'^MemAvailable:\s+(\d+) kB', output, re.M)[1]
    return int(available) + kept * page_kib


def kernel_log(guest):
    return guest.check('dmesg')


def free_host_port():
    """A TCP port of the host that nobody uses now, for Guest(hostfwd=)."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]
