# SPDX-License-Identifier: Apache-2.0
"""Real Xen in QEMU: a dom0, and guests that have nothing but Xen.

    with Xen('name') as xen:
        xen.check('xl info')
        with xen.create('u1') as u1:
            u1.check('modprobe vhci-hcd')
            status, output = u1.run('usbip port', timeout=10)

The dom0 is a Guest as in tests/vm, with its devices, shares and jobs; Debian's
Xen tools are in their places. A Domain runs commands over its console, whose
bytes a relay in the dom0 (consoles) brings here; the first process of the guest
(domu-agent) answers. No network is involved, and a save does no harm.
"""

import base64
import collections
import itertools
import json
import os
import re
import shlex
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

from guest import (TREE, CommandError, Commands, Guest, GuestError,  # noqa: E402
                   Job, Lines, Result)
from guest import IMAGE as VM_IMAGE  # noqa: E402

IMAGE = os.path.join(TREE, 'build', 'xen')
# Switching the FPU lazily, Xen's choice here, mixes up the registers of guests
# that share a CPU when QEMU emulates it.
HYPERVISOR_WORDS = ('console=com1 com1=115200,8n1 dom0_max_vcpus=1 '
                    'dom0_vcpus_pin loglvl=warning guest_loglvl=warning '
                    'conring_size=1M spec-ctrl=no,eager-fpu xpti=no')
DOMU_WORDS = 'console=hvc0 quiet panic=-1 oops=panic mitigations=off'
# What QEMU's emulation of SVM does not have.
PVH_CONFIG = {'cpuid': 'host,rdtscp=0', 'tsc_mode': 'native'}
BRIDGE = 'xenbr0'
NETWORK = '10.77.0'
SCRIPT_CHUNK_BYTES = 2880
ANSWER_MARK = '\x01'
BASE64_LINE = re.compile(r'[A-Za-z0-9+/]+=*\Z')
TAIL_LINES = 30
HOST_MARGIN_S = 30

DomainInfo = collections.namedtuple('DomainInfo',
                                    'name domid memory vcpus state')


class DomainError(GuestError):
    """A guest of Xen is gone or does not answer; holds its last words."""


