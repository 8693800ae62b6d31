# SPDX-License-Identifier: Apache-2.0
"""What the programs that build images for guests have in common: packages that
are unpacked without being installed, archives in cpio's format, and stamps that
tell when an image is of yesterday."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess

BUSYBOX = '/usr/bin/busybox'


class ImageError(Exception):
    """A sentence for the user: what failed, and what to do."""


def run(*args, cwd=None):
    """The output of a command, or ImageError with its last error line."""
    done = subprocess.run(args, cwd=cwd, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=300, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ['no message']
        raise ImageError(f'{" ".join(args)}: {lines[-1]}')
    return done.stdout


def need_tools(packages):
    """`packages` names the package of each program that must be there."""
    missing = {package for tool, package in packages.items()
               if not shutil.which(tool)}
    if missing:
        raise ImageError('packages are missing; run apt-get install '
                         '--no-install-recommends ' + ' '.join(sorted(missing)))


def candidates(packages):
    """(name, version) pairs of what apt would install."""
    shown = run('apt-cache', 'policy', *packages)
    found = dict(re.findall(r'^(\S+):\n.*\n *Candidate: (\d\S*)', shown, re.M))
    missing = [name for name in packages if name not in found]
    if missing:
        raise ImageError(f'apt knows no {missing[0]}: run apt-get update')
    return list(found.items())


def unpack(packages, work):
    """Downloads (name, version) pairs, and unpacks them into work/root."""
    wanted = [f'{name}={version}' for name, version in packages]
    try:
        run('apt-get', '-q', 'download', *wanted, cwd=work)
    except ImageError as error:
        raise ImageError(f'{error}; apt-get update may help') from None
    for name in os.listdir(work):
        if name.endswith('.deb'):
            run('dpkg', '-x', name, 'root', cwd=work)


def digest(paths):
    total = hashlib.sha256()
    for path in paths:
        with open(path, 'rb') as f:
            total.update(f.read())
    return total.hexdigest()


class Cpio:
    """Writes an archive in the newc format, all of it owned by root."""

    def __init__(self, out):
        self.out = out
        self.inode = 0

    def add(self, name, mode, data=b''):
        self.inode += 1
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0,
                  len(name) + 1, 0)
        head = '070701' + ''.join(f'{field:08x}' for field in fields)
        self.pad(self.out.write(head.encode() + name.encode() + b'\0'))
        self.pad(self.out.write(data))

    def pad(self, length):
        self.out.write(b'\0' * (-length % 4))

    def add_folder(self, name):
        self.add(name, 0o040755)

    def add_link(self, name, target):
        self.add(name, 0o120777, target.encode())

    def add_file(self, name, path):
        with open(path, 'rb') as f:
            self.add(name, 0o100755, f.read())

    def close(self):
        self.add('TRAILER!!!', 0)


@contextlib.contextmanager
def locked(out):
    """Makes the folder of images, and holds its lock."""
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, 'lock'), 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_stamp(out):
    try:
        with open(os.path.join(out, 'stamp'), encoding='ascii') as f:
            return f.read()
    except FileNotFoundError:
        return ''


def make_current(out, sources, find_packages, build):
    """Calls build(out, packages) unless that was done with the same packages
    and the same `sources`, which are files. `find_packages` asks apt for
    (name, version) pairs; without apt's lists, those of the last time do."""
    made_of = digest(sources)
    old_stamp = read_stamp(out)
    try:
        packages = find_packages()
    except ImageError:
        if old_stamp.endswith(f' {made_of}\n'):
            return
        raise
    stamp = ' '.join(f'{name} {version}' for name, version in packages)
    stamp += f' {made_of}\n'
    if stamp == old_stamp:
        return
    stamp_path = os.path.join(out, 'stamp')
    if old_stamp:
        os.unlink(stamp_path)
    build(out, packages)
    with open(stamp_path, 'w', encoding='ascii') as f:
        f.write(stamp)
