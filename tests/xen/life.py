# SPDX-License-Identifier: Apache-2.0
"""Two guests with four devices that are read and written without end, and
everything that can happen to them: each event is a method of Life, which raises
what kept it from happening, and settle() returns when all is again as it was,
or tells what is not.

Each device is attached in one of three ways: "persist", given from the dom0 and
to come back by itself; "stock", by usbip through the guest's agent; "command",
by xusbip without the agent. What was lost and does not come back by itself is
attached anew, which must succeed at once.
"""

import collections
import concurrent.futures
import re
import struct
import threading
import time

import helpers
import parts
from guest import CommandError
from parts import check_xusbip, xusbip

Device = collections.namedtuple('Device', 'busid guest way image kib')

UUIDS = {'u1': '0a9bd0f6-2f0a-4b53-9a0c-6d6a41c0de01',
         'u2': '0a9bd0f6-2f0a-4b53-9a0c-6d6a41c0de02'}
STICK = 'stick'  # until its bus id is known
DEVICES = [Device(STICK, 'u1', 'persist', 'stick.img', 1024),
           Device('disk1', 'u1', 'stock', 'disk1.img', 768),
           Device('disk2', 'u2', 'persist', 'disk2.img', 512),
           Device('disk3', 'u2', 'command', 'disk3.img', 640)]
CONFIG = f'export {{ vendor = "{parts.STICK[:4]}" domains = {{ "u1" }} }}\n' + \
    ''.join(f'disk "{device.busid}" {{ image = "/share/{device.image}" '
            f'domains = {{ "{device.guest}" }} }}\n'
            for device in DEVICES if device.busid != STICK)
GUEST_MIB = 160
SETTLE_LIMIT_S = 60
USE_LIMIT_S = 40
DEATH_LIMIT_MS = 30000
# How soon the devices of a dead guest are free. The clock is that of an
# emulated machine, which others make slow: the best of so many deaths counts.
FREED_MS = 1000
DEATHS = 3
USES = '/run/uses'
# One that reads and one that writes.
USES_TO_SEE = 2
# As in tests/xen/disk_io.c.
SECTOR_BYTES = 512
GENERATION_SHIFT = 52


def make_sector(sectors, number, generation=0):
    """What tests/xen/disk_io.c expects, and writes."""
    return struct.pack('<64Q', *(
        generation << GENERATION_SHIFT | sectors << 40 | number << 16 | word
        for word in range(64)))


def make_images(xen):
    for device in DEVICES:
        sectors = device.kib * 2
        with open(parts.image_path(xen, device.image), 'wb') as f:
            for number in range(sectors):
                f.write(make_sector(sectors, number))


def check_image(xen, device):
    """Its second half was written, and each sector is a whole one of its
    own."""
    sectors = device.kib * 2
    generations = []
    with open(parts.image_path(xen, device.image), 'rb') as f:
        for number in range(sectors):
            data = f.read(SECTOR_BYTES)
            generation = struct.unpack_from('<Q', data)[0] >> GENERATION_SHIFT
            assert data == make_sector(sectors, number, generation), (
                f'{device.image} is damaged in sector {number}')
            generations.append(generation)
    half = sectors // 2
    assert not any(generations[:half]) and any(generations[half:]), device


def set_up(xen):
    """What the tests start from, and compare with at their ends."""
    xen.check('modprobe usb-storage delay_use=0')
    make_images(xen)
    xen.before = xen.leftovers()
    assert xen.before['domains'] == ['Domain-0 0 '], xen.before


def prepare(domain):
    """A guest that has just booted: drivers and an agent."""
    domain.jobs.clear()
    domain.check('modprobe vhci-hcd; modprobe usb-storage delay_use=0')
    domain.agent = parts.start_agent(domain)


def create(xen, name):
    domain = xen.create(name, memory=GUEST_MIB,
                        extra_config={'uuid': UUIDS[name]})
    prepare(domain)
    return domain


def attachments(domain):
    """{bus id at the gateway: number of the port}, and whether the kernel has
    just these ports, in use."""
    said = domain.check(f'''
for f in /var/run/vhci_hcd/port*; do
	[ -e "$f" ] && read -r _ _ busid < "$f" && echo "${{f##*port}} $busid"
done
cat {helpers.VHCI}/status*''')
    found = {busid: int(port) for port, busid
             in re.findall(r'^(\d+) (\S+)$', said, re.M)}
    ports = {int(port): int(status) for port, status
             in re.findall(r'^[hs]s +(\d+) +(\d+) ', said, re.M)}
    used = {port: status for port, status in ports.items()
            if status != helpers.VHCI_PORT_FREE}
    return found, used == dict.fromkeys(found.values(),
                                        helpers.VHCI_PORT_USED)