class Domain(Commands):
    """A guest of Xen; Xen.create() makes it. `domid` and `uuid` are those of
    its present life: a reboot and a restore change the first. Leaving `with`
    destroys it."""

    def __init__(self, xen, name):
        self.xen = xen
        self.name = name
        self.domid = None
        self.uuid = None
        self.address = None
        self.boot_s = None
        self.is_gone = True
        self.is_paused = False
        self.console_path = f'{xen.console_path}.{name}'
        self.num_complaints = 0
        self.jobs = []
        self._forget()

    def _forget(self):
        self._unread = b''
        self._output = None
        self._answers = {}
        self._pids = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.xen.is_running() and not self.is_gone:
            self.destroy()

    # Its console

    def feed(self, data):
        """Takes what came from the console; the relay's condition is held."""
        *lines, self._unread = (self._unread + data).split(b'\n')
        for raw in lines:
            line = raw.decode(errors='replace').rstrip('\r')
            noise, mark, answer = line.partition(ANSWER_MARK)
            if self._output is not None and BASE64_LINE.match(noise):
                self._output.append(noise)
            elif noise:
                self._log(noise)
            if mark:
                try:
                    self._on_answer(*answer.split())
                except (TypeError, ValueError):
                    self._log(answer)  # the kernel wrote into it

    def _log(self, line):
        with open(self.console_path, 'a', encoding='utf-8') as f:
            f.write(line + '\n')

    def _on_answer(self, verb, ident, value='', length='-'):
        if verb == 'output':
            self._output = []
        elif verb == 'pid':
            self._pids[ident] = int(value)
        elif length == '-':
            self._answers[verb, ident] = int(value) if value else 0, ''
        else:
            output = base64.b64decode(''.join(self._output or []))
            self._output = None
            if len(output) != int(length):
                output += b'\n(the console damaged this)\n'
            self._answers[verb, ident] = (int(value),
                                          output.decode(errors='replace'))

    def _send(self, *words):
        text = base64.b64encode((' '.join(words) + '\n').encode()).decode()
        self.xen.send_console(f'send {self.domid} {text}')

    def _need(self, condition, limit_s, what):
        self.xen.wait_console(lambda: self.is_gone or condition(), limit_s)
        if condition():
            return
        how = ('ended during' if self.is_gone
               else f'gave within {limit_s} s no answer to')
        raise DomainError(f'domain {self.name} ({self.domid}) {how} {what}; '
                          f'its last words:\n{self.console_tail()}')

    def console_tail(self, lines=TAIL_LINES):
        try:
            with open(self.console_path, encoding='utf-8') as f:
                return ''.join(f.readlines()[-lines:])
        except FileNotFoundError:
            return ''

    # Commands, as in Guest

    def _write_script(self, command):
        ident = str(next(self.xen.idents))
        text = (command + '\n').encode()
        for start in range(0, len(text), SCRIPT_CHUNK_BYTES):
            chunk = text[start:start + SCRIPT_CHUNK_BYTES]
            self._send('script', ident, base64.b64encode(chunk).decode())
        return ident

    def run(self, command, timeout=30):
        """Result(status, output) of a bash script, as Guest.run."""
        ident = self._write_script(command)
        self._send('run', ident, str(timeout))
        limit_s = timeout * self.xen.slowdown + HOST_MARGIN_S
        self._need(lambda: ('exit', ident) in self._answers, limit_s,
                   repr(command))
        return Result(*self._answers.pop(('exit', ident)))

    def spawn(self, command, timeout=20):
        """Starts one command (`exec`ed) as a Job, as Guest.spawn."""
        ident = self._write_script('exec ' + command)
        job = Job(self, ident, command)
        self._send('start', ident)
        self._need(lambda: ident in self._pids, timeout + HOST_MARGIN_S,
                   repr(command))
        job.pid = self._pids[ident]
        self.jobs.append(job)
        return job

    def exit_status(self, ident):
        """A domain that is gone has ended what ran in it."""
        if ('exit', ident) in self._answers:
            return self._answers['exit', ident][0]
        return 128 + 9 if self.is_gone else None

    def wait_exit(self, ident, timeout):
        self.xen.wait_console(lambda: self.exit_status(ident) is not None,
                              timeout)
        return self.exit_status(ident) is not None

    def read_output(self, ident):
        if self.is_gone:
            return ''
        self._send('log', ident)
        self._need(lambda: ('log', ident) in self._answers, HOST_MARGIN_S,
                   'the log of a job')
        return self._answers.pop(('log', ident))[1]

    # Life

    def open(self, seen=None, limit=15):
        """Looks for the domain of this name, and connects to its console.
        `seen` is a domid that it had before, not to be taken again."""
        status, output = self.xen.run(f'''
until id=$(xl domid {self.name} 2> /dev/null) && [ "$id" != "{seen}" ] &&
      tty=$(xenstore-read /local/domain/$id/console/tty 2> /dev/null) &&
      [ -n "$tty" ]; do
	if [ $SECONDS -ge {limit * self.xen.slowdown} ]; then
		tail -n {TAIL_LINES} /var/log/xen/console/guest-{self.name}.log
		exit 1
	fi
	sleep 0.1
done
echo $id $tty $(xenstore-read /local/domain/$id/vm)''', timeout=limit + 20)
        if status:
            raise DomainError(f'domain {self.name} did not come up within '
                              f'{limit} s; its last words:\n{output}')
        domid, path, uuid = output.split()
        self.xen.forget_console(self)
        self._forget()
        self.domid = int(domid)
        self.uuid = uuid.removeprefix('/vm/')
        self.is_gone = False
        self.is_paused = False
        self.xen.open_console(self, path)

    def wait_ready(self, limit=90):
        """Returns when its first process is at work."""
        began = time.monotonic()
        self._need(lambda: any(verb == 'ready' for verb, _ in self._answers),
                   limit * self.xen.slowdown, 'its start')
        self.boot_s = time.monotonic() - began

    def _greet(self):
        word = str(next(self.xen.idents))
        self._send('hello', word)
        self._need(lambda: ('hello', word) in self._answers, HOST_MARGIN_S,
                   'a greeting')

    def wait_gone(self, limit=20):
        """Returns when Xen knows the present domid no longer; a zombie counts
        as there."""
        self.xen.check(f'''
while xl list {self.domid} > /dev/null 2>&1; do
	[ $SECONDS -lt {limit} ] || {{ xl list; exit 1; }}
	sleep 0.1
done''', timeout=limit + 10)
        self._lose()

    def _lose(self):
        self.is_gone = True
        self.xen.forget_console(self)

    def shutdown(self, limit=40):
        """Asks it to end, and waits until it has."""
        self.xen.check(f'xl shutdown {self.domid}')
        self.wait_gone(limit)

    def destroy(self, limit=20):
        self.xen.check(f'xl destroy {self.domid}')
        self.wait_gone(limit)

    def reboot(self, limit=90):
        """Asks it to start anew, and waits until it has."""
        self.xen.check(f'xl reboot {self.domid}')
        self.wait_rebooted(limit)

    def wait_rebooted(self, limit=90):
        self.open(seen=self.domid, limit=limit)
        self.wait_ready(limit)

    def pause(self):
        self.xen.check(f'xl pause {self.domid}')
        self.is_paused = True

    def unpause(self):
        self.xen.check(f'xl unpause {self.domid}')
        self.is_paused = False

    def save(self, path, limit=120):
        """Saves it to a file in the dom0, and waits until it is gone. When it
        does not let itself be saved: CommandError, and it goes on."""
        try:
            self.xen.check(f'xl save {self.domid} {shlex.quote(path)}', limit)
        except CommandError:
            self._greet()
            raise
        self.wait_gone()

    def restore(self, path, limit=120):
        """Makes it go on from such a file, with what ran in it."""
        self.xen.check(f'xl restore {shlex.quote(path)}', limit)
        self.reopen()

    def reopen(self):
        """Finds it again after somebody has restored it."""
        pids, answers = self._pids, self._answers
        self.open()
        self._pids, self._answers = pids, answers
        self._greet()


