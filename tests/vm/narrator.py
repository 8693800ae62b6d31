# SPDX-License-Identifier: Apache-2.0
"""What the demos have in common: each step is shown as the command that a
person would type, with its real output, and the way of a letter to a guest and
of the answer back is the same in all of them.

Who runs commands has `run(command)`, which shows it and returns its output: a
Shell here, or the machine of a demo that has one of its own.
"""

import signal
import subprocess
import sys
import tempfile
import time

import helpers
from guest import CommandError, GuestError, QmpError

STEP_LIMIT_S = 30
LETTER = 'letter.txt'


class DemoError(Exception):
    """A step did not do what it must; the text says which and how."""


def say(text=''):
    print(text, flush=True)


def headline(text):
    say(f'\n\033[1m== {text}\033[0m' if sys.stdout.isatty() else f'\n== {text}')


def show(prompt, command, output=''):
    say(f'{prompt} {command}')
    if output.strip('\n'):
        say(output.rstrip('\n'))


class Shell:
    """That of a guest, or of a dom0: the programs of the tree are in its
    PATH."""

    def __init__(self, guest, name='guest', path='/xusbip/build'):
        self.guest = guest
        self.prompt = f'{name} #'
        self.setup = f'PATH={path}:$PATH; cd /root'

    def begin(self):
        show(self.prompt, self.setup)

    def run(self, command, timeout=STEP_LIMIT_S):
        """Shows and runs a command; its output."""
        show(self.prompt, command)
        status, output = self.guest.run(f'{self.setup}\n{command}', timeout)
        if output.strip('\n'):
            say(output.rstrip('\n'))
        if status:
            raise DemoError(f'{command}: exit status {status}')
        return output

    def start(self, command):
        """Shows and starts one of our daemons; its Job, which is ready."""
        show(self.prompt, f'{command} &')
        job = self.guest.spawn(f"bash -c '{self.setup}; exec {command}'")
        helpers.wait_for(f'{command} is ready', lambda: 'ready' in job.log() or
                         not job.is_alive(), STEP_LIMIT_S)
        say(job.log().rstrip('\n'))
        return job


def make_disk(host):
    """stick.img, with a letter on it."""
    host.run('truncate -s 16M stick.img')
    host.run('mkfs.vfat -n XUSBIP stick.img')
    host.run(f'seq -f "line %.0f of a letter to the guest" 20000 > {LETTER}')
    host.run(f'mcopy -i stick.img {LETTER} ::')


def take_the_disk(shell):
    """The stock commands, up to the disk's device node; its port."""
    headline('In the guest the stock usbip takes the disk')
    shell.run('usbip list -r 127.0.0.1')
    shell.run('usbip attach -r 127.0.0.1 -b stick')
    used = helpers.wait_for(
        'a vhci port is in use',
        lambda: [port for port in helpers.used_vhci_ports(shell.guest)
                 if port.status == helpers.VHCI_PORT_USED])
    shell.run('usbip port')
    return used[0], helpers.block_device(shell.guest, used[0].busid)


def read_the_letter(host, shell, disk):
    """And answers it."""
    headline('It is mounted, and the letter is read')
    shell.run(f'mount /dev/{disk} /mnt')
    shell.run('ls -l /mnt')
    shell.run(f'tail -n 1 /mnt/{LETTER}')
    there = shell.run(f'sha256sum /mnt/{LETTER}').split()[0]
    here = host.run(f'sha256sum {LETTER}').split()[0]
    if there != here:
        raise DemoError('the guest has read another letter')
    say('the same letter on both sides')
    shell.run(f'rm /mnt/{LETTER}; echo thank you > /mnt/answer.txt')
    shell.run('umount /mnt')


def give_it_back(host, shell, port, read_log):
    """And reads the answer. `read_log` returns what the gateway has logged."""
    shell.run(f'usbip detach -p {port.port}')
    helpers.wait_vhci_ports_free(shell.guest)
    shell.run('usbip port')
    helpers.wait_for('the gateway has the disk back',
                     lambda: ': stick detached' in read_log())
    say('the gateway has logged:')
    say('\n'.join(line for line in read_log().splitlines()
                  if 'stick' in line))
    answer = host.run('mtype -i stick.img ::answer.txt')
    if answer.strip() != 'thank you':
        raise DemoError('the guest has written another answer')


def test(path, name):
    """Runs a demo as a test of its own (see bed.py), and exits."""
    began = time.monotonic()
    done = subprocess.run([path], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    is_good = done.returncode == 0 and 'demo: success' in done.stdout
    if not is_good:
        for line in done.stdout.splitlines():
            say(f'#   {line}')
    say('1..1')
    say(f'{"ok" if is_good else "not ok"} 1 - {name} '
        f'({time.monotonic() - began:.1f} s)')
    say(f'{int(is_good)} passed, {int(not is_good)} failed, 0 skipped')
    sys.exit(0 if is_good else 1)


def main(run, limit_s, done):
    """Does run(folder) within a limit; the exit status. `done` is what a
    success means."""
    began = time.monotonic()

    def on_signal(number, _):
        raise DemoError(f'not done after {limit_s} s'
                        if number == signal.SIGALRM
                        else f'ended by {signal.Signals(number).name}')
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    signal.alarm(limit_s)
    try:
        with tempfile.TemporaryDirectory(prefix='xusbip-demo.') as folder:
            run(folder)
    except (DemoError, CommandError, GuestError, QmpError, OSError,
            subprocess.SubprocessError) as error:
        say(f'\ndemo: FAILED: {error}')
        return 1
    say(f'\ndemo: success: {done} ({time.monotonic() - began:.0f} s)')
    return 0