def records(domain):
    return attachments(domain)[0]


def check_alive(job):
    if not job.is_alive():
        raise CommandError(f'{job.command}: has ended already')


def restart_gateway(gateway, xen, signal, config, pause_s=0):
    """Ends the gateway by a signal; the next one, a Job."""
    gateway.stop(signal, timeout=30)
    time.sleep(pause_s)
    return parts.start_gateway(xen, config)


def destroy_and_measure(guest, busids):
    """How many ms after its death all its devices were free."""
    said = guest.xen.check(f'tests/xen/death {DEATH_LIMIT_MS} '
                           f'{helpers.GATEWAY_DIR} {guest.domid} '
                           f'{" ".join(busids)}', timeout=60)
    guest.wait_gone()
    found = re.findall(r'^(\S+) (-?\d+)$', said, re.M)
    print('# ms after the death: ' + ', '.join(map(' '.join, found)),
          flush=True)
    assert len(found) == len(busids), said
    return max(int(ms) for _, ms in found)


class Life:
    """Owned by one test. Events may be called from several threads at once."""

    def __init__(self, xen):
        self.xen = xen
        self.gateway_lock = threading.Lock()
        self.agent_locks = {name: threading.Lock() for name in UUIDS}
        self.stick_lock = threading.Lock()
        self.devices = {}
        self.guests = {}
        self.deaths_ms = []
        self.slowest_s = 0
        self.gateway = parts.start_gateway(xen, CONFIG)
        self.stick = self._plug()
        for device in DEVICES:
            if device.busid == STICK:
                device = device._replace(busid=self.stick)
            self.devices[device.busid] = device

    # Events. `pick` is from 0 to 1.

    def _kill(self, domain, name, pick):
        found = helpers.pids(domain, name)
        if not found:
            raise CommandError(f'there is no {name}')
        domain.check(f'kill -KILL {found[int(pick * len(found))]}')

    def kill_session(self, _, pick):
        self._kill(self.xen, 'xusbip-session', pick)

    def kill_link(self, name, pick):
        self._kill(self.guests[name], 'xusbip-link', pick)

    def kill_warden(self, name, pick):
        self._kill(self.guests[name], 'xusbip-warden', pick)

    def kill_keeper(self, _, pick):
        self._kill(self.guests['u2'], 'xusbip-keeper', pick)

    def kill_standby(self, _, pick):
        self._kill(self.guests['u2'], 'xusbip-standby', pick)

    def kill_manager(self, _, pick):
        self._restart_gateway('KILL', pick)

    def end_gateway(self, _, pick):
        self._restart_gateway('TERM', pick)

    def _restart_gateway(self, signal, pick):
        with self.gateway_lock:
            check_alive(self.gateway)
            self.gateway = restart_gateway(self.gateway, self.xen, signal,
                                           CONFIG, 2 * pick)

    def kill_agent(self, name, pick):
        self._restart_agent(name, 'KILL', pick)

    def end_agent(self, name, pick):
        self._restart_agent(name, 'TERM', pick)

    def _restart_agent(self, name, signal, pick):
        with self.agent_locks[name]:
            guest = self.guests[name]
            check_alive(guest.agent)
            guest.agent.stop(signal, timeout=30)
            time.sleep(2 * pick)
            guest.agent = parts.start_agent(guest)

    def detach_in_guest(self, name, pick):
        guest = self.guests[name]
        found = sorted(records(guest).items())
        if found:
            busid, port = found[int(pick * len(found))]
            stock = self.devices[busid].way == 'stock'
            guest.check(f'{"usbip" if stock else helpers.XUSBIP} detach '
                        f'-p {port}')

    def detach_from_dom0(self, name, pick):
        found = sorted(device.busid for device in self.devices.values()
                       if device.guest == name)
        busid = found[int(pick * len(found))]
        check_xusbip(self.xen, f'detach --from {name} -b {busid}')

    def replug_stick(self, _, pick):
        with self.stick_lock:
            self.xen.unplug('stick')
            self.xen.remove_drive('stick')
            self.is_plugged = False
            helpers.wait_usb_gone(self.xen, self.stick)
            time.sleep(2 * pick)
            assert self._plug() == self.stick

    def _plug(self):
        """Its bus id, which is always the same."""
        self.xen.add_drive('stick',
                           parts.image_path(self.xen, 'stick.img'))
        parts.insert_stick(self.xen)
        self.is_plugged = True
        return helpers.find_usb(self.xen, parts.STICK)

    def pause(self, name, pick):
        guest = self.guests[name]
        guest.pause()
        time.sleep(0.2 + 2 * pick)
        guest.unpause()

    def destroy(self, name, _):
        self.guests[name].destroy()

    def destroy_and_measure(self, name, _):
        """The same, while nothing else happens."""
        guest = self.guests[name]
        self.deaths_ms.append(destroy_and_measure(guest, records(guest)))

    def shutdown(self, name, _):
        self.guests[name].shutdown(limit=60)

    def reboot(self, name, _):
        guest = self.guests[name]
        self.xen.check(f'xl reboot {guest.domid}')
        guest.wait_gone(limit=60)
        helpers.wait_until(self.xen, f'xl domid {name}', 20)

    def save_and_restore(self, name, pick):
        guest = self.guests[name]
        self.xen.check(f'{parts.WRAPPER} save {name} /tmp/{name}.save', timeout=150)
        guest.wait_gone()
        time.sleep(pick)
        self.xen.check(f'{parts.WRAPPER} restore /tmp/{name}.save', timeout=150)
        guest.reopen()

    # What whoever looks after the machine does behind them

    def revive(self):
        """Everybody is there who was told to be, or crossing events were in
        the way of."""
        if not self.gateway.is_alive():
            self.gateway = parts.start_gateway(self.xen, CONFIG)
        if not self.is_plugged:
            self._plug()
        domids, held = self._look_around()
        for name in UUIDS:
            self._revive_guest(name, domids.get(name))
        for name in held:
            helpers.wait_for(f'{name} is resumed', lambda name=name: xusbip(
                self.xen, f'resume {name}').status == 0, 30)

    def _revive_guest(self, name, domid):
        guest = self.guests.get(name)
        if not domid:
            self.guests[name] = guest = create(self.xen, name)
            self._start_io(guest)
        elif guest.is_gone or guest.domid != domid:
            guest.open()
            guest.wait_ready()
            prepare(guest)
            self._start_io(guest)
        elif not guest.agent.is_alive():
            guest.agent = parts.start_agent(guest)

    def _look_around(self):
        """{name: domid} of the guests that are there, or were on their way;
        and those that are held."""
        said = self.xen.check(f'''
for name in {" ".join(UUIDS)}; do
	until id=$(xl domid $name 2> /dev/null) ||
	      ! pgrep -f "xl (create|restore).*/$name[.]" > /dev/null; do
		[ $SECONDS -lt 60 ] || {{ xl list; exit 1; }}
		sleep 0.1
	done
	echo "$name $id"
done
ls {helpers.STATE_DIR} 2> /dev/null || :''', timeout=70)
        return ({name: int(domid) for name, domid
                 in re.findall(r'^(\w+) (\d+)$', said, re.M)},
                [name for name, uuid in UUIDS.items()
                 if f'hold-{uuid}' in said.split()])

    def _start_io(self, guest):
        sizes = self._sizes(guest)
        guest.check(f'mkdir {USES}; for size in {sizes}; do '
                    f'echo 0 > {USES}/$size; done')
        guest.spawn(f'/xusbip/build/tests/xen/disk_io {USES} {sizes}')

    def _sizes(self, guest):
        """In sectors, of the disks that a guest has."""
        return ' '.join(str(device.kib * 2) for device in self.devices.values()
                        if device.guest == guest.name)

    # Settling

    def settle(self):
        """Returns when both sides agree by themselves, every device is there,
        and each is used; what was lost for good is attached anew."""
        began = time.monotonic()
        self.revive()
        revived = time.monotonic()
        wanted, attached = self._wait_agreement()
        settled = time.monotonic()
        self.slowest_s = max(self.slowest_s, settled - revived)
        lost = [device for device in self.devices.values()
                if device.busid not in wanted | attached or
                device.way == 'persist' and device.busid not in wanted]
        with concurrent.futures.ThreadPoolExecutor(len(UUIDS)) as pool:
            for _ in pool.map(lambda guest: self._check_guest(guest, lost),
                              self.guests.values()):
                pass
        print(f'# up after {revived - began:.1f} s, agree after '
              f'{settled - revived:.1f} s more, {len(lost)} attached anew and '
              f'all used after {time.monotonic() - settled:.1f} s more',
              flush=True)

    def _wait_agreement(self):
        """The bus ids that the gateway wants guests to have, and those that
        they have."""
        found = []

        def probe():
            found[:] = self._look_at_both_sides()
            return not found[0]
        try:
            helpers.wait_for('both sides agree', probe, SETTLE_LIMIT_S)
        except CommandError as error:
            raise CommandError(f'{error}: {"; ".join(found[0])}') from None
        return found[1:]

    def _look_at_both_sides(self):
        """What is not yet as it shall be, in words; what is wanted; what is
        attached."""
        said = self.xen.check(f'''cd {helpers.GATEWAY_DIR}; ls
xenstore-ls -f /local/domain/0/data/xusbip''')
        wanted = set(re.findall(r'/want/\d+ = "\w+ attach (\S+)"', said))
        claims = set(re.findall(r'^(\S+)[.]lock$', said, re.M))
        claims &= set(self.devices)
        channels = set(re.findall(r'^(\S+)[.]channel$', said, re.M))
        attached, remarks = set(), []
        for name, guest in self.guests.items():
            mine, are_in_use = attachments(guest)
            if not are_in_use:
                remarks.append(f'{name} has not just the ports of {mine}')
            attached |= set(mine)
        if attached != claims or len(channels) != len(claims):
            remarks.append(f'attached {attached}, claimed {claims}, '
                           f'channels {channels}')
        if not wanted <= attached:
            remarks.append(f'wanted {wanted}, attached {attached}')
        return remarks, wanted, attached

    def _check_guest(self, guest, lost):
        for device in lost:
            if device.guest == guest.name:
                self._attach(guest, device)
        self._check_uses(guest)

    def _attach(self, guest, device):
        if device.way == 'persist':
            check_xusbip(self.xen, f'attach --to {guest.name} --persist '
                                   f'-b {device.busid}')
        elif device.way == 'stock':
            guest.check(f'usbip attach -r 127.0.0.1 -b {device.busid}',
                        timeout=60)
        else:
            check_xusbip(guest, f'attach -r {parts.REMOTE} -b {device.busid}')

    def _check_uses(self, guest):
        """Each disk is read and written on, undamaged."""
        guest.check(f'''cd {USES} || exit
count() {{
	local uses
	read -r uses < $1 && echo "$uses" || echo 0
}}
sizes="{self._sizes(guest)}"
for size in $sizes; do
	goals="$goals $size:$(($(count $size) + {USES_TO_SEE}))"
done
for goal in $goals; do
	until [ "$(count ${{goal%:*}})" -ge ${{goal#*:}} ]; do
		if [ $SECONDS -ge {USE_LIMIT_S} ]; then
			echo "the disk of ${{goal%:*}} sectors is not used"
			exit 1
		fi
		sleep 0.2
	done
done
[ ! -e damaged ] || {{ echo "damaged at"; cat damaged; exit 1; }}''',
                    timeout=USE_LIMIT_S + 20)

    def end(self):
        """Everybody leaves in order, and what was written is there."""
        for name, guest in self.guests.items():
            self._compare(guest)
            for device in self.devices.values():
                if device.guest == name and device.way == 'persist':
                    check_xusbip(self.xen,
                                 f'detach --from {name} -b {device.busid}')
            guest.destroy()
        with self.stick_lock:
            self.xen.unplug('stick')
            self.xen.remove_drive('stick')
        self.gateway.stop(timeout=30)
        self.xen.run('rm -f /tmp/*.save')
        for device in DEVICES:
            check_image(self.xen, device)

    def _compare(self, guest):
        """What it reads of its disks is what the images hold."""
        guest.check('kill $(pgrep -x disk_io)')
        helpers.wait_until(guest, '! pgrep -x disk_io')
        guest.check('echo 3 > /proc/sys/vm/drop_caches')
        ports = {port.port: port for port in helpers.used_vhci_ports(guest)}
        for busid, number in records(guest).items():
            disk = helpers.block_device(guest, ports[number].busid)
            assert parts.digest_within(guest, f'/dev/{disk}') == parts.digest(
                parts.image_path(self.xen, self.devices[busid].image)), busid