class Xen(Guest):
    """A Guest that is the dom0 of a Xen. `mem` is the whole machine's memory,
    `dom0_mem` of it the dom0's; the rest is for guests. The first CPU is the
    dom0's, guests share the second; with `icount` all share one."""

    folder = IMAGE
    ports = ('agent', 'consoles')
    patience = 4

    def __init__(self, name, *, smp=2, mem=2048, dom0_mem=1024, **options):
        super().__init__(name, smp=smp, mem=mem, **options)
        self.dom0_mem = dom0_mem
        self.idents = itertools.count(1)
        self.guests = []
        self._consoles = None

    @property
    def slowdown(self):
        return 8 if self.icount else 1

    def start(self, limit=180):
        return super().start(limit)

    def launch(self):
        self.guests = []
        return super().launch()

    def _connect(self, sockets):
        super()._connect(sockets)
        self._by_domid = {}
        self._consoles = Lines(sockets['consoles'], self._on_console_line)

    def _boot_arguments(self):
        dom0 = (f'console=hvc0 bed.xen {self._kernel_words()}').replace(
            ',', ',,')
        modules = [os.path.join(VM_IMAGE, name).replace(',', ',,')
                   for name in ('vmlinux', 'initrd.cpio')]
        return ['-accel', 'tcg,thread=single', '-cpu', 'max,-smap,-erms,-fsrm',
                '-kernel', os.path.join(IMAGE, 'xen'),
                '-append', f'{HYPERVISOR_WORDS} dom0_mem={self.dom0_mem}M,'
                           f'max:{self.dom0_mem}M',
                '-initrd', f'{modules[0]} {dom0},{modules[1]}']

    # Consoles of guests

    def _on_console_line(self, line):
        verb, domid, *rest = line.split()
        domain = self._by_domid.get(domid)
        if not domain:
            return
        if verb == 'data':
            domain.feed(base64.b64decode(rest[0]))
        elif verb == 'gone':
            domain.is_gone = True

    def send_console(self, line):
        self._consoles.send(line + '\n')

    def wait_console(self, condition, limit_s):
        if not self._consoles.wait(condition, limit_s) and \
                self._consoles.ended:
            raise GuestError(f'guest {self.name} ended; its last words:\n'
                             f'{self.console_tail()}')

    def open_console(self, domain, path):
        self._by_domid[str(domain.domid)] = domain
        self.send_console(f'open {domain.domid} {path}')

    def forget_console(self, domain):
        """What still comes from its present domid is not for it."""
        with self._consoles.changed:
            known = self._by_domid.pop(str(domain.domid), None)
        if known:
            self.send_console(f'close {domain.domid}')

    # Guests

    def create(self, name, *, memory=160, kind='pv', vif=False, wait=True,
               extra_config=None):
        """A new Domain that answers, or (not `wait`) one that boots. `vif`
        puts it into the network of bridge(). `extra_config` has more entries
        for its xl.cfg, or others."""
        domain = Domain(self, name)
        with open(os.path.join(self.share, name + '.cfg'), 'w',
                  encoding='utf-8') as f:
            f.write(self._config(name, memory, kind, vif, extra_config or {}))
        if os.path.exists(domain.console_path):
            os.unlink(domain.console_path)
        self.check(f'xl create -q /share/{name}.cfg', timeout=120)
        domain.open()
        self.guests.append(domain)
        if wait:
            domain.wait_ready()
        if vif:
            domain.address = f'{NETWORK}.{domain.domid + 1}'
            domain.check('modprobe xen-netfront; until ip addr add '
                         f'{domain.address}/24 dev eth0; do sleep 0.1; done; '
                         'ip link set eth0 up')
        return domain

    def _config(self, name, memory, kind, vif, more):
        config = {
            'name': name, 'type': kind, 'memory': memory, 'vcpus': 1,
            'kernel': '/run/domu/vmlinux', 'ramdisk': '/run/domu/domu.cpio',
            'extra': DOMU_WORDS, 'on_poweroff': 'destroy',
            # As by itself on every CPU whose TSC is constant; QEMU does not
            # say that its is, and each look at the clock would enter Xen.
            'tsc_mode': 'native',
            'on_reboot': 'restart', 'on_crash': 'destroy',
        }
        if kind == 'pvh':
            config |= PVH_CONFIG
        if self.smp > 1:
            config['cpus'] = '1'
        if vif:
            config['vif'] = [f'bridge={BRIDGE}']
        return ''.join(f'{key} = {value!r}\n'
                       for key, value in (config | more).items())

    def bridge(self):
        """Makes the network that guests with a vif share; the dom0's address
        in it."""
        address = f'{NETWORK}.1'
        self.check(f'''
modprobe -a bridge xen-netback
ip link show {BRIDGE} > /dev/null 2>&1 && exit
ip link add {BRIDGE} type bridge
ip addr add {address}/24 dev {BRIDGE}
ip link set {BRIDGE} up''')
        return address

    def inner_guests(self):
        """Those that can be asked for something."""
        return [domain for domain in self.guests
                if not domain.is_gone and not domain.is_paused]

    def domains(self):
        """A DomainInfo for each domain, the dom0 and zombies included. `state`
        is as xl shows it, without dashes: some of 'rbpscd'."""
        found = []
        for line in self.check('xl list').splitlines()[1:]:
            name, domid, memory, vcpus, state, _ = line.split()
            found.append(DomainInfo(name, int(domid), int(memory), int(vcpus),
                                    state.replace('-', '')))
        return found

    def leftovers(self):
        """What xusbip and guests hold in the dom0 and in Xen, to be compared:
        see the program of this name."""
        return json.loads(self.check('tests/xen/leftovers', timeout=60))

    def check_no_leftovers(self, before, limit=15):
        """Returns when leftovers() are those of `before`; CommandError, which
        names the difference, when they are not within `limit` seconds."""
        end = time.monotonic() + limit * self.slowdown
        while True:
            now = self.leftovers()
            if now == before:
                return
            if time.monotonic() > end:
                break
        lines = [f'{key}: {before[key]} before, {now[key]} now'
                 for key in before if before[key] != now[key]]
        raise CommandError(f'left behind after {limit} s:\n' +
                           '\n'.join(lines))
