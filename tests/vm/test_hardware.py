#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Emulated hardware through all of xusbip in one guest: libusb in a session,
the shared-memory channel, a link, and vhci_hcd with the kernel's own drivers.
Each device is back with its driver afterwards."""

import os
import socket
import struct

import bed
import helpers
from events import EV_ABS, EV_KEY, Events, check_points
from guest import Guest

STICK = '46f4:0001'
UAS = '46f4:0003'
KEYBOARD_OR_TABLET = '0627:0001'
SERIAL = '0403:6001'
AUDIO = '46f4:0002'
CCID = '08e6:4433'
MTP = '46f4:0004'
CONFIG = '\n'.join(
    f'export {{ vendor = "{vendor}" }}'
    for vendor in ('46f4', '0403', '08e6')) + '''
export { vendor = "0627" interfaces_any = { "03" } }'''

STICK_BYTES = 16 << 20
NUM_KEYS = 40
KEYS_AT_ONCE = 5
SERIAL_BYTES = 8192
SOUND_DRIVERS = ['snd-usb-audio'] * 2
RAMP_FRAMES = 48000
ALSA_FRAMES = 65536
FRAME_BYTES = 4
WAV_HEADER_BYTES = 44
KEY_A = 30


@bed.setup
def start_the_gateway(guest):
    guest.check('modprobe -a vhci-hcd usb-storage uas usbhid evdev ftdi_sio '
                'snd-usb-audio')
    guest.gateway = helpers.start_gateway(guest, CONFIG)


# From plug to unplug

def plug(guest, driver, ident, usb_id, drivers, **properties):
    """Plugs a device; its bus id when its drivers have it."""
    before = {device.busid for device in helpers.usb_devices(guest)}
    guest.plug(driver, ident, **properties)

    def probe():
        return [device.busid for device in helpers.usb_devices(guest)
                if device.id == usb_id and device.drivers == drivers and
                device.busid not in before]
    return helpers.wait_for(f'{ident} has the drivers {drivers}', probe, 20)[0]


def wait_drivers(guest, busid, drivers, limit=10):
    helpers.wait_for(
        f'{busid} has the drivers {drivers}',
        lambda: helpers.interface_drivers(guest, busid) == drivers, limit)


def attach(guest, busid, drivers):
    """Attaches; the VhciPort when the drivers have the imported device."""
    port = helpers.attach(guest, busid)
    wait_drivers(guest, port.busid, drivers)
    assert set(helpers.interface_drivers(guest, busid)) == {'usbfs'}
    return port


def detach(guest, port, busid, drivers):
    """Detaches; all is freed, and the drivers have the real device again."""
    helpers.detach(guest, port)
    helpers.wait_nothing_left(guest)
    wait_drivers(guest, busid, drivers)


# Storage

def plug_stick(guest, bus):
    """Plugs a memory stick of random bytes; its bus id."""
    path = os.path.join(guest.share, 'stick.img')
    if not os.path.exists(path):
        with open(path, 'wb') as image:
            image.write(os.urandom(STICK_BYTES))
    guest.add_drive('stick', path)
    return plug(guest, 'usb-storage', 'stick', STICK, ['usb-storage'],
                bus=bus, drive='stick')


def unplug_stick(guest, busid):
    guest.unplug('stick')
    guest.remove_drive('stick')
    helpers.wait_usb_gone(guest, busid)


def check_same_content(guest, disk):
    guest.check(f'sync; cmp -n {STICK_BYTES} /dev/{disk} /share/stick.img')


def verify_random_writes(guest, disk):
    """Writes each block once, in random order and sizes, many in flight."""
    guest.check(f'''fio --name=verify --filename=/dev/{disk} --direct=1 \
--ioengine=libaio --iodepth=16 --thread --rw=randwrite --bsrange=4k-256k \
--blockalign=4k --size={STICK_BYTES} --verify=crc32c --verify_fatal=1 \
--verify_state_save=0''',
                timeout=100)


def write_file_system(guest, disk):
    guest.check(f'''set -e
mkfs.ext4 -q /dev/{disk}
mkdir -p /mnt/stick
mount /dev/{disk} /mnt/stick
head -c 5000000 /dev/urandom > /mnt/stick/file
cp /mnt/stick/file /tmp/file
umount /mnt/stick''', timeout=60)


def read_file_system(guest, disk):
    guest.check(f'''set -e
mount -o ro /dev/{disk} /mnt/stick
cmp /mnt/stick/file /tmp/file
umount /mnt/stick''')


def check_stick(guest, bus, speed):
    """Every byte written there is read back, here, there, and in the image."""
    drivers = ['usb-storage']
    busid = plug_stick(guest, bus)
    port = attach(guest, busid, drivers)
    device, = [device for device in helpers.usb_devices(guest)
               if device.busid == port.busid]
    assert device.speed == speed, device

    disk = helpers.block_device(guest, port.busid)
    check_same_content(guest, disk)
    verify_random_writes(guest, disk)
    write_file_system(guest, disk)
    detach(guest, port, busid, drivers)

    read_file_system(guest, helpers.block_device(guest, busid))
    port = attach(guest, busid, drivers)
    disk = helpers.block_device(guest, port.busid)
    read_file_system(guest, disk)
    check_same_content(guest, disk)
    detach(guest, port, busid, drivers)
    unplug_stick(guest, busid)


@bed.test(limit=240)
def a_superspeed_stick_keeps_what_is_written(guest):
    check_stick(guest, 'xhci.0', '5000')


@bed.test(limit=240)
def a_high_speed_stick_keeps_what_is_written(guest):
    check_stick(guest, 'xhci2.0', '480')


@bed.test(limit=120)
def a_uas_disk_with_many_commands_in_flight_keeps_what_is_written(guest):
    path = os.path.join(guest.share, 'uas.img')
    with open(path, 'wb') as image:
        image.truncate(STICK_BYTES)
    guest.add_drive('disk', path)
    guest.plug('usb-uas', 'uas', bus='xhci2.0')
    guest.plug('scsi-hd', 'scsi', bus='uas.0', drive='disk')
    # Such a device waits to be attached until its disks are in their place.
    guest.qmp('qom-set', path='/machine/peripheral/uas', property='attached',
              value=True)
    busid = helpers.find_usb(guest, UAS)
    wait_drivers(guest, busid, ['uas'])
    helpers.block_device(guest, busid)

    port = attach(guest, busid, ['uas'])
    verify_random_writes(guest, helpers.block_device(guest, port.busid))

    detach(guest, port, busid, ['uas'])
    guest.unplug('uas')
    guest.remove_drive('disk')
    helpers.wait_usb_gone(guest, busid)


@bed.test(limit=180)
def a_stick_unplugged_in_the_middle_of_io_ends_everything(guest):
    busid = plug_stick(guest, 'xhci.0')
    port = attach(guest, busid, ['usb-storage'])
    disk = helpers.block_device(guest, port.busid)
    writer = guest.spawn(f'''fio --name=write --filename=/dev/{disk} \
--direct=1 --ioengine=libaio --iodepth=16 --thread --rw=randwrite --bs=64k \
--size={STICK_BYTES} --time_based --runtime=120''')
    writes = f"$(awk '{{ print $5 }}' /sys/block/{disk}/stat)"
    helpers.wait_until(guest, f'[ {writes} -gt 20 ]', 30)

    unplug_stick(guest, busid)

    helpers.wait_nothing_left(guest)
    helpers.wait_usb_gone(guest, port.busid)
    assert writer.wait(20) != 0
    assert 'error=' in writer.log(), writer.log()
    helpers.wait_for_line(guest.gateway,
                          f'{busid} detached: device was unplugged')

    busid = plug_stick(guest, 'xhci.0')
    port = attach(guest, busid, ['usb-storage'])
    check_same_content(guest, helpers.block_device(guest, port.busid))
    detach(guest, port, busid, ['usb-storage'])
    unplug_stick(guest, busid)


# Input

def check_keys(guest, events):
    """As many keys as a device holds that is not asked for a while."""
    expected = []
    for _ in range(NUM_KEYS // KEYS_AT_ONCE):
        guest.press(*['a'] * KEYS_AT_ONCE)
        expected += [(KEY_A, 1), (KEY_A, 0)] * KEYS_AT_ONCE
        events.wait(EV_KEY, len(expected))
    assert events.read(EV_KEY) == expected


def listed(guest):
    """The bus ids that the gateway offers."""
    output = guest.check(f'{helpers.XUSBIP} list -p '
                         f'-r {helpers.GATEWAY_ADDRESS}')
    return [word.removeprefix('busid=') for line in output.splitlines()
            for word in line.split('#') if word.startswith('busid=')]


@bed.test(limit=120)
def hot_plugged_keyboard_and_tablet_report_every_event(guest):
    assert not listed(guest)
    devices = []
    for driver in ('usb-kbd', 'usb-tablet'):
        busid = plug(guest, driver, driver, KEYBOARD_OR_TABLET, ['usbhid'])
        assert busid in listed(guest)
        devices.append((busid, attach(guest, busid, ['usbhid'])))
    keys, points = (Events(guest, port.busid, f'events{port.port}')
                    for _, port in devices)

    check_keys(guest, keys)
    check_points(guest, points)

    assert not points.read(EV_KEY) and not keys.read(EV_ABS)
    keys.stop()
    points.stop()
    (kbd, kbd_port), (tablet, tablet_port) = devices
    helpers.detach(guest, kbd_port)
    wait_drivers(guest, kbd, ['usbhid'])
    guest.unplug('usb-tablet')
    helpers.wait_nothing_left(guest)
    helpers.wait_usb_gone(guest, tablet_port.busid)
    assert listed(guest) == [kbd], tablet
    guest.unplug('usb-kbd')
    helpers.wait_usb_gone(guest, kbd)


# Serial

def exchange(line, data):
    """What comes back from the other end, to which `data` is sent."""
    line.settimeout(30)
    received = b''
    sent = 0
    while len(received) < len(data):
        # Never more in flight than the device holds.
        part = data[sent:len(received) + 256]
        line.sendall(part)
        sent += len(part)
        more = line.recv(4096)
        assert more, 'the line was closed'
        received += more
    return received


@bed.test(limit=120)
def bytes_pass_a_serial_line_both_ways(guest):
    path = os.path.join(guest.share, 'line')
    guest.qmp('chardev-add', id='line', backend={'type': 'socket', 'data': {
        'addr': {'type': 'unix', 'data': {'path': path}},
        'server': True, 'wait': False}})
    busid = plug(guest, 'usb-serial', 'serial', SERIAL, ['ftdi_sio'],
                 chardev='line', always_plugged=True)
    port = attach(guest, busid, ['ftdi_sio'])
    pattern = f'/sys/bus/usb/devices/{port.busid}:1.0/ttyUSB*'
    helpers.wait_until(guest, f'ls -d {pattern}')
    tty = '/dev/' + guest.check(f'basename {pattern}').strip()
    guest.check(f'stty -F {tty} raw -echo 115200')
    echo = guest.spawn(f"sh -c 'exec busybox cat < {tty} > {tty}'")
    helpers.wait_until(guest, f'readlink /proc/{echo.pid}/fd/1 | grep ttyUSB')

    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        data = os.urandom(SERIAL_BYTES)
        assert exchange(line, data) == data

    echo.stop()
    detach(guest, port, busid, ['ftdi_sio'])
    guest.unplug('serial')
    guest.qmp('chardev-remove', id='line')
    helpers.wait_usb_gone(guest, busid)


# Audio

def wav_path(guest):
    return guest.share + '.wav'


def write_ramp(path):
    """Frames that count from 1, and silence to fill ALSA's buffer twice."""
    with open(path, 'wb') as f:
        f.write(struct.pack(f'<{RAMP_FRAMES}I', *range(1, RAMP_FRAMES + 1)))
        f.write(bytes(2 * ALSA_FRAMES * FRAME_BYTES))


