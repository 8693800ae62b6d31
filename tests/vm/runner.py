# SPDX-License-Identifier: Apache-2.0
"""Runs files of guest tests, each a program of its own (see bed.py) that has a
limit, and sums them up. A guest keeps one CPU of this machine busy, so as many
files run at a time as it has CPUs, or as the environment's TEST_JOBS says; what
one of several says is shown when it has ended. While somebody else holds the lock
of the environment's CPU_LOCK, it is one file less."""

import concurrent.futures
import contextlib
import fcntl
import glob
import os
import re
import signal
import subprocess
import sys
import threading
import time

FILE_LIMIT_S = 900
SUMMARY = re.compile(r'^(\d+) passed, (\d+) failed, (\d+) skipped$')


def end(process):
    """SIGTERM lets a file stop its guest; what is left then is killed."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class File:
    """A file of tests that runs."""

    running = set()
    lock = threading.Lock()

    def __init__(self, path, limit_s):
        self.name = os.path.basename(path).removesuffix('.py')
        self.process = subprocess.Popen(
            ['timeout', '-k', '10', str(limit_s), sys.executable, path],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            errors='replace')
        self.counts = None

    def line(self, line):
        found = SUMMARY.match(line)
        if not found:
            return line
        self.counts = tuple(int(count) for count in found.groups())
        return '# ' + line

    def verdict(self, status):
        """(passed, failed, skipped)"""
        if self.counts is not None and (not status or self.counts[1]):
            return self.counts
        print(f'not ok - {self.name} ended with status {status} before its '
              'summary', flush=True)
        passed, failed, skipped = self.counts or (0, 0, 0)
        return passed, failed + 1, skipped


class Cpus:
    """As many as there are jobs, the last one under a lock; a file takes one."""

    def __init__(self, num):
        self.lock_path = os.environ.get('CPU_LOCK')
        self.free = threading.Semaphore(num - bool(self.lock_path))
        self.no_more = threading.Event()

    @contextlib.contextmanager
    def one(self):
        if self.free.acquire(blocking=not self.lock_path):
            try:
                yield
            finally:
                self.free.release()
        else:
            with open(self.lock_path, 'w', encoding='ascii') as lock:
                self._wait(lock)
                yield

    def _wait(self, lock):
        while not self.no_more.wait(1):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        raise concurrent.futures.CancelledError


def run_file(path, limit_s, show_at_once):
    """(passed, failed, skipped) of one file, whose output passes through."""
    began = time.monotonic()
    file = File(path, limit_s)
    with File.lock:
        File.running.add(file)
    said = []
    for line in file.process.stdout:
        said.append(file.line(line))
        if show_at_once:
            print(said.pop(), end='', flush=True)
    status = file.process.wait()
    with File.lock:
        File.running.discard(file)
        print(''.join(said), end='')
        print(f'# {file.name}: {time.monotonic() - began:.0f} s', flush=True)
        return file.verdict(status)


def run_files(folder, limit_s):
    """The exit status, after the files of the command line or all there."""
    files = sys.argv[1:] or sorted(glob.glob(os.path.join(folder, 'test_*.py')))
    jobs = int(os.environ.get('TEST_JOBS') or len(os.sched_getaffinity(0)))
    jobs = min(jobs, len(files))
    cpus = Cpus(jobs)

    def run(path):
        with cpus.one():
            return run_file(path, limit_s, jobs == 1)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            counts = list(pool.map(run, files))
        except BaseException:
            cpus.no_more.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for file in list(File.running):
                end(file.process)
            raise
    passed, failed, skipped = map(sum, zip(*counts))
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 1 if failed or not passed else 0


def main(folder, image, limit_s=FILE_LIMIT_S):
    """Builds the image, runs the tests of a folder, and exits."""
    # So that what runs is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by SIGTERM'))
    try:
        subprocess.run([os.path.join(folder, image)], check=True)
        sys.exit(run_files(folder, limit_s))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
