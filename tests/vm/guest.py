# SPDX-License-Identifier: Apache-2.0
"""A test guest: Debian's kernel in QEMU over the host's own file system.

    with Guest('name') as guest:
        guest.check('modprobe vhci-hcd')
        status, output = guest.run('usbip port', timeout=10)

QEMU is reached through two sockets that it inherits: QMP, and the guest's agent
on a virtio-serial port. A thread reads each, so that answers come in any order
and the end of QEMU wakes whoever waits at once. A guest kernel that panics ends
QEMU. Nothing outlives this process: QEMU dies with it, by the kernel's hand.

In a guest, /xusbip is the source tree, read-only, and the working folder of
every command; /share is Guest.share on the host, for files in both directions.
"""

import atexit
import collections
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import socket
import subprocess
import threading
import time

TREE = os.path.realpath(os.path.join(os.path.dirname(__file__), '..', '..'))
IMAGE = os.path.join(TREE, 'build', 'vm')
APPEND = 'quiet panic=-1 oops=panic mitigations=off'
CONSOLE_TAIL_LINES = 30
HOST_MARGIN_S = 15
ICOUNT_SLOWDOWN = 8

Result = collections.namedtuple('Result', 'status output')


class GuestError(Exception):
    """The guest itself is gone or does not answer; holds its last words."""


class CommandError(Exception):
    """A command in the guest failed; holds the command and its output."""


class QmpError(Exception):
    """QEMU refused a QMP command."""


class Lines:
    """Reads lines from a socket in a thread; the owner waits for what came.

    `on_line` is called with the condition held. `ended` says that the socket
    is at its end, so nothing more will come.
    """

    def __init__(self, sock, on_line):
        self.changed = threading.Condition()
        self.ended = False
        self._on_line = on_line
        self._sock = sock
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            with self._sock.makefile('r', encoding='utf-8',
                                     errors='replace') as lines:
                for line in lines:
                    with self.changed:
                        self._on_line(line)
                        self.changed.notify_all()
        except OSError:
            pass
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def send(self, text):
        try:
            self._sock.sendall(text.encode())
        except OSError:
            pass  # the reader sees the same end, and says so

    def wait(self, condition, limit_s):
        """True when `condition` holds, False when it can't or did not."""
        with self.changed:
            self.changed.wait_for(lambda: condition() or self.ended, limit_s)
            return bool(condition())


class Job:
    """A process started in a guest that goes on by itself."""

    def __init__(self, guest, ident, command):
        self._guest = guest
        self._ident = ident
        self.command = command
        self.pid = None

    @property
    def status(self):
        """The exit status, or None while it runs."""
        return self._guest.exit_status(self._ident)

    def is_alive(self):
        return self.status is None

    def log(self):
        """What it wrote so far."""
        return self._guest.read_output(self._ident)

    def kill(self, signal='TERM'):
        """Signals the process alone (its children are another matter)."""
        self._guest.run(f'kill -{signal} {self.pid}')

    def wait(self, timeout=30):
        """Its exit status; CommandError when it does not end in time."""
        if not self._guest.wait_exit(self._ident, timeout):
            raise CommandError(f'{self.command}: still runs after {timeout} s:'
                               f'\n{self.log()}')
        return self.status

    def stop(self, signal='TERM', timeout=10):
        """Ends it if it runs; its exit status."""
        if self.is_alive():
            self.kill(signal)
        return self.wait(timeout)


class Commands:
    """What runs commands in a guest by a `run` of its own."""

    def check(self, command, timeout=30):
        """The output of a command that must succeed, or CommandError."""
        status, output = self.run(command, timeout)
        if status:
            how = (f'did not end within {timeout} s' if status in (124, 137)
                   else f'failed with status {status}')
            raise CommandError(f'{command}: {how}:\n{output}')
        return output