def played_frames(path):
    with open(path, 'rb') as f:
        data = f.read()[WAV_HEADER_BYTES:]
    data = data[:len(data) // FRAME_BYTES * FRAME_BYTES]
    return [frame for frame, in struct.iter_unpack('<I', data)]


def check_ramp(frames):
    """Between silence before and after it, the ramp is there as it was sent."""
    assert 1 in frames, f'no ramp in {len(frames)} frames'
    start = frames.index(1)
    ramp = frames[start:start + RAMP_FRAMES]
    wrong = [(expected, played) for expected, played in enumerate(ramp, 1)
             if played != expected]
    assert not wrong, f'{len(wrong)} frames, (expected, played): {wrong[:20]}'
    assert len(ramp) == RAMP_FRAMES, len(ramp)
    assert not any(frames[:start] + frames[start + RAMP_FRAMES:])


def attach_sound_card(guest):
    """Its bus id, its VhciPort, and the command that plays a file on it."""
    busid = plug(guest, 'usb-audio', 'audio', AUDIO, SOUND_DRIVERS,
                 audiodev='sound', buffer=262144)
    port = attach(guest, busid, SOUND_DRIVERS)
    pattern = f'/sys/bus/usb/devices/{port.busid}:1.0/sound/card*'
    helpers.wait_until(guest, f'ls -d {pattern}')
    card = guest.check(f'basename {pattern}').strip().removeprefix('card')
    return busid, port, (f'aplay -q -D hw:{card},0 -t raw -f S16_LE -r 48000 '
                         f'-c 2 --buffer-size={ALSA_FRAMES}')


@bed.test(limit=150)
def isochronous_playback_has_no_gap(guest):
    busid, port, play = attach_sound_card(guest)
    write_ramp(os.path.join(guest.share, 'ramp'))
    guest.check('cp /share/ramp /tmp/ramp')

    guest.check(f'{play} /tmp/ramp', timeout=60)

    detach(guest, port, busid, SOUND_DRIVERS)
    guest.unplug('audio')
    helpers.wait_usb_gone(guest, busid)
    check_ramp(played_frames(wav_path(guest)))


@bed.test(limit=120)
def a_sound_card_unplugged_while_it_plays_ends_everything(guest):
    busid, port, play = attach_sound_card(guest)
    player = guest.spawn(f'{play} /dev/zero')
    helpers.wait_until(
        guest, 'grep RUNNING /proc/asound/card*/pcm0p/sub0/status', 20)

    guest.unplug('audio')

    helpers.wait_nothing_left(guest)
    helpers.wait_usb_gone(guest, port.busid)
    helpers.wait_usb_gone(guest, busid)
    assert player.wait() != 0


# Devices that answer

@bed.test(limit=120)
def a_card_reader_tells_its_slots_status(guest):
    busid = plug(guest, 'usb-ccid', 'ccid', CCID, [''])
    port = attach(guest, busid, [''])

    # PC_to_RDR_GetSlotStatus of slot 0, sequence number 7
    answer = guest.check(f'tests/vm/bulk.py {port.busid} '
                         '65000000000007000000 1')

    # RDR_to_PC_SlotStatus: no card there, no error
    assert answer == '81000000000007020000\n', answer
    detach(guest, port, busid, [''])
    guest.unplug('ccid')
    helpers.wait_usb_gone(guest, busid)


@bed.test(limit=120)
def an_mtp_device_describes_itself(guest):
    busid = plug(guest, 'usb-mtp', 'mtp', MTP, [''], rootdir=guest.share)
    port = attach(guest, busid, [''])

    # A command container: GetDeviceInfo, transaction 0
    command = struct.pack('<IHHI', 12, 1, 0x1001, 0).hex()
    data, response = map(bytes.fromhex, guest.check(
        f'tests/vm/bulk.py {port.busid} {command} 2').split())

    assert struct.unpack('<IHHI', data[:12]) == (len(data), 2, 0x1001, 0)
    assert 'QEMU'.encode('utf-16-le') in data
    assert response == struct.pack('<IHHI', 12, 3, 0x2001, 0)
    detach(guest, port, busid, [''])
    guest.unplug('mtp')
    helpers.wait_usb_gone(guest, busid)


def make_guest():
    guest = Guest('hardware')
    guest.devices = [
        '-device', 'qemu-xhci,id=xhci2,p2=4,p3=0',
        '-audiodev', f'wav,id=sound,path={wav_path(guest)},'
                     'out.mixing-engine=off']
    return guest


if __name__ == '__main__':
    bed.main(make_guest())