class Guest(Commands):
    """One QEMU. `devices` are more QEMU arguments; an xHCI controller named
    `xhci` is always there. `net` gives a user network: the host is 10.0.2.2,
    and each (host port, guest port) of `hostfwd` leads in. `icount` makes the
    guest's clock count instructions. `append` goes to the kernel. One vCPU is
    the default because it hardly feels the load of the host; ask for two where
    a test is about things that happen at once.
    """

    folder = IMAGE
    ports = ('agent',)
    patience = 1  # multiplies the limits of tests

    def __init__(self, name, *, smp=1, mem=1024, devices=(), icount=False,
                 net=False, hostfwd=(), append=''):
        self.name = name
        self.smp = 1 if icount else smp
        self.mem = mem
        self.devices = list(devices)
        self.icount = icount
        self.net = net or bool(hostfwd)
        self.hostfwd = list(hostfwd)
        self.append = append
        self.share = os.path.join(self.folder, name + '.share')
        self.console_path = os.path.join(self.folder, name + '.console')
        self.qemu_log_path = os.path.join(self.folder, name + '.qemu')
        self._process = None
        self._lock_file = None
        self._forget()

    def _forget(self):
        self._idents = itertools.count(1)
        self._exits = {}
        self._pids = {}
        self._replies = {}
        self._events = []
        self.jobs = []
        self.num_complaints = 0
        self._agent = None
        self._qmp = None
        self.boot_s = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # Life

    def start(self, limit=90):
        """Boots, and returns itself when the agent answers."""
        began = time.monotonic()
        self.launch()
        try:
            self._need(self._agent, lambda: 'ready' in self._exits, limit,
                       'the boot')
            self.qmp('qmp_capabilities')
        except BaseException:
            self.stop()
            raise
        self.boot_s = time.monotonic() - began
        return self

    def launch(self):
        """Starts QEMU without waiting for the boot; returns itself."""
        self._take_name()
        self._forget()
        shutil.rmtree(self.share, ignore_errors=True)
        os.mkdir(self.share)
        ours, theirs = {}, {}
        with contextlib.ExitStack() as stack:
            for name in ('qmp', *self.ports):
                ours[name], peer = socket.socketpair()
                theirs[name] = stack.enter_context(peer).fileno()
            self._spawn(theirs)
        atexit.register(self.stop)
        self._connect(ours)
        return self

    def _connect(self, sockets):
        self._agent = Lines(sockets['agent'], self._on_agent_line)
        self._qmp = Lines(sockets['qmp'], self._on_qmp_line)

    def stop(self):
        """Ends QEMU at once. Its console and its log stay for reading."""
        atexit.unregister(self.stop)
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._lock_file:
            self._lock_file.close()
            self._lock_file = None

    @property
    def pid(self):
        """QEMU's, while it runs."""
        return self._process and self._process.pid

    def is_running(self):
        return self._process is not None and not self._agent.ended

    def _take_name(self):
        if self._process:
            raise GuestError(f'guest {self.name} was started already')
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, self.name + '.lock')
        self._lock_file = open(path, 'w', encoding='ascii')
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            self._lock_file = None
            raise GuestError(f'guest {self.name} runs already: {path} is held '
                             'by another process') from None

    def _spawn(self, fds):
        with open(self.qemu_log_path, 'wb') as log:
            self._process = subprocess.Popen(
                ['setpriv', '--pdeathsig', 'KILL', 'sh', '-c',
                 # We may have died before setpriv asked to be told of it.
                 '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())] +
                self._arguments(fds),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=tuple(fds.values()), start_new_session=True)

    def _arguments(self, fds):
        return [
            'qemu-system-x86_64', '-name', self.name,
            '-M', 'q35,sata=off,smbus=off,i8042=off',
            '-smp', str(self.smp), '-m', str(self.mem),
            '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
            '-serial', 'file:' + self.console_path,
            '-chardev', f'socket,id=qmp,fd={fds["qmp"]}',
            '-mon', 'chardev=qmp,mode=control',
            '-device', 'virtio-serial-pci',
            '-device', 'qemu-xhci,id=xhci,p2=8,p3=8',
        ] + (
            self._boot_arguments() + self._port_arguments(fds) +
            self._share_arguments('host', '/', 'readonly=on') +
            self._share_arguments('xusbip', TREE, 'readonly=on') +
            self._share_arguments('share', self.share, 'readonly=off') +
            self._icount_arguments() + self._net_arguments() + self.devices)

    def _boot_arguments(self):
        """The processor, and what it starts with."""
        accel = 'tcg,thread=' + ('single' if self.icount else 'multi')
        return ['-accel', accel, '-cpu', 'max,-erms,-fsrm',
                '-kernel', os.path.join(IMAGE, 'vmlinux'),
                '-initrd', os.path.join(IMAGE, 'initrd.cpio'),
                '-append', 'console=ttyS0 tsc=reliable no_timer_check '
                           + self._kernel_words()]

    def _kernel_words(self):
        return f'{APPEND} {"bed.net" if self.net else ""} {self.append}'

    def _port_arguments(self, fds):
        arguments = []
        for number, name in enumerate(self.ports, 1):
            arguments += [
                '-chardev', f'socket,id={name},fd={fds[name]}', '-device',
                f'virtserialport,chardev={name},name={name},nr={number}']
        return arguments

    @staticmethod
    def _share_arguments(tag, path, access):
        path = path.replace(',', ',,')
        return ['-fsdev', f'local,id={tag},path={path},security_model=none,'
                          f'multidevs=remap,{access}',
                '-device', f'virtio-9p-pci,fsdev={tag},mount_tag={tag}']

    def _icount_arguments(self):
        return ['-icount', 'shift=0,sleep=on'] if self.icount else []

    def _net_arguments(self):
        if not self.net:
            return []
        forwards = ''.join(f',hostfwd=tcp:127.0.0.1:{host}-:{guest}'
                           for host, guest in self.hostfwd)
        return ['-netdev', 'user,id=net' + forwards,
                '-device', 'virtio-net-pci,netdev=net,romfile=']

    @staticmethod
    def inner_guests():
        """Those that run within this one, for who looks after them all."""
        return []

    # Waiting

    def console_tail(self, lines=CONSOLE_TAIL_LINES):
        """The last lines of the console, and what QEMU itself said."""
        tail = []
        for path in (self.qemu_log_path, self.console_path):
            try:
                with open(path, encoding='utf-8', errors='replace') as f:
                    tail += [line.rstrip() for line in f][-lines:]
            except FileNotFoundError:
                pass
        return '\n'.join(tail)

    def _need(self, lines, condition, limit_s, what):
        if lines is None:
            raise GuestError(f'guest {self.name} was not started')
        if lines.wait(condition, limit_s):
            return
        how = (f'ended during {what}' if lines.ended
               else f'gave no answer to {what} within {limit_s} s')
        raise GuestError(f'guest {self.name} {how}; its last words:\n'
                         f'{self.console_tail()}')

    # Commands

    def _on_agent_line(self, line):
        words = line.split()
        if len(words) == 3 and words[0] == 'exit':
            self._exits[words[1]] = int(words[2])
        elif len(words) == 3 and words[0] == 'pid':
            self._pids[words[1]] = int(words[2])
        elif words and words[0] == 'ready':
            self._exits['ready'] = 0

    def _write_script(self, command):
        ident = str(next(self._idents))
        path = os.path.join(self.share, ident + '.sh')
        with open(path, 'w', encoding='utf-8') as f:
            f.write(command + '\n')
        return ident

    def read_output(self, ident):
        try:
            with open(os.path.join(self.share, ident + '.out'),
                      encoding='utf-8', errors='replace') as f:
                return f.read()
        except FileNotFoundError:
            return ''

    def exit_status(self, ident):
        return self._exits.get(ident)

    def wait_exit(self, ident, timeout):
        return self._agent.wait(lambda: ident in self._exits, timeout)

    def run(self, command, timeout=30):
        """Result(status, output) of a bash script; output holds stderr too.

        At the end of `timeout` (guest seconds) the guest kills the process
        group, and the status is 124 (137 if it had to be SIGKILL). What the
        script moved to another session (setsid, a daemon) goes on.
        """
        ident = self._write_script(command)
        self._agent.send(f'run {ident} {timeout}\n')
        limit_s = timeout * (ICOUNT_SLOWDOWN if self.icount else 1)
        self._need(self._agent, lambda: ident in self._exits,
                   limit_s + HOST_MARGIN_S, repr(command))
        result = Result(self._exits.pop(ident), self.read_output(ident))
        for suffix in ('.sh', '.out'):
            os.unlink(os.path.join(self.share, ident + suffix))
        return result

    def spawn(self, command, timeout=20):
        """Starts one command (`exec`ed: no pipes or lists) as a Job.

        It has a session of its own; Job.pid is the pid of the command itself.
        """
        ident = self._write_script('exec ' + command)
        job = Job(self, ident, command)
        self._agent.send(f'start {ident}\n')
        self._need(self._agent, lambda: ident in self._pids, timeout,
                   repr(command))
        job.pid = self._pids[ident]
        self.jobs.append(job)
        return job

    # QEMU's monitor

    def _on_qmp_line(self, line):
        message = json.loads(line)
        if 'event' in message:
            self._events.append(message)
        elif 'id' in message:
            self._replies[message['id']] = message

    def qmp(self, command, /, timeout=20, **arguments):
        """What QEMU returns; '_' in names of arguments stands for '-'."""
        ident = next(self._idents)
        arguments = {name.replace('_', '-'): value
                     for name, value in arguments.items()}
        self._qmp.send(json.dumps({'execute': command, 'id': ident,
                                   'arguments': arguments}) + '\n')
        self._need(self._qmp, lambda: ident in self._replies, timeout, command)
        reply = self._replies.pop(ident)
        if 'error' in reply:
            raise QmpError(f'{command} {arguments}: {reply["error"]["desc"]}')
        return reply['return']

    def plug(self, driver, ident, bus='xhci.0', timeout=20, **properties):
        """device_add; '_' in names of properties stands for '-'."""
        self.qmp('device_add', timeout, driver=driver, id=ident, bus=bus,
                 **properties)

    def unplug(self, ident, timeout=20):
        """device_del, and waits until QEMU has let the device go."""
        def is_gone():
            return any(event['event'] == 'DEVICE_DELETED' and
                       event['data'].get('device') == ident
                       for event in self._events[seen:])
        seen = len(self._events)
        self.qmp('device_del', timeout, id=ident)
        self._need(self._qmp, is_gone, timeout, f'the unplugging of {ident}')

    def add_drive(self, ident, path, readonly=False):
        """A block node over a raw image file, to plug(drive=ident)."""
        self.qmp('blockdev-add', node_name=ident, driver='raw',
                 read_only=readonly,
                 file={'driver': 'file', 'filename': path})

    def remove_drive(self, ident):
        self.qmp('blockdev-del', node_name=ident)

    # Input

    def send_events(self, events):
        """Input events in QMP's own form, as one report."""
        self.qmp('input-send-event', events=events)

    def press(self, *keys):
        """Presses and lets go each key in turn, by QEMU's names ('a', 'ret')."""
        for key in keys:
            for down in (True, False):
                self.send_events([{'type': 'key', 'data': {
                    'down': down, 'key': {'type': 'qcode', 'data': key}}}])

    def point(self, x, y):
        """Moves a tablet to (x, y), each from 0 to 32767."""
        self.send_events([{'type': 'abs', 'data': {'axis': 'x', 'value': x}},
                          {'type': 'abs', 'data': {'axis': 'y', 'value': y}}])
